//! `nanorun tokenizer train`: upstream's directory, from a manifest.

use std::fs;

use crate::support::{Place, TINY};

#[test]
fn the_directory_is_a_tokenizer_that_a_manifest_can_name() {
    let place = Place::with(TINY);
    let trained = place.run(&["tokenizer", "train", "m.toml", "--to", "made", "--json"]).expect(0).json();
    assert_eq!(trained["vocab_size"], 300);
    assert_eq!(trained["written"], serde_json::json!(["token_bytes.pt", "tokenizer.pkl"]));
    let key = |more: &[&str]| {
        let arguments = ["plan", "m.toml", "--json"];
        place.run(&[&arguments, more].concat()).expect(0).json()["runs"][0]["key"].clone()
    };
    // Trained within or beside a run, it is the same tokenizer.
    assert_eq!(key(&[]), key(&["--set", "data.tokenizer.path=made"]));
    let (pickle, bytes) = (place.path("made/tokenizer.pkl"), place.path("made/token_bytes.pt"));
    let before = (fs::read(&pickle).unwrap(), fs::read(&bytes).unwrap());
    for threads in ["1", "3"] {
        let to = format!("made{threads}");
        let arguments = ["tokenizer", "train", "m.toml", "--to", &to, "--threads", threads];
        let cache = place.path(&format!("cache{threads}"));
        let output = place.command(&arguments).env("NANORUN_CACHE", cache).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(fs::read(place.path(&to).join("tokenizer.pkl")).unwrap(), before.0);
        assert_eq!(fs::read(place.path(&to).join("token_bytes.pt")).unwrap(), before.1);
    }
}

#[test]
fn another_tokenizer_is_not_replaced_unasked() {
    let place = Place::with(TINY);
    let train = |more: &[&str]| {
        let arguments = ["tokenizer", "train", "m.toml", "--to", "made"];
        place.run(&[&arguments, more].concat())
    };
    train(&[]).expect(0);
    let pickle = place.path("made/tokenizer.pkl");
    let before = fs::read(&pickle).unwrap();
    // The same again is nothing to do; what is missing beside it is written.
    assert!(train(&[]).expect(0).stderr.contains("it was there already"));
    fs::remove_file(place.path("made/token_bytes.pt")).unwrap();
    assert!(train(&[]).expect(0).stderr.contains("300 tokens: token_bytes.pt"));
    for other in [["--vocab-size", "310"], ["--max-chars", "5000"], ["--doc-cap", "10"]] {
        let ended = train(&other).expect(2);
        assert!(
            ended.stderr.contains("a tokenizer is there already") && ended.stderr.contains("--force"),
            "{}",
            ended.stderr
        );
        assert_eq!(fs::read(&pickle).unwrap(), before);
    }
    train(&["--vocab-size", "310", "--force"]).expect(0);
    assert_ne!(fs::read(&pickle).unwrap(), before);
    // Whatever is not known to be the same stays, a file that is no tokenizer too.
    fs::write(&pickle, "mine").unwrap();
    train(&[]).expect(2);
    assert_eq!(fs::read(&pickle).unwrap(), b"mine");
}

#[test]
fn limits_change_the_texts_and_the_default_place_is_the_manifests() {
    let manifest =
        TINY.replace("{ vocab_size = 300 }", "{ path = \"upstream/tokenizer\" }\nvocab_size = 290");
    let place = Place::with(&manifest);
    let train = |more: &[&str]| {
        let arguments = ["tokenizer", "train", "m.toml", "--json", "--force"];
        place.run(&[&arguments, more].concat())
    };
    let usual = train(&[]).expect(0).json();
    assert_eq!((&usual["vocab_size"], &usual["directory"]), (&290.into(), &"upstream/tokenizer".into()));
    assert_eq!((&usual["max_chars"], &usual["doc_cap"]), (&2_000_000_000_u64.into(), &10_000.into()));
    assert!(place.path("upstream/tokenizer/tokenizer.pkl").exists());
    // Limits above what there is change nothing; those below do.
    let digest = |more: &[&str]| train(more).expect(0).json()["vocabulary_sha256"].clone();
    assert_eq!(digest(&["--max-chars", "1000000000", "--doc-cap", "1000000"]), usual["vocabulary_sha256"]);
    assert_ne!(digest(&["--max-chars", "20000"]), usual["vocabulary_sha256"]);
    assert_ne!(digest(&["--doc-cap", "12"]), usual["vocabulary_sha256"]);
}

#[test]
fn token_bytes_follow_the_manifests_rule() {
    let place = Place::with(TINY);
    let bytes = |commit: &str, to: &str| {
        place
            .run(&["tokenizer", "train", "m.toml", "--to", to, "--set", &format!("upstream.commit={commit}")])
            .expect(0);
        (
            fs::read(place.path(to).join("tokenizer.pkl")).unwrap(),
            fs::read(place.path(to).join("token_bytes.pt")).unwrap(),
        )
    };
    let (raw, decoded) = (bytes("92d63d4", "a"), bytes("4e014d3", "b"));
    assert_eq!(raw.0, decoded.0);
    assert_ne!(raw.1, decoded.1);
}

#[test]
fn what_cannot_be_trained_is_said_before_it_is() {
    let place = Place::with(TINY);
    for (arguments, what) in [
        (vec![], "nobody says where the tokenizer goes"),
        (vec!["--to", "made", "--vocab-size", "264"], "at least 265"),
        (vec!["--to", "made", "--vocab-size", "9000000"], "fill no vocabulary"),
        (
            vec!["--to", "made", "--set", "data.shards=base_data_climbmix"],
            "nanorun data get climbmix --shards 8 --to 'base_data_climbmix'",
        ),
        (vec!["--to", "m.toml"], "--to DIR"),
        (vec!["--to", "made", "--set", "data.tokenizer=char"], "a character tokenizer is not trained"),
    ] {
        let ended = place.run(&[&["tokenizer", "train", "m.toml"], arguments.as_slice()].concat()).expect(2);
        assert!(ended.stderr.contains(what), "{}", ended.stderr);
        assert!(!place.path("made/tokenizer.pkl").exists());
    }
}
