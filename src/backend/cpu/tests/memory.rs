//! The memory that is counted beforehand against the memory that is taken.

use std::path::Path;

use crate::backend::cpu::memory::{CpuRun, estimate};
use crate::backend::cpu::{Bf16Backend, CpuBackend};
use crate::manifest::{Manifest, Options};
use crate::ops::SequenceShape;
use crate::plan::run_config::RunConfig;
use crate::plan::{NoData, plan};
use crate::precision::Precision;
use crate::run::engine::engine_on;
use crate::train::engine::{Engine, MicroBatch};

/// A run of a manifest with micro-batches of `rows` rows of `len` tokens, `accumulation` of them a step.
fn run(kind: &str, [rows, len, accumulation]: [usize; 3], sets: &[&str]) -> RunConfig {
    let total = rows * len * accumulation;
    let depth = if kind == "bigram" { "" } else { "depth = 2, " };
    let text = format!(
        r#"
        name = "memory"
        upstream.commit = "92d63d4"
        run = {{ seed = 1, backend = "cpu" }}
        budget.steps = 2
        schedule.warmdown = "linear"
        model = {{ kind = "{kind}", {depth}sequence_len = {len} }}
        train = {{ device_batch_size = {rows}, total_batch_size = {total} }}
        data.vocab_size = 512
        data.tokenizer.path = "not/here"
        eval.tokens = {total}
        "#
    );
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    let options = Options { sets, ..Options::default() };
    let manifest = Manifest::parse(Path::new("memory.toml"), &text, &options).unwrap();
    plan(&manifest, &NoData).unwrap().runs.swap_remove(0).config
}

/// What a run of two steps takes, fresh or from a checkpoint: an evaluation before, between and after.
fn taken(config: &RunConfig, threads: usize, resumed: bool) -> u64 {
    let mut engine = match config.backend.precision {
        Precision::F32 => engine_on(config, CpuBackend::new(threads).unwrap()).unwrap(),
        Precision::Bf16 => engine_on(config, Bf16Backend::new(threads).unwrap()).unwrap(),
    };
    let (rows, len) = (config.batch.device_batch_size, config.model.sequence_len());
    let ids: Vec<i32> = (0..rows * len).map(|n| (n % config.model.vocab_size()) as i32).collect();
    let losses = |engine: &mut dyn Engine, batch| {
        let sequence = SequenceShape { batch, len };
        let ids = &ids[..batch * len];
        engine.losses(&MicroBatch { inputs: ids, targets: ids, sequence }).unwrap();
    };
    if resumed {
        let own = |tensors: Vec<crate::train::engine::NamedTensor<'_>>| -> Vec<_> {
            tensors.into_iter().map(crate::train::engine::NamedTensor::into_owned).collect()
        };
        let parameters = own(engine.parameters().unwrap());
        let states = own(engine.optimizer_state().unwrap());
        engine.restore(1, &parameters, &states).unwrap();
    } else {
        losses(engine.as_mut(), 1);
        losses(engine.as_mut(), rows);
    }
    let batch = MicroBatch { inputs: &ids, targets: &ids, sequence: SequenceShape { batch: rows, len } };
    for step in 0..2 {
        for _ in 0..config.batch.grad_accum_steps.min(3) {
            engine.accumulate(&batch, 1e-3).unwrap().read().unwrap();
        }
        engine.update(&config.schedule.step_values(step)).unwrap();
        losses(engine.as_mut(), 1);
        losses(engine.as_mut(), rows);
    }
    for prompt in [1, 5.min(len)] {
        engine.start_decoding(len).unwrap();
        engine.decode(&ids[..prompt]).unwrap();
        if prompt < len {
            engine.decode(&ids[..1]).unwrap();
        }
    }
    engine.peak_bytes().unwrap()
}

/// A kind, the shape of a step, and what else is set.
type Shape = (&'static str, [usize; 3], &'static [&'static str]);

const SHAPES: &[Shape] = &[
    ("gpt", [2, 48, 2], &[]),
    ("gpt", [1, 48, 1], &[]),
    ("gpt", [24, 48, 1], &[]),
    ("gpt", [1, 1, 4], &[]),
    ("gpt", [3, 2, 1], &["model.depth=1"]),
    ("gpt", [2, 48, 1], &["model.depth=1", "model.head_dim=8", "model.aspect_ratio=24"]),
    (
        "gpt",
        [2, 48, 3],
        &["model.depth=3", "model.head_dim=16", "model.n_kv_head=1", "model.aspect_ratio=24"],
    ),
    ("gpt", [1, 300, 1], &["model.head_dim=256", "model.depth=1"]),
    ("gpt", [2, 700, 1], &["model.depth=3", "model.aspect_ratio=16", "model.head_dim=16"]),
    ("gpt", [4, 128, 1], &["data.vocab_size=265"]),
    ("gpt", [11, 96, 1], &["data.vocab_size=5000"]),
    ("gpt", [5, 103, 2], &["model.smear=false", "model.backout=false", "model.value_embeds=false"]),
    ("gpt", [2, 64, 2], &["optimizer.kind='adamw'"]),
    ("gpt", [2, 64, 2], &["optimizer.kind='sgd'"]),
    ("gpt", [2, 48, 1], &["model.depth=9", "model.aspect_ratio=16", "model.head_dim=16"]),
    ("gpt", [2, 130, 1], &["upstream.commit='a825e63'", "model.depth=4"]),
    ("microgpt", [1, 16, 1], &[]),
    (
        "microgpt",
        [4, 40, 1],
        &["model.tie_lm_head=true", "model.depth=1", "model.n_head=2", "model.n_embd=10"],
    ),
    ("microgpt", [3, 200, 2], &["model.input_rmsnorm=false", "model.n_embd=96"]),
    ("bigram", [2, 48, 2], &[]),
    ("bigram", [8, 100, 1], &["model.tie_lm_head=true", "model.n_embd=7", "data.vocab_size=3001"]),
    ("bigram", [1, 600, 1], &["model.input_rmsnorm=false"]),
];

fn counted(config: &RunConfig, threads: usize, resumed: bool) -> Option<u64> {
    let run = CpuRun {
        model: &config.model,
        optimizer: &config.optimizer,
        rows: config.batch.device_batch_size,
        accumulation: config.batch.grad_accum_steps,
        threads,
        precision: config.backend.precision,
        resumed,
    };
    estimate(&run).unwrap().map(|counted| counted.total())
}

#[test]
fn what_is_counted_beforehand_is_what_is_taken() {
    counts_what_is_taken("f32");
}

#[test]
fn what_is_counted_beforehand_is_what_is_taken_in_bf16() {
    counts_what_is_taken("bf16");
}

fn counts_what_is_taken(precision: &str) {
    let mut wrong = Vec::new();
    for (kind, step, sets) in SHAPES {
        let precision = format!("run.precision='{precision}'");
        let sets = [sets, &[precision.as_str()][..]].concat();
        let config = run(kind, *step, &sets);
        for (threads, resumed) in [(1, false), (2, false), (2, true), (3, true), (7, false)] {
            let (counted, taken) =
                (counted(&config, threads, resumed).unwrap(), taken(&config, threads, resumed));
            if counted != taken {
                let how = if resumed { "resumed" } else { "fresh" };
                wrong.push(format!(
                    "{kind} {step:?} {sets:?}, {threads} threads, {how}: {counted} for {taken}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_no_machine_has_is_counted_without_having_it() {
    let large = &["model.depth=100", "model.aspect_ratio=4096", "data.vocab_size=16777216"];
    let config = run("gpt", [1, 48, 1], large);
    for resumed in [false, true] {
        assert!(counted(&config, 2, resumed).is_none_or(|bytes| bytes > 1 << 50));
    }
    let config = run("gpt", [4, 1 << 24, 1], &[]);
    assert!(counted(&config, 2, false).unwrap() > 1 << 40);
}
