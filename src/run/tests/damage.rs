//! Checkpoints that rot: the run goes on from the one before, says so, and gives the same result.

use std::fs;
use std::path::Path;

use crate::record::RunDir;
use crate::run::single::{Donor, Outcome};
use crate::run::tests::{Attempt, Lab, assert_same, shared_steps};
use crate::train::observer::Origin;

/// What can happen to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Truncated,
    Emptied,
    Flipped(usize),
    Deleted,
}

const FILES: [&str; 5] =
    ["model.safetensors", "optimizer.safetensors", "documents.bin", "state.json", "MANIFEST.json"];
const DAMAGES: [Damage; 6] = [
    Damage::Truncated,
    Damage::Emptied,
    // In the header, in the middle, at the end.
    Damage::Flipped(0),
    Damage::Flipped(1),
    Damage::Flipped(2),
    Damage::Deleted,
];

fn damage(path: &Path, how: Damage) {
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    match how {
        Damage::Truncated => bytes.truncate(last / 2),
        Damage::Emptied => bytes.clear(),
        Damage::Flipped(place) => bytes[[9, last / 2, last - 1][place]] ^= 0x10,
        Damage::Deleted => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let lab = Lab::new();
    // An evaluation asks three times, a step once. Rolling checkpoints alone, and kept ones of which one stays.
    for (every, stop_at, newest, before) in [(0, 11, 5, 4), (2, 10, 4, 2)] {
        let sets = [format!("checkpoint.every={every}"), "checkpoint.keep=1".to_owned()];
        let task = lab.gpt(6, &[&sets[0], &sets[1], "eval.every=4", "eval.tokens=256"]);
        let expected = lab.undisturbed(&task);
        let begun = tempfile::tempdir().unwrap();
        let stopped = lab.train(&task, &Attempt { stop_at: Some(stop_at), ..Attempt::at(begun.path()) });
        let Ok(Outcome::Interrupted { step }) = stopped.0 else { panic!("{stopped:?}") };
        let steps = Attempt::at(begun.path()).store().steps().unwrap();
        assert_eq!(
            (step, &steps[steps.len() - 2..]),
            (newest, &[before, newest][..]),
            "every {every}: {steps:?}"
        );
        for file in FILES {
            for how in DAMAGES {
                let what = format!("every {every}, {file} {how:?}");
                let place = tempfile::tempdir().unwrap();
                copy(begun.path(), place.path());
                let attempt = Attempt::at(place.path());
                damage(&attempt.store().step_dir(newest).join(file), how);
                let (result, seen) = lab.finish(&task, &attempt);
                assert_same(&result, &expected, &what);
                assert_eq!(seen.started, Some((before, Origin::Checkpoint)), "{what}");
                let told = format!("passing over step_{newest:06}, going on after step {before}: ");
                assert!(seen.notes.iter().any(|note| note.starts_with(&told)), "{what}: {:?}", seen.notes);
                assert!(seen.notes.iter().any(|note| note.contains(file)), "{what}: {:?}", seen.notes);
            }
        }
        // Both gone: from the start, and said so.
        let attempt = Attempt::at(begun.path());
        for step in &steps {
            damage(&attempt.store().step_dir(*step).join("model.safetensors"), Damage::Flipped(1));
        }
        let (result, seen) = lab.finish(&task, &attempt);
        assert_same(&result, &expected, "all damaged");
        assert_eq!(seen.started, Some((0, Origin::Scratch)));
        assert!(seen.notes[0].contains("going on from the start"), "{:?}", seen.notes);
    }
}

#[test]
fn two_checkpoints_stand_at_any_moment_and_one_in_the_end() {
    let lab = Lab::new();
    let task = lab.gpt(6, &["checkpoint.keep=1", "eval.every=1", "eval.tokens=128"]);
    for at in 0.. {
        let place = tempfile::tempdir().unwrap();
        let attempt = Attempt { stop_at: Some(at), ..Attempt::at(place.path()) };
        let outcome = lab.train(&task, &attempt).0.unwrap();
        let steps = attempt.store().steps().unwrap();
        match outcome {
            Outcome::Interrupted { step: 0 } => assert_eq!(steps, [0]),
            Outcome::Interrupted { step } => assert_eq!(steps, [step - 1, step]),
            Outcome::Finished(_) => return assert_eq!(steps, [6]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_damaged_prefix_is_trained_instead_of_shared() {
    let lab = Lab::new();
    let (linear, sqrt) = (lab.gpt(6, &[]), lab.gpt(6, &["schedule.warmdown=\"sqrt\""]));
    let shared = shared_steps(&linear, &sqrt);
    assert!(shared > 0 && shared < 6, "{shared}");
    let expected = lab.undisturbed(&sqrt);
    let donor_place = tempfile::tempdir().unwrap();
    let donor = Attempt { forks: &[shared], ..Attempt::at(donor_place.path()) };
    lab.finish(&linear, &donor);
    let donors = [Donor { run_key: linear.run_key, dir: RunDir::at(donor_place.path()), steps: shared }];
    for damaged in [false, true] {
        if damaged {
            damage(&donor.store().step_dir(shared).join("model.safetensors"), Damage::Flipped(1));
        }
        let place = tempfile::tempdir().unwrap();
        let (result, seen) = lab.finish(&sqrt, &Attempt { donors: &donors, ..Attempt::at(place.path()) });
        assert_same(&result, &expected, "forked");
        if damaged {
            assert_eq!(seen.started, Some((0, Origin::Scratch)));
            assert!(
                seen.notes[0].starts_with(&format!("not sharing step {shared} of run ")),
                "{:?}",
                seen.notes
            );
        } else {
            assert_eq!((seen.started, seen.steps), (Some((shared, Origin::Prefix)), 6 - shared));
        }
    }
}

#[test]
fn a_damaged_journal_is_told_and_leaves_the_speed_unjudged() {
    let lab = Lab::new();
    let task = lab.gpt(4, &["eval.max_drift_bytes=1000000000000"]);
    let expected = lab.undisturbed(&task);
    let begun = tempfile::tempdir().unwrap();
    let stopped = lab.train(&task, &Attempt { stop_at: Some(6), alone: true, ..Attempt::at(begun.path()) });
    assert!(matches!(stopped.0, Ok(Outcome::Interrupted { .. })), "{stopped:?}");
    let whole = fs::read(RunDir::at(begun.path()).attempt(1).journal()).unwrap();
    let torn = [&whole[..], b"{\"at\": \"20"].concat();
    let garbage = [&whole[..], b"garbage\n"].concat();
    for (journal, damaged) in [(torn, false), (garbage, true)] {
        let place = tempfile::tempdir().unwrap();
        copy(begun.path(), place.path());
        fs::write(RunDir::at(place.path()).attempt(1).journal(), journal).unwrap();
        let (result, seen) = lab.finish(&task, &Attempt { alone: true, ..Attempt::at(place.path()) });
        assert_same(&result, &expected, "with a damaged journal");
        assert_eq!((result.timings.alone, result.timings.resumes), (!damaged, 1));
        let line = whole.split(|&byte| byte == b'\n').count();
        let told = format!("journal.jsonl is damaged, no event stands on line {line}: ");
        assert_eq!(seen.notes.iter().any(|note| note.starts_with(&told)), damaged, "{:?}", seen.notes);
    }
}
