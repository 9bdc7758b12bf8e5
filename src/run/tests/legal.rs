//! Whatever passes the plan computes: random legal manifests of tiny size go through a step on every backend. A run may
//! fail, for numbers that are not finite; a defect it must not be.

use std::path::Path;

use crate::error::Class;
use crate::manifest::{Manifest, Options};
use crate::ops::SequenceShape;
use crate::plan::run_config::{BackendKind, RunConfig};
use crate::plan::{NoData, PlannedRun, plan};
use crate::rng::SplitMix64;
use crate::run::engine::engine;
use crate::train::causality::check_causality;
use crate::train::engine::MicroBatch;

/// Values of fields that are tried with each other: usual ones, ends of ranges, and beyond what backends compute.
const FIELDS: &[(&str, &[&str])] = &[
    ("run.backend", &["'cpu'", "'cpu'", "'scalar'"]),
    ("run.seed", &["0", "9223372036854775807"]),
    ("upstream.commit", &["'92d63d4'", "'92d63d4'", "'c6ed7d1'", "'a825e63'", "'c2c062a'"]),
    ("optimizer.kind", &["'adamw'", "'sgd'"]),
    ("model.sequence_len", &["1", "2", "3", "17", "33"]),
    ("train.device_batch_size", &["1", "2", "3"]),
    ("data.vocab_size", &["265", "266", "300", "512"]),
    ("schedule.warmdown", &["'linear'", "'sqrt'", "'cosine'", "'constant'"]),
    ("schedule.warmup_steps", &["0", "1000"]),
    ("schedule.final_lr_frac", &["0.0", "1.0"]),
];
/// Those of a GPT.
const GPT: &[(&str, &[&str])] = &[
    ("model.depth", &["1", "2", "3"]),
    ("model.head_dim", &["2", "4", "6", "16", "30", "64", "256", "258", "512", "7"]),
    ("model.aspect_ratio", &["1", "2", "8", "33"]),
    ("model.n_kv_head", &["1", "2", "3", "4096"]),
    ("model.window_pattern", &["'S'", "'L'", "'SSSL'", "'LSL'"]),
    ("model.softcap", &["false", "0.001", "15", "1000.0"]),
    ("model.qk_scale", &["false", "1.2", "0.0001"]),
    ("model.rope_base", &["2.0", "100000.0"]),
    ("model.value_embeds", &["true", "false"]),
    ("model.ve_gate_channels", &["1", "2", "32", "100000"]),
    ("model.smear", &["true", "false"]),
    ("model.smear_channels", &["1", "2", "24", "100000"]),
    ("model.backout", &["true", "false"]),
    ("model.rotary_precision", &["'f32'", "'bf16'"]),
    ("model.init_wte_std", &["0.0", "1.0"]),
    ("optimizer.ns_steps", &["1", "5"]),
    ("optimizer.row_equilibration", &["true", "false"]),
    ("optimizer.renormalize", &["true", "false"]),
    ("optimizer.polar_precision", &["'f32'", "'bf16'"]),
];
/// Those of the small models.
const SMALL: &[(&str, &[&str])] = &[
    ("model.n_embd", &["1", "2", "3", "8", "512", "1024"]),
    ("model.tie_lm_head", &["true", "false"]),
    ("model.input_rmsnorm", &["true", "false"]),
    ("data.packing", &["'document'", "'best_fit_bos'"]),
];

/// One manifest of all these, by chance.
fn drawn(random: &mut SplitMix64) -> Vec<String> {
    let mut below = |count: usize| random.next_u64() as usize % count;
    let kind = ["gpt", "gpt", "microgpt", "bigram"][below(4)];
    let mut sets = vec![format!("model.kind='{kind}'")];
    let own: &[(&str, &[&str])] = if kind == "gpt" { GPT } else { SMALL };
    for (path, values) in FIELDS.iter().chain(own) {
        if below(3) > 0 {
            sets.push(format!("{path}={}", values[below(values.len())]));
        }
    }
    // The depth of a recipe is more than a test has time for.
    if kind == "gpt" && !sets.iter().any(|set| set.starts_with("model.depth")) {
        sets.push("model.depth=1".to_owned());
    }
    if kind == "microgpt" && below(2) == 0 {
        sets.push(format!("model.depth={}", 1 + below(2)));
        sets.push(format!("model.n_head={}", [1, 2, 4, 8][below(4)]));
    }
    sets
}

fn planned(sets: &[String]) -> crate::error::Result<PlannedRun> {
    let text = r#"
        name = "legal"
        upstream.commit = "92d63d4"
        run = { seed = 1, backend = "cpu" }
        budget.steps = 2
        schedule.warmdown = "linear"
        model.sequence_len = 6
        train = { device_batch_size = 2, total_batch_size = 24 }
        data.vocab_size = 300
        data.tokenizer.path = "not/here"
        eval.tokens = 4096
    "#;
    let manifest = Manifest::parse(
        Path::new("legal.toml"),
        text,
        &Options { sets: sets.to_vec(), ..Options::default() },
    )?;
    Ok(plan(&manifest, &NoData)?.runs.swap_remove(0))
}

/// A step, an evaluation and decoding of a run, with a few of the micro-batches that a step has.
fn carried_out(config: &RunConfig) -> crate::error::Result<()> {
    let mut engine = engine(config, 2)?;
    let (rows, len) = (config.batch.device_batch_size, config.model.sequence_len());
    let vocab = config.model.vocab_size();
    let ids: Vec<i32> = (0..rows * len).map(|n| (n * 31 % vocab) as i32).collect();
    let targets: Vec<i32> = ids.iter().map(|id| if id % 5 == 0 { -1 } else { *id }).collect();
    let batch = MicroBatch { inputs: &ids, targets: &targets, sequence: SequenceShape { batch: rows, len } };
    check_causality(engine.as_mut(), &batch, vocab)?;
    for step in 0..2 {
        engine.accumulate(&batch, 0.01)?.read()?;
        engine.update(&config.schedule.step_values(step))?;
    }
    engine.losses(&batch)?;
    engine.start_decoding(len)?;
    engine.decode(&ids[..1])?;
    if len > 1 {
        engine.decode(&ids[1..2])?;
    }
    Ok(())
}

#[test]
fn nothing_that_passes_the_plan_is_a_defect() {
    let mut random = SplitMix64::new(20_261_129);
    let (mut refused, mut done) = (0, 0);
    while done < 250 {
        let mut sets = drawn(&mut random);
        let rows = |sets: &[String], path: &str, usual: usize| {
            let set = sets.iter().rev().find_map(|set| set.strip_prefix(path)?.strip_prefix('='));
            set.and_then(|value| value.parse().ok()).unwrap_or(usual)
        };
        let micro = rows(&sets, "train.device_batch_size", 2) * rows(&sets, "model.sequence_len", 6);
        sets.push(format!("train.total_batch_size={}", 2 * micro));
        let (config, flops) = match planned(&sets) {
            Ok(run) => (run.config, run.sizes.flops_per_token * micro as u64),
            Err(error) => {
                assert_eq!(error.class(), Class::Input, "{sets:?}\n{error}");
                refused += 1;
                continue;
            }
        };
        // The oracle keeps every multiplication.
        if config.backend.kind == BackendKind::Scalar && flops > 40_000_000 {
            continue;
        }
        match carried_out(&config) {
            Err(error) if error.class() == Class::Internal => panic!("{sets:?}\n{error}"),
            _ => done += 1,
        }
    }
    assert!(refused > 20, "only {refused} were refused: the ends of the ranges are not tried");
}

/// A row of the faults: `head_dim = 512` passed the plan and ended as "a defect".
#[test]
fn heads_larger_than_the_cpu_backend_computes_are_refused_by_name() {
    let error = planned(&["model.head_dim=512".to_owned()]).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("heads of 512 channels") && told.contains("model.head_dim"), "{told}");
    let set =
        |set: &str| vec!["model.kind='microgpt'".to_owned(), "model.n_embd=1024".to_owned(), set.to_owned()];
    assert_eq!(planned(&set("model.n_head=2")).unwrap_err().class(), Class::Input);
}
