//! Stopped at every place where a run can be stopped, and carried on.

use std::path::Path;

use crate::error::Error;
use crate::files::Files;
use crate::run::single::Outcome;
use crate::run::tests::{Attempt, GPT, Lab, assert_same, names, small};
use crate::train::checkpoint::Checkpoint;
use crate::train::observer::Origin;

/// Every kind of model, optimizer, accumulation and evaluation.
fn tasks(lab: &Lab) -> Vec<(String, super::Task)> {
    let mut tasks = Vec::new();
    for kind in ["gpt", "microgpt", "bigram"] {
        let optimizers: &[&str] =
            if kind == "gpt" { &["muon_adamw", "adamw", "sgd"] } else { &["adamw", "sgd"] };
        for optimizer in optimizers {
            for accumulation in [1, 2] {
                for every in [0, 2] {
                    let (text, row) = if kind == "gpt" { (GPT.to_owned(), 128) } else { (small(kind), 8) };
                    let shards = format!("data.shards={:?}", names().display().to_string());
                    let backends: &[&str] = if kind == "gpt" { &["cpu"] } else { &["cpu", "scalar"] };
                    for backend in backends {
                        let sets = [
                            "run.seed=1".to_owned(),
                            "schedule.warmdown=\"linear\"".to_owned(),
                            "budget.steps=4".to_owned(),
                            format!("run.backend=\"{backend}\""),
                            format!("optimizer.kind=\"{optimizer}\""),
                            format!("train.total_batch_size={}", row * accumulation),
                            format!("eval.every={every}"),
                            format!("eval.tokens={}", row * 3),
                            shards.clone(),
                            "data.document=\"line\"".to_owned(),
                            "data.tokenizer=\"char\"".to_owned(),
                        ];
                        let name = format!("{kind} {backend} {optimizer} x{accumulation} eval {every}");
                        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
                        tasks.push((name, lab.task(&text, &sets)));
                    }
                }
            }
        }
    }
    tasks
}

#[test]
fn a_run_stopped_anywhere_carries_on_exactly() {
    let lab = Lab::new();
    let tasks = tasks(&lab);
    assert_eq!(tasks.len(), 12 + 16 + 16);
    for (name, task) in tasks {
        check(&lab, &name, &task);
    }
}

/// Rows of several ranks, as they lie and permuted, with any packing: stopped between ranks, and within one's turn.
#[test]
fn ranks_stopped_anywhere_carry_on_exactly() {
    let lab = Lab::new();
    let shards = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/ranks/*.parquet");
    let shards = format!("data.shards={:?}", shards.display().to_string());
    for (packing, seed) in [("best_fit_bos", None), ("best_fit_bos", Some("data.seed=3")), ("document", None)]
    {
        let packing = format!("data.packing={packing:?}");
        let sets = [
            "run.seed=1",
            "schedule.warmdown=\"linear\"",
            "budget.steps=4",
            "run.ranks=2",
            "train.total_batch_size=512",
            "eval.every=2",
            "eval.tokens=768",
            "data.tokenizer=\"char\"",
            &packing,
            &shards,
        ];
        let sets: Vec<&str> = sets.into_iter().chain(seed).collect();
        let task = lab.task(GPT, &sets);
        assert_eq!((task.config.batch.grad_accum_steps, task.config.turn()), (4, 2));
        check(&lab, &format!("{packing} {seed:?}"), &task);
    }
}

fn check(lab: &Lab, name: &str, task: &super::Task) {
    let expected = lab.undisturbed(task);
    let (mut stops, mut within_an_evaluation) = (0, 0);
    for at in 0.. {
        let place = tempfile::tempdir().unwrap();
        let stopped =
            lab.train(task, &Attempt { stop_at: Some(at), threads: 1, ..Attempt::at(place.path()) });
        let what = format!("{name}, stopped at {at}");
        match stopped.0.unwrap() {
            Outcome::Finished(result) => {
                assert_same(&result, &expected, &what);
                break;
            }
            Outcome::Interrupted { step } => {
                stops += 1;
                let (result, seen) = lab.finish(task, &Attempt { threads: 3, ..Attempt::at(place.path()) });
                assert_eq!(seen.started, Some((step, Origin::Checkpoint)), "{what}");
                assert_eq!(seen.steps, 4 - step, "{what}");
                within_an_evaluation +=
                    seen.notes.iter().filter(|note| note.contains("goes on after")).count();
                assert_same(&result, &expected, &what);
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    assert!(stops >= 4 && within_an_evaluation >= 4, "{name}: {stops} {within_an_evaluation}");
}

#[test]
fn a_run_that_is_stopped_again_and_again_still_gets_there() {
    let lab = Lab::new();
    let task = lab.gpt(6, &[]);
    let expected = lab.undisturbed(&task);
    let place = tempfile::tempdir().unwrap();
    for stops in 0.. {
        // Each start gets through two more questions at most.
        match lab.train(&task, &Attempt { stop_at: Some(2), ..Attempt::at(place.path()) }).0.unwrap() {
            Outcome::Finished(result) => {
                assert!(stops > 6, "{stops} stops");
                assert_eq!(result.timings.resumes, stops);
                return assert_same(&result, &expected, "stopped over and over");
            }
            Outcome::Interrupted { .. } => {}
            other => panic!("{other:?}"),
        }
        assert!(stops < 100, "it does not get anywhere");
    }
}

#[test]
fn a_finished_evaluation_is_not_made_again() {
    let lab = Lab::new();
    let task = lab.gpt(4, &[]);
    let expected = lab.undisturbed(&task);
    let place = tempfile::tempdir().unwrap();
    // An evaluation of four batches asks five times, a step once. Stopped at the step boundary after the evaluation of step 2; the checkpoint is from before it.
    let attempt = Attempt::at(place.path());
    let stopped = lab.train(&task, &Attempt { stop_at: Some(5 + 2 + 5), ..Attempt::at(place.path()) });
    assert!(matches!(stopped.0, Ok(Outcome::Interrupted { step: 2 })), "{stopped:?}");
    let checkpoint: Checkpoint<'_> = attempt.store().load(2).unwrap();
    assert_eq!(checkpoint.state.evals.len(), 1);
    let (result, seen) = lab.finish(&task, &attempt);
    assert_eq!(seen.notes, ["the evaluation at step 2 was finished before"]);
    assert_same(&result, &expected, "with a kept evaluation");
    // One that is damaged, or of other weights, is no help and no harm.
    for damage in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let attempt = Attempt::at(place.path());
        let stopped = lab.train(&task, &Attempt { stop_at: Some(2), ..Attempt::at(place.path()) });
        assert!(matches!(stopped.0, Ok(Outcome::Interrupted { step: 0 })), "{stopped:?}");
        let path = place.path().join("attempt/1/checkpoints/evaluation.json");
        if damage {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[40] ^= 4;
            std::fs::write(&path, bytes).unwrap();
        } else {
            let mut progress = attempt.store().evaluation().unwrap().unwrap();
            progress.train_hash = expected.train_hash;
            attempt.store().save_evaluation(&progress).unwrap();
        }
        let (result, seen) = lab.finish(&task, &attempt);
        assert!(seen.notes.is_empty(), "{:?}", seen.notes);
        assert_same(&result, &expected, "with a useless kept evaluation");
    }
}

#[test]
fn another_class_does_not_carry_on() {
    let lab = Lab::new();
    let task = lab.gpt(4, &[]);
    let place = tempfile::tempdir().unwrap();
    let attempt = Attempt::at(place.path());
    let stopped = lab.train(&task, &Attempt { stop_at: Some(6), ..Attempt::at(place.path()) });
    let Ok(Outcome::Interrupted { step }) = stopped.0 else { panic!("{stopped:?}") };
    let mut checkpoint: Checkpoint<'_> = attempt.store().load(step).unwrap();
    checkpoint.state.environment_class = "cpu/elsewhere".to_owned();
    attempt.store().save(&checkpoint).unwrap();
    let error: Error = lab.train(&task, &attempt).0.unwrap_err();
    assert_eq!(error.class().exit_code(), 2);
    assert!(error.what().contains("was made on `cpu/elsewhere`"), "{error}");
    assert_eq!(attempt.store().steps().unwrap().last(), Some(&step), "nothing was trained");
    // What it advises helps: another attempt is begun, and what there was stays.
    assert!(error.help_text().unwrap().contains("--rerun"), "{error}");
    let (again, seen) = lab.finish(&task, &Attempt { rerun: true, ..Attempt::at(place.path()) });
    assert_same(&again, &lab.undisturbed(&task), "begun again");
    assert_eq!(seen.started, Some((0, Origin::Scratch)));
    assert!(seen.notes.iter().any(|note| note.starts_with("another attempt is begun: ")), "{:?}", seen.notes);
    assert!(place.path().join("attempt/2/result.json").exists());
    assert_eq!(attempt.store().steps().unwrap().last(), Some(&step));
    assert!(Files::new().read_if_there(&place.path().join("attempt/1/result.json")).unwrap().is_none());
}
