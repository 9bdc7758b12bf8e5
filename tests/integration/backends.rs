//! Every backend that is built, and small models on them: what tests over all backends share.

use std::path::Path;

use nanorun::internals::data::Cache;
use nanorun::internals::manifest::{Manifest, Options};
use nanorun::internals::model::config::ModelConfig;
use nanorun::internals::model::init::InitialValues;
use nanorun::internals::model::param::{ParamGroup, ParamSpec};
use nanorun::internals::ops::SequenceShape;
use nanorun::internals::plan::plan;
use nanorun::internals::plan::run_config::{BackendChoice, BackendKind, RunConfig};
use nanorun::internals::precision::Precision;
use nanorun::internals::rng::SplitMix64;
use nanorun::internals::run::engine::engine_from;
use nanorun::internals::run::library::Library;
use nanorun::internals::train::engine::{Engine, MicroBatch};

/// The backends of this build, the oracle first. tch is on its CPU device, so that the test is the same everywhere.
pub(crate) const BACKENDS: &[BackendKind] = &[
    BackendKind::Scalar,
    BackendKind::Cpu,
    #[cfg(feature = "tch")]
    BackendKind::Tch,
];

/// The configuration of the first run of a manifest, by the path that every run takes.
pub(crate) fn config(manifest: &str) -> RunConfig {
    let options = Options::default();
    let manifest = Manifest::parse(Path::new("m.toml"), manifest, &options).unwrap();
    plan(&manifest, &Library::new(Cache::disabled())).unwrap().runs.remove(0).config
}

/// An engine on a backend, in float32 where it chooses, with these initial weights.
pub(crate) fn engine(config: &RunConfig, kind: BackendKind, values: &[Vec<f32>]) -> Box<dyn Engine> {
    let backend = BackendChoice { kind, device: "cpu".to_owned(), precision: Precision::F32 };
    engine_from(&config.model, &config.optimizer, &backend, 2, |_| Ok(InitialValues::Given(values.to_vec())))
        .unwrap()
}

/// The parameters of a model.
pub(crate) fn specs(model: &ModelConfig) -> Vec<ParamSpec> {
    use nanorun::internals::model::{bigram::Bigram, gpt::Gpt, microgpt::Microgpt, network::Network};
    match model {
        ModelConfig::Gpt(config) => Gpt::new(config.clone()).unwrap().specs().to_vec(),
        ModelConfig::Microgpt(config) => Microgpt::new(config.clone()).unwrap().specs().to_vec(),
        ModelConfig::Bigram(config) => Bigram::new(config.clone()).unwrap().specs().to_vec(),
    }
}

/// Warm weights: activations of order one, and no path of the model without gradient. From upstream's zero-initialised
/// projections Muon would normalise rounding noise.
pub(crate) fn warm_values(specs: &[ParamSpec], rng: &mut SplitMix64) -> Vec<Vec<f32>> {
    let value = |spec: &ParamSpec, rng: &mut SplitMix64| {
        let unit = 2.0 * rng.next_f64() - 1.0;
        let (center, width) = match (spec.group, spec.shape.as_slice()) {
            (ParamGroup::Resid, _) => (1.0, 0.1),
            (ParamGroup::X0 | ParamGroup::Smear, [_]) => (0.3, 0.1),
            (ParamGroup::Matrix | ParamGroup::LmHead | ParamGroup::Smear, [_, inputs]) => {
                (0.0, (3.0 / *inputs as f64).sqrt())
            }
            _ => (0.0, 1.0),
        };
        (center + width * unit) as f32
    };
    specs.iter().map(|spec| (0..spec.numel()).map(|_| value(spec, rng)).collect()).collect()
}

/// Rows that can be learned: each token decides the next one three times in four; one target in eight is ignored.
pub(crate) struct Rows {
    pub(crate) inputs: Vec<i32>,
    pub(crate) targets: Vec<i32>,
    pub(crate) sequence: SequenceShape,
}

impl Rows {
    pub(crate) fn new(vocab_size: usize, sequence: SequenceShape, rng: &mut SplitMix64) -> Self {
        let mut draw = |below: usize| (rng.next_u64() % below as u64) as i32;
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..sequence.batch {
            let mut token = draw(vocab_size);
            for _ in 0..sequence.len {
                inputs.push(token);
                token = if draw(4) == 0 { draw(vocab_size) } else { (2 * token + 1) % vocab_size as i32 };
                targets.push(if draw(8) == 0 { -1 } else { token });
            }
        }
        Self { inputs, targets, sequence }
    }

    pub(crate) fn batch(&self) -> MicroBatch<'_> {
        MicroBatch { inputs: &self.inputs, targets: &self.targets, sequence: self.sequence }
    }
}

/// Greedy tokens after `prompt`, up to `count` of them, with the cache of keys and values.
pub(crate) fn greedy(engine: &mut dyn Engine, prompt: &[i32], count: usize, context: usize) -> Vec<i32> {
    use nanorun::internals::generate::{EngineDecoder, Sampling, generate};
    let mut decoder = EngineDecoder::new(engine, context);
    generate(&mut decoder, prompt, count, None, &Sampling::GREEDY, &mut SplitMix64::new(0)).unwrap()
}
