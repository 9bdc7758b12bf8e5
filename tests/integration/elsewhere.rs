//! Workers of which nobody here can tell whether they live, as those of other machines: in namespaces of process ids of
//! their own, and with clocks that are wrong.

#![cfg(target_os = "linux")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nanorun::internals::files::now;

use crate::reproduce::exact_tables;
use crate::support::{Place, fail_shim, skip};
use crate::work::{WORK, ended, has_checkpoint, long, numbers, registered, runs, small, until, whole};

/// Between two beats: a holder that lives must not miss three of them, on a busy machine either.
const BEAT: Duration = Duration::from_secs(1);

fn beating(manifest: &str) -> String {
    format!("{manifest}\n[cluster]\nbeat_seconds = {}\n", BEAT.as_secs_f64())
}

/// What makes a namespace of process ids, and of hosts' names. Killed, it takes what runs in it along.
const UNSHARE: [&str; 4] = ["unshare", "-Urupf", "--mount-proc", "--kill-child"];

/// A machine of its own, as far as processes tell: a namespace of process ids, and a clock that is off by so many seconds.
#[derive(Clone, Copy)]
struct Machine {
    clock: i64,
    /// Its name.
    host: &'static str,
}

impl Machine {
    fn nanorun(&self, place: &Place, arguments: &[&str]) -> Command {
        let bare = place.command(arguments);
        let mut command = Command::new(UNSHARE[0]);
        let called = "hostname \"$0\" && exec \"$@\"";
        command.args(&UNSHARE[1..]).args(["sh", "-c", called, self.host]);
        command.arg(bare.get_program()).args(bare.get_args()).current_dir(place.path(""));
        command.envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("LD_PRELOAD", fail_shim()).env("CLOCK", self.clock.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, place: &Place, arguments: &[&str]) -> Child {
        self.nanorun(place, arguments).spawn().unwrap()
    }
}

fn at(clock: i64) -> Machine {
    Machine { clock, host: "node" }
}

/// Whether this kernel lets tests have such machines.
fn can_be_had(what: &str) -> bool {
    let tried = Command::new(UNSHARE[0]).args(&UNSHARE[1..]).args(["hostname", "other"]).output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        skip(&format!("{what}: namespaces of process ids take root, or user namespaces"));
    }
    can
}

/// One holds a run; another one waits for it, which stays. The first is killed: it is taken over after the beats that it may
/// miss, and not before.
fn is_taken_after_missed_beats(holder: Machine, other: Machine) {
    let place = Place::with(&beating(&long()));
    let mut first = holder.start(&place, &WORK);
    until("a checkpoint", || has_checkpoint(&place));
    let second = other.start(&place, &["run", "m.toml", "--jobs=1", "--threads=1"]);
    let lease = || numbers(&runs(&place, "results").remove(0).join("lease"));
    // Longer than it takes to take over from one of whom nothing is heard.
    until("the other one", || registered(&place) == 2);
    let since = now();
    while since.elapsed() < BEAT * 2 && first.try_wait().unwrap().is_none() {
        assert_eq!(lease(), [1]);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(first.try_wait().unwrap().is_none(), "it ended before it could be killed: the run is too short");
    first.kill().unwrap();
    first.wait().unwrap();
    let killed = now();
    until("another holder", || lease() == [1, 2]);
    // It may have been about to beat when it was killed.
    assert!(killed.elapsed() >= BEAT * 2, "{:?}", killed.elapsed());
    let told = ended(&place, second).expect(0);
    assert!(told.stderr.contains("taken over from process "), "{}", told.stderr);
    // Nobody knows that it is dead: its attempt is left alone.
    assert_eq!(numbers(&runs(&place, "results").remove(0).join("attempt")), [1, 2]);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

#[test]
fn a_holder_of_another_namespace_is_taken_over_after_missed_beats() {
    if can_be_had("a holder of another machine") {
        // Of one name, as containers may be.
        is_taken_after_missed_beats(at(0), at(0));
    }
}

#[test]
fn clocks_that_are_an_hour_off_change_nothing() {
    if !can_be_had("clocks that differ") {
        return;
    }
    is_taken_after_missed_beats(at(3600), at(-3600));
    is_taken_after_missed_beats(at(-3600), at(3600));
    // Workers that begin together: each run is trained once, and nobody takes another one for gone.
    let place = Place::with(&small());
    let arguments = [&WORK[..], &["--json"]].concat();
    let children: Vec<Child> =
        [3600, 0, -3600].into_iter().map(|clock| at(clock).start(&place, &arguments)).collect();
    let trained: u64 = children
        .into_iter()
        .map(|child| ended(&place, child).expect(0).json()["trained"].as_u64().unwrap())
        .sum();
    assert_eq!(trained, 8);
    for run in runs(&place, "results") {
        assert_eq!(numbers(&run.join("attempt")), [1], "{run:?}");
    }
    // Each runs in a namespace that is gone: the last cannot tell that the others have ended, save by their leaving.
    assert_eq!(registered(&place), 0);
    place.run(&["report", "m.toml"]).expect(0);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

#[test]
fn what_fails_is_tried_once_more_on_another_machine_and_no_third_time() {
    if !can_be_had("machines of several names") {
        return;
    }
    // All of them are there before the first one fails, at its first checkpoint.
    let place = Place::with(&beating(&long().replace("every = 100", "every = 2000")));
    let children: Vec<Child> = ["a", "b", "c"]
        .into_iter()
        .map(|host| {
            let mut command =
                Machine { clock: 0, host }.nanorun(&place, &["run", "m.toml", "--jobs=1", "--threads=1"]);
            command.env("FAIL", "write:step_002000:5").spawn().unwrap()
        })
        .collect();
    until("three of them", || registered(&place) == 3);
    let told: Vec<String> = children.into_iter().map(|child| ended(&place, child).expect(3).stderr).collect();
    let run = runs(&place, "results").remove(0);
    let journal = std::fs::read_to_string(run.join("attempt/1/journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"failed\"").count(), 2, "{journal}");
    assert_eq!(told.iter().filter(|told| told.contains("it failed after step")).count(), 1, "{told:?}");
    // Whoever comes later begins anew, on whichever machine.
    place.run(&["run", "m.toml", "--jobs=1", "--threads=1"]).expect(0);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}
