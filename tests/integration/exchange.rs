//! Checkpoints of upstream's: evaluated, sampled from, refused where they are no checkpoints.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Place, TINY};

/// A run directory that upstream's own code left (depth 4, 300 tokens, 500 steps).
pub(crate) fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nanochat_base")
}

/// What upstream's code says of it.
pub(crate) fn expected() -> serde_json::Value {
    serde_json::from_slice(&fs::read(base().join("tiny_expected.json")).unwrap()).unwrap()
}

/// Every backend of this build.
const BACKENDS: &[&str] = if cfg!(feature = "tch") { &["cpu", "scalar", "tch"] } else { &["cpu", "scalar"] };

/// A copy that a test may change.
fn copy(place: &Place) -> PathBuf {
    let to = place.path("base");
    for dir in ["base_checkpoints/tiny", "tokenizer"] {
        fs::create_dir_all(to.join(dir)).unwrap();
        for entry in fs::read_dir(base().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, to.join(dir).join(path.file_name().unwrap())).unwrap();
        }
    }
    to
}

#[test]
fn upstreams_own_numbers_come_out() {
    let (place, base, expected) = (Place::with(TINY), base(), expected());
    let base = base.to_str().unwrap();
    for backend in ["cpu", "tch"].iter().filter(|name| BACKENDS.contains(name)) {
        let args = ["eval", base, "--shards", "embedded", "--json", "-q", "--backend", backend];
        let found = place.run(&args).expect(0).json();
        let (bpb, wanted) =
            (found["val_bpb"].as_f64().unwrap(), expected["val_bpb"]["value"].as_f64().unwrap());
        assert!((bpb - wanted).abs() < 2e-6, "{backend}: {bpb} {wanted}");
        assert_eq!(found["tokens"], 4096);
        assert_eq!(found["definition"]["data.token_bytes"], "raw");
    }
    for backend in BACKENDS {
        for case in expected["greedy"].as_array().unwrap() {
            let (prompt, text) = (case["prompt"].as_str().unwrap(), case["text"].as_str().unwrap());
            let count =
                case["output_ids"].as_array().unwrap().len() - case["prompt_ids"].as_array().unwrap().len();
            let (count, len) = (count.to_string(), format!("<|bos|>{prompt}").len());
            let args =
                ["sample", base, "--prompt", prompt, "--temperature", "0", "--max-tokens", &count, "--json"];
            let found = place.run(&[&args[..], &["-q", "--backend", backend]].concat()).expect(0).json();
            assert_eq!(found["continuations"][0].as_str().unwrap(), &text[len..], "{backend}: {prompt}");
        }
    }
}

/// Of a checkpoint that several ranks saved, the rows of as many are evaluated and trained on.
#[test]
fn checkpoints_of_several_ranks_have_their_rows() {
    let place = Place::with(TINY);
    let base = copy(&place);
    let base_path = base.to_str().unwrap();
    let eval = |more: &[&str]| {
        let args = ["eval", base_path, "--shards", "embedded", "--json", "-q", "--backend", "cpu"];
        place.run(&[&args, more].concat())
    };
    // Printed by upstream's own loader and evaluation for rank 0 and 1 of 2, nats and bytes added up.
    let wanted = 2.325_968_341_853_631_7;
    let two = eval(&["--ranks", "2"]).expect(0).json();
    assert!((two["val_bpb"].as_f64().unwrap() - wanted).abs() < 2e-6, "{two}");
    assert_eq!((&two["tokens"], &two["definition"]["run.ranks"]), (&4096.into(), &"2".into()));
    assert_eq!(eval(&[]).expect(0).json()["definition"]["run.ranks"], "1");
    let dir = base.join("base_checkpoints/tiny");
    fs::copy(dir.join("optim_000500_rank0.pt"), dir.join("optim_000500_rank1.pt")).unwrap();
    assert_eq!(eval(&[]).expect(0).json(), two);
    // The validation split has not so many row groups.
    let many = eval(&["--ranks", "999", "--tokens", "2045952"]).expect(2);
    assert!(
        many.stderr.contains("of 999 has no text") && many.stderr.contains("run.ranks"),
        "{}",
        many.stderr
    );
}

/// The same model by any of its names, and one prompt computed once for several samples.
#[test]
fn one_checkpoint_has_many_names() {
    let (place, base) = (Place::with(TINY), base());
    let sample = |name: &Path, more: &[&str]| {
        let name = name.to_str().unwrap();
        let args = [&["sample", name, "--prompt", "My lord,", "--max-tokens", "8"], more].concat();
        place.run(&args).expect(0)
    };
    let whole = sample(&base, &["--num", "3", "--top-k", "5"]);
    assert!(
        whole.stderr.contains("tiny step 500: its tensors and metadata are those of"),
        "{}",
        whole.stderr
    );
    for name in ["base_checkpoints", "base_checkpoints/tiny", "base_checkpoints/tiny/model_000500.pt"] {
        assert_eq!(
            sample(&base.join(name), &["--num", "3", "--top-k", "5", "-q"]).stdout,
            whole.stdout,
            "{name}"
        );
    }
    // Of one draw the first is the same, whether others follow or not; what a draw is does not depend on the others.
    let first = sample(&base, &["--top-k", "5", "-q"]).stdout;
    assert!(whole.stdout.starts_with(&first), "{}\n{first}", whole.stdout);
    // Without a bound, and with one of all tokens.
    let free = sample(&base, &["--num", "2", "--top-k", "0", "-q"]).stdout;
    assert_eq!(sample(&base, &["--num", "2", "--top-k", "300", "-q"]).stdout, free);
    let json = sample(&base, &["--num", "2", "--json", "-q"]).json();
    let texts: Vec<String> = json["continuations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| format!("My lord,{}\n", text.as_str().unwrap()))
        .collect();
    assert_eq!(free, texts.concat());
}

/// A run of nanorun's is evaluated to the bits of its own evaluation; otherwise where it is told otherwise.
#[test]
fn runs_are_evaluated_by_their_own_definition() {
    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let report = place.run(&["report", "m.toml", "--json"]).json();
    let run = &report["runs"][1];
    let key = &run["run_key"].as_str().unwrap()[..12];
    let eval = |more: &[&str]| {
        place
            .run(&[&["eval", &format!("results/tiny/{key}"), "--json", "-q"], more].concat())
            .expect(0)
            .json()
    };
    let own = eval(&[]);
    let result = fs::read(place.path(&format!("results/tiny/runs/{key}/attempt/1/result.json"))).unwrap();
    let result: serde_json::Value = serde_json::from_slice(&result).unwrap();
    let last = result["evals"].as_array().unwrap().last().unwrap();
    let bits = u64::from_str_radix(last["values"]["val_bpb"].as_str().unwrap(), 16).unwrap();
    assert_eq!(own["val_bpb"].as_f64().unwrap().to_bits(), bits);
    assert_eq!(own["settings"], last["settings"]);
    assert_eq!(own["tokens"], 512);
    let fewer = eval(&["--tokens", "300", "--device-batch-size", "1"]);
    assert_eq!((&fewer["tokens"], &fewer["definition"]["eval.tokens"]), (&256.into(), &"256".into()));
    assert_ne!(fewer["settings"], own["settings"]);
    fs::write(place.path("other.txt"), "One text.\n\nAnother text, and more of it.\n\n".repeat(400)).unwrap();
    let other = eval(&["--shards", "other.txt"]);
    assert_ne!(other["val_bpb"], own["val_bpb"]);
    assert_ne!(other["definition"]["data and tokenizer"], own["definition"]["data and tokenizer"]);
    let told = place.run(&["eval", &format!("results/tiny/{key}")]).expect(0);
    insta::assert_snapshot!("evaluated", told.stdout);
}

#[test]
fn what_cannot_be_evaluated_or_sampled_is_told() {
    let (place, base) = (Place::with(TINY), base());
    let base = base.to_str().unwrap();
    let long = "To be, or not to be: ".repeat(40);
    let cases: [(&[&str], &str); 11] = [
        (&["eval", base], "there are no shards beside this checkpoint"),
        (&["eval", base, "--shards", "nowhere"], "nothing is at "),
        (&["eval", base, "--shards", "embedded", "--tokens", "100"], "at least one batch: 2048 tokens"),
        (&["eval", base, "--step", "250"], "there is no model of step 250"),
        (&["eval", base, "--run", "47"], "--run is for runs of nanorun's"),
        (&["eval", base, "--commit", "0000000"], "no recipe is known for this commit"),
        (&["sample", base, "--prompt", ""], "the prompt is empty"),
        (&["sample", base, "--prompt", &long], "the context 256"),
        (&["sample", base, "--prompt", "a", "--temperature", "-1"], "a sampling temperature of -1"),
        (
            &["sample", base, "--prompt", "a", "--backend", "cpu", "--device", "cpu"],
            "--device is for --backend tch",
        ),
        (&["sample", "m.toml", "--commit", "92d63d4"], "--commit is for checkpoints of upstream's"),
    ];
    for (arguments, what) in cases {
        let stderr = place.run(arguments).expect(2).stderr;
        assert!(stderr.contains(what), "{arguments:?}: {stderr}");
    }
}

/// Files that were damaged, belong to others, or were made to harm.
#[test]
fn files_that_do_not_fit_are_refused_whole() {
    let place = Place::with(TINY);
    let base = copy(&place);
    let name = base.to_str().unwrap();
    let run = base.join("base_checkpoints/tiny");
    let (model, meta) = (run.join("model_000500.pt"), run.join("meta_000500.json"));
    let (model_bytes, meta_text) = (fs::read(&model).unwrap(), fs::read_to_string(&meta).unwrap());
    let sample = || place.run(&["sample", name, "--prompt", "a", "-q", "--max-tokens", "1"]);
    sample().expect(0);
    for (from, to, what) in [
        ("\"n_layer\": 4", "\"n_layer\": 2", "the model has no parameter"),
        ("\"n_layer\": 4", "\"n_layer\": 3", "no commit that is known here makes a model"),
        ("\"n_layer\": 4", "\"n_layer\": 5", "no commit that is known here makes a model"),
        ("\"n_embd\": 64", "\"n_embd\": 128", "has shape"),
        ("\"n_embd\": 64", "\"n_embd\": 63", "do not divide 63 channels"),
        ("\"vocab_size\": 300", "\"vocab_size\": 301", "the tokenizer knows 300 tokens, the model 301"),
        ("\"n_layer\": 4", "\"n_layer\": 99999999999", "its n_layer is 99999999999"),
        ("\"window_pattern\": \"SSSL\"", "\"window_pattern\": \"XL\"", "model.window_pattern"),
        ("\"sequence_len\"", "\"sequence_length\"", "unknown field `sequence_length`"),
        ("\"step\": 500", "\"step\": 400", "the metadata are of step 400, not 500"),
    ] {
        assert!(meta_text.contains(from));
        fs::write(&meta, meta_text.replacen(from, to, 1)).unwrap();
        let stderr = sample().expect(2).stderr;
        assert!(stderr.contains(what) && stderr.contains("[place]/base/"), "{to}: {stderr}");
    }
    fs::write(&meta, meta_text.replace("2.35782247960754", "Infinity")).unwrap();
    sample().expect(0);
    fs::write(&model, &model_bytes[..model_bytes.len() / 2]).unwrap();
    assert!(sample().expect(2).stderr.contains("it is no whole zip archive"));
    let mut flipped = model_bytes.clone();
    flipped[model_bytes.len() / 2] ^= 1;
    fs::write(&model, flipped).unwrap();
    assert!(sample().expect(2).stderr.contains("is damaged: its checksum is another"));
    fs::copy(base.join("tokenizer/tokenizer.pkl"), &model).unwrap();
    assert!(sample().expect(2).stderr.contains("it is no whole zip archive"));
    let harmful = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch_files/harmful.pt");
    fs::copy(harmful, &model).unwrap();
    let stderr = sample().expect(2).stderr;
    assert!(
        stderr.contains("it names __builtin__.print, which is not expected here and was not loaded"),
        "{stderr}"
    );
}

/// A checkpoint of upstream's is trained on to the losses that upstream's own base_train has from there, over the same
/// rows: weights, optimizer, schedules and place in the data are taken over.
#[test]
fn training_goes_on_as_upstreams_does() {
    let place = Place::with(TINY);
    let golden = fs::read(base().join("continued.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let base = base();
    let args = ["import", base.to_str().unwrap(), "--shards", "embedded", "--to", "on.toml"];
    let asks = place.run(&args).expect(2).stderr;
    assert!(asks.contains("do not tell by which commit it was trained"), "{asks}");
    let args = [&args[..], &["--commit", "92d63d4"]].concat();
    // As upstream left it, nothing is left to train.
    let done = place.run(&args).expect(2).stderr;
    assert!(done.contains("the budget is 500 steps, and 500 of them are behind the checkpoint"), "{done}");
    let budget = format!("budget.steps={}", golden["horizon"]);
    let args = [&args[..], &["--set", &budget]].concat();
    let told = place.run(&args).expect(0);
    assert!(told.stderr.contains("trains steps 501 to 520 of 520"), "{}", told.stderr);
    let taken = place.run(&args).expect(2).stderr;
    assert!(taken.contains("a file is there already"), "{taken}");
    place.run(&["run", "on.toml", "-q"]).expect(0);
    let report = place.run(&["report", "on.toml", "--json"]).json();
    let run = &report["runs"][0];
    let dir = place.path(&format!("results/tiny/runs/{}", &run["run_key"].as_str().unwrap()[..12]));
    let result: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("attempt/1/result.json")).unwrap()).unwrap();
    let losses: Vec<f64> = result["step_losses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|loss| f64::from(f32::from_bits(u32::from_str_radix(loss.as_str().unwrap(), 16).unwrap())))
        .collect();
    assert_eq!(losses.len(), 20);
    for (step, (found, expected)) in losses.iter().zip(golden["losses"].as_array().unwrap()).enumerate() {
        let expected = expected.as_f64().unwrap();
        assert!((found - expected).abs() < 3e-5, "step {step}: {found} {expected}");
    }
    // In another precision it does not go on, and nothing is written; its weights do, as the message says.
    let bf16 = ["--set", "run.precision=\"bf16\""];
    let named = "the checkpoint's training computes in f32, the run in bf16";
    let train = ["run", "on.toml", "-q", "--results", "half"];
    for refused in [&[&args[..], &["--force"]].concat()[..], &train] {
        let told = place.run(&[refused, &bf16].concat()).expect(2).stderr;
        assert!(told.contains(named) && told.contains("model.init = { checkpoint = "), "{told}");
        assert!(!place.path("half").exists());
    }
    place.run(&[&args[..], &["--weights", "--force", "-q"], &bf16].concat()).expect(0);
    let few = ["--set", "budget.steps=1", "--set", "eval.tokens=2048"];
    place.run(&[&train[..], &few].concat()).expect(0);
    // Weights alone are another run, from its first step and the start of the data.
    let args = [&args[..], &["--weights", "--force", "-q"]].concat();
    place.run(&args).expect(0);
    let plan = place.run(&["plan", "on.toml", "--json"]).expect(0).json();
    let planned = &plan["runs"][0];
    assert_ne!(planned["key"]["run"], run["run_key"]);
    assert_eq!(planned["sizes"]["steps"], 520);
}

/// A run may start from the weights of another's checkpoint, and is named by them, not by where they lie.
#[test]
fn a_run_starts_from_the_weights_of_another() {
    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let runs = place.path("results/tiny/runs");
    let run = fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    let checkpoint = run.join("attempt/1/checkpoints/step_000008");
    let plan = |path: &Path| {
        let init = format!("model.init.checkpoint={}", path.display());
        place.run(&["plan", "m.toml", "--json", "--set", &init]).expect(0).json()["runs"][0]["key"]["run"]
            .clone()
    };
    let own = plan(&checkpoint);
    let moved = place.path("moved");
    fs::create_dir(&moved).unwrap();
    for entry in fs::read_dir(&checkpoint).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, moved.join(path.file_name().unwrap())).unwrap();
    }
    assert_eq!(plan(&moved), own);
    assert_ne!(place.run(&["plan", "m.toml", "--json"]).json()["runs"][0]["key"]["run"], own);
    // The first evaluation is of those weights: the other run's last.
    let init = format!("model.init.checkpoint={}", checkpoint.display());
    let args = ["run", "m.toml", "-q", "--results", "other", "--set", &init, "--set", "run.seed=1"];
    place.run(&args).expect(0);
    for (path, what) in
        [("m.toml", "m.toml"), ("nowhere", "nowhere"), (base().to_str().unwrap(), "parameter")]
    {
        let init = format!("model.init.checkpoint={path}");
        let refused = place.run(&["run", "m.toml", "--results", "third", "--set", &init]).expect(2).stderr;
        assert!(refused.contains(what), "{refused}");
        assert!(!place.path("third").exists(), "nothing is written");
    }
    let resumed = format!("model.init.resume={}", checkpoint.display());
    let refused = place.run(&["plan", "m.toml", "--set", &resumed]).expect(2).stderr;
    assert!(refused.contains("there is no checkpoint of upstream's here"), "{refused}");
}

/// Losses of the first run of an experiment.
fn losses(place: &Place, name: &str) -> serde_json::Value {
    let run =
        fs::read_dir(place.path(&format!("results/{name}/runs"))).unwrap().next().unwrap().unwrap().path();
    let result: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("attempt/1/result.json")).unwrap()).unwrap();
    result["step_losses"].clone()
}

/// From upstream to nanorun and back: the same bits per byte, the same tokens, the same losses when it is trained on.
#[test]
fn exported_to_upstream_it_is_the_same_model() {
    let (place, base) = (Place::with(TINY), base());
    let base = base.to_str().unwrap();
    let told = place.run(&["export", base, "--to", "upstream", "there", "--commit", "92d63d4"]).expect(0);
    assert_eq!(told.stdout, "there\n");
    for name in ["tokenizer/tokenizer.pkl", "tokenizer/token_bytes.pt"] {
        let (theirs, ours) = (
            fs::read(Path::new(base).join(name)).unwrap(),
            fs::read(place.path("there").join(name)).unwrap(),
        );
        assert!(theirs == ours, "{name}");
    }
    let eval = |name: &str| {
        place.run(&["eval", name, "--shards", "embedded", "--json", "-q"]).expect(0).json()["val_bpb"].clone()
    };
    assert_eq!(eval("there"), eval(base));
    let sample = |name: &str| {
        place.run(&["sample", name, "--prompt", "My lord,", "--temperature", "0", "-q"]).expect(0).stdout
    };
    assert_eq!(sample("there"), sample(base));
    for (name, to) in [(base, "one"), ("there", "two")] {
        let args = [
            "import", name, "--commit", "92d63d4", "--shards", "embedded", "--to", "on.toml", "--force", "-q",
        ];
        place
            .run(&[&args[..], &["--set", "budget.steps=502", "--set", &format!("name={to}")]].concat())
            .expect(0);
        place.run(&["run", "on.toml", "-q"]).expect(0);
    }
    assert_eq!(losses(&place, "two"), losses(&place, "one"));
    let taken =
        place.run(&["export", base, "--to", "upstream", "there", "--commit", "92d63d4"]).expect(2).stderr;
    assert!(taken.contains("something is there already"), "{taken}");
}

/// What was trained on the rows of two ranks is handed to two of upstream's, or to as many as are asked for. However the
/// state was divided, trained on it gives the same losses on the same rows.
#[test]
fn the_optimizer_is_divided_over_ranks() {
    let two = TINY
        .replace("[eval]", "[checkpoint]\nfinal = \"all\"\n[eval]")
        .replace("seed = 1\n", "seed = 1\nranks = 2\n")
        .replace("total_batch_size = 128", "total_batch_size = 256");
    let place = Place::with(&two);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let export = |name: &str, more: &[&str]| {
        place.run(&[&["export", "m.toml", "--to", "upstream", name], more].concat()).expect(0).stderr
    };
    let told = export("two", &[]);
    assert!(told.contains("is divided over 2 ranks: torchrun --nproc_per_node=2\n"), "{told}");
    let told = export("one", &["--ranks", "1"]);
    assert!(told.contains("is of one rank; they read other rows than the 2 of this run"), "{told}");
    let told = export("four", &["--ranks", "4"]);
    assert!(told.contains("--nproc_per_node=4; upstream needs --device-batch-size=1 then; they"), "{told}");
    let told = export("eight", &["--ranks", "8"]);
    assert!(told.contains("a step of 256 tokens is not whole rows of each"), "{told}");
    let import = |name: &str, sets: &[&str]| {
        let mut args = vec!["import", name, "--commit", "92d63d4", "--shards", "embedded", "--to", "on.toml"];
        args.extend(["--force", "-q", "--set", "budget.steps=10"]);
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        place.run(&args).expect(0);
        fs::read_to_string(place.path("on.toml")).unwrap()
    };
    assert!(import("two", &[]).contains("ranks = 2"));
    assert!(import("four", &["train.device_batch_size=1"]).contains("ranks = 4"));
    for (name, ranks) in [("one", 1), ("two", 2), ("four", 4)] {
        let file = |rank: usize| {
            place.path(&format!("{name}/base_checkpoints/d1/optim_000008_rank{rank}.pt")).is_file()
        };
        assert!((0..ranks).all(file) && !file(ranks), "{name}");
        let called = format!("name={name}");
        import(name, &[&called, "run.ranks=2", "train.device_batch_size=1"]);
        place.run(&["run", "on.toml", "-q"]).expect(0);
        assert_eq!(losses(&place, name), losses(&place, "one"));
    }
    let refused = |to: &str, ranks: &str| {
        place.run(&["export", "m.toml", "--to", to, "three", "--ranks", ranks]).expect(2).stderr
    };
    let told = refused("upstream", "3");
    assert!(told.contains("3 ranks do not divide the 320 rows of `"), "{told}");
    let told = refused("hf", "2");
    assert!(told.contains("--to upstream alone takes along"), "{told}");
    assert!(!place.path("three").exists(), "nothing is written");
}

/// From nanorun to upstream's form and back, and into the forms of other programs.
#[test]
fn runs_are_exported_in_every_form() {
    let place = Place::with(&TINY.replace("[eval]", "[checkpoint]\nfinal = \"all\"\n[eval]"));
    place.run(&["run", "m.toml", "-q"]).expect(0);
    let eval = |name: &str, more: &[&str]| {
        place.run(&[&["eval", name, "--json", "-q"], more].concat()).expect(0).json()["val_bpb"].clone()
    };
    place.run(&["export", "m.toml", "--to", "upstream", "there", "-q"]).expect(0);
    assert_eq!(eval("there", &["--shards", "embedded"]), eval("m.toml", &[]));
    let meta = fs::read_to_string(place.path("there/base_checkpoints/d1/meta_000008.json")).unwrap();
    insta::assert_snapshot!(
        "exported_meta",
        meta.lines().filter(|line| !line.contains("time")).collect::<Vec<_>>().join("\n")
    );
    for (form, files) in [
        ("safetensors", &["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"][..]),
        (
            "onnx",
            &["config.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json"],
        ),
        (
            "hf",
            &[
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "modeling_nanorun.py",
                "tokenizer.json",
                "tokenizer_config.json",
            ],
        ),
    ] {
        place.run(&["export", "m.toml", "--to", form, form]).expect(0);
        let mut found: Vec<String> = fs::read_dir(place.path(form))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, files);
    }
    insta::assert_snapshot!("exported_config", fs::read_to_string(place.path("hf/config.json")).unwrap());
    // What a form has no room for is named, and nothing is written.
    let other = place.path("other.toml");
    fs::write(&other, TINY.replace("[model]", "[model]\nsoftcap = 20").replace("\"tiny\"", "\"other\""))
        .unwrap();
    place.run(&["run", "other.toml", "-q"]).expect(0);
    let refused = place.run(&["export", "other.toml", "--to", "upstream", "nothing"]).expect(2).stderr;
    assert!(refused.contains("cannot hold this model: model.softcap"), "{refused}");
    assert!(!place.path("nothing").exists());
    place.run(&["export", "other.toml", "--to", "hf", "other_hf", "-q"]).expect(0);
    let told = place.run(&["export", "other.toml", "--to", "bogus", "x"]).expect(2).stderr;
    assert!(told.contains("[possible values: upstream, safetensors, hf, onnx, tensorboard]"), "{told}");
}
