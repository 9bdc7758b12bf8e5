//! Checkpoints saved by time: as many as the clock says, on disk as few, and no trace of them in a result.

use std::time::Duration;

use crate::record::RunDir;
use crate::run::single::{Donor, Outcome};
use crate::run::tests::{Attempt, Lab, assert_same, shared_steps};
use crate::train::observer::Origin;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_hash_is_one_at_any_cadence() {
    let lab = Lab::new();
    let expected = lab.undisturbed(&lab.gpt(30, &["eval.every=0", "checkpoint.minutes=false"]));
    for (minutes, tick) in
        [("0", Duration::ZERO), ("0.001", MINUTE / 60), ("10", 7 * MINUTE), ("10", MINUTE / 60)]
    {
        let task = lab.gpt(30, &["eval.every=0", &format!("checkpoint.minutes={minutes}")]);
        let place = tempfile::tempdir().unwrap();
        let attempt = Attempt { tick, ..Attempt::at(place.path()) };
        let (result, seen) = lab.finish(&task, &attempt);
        assert_same(&result, &expected, minutes);
        let between = seen.saved.iter().filter(|step| (1..30).contains(*step)).count();
        let all = minutes == "0";
        let none = tick < MINUTE && minutes == "10";
        assert_eq!((between == 29, between == 0), (all, none), "{minutes}: {:?}", seen.saved);
        assert_eq!(attempt.store().steps().unwrap(), [30], "what time saved does not pile up");
    }
}

#[test]
fn one_to_go_back_to_stays_beside_the_newest() {
    let lab = Lab::new();
    let task = lab.gpt(9, &["eval.every=0", "checkpoint.minutes=0", "checkpoint.every=4"]);
    let place = tempfile::tempdir().unwrap();
    let attempt = Attempt { stop_at: Some(5 + 7), ..Attempt::at(place.path()) };
    assert!(matches!(lab.train(&task, &attempt).0, Ok(Outcome::Interrupted { step: 7 })));
    assert_eq!(attempt.store().steps().unwrap(), [4, 6, 7]);
}

#[test]
fn a_kill_loses_no_more_than_the_interval() {
    let lab = Lab::new();
    // Each step takes a minute of this clock: it is looked at once a step, and twice a save.
    let task = lab.gpt(40, &["eval.every=0", "checkpoint.minutes=5"]);
    let place = tempfile::tempdir().unwrap();
    let (_, seen) = lab.finish(&task, &Attempt { tick: MINUTE, ..Attempt::at(place.path()) });
    // A save takes a minute, which is more than a tenth of five: ten minutes pass.
    let between: Vec<u64> = seen.saved.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(between.len() >= 4 && between.iter().all(|&steps| steps <= 10), "{:?}", seen.saved);
    assert!(between[..3].iter().all(|&steps| steps >= 9), "{:?}", seen.saved);
}

/// Where a fork begins must not depend on how fast its donor was.
#[test]
fn a_fork_never_takes_what_time_saved() {
    let lab = Lab::new();
    let sets = ["eval.every=0", "checkpoint.minutes=0"];
    let (donor, fork) =
        (lab.gpt(8, &sets), lab.gpt(8, &[&sets[..], &["schedule.warmdown_ratio=0.25"]].concat()));
    let shared = shared_steps(&donor, &fork);
    assert!((4..8).contains(&shared), "{shared}");
    let expected = lab.undisturbed(&fork);
    let forked = |stop_at: usize| {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("donor"), place.path().join("fork"));
        let forks = [shared];
        let attempt = Attempt { stop_at: Some(stop_at), forks: &forks, ..Attempt::at(&from) };
        let _ = lab.train(&donor, &attempt).0.unwrap();
        let on_disk = attempt.store().steps().unwrap();
        let donors = [Donor { run_key: donor.run_key, dir: RunDir::at(&from), steps: shared }];
        let (result, seen) = lab.finish(&fork, &Attempt { donors: &donors, ..Attempt::at(&to) });
        assert_same(&result, &expected, "forked");
        (on_disk, seen.started)
    };
    // Stopped before the fork: only what was saved by its step counts, and time saved steps 2 and 3.
    let (on_disk, started) = forked(5 + 3);
    assert_eq!((on_disk, started), (vec![2, 3], Some((0, Origin::Scratch))));
    // Far enough: the fork's step, though later ones are there.
    let (on_disk, started) = forked(1000);
    assert!(on_disk.contains(&shared), "{on_disk:?}");
    assert_eq!(started, Some((shared, Origin::Prefix)));
}
