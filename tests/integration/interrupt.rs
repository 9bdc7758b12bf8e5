//! Signals: which stop a run, at which moments, what is on disk then, and that nobody can tell from the result.
#![cfg(unix)]

use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nanorun::internals::files::now;

use crate::support::{Place, TINY};

/// Longer than any stop takes on a busy machine, and shorter than any of the runs here.
const SOON: Duration = Duration::from_secs(20);

/// One run of `steps` steps without evaluations between the first and the last.
fn one_run(steps: u64) -> String {
    TINY.replace("steps = 8", &format!("steps = {steps}"))
        .replace("every = 4", "every = 0")
        .replace("\"schedule.warmdown\" = [\"linear\", \"sqrt\"]\n", "")
        .replace("\"run.seed\" = [1, 2]", "\"run.seed\" = [1]")
        .replace("control = { \"schedule.warmdown\" = \"linear\" }", "")
}

fn milliseconds(count: u64) {
    std::thread::sleep(Duration::from_millis(count));
}

fn signal(child: &Child, number: i32) {
    // SAFETY: sends a signal to a child that was not waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, number) }, 0);
}

/// Starts it with its output kept, and waits until it watches for signals, which it does first.
fn start(command: &mut Command) -> Child {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    watches(&mut child);
    child
}

fn watches(child: &mut Child) {
    let status = format!("/proc/{}/status", child.id());
    for _ in 0..10_000 {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let Some(caught) = text.lines().find_map(|line| line.strip_prefix("SigCgt:")) else {
            // Not Linux: it takes no longer than this.
            return milliseconds(700);
        };
        // SIGXCPU is the last of those it watches for.
        if u64::from_str_radix(caught.trim(), 16).unwrap() >> (libc::SIGXCPU - 1) & 1 == 1 {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it watched");
        milliseconds(3);
    }
    panic!("it never watched for signals");
}

/// The steps of all checkpoints below a directory, ascending.
fn checkpoints(dir: &Path) -> Vec<u64> {
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.strip_prefix("step_").and_then(|step| step.parse().ok()) {
            Some(step) => steps.push(step),
            None => steps.extend(checkpoints(&entry.path())),
        }
    }
    steps.sort_unstable();
    steps
}

fn newest(place: &Place) -> Option<u64> {
    checkpoints(&place.path("results")).pop()
}

/// Waits for the first checkpoint, which is on disk before the first evaluation: from then on it trains.
fn begun(place: &Place, child: &mut Child) {
    let waited = now();
    while newest(place).is_none() && waited.elapsed() < Duration::from_secs(60) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
        milliseconds(3);
    }
}

/// How often the journals tell of an event.
fn journalled(dir: &Path, event: &str) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let count = |entry: std::fs::DirEntry| match entry.file_name().to_str() {
        Some("journal.jsonl") => {
            std::fs::read_to_string(entry.path()).map_or(0, |text| text.matches(event).count())
        }
        _ => journalled(&entry.path(), event),
    };
    entries.map(count).sum()
}

/// Waits until the journals tell of an event so often.
fn told(place: &Place, child: &mut Child, event: &str, times: usize) {
    let waited = now();
    while journalled(&place.path("results"), event) < times && waited.elapsed() < Duration::from_secs(60) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before {event}");
        milliseconds(3);
    }
}

/// The exit code and what it said, once it has ended.
#[track_caller]
fn ended(mut child: Child, within: Duration) -> (Option<i32>, String) {
    let waited = now();
    while child.try_wait().unwrap().is_none() {
        if waited.elapsed() > within {
            child.kill().unwrap();
            panic!("it did not end within {within:?}: {:?}", child.wait_with_output().unwrap());
        }
        milliseconds(3);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.stdout.is_empty(), "an unfinished experiment has no scorecard");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The result hash of a manifest that nothing disturbs.
fn undisturbed(manifest: &str) -> Vec<(String, Option<String>)> {
    let place = Place::with(manifest);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    place.hashes()
}

#[test]
fn an_interrupted_run_gives_the_same_hash() {
    let place = Place::with(&one_run(3000));
    let mut child = start(&mut place.command(&["run", "m.toml", "-q"]));
    begun(&place, &mut child);
    signal(&child, libc::SIGINT);
    assert_eq!(ended(child, SOON).0, Some(130));
    assert_eq!(place.hashes()[0].1, None);
    place.run(&["resume", "results/tiny", "-q"]).expect(0);
    let resumed = place.hashes();
    place.run(&["run", "m.toml", "--rerun", "-q"]).expect(0);
    assert_eq!(place.hashes(), resumed);
}

/// Warning signals of schedulers stop as SIGTERM does, each at another moment of one run.
#[test]
fn warning_signals_stop_with_a_checkpoint() {
    let manifest = one_run(6000);
    let place = Place::with(&manifest);
    let signals = [
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGXCPU, "SIGXCPU"),
    ];
    let (mut before, mut named, mut lives) = (0, 0, 0);
    for (delay, (number, name)) in [131, 230, 97, 0, 173, 270].into_iter().zip(signals) {
        let mut child = start(&mut place.command(&["run", "m.toml", "--threads", "1"]));
        match lives {
            0 => told(&place, &mut child, "\"evaluated\"", 1),
            _ => told(&place, &mut child, "\"resumed\"", lives),
        }
        lives += 1;
        milliseconds(delay);
        signal(&child, number);
        let (code, said) = ended(child, SOON);
        assert_eq!(code, Some(130), "{name}: {said}");
        let step = newest(&place).unwrap();
        let note = [
            format!("stopping: {name}; a checkpoint of step {step} will be on disk in a moment"),
            format!("stopping: {name}; the checkpoint of step {step} is on disk"),
        ];
        // One that is resumed may be stopped before it trains on.
        named += usize::from(note.iter().any(|note| said.contains(note)));
        assert!(step >= before, "{name}: {before}, then {step}");
        before = step;
    }
    assert!(before > 0 && named >= 3, "step {before}, {named} named");
    place.run(&["run", "m.toml", "-q"]).expect(0);
    assert_eq!(place.hashes(), undisturbed(&manifest));
}

/// What a preempted Slurm step gets.
#[test]
fn two_signals_of_a_scheduler_are_one_stop() {
    let place = Place::with(&one_run(100_000));
    let mut child = start(&mut place.command(&["run", "m.toml"]));
    told(&place, &mut child, "\"evaluated\"", 1);
    milliseconds(300);
    for (number, pause) in [(libc::SIGTERM, 5), (libc::SIGCONT, 8), (libc::SIGTERM, 0)] {
        // The first may have been enough.
        if child.try_wait().unwrap().is_none() {
            signal(&child, number);
        }
        milliseconds(pause);
    }
    let (code, said) = ended(child, SOON);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("stopping: SIGTERM; a checkpoint of step"), "{said}");
    assert!(newest(&place) > Some(0), "the steps trained are on disk");
}

#[test]
fn nohup_holds() {
    let place = Place::with(&one_run(100_000));
    let nanorun = place.command(&["run", "m.toml"]);
    let mut command = Command::new("sh");
    // As `nohup` and the background of a script have it.
    command.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]).arg(nanorun.get_program());
    command.args(nanorun.get_args()).current_dir(nanorun.get_current_dir().unwrap());
    command.envs(nanorun.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = start(&mut command);
    begun(&place, &mut child);
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGHUP] {
        signal(&child, number);
        milliseconds(150);
        assert!(child.try_wait().unwrap().is_none(), "signal {number} was to be ignored");
    }
    signal(&child, libc::SIGTERM);
    let (code, told) = ended(child, SOON);
    assert_eq!(code, Some(130), "{told}");
    assert!(told.contains("stopping: SIGTERM"), "{told}");
}

/// A run that cannot stop: it waits for a manifest that nobody writes.
fn stuck(place: &Place, stdin: Stdio) -> Child {
    let path = std::ffi::CString::new(place.path("stuck.toml").display().to_string()).unwrap();
    // SAFETY: a path that ends in zero.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let mut command = place.command(&["run", "stuck.toml"]);
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    watches(&mut child);
    child
}

#[test]
fn a_repeat_after_seconds_ends_at_once() {
    let place = Place::with(TINY);
    let mut child = stuck(&place, Stdio::null());
    signal(&child, libc::SIGTERM);
    milliseconds(300);
    signal(&child, libc::SIGTERM);
    // Without a terminal, SIGINT is like any other.
    signal(&child, libc::SIGINT);
    milliseconds(300);
    signal(&child, libc::SIGINT);
    milliseconds(300);
    assert!(child.try_wait().unwrap().is_none(), "a repeat within seconds is none");
    milliseconds(1500);
    signal(&child, libc::SIGTERM);
    assert_eq!(ended(child, Duration::from_secs(2)).0, Some(130));
}

#[test]
fn a_second_interrupt_from_a_terminal_ends_at_once() {
    // SAFETY: opens a terminal and says where its other end is; both are closed with what they are given to.
    let (_keyboard, terminal) = unsafe {
        let keyboard = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        assert!(keyboard >= 0 && libc::grantpt(keyboard) == 0 && libc::unlockpt(keyboard) == 0);
        let terminal = libc::open(libc::ptsname(keyboard), libc::O_RDWR | libc::O_NOCTTY);
        assert!(terminal >= 0);
        (OwnedFd::from_raw_fd(keyboard), OwnedFd::from_raw_fd(terminal))
    };
    let place = Place::with(TINY);
    let mut child = stuck(&place, Stdio::from(terminal));
    signal(&child, libc::SIGINT);
    milliseconds(300);
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, libc::SIGINT);
    assert_eq!(ended(child, Duration::from_secs(1)).0, Some(130));
}

#[test]
fn a_stop_while_the_tokenizer_trains_leaves_nothing_behind() {
    // Words that hardly repeat: merges take their time.
    let mut state = 1_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (0..4 + (state >> 60))
            .map(|at| char::from(b'a' + (state >> (3 * at + 5)) as u8 % 26))
            .collect::<String>()
    };
    let text = (0..20_000).map(|_| (0..20).map(|_| word() + " ").collect::<String>() + "\n");
    let manifest = one_run(2)
        .replace("[data]\n", "[data]\nshards = \"text.txt\"\ndocument = \"line\"\n")
        .replace("warmup_steps = 2", "warmup_steps = 0")
        .replace("vocab_size = 300", "vocab_size = 4096");
    let place = Place::with(&manifest);
    std::fs::write(place.path("text.txt"), text.collect::<String>()).unwrap();
    let command = || {
        let mut command = place.command(&["run", "m.toml"]);
        command.env("NANORUN_CACHE", place.path("cache"));
        command
    };
    for delay in [0, 80, 300] {
        let child = start(&mut command());
        milliseconds(delay);
        signal(&child, libc::SIGTERM);
        let (code, told) = ended(child, Duration::from_secs(5));
        assert_eq!(code, Some(130), "{told}");
        assert!(told.contains("stopped by SIGTERM"), "{told}");
        assert!(!told.contains("error"), "to stop is what was asked for: {told}");
        assert_eq!(newest(&place), None);
    }
    assert!(command().output().unwrap().status.success());
    let stopped = place.hashes();
    place.run(&["run", "m.toml", "--rerun", "-q"]).expect(0);
    assert_eq!(place.hashes(), stopped);
}

#[test]
fn a_stop_in_an_evaluation_keeps_its_batches() {
    let manifest = one_run(4).replace("tokens = 512", "tokens = 524288");
    let place = Place::with(&manifest);
    let mut goes_on = 0;
    // On a busy machine it takes a while to get there.
    for (resumes, delay) in [300, 600, 300, 1200, 2400].into_iter().enumerate() {
        if goes_on > 1 {
            break;
        }
        let mut child = start(&mut place.command(&["run", "m.toml", "--threads", "1"]));
        begun(&place, &mut child);
        told(&place, &mut child, "\"resumed\"", resumes);
        milliseconds(delay);
        signal(&child, libc::SIGUSR1);
        let (code, said) = ended(child, SOON);
        assert_eq!(code, Some(130), "{said}");
        goes_on += usize::from(said.contains("goes on after batch"));
    }
    let last = place.run(&["run", "m.toml", "--threads", "1"]).expect(0).stderr;
    goes_on += usize::from(last.contains("goes on after batch"));
    assert!(goes_on > 0, "{last}");
    assert_eq!(place.hashes(), undisturbed(&manifest));
}

/// A run that writes a checkpoint after every step is nearly always in the middle of one.
#[test]
fn a_stop_in_a_checkpoint_write_waits_for_it() {
    let manifest = one_run(150);
    let place = Place::with(&manifest);
    let arguments = ["run", "m.toml", "--set", "checkpoint.minutes=0", "-q"];
    // Of experiments: beside them are the ledger and its lock.
    let results = |place: &Place| {
        let entries = std::fs::read_dir(place.path("results")).unwrap().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    for delay in [11, 26, 3] {
        let mut child = start(&mut place.command(&arguments));
        begun(&place, &mut child);
        milliseconds(delay);
        signal(&child, libc::SIGUSR2);
        assert_eq!(ended(child, SOON).0, Some(130));
        assert!(checkpoints(&place.path("results")).len() <= 3, "what time saves does not pile up");
        assert_eq!(results(&place), 1);
    }
    place.run(&arguments).expect(0);
    // A cadence is no part of a run: without it, nothing is left to do.
    assert!(place.hashes()[0].1.is_some());
    assert_eq!(place.hashes(), undisturbed(&manifest));
}

#[test]
fn all_runs_of_an_experiment_stop() {
    let manifest = TINY.replace("steps = 8", "steps = 100000").replace("every = 4", "every = 0");
    let place = Place::with(&manifest);
    let mut child = start(&mut place.command(&["run", "m.toml", "--jobs", "2", "--no-share"]));
    let waited = now();
    while checkpoints(&place.path("results")).len() < 2 && waited.elapsed() < Duration::from_secs(60) {
        assert!(child.try_wait().unwrap().is_none());
        milliseconds(3);
    }
    milliseconds(150);
    signal(&child, libc::SIGTERM);
    let (code, told) = ended(child, SOON);
    assert_eq!(code, Some(130), "{told}");
    assert_eq!(told.matches("stopping: SIGTERM").count(), 2, "{told}");
}

#[test]
fn whoever_waits_for_another_nanorun_stops() {
    let place = Place::with(&one_run(100_000));
    let mut first = start(&mut place.command(&["run", "m.toml", "-q"]));
    begun(&place, &mut first);
    let second = start(&mut place.command(&["run", "m.toml"]));
    milliseconds(600);
    signal(&second, libc::SIGTERM);
    let (code, told) = ended(second, Duration::from_secs(5));
    assert_eq!(code, Some(130), "{told}");
    // It may have come as far as to wait for the run, or not.
    assert!(told.contains("interrupted: 0 of 1") || told.contains("stopped"), "{told}");
    signal(&first, libc::SIGTERM);
    assert_eq!(ended(first, SOON).0, Some(130));
}
