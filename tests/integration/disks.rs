//! File systems as they are elsewhere: without locks, without synced directories, slow to let go of files, full, read
//! only, layered, on a server.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nanorun::internals::files::now;
use nanorun::internals::host::ProcessId;

use crate::reproduce::exact_tables;
use crate::support::{Ended, Place, TINY, fail_shim, skip};

/// One run of six steps with a checkpoint every step: most of them are removed again.
fn busy() -> String {
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/data/names.txt");
    let data =
        format!("shards = {:?}\ndocument = \"line\"\ntokenizer = \"char\"", names.display().to_string());
    TINY.replace("tokenizer = { vocab_size = 300 }", &data)
        .replace("steps = 8", "steps = 6")
        .replace("warmup_steps = 2", "warmup_steps = 1")
        .replace("[\"linear\", \"sqrt\"]", "[\"linear\"]")
        .replace("[1, 2]", "[1]")
        .replace("every = 4", "every = 2")
}

/// The same, long enough to be met while it trains.
fn long() -> String {
    busy().replace("steps = 6", "steps = 20000").replace("every = 2", "every = 0")
}

const RUN: [&str; 5] = ["run", "m.toml", "--jobs", "1", "--threads=2"];

/// A place with `rules` for the calls that fail.
struct Faulty(Place);

impl Faulty {
    fn new() -> Self {
        Self(Place::with(&busy()))
    }

    fn command(&self, arguments: &[&str], rules: &str) -> Command {
        let mut command = self.0.command(arguments);
        command.env("LD_PRELOAD", fail_shim()).env("FAIL", rules);
        command
    }

    fn run(&self, results: &str, rules: &str) -> Ended {
        let arguments = [&RUN[..], &["--results", results]].concat();
        Ended::of(&self.command(&arguments, rules).output().unwrap(), &self.0.path(""))
    }

    /// The tables of an undisturbed run.
    fn whole(&self) -> String {
        let whole = self.0.path("whole/tiny");
        if !whole.exists() {
            self.0.run(&[&RUN[..], &["--results", "whole"]].concat()).expect(0);
        }
        exact_tables(&whole)
    }

    /// A run under `rules` that works, with what an undisturbed one gives. -> its notes
    #[track_caller]
    fn works(&self, results: &str, rules: &str) -> Vec<String> {
        let ended = self.run(results, rules).expect(0);
        assert_eq!(exact_tables(&self.0.path(results).join("tiny")), self.whole(), "{rules}");
        ended.stderr.lines().filter(|line| line.starts_with("note: ")).map(str::to_owned).collect()
    }

    /// A run under `rules` that fails saying `told`; without them it then goes on to the same tables.
    #[track_caller]
    fn fails(&self, results: &str, rules: &str, told: &str) {
        let ended = self.run(results, rules);
        assert!(matches!(ended.code, Some(2 | 3)), "{rules}: {:?} {}", ended.code, ended.stderr);
        assert!(ended.stderr.contains(told), "{rules}: {}", ended.stderr);
        assert!(self.works(results, "").is_empty(), "{rules}");
    }
}

/// What is on its way to a name, or to its end, anywhere under a directory.
fn staged(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "tmp" || extension == "old") {
            found.push(path);
        } else if path.is_dir() {
            found.extend(staged(&path));
        }
    }
    found
}

#[track_caller]
fn wait_for(what: &str, there: impl Fn() -> bool) {
    let waited = now();
    while !there() {
        assert!(waited.elapsed() < Duration::from_secs(120), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn old_files_that_cannot_be_removed() {
    let place = Faulty::new();
    for (name, code) in [("ENOTEMPTY", 39), ("EBUSY", 16), ("EACCES", 13)] {
        let notes = place.works(name, &format!("rmdir:step_:{code}"));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("it stays for now and is tried again later"), "{notes:?}");
        let results = place.0.path(name);
        assert!(!staged(&results).is_empty());
        // The next start of whatever there is to do tries again.
        assert!(place.works(name, "").is_empty());
        assert_eq!(staged(&results), [] as [PathBuf; 0]);
    }
    // In the middle of it all, then it works: the same process tries again.
    place.works("some", "rmdir:step_:39:2");
    assert_eq!(staged(&place.0.path("some")), [] as [PathBuf; 0]);
    // A disk that fails is another thing.
    place.fails("EIO", "rmdir:step_:5", "the disk or the way to it fails");
}

#[test]
fn old_files_that_cannot_even_be_renamed() {
    let place = Faulty::new();
    for code in [39, 16] {
        let notes = place.works(&format!("rename_{code}"), &format!("rename:/step_:{code}"));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("it stays for now"), "{notes:?}");
    }
    // Directories of a lower layer cannot be moved (EXDEV), only removed. Files in them can be replaced, which the rule
    // does not tell apart: so nothing is let go of within a checkpoint.
    let whole = busy().replace("[eval]", "[checkpoint]\nfinal = \"all\"\n\n[eval]");
    std::fs::write(place.0.path("m.toml"), whole).unwrap();
    assert!(place.works("rename_18", "rename:/step_:18").is_empty());
    assert_eq!(staged(&place.0.path("rename_18")), [] as [PathBuf; 0]);
}

#[test]
fn file_systems_without_directory_fsync() {
    let place = Faulty::new();
    for code in [22, 95, 38, 524, 9] {
        let notes = place.works(&format!("code_{code}"), &format!("syncdir:code_:{code}"));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes[0].contains("directories cannot be synced") && notes[0].contains("power cut"),
            "{notes:?}"
        );
    }
    for code in [22, 95, 30] {
        let notes = place.works(&format!("file_{code}"), &format!("sync:file_:{code}"));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("files cannot be synced"), "{notes:?}");
    }
    place.fails("eio", "syncdir:eio:5", "the disk or the way to it fails");
    place.fails("full", "sync:full/tiny:28", "no space left on the device");
    place.fails("quota", "sync:quota/tiny:122", "have the quota raised");
}

#[test]
fn file_systems_without_locks() {
    let place = Faulty::new();
    // The last grants every lock.
    for code in [38, 37, 95, 524, 22, 0] {
        // Runs are had by lease: nothing of it needs a person.
        assert!(place.works(&format!("code_{code}"), &format!("flock:/:{code}")).is_empty());
        // Nothing that was left keeps anybody out, with locks or without.
        place.works(&format!("code_{code}"), &format!("flock:/:{code}"));
        assert!(place.works(&format!("code_{code}"), "").is_empty());
    }
    let notes = place.works("both", "flock:/:38 syncdir:both:22");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("synced"), "{notes:?}");
    place.fails("eio", "flock:/:5", "cannot lock");
}

/// A run of [`long`] in `results` that has begun to train.
fn begun(place: &Faulty, rules: &str) -> Child {
    std::fs::write(place.0.path("m.toml"), long()).unwrap();
    let mut command = place.command(&["run", "m.toml", "--threads", "1"], rules);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let runs = place.0.path("results/tiny/runs");
    wait_for("the first runner's start", || runs.exists());
    child
}

fn told(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn without_locks_two_never_train_one_run() {
    let none = "flock:/:38";
    // With locks and without on either side: machines need not mount a directory alike.
    for (first, second) in [(none, none), (none, ""), ("", none)] {
        let place = Faulty::new();
        let first = begun(&place, first);
        let mut waits = place.command(&["run", "m.toml", "--threads", "1"], second);
        let mut waits = waits.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = {
            use std::io::BufRead as _;
            std::io::BufReader::new(waits.stderr.take().unwrap()).lines().map_while(Result::ok)
        };
        let line = lines.find(|line| line.contains("trained by process")).unwrap();
        assert!(line.contains(&format!("process {} on ", first.id())), "{line}");
        // An end by force is found out, and what was left of it is taken over.
        signal(&first, "-KILL");
        assert_eq!(told(first).0, None);
        let resumed = lines.find(|line| line.contains("20000 steps"));
        assert!(resumed.is_some(), "it did not take over");
        signal(&waits, "-INT");
        assert_eq!(waits.wait().unwrap().code(), Some(130));
    }
}

#[test]
fn without_locks_a_claim_of_elsewhere_is_for_a_person_to_judge() {
    let place = Faulty::new();
    let rules = "flock:/:37";
    place.works("results", rules);
    let claims = place.0.path("results/tiny/.lock.claims");
    let claim = std::fs::read_dir(&claims).unwrap().next().unwrap().unwrap().path();
    // As a run of another machine leaves it that lost its power.
    std::fs::remove_file(claim.join("released")).unwrap();
    let owner = std::fs::read_to_string(claim.join("owner.json")).unwrap();
    let mut owner: serde_json::Value = serde_json::from_str(&owner).unwrap();
    owner["host"] = "crunch".into();
    owner["process"]["boot"] = "another".into();
    owner["process"]["machine"] = "another".into();
    std::fs::write(claim.join("owner.json"), owner.to_string()).unwrap();
    for rules in [rules, ""] {
        let refused = place.run("results", rules).expect(3);
        let advice = "remove `results/tiny/.lock.claims` and start again";
        assert!(
            refused.stderr.contains("on crunch since") && refused.stderr.contains(advice),
            "{}",
            refused.stderr
        );
    }
    std::fs::remove_dir_all(&claims).unwrap();
    place.works("results", rules);
}

#[test]
fn without_locks_what_a_live_process_is_writing_stays() {
    let place = Faulty::new();
    place.works("results", "flock:/:38");
    let runs = place.0.path("results/tiny");
    // What this test writes is what another nanorun of this machine does, such as a report.
    let own = ProcessId::own();
    let named =
        |began: u64, place: &str| runs.join(format!(".report.html.{}-1-{began}-{place}.tmp", own.pid));
    let live = named(own.began, &own.place());
    let dead = named(own.began + 1, &own.place());
    let far = named(own.began, "0123456789ab");
    for path in [&live, &dead, &far] {
        std::fs::write(path, "x").unwrap();
    }
    place.works("results", "flock:/:38");
    assert_eq!((live.exists(), dead.exists(), far.exists()), (true, false, true));
    // Locks may be this machine's alone: what elsewhere wrote just now stays. Nobody who lives there has been silent for so long.
    place.works("results", "");
    assert_eq!((live.exists(), far.exists()), (true, true));
    let file = std::fs::File::options().write(true).open(&far).unwrap();
    let written = far.metadata().unwrap().modified().unwrap();
    file.set_modified(written - std::time::Duration::from_secs(200)).unwrap();
    place.works("results", "");
    assert_eq!((live.exists(), far.exists()), (true, false));
}

#[test]
fn doctor_tells_beforehand_what_a_file_system_lacks() {
    let place = Faulty::new();
    let doctor = |rules: &str, arguments: &[&str]| {
        let arguments = [&["doctor", "--results", "results"], arguments].concat();
        Ended::of(&place.command(&arguments, rules).output().unwrap(), &place.0.path("")).expect(0)
    };
    let facts = doctor("", &["--json"]).json()["results"]["file_system"].clone();
    for what in ["file_sync", "directory_sync", "locks", "file_rename", "directory_rename"] {
        assert_eq!(facts[what]["works"], true, "{facts}");
    }
    assert!(facts["free_bytes"].as_u64().unwrap() > 0 && facts["clock_ahead_seconds"].is_i64(), "{facts}");
    assert!(doctor("", &[]).stdout.contains("free of"));
    for (rules, what, words) in [
        ("flock:/:38", "locks", "files cannot be locked (Function not implemented"),
        ("flock:/:0", "locks", "two have one lock"),
        ("syncdir:/:22", "directory_sync", "directories cannot be synced (Invalid argument"),
        ("sync:/:95", "file_sync", "files cannot be synced"),
        ("rename:/first:18", "directory_rename", "directories cannot be renamed"),
        ("rename:/from:1", "file_rename", "files cannot be replaced"),
    ] {
        let facts = doctor(rules, &["--json"]).json()["results"]["file_system"].clone();
        assert_eq!(facts[what]["works"], false, "{rules}: {facts}");
        let text = doctor(rules, &[]).stdout;
        assert!(text.contains(words), "{rules}: {text}");
    }
    assert!(!place.0.path("results").exists());
    assert_eq!(staged(&place.0.path("")), [] as [PathBuf; 0]);
}

#[test]
fn interrupted_and_stale_calls_are_made_again() {
    let place = Faulty::new();
    let rules = "open:results:4:3 sync:results:4:2 rename:results:4:2 mkdir:results:4:2 read:names.txt:4:1 write:results:4:2";
    assert!(place.works("results", rules).is_empty());
    // A file that was replaced on the server: opened anew it is there.
    assert!(place.works("results", "read:plan.toml:116:1").is_empty());
}

#[test]
fn names_that_are_too_long_are_said_to_be() {
    let place = Faulty::new();
    let results = "x".repeat(300);
    let ended = place.run(&results, "").expect(2);
    assert!(ended.stderr.contains("too long") && ended.stderr.contains("--results DIR"), "{}", ended.stderr);
}

#[test]
fn a_directory_that_is_removed_under_a_run_is_made_anew_or_said_to_be_gone() {
    let place = Faulty::new();
    let child = begun(&place, "");
    let runs = place.0.path("results/tiny/runs");
    wait_for("the first checkpoint", || {
        let found = std::fs::read_dir(&runs).into_iter().flatten().flatten();
        let is_checkpoint = |file: &PathBuf| file.to_string_lossy().contains("/checkpoints/step_");
        found.flat_map(|run| files_of(&run.path()).into_keys()).any(|file| is_checkpoint(&file))
    });
    signal(&child, "-STOP");
    std::fs::remove_dir_all(place.0.path("results")).unwrap();
    signal(&child, "-CONT");
    signal(&child, "-INT");
    let (code, text) = told(child);
    assert!(!text.contains("defect"), "{text}");
    // Where the checkpoint of the stop is the next thing it writes, that makes the directory anew.
    match code {
        Some(130) => assert!(!files_of(&runs).is_empty(), "{text}"),
        code => {
            assert_eq!(code, Some(3), "{text}");
            assert!(text.contains("does not exist"), "{text}");
        }
    }
}

fn files_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_of(&path));
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.insert(path, bytes);
        }
    }
    found
}

/// A file system of its own in a directory, until dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(dir: PathBuf, arguments: &[&str]) -> Option<Self> {
        std::fs::create_dir_all(&dir).unwrap();
        let mount = Self(dir);
        mount.mount(arguments).then_some(mount)
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        let output = Command::new("mount").args(arguments).arg(&self.0).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", "-q"]).arg(&self.0).output();
    }
}

#[test]
fn a_disk_that_is_full_and_then_is_not() {
    let place = Faulty::new();
    let Some(mount) = Mount::new(place.0.path("disk"), &["-t", "tmpfs", "-o", "size=48k", "tmpfs"]) else {
        return skip("a small file system: mounting takes root");
    };
    // The plan sees beforehand that this cannot be; another process may fill a disk later.
    let ended = place.run("disk", "").expect(2);
    assert!(ended.stderr.contains("free"), "{}", ended.stderr);
    let ended = place.0.run(&[&RUN[..], &["--results", "disk", "--set", "run.preflight=false"]].concat());
    assert!(matches!(ended.code, Some(2 | 3)), "{}", ended.stderr);
    assert!(ended.stderr.contains("no space left on the device"), "{}", ended.stderr);
    assert!(ended.stderr.contains("free some space and start again"), "{}", ended.stderr);
    assert!(mount.mount(&["-o", "remount,size=64m"]));
    place.works("disk", "");
    assert!(mount.mount(&["-o", "remount,ro"]));
    let ended = place.run("disk/new", "").expect(2);
    assert!(ended.stderr.contains("read-only"), "{}", ended.stderr);
}

/// The system would end the process in the middle of a write (SIGXFSZ).
#[test]
fn a_file_beyond_the_limit_of_the_shell_is_an_error() {
    let place = Faulty::new();
    let arguments = [&RUN[..], &["--results", "limited"]].concat();
    let nanorun = place.0.command(&arguments);
    let mut limited = Command::new("prlimit");
    limited.arg("--fsize=100000").arg(nanorun.get_program()).args(nanorun.get_args());
    limited
        .current_dir(place.0.path(""))
        .envs(nanorun.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = Ended::of(&limited.output().unwrap(), &place.0.path("")).expect(3);
    assert!(
        ended.stderr.contains("ulimit -f") && ended.stderr.contains("raise the limit"),
        "{}",
        ended.stderr
    );
    place.works("limited", "");
}

/// The plan was let pass, or another process took the room: a checkpoint that does not fit is not even begun.
#[test]
fn a_disk_that_fills_while_a_run_is_trained() {
    let place = Faulty::new();
    let keeping_all = [
        &RUN[..],
        &["--results", "disk", "--set", "run.preflight=false", "--set", "checkpoint.every=1"],
        &["--set", "checkpoint.keep=0"],
    ]
    .concat();
    // A checkpoint has 200 kB: some of the seven fit.
    let Some(mount) = Mount::new(place.0.path("disk"), &["-t", "tmpfs", "-o", "size=800k", "tmpfs"]) else {
        return skip("a disk that fills: mounting takes root");
    };
    let ended = place.0.run(&keeping_all).expect(3);
    assert!(
        ended.stderr.contains("bytes on disk, and") && ended.stderr.contains("are free"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("make room, then the same command carries on"), "{}", ended.stderr);
    let journal = |place: &Place| {
        let files = files_of(&place.path("disk"));
        let journals = files.iter().filter(|(path, _)| path.ends_with("journal.jsonl"));
        journals.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect::<String>()
    };
    assert!(journal(&place.0).contains("\"event\":\"failed\""), "{}", journal(&place.0));
    assert!(mount.mount(&["-o", "remount,size=64m"]));
    place.0.run(&keeping_all).expect(0);
    assert!(journal(&place.0).contains("\"event\":\"resumed\""), "{}", journal(&place.0));
    let run = |results: &str| place.0.path(results).join("tiny");
    place.whole();
    let evaluations = |results: &str| std::fs::read(run(results).join("evals.parquet")).unwrap();
    assert_eq!(evaluations("disk"), evaluations("whole"));
}

#[test]
fn layered_file_systems_lose_nothing() {
    let place = Faulty::new();
    place.works("lower", "");
    for dir in ["upper", "work"] {
        std::fs::create_dir_all(place.0.path(dir)).unwrap();
    }
    let at = |name: &str| place.0.path(name).display().to_string();
    let layers = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
    let Some(_mount) = Mount::new(place.0.path("merged"), &["-t", "overlay", "-o", &layers, "overlay"])
    else {
        return skip("a layered file system: mounting takes root");
    };
    let before = files_of(&place.0.path("lower"));
    place.works("merged", "");
    let arguments = [&RUN[..], &["--results", "merged", "--rerun"]].concat();
    Ended::of(&place.command(&arguments, "").output().unwrap(), &place.0.path("")).expect(0);
    assert_eq!(exact_tables(&place.0.path("merged/tiny")), place.whole());
    assert_eq!(files_of(&place.0.path("lower")), before);
}
