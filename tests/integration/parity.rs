//! `nanorun parity` from outside: its table in docs/parity.md, what it says of damaged and partial cases, how it exits.

use std::path::{Path, PathBuf};

use crate::support::Place;

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A copy of a small case in a place of its own, as `case`.
fn copy() -> Place {
    let place = Place::with("");
    copy_to(&place.path("case"));
    place
}

fn copy_to(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    for entry in std::fs::read_dir(fixtures("parity_shapes/92d63d4_gqa")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
    }
}

fn edit(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

/// On `cpu` the figures are the same bits on every machine, so the page has to have them to the digit.
#[test]
fn the_table_on_the_page_is_what_the_command_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nanorun"))
        .args(["parity", "--markdown"])
        .current_dir(root)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let page = std::fs::read_to_string(root.join("docs/parity.md")).unwrap();
    let (_, after) = page.split_once("<!-- parity:begin -->").unwrap();
    let (written, _) = after.split_once("<!-- parity:end -->").unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        written.trim() == printed.trim(),
        "write the output of `nanorun parity --markdown` between docs/parity.md's markers:\n{printed}"
    );
}

#[test]
fn a_number_that_is_off_fails_its_check_by_name() {
    let place = copy();
    edit(&place.path("case/case.json"), |json| {
        let loss = &mut json["warm"]["trajectory"][2]["micro_losses"][1];
        *loss = (loss.as_f64().unwrap() + 1e-4).into();
    });
    let found = place.run(&["parity", "case", "--json"]).expect(5).json();
    assert_eq!(found[0]["passed"], false);
    let checks = found[0]["checks"].as_array().unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| check["passed"] == false).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["name"], "warm: losses");
    assert_eq!(failed[0]["place"], "step 2, micro-batch 1");
    let text = place.run(&["parity", "case"]).expect(5).stdout;
    assert!(text.lines().any(|line| line.starts_with("FAILED  warm: losses")), "{text}");
}

#[test]
fn the_json_has_the_documented_keys() {
    let place = copy();
    let found = place.run(&["parity", "case", "--json"]).expect(0).json();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&found[0]), ["case", "commit", "backend", "passed", "checks", "skipped", "error"]);
    let check = &found[0]["checks"][0];
    assert_eq!(keys(check), ["name", "place", "deviation", "tolerance", "reason", "passed"]);
    assert_eq!(found[0]["error"], serde_json::Value::Null);
}

#[test]
fn a_part_of_a_case_is_checked_and_the_rest_named() {
    let place = copy();
    edit(&place.path("case/case.json"), |json| {
        json["files"] = ["forward_params", "forward_grads", "forward_io"]
            .map(|name| format!("{name}.safetensors"))
            .into();
    });
    let text = place.run(&["parity", "case"]).expect(0).stdout;
    assert!(text.contains("ok      gradients"), "{text}");
    for left_out in ["initial weights", "warm", "train"] {
        let said =
            |line: &str| line.starts_with(&format!("-       {left_out} ")) && line.contains("not checked");
        assert!(text.lines().any(said), "{left_out}: {text}");
    }
    // And training alone.
    edit(&place.path("case/case.json"), |json| {
        json["files"] = ["train_params_init", "train_batches", "train_params_after_step_0"]
            .map(|name| format!("{name}.safetensors"))
            .into();
        json.as_object_mut().unwrap().remove("forward");
        json.as_object_mut().unwrap().remove("warm");
    });
    let text = place.run(&["parity", "case"]).expect(0).stdout;
    assert!(text.contains("ok      train: parameters after step 0"), "{text}");
    assert!(text.contains("not checked: needs val_batches"), "{text}");
}

#[test]
fn bad_cases_are_named() {
    let damages: [(&str, Option<&[u8]>); 4] = [
        ("warm_params_final.safetensors", None),
        ("forward_io.safetensors", Some(b"not a tensor file")),
        ("case.json", Some(b"{ \"commit\": 7 }")),
        ("case.json", None),
    ];
    for (name, content) in damages {
        let place = copy();
        let path = place.path("case").join(name);
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let ended = place.run(&["parity", "case"]).expect(2);
        assert!(ended.stderr.contains(name), "{name}: {}", ended.stderr);
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn a_directory_of_cases_is_all_of_them() {
    let place = Place::with("");
    copy_to(&place.path("cases/b"));
    copy_to(&place.path("cases/a"));
    let found = place.run(&["parity", "cases", "cases/b", "--json"]).expect(0).json();
    let names: Vec<_> = found.as_array().unwrap().iter().map(|case| case["case"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "b"]);
}

/// The whole case: forward, gradients by differentiation, twelve steps, greedy decoding.
#[test]
fn the_scalar_oracle_passes_a_case() {
    let case = fixtures("parity_shapes/4e014d3_d1_ignored");
    let place = Place::with("");
    let found =
        place.run(&["parity", case.to_str().unwrap(), "--backend", "scalar", "--json"]).expect(0).json();
    assert_eq!(found[0]["backend"], "scalar");
    let names: Vec<_> = found[0]["checks"].as_array().unwrap().iter().map(|check| &check["name"]).collect();
    assert!(
        names.iter().any(|name| *name == "gradients") && names.iter().any(|name| *name == "warm: losses")
    );
}
