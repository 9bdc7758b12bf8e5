//! A prompt fed to a model, and a token after it, beside the forward pass of training over as many tokens.
//!
//! `cargo bench --bench decode [FILTER]`; `BENCH_THREADS` sets the threads (2). "item/s" is tokens a second. The models
//! have upstream's shapes, in float32 and bfloat16; their weights are noise.
#![allow(missing_docs, clippy::unwrap_used)]

use std::cell::RefCell;
use std::path::Path;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use nanorun::internals::experiment::Experiment;
use nanorun::internals::manifest::Options;
use nanorun::internals::ops::SequenceShape;
use nanorun::internals::plan::run_config::RunConfig;
use nanorun::internals::rng::SplitMix64;
use nanorun::internals::run::engine::{engine, inference_engine};
use nanorun::internals::train::engine::{Engine, MicroBatch};

/// Of the prompt, BOS included.
const PROMPT: usize = 255;
/// Tokens that there is room for.
const ROOM: usize = 512;

/// Depth and precision. Tests, which start this without `--bench`, see that it runs: the small models are enough for that.
fn models() -> Vec<(usize, &'static str)> {
    let depths: &[usize] =
        if std::env::args().any(|argument| argument == "--bench") { &[4, 12] } else { &[4] };
    depths.iter().flat_map(|&depth| [(depth, "f32"), (depth, "bf16")]).collect()
}

fn main() {
    divan::main();
}

fn threads() -> usize {
    std::env::var("BENCH_THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(2)
}

fn config((depth, precision): (usize, &str)) -> RunConfig {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/bench_d4_t512.toml");
    let sets = vec![format!("model.depth={depth}"), format!("run.precision=\"{precision}\"")];
    let options = Options { sets, ..Options::default() };
    // Nothing is written there before something is trained.
    let mut experiment = Experiment::load(&manifest, &options, Path::new("no results")).unwrap();
    experiment.plan.runs.swap_remove(0).config
}

/// As `nanorun sample` has it: no room for training, and weights packed once.
fn sampled(config: &RunConfig) -> Box<dyn Engine> {
    let mut noise = SplitMix64::new(1);
    inference_engine(&config.model, &config.backend, threads(), &mut |spec| {
        Ok((0..spec.numel()).map(|_| (noise.next_f64() as f32 - 0.5) * 0.1).collect())
    })
    .unwrap()
}

fn prompt() -> Vec<i32> {
    (0..PROMPT as i32).map(|i| i * 37 % 4000).collect()
}

fn prefill(engine: &mut dyn Engine, prompt: &[i32]) -> Vec<f32> {
    engine.start_decoding(ROOM).unwrap();
    engine.decode(prompt).unwrap()
}

/// The first in an engine's life: its memory is touched for the first time.
#[divan::bench(args = models(), sample_count = 20, sample_size = 1)]
fn first_prefill(bencher: Bencher<'_, '_>, model: (usize, &str)) {
    let (config, prompt) = (config(model), prompt());
    bencher
        .counter(ItemsCount::new(PROMPT))
        .with_inputs(|| sampled(&config))
        .bench_local_values(|mut engine| (prefill(engine.as_mut(), &prompt), engine));
}

#[divan::bench(args = models())]
fn further_prefill(bencher: Bencher<'_, '_>, model: (usize, &str)) {
    let (mut engine, prompt) = (sampled(&config(model)), prompt());
    bencher.counter(ItemsCount::new(PROMPT)).bench_local(|| prefill(engine.as_mut(), black_box(&prompt)));
}

/// With losses of every token, where a prompt's last one alone is read.
#[divan::bench(args = models())]
fn training_forward(bencher: Bencher<'_, '_>, model: (usize, &str)) {
    let (mut engine, inputs) = (engine(&config(model), threads()).unwrap(), prompt());
    let sequence = SequenceShape { batch: 1, len: PROMPT };
    let batch = MicroBatch { inputs: &inputs, targets: &inputs, sequence };
    bencher.counter(ItemsCount::new(PROMPT)).bench_local(|| engine.losses(black_box(&batch)).unwrap());
}

/// One token a sample: what makes room must not be called ahead of those that it makes room for.
#[divan::bench(args = models(), sample_size = 1)]
fn token(bencher: Bencher<'_, '_>, model: (usize, &str)) {
    let (engine, prompt) = (RefCell::new(sampled(&config(model))), prompt());
    let fed = RefCell::new(ROOM);
    bencher
        .counter(ItemsCount::new(1_usize))
        .with_inputs(|| {
            // Where the room is used up, it begins again, outside what is timed.
            if *fed.borrow() == ROOM {
                prefill(engine.borrow_mut().as_mut(), &prompt);
                *fed.borrow_mut() = PROMPT;
            }
            *fed.borrow_mut() += 1;
        })
        .bench_local_values(|()| engine.borrow_mut().decode(&[7]).unwrap());
}
