//! `nanorun data`: shards from a server on loopback, on its good and bad days.

mod process;
mod web;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nanorun::internals::data::Cache;
use nanorun::internals::error::{Error, Result};
use nanorun::internals::fetch::{
    self, Address, Environment, Fetched, Order, Origin, Patience, Place, Watcher,
};
use nanorun::internals::files::{Files, now};
use nanorun::internals::hash::Digest;

use web::{Proxy, Reply, Request, Web};

pub(super) const SHARD: &[u8] = include_bytes!("../../../src/data/embedded/shard_00000.parquet");
pub(super) const OTHER: &[u8] = include_bytes!("../../../src/data/embedded/shard_00001.parquet");
const VERSION: &str = "\"v1\"";

/// A directory to download to, and what is told on the way.
struct Download {
    dir: tempfile::TempDir,
    names: Vec<String>,
    variables: Vec<(String, String)>,
    patience: Patience,
    jobs: usize,
    notes: Mutex<Vec<String>>,
    stop: AtomicBool,
    /// Stops when so many bytes of a shard are here.
    stop_at: u64,
}

impl Watcher for Download {
    fn started(&self, _: &str, _: u64, _: Option<u64>) {}

    fn moved(&self, _: &str, here: u64) {
        if here >= self.stop_at {
            self.stop.store(true, Ordering::SeqCst);
        }
    }

    fn done(&self, _: &Fetched, _: usize) {}

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }
}

impl Download {
    fn of(names: &[&str]) -> Self {
        let short = Duration::from_millis(1);
        Self {
            dir: tempfile::tempdir().unwrap(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            variables: Vec::new(),
            patience: Patience {
                first: short,
                longest: short,
                silence: Duration::from_millis(400),
                ..Patience::default()
            },
            jobs: 2,
            notes: Mutex::default(),
            stop: AtomicBool::new(false),
            stop_at: u64::MAX,
        }
    }

    fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    fn get(&self, url: &str) -> Result<Vec<Fetched>> {
        let order = Order {
            files: self.names.clone(),
            base: Address::parse(url).unwrap(),
            dir: self.dir.path().to_owned(),
            jobs: self.jobs,
        };
        let place = Place {
            environment: Environment::of(self.variables.iter().cloned()),
            files: Files::new(),
            cache: Cache::disabled(),
            patience: self.patience,
        };
        self.stop.store(false, Ordering::SeqCst);
        fetch::get(&order, &place, self, &|| self.stop.load(Ordering::SeqCst))
    }

    #[track_caller]
    fn fails(&self, url: &str, code: u8) -> Error {
        let error = self.get(url).unwrap_err();
        assert_eq!(error.class().exit_code(), code, "{error}");
        // What is not whole has no name.
        assert!(self.shards().is_empty(), "{:?}", self.shards());
        error
    }

    /// The files that a glob of shards finds.
    fn shards(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(".parquet")).collect();
        names.sort();
        names
    }

    fn notes(&self) -> String {
        self.notes.lock().unwrap().join("\n")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap()
    }
}

/// A server of [`SHARD`] under every name.
fn good() -> Web {
    Web::start(|request, _| Reply::file(request, SHARD, VERSION))
}

fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Files of a directory that are not under the names of shards, sums or the lock.
fn left_over(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let known = |name: &String| name.ends_with(".parquet") || name == "SHA256SUMS" || name == ".lock";
    names.filter(|name| !known(name)).collect()
}

#[test]
fn shards_come_whole_with_their_sums_and_are_not_asked_for_again() {
    let web = Web::start(|request, _| {
        let bytes = if request.target.ends_with("b.parquet") { OTHER } else { SHARD };
        Reply::file(request, bytes, VERSION)
    });
    let download = Download::of(&["a.parquet", "b.parquet", "c.parquet"]);
    let fetched = download.get(&web.url()).unwrap();
    let found: Vec<_> =
        fetched.iter().map(|shard| (shard.name.as_str(), shard.bytes, shard.origin)).collect();
    let (long, other) = (SHARD.len() as u64, OTHER.len() as u64);
    let network = Origin::Network;
    assert_eq!(
        found,
        [("a.parquet", long, network), ("b.parquet", other, network), ("c.parquet", long, network)]
    );
    assert_eq!(download.read("b.parquet"), OTHER);
    let sums = String::from_utf8(download.read("SHA256SUMS")).unwrap();
    let (a, b) = (sha256(SHARD), sha256(OTHER));
    assert_eq!(sums, format!("{a}  a.parquet\n{b}  b.parquet\n{a}  c.parquet\n"));
    assert_eq!(left_over(download.dir.path()), Vec::<String>::new());
    let asked = web.requests().len();
    let again = download.get(&web.url()).unwrap();
    assert!(again.iter().all(|shard| shard.origin == Origin::Here));
    assert_eq!(web.requests().len(), asked);
}

#[test]
fn cut_connections_carry_on_where_they_were() {
    let web = Web::start(|request, before| {
        let reply = Reply::file(request, SHARD, VERSION);
        if before < 5 { reply.cut(10_000) } else { reply }
    });
    let download = Download::of(&["a.parquet"]);
    download.get(&web.url()).unwrap();
    assert_eq!(download.read("a.parquet"), SHARD);
    let from: Vec<_> = web.requests().iter().map(Request::from).collect();
    assert_eq!(from, [None, Some(10_000), Some(20_000), Some(30_000), Some(40_000), Some(50_000)]);
    assert!(web.requests()[1..].iter().all(|request| request.header("if-range") == Some(VERSION)));
    assert!(download.notes().contains("cut after 10000 of"), "{}", download.notes());
}

#[test]
fn a_silent_server_is_asked_again() {
    let web = Web::start(|request, before| {
        let reply = Reply::file(request, SHARD, VERSION);
        if before == 0 { reply.silent(10_000) } else { reply }
    });
    let download = Download::of(&["a.parquet"]);
    download.get(&web.url()).unwrap();
    assert_eq!(download.read("a.parquet"), SHARD);
    assert_eq!(web.requests()[1].from(), Some(10_000));
}

#[test]
fn a_200_for_a_range_starts_over() {
    let web = Web::start(|_, before| {
        let reply = Reply::new(200, SHARD).with("etag", VERSION);
        if before == 0 { reply.cut(10_000) } else { reply }
    });
    let download = Download::of(&["a.parquet"]);
    download.get(&web.url()).unwrap();
    assert_eq!(web.requests()[1].from(), Some(10_000));
    assert_eq!(download.read("a.parquet"), SHARD);
}

#[test]
fn a_server_that_always_starts_over_and_cuts_is_given_up() {
    let web = Web::start(|_, _| Reply::new(200, SHARD).with("etag", VERSION).cut(10_000));
    let error = Download::of(&["a.parquet"]).fails(&web.url(), 3).to_string();
    assert!(error.contains("`a.parquet` did not come") && error.contains("carries on"), "{error}");
    // The first brought bytes; six more brought nothing new, and the last ends it.
    assert_eq!(web.requests().len(), 7);
}

#[test]
fn another_version_starts_over() {
    // With the version that the part belongs to gone, a server sends all of the new one.
    let web = Web::start(|request, before| {
        if before == 0 {
            Reply::file(request, SHARD, VERSION).cut(10_000)
        } else {
            Reply::file(request, OTHER, "\"v2\"")
        }
    });
    let download = Download::of(&["a.parquet"]);
    download.get(&web.url()).unwrap();
    assert_eq!(download.read("a.parquet"), OTHER);
    // One that sends the rest of another version, whatever was asked for.
    let web = Web::start(|request, before| {
        if before == 0 {
            return Reply::file(request, SHARD, VERSION).cut(10_000);
        }
        let mut request = request.clone();
        request.headers.remove("if-range");
        Reply::file(&request, OTHER, "\"v2\"")
    });
    let download = Download::of(&["a.parquet"]);
    download.get(&web.url()).unwrap();
    assert_eq!(download.read("a.parquet"), OTHER);
}

#[test]
fn parts_without_a_version_or_hash_are_not_carried_on() {
    let web = Web::start(|request, before| {
        let mut reply = Reply::file(request, SHARD, VERSION);
        reply.headers.retain(|(name, _)| name != "etag");
        if before == 0 { reply.silent(10_000) } else { reply }
    });
    let mut download = Download::of(&["a.parquet"]);
    download.stop_at = 10_000;
    assert_eq!(download.fails(&web.url(), 130).class().exit_code(), 130);
    download.stop_at = u64::MAX;
    download.get(&web.url()).unwrap();
    assert_eq!(web.requests()[1].from(), None);
    assert_eq!(download.read("a.parquet"), SHARD);
}

#[test]
fn a_stop_is_quick_and_the_part_stays() {
    let web = Web::start(|request, before| {
        let reply = Reply::file(request, SHARD, VERSION);
        if before == 0 { reply.silent(20_000) } else { reply }
    });
    let mut download = Download::of(&["a.parquet", "b.parquet", "c.parquet"]);
    (download.stop_at, download.patience.silence, download.jobs) = (20_000, Duration::from_secs(60), 1);
    let begun = now();
    let error = download.fails(&web.url(), 130).to_string();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(error.contains("stopped with 0 of 3 shards here"), "{error}");
    assert_eq!(fs::metadata(download.dir.path().join(".a.parquet.part")).unwrap().len(), 20_000);
    (download.stop_at, download.patience.silence) = (u64::MAX, Duration::from_millis(400));
    download.get(&web.url()).unwrap();
    assert_eq!(web.asked("a.parquet")[1].from(), Some(20_000));
    assert_eq!(download.read("a.parquet"), SHARD);
    assert_eq!(left_over(download.dir.path()), Vec::<String>::new());
}

#[test]
fn html_with_200_is_named_for_what_it_is() {
    for (kind, body) in [
        ("text/html; charset=utf-8", "<!doctype html><title>Sign in</title>"),
        ("application/octet-stream", "\n<html><body>Welcome to our network</body></html>"),
    ] {
        let web = Web::start(move |_, _| Reply::new(200, body).with("content-type", kind));
        let error = Download::of(&["a.parquet"]).fails(&web.url(), 2).to_string();
        assert!(error.contains("answered with a web page, not with a shard"), "{error}");
        assert_eq!(web.requests().len(), 1);
    }
    let web = Web::start(|_, _| Reply::new(200, "{\"error\": \"no\"}"));
    let error = Download::of(&["a.parquet"]).fails(&web.url(), 2).to_string();
    assert!(error.contains("is no parquet file: it begins with"), "{error}");
}

#[test]
fn missing_and_forbidden_shards_are_not_asked_for_again() {
    for (status, help) in [(404, "check --base-url"), (403, "HF_TOKEN"), (401, "HF_TOKEN"), (410, "moved")] {
        let web =
            Web::start(move |_, _| Reply::new(status, "<html>no</html>").with("content-type", "text/html"));
        let error = Download::of(&["a.parquet"]).fails(&web.url(), 2).to_string();
        assert!(error.contains(&format!("answered {status}")) && error.contains(help), "{error}");
        assert_eq!(web.requests().len(), 1);
    }
}

#[test]
fn too_many_requests_wait_as_long_as_asked() {
    let web = Web::start(|request, before| match before {
        0 => Reply::new(429, "slow down").with("retry-after", "1"),
        1 => Reply::new(503, "later"),
        _ => Reply::file(request, SHARD, VERSION),
    });
    let download = Download::of(&["a.parquet"]);
    let begun = now();
    download.get(&web.url()).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(download.notes().contains("429 (too many requests); again in 1 s"), "{}", download.notes());
    assert_eq!(web.requests().len(), 3);
}

#[test]
fn waiting_and_trying_are_bounded() {
    let web = Web::start(|_, _| Reply::new(500, ""));
    let error = Download::of(&["a.parquet"]).fails(&web.url(), 3).to_string();
    assert!(error.contains("answered 500") && error.contains("tried 7 times"), "{error}");
    assert_eq!(web.requests().len(), 7);
    let web = Web::start(|_, _| Reply::new(429, "").with("retry-after", "7200"));
    let error = Download::of(&["a.parquet"]).fails(&web.url(), 3).to_string();
    assert!(error.contains("the server asks to wait 120 minutes"), "{error}");
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Download::of(&["a.parquet"]).fails(&format!("http://{free}/x"), 3).to_string();
    assert!(error.contains("did not come"), "{error}");
}

#[test]
fn wrong_bytes_are_refused_after_a_second_look() {
    let promise = format!("\"{}\"", sha256(OTHER));
    let web =
        Web::start(move |request, _| Reply::file(request, SHARD, VERSION).with("x-linked-etag", &promise));
    let error = Download::of(&["a.parquet"]).fails(&web.url(), 2).to_string();
    assert!(
        error.contains("are not those that the server says") && error.contains(&sha256(OTHER)),
        "{error}"
    );
    assert_eq!(web.requests().len(), 2);
    // Once is an accident.
    let promise = format!("\"{}\"", sha256(SHARD));
    let web = Web::start(move |request, before| {
        let mut bytes = SHARD.to_vec();
        if before == 0 {
            bytes[5000] ^= 1;
        }
        Reply::file(request, &bytes, VERSION).with("x-linked-etag", &promise)
    });
    let download = Download::of(&["a.parquet"]);
    download.get(&web.url()).unwrap();
    assert_eq!(download.read("a.parquet"), SHARD);
}

#[test]
fn a_part_of_another_hash_is_thrown_away() {
    let web = Web::start(move |request, before| {
        let (bytes, version) = if before == 0 { (SHARD, "\"v1\"") } else { (OTHER, "\"v2\"") };
        let reply = Reply::file(request, bytes, version).with("x-linked-etag", &sha256(bytes));
        if before == 0 { reply.cut(10_000) } else { reply }
    });
    let download = Download::of(&["a.parquet"]);
    download.get(&web.url()).unwrap();
    assert_eq!(download.read("a.parquet"), OTHER);
}

#[test]
fn truncated_and_mislabelled_shards_are_refused() {
    // Whole as far as the server knows, but cut where it comes from.
    let half = &SHARD[..SHARD.len() / 2];
    let web = Web::start(move |request, _| Reply::file(request, half, VERSION));
    let error = Download::of(&["a.parquet"]).fails(&web.url(), 2).to_string();
    assert!(error.contains("what came as `a.parquet` is no shard"), "{error}");
    // The Hub says another length than what is sent.
    let web = Web::start(|request, _| {
        Reply::file(request, SHARD, VERSION).with("x-linked-size", &(SHARD.len() + 1).to_string())
    });
    let error = Download::of(&["a.parquet"]).fails(&web.url(), 2).to_string();
    assert!(error.contains("bytes, as the Hub says"), "{error}");
    // Nobody says a length, and the end is missing.
    let web = Web::start(move |_, _| {
        let mut reply = Reply::new(200, half);
        reply.endless = true;
        reply
    });
    Download::of(&["a.parquet"]).fails(&web.url(), 2);
    // Nobody says a length, and all is there.
    let web = Web::start(move |_, _| {
        let mut reply = Reply::new(200, SHARD);
        reply.endless = true;
        reply
    });
    let download = Download::of(&["a.parquet"]);
    download.get(&web.url()).unwrap();
    assert_eq!(download.read("a.parquet"), SHARD);
}

#[test]
fn what_came_first_is_what_has_to_come_again() {
    let web = Web::start(|request, before| {
        let bytes = if before == 0 { SHARD } else { OTHER };
        Reply::file(request, bytes, VERSION)
    });
    let download = Download::of(&["a.parquet"]);
    download.get(&web.url()).unwrap();
    fs::remove_file(download.dir.path().join("a.parquet")).unwrap();
    let error = download.fails(&web.url(), 2).to_string();
    assert!(
        error.contains("is not the one that came here first") && error.contains(&sha256(SHARD)),
        "{error}"
    );
    // Where the server says the hash, it is known before a byte is taken.
    let web = Web::start(|request, _| {
        Reply::file(request, OTHER, VERSION).with("x-linked-etag", &sha256(OTHER)).silent(0)
    });
    download.fails(&web.url(), 2);
    assert_eq!(web.requests().len(), 1);
}

#[test]
fn a_shard_that_is_here_is_checked_and_never_replaced() {
    let web = good();
    let download = Download::of(&["a.parquet"]);
    let path = download.dir.path().join("a.parquet");
    // Placed by upstream's own download: taken as it is.
    fs::write(&path, SHARD).unwrap();
    assert_eq!(download.get(&web.url()).unwrap()[0].origin, Origin::Here);
    assert!(String::from_utf8(download.read("SHA256SUMS")).unwrap().starts_with(&sha256(SHARD)));
    for (bytes, what) in
        [(OTHER, "is not what SHA256SUMS says"), (&SHARD[..9_000], "not a whole parquet"), (b"", "empty")]
    {
        fs::write(&path, bytes).unwrap();
        let error = download.get(&web.url()).unwrap_err();
        assert_eq!(error.class().exit_code(), 2);
        assert!(error.to_string().contains(what) && error.to_string().contains("move"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    assert!(web.requests().is_empty());
}

#[test]
fn redirects_in_a_circle_end() {
    let web = Web::start(|_, _| Reply::new(302, "").with("location", "/shards/a.parquet"));
    let error = Download::of(&["a.parquet"]).fails(&web.url(), 2).to_string();
    assert!(error.contains("redirects more than 10 times"), "{error}");
}

#[test]
fn the_token_goes_to_its_own_host_alone_and_the_range_goes_along() {
    let storage = Web::start(|request, before| {
        let reply = Reply::file(request, SHARD, VERSION);
        if before == 0 { reply.cut(10_000) } else { reply }
    });
    let elsewhere = format!("http://localhost:{}/signed?Signature=secret", storage.address.port());
    let hub = Web::start(move |_, _| {
        Reply::new(302, "")
            .with("location", &elsewhere)
            .with("x-linked-etag", &format!("\"{}\"", sha256(SHARD)))
            .with("x-linked-size", &SHARD.len().to_string())
    });
    let download = Download::of(&["a.parquet"])
        .var("HF_TOKEN", "hf_secret")
        .var("HF_ENDPOINT", format!("http://{}", hub.address));
    download.get(&hub.url()).unwrap();
    assert_eq!(download.read("a.parquet"), SHARD);
    assert_eq!(storage.requests()[1].from(), Some(10_000));
    assert!(hub.requests().iter().all(|request| request.header("authorization") == Some("Bearer hf_secret")));
    assert!(storage.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(!download.notes().contains("secret"), "{}", download.notes());
    // At a base address that is not the token's, nobody gets it, and the refusal says so.
    let mirror = Web::start(|_, _| Reply::new(403, ""));
    let download = Download::of(&["a.parquet"]).var("HF_TOKEN", "hf_secret");
    let error = download.fails(&mirror.url(), 2).to_string();
    assert!(error.contains("HF_TOKEN was not sent there, it is for huggingface.co alone"), "{error}");
    assert!(mirror.requests()[0].header("authorization").is_none());
}

#[test]
fn proxies_are_obeyed() {
    let (web, proxy) = (good(), Proxy::start());
    let port = proxy.address.port();
    let download =
        Download::of(&["a.parquet"]).var("http_proxy", format!("http://me:p%40ss@127.0.0.1:{port}"));
    download.get(&web.url()).unwrap();
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.target == web.address.to_string()));
    // Basic, of me:p@ss
    assert_eq!(asked[0].header("proxy-authorization"), Some("Basic bWU6cEBzcw=="));
    for (name, value, through) in [
        ("ALL_PROXY", format!("127.0.0.1:{port}"), true),
        ("HTTPS_PROXY", format!("127.0.0.1:{port}"), false),
    ] {
        Download::of(&["a.parquet"]).var(name, value).get(&web.url()).unwrap();
        assert_eq!(!proxy.asked().is_empty(), through, "{name}");
    }
    let direct = Download::of(&["a.parquet"]).var("ALL_PROXY", format!("127.0.0.1:{port}"));
    direct.var("NO_PROXY", "10.0.0.1,127.0.0.0/8").get(&web.url()).unwrap();
    assert!(proxy.asked().is_empty());
}

#[test]
fn certificates_and_endpoints_that_are_none_are_named() {
    let web = good();
    for (name, value) in
        [("SSL_CERT_FILE", "/nowhere.pem"), ("SSL_CERT_FILE", "Cargo.toml"), ("ALL_PROXY", "x://y")]
    {
        let error = Download::of(&["a.parquet"]).var(name, value).fails(&web.url(), 2).to_string();
        assert!(error.contains(name), "{error}");
    }
    assert!(web.requests().is_empty());
}

#[test]
fn sums_are_checked() {
    let download = Download::of(&["a.parquet", "b.parquet", "c.parquet"]);
    download.get(&good().url()).unwrap();
    let check = || {
        let each = |_: &fetch::Checked| {};
        let found = fetch::check(download.dir.path(), &Files::new(), 2, &each, &|| false).unwrap();
        found.into_iter().map(|one| (one.name, one.found)).collect::<Vec<_>>()
    };
    assert!(check().iter().all(|(_, found)| *found == fetch::Found::Same));
    fs::write(download.dir.path().join("a.parquet"), OTHER).unwrap();
    fs::remove_file(download.dir.path().join("b.parquet")).unwrap();
    fs::write(download.dir.path().join("d.parquet"), OTHER).unwrap();
    let names = ["a.parquet", "b.parquet", "c.parquet", "d.parquet"].map(str::to_owned);
    let found = [
        fetch::Found::Differs(sha256(OTHER)),
        fetch::Found::Missing,
        fetch::Found::Same,
        fetch::Found::Unlisted,
    ];
    assert_eq!(check(), names.into_iter().zip(found).collect::<Vec<_>>());
}
