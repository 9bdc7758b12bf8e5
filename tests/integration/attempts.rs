//! Attempts at a run: results of the layout before, `--rerun`, divergences, the lives of a run, damage to one of many.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nanorun::internals::files::{Files, now};
use nanorun::internals::record::{Divergence, RunResult, RunRow, StepRow, read_table};

use crate::support::{Place, TINY};

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Files below `dir` by their path, for comparing what was there with what is.
pub(crate) fn files_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let Ok(entry) = entry else { continue };
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                // What is gone meanwhile was on its way to its name, in a run that is under way.
                found.insert(path, bytes);
            }
        }
    }
    found
}

fn results_of(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = files_below(&place.path("results/tiny/runs"));
    found.retain(|path, _| path.ends_with("result.json") && path.parent().unwrap().ends_with("attempt/1"));
    found
}

/// What 2afd265 left: one run finished, one killed after its checkpoint of step 2.
fn layout_1() -> Place {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layout_1");
    let place = Place::with(&std::fs::read_to_string(fixture.join("m.toml")).unwrap());
    std::fs::copy(fixture.join("names.txt"), place.path("names.txt")).unwrap();
    copy(&fixture.join("old"), &place.path("results/old"));
    place
}

const OLD_HASHES: [&str; 2] = [
    "3645208a14b176d1b685c8270b00eebb1ba811b61a493569c112c1b2a093b6a8",
    "15898ab161db3241c3ce68f193f1c897c5957c8313492cf4e71097c7c69fe168",
];

#[test]
fn results_of_layout_1_are_read_and_carried_on() {
    let place = layout_1();
    let hash = |at: usize| Some(OLD_HASHES[at].to_owned());
    let before = files_below(&place.path("results/old"));
    let hashes: Vec<_> = place.hashes().into_iter().map(|(_, hash)| hash).collect();
    assert_eq!(hashes, [hash(0), None]);
    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    assert_eq!((&plan["runs"][0]["status"], &plan["runs"][1]["status"]), (&"done".into(), &"resumes".into()));
    assert_eq!(plan["runs"][1]["step"], 2);
    assert_eq!(files_below(&place.path("results/old")), before, "reading changes nothing");
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let hashes: Vec<_> = place.hashes().into_iter().map(|(_, hash)| hash).collect();
    assert_eq!(hashes, [hash(0), hash(1)]);
    // The finished one stays as it was, the other went on where it lay.
    let run = |key: &str| place.path("results/old/runs").join(key);
    let finished = run("5a8d03a064fe").join("result.json");
    assert_eq!(std::fs::read(&finished).unwrap(), before[&finished]);
    let journal = std::fs::read_to_string(run("c786bbf8e649").join("journal.jsonl")).unwrap();
    assert!(journal.contains("\"event\":\"resumed\",\"step\":2"), "{journal}");
    assert!(!run("c786bbf8e649").join("attempt").exists());
    // Of its first life nobody knows in what company it was.
    let rows: Vec<RunRow> = read_table(&Files::new(), &place.path("results/old/runs.parquet")).unwrap();
    assert_eq!(rows.iter().map(|row| (row.alone, row.resumes)).collect::<Vec<_>>(), [(true, 0), (false, 1)]);
    // Another attempt goes beside it.
    place.run(&["run", "m.toml", "-q", "--rerun"]).expect(0);
    assert_eq!(std::fs::read(&finished).unwrap(), before[&finished]);
    for (key, hash) in [("5a8d03a064fe", OLD_HASHES[0]), ("c786bbf8e649", OLD_HASHES[1])] {
        let second =
            RunResult::read(&Files::new(), &run(key).join("attempt/2/result.json")).unwrap().unwrap();
        assert_eq!(second.result_hash.to_string(), hash);
    }
    place.run(&["diff", "results/old", "results/old"]).expect(0);
    place.run(&["sample", "m.toml", "--tokens", "2", "-q"]).expect(0);
}

#[test]
fn a_killed_start_on_layout_1_loses_nothing() {
    for at in (0..60).step_by(4) {
        let place = layout_1();
        let killed =
            place.command(&["run", "m.toml", "-q"]).env("WRITE_FAULT", format!("kill@{at}")).output();
        drop(killed.unwrap());
        place.run(&["run", "m.toml", "-q"]).expect(0);
        let hashes: Vec<_> = place.hashes().into_iter().filter_map(|(_, hash)| hash).collect();
        assert_eq!(hashes, OLD_HASHES, "killed at {at}");
    }
}

#[test]
fn a_later_layout_is_refused_by_name() {
    let place = Place::with(&TINY.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]").replace("[1, 2]", "[1]"));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let plan = place.path("results/tiny/plan.toml");
    let text = std::fs::read_to_string(&plan).unwrap();
    assert!(text.starts_with("layout = 2\n"), "{text}");
    std::fs::write(&plan, text.replace("layout = 2", "layout = 3")).unwrap();
    let before = files_below(&place.path("results"));
    for command in [
        &["run", "m.toml"][..],
        &["run", "m.toml", "--rerun"],
        &["plan", "m.toml"],
        &["report", "m.toml"],
        &["resume", "results/tiny"],
        &["diff", "results/tiny", "results/tiny"],
    ] {
        let ended = place.run(command).expect(2);
        let told = "results/tiny` have layout 3; this nanorun reads layouts up to 2";
        assert!(ended.stderr.contains(told) && ended.stderr.contains("newer nanorun"), "{}", ended.stderr);
    }
    let lock = place.path("results/tiny/.lock");
    let mut after = files_below(&place.path("results"));
    after.remove(&lock);
    assert!(
        before.iter().all(|(path, bytes)| *path == lock || after[path] == *bytes),
        "something was changed"
    );
}

/// What a version that knows layout 1 alone finds where its results would be.
#[test]
fn layout_2_keeps_older_versions_away() {
    let place = Place::with(&TINY.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]").replace("[1, 2]", "[1]"));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let run = std::fs::read_dir(place.path("results/tiny/runs")).unwrap().next().unwrap().unwrap().path();
    let refused = RunResult::read(&Files::new(), &run.join("result.json")).unwrap_err();
    assert!(refused.to_string().ends_with("has format 3; this nanorun reads format 2"), "{refused}");
}

#[test]
fn rerun() {
    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "-q", "--jobs", "1"]).expect(0);
    let (hashes, before) = (place.hashes(), results_of(&place));
    assert_eq!(before.len(), 4);
    let checkpoints = |place: &Place| {
        let files = files_below(&place.path("results/tiny/runs"));
        files
            .keys()
            .filter(|path| path.ends_with("attempt/1/checkpoints/step_000008/model.safetensors"))
            .count()
    };
    let rerun = ["run", "m.toml", "-q", "--rerun", "--jobs", "1"];
    let mut stopped = 0;
    for at in [0, 3, 10, 30, 60, 100, 170, 250] {
        let killed = place.command(&rerun).env("WRITE_FAULT", format!("kill@{at}")).output().unwrap();
        stopped += usize::from(!killed.status.success());
        assert_eq!((results_of(&place) == before, checkpoints(&place)), (true, 4), "killed at {at}");
        assert_eq!(place.hashes(), hashes, "killed at {at}");
    }
    assert!(stopped >= 6, "{stopped}");
    // The same command carries on, and in the end every run has a second result.
    place.run(&rerun).expect(0);
    let mut second = files_below(&place.path("results/tiny/runs"));
    second.retain(|path, _| path.ends_with("attempt/2/result.json"));
    assert_eq!((second.len(), results_of(&place)), (4, before));
    assert_eq!(place.hashes(), hashes);
}

/// At every step of writing, one run and no other: whatever a rerun had come to, the first result speaks for the run,
/// its weights are there, and the same command comes to a second one with its bits.
#[test]
fn rerun_stopped_at_every_point() {
    let text = TINY.replace("steps = 8", "steps = 2").replace("warmup_steps = 2", "warmup_steps = 1");
    let text = text.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]").replace("[1, 2]", "[1]");
    let place = Place::with(&text);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let (hashes, before) = (place.hashes(), results_of(&place));
    let sampled = |place: &Place| {
        let sample = ["sample", "m.toml", "--tokens", "4", "--temperature", "0", "-q"];
        place.run(&sample).expect(0).stdout
    };
    let drawn = sampled(&place);
    let whole = place.path("whole");
    copy(&place.path("results"), &whole);
    let rerun = ["run", "m.toml", "-q", "--rerun", "--jobs", "1"];
    let mut stopped = 0;
    for at in 0.. {
        let killed = place.command(&rerun).env("WRITE_FAULT", format!("kill@{at}")).output().unwrap();
        assert!(results_of(&place) == before, "killed at {at}");
        if killed.status.success() {
            break;
        }
        stopped += 1;
        if at % 8 == 0 {
            assert_eq!((sampled(&place), place.hashes()), (drawn.clone(), hashes.clone()), "killed at {at}");
            place.run(&rerun).expect(0);
            let second = files_below(&place.path("results/tiny/runs"));
            let second = second.keys().find(|path| path.ends_with("attempt/2/result.json")).unwrap();
            let second = RunResult::read(&Files::new(), second).unwrap().unwrap();
            assert_eq!(Some(second.result_hash.to_string()), hashes[0].1, "killed at {at}");
        }
        // From the same place each time: an attempt that was begun would be carried on.
        std::fs::remove_dir_all(place.path("results")).unwrap();
        copy(&whole, &place.path("results"));
    }
    assert!(stopped > 30, "{stopped}");
}

#[cfg(unix)]
#[test]
fn rerun_interrupted_by_hand_leaves_what_there_was() {
    let manifest =
        TINY.replace("steps = 8", "steps = 2000").replace("every = 4", "every = 0").replace("[1, 2]", "[1]");
    let place = Place::with(&manifest.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]"));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let (hashes, before) = (place.hashes(), results_of(&place));
    let child = place.command(&["run", "m.toml", "-q", "--rerun"]).spawn().unwrap();
    let waited = now();
    let begun = || {
        let files = files_below(&place.path("results/tiny/runs"));
        files.keys().any(|path| path.ends_with("attempt/2/journal.jsonl"))
    };
    while !begun() && waited.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert_eq!((results_of(&place), place.hashes()), (before, hashes));
}

#[test]
fn contradictions_forgotten() {
    let place = Place::with(&TINY.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]").replace("[1, 2]", "[1]"));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let (path, _) = results_of(&place).pop_first().unwrap();
    let files = Files::new();
    let result = RunResult::read(&files, &path).unwrap().unwrap();
    let mut evals = result.evals.clone();
    evals.last_mut().unwrap().values.values_mut().for_each(|value| value.0 += 1e-9);
    let forged = RunResult::new(
        result.run_key,
        result.environment_class.clone(),
        result.numerics_version,
        result.train_hash,
        result.step_losses.clone(),
        evals,
        result.timings.clone(),
        result.host.clone(),
    );
    forged.unwrap().write(&files, &path).unwrap();
    // Stopped again and again on the way to the second result: it is compared once it is there, and from then on.
    let rerun = ["run", "m.toml", "-q", "--rerun"];
    for at in [20, 40, 60] {
        place.command(&rerun).env("WRITE_FAULT", format!("kill@{at}")).output().unwrap();
    }
    for command in [&rerun[..], &["report", "m.toml"], &["run", "m.toml", "-q"]] {
        let told = place.run(command).expect(4);
        assert!(told.stderr.contains("has two results in one class"), "{command:?}: {}", told.stderr);
    }
}

/// A model that does not survive its learning rate, on names.
pub(crate) fn wild(steps: u64) -> String {
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/data/names.txt");
    format!(
        "name = \"tiny\"\nupstream.commit = \"92d63d4\"\nrun = {{ seed = 1, backend = \"cpu\", threads = 1 }}\n\
         budget.steps = {steps}\nschedule.warmdown = \"constant\"\nmodel.kind = \"bigram\"\n\
         optimizer = {{ kind = \"sgd\", lr = 1000 }}\n\
         data = {{ shards = {:?}, document = \"line\", tokenizer = \"char\" }}\neval = {{ every = 0, tokens = 2048 }}\n",
        names.display().to_string()
    )
}

#[test]
fn not_finite() {
    // How long its losses last.
    let place = Place::with(&wild(60));
    place.run(&["run", "m.toml", "-q"]).expect(3);
    let steps = |place: &Place| {
        let rows: Vec<StepRow> =
            read_table(&Files::new(), &place.path("results/tiny/steps.parquet")).unwrap();
        assert!(rows.iter().all(|row| row.loss.is_finite()));
        rows.len() as u64
    };
    let last = steps(&place);
    assert!((1..60).contains(&last), "{last}");
    // The last update spoils the weights: every loss is finite, the evaluation is not.
    for (budget, every) in [(last, 0), (last + 5, last)] {
        let text = wild(budget).replace("every = 0", &format!("every = {every}"));
        let place = Place::with(&text);
        let ended = place.run(&["run", "m.toml", "-q"]).expect(3);
        let told = format!("val_bpb at step {last} is ");
        assert!(ended.stderr.contains(&told), "{told}: {}", ended.stderr);
        assert_eq!(place.hashes()[0].1, None);
        let rows: Vec<RunRow> = read_table(&Files::new(), &place.path("results/tiny/runs.parquet")).unwrap();
        assert_eq!(
            (rows[0].status.as_str(), rows[0].steps_done, &rows[0].val_bpb),
            ("diverged", last, &None)
        );
        assert_eq!(steps(&place), last);
        let journals = files_below(&place.path("results/tiny/runs"));
        let journal = journals.iter().find(|(path, _)| path.ends_with("journal.jsonl")).unwrap().1;
        assert!(!String::from_utf8_lossy(journal).contains("null"), "{}", String::from_utf8_lossy(journal));
    }
}

#[test]
fn a_divergence_explained_by_an_empty_table() {
    let place = Place::with(&wild(60));
    let first = place.run(&["run", "m.toml", "-q"]).expect(3);
    assert!(first.stderr.contains("is inf") || first.stderr.contains("is NaN"), "{}", first.stderr);
    let run = std::fs::read_dir(place.path("results/tiny/runs")).unwrap().next().unwrap().unwrap().path();
    let divergence = Divergence::read(&Files::new(), &run.join("attempt/1/diverged.json")).unwrap().unwrap();
    assert_eq!(divergence.step_losses.len() as u64, divergence.step);
    // The table that the message names.
    assert!(first.stderr.contains("attempt/1/steps.parquet"), "{}", first.stderr);
    for table in [run.join("attempt/1/steps.parquet"), place.path("results/tiny/steps.parquet")] {
        let rows = nanorun::internals::record::column::table_rows::<nanorun::internals::record::OwnStepRow>(
            &std::fs::read(table).unwrap(),
        );
        let losses: Vec<u32> = rows.unwrap().iter().map(|row| row.loss.to_bits()).collect();
        let expected: Vec<u32> = divergence.step_losses.iter().map(|loss| loss.bits()).collect();
        assert_eq!((losses, !expected.is_empty()), (expected, true));
    }
    // It is a result until somebody asks: not trained again, told again.
    let before = files_below(&run);
    let again = place.run(&["run", "m.toml", "--json"]).expect(3);
    assert!(again.json()["first_step_seconds"].is_null());
    assert_eq!(files_below(&run), before);
    let what = divergence.what();
    assert!(again.stderr.contains(&what) && again.stderr.contains("--rerun"), "{}", again.stderr);
    assert!(place.run(&["report", "m.toml"]).expect(3).stderr.contains(&what));
    place.run(&["resume", "results/tiny"]).expect(2);
    // The advice does something.
    place.run(&["run", "m.toml", "-q", "--rerun"]).expect(3);
    assert!(run.join("attempt/2/diverged.json").exists());
}

/// A run with NaN that a version which did not look took for finished.
#[test]
fn a_result_that_is_not_finite_is_a_divergence() {
    let place = Place::with(&TINY.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]").replace("[1, 2]", "[1]"));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let (path, _) = results_of(&place).pop_first().unwrap();
    let result = RunResult::read(&Files::new(), &path).unwrap().unwrap();
    let mut evals = result.evals.clone();
    evals.last_mut().unwrap().values.values_mut().for_each(|value| value.0 = f64::NAN);
    let (losses, timings, host) = (result.step_losses, result.timings, result.host);
    let class = result.environment_class;
    let forged = RunResult::new(result.run_key, class, 1, result.train_hash, losses, evals, timings, host);
    forged.unwrap().write(&Files::new(), &path).unwrap();
    let told = place.run(&["report", "m.toml"]).expect(3);
    assert!(told.stderr.contains("val_bpb at step 8 is NaN"), "{}", told.stderr);
    assert_eq!(place.hashes()[0].1, None);
}

#[test]
fn one_bad_run_never_hides_the_others() {
    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let hashes = place.hashes();
    let (path, good) = results_of(&place).pop_first().unwrap();
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    let told = place.run(&["report", "m.toml"]).expect(2);
    assert!(told.stderr.contains("result.json` is damaged"), "{}", told.stderr);
    let seen = place.hashes();
    assert_eq!(seen.iter().filter(|(_, hash)| hash.is_some()).count(), 3);
    assert!(seen.iter().zip(&hashes).all(|(now, before)| now.1.is_none() || now == before));
    let shown = hashes.iter().filter(|(_, hash)| told.stdout.contains(&hash.as_ref().unwrap()[..12])).count();
    assert_eq!(shown, 3, "{}", told.stdout);
    // Starting trains nothing in its place, and writes tables of the others.
    place.run(&["run", "m.toml", "-q"]).expect(2);
    let rows: Vec<RunRow> = read_table(&Files::new(), &place.path("results/tiny/runs.parquet")).unwrap();
    let mut statuses: Vec<&str> = rows.iter().map(|row| row.status.as_str()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, ["damaged", "finished", "finished", "finished"]);
    // Another attempt speaks for it; what is damaged stays and is told.
    place.run(&["run", "m.toml", "-q", "--rerun"]).expect(0);
    let told = place.run(&["report", "m.toml"]).expect(0);
    assert!(told.stderr.contains("result.json` is damaged"), "{}", told.stderr);
    assert_eq!(place.hashes(), hashes);
}

/// Whatever file is damaged, nothing panics and every run whose own result is whole is reported as it was.
#[test]
fn one_damaged_file_among_good_ones() {
    let place = Place::with(TINY);
    place.run(&["verify", "m.toml", "-q", "--bless", "--baseline", "b.toml"]).expect(0);
    let hashes = place.hashes();
    let good = files_below(&place.path("results/tiny"));
    let first_run = |path: &&PathBuf| {
        let run = good.keys().find_map(|path| {
            path.ancestors().find(|dir| dir.parent().is_some_and(|up| up.ends_with("runs")))
        });
        !path.components().any(|part| part.as_os_str() == "runs") || path.starts_with(run.unwrap())
    };
    let mut tried = 0;
    for path in good.keys().filter(first_run).filter(|path| !path.ends_with(".lock")) {
        let bytes = &good[path];
        for damage in [&bytes[..bytes.len() / 2], b"", b"\xff\xfe\0 no such thing\n"] {
            std::fs::write(path, damage).unwrap();
            tried += 1;
            let own = path.ends_with("attempt/1/result.json");
            let report = place.run(&["report", "m.toml", "--json"]);
            let told = format!("{}: {}", path.display(), report.stderr);
            assert!(matches!(report.code, Some(0 | 2)) && !report.stderr.contains("panicked"), "{told}");
            let runs = report.json()["runs"].as_array().unwrap().clone();
            let same = runs
                .iter()
                .zip(&hashes)
                .filter(|(run, (_, hash))| run["result_hash"] == hash.as_deref().unwrap());
            assert!(same.count() >= 4 - usize::from(own), "{told}");
            // Others read it too, or say which file it is. Each of them meets each file; all with all damages would be
            // a thousand starts of the program, and minutes.
            let others = [
                &["plan", "m.toml"][..],
                &["report", "results/tiny"],
                &["diff", "results/tiny", "results/tiny"],
                &["verify", "m.toml", "--read", "--baseline", "b.toml"],
                &["clean", "results/tiny"],
                &["sample", "m.toml", "--tokens", "1"],
            ];
            for command in [0, 3].map(|more| others[(2 * tried + more) % others.len()]) {
                let ended = place.run(command);
                let told = format!("{command:?} with {}: {:?} {}", path.display(), ended.code, ended.stderr);
                assert!(
                    matches!(ended.code, Some(0 | 2 | 3 | 4)) && !ended.stderr.contains("panicked"),
                    "{told}"
                );
                assert!(ended.code != Some(2) || ended.stderr.contains("results/tiny"), "{told}");
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
    assert!(tried > 40, "{tried}");
    assert_eq!(place.hashes(), hashes);
}

/// One arm against another, long enough to be met while both train.
fn arms() -> String {
    TINY.replace("steps = 8", "steps = 400")
        .replace("every = 4", "every = 0")
        .replace("\"schedule.warmdown\" = [\"linear\", \"sqrt\"]", "\"model.softcap\" = [15.0, 20.0]")
        .replace("[1, 2]", "[1]")
        .replace("control = { \"schedule.warmdown\" = \"linear\" }", "control = { \"model.softcap\" = 15.0 }")
        + "\n[checkpoint]\nevery = 20\n"
}

#[cfg(unix)]
#[test]
fn speed_after_company() {
    let place = Place::with(&arms());
    let child = place.command(&["run", "m.toml", "-q", "--jobs", "2", "--threads", "2"]).spawn().unwrap();
    let both = || {
        let files = files_below(&place.path("results/tiny/runs"));
        let saved = files.keys().filter(|path| path.ends_with("checkpoints/step_000040/MANIFEST.json"));
        saved.count() == 2
    };
    let waited = now();
    while !both() && waited.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    child.wait_with_output().unwrap();
    let ended = place.run(&["run", "m.toml", "--jobs", "1", "--threads", "1"]);
    let speed = ended.stdout.lines().find(|line| line.starts_with("speed")).unwrap();
    assert!(speed.starts_with("speed    not judged") && speed.contains("beside others"), "{}", ended.stdout);
    // On two numbers of threads, though always alone.
    let place = Place::with(&arms());
    for (at, threads) in [("kill@150", "2"), ("none", "1")] {
        let arguments = ["run", "m.toml", "-q", "--jobs", "1", "--threads", threads];
        let mut command = place.command(&arguments);
        if at != "none" {
            command.env("WRITE_FAULT", at);
        }
        command.output().unwrap();
    }
    let shown = place.run(&["report", "m.toml"]);
    let speed = shown.stdout.lines().find(|line| line.starts_with("speed")).unwrap();
    assert!(speed.starts_with("speed    not judged") && speed.contains("1 threads"), "{}", shown.stdout);
}

#[test]
fn lives_of_a_run() {
    let place = Place::with(&crate::reproduce::shapes());
    place.run(&["run", "m.toml", "-q", "--jobs", "1"]).expect(0);
    let results = |attempt: &str| {
        let mut found = files_below(&place.path("results/tiny/runs"));
        found.retain(|path, _| path.ends_with(format!("{attempt}/result.json")));
        let read = |path: &PathBuf| RunResult::read(&Files::new(), path).unwrap().unwrap();
        found.keys().map(read).collect::<Vec<_>>()
    };
    let first = results("attempt/1");
    assert_eq!(first.iter().filter(|result| result.timings.shared_steps > 0).count(), 3);
    std::thread::sleep(Duration::from_millis(1100));
    place.run(&["run", "m.toml", "-q", "--rerun", "--no-share", "--jobs", "1"]).expect(0);
    let second = results("attempt/2");
    assert_eq!((first.len(), second.len()), (4, 4));
    for (first, second) in first.iter().zip(&second) {
        assert_eq!((second.run_key, second.result_hash), (first.run_key, first.result_hash));
        assert_eq!((second.timings.shared_steps, second.timings.resumes), (0, 0));
        assert!(second.timings.started > first.timings.finished, "{second:?}");
    }
}

/// A run that was carried on from host to host, each with another number of threads: one result, every life told, and
/// its speed judged by all of them.
#[test]
fn lives_across_hosts_and_thread_counts() {
    let text = arms()
        .replace("steps = 400", "steps = 12")
        .replace("every = 20", "every = 1")
        .replace("quality = {", "speed = { min_ratio = 0.0001 }\nquality = {");
    let whole = Place::with(&text);
    whole.run(&["run", "m.toml", "-q", "--jobs", "1", "--threads", "2"]).expect(0);
    let place = Place::with(&text);
    let journals = || {
        let mut files = files_below(&place.path("results/tiny/runs"));
        files.retain(|path, _| path.ends_with("journal.jsonl"));
        files
    };
    for (life, threads) in ["3", "1", "2"].into_iter().enumerate() {
        let arguments = ["run", "m.toml", "-q", "--jobs", "1", "--threads", threads];
        let killed = place.command(&arguments).env("WRITE_FAULT", "kill@60").output().unwrap();
        assert!(!killed.status.success());
        // What this machine wrote is another's from now on.
        for (path, bytes) in journals() {
            let text = String::from_utf8(bytes).unwrap();
            let mut lines = Vec::new();
            for line in text.lines() {
                let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
                if event["host"].is_string() && !event["host"].as_str().unwrap().starts_with("host-") {
                    event["host"] = format!("host-{life}").into();
                    event["conditions"]["machine"] = format!("CPU {life}").into();
                }
                lines.push(event.to_string());
            }
            std::fs::write(path, lines.join("\n") + "\n").unwrap();
        }
    }
    place.run(&["run", "m.toml", "-q", "--jobs", "1", "--threads", "2"]).expect(0);
    assert_eq!(place.hashes(), whole.hashes());
    let mut results = files_below(&place.path("results/tiny/runs"));
    results.retain(|path, _| path.ends_with("attempt/1/result.json"));
    let results: Vec<RunResult> =
        results.keys().map(|path| RunResult::read(&Files::new(), path).unwrap().unwrap()).collect();
    let travelled = results.iter().find(|result| result.timings.machines.len() > 1).unwrap();
    let machines = &travelled.timings.machines;
    assert!(machines.iter().any(|machine| machine.starts_with("CPU ")), "{machines:?}");
    let threads: std::collections::BTreeSet<&str> =
        machines.iter().filter_map(|machine| machine.rsplit(", ").next()).collect();
    assert!(threads.len() > 1, "{machines:?}");
    assert!(travelled.timings.resumes >= 1, "{:?}", travelled.timings);
    let shown = place.run(&["report", "m.toml"]).expect(0).stdout;
    let speed = shown.lines().find(|line| line.starts_with("speed")).unwrap();
    assert!(speed.starts_with("speed    not judged") && speed.contains("CPU "), "{speed}");
}
