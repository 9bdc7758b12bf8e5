//! Parity cases: `case.json` beside tensors that are whole.

use std::fs;

use nanorun::internals::model::specs::gpt_specs;
use nanorun::internals::parity::{Case, config_of};

use super::judged;
use crate::harness::{Target, Verdict, scratch};
use crate::seeds;

/// What the checks ask of a case, the backend apart.
fn use_case(case: &Case) -> Result<(), nanorun::internals::error::Error> {
    let specs = gpt_specs(&config_of(case)?.model);
    for file in ["forward_params", "forward_grads", "warm_params_final"] {
        if case.has(file) {
            case.params(file, &specs)?;
        }
    }
    if case.has("forward_io") {
        case.token_losses()?;
        case.logits_tail()?;
    }
    for trajectory in [&case.train, &case.warm].into_iter().flatten() {
        for step in &trajectory.steps {
            for micro in 0..case.grad_accum_steps {
                case.micro_batch("train_batches", step.step, micro)?;
            }
        }
        if case.has_validation(trajectory) {
            case.val_batch(trajectory.val_bpb_steps - 1)?;
        }
    }
    if let Some(continued) = &case.continued {
        for step in &continued.trajectory.steps {
            case.micro_batch("continued_batches", step.step, 0)?;
        }
    }
    Ok(())
}

#[test]
fn parity_case() {
    let place = scratch();
    let dir = place.path().join("fuzzed");
    fs::create_dir(&dir).unwrap();
    let fixture = "tests/fixtures/parity_shapes/92d63d4_gqa";
    for path in seeds::files_below(&seeds::path(fixture)) {
        fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let read = |input: &[u8]| {
        fs::write(dir.join("case.json"), input).unwrap();
        let case = match Case::read(&dir) {
            Ok(case) => case,
            refused => return judged(refused, "fuzzed"),
        };
        // Keys are made step by step; a plan of millions of them takes its time by right.
        if case.schedule.as_ref().is_some_and(|schedule| schedule.num_iterations > 5000) {
            return Ok(Verdict::Accepted);
        }
        judged(use_case(&case), "")
    };
    let words: &[&[u8]] = &[
        b"\"files\": [],",
        b"\"files\": [\"forward_io.safetensors\"],",
        b"\"files\": [\"../case.json\"],",
        b"\"n_layer\": ",
        b"\"n_embd\": 0",
        b"\"window_pattern\": \"\"",
        b"null",
        b"[]",
        b"{}",
        b"[[[[[[[[[[[[[[[[[[[[",
    ];
    Target::new("parity_case", vec![seeds::file(&format!("{fixture}/case.json"))], words, &read).run();
}
