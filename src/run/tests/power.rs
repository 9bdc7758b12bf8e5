//! Every step of a run's writing fails, kills the process, or is the last before the power goes.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::files::power::{Left, PowerCut};
use crate::files::{Fault, FaultAt, Files, Unsynced};
use crate::record::journal::{Event, Journal};
use crate::record::{RunDir, RunResult};
use crate::run::single::Outcome;
use crate::run::tests::{Attempt, Lab, assert_same};

/// Checkpoints of every step, of which some go again.
const WRITES_MUCH: [&str; 3] = ["eval.tokens=128", "checkpoint.every=1", "checkpoint.keep=1"];

#[test]
fn a_run_survives_a_fault_at_any_step_of_its_writing() {
    let lab = Lab::new();
    let task = lab.gpt(2, &WRITES_MUCH);
    let expected = lab.undisturbed(&task);
    let mut failed = 0;
    for at in 0.. {
        let faults = [
            FaultAt::once(at, Fault::Fail(ErrorKind::StorageFull)),
            FaultAt::once(at, Fault::Fail(ErrorKind::Other)),
            FaultAt::once(at, Fault::Short(100, ErrorKind::StorageFull)),
            FaultAt::kill(at, 0),
            FaultAt::kill(at, 100),
        ];
        let mut reached = false;
        for (number, fault) in faults.into_iter().enumerate() {
            let what = format!("{fault:?}");
            let place = tempfile::tempdir().unwrap();
            let fault = Arc::new(fault);
            let files = Files::with_faults(Arc::new(Unsynced(fault.clone())));
            let (outcome, seen) = lab.train(&task, &Attempt { files, ..Attempt::at(place.path()) });
            reached |= fault.seen() > at;
            match outcome {
                Ok(Outcome::Finished(result)) => assert_same(&result, &expected, &what),
                Ok(other) => panic!("{what}: {other:?}"),
                // No space and I/O errors are failed runs.
                Err(error) => {
                    assert_eq!(error.class().exit_code(), 3, "{what}: {error}");
                    failed += 1;
                }
            }
            // What a fresh process does before it trains.
            Files::unsynced().recover(place.path()).unwrap();
            let left = Attempt::at(place.path()).store().latest_valid().unwrap();
            assert!(left.skipped.is_empty(), "{what}: a torn checkpoint under its name");
            let step = left.checkpoint.map(|checkpoint| checkpoint.state.step);
            assert!(step >= seen.saved.last().copied(), "{what}: {step:?} after {:?}", seen.saved);
            if number == at % 5 {
                assert_same(&lab.finish(&task, &Attempt::at(place.path())).0, &expected, &what);
            }
        }
        if !reached {
            assert!(at > 100 && failed > 300, "{at} steps, {failed} failures");
            break;
        }
    }
}

#[test]
fn a_run_survives_a_power_cut_at_any_step_of_its_writing() {
    let lab = Lab::new();
    let task = lab.gpt(2, &WRITES_MUCH);
    let expected = lab.undisturbed(&task);
    for at in 0.. {
        let place = tempfile::tempdir().unwrap();
        let power = Arc::new(PowerCut::at(place.path(), at));
        let dir = place.path().join("results/tiny/runs/abc");
        let files = Files::with_faults(Arc::new(Unsynced(power.clone())));
        let (outcome, seen) = lab.train(&task, &Attempt { files, ..Attempt::at(&dir) });
        let done = matches!(outcome, Ok(Outcome::Finished(_)));
        for (number, left) in Left::all().enumerate() {
            let what = format!("cut at {at}, {left:?}");
            let after = tempfile::tempdir().unwrap();
            power.leave(left, after.path());
            let dir = after.path().join("results/tiny/runs/abc");
            Files::unsynced().recover(after.path()).unwrap();
            let attempt = Attempt::at(&dir);
            let found = attempt.store().latest_valid().unwrap();
            assert!(found.skipped.is_empty(), "{what}: {:?}", found.skipped);
            let step = found.checkpoint.map(|checkpoint| checkpoint.state.step);
            assert!(step >= seen.saved.last().copied(), "{what}: {step:?} after {:?}", seen.saved);
            // What the journal was told, it still knows.
            let journal = Journal::new(Files::new(), RunDir::at(&dir).attempt(1).journal()).read().unwrap();
            assert!(journal.damaged.is_empty(), "{what}");
            let known = |step| {
                let told =
                    |event: &Event| matches!(event, Event::Checkpoint { step: told, .. } if *told == step);
                journal.entries.iter().any(|entry| told(&entry.event))
            };
            let told = seen.saved.split_last().map_or(&[][..], |(_, earlier)| earlier);
            assert!(told.iter().all(|&step| known(step)), "{what}");
            let result = RunResult::read(&Files::new(), &RunDir::at(&dir).attempt(1).result()).unwrap();
            assert!(result.is_some() || !done, "{what}: a finished run is lost");
            if let Some(result) = result {
                assert_same(&result, &expected, &what);
            } else if number == at % 7 {
                // Carried on, from one of the states in turn.
                assert_same(&lab.finish(&task, &attempt).0, &expected, &what);
            }
        }
        if done && at > power.seen() {
            assert!(at > 100, "{at} steps");
            break;
        }
    }
}
