//! `nanorun tokenizer encode`, `decode`, `compare`, `import` and `export`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Place, TINY};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(name)
}

/// What tiktoken gave upstream, there and back, in every form that a tokenizer has.
#[test]
fn every_form_encodes_alike() {
    let place = Place::with(TINY);
    let original = fixture("tokenizer_4096");
    let original = original.to_str().unwrap();
    let cases = fs::read(fixture("tokenizer_4096").join("encodings.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_slice(&cases).unwrap();
    let case = &cases.as_array().unwrap()[6];
    let (text, ids) = (case["text"].as_str().unwrap(), &case["ids"]);
    for name in ["a.json", "a.tiktoken", "a.pkl"] {
        place.run(&["tokenizer", "export", original, "--to", name]).expect(0);
        let taken = place.run(&["tokenizer", "export", original, "--to", name]).expect(2).stderr;
        assert!(taken.contains("a file is there already"), "{taken}");
        let found = place.run(&["tokenizer", "encode", name, "--text", text, "--json"]).expect(0).json();
        assert_eq!(&found["ids"], ids, "{name}");
        let plain = place.run(&["tokenizer", "encode", name, "--text", text]).expect(0).stdout;
        let words: Vec<&str> = plain.split_whitespace().collect();
        assert_eq!(
            place.run(&[&["tokenizer", "decode", name], &words[..]].concat()).expect(0).stdout.trim_end(),
            text
        );
        let alike = place.run(&["tokenizer", "compare", original, name, "--json"]).expect(0).json();
        assert_eq!((&alike["same_vocabulary"], &alike["differ"]), (&true.into(), &0.into()));
        let to = format!("{name}.d");
        place.run(&["tokenizer", "import", name, "--to", &to]).expect(0);
        let pickle = |dir: &Path| fs::read(dir.join("tokenizer.pkl")).unwrap();
        assert!(pickle(&place.path(&to)) == pickle(Path::new(original)), "{name}");
    }
    assert!(
        fs::read(place.path("a.pkl")).unwrap()
            == fs::read(fixture("tokenizer_4096").join("tokenizer.pkl")).unwrap()
    );
}

/// Where two part is shown by the first text and place, and how many texts of a corpus it concerns.
#[test]
fn tokenizers_are_compared() {
    let place = Place::with(TINY);
    let (a, b) = (fixture("tokenizer_4096"), fixture("tokenizer_300"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let told =
        place.run(&["tokenizer", "compare", a, b, "--text", "I will not go, my lord."]).expect(0).stdout;
    insta::assert_snapshot!("compared_text", told);
    fs::write(place.path("t.txt"), "I\n\nmy lord\n\nx\n\nyour lordship\n").unwrap();
    let found = place.run(&["tokenizer", "compare", a, b, "--shards", "t.txt", "--json"]).expect(0).json();
    assert_eq!((&found["documents"], &found["same_vocabulary"]), (&4.into(), &false.into()));
    assert!(found["differ"].as_u64().unwrap() >= 2, "{found}");
    for (arguments, what) in [
        (&["encode", "m.toml", "--text", "a"][..], "this is no form of a tokenizer that is known here"),
        (&["encode", "nowhere.json", "--text", "a"], "cannot read a tokenizer"),
        (&["decode", a, "99999"], "99999 is no token of this tokenizer"),
        (&["decode", a, "x"], "x is no token of this tokenizer"),
        (&["export", a, "--to", "x.model"], "this is no form of a tokenizer that is known here"),
    ] {
        let stderr = place.run(&[&["tokenizer"], arguments].concat()).expect(2).stderr;
        assert!(stderr.contains(what), "{stderr}");
    }
}
