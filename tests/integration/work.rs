//! Many processes on one results directory: each run is trained once, whoever is killed, frozen or late.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nanorun::internals::files::now;

use crate::reproduce::exact_tables;
use crate::support::{Ended, Place, any_speed, fail_shim};

/// Eight runs, a few steps each.
pub(crate) fn small() -> String {
    many(4)
}

/// The same manifest, whose workers are waited for less than a second. On a busy machine they may miss that by themselves:
/// only for tests that stay true then.
pub(crate) fn hasty(manifest: &str) -> String {
    format!("{manifest}\n[cluster]\nbeat_seconds = 0.2\n")
}

/// Two arms of so many seeds, of a model whose runs take a fraction of a second.
pub(crate) fn many(seeds: usize) -> String {
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/data/names.txt");
    let data =
        format!("shards = {:?}\ndocument = \"line\"\ntokenizer = \"char\"", names.display().to_string());
    let seeds: Vec<String> = (1..=seeds).map(|seed| seed.to_string()).collect();
    // Where a trunk's checkpoint is seen late a run is trained whole: how fast decides nothing here.
    any_speed()
        .replace("tokenizer = { vocab_size = 300 }", &data)
        .replace("[1, 2]", &format!("[{}]", seeds.join(", ")))
        .replace("every = 4", "every = 2")
}

/// One run that takes some seconds, with checkpoints along the way.
pub(crate) fn long() -> String {
    small()
        .replace("[1, 2, 3, 4]", "[1]")
        .replace("[\"linear\", \"sqrt\"]", "[\"linear\"]")
        .replace("steps = 8", "steps = 3000")
        .replace("every = 2", "every = 0")
        .replace("[scorecard]", "[checkpoint]\nevery = 100\n\n[scorecard]")
}

pub(crate) const WORK: [&str; 4] = ["work", "m.toml", "--jobs=1", "--threads=1"];

fn worker(place: &Place, rules: Option<&str>) -> Command {
    let mut command = place.command(&WORK);
    if let Some(rules) = rules {
        command.env("LD_PRELOAD", fail_shim()).env("FAIL", rules);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn ended(place: &Place, child: Child) -> Ended {
    Ended::of(&child.wait_with_output().unwrap(), &place.path(""))
}

pub(crate) fn send(child: &Child, signal: i32) {
    // SAFETY: a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) }, 0);
}

pub(crate) fn until(what: &str, mut there: impl FnMut() -> bool) {
    let since = now();
    while !there() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn runs(place: &Place, results: &str) -> Vec<PathBuf> {
    let mut runs: Vec<PathBuf> = std::fs::read_dir(place.path(results).join("tiny/runs"))
        .unwrap()
        .map(|run| run.unwrap().path())
        .collect();
    runs.sort();
    runs
}

pub(crate) fn numbers(dir: &Path) -> Vec<u64> {
    let mut numbers: Vec<u64> = std::fs::read_dir(dir)
        .map(|entries| {
            entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect()
        })
        .unwrap_or_default();
    numbers.sort_unstable();
    numbers
}

/// Those that are registered.
pub(crate) fn registered(place: &Place) -> usize {
    std::fs::read_dir(place.path("results/tiny/workers")).map_or(0, Iterator::count)
}

pub(crate) fn has_checkpoint(place: &Place) -> bool {
    let runs = place.path("results/tiny/runs");
    std::fs::read_dir(runs).is_ok_and(|mut runs| {
        runs.any(|run| {
            let checkpoints = run.unwrap().path().join("attempt/1/checkpoints");
            std::fs::read_dir(checkpoints).is_ok_and(|mut found| {
                found.any(|one| one.unwrap().file_name().to_string_lossy().starts_with("step_"))
            })
        })
    })
}

/// The tables that one undisturbed process makes of the same manifest.
pub(crate) fn whole(place: &Place) -> String {
    place.run(&["run", "m.toml", "--results", "whole", "--jobs=1", "--threads=1"]).expect(0);
    exact_tables(&place.path("whole/tiny"))
}

/// Starts so many workers at once. -> runs that they trained
fn share(place: &Place, workers: usize, rules: Option<&str>) -> u64 {
    let mut children: Vec<Child> = Vec::new();
    for _ in 0..workers {
        children.push(worker(place, rules).arg("--json").spawn().unwrap());
    }
    let told: Vec<serde_json::Value> =
        children.into_iter().map(|child| ended(place, child).expect(0).json()).collect();
    told.iter().map(|told| told["trained"].as_u64().unwrap()).sum()
}

#[test]
fn workers_share_an_experiment_and_train_each_run_once() {
    let place = Place::with(&small());
    assert_eq!(share(&place, 3, None), 8);
    for run in runs(&place, "results") {
        assert_eq!(numbers(&run.join("attempt")), [1], "{run:?}");
    }
    // Whoever was the last wrote what one process alone would have written.
    assert!(place.path("results/tiny/scorecard.txt").exists());
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
    assert_eq!(registered(&place), 0);
    // One that comes late finds nothing to do, and is done.
    assert_eq!(share(&place, 1, None), 0);
}

#[test]
fn without_locks_links_and_synced_directories_they_do_the_same() {
    let place = Place::with(&small());
    assert_eq!(share(&place, 3, Some("flock:results:38 link:results:1 syncdir:results:22")), 8);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

#[test]
fn with_listings_that_are_late_no_run_is_lost() {
    let place = Place::with(&small());
    // A listing that is behind can cost a run that is trained twice, never one that is not.
    assert!(share(&place, 3, Some("list:results:700")) >= 8);
    place.run(&["report", "m.toml"]).expect(0);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

#[test]
fn what_a_killed_worker_had_is_taken_at_once_in_the_same_attempt() {
    let place = Place::with(&long());
    let mut first = worker(&place, None).spawn().unwrap();
    until("a checkpoint", || has_checkpoint(&place));
    first.kill().unwrap();
    first.wait().unwrap();
    ended(&place, worker(&place, None).spawn().unwrap()).expect(0);
    let run = runs(&place, "results").remove(0);
    assert_eq!((numbers(&run.join("attempt")), numbers(&run.join("lease"))), (vec![1], vec![1, 2]));
    let journal = std::fs::read_to_string(run.join("attempt/1/journal.jsonl")).unwrap();
    assert!(journal.contains("\"resumed\"") && journal.contains("\"generation\":2"), "{journal}");
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

#[test]
fn who_stays_takes_over_from_the_frozen_and_the_double_run_is_told() {
    let place = Place::with(&hasty(&long()));
    let frozen = worker(&place, None).spawn().unwrap();
    until("a checkpoint", || has_checkpoint(&place));
    send(&frozen, libc::SIGSTOP);
    let stays = place.run(&["run", "m.toml", "--jobs=1", "--threads=1"]).expect(0);
    assert!(stays.stderr.contains("trained by process"), "{}", stays.stderr);
    send(&frozen, libc::SIGCONT);
    let frozen = ended(&place, frozen).expect(0);
    assert!(frozen.stderr.contains("took it over meanwhile"), "{}", frozen.stderr);
    let run = runs(&place, "results").remove(0);
    assert_eq!(numbers(&run.join("attempt")), [1, 2]);
    let journal = std::fs::read_to_string(run.join("attempt/2/journal.jsonl")).unwrap();
    assert!(journal.contains("\"taken_up\""), "{journal}");
    // Two results of one run in one class: equal, which is a check that nobody paid for.
    place.run(&["report", "m.toml"]).expect(0);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

#[test]
fn whoever_carries_the_manifest_out_waits_for_what_workers_train() {
    let place = Place::with(&long());
    let helper = worker(&place, None).spawn().unwrap();
    until("a checkpoint", || has_checkpoint(&place));
    let told = place.run(&["run", "m.toml", "--json"]).expect(0);
    assert!(told.json()["runs"][0]["finished"].as_bool().unwrap());
    assert!(told.stderr.contains("trained by process"), "{}", told.stderr);
    ended(&place, helper).expect(0);
    assert_eq!(numbers(&runs(&place, "results").remove(0).join("attempt")), [1]);
}

#[test]
fn two_plans_in_one_directory_are_refused() {
    let place = Place::with(&long());
    let mut first = worker(&place, None).spawn().unwrap();
    until("a checkpoint", || has_checkpoint(&place));
    std::fs::write(place.path("m.toml"), long().replace("margin = 0.5", "margin = 0.25")).unwrap();
    let refused = place.run(&WORK).expect(2);
    assert!(refused.stderr.contains("by another plan"), "{}", refused.stderr);
    assert!(refused.stderr.contains(&first.id().to_string()), "{}", refused.stderr);
    // `clean` keeps away too.
    let cleaned = place.run(&["clean", "results/tiny", "--yes"]);
    assert!(
        format!("{}{}", cleaned.stdout, cleaned.stderr).contains("another nanorun works"),
        "{}",
        cleaned.stderr
    );
    send(&first, libc::SIGTERM);
    assert_eq!(first.wait().unwrap().code(), Some(130));
    place.run(&["plan", "m.toml"]).expect(0);
}

/// Leaves every run as a worker does whose machine is gone: held by a process of elsewhere, of which nothing is heard.
fn leave_to_the_gone(place: &Place) {
    let elsewhere = serde_json::json!({
        "pid": 1, "host": "gone", "since": "2026-01-01T00:00:00Z", "command": "nanorun work m.toml",
        "process": { "host": "gone", "machine": "", "boot": "another", "namespace": "pid:[1]", "pid": 1, "began": 1 },
    });
    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    for run in plan["runs"].as_array().unwrap() {
        let key = &run["key"]["run"].as_str().unwrap()[..12];
        let lease = place.path("results/tiny/runs").join(key).join("lease/00000001");
        std::fs::create_dir_all(&lease).unwrap();
        std::fs::write(lease.join("owner.json"), elsewhere.to_string()).unwrap();
        std::fs::write(lease.join("attempt"), "1").unwrap();
        std::fs::write(lease.join("beat"), "1").unwrap();
    }
}

#[test]
fn what_a_machine_had_that_is_gone_is_trained_by_workers_that_leave_early_too() {
    for unit in [None, Some("--unit=0")] {
        let place = Place::with(&hasty(&long().replace("steps = 3000", "steps = 8")));
        leave_to_the_gone(&place);
        // It cannot know at first whether that one lives: it does not leave before it does.
        let mut command = worker(&place, None);
        let told = ended(&place, command.arg("--json").args(unit).spawn().unwrap()).expect(0).json();
        assert_eq!((told["trained"].as_u64(), told["complete"].as_bool()), (Some(1), Some(true)), "{told}");
        assert_eq!(numbers(&runs(&place, "results").remove(0).join("attempt")), [2]);
        assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
    }
}

#[test]
fn a_fork_trains_its_trunk_where_nobody_else_does() {
    let forks = hasty(&small().replace("[1, 2, 3, 4]", "[1]")) + "split = 2\n";
    let place = Place::with(&forks);
    let units = place.run(&["plan", "m.toml", "--json"]).expect(0).json()["cluster"]["units"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(units, 2);
    // The trunk's unit never starts.
    ended(&place, worker(&place, None).arg("--unit=1").spawn().unwrap()).expect(0);
    assert!(place.hashes().iter().all(|(_, hash)| hash.is_some()), "{:?}", place.hashes());
    ended(&place, worker(&place, None).arg("--unit=0").spawn().unwrap()).expect(0);
    place.run(&["report", "m.toml"]).expect(0);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

#[test]
fn a_worker_a_device_and_one_scorecard() {
    let place = Place::with(&small());
    let told = place.run(&["run", "m.toml", "--devices", "cpu,cpu", "--threads=2"]).expect(0);
    assert!(told.stderr.contains("[cpu 1] ") && told.stderr.contains("[cpu 2] "), "{}", told.stderr);
    assert!(told.stdout.contains("quality"), "{}", told.stdout);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
    assert_eq!(registered(&place), 0);
    for (devices, why) in
        [("cuda:0", "trains on none"), ("all", "trains on none"), ("banana", "is no device")]
    {
        let refused = place.run(&["run", "m.toml", "--devices", devices]).expect(2);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    // Programs that watch are told which device speaks.
    std::fs::remove_dir_all(place.path("results")).unwrap();
    let told = place.run(&["--progress", "json", "run", "m.toml", "--devices", "cpu,cpu"]).expect(0);
    let lines: Vec<serde_json::Value> =
        told.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        lines.iter().any(|line| line["device"] == "cpu 2" && line["event"] == "run_ended"),
        "{}",
        told.stderr
    );
}

#[test]
fn a_stop_reaches_the_workers_of_all_devices() {
    let place = Place::with(&long().replace("[1]", "[1, 2]"));
    let mut command = place.command(&["run", "m.toml", "--devices", "cpu,cpu", "--threads=2"]);
    let first = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("a checkpoint", || has_checkpoint(&place));
    send(&first, libc::SIGTERM);
    let first = ended(&place, first).expect(130);
    assert!(first.stderr.contains("carries on from there"), "{}", first.stderr);
    assert_eq!(registered(&place), 0);
    place.run(&["run", "m.toml", "--devices", "cpu,cpu", "--threads=2"]).expect(0);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

#[test]
fn one_class_for_all_who_train_where_the_manifest_demands_it() {
    let place = Place::with(&format!("{}\n[cluster]\nclass = \"same\"\n", small()));
    place.run(&WORK).expect(0);
    let known = place.path("results/tiny/classes.toml");
    assert!(std::fs::read_to_string(&known).unwrap().starts_with("\"cpu in f32\" = "));
    // What a machine of another kind would have left.
    std::fs::write(&known, "\"cpu in f32\" = \"another\"\n").unwrap();
    std::fs::remove_dir_all(place.path("results/tiny/runs")).unwrap();
    let refused = place.run(&WORK).expect(2);
    assert!(
        refused.stderr.contains("cluster.class") && refused.stderr.contains("`another`"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_run_beside_another_nanorun_of_its_host_is_not_alone() {
    let alone = |place: &Place| {
        let journal = runs(place, "results").remove(0).join("attempt/1/journal.jsonl");
        std::fs::read_to_string(journal).unwrap().contains("\"alone\":true")
    };
    let (first, second) = (Place::with(&long()), Place::with(&small()));
    let busy = worker(&first, None).spawn().unwrap();
    until("a checkpoint", || has_checkpoint(&first));
    let beside = worker(&second, None).env_remove("NANORUN_TEST_ALONE").spawn().unwrap();
    ended(&second, beside).expect(0);
    ended(&first, busy).expect(0);
    assert!(!alone(&second));
}

/// What happens to workers in a stress test, by a generator of its own: the same every time.
struct Fate(u64);

impl Fate {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Workers of which so many are killed and frozen at random, until every run has ended; then one that is left in peace.
fn stress(place: &Place, workers: usize, mut blows: usize, rules: Option<&str>, seed: u64) {
    let mut fate = Fate(seed);
    let mut children: Vec<(Child, bool)> = Vec::new();
    let since = now();
    let mut idle = 0;
    // Until nobody finds anything to do any more.
    while idle < workers {
        assert!(since.elapsed() < Duration::from_secs(900), "it does not end");
        while children.len() < workers {
            let mut command = worker(place, rules);
            let said = std::fs::File::options().append(true).create(true).open(place.path("said")).unwrap();
            children.push((command.stdout(Stdio::null()).stderr(said).spawn().unwrap(), false));
        }
        std::thread::sleep(Duration::from_millis(20 + fate.next(80)));
        let at = usize::try_from(fate.next(children.len() as u64)).unwrap();
        let (child, frozen) = &mut children[at];
        match fate.next(6) {
            _ if *frozen => {
                send(child, libc::SIGCONT);
                *frozen = false;
            }
            0 if blows > 0 => {
                blows -= 1;
                child.kill().unwrap();
                child.wait().unwrap();
                children.swap_remove(at);
            }
            1 | 2 if blows > 0 => {
                blows -= 1;
                send(child, libc::SIGSTOP);
                *frozen = true;
            }
            _ => {}
        }
        children.retain_mut(|(child, _)| match child.try_wait().unwrap() {
            None => true,
            Some(status) => {
                // Killed ones are gone from the list already: who leaves by itself has nothing left to take.
                assert!(
                    status.success(),
                    "{status}: {}",
                    std::fs::read_to_string(place.path("said")).unwrap()
                );
                idle += usize::from(blows == 0);
                false
            }
        });
    }
    for (child, _) in &mut children {
        send(child, libc::SIGCONT);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let told = place.run(&["run", "m.toml", "--jobs=1", "--threads=1", "--json"]).expect(0);
    let told = told.json();
    assert!(told["runs"].as_array().unwrap().iter().all(|run| run["finished"].as_bool().unwrap()));
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(place));
    assert_eq!(registered(place), 0);
}

#[test]
fn under_random_kills_and_freezes_every_run_has_one_result() {
    stress(&Place::with(&hasty(&many(6))), 4, 24, None, 1);
}

#[test]
fn the_same_without_locks_and_with_late_listings() {
    stress(
        &Place::with(&hasty(&many(4))),
        3,
        16,
        Some("flock:results:38 syncdir:results:22 list:results:300"),
        2,
    );
}

/// Its own claim is not listed for longer than it takes to claim, use and let go: nobody waits for himself.
#[test]
fn without_locks_and_with_listings_late_by_seconds_one_process_gets_through() {
    let place = Place::with(&small());
    assert_eq!(share(&place, 1, Some("flock:results:38 list:results:2000")), 8);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
    let claims = std::fs::read_dir(place.path("results/tiny/.lock.claims")).unwrap();
    let left: Vec<_> = claims.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// By hand: 200 runs, eight workers.
#[test]
#[ignore = "takes minutes"]
fn long_stress() {
    stress(&Place::with(&hasty(&many(100))), 8, 600, None, 3);
    stress(
        &Place::with(&hasty(&many(100))),
        8,
        600,
        Some("flock:results:38 syncdir:results:22 list:results:300"),
        4,
    );
}
