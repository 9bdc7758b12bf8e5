use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::host::ProcessId;

const SHORT: Duration = Duration::from_millis(20);

fn leases(period: Duration) -> Leases {
    Leases::new(LockHolder::this_process("here"), period)
}

fn mine(claimed: io::Result<Claimed>) -> Lease {
    match claimed.unwrap() {
        Claimed::Mine(lease) => lease,
        Claimed::Theirs { holder, .. } => panic!("it is {holder:?}'s"),
    }
}

/// Puts a generation there as a process leaves it that was killed.
fn left(root: &Path, number: u64, process: &ProcessId, attempt: u32) {
    let dir = root.join(numbered::name(number));
    std::fs::create_dir_all(&dir).unwrap();
    let holder = LockHolder { process: Some(process.clone()), ..LockHolder::this_process("there") };
    std::fs::write(dir.join(generations::OWNER), serde_json::to_string(&holder).unwrap()).unwrap();
    std::fs::write(dir.join(generations::ATTEMPT), attempt.to_string()).unwrap();
    std::fs::write(dir.join(generations::BEAT), "1").unwrap();
}

fn elsewhere() -> ProcessId {
    ProcessId {
        host: "far".to_owned(),
        boot: "other".to_owned(),
        machine: String::new(),
        ..ProcessId::own().clone()
    }
}

fn dead() -> ProcessId {
    ProcessId { began: ProcessId::own().began + 1, ..ProcessId::own().clone() }
}

fn waited_for(leases: &Leases, root: &Path) -> (Lease, usize) {
    for tries in 0..10_000 {
        match leases.claim(root).unwrap() {
            Claimed::Mine(lease) => return (lease, tries),
            Claimed::Theirs { .. } => std::thread::sleep(SHORT / 4),
        }
    }
    panic!("it was never had");
}

#[test]
fn a_lease_is_had_by_one_and_let_go() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("lease");
    let (one, other) = (leases(SHORT), leases(SHORT));
    let lease = mine(one.claim(&root));
    assert_eq!(lease.generation(), 1);
    // Its holder beats: however long it is waited for, nobody else has it.
    for _ in 0..40 {
        assert!(matches!(other.claim(&root).unwrap(), Claimed::Theirs { holder: Some(_), .. }));
        std::thread::sleep(SHORT / 4);
    }
    assert!(!lease.is_lost());
    drop(lease);
    let next = mine(other.claim(&root));
    assert_eq!((next.generation(), next.occupied().len(), next.taken_from()), (2, 0, None));
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_dead_left_is_taken_at_once_and_their_attempt_is_free() {
    let place = tempfile::tempdir().unwrap();
    left(place.path(), 4, &dead(), 2);
    let lease = mine(leases(Duration::from_secs(3600)).claim(place.path()));
    assert_eq!(lease.generation(), 5);
    assert!(lease.occupied().is_empty());
}

#[test]
fn what_came_from_elsewhere_is_taken_after_missed_beats_and_its_attempt_stays_theirs() {
    let place = tempfile::tempdir().unwrap();
    left(place.path(), 1, &elsewhere(), 1);
    let leases = leases(SHORT);
    let (lease, tries) = waited_for(&leases, place.path());
    assert!(tries > 0);
    assert_eq!(lease.generation(), 2);
    assert_eq!(lease.taken_from().unwrap().process, Some(elsewhere()));
    assert_eq!(lease.occupied(), &BTreeSet::from([1]));
    lease.works_on(2).unwrap();
    drop(lease);
    // The one of elsewhere may still come back, whoever holds the lease by then.
    let lease = mine(leases.claim(place.path()));
    assert_eq!(lease.occupied(), &BTreeSet::from([1]));
}

#[test]
fn who_lost_a_lease_learns_of_it() {
    let place = tempfile::tempdir().unwrap();
    let leases = leases(SHORT);
    let lease = mine(leases.claim(place.path()));
    assert!(!lease.is_lost());
    left(place.path(), lease.generation() + 1, &elsewhere(), 2);
    assert!((0..2000).any(|_| {
        std::thread::sleep(SHORT / 4);
        lease.is_lost()
    }));
}

#[cfg(target_os = "linux")]
#[test]
fn a_generation_whose_maker_died_before_it_signed_is_taken() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join(numbered::name(1))).unwrap();
    // As `intend` names it, of a process that is gone.
    let own = generations::intend(place.path(), 1, &LockHolder::this_process("here")).unwrap();
    let name = own.file_name().unwrap().to_str().unwrap();
    let began = ProcessId::own().began;
    let of_the_dead = name.replace(&format!("-{began}-"), &format!("-{}-", began + 1));
    assert_ne!(name, of_the_dead);
    std::fs::rename(&own, place.path().join(of_the_dead)).unwrap();
    let lease = mine(leases(Duration::from_secs(3600)).claim(place.path()));
    assert_eq!(lease.generation(), 2);
}

#[test]
fn a_generation_that_nobody_signed_is_waited_for() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join(numbered::name(1))).unwrap();
    let (lease, tries) = waited_for(&leases(SHORT), place.path());
    assert!(tries > 0);
    assert_eq!(lease.generation(), 2);
}

/// A listing that is behind shows fewer generations than there are: those that are asked for by name are found.
#[test]
fn a_generation_that_is_not_listed_is_found_by_name() {
    let place = tempfile::tempdir().unwrap();
    let leases = leases(Duration::from_secs(3600));
    for number in 1..=3 {
        left(place.path(), number, &elsewhere(), 1);
    }
    // From nothing listed at all.
    assert!(matches!(leases.claim(place.path()).unwrap(), Claimed::Theirs { holder: Some(_), .. }));
    assert!(leases.take(place.path(), 2).unwrap().is_none());
}

#[test]
fn of_many_at_once_one_has_it() {
    let inside = AtomicUsize::new(0);
    let taken = AtomicUsize::new(0);
    for _ in 0..10 {
        let place = tempfile::tempdir().unwrap();
        let start = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let leases = leases(Duration::from_secs(3600));
                    start.wait();
                    for _ in 0..20 {
                        let Claimed::Mine(lease) = leases.claim(place.path()).unwrap() else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have it");
                        taken.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lease);
                    }
                });
            }
        });
    }
    assert!(taken.load(Ordering::SeqCst) >= 10);
}
