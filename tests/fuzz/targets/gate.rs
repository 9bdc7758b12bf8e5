//! Baselines, and the results that are compared with them.

use std::cell::RefCell;
use std::fs;

use nanorun::internals::files::Files;
use nanorun::internals::gate::{Baseline, Tolerance, compare, junit, markdown, read_results};
use nanorun::internals::hash::Digest;
use nanorun::internals::record::{ExperimentDir, RunResult};

use super::{NUMBER_WORDS, PARQUET_WORDS, judged};
use crate::harness::{Target, Verdict, scratch};
use crate::seeds;

/// A baseline's TOML.
#[test]
fn baseline() {
    let place = scratch();
    let path = place.path().join("fuzzed.toml");
    fs::write(path.with_extension("parquet"), seeds::file("baselines/ci.parquet")).unwrap();
    let original = RefCell::new(None);
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        let baseline = match Baseline::read(&Files::new(), &path) {
            Ok(Some(baseline)) => baseline,
            Ok(None) => return Err("the baseline is there".to_owned()),
            Err(error) => return judged(Err::<(), _>(error), "fuzzed.toml"),
        };
        // The first one read, the seed itself, is compared with every other.
        let mut original = original.borrow_mut();
        let original = original.get_or_insert_with(|| baseline.clone());
        let found: Vec<_> = original.runs.iter().cloned().map(Into::into).collect();
        let comparison = baseline.compare("ci", &found, &path);
        drop((comparison.to_string(), junit(&comparison, None), markdown(&comparison, None)));
        Ok(Verdict::Accepted)
    };
    let words: &[&[u8]] =
        &[b"[[run]]\n", b"format = 1\n", b"nan", b"inf", b"-inf", b"[tolerance]\n", b"seed = 1\n"];
    Target::new("baseline", vec![seeds::file("baselines/ci.toml")], words, &read).run();
}

/// The parquet beside a baseline, which tells its hash.
#[test]
fn baseline_steps() {
    let place = scratch();
    let path = place.path().join("fuzzed.toml");
    let text = String::from_utf8(seeds::file("baselines/ci.toml")).unwrap();
    let (head, rest) = text.split_once("steps_sha256 = \"").unwrap();
    let read = |input: &[u8]| {
        fs::write(path.with_extension("parquet"), input).unwrap();
        fs::write(&path, format!("{head}steps_sha256 = \"{}{}", Digest::of(input), &rest[64..])).unwrap();
        match Baseline::read(&Files::new(), &path) {
            Ok(Some(baseline)) if baseline.without_steps.is_none() => Ok(Verdict::Accepted),
            Ok(Some(_)) => Ok(Verdict::Refused),
            Ok(None) => Err("the baseline is there".to_owned()),
            Err(error) => judged(Err::<(), _>(error), "fuzzed"),
        }
    };
    let seeds = vec![seeds::file("baselines/ci.parquet")];
    Target::new("baseline_steps", seeds, PARQUET_WORDS, &read).run();
}

/// A results directory of which one file is mutated.
fn results_with(
    name: &'static str,
    file: &dyn Fn(&ExperimentDir) -> std::path::PathBuf,
    words: &'static [&'static [u8]],
) {
    let place = scratch();
    let dir = ExperimentDir::at(place.path().join("fuzzed"));
    seeds::results(&dir);
    let whole = read_results(&Files::new(), &dir).unwrap().candidates;
    let expected: Vec<_> = whole.into_iter().filter_map(|candidate| candidate.record).collect();
    assert_eq!(expected.len(), 1);
    let path = file(&dir);
    let seed = fs::read(&path).unwrap();
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        // Past the checksum of a result, which keeps all but the seed out: written again, it has one of its own.
        if let Ok(result) = serde_json::from_slice::<RunResult>(input) {
            result.write(&Files::new(), &path).unwrap();
        }
        match read_results(&Files::new(), &dir) {
            Ok(found) if !found.damaged.is_empty() => judged(
                Err::<(), _>(nanorun::internals::error::Error::input(found.damaged.join("\n"))),
                "fuzzed",
            ),
            Ok(found) => {
                let candidates = &found.candidates;
                let comparison =
                    compare(&found.experiment, candidates, "fuzzed", &expected, Tolerance::default());
                drop((comparison.to_string(), junit(&comparison, None), markdown(&comparison, None)));
                Ok(Verdict::Accepted)
            }
            refused => judged(refused, "fuzzed"),
        }
    };
    Target::new(name, vec![seed], words, &read).run();
}

#[test]
fn result() {
    let file = |dir: &ExperimentDir| dir.run(&Digest::of(b"key")).attempt(1).result();
    results_with("result", &file, &NUMBER_WORDS);
}

#[test]
fn plan_record() {
    results_with(
        "plan_record",
        &|dir| dir.file("plan.toml"),
        &[b"[[run]]\n", b"arm = \"\"\n", b"seed = 1\n"],
    );
}
