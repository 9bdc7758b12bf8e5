//! Keys, evaluation settings and result hashes of experiments of every kind, as they have been since 2afd265.
//!
//! They are promises: whoever has results finds them again by their keys, and a baseline in somebody's CI holds their
//! hashes. A change here means that every user's finished runs are trained anew or that their gates fail, so it takes
//! a line in CHANGELOG.md that says what changed and why. `GOLDEN=write cargo test golden` writes the files anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use nanorun::internals::experiment::Experiment;
use nanorun::internals::manifest::Options;
use nanorun::internals::train::evaluation::eval_settings;

use crate::support::{Place, skip};

/// Paths in the manifests are relative to the package, where tests run too.
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

fn manifest(name: &str) -> PathBuf {
    let of_tests = Path::new(PACKAGE).join(format!("tests/fixtures/golden/{name}.toml"));
    if of_tests.exists() { of_tests } else { Path::new(PACKAGE).join(format!("experiments/{name}.toml")) }
}

/// Label, `k[0]`, run key and evaluation settings of every run, a line each.
fn keys(name: &str) -> String {
    let experiment = Experiment::load(&manifest(name), &Options::default(), Path::new("results")).unwrap();
    let mut text = String::new();
    for run in &experiment.plan.runs {
        let (label, settings) = (experiment.label(run), eval_settings(&run.config));
        writeln!(text, "{label}\n  start {}\n  run   {}\n  eval  {settings}", run.key.start, run.key.run)
            .unwrap();
    }
    text
}

/// Label and result hash of every run, a line each, trained in a place of its own.
fn results(name: &str) -> String {
    let place = Place::with("");
    let (manifest, results) = (manifest(name), place.path("results"));
    let [manifest, results] = [manifest.to_str().unwrap(), results.to_str().unwrap()];
    let command = |arguments: &[&str]| {
        let arguments = [arguments, &[manifest, "--results", results]].concat();
        let output = place.command(&arguments).current_dir(PACKAGE).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 5)), "{stderr}");
        output.stdout
    };
    command(&["run", "-q"]);
    let report: serde_json::Value = serde_json::from_slice(&command(&["report", "--json"])).unwrap();
    let mut text = String::new();
    for run in report["runs"].as_array().unwrap() {
        let [label, hash] = ["label", "result_hash"].map(|field| run[field].as_str().unwrap());
        writeln!(text, "{label}\n  result {hash}").unwrap();
    }
    text
}

#[track_caller]
fn assert_golden(name: &str, kind: &str, found: &str) {
    let path = Path::new(PACKAGE).join(format!("tests/fixtures/golden/{name}.{kind}.txt"));
    if std::env::var("GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(
        found == expected,
        "the {kind} of {name} are not what they were: a promise to users is broken.\nexpected:\n{expected}\nfound:\n{found}"
    );
}

macro_rules! golden {
    ($($name:ident: $($kind:ident),+;)*) => {
        $(mod $name {
            $(#[test]
            fn $kind() {
                super::assert_golden(stringify!($name), stringify!($kind), &super::$kind(stringify!($name)));
            })+
        })*
    };
}

golden! {
    ci: keys, results;
    quickstart: keys;
    commits: keys, results;
    switches: keys, results;
    optimizers: keys, results;
    text_blocks: keys, results;
    text_lines: keys, results;
    parquet: keys, results;
    microgpt: keys, results;
    bigram: keys, results;
    absent: keys;
    tch: keys;
}

/// Two minutes of two cores: in scripts/test, and for whoever asks.
#[test]
fn quickstart_results() {
    if std::env::var_os("NANORUN_TEST_LONG").is_none() {
        return skip("the quickstart's hashes: they take NANORUN_TEST_LONG=1");
    }
    assert_golden("quickstart", "results", &results("quickstart"));
}
