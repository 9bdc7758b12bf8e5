//! `nanorun try`, `new`, `watch`, and curves for TensorBoard.

use serde_json::Value;

use crate::support::{Place, TINY, Told};

/// Two seeds of one arm.
fn one_arm() -> String {
    TINY.replace("\"schedule.warmdown\" = [\"linear\", \"sqrt\"]\n", "")
        .replace("control = { \"schedule.warmdown\" = \"linear\" }\n", "")
}

fn level(alpha: f64, number: f64) -> f64 {
    1.0 - alpha * 6.0 / (std::f64::consts::PI * std::f64::consts::PI * number * number)
}

#[test]
fn tries_are_numbered_and_judged_at_their_share() {
    let place = Place::with(&one_arm());
    let tried = |set: &str, more: &[&str]| {
        let arguments = [&["try", "m.toml", "--set", set, "--json", "--quiet"], more].concat();
        let ended = place.run(&arguments);
        assert!(matches!(ended.code, Some(0 | 5)), "{}{}", ended.stdout, ended.stderr);
        ended.json()
    };
    let first = tried("schedule.warmdown=sqrt", &[]);
    assert_eq!((&first["try"], &first["seeds"]), (&Value::from(1), &serde_json::json!([1, 2])));
    let confidence = |try_: &Value| try_["confidence"].as_f64().unwrap();
    assert!((confidence(&first) - level(0.1, 1.0)).abs() < 1e-12);
    assert!(first["verdict"]["difference"].is_f64() && first["verdict"]["lower"].is_f64());
    assert!(
        first["cost"]["seconds"].as_f64().unwrap() > 0.0 && first["cost"]["flops"].as_f64().unwrap() > 0.0
    );
    assert!(first["answer"].as_str().unwrap().contains("the try"), "{first}");
    // The control was trained, and is used again.
    let control = place.run(&["report", "m.toml", "--json"]).expect(0).json();
    assert!(control["runs"].as_array().unwrap().iter().all(|run| run["finished"] == true));
    let second = tried("schedule.warmdown=cosine", &["--against", "results/tiny"]);
    assert_eq!(second["try"], 2);
    assert!((confidence(&second) - level(0.1, 2.0)).abs() < 1e-12);
    // The same again is the same try, whatever its control is called.
    let again = tried("schedule.warmdown=sqrt", &["--against", "tiny"]);
    assert_eq!((&again["try"], &again["taken_up"]), (&Value::from(1), &Value::from(true)));
    assert_eq!(again["verdict"], first["verdict"]);
    // Other seeds are another look.
    let fewer = tried("schedule.warmdown=sqrt", &["--only", "run.seed=1"]);
    assert_eq!(
        (&fewer["try"], &fewer["seeds"], &fewer["cost"]["runs"]),
        (&Value::from(3), &serde_json::json!([1]), &Value::from(1))
    );
    assert_eq!(fewer["verdict"]["outcome"], "undecided");
    let other = tried("schedule.warmdown=linear", &["--set", "model.head_dim=16", "--against", "tiny"]);
    assert_eq!(other["try"], 4);
    let log = std::fs::read_to_string(place.path("results/tries.jsonl")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("\"reserved\"")).count(), 4);
    // Looked up, with what they cost.
    let rows = place.run(&["ledger", "--json", "--where", "try_number>0"]).expect(0).json();
    let numbers: Vec<u64> =
        rows["rows"].as_array().unwrap().iter().map(|row| row["try_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), 4);
    place.run(&["clean", "--yes"]).expect(0);
    assert_eq!(std::fs::read_to_string(place.path("results/tries.jsonl")).unwrap(), log);
}

#[test]
fn the_control_is_one_arm() {
    let place = Place::with(TINY);
    // The experiment's own control, and the arm that is like it.
    let json = place.run(&["try", "m.toml", "--set", "model.head_dim=16", "--json", "--quiet"]);
    assert!(matches!(json.code, Some(0 | 5)), "{}", json.stderr);
    let json = json.json();
    assert_eq!(json["control"], "tiny warmdown=linear");
    assert_eq!(json["arm"], "warmdown=linear");
    // An arm by one of its runs.
    let runs = place.run(&["runs", "tiny", "--json", "--where", "arm~sqrt"]).expect(0).json();
    let sqrt = runs["runs"][0]["run"].as_str().unwrap().to_owned();
    let json =
        place.run(&["try", "m.toml", "--only", "schedule.warmdown=linear", "--against", &sqrt, "--json"]);
    assert_eq!(json.json()["control"], "tiny warmdown=sqrt");
    let several = TINY.replace("control = { \"schedule.warmdown\" = \"linear\" }\n", "");
    std::fs::write(place.path("several.toml"), several.replace("\"tiny\"", "\"several\"")).unwrap();
    let mut told = Told::default();
    let mut bad = |arguments: &[&str]| {
        let ended = place.run(arguments).expect(2);
        // Keys are named where arms are.
        let text: Vec<String> = ended
            .stderr
            .lines()
            .map(|line| match line.trim_start().split_once("  warmdown") {
                Some((_, arm)) => format!("    [key]  warmdown{arm}"),
                None => line.to_owned(),
            })
            .collect();
        told.add(&arguments.join(" "), &text.join("\n"));
    };
    bad(&["try", "several.toml", "--set", "model.head_dim=16"]);
    bad(&["try", "m.toml"]);
    bad(&["try", "m.toml", "--set", "run.seed=[7, 8]", "--set", "model.head_dim=16", "--against", "tiny"]);
    bad(&["try", "m.toml", "--set", "model.hed_dim=16"]);
    bad(&["try", "m.toml", "--set", "model.head_dim=16", "--against", "tinny"]);
    insta::assert_snapshot!("try_bad_input", told.text);
}

#[test]
fn a_new_manifest_is_one_that_plans() {
    let place = Place::with(TINY);
    let plans = |file: &str| place.run(&["plan", file, "--json"]).expect(0).json();
    place
        .run(&[
            "new",
            "--name",
            "lr",
            "--preset",
            "quickstart",
            "--axis",
            "optimizer.matrix_lr=0.02,0.03",
            "--seeds",
            "2",
        ])
        .expect(0);
    assert_eq!(plans("lr.toml")["runs"].as_array().unwrap().len(), 4);
    place
        .run(&["new", "deep.toml", "--depth", "12", "--seeds", "1", "--steps", "10", "--backend", "cpu"])
        .expect(0);
    assert_eq!(plans("deep.toml")["runs"].as_array().unwrap().len(), 1);
    let printed = place.run(&["new", "-", "--set", "model.smear=false", "--yes"]).expect(0).stdout;
    assert!(printed.contains("smear = false") && printed.contains("[matrix]"), "{printed}");
    assert!(!place.path("experiment.toml").exists());
    // What upstream's run was.
    let flags = "torchrun --nproc_per_node=4 -m scripts.base_train -- --depth=4 --run=d4 --device-type=cpu";
    place.run(&["new", "--from-flags", flags]).expect(0);
    let text = std::fs::read_to_string(place.path("d4.toml")).unwrap();
    for part in [
        "depth = 4",
        "ranks = 4",
        "seed = 42",
        "backend = \"cpu\"",
        "param_data_ratio = 12.0",
        "commit = \"92d63d4\"",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(plans("d4.toml")["runs"].as_array().unwrap().len(), 1);
    std::fs::write(place.path("meta_000500.json"), META).unwrap();
    place
        .run(&[
            "new",
            "--from-meta",
            "meta_000500.json",
            "--commit",
            "92d63d4",
            "--name",
            "meta",
            "--backend",
            "cpu",
        ])
        .expect(0);
    let text = std::fs::read_to_string(place.path("meta.toml")).unwrap();
    for part in [
        "depth = 2",
        "sequence_len = 256",
        "vocab_size = 4096",
        "steps = 500",
        "matrix_lr = 0.03",
        "every = 0",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    plans("meta.toml");
    let mut told = Told::default();
    let mut bad = |arguments: &[&str]| {
        let ended = place.run(arguments).expect(2);
        told.add(&arguments.join(" "), &ended.stderr);
    };
    bad(&["new", "lr.toml"]);
    bad(&["new", "--name", "lr"]);
    bad(&["new", "--axis", "optimizer.matrix_rl=0.02,0.03"]);
    bad(&["new", "--axis", "optimizer.matrix_lr=0.02"]);
    bad(&["new", "--seeds", "many"]);
    bad(&["new", "--commit", "0000000"]);
    bad(&["new", "--from-flags", "--fp8 --depth=12"]);
    bad(&["new", "--from-flags", "--depht=12"]);
    bad(&["new", "--from-meta", "nothing.json"]);
    bad(&["new", "--from-meta", "meta_000500.json", "--name", "x"]);
    bad(&["new", "--without", "fp8"]);
    insta::assert_snapshot!("new_bad_input", told.text);
    assert!(!place.path("experiment.toml").exists() && !place.path("x.toml").exists());
}

const META: &str = r#"{"step": 500, "val_bpb": 1.5, "model_config": {"sequence_len": 256, "vocab_size": 4096, "n_layer": 2,
"n_head": 2, "n_kv_head": 2, "n_embd": 128, "window_pattern": "L"}, "user_config": {"run": "dummy", "device_type": "",
"fp8": false, "fp8_recipe": "tensorwise", "depth": 2, "aspect_ratio": 64, "head_dim": 64, "max_seq_len": 256,
"window_pattern": "L", "num_iterations": 500, "target_flops": -1.0, "target_param_data_ratio": 12, "device_batch_size": 8,
"total_batch_size": 2048, "embedding_lr": 0.3, "unembedding_lr": 0.008, "weight_decay": 0.28, "matrix_lr": 0.03,
"scalar_lr": 0.5, "warmup_steps": 40, "warmdown_ratio": 0.65, "final_lr_frac": 0.05, "resume_from_step": -1,
"eval_every": -1, "eval_tokens": 16384, "core_metric_every": -1, "core_metric_max_per_task": 500, "sample_every": -1,
"save_every": -1, "model_tag": null}, "device_batch_size": 8, "max_seq_len": 256, "total_batch_size": 2048}"#;

#[test]
fn curves_go_to_tensorboard() {
    use nanorun::internals::interop::tensorboard::read_event_file;

    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "--quiet"]).expect(0);
    let report = place.run(&["export", "tiny", "--to", "tensorboard", "logs", "--json"]).expect(0).json();
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 4);
    for run in runs {
        let file = std::path::Path::new(run["file"].as_str().unwrap()).file_name().unwrap().to_owned();
        assert!(file.to_str().unwrap().starts_with("events.out.tfevents."));
        let shown = place.run(&["show", run["run"].as_str().unwrap(), "--json"]).expect(0).json();
        let path = run["file"]
            .as_str()
            .unwrap()
            .replace("[place]", place.path("").to_str().unwrap().trim_end_matches('/'));
        let scalars = read_event_file(&std::fs::read(path).unwrap()).unwrap();
        let of = |tag: &str| -> Vec<(u64, f32)> {
            scalars.iter().filter(|one| one.tag == tag).map(|one| (one.step, one.value)).collect()
        };
        let losses: Vec<(u64, f32)> = (0..)
            .zip(shown["losses"].as_array().unwrap())
            .map(|(step, loss)| (step, loss.as_f64().unwrap() as f32))
            .collect();
        assert_eq!(of("train/loss"), losses);
        let evals = shown["evaluations"].as_array().unwrap();
        let bpbs: Vec<(u64, f32)> = evals
            .iter()
            .map(|one| (one["step"].as_u64().unwrap(), one["values"]["val_bpb"].as_f64().unwrap() as f32))
            .collect();
        assert_eq!(of("eval/val_bpb"), bpbs);
        assert_eq!(of("schedule/lr_multiplier").len(), 8);
        assert!(scalars.windows(2).all(|pair| pair[0].wall_time <= pair[1].wall_time));
    }
    // Never over what is there, and nothing of what has none.
    let ended = place.run(&["export", "tiny", "--to", "tensorboard", "logs"]).expect(2);
    assert!(ended.stderr.contains("is there already"), "{}", ended.stderr);
    let one = runs[0]["run"].as_str().unwrap();
    place.run(&["export", one, "--to", "tensorboard", "one"]).expect(0);
    assert_eq!(std::fs::read_dir(place.path("one")).unwrap().count(), 1);
}

#[test]
fn what_goes_on_is_watched_until_it_ends() {
    let place = Place::with(&TINY.replace("steps = 8", "steps = 100"));
    let mut runs = place.command(&["run", "m.toml", "--quiet", "--threads", "1"]);
    let mut child = runs.stdout(std::process::Stdio::null()).spawn().unwrap();
    let plan = place.path("results/tiny/plan.toml");
    while !plan.is_file() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ended = place.run(&["watch", "results/tiny", "--every", "0.1", "--json"]).expect(0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["status"] == "running"), "{}", ended.stdout);
    let last = |label: &str| lines.iter().rev().find(|line| line["label"] == label).unwrap().clone();
    for label in ["warmdown=linear seed=1", "warmdown=sqrt seed=2"] {
        assert_eq!(
            (&last(label)["status"], &last(label)["step"]),
            (&Value::from("finished"), &Value::from(100))
        );
    }
    // Of what is over it tells how it stands, and ends.
    let text = place.run(&["watch", "results/tiny", "--once"]).expect(0).stdout;
    assert!(text.contains("4 runs: 4 finished"), "{text}");
    assert!(
        std::fs::read_to_string(place.path("results/tiny/report.html")).unwrap().contains("warmdown=sqrt")
    );
}
