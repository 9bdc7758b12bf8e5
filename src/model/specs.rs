//! stub.
use super::config::GptConfig;
use super::param::ParamSpec;
/// stub.
pub fn gpt_specs(_config: &GptConfig) -> Vec<ParamSpec> {
    Vec::new()
}
