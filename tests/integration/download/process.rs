//! The command as a process: killed, stopped, twice at once, and what it prints.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nanorun::internals::files::now;

use super::web::{Reply, Web};
use super::{OTHER, SHARD, VERSION, left_over, sha256};
use crate::support::{Place, TINY};

const VALIDATION: &str = "shard_06542.parquet";

/// `nanorun data get climbmix --shards 1 --to shards`, with no variable of this machine in the way.
fn get(place: &Place, url: &str, more: &[&str]) -> Command {
    let arguments = ["data", "get", "climbmix", "--shards", "1", "--to", "shards", "--base-url", url];
    let mut command = place.command(&[&arguments, more].concat());
    for name in
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HF_TOKEN", "HF_ENDPOINT", "SSL_CERT_FILE"]
    {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

fn wait_for(what: impl Fn() -> bool) {
    let begun = now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn part(place: &Place) -> PathBuf {
    place.path("shards/.shard_00000.parquet.part")
}

/// A server that falls silent in the first shard, once.
fn silent_once() -> Web {
    Web::start(|request, before| {
        let reply = Reply::file(request, SHARD, VERSION);
        let first = request.target.ends_with("shard_00000.parquet") && before == 0;
        if first { reply.silent(30_000) } else { reply }
    })
}

/// A download that hangs in the silent server.
fn hanging(place: &Place, web: &Web) -> Child {
    let child = get(place, &web.url(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| {
        fs::metadata(part(place)).is_ok_and(|part| part.len() == 30_000)
            && place.path("shards").join(VALIDATION).exists()
    });
    child
}

fn carries_on(place: &Place, web: &Web) {
    assert!(!place.path("shards/shard_00000.parquet").exists());
    let ended = get(place, &web.url(), &[]).output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(web.asked("shard_00000.parquet")[1].from(), Some(30_000));
    assert_eq!(web.asked(VALIDATION).len(), 1);
    assert_eq!(fs::read(place.path("shards/shard_00000.parquet")).unwrap(), SHARD);
    assert_eq!(left_over(&place.path("shards")), Vec::<String>::new());
    place.run(&["data", "check", "shards"]).expect(0);
}

#[cfg(unix)]
#[test]
fn a_killed_download_carries_on() {
    let (place, web) = (Place::with(TINY), silent_once());
    let mut child = hanging(&place, &web);
    child.kill().unwrap();
    child.wait().unwrap();
    carries_on(&place, &web);
}

#[cfg(unix)]
#[test]
fn killed_in_any_of_its_writes_it_carries_on_and_leaves_nothing() {
    let web = Web::start(|request, _| Reply::file(request, SHARD, VERSION));
    let mut kills = 0;
    // One connection, so that the writes come in one order; a download of two shards has some dozens.
    for at in 1.. {
        let place = Place::with(TINY);
        let mut first = get(&place, &web.url(), &["--jobs", "1"]);
        let ended = first.env("WRITE_FAULT", format!("kill@{at}")).output().unwrap();
        if ended.status.code() == Some(0) {
            break;
        }
        assert_eq!(ended.status.code(), None, "{}", String::from_utf8_lossy(&ended.stderr));
        kills += 1;
        let ended = get(&place, &web.url(), &["--jobs", "1"]).output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{at}: {}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(left_over(&place.path("shards")), Vec::<String>::new(), "{at}");
        for name in ["shard_00000.parquet", VALIDATION] {
            assert_eq!(fs::read(place.path("shards").join(name)).unwrap(), SHARD, "{at}");
        }
        place.run(&["data", "check", "shards"]).expect(0);
    }
    assert!(kills > 10, "{kills}");
}

#[cfg(unix)]
#[test]
fn a_signal_stops_it_with_130() {
    let (place, web) = (Place::with(TINY), silent_once());
    let child = hanging(&place, &web);
    let begun = now();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("stopped with 1 of 2 shards here"));
    carries_on(&place, &web);
}

#[cfg(unix)]
#[test]
fn two_at_once_share_one_directory() {
    let web = Web::start(|request, _| {
        std::thread::sleep(Duration::from_millis(200));
        Reply::file(request, SHARD, VERSION)
    });
    let place = Place::with(TINY);
    let start =
        || get(&place, &web.url(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
    for ended in &both {
        assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(both[0].stdout, both[1].stdout);
    assert_eq!(web.requests().len(), 2);
    let told = both
        .iter()
        .filter(|ended| String::from_utf8_lossy(&ended.stderr).contains("waiting: another nanorun"));
    assert_eq!(told.count(), 1);
}

#[test]
fn what_it_prints() {
    let (place, web) = (Place::with(TINY), Web::start(|request, _| Reply::file(request, SHARD, VERSION)));
    let listed = get(&place, &web.url(), &["--dry-run"]).output().unwrap();
    assert_eq!(
        String::from_utf8(listed.stdout).unwrap(),
        format!("shard_00000.parquet  to be downloaded\n{VALIDATION}  to be downloaded\n")
    );
    assert!(web.requests().is_empty() && !place.path("shards").exists());
    let ended = get(&place, &web.url(), &[]).output().unwrap();
    let lines = format!("{0}  shard_00000.parquet\n{0}  {VALIDATION}\n", sha256(SHARD));
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), lines);
    assert_eq!(lines, fs::read_to_string(place.path("shards/SHA256SUMS")).unwrap());
    let ended = get(&place, &web.url(), &["--json", "-q"]).output().unwrap();
    assert!(ended.stderr.is_empty());
    let json: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((&json["downloaded"], &json["shards"][1]["state"]), (&0.into(), &"here".into()));
    assert_eq!(json["shards"][0]["sha256"], sha256(SHARD));

    fs::write(place.path("shards/shard_00000.parquet"), OTHER).unwrap();
    let checked = place.run(&["data", "check", "shards"]).expect(2);
    assert!(checked.stdout.contains("shard_00000.parquet: DIFFERS"), "{}", checked.stdout);
    assert!(checked.stdout.contains("shard_06542.parquet: OK"), "{}", checked.stdout);
    let json = place.run(&["data", "check", "shards", "--json"]).expect(2).json();
    assert_eq!(json["wrong"], 1);
    assert!(place.run(&["data", "check", "."]).expect(2).stderr.contains("there is no SHA256SUMS"));
}

#[test]
fn orders_that_cannot_be_are_refused() {
    let place = Place::with(TINY);
    for (arguments, what) in [
        (["get", "climbnix", "--shards", "1"], "`climbmix` or `fineweb-edu`"),
        (["get", "climbmix", "--shards", "0"], "1 to 6542"),
        (["get", "climbmix", "--shards", "6543"], "1 to 6542"),
        (["get", "fineweb-edu", "--shards", "1824"], "1 to 1823"),
    ] {
        let ended = place.run(&[&["data"], arguments.as_slice()].concat()).expect(2);
        assert!(ended.stderr.contains(what), "{}", ended.stderr);
    }
    let ended = get(&place, "example.org/x", &[]).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
}

#[test]
fn upstreams_place_and_address_are_the_default() {
    let place = Place::with(TINY);
    let home = |name: &str, value: &str, dataset: &str| {
        let mut command = place.command(&["data", "get", dataset, "--shards", "2", "--dry-run", "--json"]);
        command
            .env_remove("HF_ENDPOINT")
            .env_remove("NANOCHAT_BASE_DIR")
            .env("HOME", "/home/me")
            .env(name, value);
        let output = command.output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let shards =
            json["shards"].as_array().unwrap().iter().map(|shard| shard["name"].as_str().unwrap().to_owned());
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        (text("directory"), text("base_url"), shards.collect::<Vec<_>>().join(" "))
    };
    let (directory, url, shards) = home("X", "", "climbmix");
    assert_eq!(directory, "/home/me/.cache/nanochat/base_data_climbmix");
    assert_eq!(url, "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main");
    assert_eq!(shards, "shard_00000.parquet shard_00001.parquet shard_06542.parquet");
    let (directory, url, shards) = home("NANOCHAT_BASE_DIR", "/data/nanochat", "fineweb-edu");
    assert_eq!(directory, "/data/nanochat/base_data");
    assert_eq!(url, "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main");
    assert_eq!(shards, "shard_00000.parquet shard_00001.parquet");
    let (_, url, _) = home("HF_ENDPOINT", "https://mirror.example:8443/hub/", "climbmix");
    assert_eq!(url, "https://mirror.example:8443/hub/datasets/karpathy/climbmix-400b-shuffle/resolve/main");
}

#[test]
fn shards_are_pinned_though_the_tokenizer_is_not_there_yet() {
    let web = Web::start(|request, _| Reply::file(request, SHARD, VERSION));
    let data =
        "[data]\nshards = [\"shards/*.parquet\"]\ntokenizer = { path = \"tokenizer\" }\nvocab_size = 4096\n";
    let (before, after) = TINY.split_once("[data]\n").unwrap();
    let rest = after.lines().skip_while(|line| !line.starts_with('[') && !line.is_empty());
    let manifest = format!("{before}{data}{}", rest.collect::<Vec<_>>().join("\n"));
    let place = Place::with(&manifest);
    let ended = get(&place, &web.url(), &["--lock", "m.toml"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let text = fs::read_to_string(place.path("m.toml")).unwrap();
    for name in ["\"shard_00000.parquet\"", "\"shard_06542.parquet\""] {
        assert!(text.contains(&format!("{name} = \"{}\"", sha256(SHARD))), "{text}");
    }
    place.run(&["plan", "m.toml"]).expect(0);
    // A manifest of other data is refused before anything comes.
    let place = Place::with(TINY);
    let ended = get(&place, &web.url(), &["--lock", "m.toml"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(!place.path("shards").exists());
}

#[test]
fn a_full_disk_keeps_what_came() {
    let (place, web) = (Place::with(TINY), Web::start(|request, _| Reply::file(request, SHARD, VERSION)));
    let mut codes = std::collections::BTreeSet::new();
    // The first steps one by one, then some of the many blocks, and one beyond the last.
    for step in (0..20).chain((20..2_000).step_by(180)).chain([100_000]) {
        let ended = get(&place, &web.url(), &["--jobs", "1"])
            .env("WRITE_FAULT", format!("full@{step}"))
            .output()
            .unwrap();
        codes.insert(ended.status.code().unwrap());
        for name in ["shards/shard_00000.parquet", &format!("shards/{VALIDATION}")] {
            let path = place.path(name);
            assert!(!path.exists() || fs::read(&path).unwrap() == SHARD, "step {step}");
        }
        let _ = fs::remove_dir_all(place.path("shards"));
    }
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), [0, 3]);
}
