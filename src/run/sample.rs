//! Text from a run's weights: for `samples.txt` at its end, and for `nanorun sample`.

use std::fmt::Write as _;

use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::generate::{EngineDecoder, Sampling, SplitMix64, generate};
use crate::plan::run_config::RunConfig;
use crate::train::engine::Engine;

/// What `samples.txt` begins with; a prompt that the tokenizer or the context has no room for is left out.
const PROMPTS: [&str; 3] = ["", "The ", "I "];
/// Tokens of each of its samples.
const TOKENS: usize = 32;

/// The continuation of `prompt`, without it; an empty prompt begins a document.
///
/// # Errors
/// A prompt longer than the context or with characters that the tokenizer does not know (class `Input`); weights
/// that give no numbers (class `Run`).
pub fn continuation(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    context_len: usize,
    prompt: &str,
    max_tokens: usize,
    sampling: &Sampling,
    rng: &mut SplitMix64,
) -> Result<String> {
    let mut ids = vec![tokenizer.bos() as i32];
    ids.extend(tokenizer.encode(prompt)?.into_iter().map(|id| id as i32));
    let stop = Some(tokenizer.bos() as i32);
    let mut decoder = EngineDecoder::new(engine, context_len);
    let new = generate(&mut decoder, &ids, max_tokens, stop, sampling, rng)?;
    Ok(tokenizer.decode(&new.into_iter().map(|id| id as u32).collect::<Vec<_>>()))
}

/// A few samples from fixed prompts, equal for equal weights and seeds.
///
/// # Errors
/// Weights that give no numbers.
pub fn at_the_end(engine: &mut dyn Engine, tokenizer: &Tokenizer, config: &RunConfig) -> Result<String> {
    let context_len = config.model.sequence_len();
    let mut text = String::new();
    for prompt in PROMPTS {
        for sampling in [Sampling::GREEDY, Sampling { temperature: 0.8, top_k: Some(50) }] {
            let mut rng = SplitMix64::new(config.seed);
            let drawn = continuation(engine, tokenizer, context_len, prompt, TOKENS, &sampling, &mut rng);
            match drawn {
                Ok(drawn) => {
                    let _ = writeln!(text, "--- prompt {prompt:?}, temperature {}", sampling.temperature);
                    let _ = writeln!(text, "{prompt}{drawn}\n");
                }
                Err(error) if is_about_the_prompt(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(text)
}

fn is_about_the_prompt(error: &Error) -> bool {
    error.class() == crate::error::Class::Input
}
