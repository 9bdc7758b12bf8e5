//! `nanorun runs`, `show`, `compare`, `ledger`: what is on disk, listed and told.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Place, TINY, Told};

/// Four finished runs.
fn finished() -> Place {
    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "--quiet"]).expect(0);
    place
}

fn listed(place: &Place, arguments: &[&str]) -> Vec<Value> {
    let arguments: Vec<&str> = ["runs", "--json"].iter().chain(arguments).copied().collect();
    place.run(&arguments).expect(0).json()["runs"].as_array().unwrap().clone()
}

fn run_dir(place: &Place, row: &Value) -> PathBuf {
    let key = &row["run_key"].as_str().unwrap()[..12];
    place.path(&format!("results/tiny/runs/{key}"))
}

/// Every file below a place with its bytes.
fn contents(place: &Place) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut open, mut found) = (vec![place.path("results")], Vec::new());
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn runs_are_filtered_and_sorted() {
    let place = finished();
    let all = listed(&place, &[]);
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|row| row["status"] == "finished" && row["val_bpb"].is_f64()));
    let best = listed(&place, &["--sort", "val_bpb", "--limit", "1"]);
    let bpb = |row: &Value| row["val_bpb"].as_f64().unwrap();
    let least = all.iter().map(bpb).fold(f64::INFINITY, f64::min);
    assert_eq!(bpb(&best[0]), least);
    let sorted = listed(&place, &["tiny", "--sort", "val_bpb:desc"]);
    assert!(sorted.windows(2).all(|pair| bpb(&pair[0]) >= bpb(&pair[1])));
    assert_eq!(listed(&place, &["--where", "warmdown=sqrt", "--where", "run.seed>1"]).len(), 1);
    assert_eq!(listed(&place, &["--where", "arm~SQRT"]).len(), 2);
    assert_eq!(listed(&place, &["--where", &format!("val_bpb<={least}")]).len(), 1);
    // A metric that is no column, and a field of the manifest that is no axis.
    assert_eq!(listed(&place, &["--where", "val_loss>0"]).len(), 4);
    let depths = listed(&place, &["--where", "model.depth=1", "--columns", "run,model.depth,val_loss"]);
    assert_eq!((depths.len(), &depths[0]["model.depth"]), (4, &Value::from(1)));
    assert_eq!(depths[0].as_object().unwrap().len(), 3);
    // One run, by the name that the list gives it.
    let name = all[0]["run"].as_str().unwrap();
    assert_eq!(listed(&place, &[name]).len(), 1);
    let text = place.run(&["runs", "--where", "val_bpb>1e6"]).expect(0);
    assert!(text.stderr.contains("0 runs of 4"), "{}", text.stderr);
}

#[test]
fn runs_say_how_those_stand_that_are_not_finished() {
    let place = finished();
    let all = listed(&place, &[]);
    // One that was killed, one whose end is gone, one that nobody began, one that the manifest no longer has.
    let killed = run_dir(&place, &all[0]).join("attempt/1");
    std::fs::remove_file(killed.join("result.json")).unwrap();
    let journal = std::fs::read_to_string(killed.join("journal.jsonl")).unwrap();
    let begun: Vec<&str> = journal.lines().filter(|line| !line.contains("finished")).collect();
    std::fs::write(killed.join("journal.jsonl"), begun.join("\n") + "\n").unwrap();
    std::fs::remove_dir_all(run_dir(&place, &all[1])).unwrap();
    let damaged = run_dir(&place, &all[2]).join("attempt/1/result.json");
    std::fs::write(&damaged, std::fs::read_to_string(&damaged).unwrap().replace("val_bpb", "val_bpd"))
        .unwrap();
    std::fs::remove_file(place.path("results/tiny/runs.parquet")).unwrap();
    let status = |row: &Value| row["status"].as_str().unwrap().to_owned();
    let now = listed(&place, &[]);
    assert_eq!(now.iter().map(status).collect::<Vec<_>>(), ["interrupted", "planned", "damaged", "finished"]);
    assert_eq!(now[0]["steps_done"], 8);
    assert!(now[0]["reason"].as_str().unwrap().contains("killed"));
    assert_eq!(listed(&place, &["--where", "status!=finished"]).len(), 3);
}

#[test]
fn a_run_tells_its_story() {
    let place = finished();
    let all = listed(&place, &["--where", "arm~sqrt", "--where", "seed=1"]);
    let name = all[0]["run"].as_str().unwrap();
    let text = place.run(&["show", name]).expect(0).stdout;
    for part in [
        "warmdown=sqrt seed=1",
        "state         finished",
        "forked",
        "its first 4 steps are those of run",
        "train_loss",
        "val_bpb",
        "result hash",
        "eval.tokens",
        "checkpoint",
        "nanorun run m.toml --only run.seed=1 --only schedule.warmdown=sqrt --rerun",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let json = place.run(&["show", name, "--json"]).expect(0).json();
    assert_eq!(json["losses"].as_array().unwrap().len(), 8);
    assert_eq!(json["final"]["val_bpb"], all[0]["val_bpb"]);
    assert_eq!(json["identity"]["result_hash"], all[0]["result_hash"]);
    assert_eq!(json["settings"]["schedule.num_iterations"], "8");
    // The command does what it says: another attempt, to the same hash.
    let command = json["command"].as_str().unwrap();
    let words: Vec<&str> = command.split(" && nanorun ").nth(1).unwrap().split(' ').collect();
    place.run(&words).expect(0);
    let again = place.run(&["show", name, "--json"]).expect(0).json();
    assert_eq!(again["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(again["identity"], json["identity"]);
}

#[test]
fn two_runs_are_compared() {
    let place = finished();
    let name = |arm: &str| {
        let filter = format!("arm~{arm}");
        listed(&place, &["--where", &filter, "--where", "seed=1"])[0]["run"].as_str().unwrap().to_owned()
    };
    let (linear, sqrt) = (name("linear"), name("sqrt"));
    let json = place.run(&["compare", &linear, &sqrt, "--json"]).expect(0).json();
    assert_eq!(json["first_step_that_differs"], 5);
    let settings: Vec<&str> =
        json["settings"].as_array().unwrap().iter().map(|one| one["setting"].as_str().unwrap()).collect();
    assert_eq!(settings, ["schedule.warmdown"]);
    let values = json["values"].as_array().unwrap();
    let bpb = values.iter().find(|one| one["metric"] == "val_bpb").unwrap();
    assert_eq!(bpb["comparable"], true);
    let difference = bpb["b"].as_f64().unwrap() - bpb["a"].as_f64().unwrap();
    assert!((bpb["difference"].as_f64().unwrap() - difference).abs() < 1e-12);
    let text = place.run(&["compare", &linear, &sqrt]).expect(0).stdout;
    assert!(text.contains("they part at step 5") && text.contains("schedule.warmdown"), "{text}");
    // What is measured otherwise is shown and not subtracted.
    place.run(&["run", "m.toml", "--set", "eval.tokens=1024", "--quiet"]).expect(0);
    let other = listed(&place, &["--where", "experiment=tiny", "--where", "varied~eval.tokens"]);
    let other = other[0]["run"].as_str().unwrap();
    let json = place.run(&["compare", &linear, other, "--json"]).expect(0).json();
    let bpb =
        json["values"].as_array().unwrap().iter().find(|one| one["metric"] == "val_bpb").unwrap().clone();
    assert_eq!((&bpb["comparable"], &bpb["difference"]), (&Value::from(false), &Value::Null));
    assert!(bpb["why_not"].as_str().unwrap().contains("eval.tokens is 512 and 1024"), "{bpb}");
}

#[test]
fn a_card_goes_into_a_pull_request() {
    let place = finished();
    place.run(&["report", "tiny", "--markdown", "card.md", "--quiet"]).expect(0);
    let card = std::fs::read_to_string(place.path("card.md")).unwrap();
    let told = place.run(&["report", "tiny", "--json"]).expect(0).json();
    let answer = told["answer"][0].as_str().unwrap().replace('_', "\\_");
    assert!(card.starts_with("### tiny\n") && card.contains(&format!("**{answer}**")), "{card}");
    for run in told["runs"].as_array().unwrap() {
        assert!(card.contains(&run["result_hash"].as_str().unwrap()[..12]), "{card}");
    }
    // Every row of a table has the cells of its heading.
    let mut columns = 0;
    for line in card.lines() {
        let cells = line.replace("\\|", "").matches('|').count();
        assert!(columns == 0 || cells == 0 || cells == columns, "{line}");
        columns = cells;
    }
}

#[test]
fn the_ledger_keeps_questions_and_is_made_anew() {
    let place = Place::with(&TINY.replace("question = ", "hypothesis = \"Linear wins.\"\nquestion = "));
    place.run(&["run", "m.toml", "--quiet"]).expect(0);
    let ledger = place.path("results/ledger.parquet");
    let kept = std::fs::read(&ledger).unwrap();
    let rows = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["ledger", "--json"].iter().chain(arguments).copied().collect();
        place.run(&arguments).expect(0).json()["rows"].as_array().unwrap().clone()
    };
    let all = rows(&[]);
    assert_eq!(all.len(), 1);
    let row = &all[0];
    assert_eq!(row["question"], "Does the whole path work?");
    assert_eq!(row["hypothesis"], "Linear wins.");
    assert_eq!(
        (&row["arm"], &row["control"]),
        (&Value::from("warmdown=sqrt"), &Value::from("warmdown=linear"))
    );
    assert!(
        row["effect"].is_f64()
            && row["flops"].as_f64().unwrap() > 0.0
            && row["seconds"].as_f64().unwrap() > 0.0
    );
    assert_eq!(std::fs::read(&ledger).unwrap(), kept);
    std::fs::remove_file(&ledger).unwrap();
    rows(&[]);
    assert_eq!(std::fs::read(&ledger).unwrap(), kept, "deleting it loses nothing");
    assert_eq!(rows(&["whole", "PATH"]).len(), 1);
    assert_eq!(rows(&["another"]).len(), 0);
    assert_eq!(rows(&["--where", "seeds>=2", "--where", "finding~worse"]).len(), 1);
    // `clean` has nothing to say of it.
    place.run(&["clean", "--yes"]).expect(0);
    assert!(ledger.is_file());
}

#[test]
fn what_cannot_be_told_is_said_and_nothing_is_written() {
    let place = finished();
    let all = listed(&place, &[]);
    let name = all[0]["run"].as_str().unwrap();
    std::fs::create_dir_all(place.path("foreign/inner")).unwrap();
    std::fs::write(place.path("foreign/inner/file.txt"), "nothing of nanorun's").unwrap();
    std::fs::create_dir_all(place.path("empty")).unwrap();
    let before = contents(&place);
    let mut told = Told::default();
    let mut bad = |arguments: &[&str]| {
        let ended = place.run(arguments).expect(2);
        told.add(&arguments.join(" ").replace(name, "[run]"), &ended.stderr);
    };
    bad(&["runs", "--where", "val_bbp<2"]);
    bad(&["runs", "--where", "core>0.1"]);
    bad(&["runs", "--where", "val_bpb"]);
    bad(&["runs", "--where", "val_bpb<low"]);
    bad(&["runs", "--sort", "val_bpb:down"]);
    bad(&["runs", "--columns", "run,sede"]);
    bad(&["runs", "foreign"]);
    bad(&["runs", "empty"]);
    bad(&["runs", "--results", "nowhere"]);
    bad(&["runs", "tinny"]);
    bad(&["show", "tinny/4734"]);
    bad(&["show", "tiny/xyz"]);
    bad(&["show", "foreign"]);
    bad(&["compare", name, name]);
    bad(&["compare", name, "nothing/1"]);
    bad(&["ledger", "--where", "efect<0"]);
    bad(&["ledger", "--results", "empty"]);
    bad(&["watch", "foreign"]);
    bad(&["watch"]);
    insta::assert_snapshot!("lists_bad_input", told.text);
    // Keys are those of this machine's class: what is listed is looked at here.
    for arguments in [vec!["show", "tiny/ffff"], vec!["show", "tiny"], vec!["compare", "tiny", name]] {
        let ended = place.run(&arguments).expect(2);
        assert!(ended.stderr.contains("warmdown=linear seed=1"), "{}", ended.stderr);
    }
    assert_eq!(contents(&place), before);
}

/// A table of another schema, or a damaged one, is named; what it cannot tell is read from the results themselves.
#[test]
fn a_table_of_another_schema_is_named_and_hides_nothing() {
    let place = finished();
    let table = place.path("results/tiny/runs.parquet");
    let name = listed(&place, &[])[0]["run"].as_str().unwrap().to_owned();
    std::fs::copy(place.path("results/tiny/steps.parquet"), &table).unwrap();
    let bytes = std::fs::read(&table).unwrap();
    let ended = place.run(&["runs", "--json"]).expect(2);
    assert!(ended.stderr.contains("runs.parquet") && ended.stderr.contains("no column"), "{}", ended.stderr);
    let rows = ended.json()["runs"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row["status"] == "finished"));
    for arguments in [vec!["show", name.as_str()], vec!["ledger"], vec!["compare", name.as_str(), "tiny/0"]] {
        let ended = place.run(&arguments).expect(2);
        assert!(ended.stderr.contains("runs.parquet"), "{}", ended.stderr);
    }
    assert_eq!(std::fs::read(&table).unwrap(), bytes);
}

/// Ten experiments of a hundred runs, as their tables leave them.
#[test]
fn a_thousand_runs_are_listed() {
    use std::collections::BTreeMap;

    use nanorun::Files;
    use nanorun::internals::hash::Digest;
    use nanorun::internals::record::{ExperimentDir, PlanRecord, PlannedRun, RunRow, write_table};

    let place = Place::with(TINY);
    let files = Files::new();
    for experiment in 0..10_u64 {
        let dir = ExperimentDir::at(place.path(&format!("results/e{experiment}")));
        let (mut rows, mut runs) = (Vec::new(), Vec::new());
        for seed in 0..100_u64 {
            let key = Digest::of(format!("{experiment} {seed}").as_bytes());
            let attempt = dir.run(&key).path().join("attempt/1");
            std::fs::create_dir_all(&attempt).unwrap();
            // It is there; nobody reads what the table tells.
            std::fs::write(attempt.join("result.json"), "").unwrap();
            let arm = format!("depth={}", seed % 4);
            rows.push(RunRow {
                experiment: format!("e{experiment}"),
                arm: arm.clone(),
                seed,
                run_key: key.to_string(),
                status: "finished".to_owned(),
                val_bpb: Some(2.0 + (seed as f64) / 1000.0 + (experiment as f64) / 10.0),
                steps: 10,
                steps_done: 10,
                ..RunRow::default()
            });
            let cell: BTreeMap<String, toml::Value> =
                [("run.seed".to_owned(), toml::Value::Integer(seed as i64))].into_iter().collect();
            runs.push(PlannedRun {
                arm,
                seed,
                key,
                steps: 10,
                evaluation: None,
                vocab_size: None,
                content: None,
                data: None,
                cell,
            });
        }
        let plan = PlanRecord {
            layout: 2,
            name: format!("e{experiment}"),
            question: None,
            hypothesis: None,
            manifest: "m.toml".to_owned(),
            directory: None,
            profile: None,
            sets: Vec::new(),
            env: BTreeMap::new(),
            only: Vec::new(),
            varied: Vec::new(),
            no_share: false,
            nanorun: "0.1.0".to_owned(),
            control: None,
            runs,
        };
        plan.write(&files, &dir).unwrap();
        write_table(&files, &dir.file("runs.parquet"), &rows).unwrap();
    }
    let began = nanorun::internals::files::now();
    let best = listed(
        &place,
        &["--where", "val_bpb<2.3", "--where", "arm=depth=1", "--sort", "val_bpb", "--limit", "3"],
    );
    // Told, and nowhere compared with anything: how fast this machine is at the moment proves nothing.
    eprintln!("a thousand runs took {:.3} s", began.elapsed().as_secs_f64());
    let runs: Vec<String> = best.iter().map(|row| format!("{} {}", row["experiment"], row["seed"])).collect();
    assert_eq!(runs, ["\"e0\" 1", "\"e0\" 5", "\"e0\" 9"]);
    assert_eq!(listed(&place, &[]).len(), 1000);
}
