//! Workers of which nobody here can tell whether they live, as those of other machines: in namespaces of process ids of
//! their own, with clocks that are wrong, and with mounts of their own of the directory that they share.

#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nanorun::internals::files::now;

use crate::reproduce::exact_tables;
use crate::support::{Place, fail_shim, skip};
use crate::work::{WORK, ended, has_checkpoint, long, numbers, registered, runs, send, small, until, whole};

/// Between two beats: a holder that lives must not miss three of them, on a busy machine either.
const BEAT: Duration = Duration::from_secs(1);

fn beating(manifest: &str) -> String {
    format!("{manifest}\n[cluster]\nbeat_seconds = {}\n", BEAT.as_secs_f64())
}

/// What makes a namespace of process ids, and of hosts' names. Killed, it takes what runs in it along.
const UNSHARE: [&str; 4] = ["unshare", "-Urupf", "--mount-proc", "--kill-child"];

/// A machine of its own, as far as processes tell: a namespace of process ids, and a clock that is off by so many seconds.
#[derive(Clone, Copy)]
struct Machine<'a> {
    clock: i64,
    /// Its name.
    host: &'static str,
    /// Where it has mounted the directory that all share.
    mount: Option<&'a Mount>,
}

impl Machine<'_> {
    fn nanorun(&self, place: &Place, arguments: &[&str]) -> Command {
        let bare = place.command(arguments);
        let mut command = Command::new(UNSHARE[0]);
        let called = "hostname \"$0\" && exec \"$@\"";
        command.args(&UNSHARE[1..]).args(["sh", "-c", called, self.host]);
        command.arg(bare.get_program()).args(bare.get_args());
        command.current_dir(self.mount.map_or_else(|| place.path(""), Mount::path));
        command.envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("LD_PRELOAD", fail_shim()).env("CLOCK", self.clock.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, place: &Place, arguments: &[&str]) -> Child {
        self.nanorun(place, arguments).spawn().unwrap()
    }
}

fn at(clock: i64) -> Machine<'static> {
    Machine { clock, host: "node", mount: None }
}

/// A directory, through a file system of its own whose kernel remembers names that are not there, and sizes and times of
/// those that are, for some seconds, as NFS does: two of them are to each other as two machines are. Locks are its own.
struct Mount {
    server: Child,
    dir: tempfile::TempDir,
}

impl Mount {
    /// None where the kernel has no FUSE, or none for this user: it cannot be tried there.
    fn of(place: &Place) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let caches = "-oattr_timeout=2,entry_timeout=2,negative_timeout=2";
        let mut command = Command::new("bindfs");
        command.args(["-f", "--no-allow-other", caches]).args([&place.path(""), dir.path()]);
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let since = now();
        // Whatever the place has is to be seen there.
        while !dir.path().join("m.toml").exists() {
            if server.try_wait().unwrap().is_some() || since.elapsed() > Duration::from_secs(20) {
                let _ = server.kill();
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { server, dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // By its own hand, so that nothing stays mounted that the directory below could be removed through.
        send(&self.server, libc::SIGTERM);
        let _ = self.server.wait();
    }
}

/// Two mounts of one directory, where this machine can have them.
fn two_mounts(what: &str, place: &Place) -> Option<[Mount; 2]> {
    if !Command::new("bindfs").arg("--version").output().is_ok_and(|told| told.status.success()) {
        skip(&format!("{what}: bindfs is missing (Debian: apt-get install bindfs fuse3)"));
        return None;
    }
    let mounts = [Mount::of(place), Mount::of(place)];
    if mounts.iter().any(Option::is_none) {
        eprintln!("{what}: this kernel lets nobody mount through FUSE here");
    }
    let [Some(first), Some(second)] = mounts else { return None };
    Some([first, second])
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
fn is_taken_after_missed_beats(place: &Place, holder: Machine<'_>, other: Machine<'_>) {
    let mut first = holder.start(place, &WORK);
    until("a checkpoint", || has_checkpoint(place));
    let second = other.start(place, &["run", "m.toml", "--jobs=1", "--threads=1"]);
    let lease = || numbers(&runs(place, "results").remove(0).join("lease"));
    // Longer than it takes to take over from one of whom nothing is heard.
    until("the other one", || registered(place) == 2);
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
    let told = ended(place, second).expect(0);
    assert!(told.stderr.contains("taken over from process "), "{}", told.stderr);
    // Nobody knows that it is dead: its attempt is left alone.
    assert_eq!(numbers(&runs(place, "results").remove(0).join("attempt")), [1, 2]);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(place));
}

/// Has these work at the same time. -> runs that they trained
fn share<const N: usize>(place: &Place, machines: [Machine<'_>; N]) -> u64 {
    let arguments = [&WORK[..], &["--json"]].concat();
    let children = machines.map(|machine| machine.start(place, &arguments));
    children.map(|child| ended(place, child).expect(0).json()["trained"].as_u64().unwrap()).iter().sum()
}

#[test]
fn a_holder_of_another_namespace_is_taken_over_after_missed_beats() {
    if can_be_had("a holder of another machine") {
        // Of one name, as containers may be.
        is_taken_after_missed_beats(&Place::with(&beating(&long())), at(0), at(0));
    }
}

#[test]
fn clocks_that_are_an_hour_off_change_nothing() {
    if !can_be_had("clocks that differ") {
        return;
    }
    for (holder, other) in [(3600, -3600), (-3600, 3600)] {
        is_taken_after_missed_beats(&Place::with(&beating(&long())), at(holder), at(other));
    }
    // Workers that begin together: each run is trained once, and nobody takes another one for gone.
    let place = Place::with(&small());
    assert_eq!(share(&place, [3600, 0, -3600].map(at)), 8);
    for run in runs(&place, "results") {
        assert_eq!(numbers(&run.join("attempt")), [1], "{run:?}");
    }
    // Each runs in a namespace that is gone: the last cannot tell that the others have ended, save by their leaving.
    assert_eq!(registered(&place), 0);
    place.run(&["report", "m.toml"]).expect(0);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

/// All tables are right, though each sees late what the others did: that can cost a run that is trained twice, never one that
/// is not.
#[test]
fn workers_with_mounts_of_their_own_share_an_experiment() {
    let what = "workers on FUSE mounts";
    if !can_be_had(what) {
        return;
    }
    let place = Place::with(&small());
    let Some([first, second]) = two_mounts(what, &place) else { return };
    let mounts = [Some(&first), Some(&second), Some(&first), Some(&second), None];
    let trained = share(&place, mounts.map(|mount| Machine { mount, ..at(0) }));
    assert!(trained >= 8, "{trained}");
    assert_eq!(registered(&place), 0);
    place.run(&["report", "m.toml"]).expect(0);
    assert_eq!(exact_tables(&place.path("results/tiny")), whole(&place));
}

#[test]
fn a_holder_behind_another_mount_is_taken_over_after_missed_beats() {
    let what = "a holder behind a FUSE mount";
    if !can_be_had(what) {
        return;
    }
    let place = Place::with(&beating(&long()));
    let Some([first, second]) = two_mounts(what, &place) else { return };
    let behind = |mount| Machine { mount: Some(mount), ..at(0) };
    is_taken_after_missed_beats(&place, behind(&first), behind(&second));
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
                Machine { host, ..at(0) }.nanorun(&place, &["run", "m.toml", "--jobs=1", "--threads=1"]);
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
