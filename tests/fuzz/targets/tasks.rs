//! Evaluation bundles of upstream's.

use std::fs;
use std::path::Path;

use nanorun::internals::tasks::{Bundle, Limits};

use super::judged;
use crate::harness::{Target, scratch};
use crate::seeds;

/// Words of lists of tasks, tables of baselines and examples.
const BUNDLE_WORDS: &[&[u8]] = &[
    b"icl_tasks:",
    b"\n- ",
    b"\n  ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"? ",
    b"|\n",
    b"[[[[[[[[[[[[[[[[[[[[",
    b"{{{{{{{{{{{{{{{{{{{{",
    b"!!binary ",
    b"num_fewshot: [",
    b"99999999999999999999",
    b"schema",
    b"\"\"",
    b"\",\"",
    b"Random baseline",
    b"nan",
    b"\"gold\": ",
    b"\"choices\": [",
];

/// Each file of a bundle in turn, the others being whole.
#[test]
fn core_bundle() {
    let place = scratch();
    // Every error names a file below it.
    let bundle = place.path().join("fuzzed");
    let fixture = seeds::path("tests/fixtures/core_bundle");
    fs::create_dir_all(bundle.join("eval_data/lines")).unwrap();
    let names = [
        "core.yaml",
        "eval_meta_data.csv",
        "eval_data/numbers.jsonl",
        "eval_data/lines/next.jsonl",
        "eval_data/lines/next_shots.jsonl",
        "eval_data/lines/before.jsonl",
        "eval_data/lines/last.jsonl",
        "eval_data/lines/again.jsonl",
    ];
    let whole = || names.map(|name| fs::copy(fixture.join(name), bundle.join(name)).map(drop).unwrap());
    whole();
    // The first byte says which file the rest is.
    let read = |input: &[u8]| {
        let (which, text) = input.split_first().unwrap_or((&0, &[]));
        let name = Path::new(names[usize::from(*which) % names.len()]);
        fs::write(bundle.join(name), text).unwrap();
        let answer = judged(Bundle::open(&bundle, Limits::default()), "fuzzed");
        fs::copy(fixture.join(name), bundle.join(name)).unwrap();
        answer
    };
    let seeds = (0..).zip(names).map(|(which, name)| {
        let text = seeds::file(&format!("tests/fixtures/core_bundle/{name}"));
        [vec![which], text].concat()
    });
    Target::new("core_bundle", seeds.collect(), BUNDLE_WORDS, &read).run();
}
