//! Memory and disk: what the plan says is what is taken, and what will not fit is refused before it starts.

use crate::support::{Place, TINY};

fn number(value: &serde_json::Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What a shape's tensors need.
fn tensors(shape: &serde_json::Value) -> u64 {
    ["parameters", "activations", "workspace"].iter().map(|part| number(&shape["needs"][part])).sum()
}

/// Bytes of the files below a directory.
fn bytes_in(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let found = entry.metadata().unwrap();
            if found.is_dir() { bytes_in(&entry.path()) } else { found.len() }
        })
        .sum()
}

/// On cpu the plan's count is the backend's own, and the process holds no more than 64 MiB or a tenth beside it.
#[test]
fn memory_is_what_the_plan_says() {
    let shapes: &[&[&str]] = &[
        &[],
        &["--set", "train.total_batch_size=512", "--set", "model.depth=3"],
        &[
            "--set",
            "model.sequence_len=300",
            "--set",
            "train.total_batch_size=600",
            "--set",
            "eval.tokens=1200",
        ],
        &["--set", "optimizer.kind='adamw'", "--set", "model.n_kv_head=1", "--set", "model.smear=false"],
    ];
    for sets in shapes {
        let place = Place::with(TINY.split("[scorecard]").next().unwrap()).with_libtorch();
        let with = |arguments: &[&'static str]| {
            let arguments: Vec<&str> = arguments.iter().chain(*sets).copied().collect();
            place.run(&arguments).expect(0).json()
        };
        let plan = with(&["plan", "m.toml", "--json", "--threads", "2"]);
        let shape = &plan["memory"][0];
        assert_eq!(shape["exact"], true);
        let report = with(&["run", "m.toml", "--json", "--threads", "2", "--quiet"]);
        let run = &report["runs"][0];
        assert_eq!(number(&run["peak_device_bytes"]), tensors(shape), "{sets:?}");
        let (process, planned) = (number(&run["peak_rss_bytes"]), number(&plan["memory_at_once"]["needs"]));
        assert!(
            process.abs_diff(planned) < (64 << 20).max(process / 10),
            "{process} for {planned}, {sets:?}"
        );
    }
}

#[test]
fn disk_is_about_what_the_plan_says() {
    let manifest = format!("{TINY}\n[checkpoint]\nevery = 2\nkeep = 2\n").replace("depth = 1", "depth = 6");
    let place = Place::with(&manifest);
    let planned = |place: &Place| place.run(&["plan", "m.toml", "--json"]).expect(0).json()["disk"].clone();
    let before = planned(&place);
    place.run(&["run", "m.toml", "--quiet"]).expect(0);
    let taken = bytes_in(&place.path("results/tiny"));
    let end = number(&before["end"]);
    // Documents are most of the checkpoints of so small a model, and no two corpora's are alike.
    assert!(taken.abs_diff(end) < end / 4, "{taken} for {end}");
    assert_eq!(number(&planned(&place)["there"]), taken);
}

/// Rows of the faults: killed by the kernel, and a disk filled without a word.
#[test]
fn what_will_not_fit_is_refused_before_anything_is_trained() {
    let place = Place::with(TINY);
    let refused = |sets: &[&str]| {
        let mut arguments = vec!["run", "m.toml", "--quiet"];
        for set in sets {
            arguments.extend(["--set", set]);
        }
        let ended = place.run(&arguments).expect(2);
        assert!(!place.path("results").join("tiny/runs").exists());
        ended.stderr
    };
    let memory = refused(&[
        "train.device_batch_size=65536",
        "train.total_batch_size=4194304",
        "eval.tokens=4194304",
        "model.aspect_ratio=4096",
    ]);
    assert!(memory.contains("rows a micro-batch, and"), "{memory}");
    assert!(memory.contains("--set train.device_batch_size="), "{memory}");
    let disk = refused(&["checkpoint.every=1", "budget.steps=5000000", "model.aspect_ratio=1024"]);
    assert!(disk.contains("the results need"), "{disk}");
    assert!(disk.contains("checkpoint.keep=") && disk.contains("run.preflight=false"), "{disk}");
    // The plan says the same, and is no error.
    let plan = place.run(&[
        "plan",
        "m.toml",
        "--set",
        "train.device_batch_size=65536",
        "--set",
        "train.total_batch_size=4194304",
        "--set",
        "eval.tokens=4194304",
        "--set",
        "model.aspect_ratio=4096",
    ]);
    assert!(plan.expect(0).stdout.contains("does not fit: --set train.device_batch_size="));
}

/// A row of the faults: it passed the plan and ended as "a defect".
#[test]
fn a_shape_beyond_the_backend_is_an_input_error() {
    let place = Place::with(TINY);
    for command in ["plan", "run"] {
        let ended = place.run(&[command, "m.toml", "--set", "model.head_dim=512"]).expect(2);
        assert!(ended.stderr.contains("model.head_dim"), "{}", ended.stderr);
        assert!(ended.stderr.contains("at most 256"), "{}", ended.stderr);
    }
    place.run(&["plan", "m.toml", "--set", "model.head_dim=512", "--set", "run.backend='tch'"]).expect(0);
}

/// A trained model is refused like a run, before its weights are read.
#[cfg(target_os = "linux")]
#[test]
fn a_model_that_will_not_fit_is_refused_before_it_is_read() {
    let (place, base) = (Place::with(TINY), crate::exchange::base());
    // 65,535 rows take more than that in their activations alone, whatever the machine has.
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--as=34359738368").arg(assert_cmd::cargo::cargo_bin("nanorun"));
    limited.arg("eval").arg(&base).args(["--shards", "embedded", "--device-batch-size", "65535"]);
    let Ok(output) = limited.current_dir(place.path("")).env("NO_COLOR", "1").output() else {
        return crate::support::skip("a model that will not fit: there is no prlimit");
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("of memory with 65535 rows a batch"), "{told}");
    assert!(told.contains("--device-batch-size ") && told.contains("run.preflight=false"), "{told}");
}
