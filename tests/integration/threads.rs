//! Few threads to be had, and few asked for.

#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use nanorun::internals::files::now;

use crate::support::{Place, TINY, skip};

/// Nobody's user id: the limit counts all processes of a user.
const USER: u32 = 64_321;

/// nanorun of a user who may have so many threads, and cannot write at home.
fn limited(place: &Place, processes: u32, arguments: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nproc={processes}:{processes}")).arg(place.path("nanorun")).args(arguments);
    command
        .current_dir(place.path(""))
        .env("NO_COLOR", "1")
        .env("HOME", "/nowhere")
        .env_remove("NANORUN_CACHE");
    command.uid(USER).gid(USER);
    command
}

#[test]
fn few_threads() {
    let place = Place::with(TINY);
    // Where every user may read it.
    std::fs::copy(cargo_bin("nanorun"), place.path("nanorun")).unwrap();
    std::fs::set_permissions(place.path(""), std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = match limited(&place, 1000, &["doctor"]).output() {
        Ok(output) if output.status.success() => output,
        _ => return skip("few threads: another user's limit takes root"),
    };
    assert!(String::from_utf8_lossy(&output.stdout).contains("nanorun"));
    for processes in 1..=4 {
        for arguments in [&["run", "m.toml"][..], &["run", "m.toml", "--threads", "1"], &["plan", "m.toml"]] {
            let output = limited(&place, processes, arguments).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{processes} {arguments:?}: {told}");
            assert_eq!(told.matches("error:").count(), 1, "{told}");
            assert!(told.contains("threads are needed and only") && told.contains("ulimit -u"), "{told}");
            assert!(!told.contains("panicked"), "{told}");
        }
    }
    // As many as the message asks for are enough.
    let output = limited(&place, 1, &["run", "m.toml", "--threads", "1"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let needed: u32 = told.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    let arguments =
        ["run", "m.toml", "--threads", "1", "--set", "budget.steps=3", "--set", "schedule.warmup_steps=1"];
    let output = limited(&place, needed + 1, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn threads_bounds_every_pool() {
    let manifest = TINY.replace("steps = 8", "steps = 20000").replace("[1, 2]", "[1]");
    let place = Place::with(&manifest);
    let mut command = place.command(&["run", "m.toml", "-q", "--threads", "1", "--jobs", "1"]);
    command.env("RAYON_NUM_THREADS", "16").env("POLARS_MAX_THREADS", "16");
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let tasks = format!("/proc/{}/task", child.id());
    let names = || -> Vec<String> {
        let tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.map(|name| name.trim().to_owned()).collect()
    };
    let waited = now();
    let runs = place.path("results/tiny/runs");
    let begun = || runs.exists() && names().iter().any(|name| name == "cpu-0");
    while !begun() {
        assert!(waited.elapsed() < Duration::from_secs(120), "it did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    // A while of training: rows, evaluation, tables of what is there.
    for _ in 0..100 {
        let names = names();
        let of = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
        assert!(of("cpu-") <= 1 && of("polars-") <= 2, "{names:?}");
        // Main thread, rayon's one, computing, polars' two, signals, rows for training and evaluation.
        assert!(names.len() <= 10, "{names:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
