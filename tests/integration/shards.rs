//! Data as people have them: rows of the table of faults, from outside.

use std::fs;
use std::path::Path;

use nanorun::internals::files::Files;
use nanorun::internals::record::{RunRow, read_table};
use serde_json::Value;

use crate::support::{Ended, Place};

/// A bigram model over the characters of `shards`, a second a run.
fn manifest(shards: &str, data: &str) -> String {
    format!(
        "name = \"s\"\n[upstream]\ncommit = \"92d63d4\"\n[run]\nseed = 1\nbackend = \"cpu\"\nthreads = 1\n\
         [budget]\nsteps = 3\n[schedule]\nwarmdown = \"linear\"\n[model]\nkind = \"bigram\"\nsequence_len = 16\n\
         [train]\ndevice_batch_size = 4\n[data]\nshards = \"{shards}\"\ntokenizer = \"char\"\n{data}\n\
         [eval]\nevery = 0\ntokens = 64\n"
    )
}

fn texts() -> Vec<String> {
    (0..60).map(|number| format!("document {number} of ab and cd")).collect()
}

fn json_lines(field: &str) -> String {
    let lines = texts().into_iter().map(|text| format!("{{\"id\": 1, \"{field}\": \"{text}\"}}\n"));
    lines.collect::<Vec<_>>().concat()
}

fn fixture(name: &str, to: &Path) {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/shards");
    let packed = fs::read(packed.join(format!("{name}.parquet.zst"))).unwrap();
    fs::write(to, zstd::decode_all(&*packed).unwrap()).unwrap();
}

fn place(shards: &str, data: &str) -> Place {
    Place::with(&manifest(shards, data))
}

fn first_run(place: &Place) -> Value {
    place.run(&["plan", "m.toml", "--json"]).expect(0).json()["runs"][0].clone()
}

#[track_caller]
fn refused(place: &Place, words: &[&str]) -> Ended {
    let ended = place.run(&["run", "m.toml"]).expect(2);
    assert!(!place.path("results").exists());
    for word in words {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    ended
}

#[test]
fn formats() {
    let texts = texts();
    let gzip = |bytes: &[u8]| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let lines = json_lines("text");
    let blocks = texts.join("\n\n");
    for (name, bytes) in [
        ("lines.jsonl", lines.clone().into_bytes()),
        ("LINES.NDJSON", lines.replace('\n', "\r\n").into_bytes()),
        ("lines.json", lines.clone().into_bytes()),
        ("lines.jsonl.gz", gzip(lines.as_bytes())),
        ("lines.json.zst", zstd(lines.as_bytes())),
        ("blocks.txt", blocks.clone().into_bytes()),
        ("blocks.TXT.gz", gzip(blocks.as_bytes())),
        ("blocks.txt.zst", zstd(blocks.as_bytes())),
    ] {
        let place = place(name, "");
        fs::write(place.path(name), bytes).unwrap();
        let run = first_run(&place);
        // The same documents and no other character: braces and quotes are not trained on.
        assert_eq!(run["data"]["train"]["documents"], 54, "{name}");
        let bytes: usize = texts[..54].iter().map(String::len).sum();
        assert!(run["data"]["train"]["bytes"].as_u64().unwrap().abs_diff(bytes as u64) < 30, "{name}");
        let letters: std::collections::BTreeSet<char> = texts.concat().chars().collect();
        assert_eq!(run["config"]["model"]["vocab_size"], letters.len() + 1, "{name}");
        place.run(&["run", "m.toml", "-q"]).expect(0);
    }
    // The letters of a name's end do not matter.
    let upper = place("X.PARQUET", "");
    fixture("dictionary", &upper.path("X.PARQUET"));
    assert_eq!(first_run(&upper)["data"]["train"]["documents"], 54);
    // Another field, another column.
    let place = place("lines.jsonl", "column = \"body\"");
    fs::write(place.path("lines.jsonl"), json_lines("body")).unwrap();
    place.run(&["run", "m.toml", "-q"]).expect(0);
}

#[test]
fn formats_that_are_not_read_are_named() {
    for (name, bytes, words) in [
        ("a.csv", &b"text\nabc\n"[..], ["a file is no shard but comma-separated values", "JSON lines"]),
        ("a.tsv", b"text\nabc\n", ["tab-separated values", "parquet"]),
        ("a.json", b"[{\"text\": \"a\"}]\n", ["a JSON array is not JSON lines", "jq -c"]),
        ("a.json", b"{\n \"text\": \"a\"}\n", ["a line is not one JSON object", "a.json:1"]),
        (
            "b.jsonl",
            b"{\"text\": \"a\"}\n\n{\"text\": 7}\n",
            ["field `text` of a line holds a number", "b.jsonl:3"],
        ),
        (
            "b.jsonl",
            b"{\"text\": \"a\"}\n{\"text\": null}\n",
            ["field `text` of a line is null", "b.jsonl:2"],
        ),
        ("b.jsonl", b"{\"body\": \"a\", \"id\": 3}\n", ["no field `text`, only `body`, `id`", "data.column"]),
        ("b.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"b\n", ["a line is not one JSON object", "b.jsonl:2"]),
        ("c.txt", b"\xff\xfeh\0i\0", ["it begins with the byte-order mark of UTF-16", "iconv -f UTF-16"]),
        ("c.txt", b"\x1f\x8b\x08\0\xff\xff", ["UTF-8 text; it is gzip", "name it with .gz"]),
        ("c.txt.gz", b"plain text\n", ["a compressed shard does not unpack", "not what its name says"]),
        ("d.parquet", b"<!DOCTYPE html><html>not found</html>", ["not a whole parquet file", "a web page"]),
        (
            "d.parquet",
            b"version https://git-lfs.github.com/spec/v1",
            ["not a whole parquet", "Git LFS pointer"],
        ),
        ("d.parquet", b"", ["an empty file is no shard", "download it again"]),
        ("e.txt", b"", ["an empty file is no shard", "download it again"]),
    ] {
        let place = place(name, "");
        fs::write(place.path(name), bytes).unwrap();
        refused(&place, &words);
    }
}

#[test]
fn files_that_are_no_shards() {
    let place = place("shards", "");
    fs::create_dir_all(place.path("shards/.ipynb_checkpoints")).unwrap();
    let at = |name: &str| place.path("shards").join(name);
    fixture("dictionary", &at("shard_00000.parquet"));
    fixture("large_string", &at("shard_00001.parquet"));
    fs::write(at("._shard_00000.parquet"), b"\0\x05\x16\x07junk").unwrap();
    fs::write(at("README.md"), "About them.").unwrap();
    fs::write(at("SHA256SUMS"), "00").unwrap();
    fs::write(at("dataset_info.json"), "{}").unwrap();
    fs::write(at("shard_00002.parquet.tmp"), "half").unwrap();
    fs::write(at(".ipynb_checkpoints/shard-checkpoint.parquet"), "junk").unwrap();
    let run = first_run(&place);
    assert_eq!((&run["data"]["train"]["files"], &run["data"]["train"]["documents"]), (&1.into(), &60.into()));
    // A glob passes over hidden files alike, wherever they are, and finds the same shards.
    for glob in ["shards/*.parquet", "shards/**/*.parquet"] {
        fs::write(place.path("m.toml"), manifest(glob, "")).unwrap();
        assert_eq!(first_run(&place)["key"], run["key"], "{glob}");
    }
    fs::write(place.path("m.toml"), manifest("shards/._shard_00000.parquet", "")).unwrap();
    refused(&place, &["a file is no shard but hidden", "._shard_00000.parquet"]);
    fs::write(place.path("m.toml"), manifest("shards/*", "")).unwrap();
    refused(&place, &["a file is no shard but an unfinished download", "shard_00002.parquet.tmp"]);
    fs::remove_file(at("shard_00002.parquet.tmp")).unwrap();
    refused(&place, &["two kinds stand side by side", "README.md"]);
    // A placeholder among shards is named, not trained around.
    fs::write(place.path("m.toml"), manifest("shards", "")).unwrap();
    fs::write(at("shard_00002.parquet"), "").unwrap();
    refused(&place, &["an empty file is no shard", "shard_00002.parquet"]);
    fs::remove_file(at("shard_00002.parquet")).unwrap();
    fs::write(at("more.txt"), "a\n\nb\n").unwrap();
    refused(&place, &["two kinds stand side by side", "more.txt", "*.parquet"]);
    // Nothing but files of a kind that is not read.
    let place = self::place("tables", "");
    fs::create_dir(place.path("tables")).unwrap();
    refused(&place, &["the directory `tables` holds no shards"]);
    fs::write(place.path("tables/a.csv"), "text\n").unwrap();
    refused(&place, &["comma-separated values", "a.csv"]);
    fs::write(place.path("tables/a.jsonl"), json_lines("text")).unwrap();
    fs::write(place.path("tables/a.jsonl.gz"), "").unwrap();
    refused(&place, &["twice, as it is and compressed"]);
}

#[test]
fn byte_order_mark() {
    let texts = texts().join("\n\n");
    let with = |name: &str, bytes: &[u8]| {
        let place = place(name, "");
        fs::write(place.path(name), bytes).unwrap();
        first_run(&place)
    };
    let plain = with("a.txt", texts.as_bytes());
    let marked = with("a.txt", format!("\u{feff}{texts}").as_bytes());
    let vocabulary = |run: &Value| run["config"]["model"]["vocab_size"].clone();
    assert_eq!(vocabulary(&marked), vocabulary(&plain));
    assert_eq!(marked["data"], plain["data"]);
    let lines = json_lines("text");
    assert_eq!(
        with("a.jsonl", format!("\u{feff}{lines}").as_bytes())["data"],
        with("a.jsonl", lines.as_bytes())["data"]
    );
}

#[test]
fn nulls_found_late() {
    for name in ["null_early", "null_late", "null_late_untold"] {
        let place = place("a.parquet", "");
        fixture(name, &place.path("a.parquet"));
        refused(&place, &["null in column `text`", "row group", "data.nulls = \"skip\""]);
        fs::write(place.path("m.toml"), manifest("a.parquet", "nulls = \"skip\"")).unwrap();
        assert_eq!(first_run(&place)["data"]["train"]["documents"], 54);
        place.run(&["run", "m.toml", "-q"]).expect(0);
    }
}

#[test]
fn columns_that_differ_by_shard() {
    let place = place("shards", "");
    fs::create_dir(place.path("shards")).unwrap();
    fixture("dictionary", &place.path("shards/a.parquet"));
    fixture("content", &place.path("shards/b.parquet"));
    refused(&place, &["no column `text`, only `id`, `content`", "b.parquet", "data.column"]);
    fixture("integers", &place.path("shards/b.parquet"));
    refused(&place, &["column `text` of a shard holds i64", "b.parquet"]);
}

#[test]
fn the_validation_split_moves() {
    let place = place("shards", "");
    fs::create_dir(place.path("shards")).unwrap();
    let shard = |name: &str, texts: &[String]| {
        fs::write(place.path("shards").join(name), texts.join("\n\n")).unwrap();
    };
    let texts = texts();
    shard("a.txt", &texts[..20]);
    shard("b.txt", &texts[20..30]);
    let default = first_run(&place);
    // Naming what the default picks changes no key; naming another does.
    let pinned = |validation: &str| {
        fs::write(place.path("m.toml"), manifest("shards", &format!("validation = \"{validation}\"")))
            .unwrap();
        first_run(&place)
    };
    for same in ["b.txt", "b.*", "shards/b.txt"] {
        assert_eq!(pinned(same)["key"], default["key"], "{same}");
    }
    let other = pinned("a.txt");
    assert_ne!(other["key"], default["key"]);
    assert_eq!(other["data"]["validation"]["documents"], 20);
    // One more shard: unpinned, another split; pinned, the same one, and the new shard is trained on.
    shard("c.txt", &texts[30..]);
    assert_eq!(pinned("b.txt")["data"]["validation"]["documents"], 10);
    assert_eq!(pinned("b.txt")["data"]["train"]["documents"], 50);
    fs::write(place.path("m.toml"), manifest("shards", "")).unwrap();
    assert_eq!(first_run(&place)["data"]["validation"]["documents"], 30);
    // Several validate where a glob says so; none or all is an error, and so is one name of two.
    assert_eq!(pinned("[bc].txt")["data"]["validation"]["documents"], 40);
    for (validation, words) in [
        ("d.txt", ["`d.txt` is not among the shards", "`shards/a.txt`"]),
        ("*.txt", ["`*.txt` leaves no shard to train on", "some of the shards"]),
        ("[", ["is neither a name nor a glob", "data.validation"]),
    ] {
        fs::write(place.path("m.toml"), manifest("shards", &format!("validation = \"{validation}\"")))
            .unwrap();
        refused(&place, &words);
    }
    fs::create_dir(place.path("more")).unwrap();
    fs::copy(place.path("shards/c.txt"), place.path("more/b.txt")).unwrap();
    let two = manifest("X", "validation = \"b.txt\"").replace("\"X\"", "[\"shards\", \"more\"]");
    fs::write(place.path("m.toml"), &two).unwrap();
    refused(&place, &["`b.txt` names 2 shards", "write more of its path"]);
    fs::write(place.path("m.toml"), two.replace("\"b.txt\"", "\"more/b.txt\"")).unwrap();
    assert_eq!(first_run(&place)["data"]["validation"]["documents"], 30);
}

#[test]
fn pins_that_match_none_or_several_shards() {
    let place = place("X", "");
    let two = manifest("X", "").replace("\"X\"", "[\"one\", \"two\"]");
    fs::write(place.path("m.toml"), &two).unwrap();
    for (directory, from) in [("one", 0), ("two", 30)] {
        fs::create_dir(place.path(directory)).unwrap();
        let name = place.path(directory).join("a.txt");
        fs::write(name, texts()[from..from + 30].join("\n\n")).unwrap();
    }
    // Two shards of one name are told apart by as much of their paths as it takes.
    place.run(&["lock", "m.toml", "-q"]).expect(0);
    let locked = fs::read_to_string(place.path("m.toml")).unwrap();
    assert!(locked.contains("\"one/a.txt\" = ") && locked.contains("\"two/a.txt\" = "), "{locked}");
    place.run(&["run", "m.toml", "-q", "--results", "there"]).expect(0);
    fs::write(place.path("m.toml"), locked.replace("\"one/a.txt\" = ", "\"a.txt\" = ")).unwrap();
    refused(&place, &["the pin `a.txt` is that of 2 shards", "`one/a.txt`, `two/a.txt`", "nanorun lock"]);
    fs::write(place.path("m.toml"), locked.replace("\"one/a.txt\" = ", "\"three/a.txt\" = ")).unwrap();
    refused(&place, &["the pinned `three/a.txt` is not among the data", "nanorun lock"]);
}

#[test]
fn epochs_are_silent() {
    let place = place("a.txt", "document = \"line\"");
    fs::write(place.path("a.txt"), texts().join("\n")).unwrap();
    // Four rows a step, a document each: 54 of them are an epoch.
    let plan = |set: &[&str]| place.run(&[&["plan", "m.toml"], set].concat()).expect(0).stdout;
    let once = plan(&[]);
    assert!(once.contains("data: 54 documents ("), "{once}");
    assert!(once.contains("read 0.22 times; validation on 6 documents"), "{once}");
    assert!(once.contains("of which an evaluation reads 0.67 times") && !once.contains("warning"), "{once}");
    let often = ["--set", "budget.steps=2700", "--set", "eval.tokens=960"];
    let text = plan(&often);
    assert!(text.contains("warning: the training text is read 200 times"), "{text}");
    assert!(text.contains("warning: an evaluation reads the validation split 10 times"), "{text}");
    let json = place.run(&[&["plan", "m.toml", "--json"], &often[..]].concat()).expect(0).json();
    assert_eq!(json["runs"][0]["data"]["train"]["epochs"], 200.0);
    assert_eq!(json["runs"][0]["data"]["train"]["epochs_are_estimated"], false);
    assert_eq!(json["warnings"].as_array().unwrap().len(), 2);
    // Told before it is trained, too.
    let ended = place.run(&["run", "m.toml", "--set", "budget.steps=30"]).expect(0);
    assert!(ended.stderr.contains("warning: the training text is read 2.22 times"), "{}", ended.stderr);
    // And afterwards, from the results alone.
    let directory = place.directory(&["--set", "budget.steps=30"]);
    fs::rename(place.path("a.txt"), place.path("gone.txt")).unwrap();
    let report = place.run(&["report", "m.toml", "--set", "budget.steps=30"]).expect(0);
    assert!(report.stderr.contains("the training text is read 2.22 times"), "{}", report.stderr);
    let table = place.path(&directory).join("runs.parquet");
    let rows: Vec<RunRow> = read_table(&Files::new(), &table).unwrap();
    assert_eq!(rows[0].train_epochs.map(|epochs| (epochs * 100.0).round()), Some(222.0));
    assert_eq!(rows[0].eval_epochs.map(|epochs| (epochs * 100.0).round()), Some(67.0));
    fs::rename(place.path("gone.txt"), place.path("a.txt")).unwrap();
    // Packed rows: what the first documents take.
    let packed = plan(&["--set", "data.packing=\"best_fit_bos\""]);
    assert!(packed.contains("read about 0."), "{packed}");
}
