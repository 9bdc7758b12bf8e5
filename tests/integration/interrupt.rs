//! Ctrl-C: exit 130, the same command carries on, and nobody can tell from the result.

use std::process::Stdio;
use std::time::Duration;

use nanorun::files::now;

use crate::support::{Place, TINY};

#[cfg(unix)]
#[test]
fn an_interrupted_run_gives_the_same_hash() {
    let manifest = TINY
        .replace("steps = 8", "steps = 3000")
        .replace("every = 4", "every = 0")
        .replace("\"schedule.warmdown\" = [\"linear\", \"sqrt\"]\n", "")
        .replace("\"run.seed\" = [1, 2]", "\"run.seed\" = [1]")
        .replace("control = { \"schedule.warmdown\" = \"linear\" }", "");
    let place = Place::with(&manifest);
    let child = place.command(&["run", "m.toml", "-q"]).stdout(Stdio::piped()).spawn().unwrap();
    let runs = place.path("results/tiny/runs");
    // The first checkpoint is on disk before the first evaluation: from then on it trains.
    let begun = || {
        let runs = std::fs::read_dir(&runs).into_iter().flatten().flatten();
        runs.map(|run| run.path().join("attempt/1/checkpoints/step_000000")).any(|path| path.exists())
    };
    let waited = now();
    while !begun() && waited.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert!(ended.stdout.is_empty(), "an unfinished experiment has no scorecard");
    assert_eq!(place.hashes()[0].1, None);
    place.run(&["resume", "results/tiny", "-q"]).expect(0);
    let resumed = place.hashes();
    place.run(&["run", "m.toml", "--rerun", "-q"]).expect(0);
    assert_eq!(place.hashes(), resumed);
}
