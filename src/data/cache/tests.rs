//! Damage, bounds and versions of the cache.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;

const KEY: &[u8] = b"key";

/// Bytes of a payload; an entry of it takes as many whole blocks on disk as any file of its length.
const PAYLOAD: usize = 100_000;

fn limited(root: &Path, bytes: u64) -> Cache {
    Cache::with_limit(root, Limit { named: Some(bytes) })
}

fn key(number: usize) -> Digest {
    Digest::of(number.to_string().as_bytes())
}

fn on_disk(root: &Path) -> u64 {
    survey::survey(root).iter().map(|found| found.bytes).sum()
}

/// Makes everything in a directory look unused for this long.
fn make_old(path: &Path, age: Duration) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            make_old(&entry.unwrap().path(), age);
        }
    }
    let then = SystemTime::UNIX_EPOCH + SystemTime::UNIX_EPOCH.elapsed().unwrap() - age;
    std::fs::File::open(path).unwrap().set_modified(then).unwrap();
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_damaged_entry_is_absent_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path().join("new"));
    let key = Digest::of(KEY);
    assert_eq!(cache.get("tokenizers", &key), None);
    cache.put("tokenizers", &key, b"payload");
    assert_eq!(cache.get("tokenizers", &key).unwrap(), b"payload");

    let path = cache.root().unwrap().join(layout::entry("tokenizers", &key));
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(cache.get("tokenizers", &key), None, "bit flipped in byte {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert_eq!(cache.get("tokenizers", &key), None, "cut to {at} bytes");
    }
    cache.put("tokenizers", &key, b"payload");
    assert_eq!(cache.get("tokenizers", &key).unwrap(), b"payload");

    // Whole, but another key's.
    let other = Digest::of(b"other");
    let moved = cache.root().unwrap().join(layout::entry("tokenizers", &other));
    std::fs::create_dir_all(moved.parent().unwrap()).unwrap();
    std::fs::copy(&path, moved).unwrap();
    assert_eq!(cache.get("tokenizers", &other), None);
}

#[test]
fn no_place_to_write_is_no_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for cache in [Cache::disabled(), Cache::at(file.path())] {
        cache.put("tokenizers", &Digest::of(KEY), b"payload");
        assert_eq!(cache.get("tokenizers", &Digest::of(KEY)), None);
        let shelf = cache.shelf("tokens", &Digest::of(KEY));
        shelf.put(&Digest::of(KEY), b"payload");
        assert_eq!(shelf.get(&Digest::of(KEY)), None);
    }
}

/// Rounds through a corpus of twice the cache: what fits is found in every round, and nothing is written twice.
#[test]
fn cache_of_half_a_corpus_serves_half_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let limit = 40 * PAYLOAD as u64;
    // Each round in a process of its own, that begins after the others are a day old; the last ones begin in the middle.
    for (round, begin) in [0, 0, 0, 40, 40].into_iter().enumerate() {
        let cache = limited(directory.path(), limit);
        let shelves = [0, 1].map(|file| cache.shelf("tokens", &key(file)));
        let mut hits = 0;
        for at in 0..80 {
            let at = (begin + at) % 80;
            let shelf = &shelves[at / 40];
            match shelf.get(&key(at)) {
                Some(payload) => hits += usize::from(payload.len() == PAYLOAD),
                None => shelf.put(&key(at), &vec![at as u8; PAYLOAD]),
            }
        }
        assert!(on_disk(directory.path()) <= limit, "round {round}");
        assert!(if round == 0 { hits == 0 } else { hits >= 35 }, "round {round}: {hits} hits");
        make_old(directory.path(), DAY);
    }
}

/// Of the corpora that nobody uses any more, the one used longest ago makes way.
#[test]
fn cache_lets_go_of_what_was_used_longest_ago() {
    let directory = tempfile::tempdir().unwrap();
    let limit = 35 * PAYLOAD as u64;
    let fill = |file: usize| {
        let cache = limited(directory.path(), limit);
        let shelf = cache.shelf("tokens", &key(file));
        (0..10).for_each(|at| shelf.put(&key(at), &vec![file as u8; PAYLOAD]));
    };
    let there = |file: usize| {
        let cache = Cache::at(directory.path());
        let shelf = cache.root().unwrap().join(layout::shelf("tokens", &key(file)));
        std::fs::read_dir(shelf).map_or(0, Iterator::count)
    };
    let shelf = |file: usize| directory.path().join(layout::shelf("tokens", &key(file)));
    for file in 0..3 {
        fill(file);
        make_old(&shelf(file), (4 - file as u32) * DAY);
    }
    // The first is used again: the second is now the oldest.
    assert!(limited(directory.path(), limit).shelf("tokens", &key(0)).get(&key(3)).is_some());
    fill(3);
    assert_eq!((there(0), there(2), there(3)), (10, 10, 10));
    assert!(there(1) < 5, "{} left", there(1));
    assert!(on_disk(directory.path()) <= limit);

    // All in use within the hour: a fifth is not kept rather than pushing one of them out.
    make_old(&shelf(2), Duration::from_secs(60));
    make_old(&shelf(1), Duration::from_secs(60));
    fill(4);
    assert_eq!((there(0), there(2), there(3)), (10, 10, 10));
    assert!(there(4) < 10);
}

#[test]
fn cache_of_nothing_keeps_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cache = limited(directory.path(), 0);
    cache.put("digests", &key(0), b"payload");
    cache.shelf("tokens", &key(0)).put(&key(0), b"payload");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// What an earlier nanorun wrote is never read, counted as removable, and goes first; nothing else is ever touched.
#[test]
fn cache_knows_entries_of_earlier_versions_and_removes_them_first() {
    let directory = tempfile::tempdir().unwrap();
    let name = key(1).to_string();
    let write = |path: String| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, vec![7; PAYLOAD]).unwrap();
        path
    };
    let old =
        [write(format!("tokens/{}/{name}", &name[..2])), write(format!("tokens.2.0/{}/{name}", &name[..16]))];
    let left_over = write(format!("tokenizers.2.1/ab/{name}.77-0.tmp"));
    make_old(&left_over, 2 * DAY);
    let others = [
        write("photos/ab/cat.png".to_owned()),
        write(format!("tokens/{}/notes.txt", &name[..2])),
        write(format!("results/ab/{name}")),
        write(name.clone()),
    ];
    let cache = limited(directory.path(), 4 * PAYLOAD as u64);
    cache.put("digests", &key(2), b"digest");
    let facts = cache.facts().unwrap();
    assert_eq!((facts.removable.entries, facts.limit), (3, 4 * PAYLOAD as u64));
    assert!(facts.removable.bytes >= 3 * PAYLOAD as u64);
    let counts: Vec<_> = facts.kinds.iter().map(|kind| (kind.kind, kind.entries)).collect();
    assert_eq!(counts, [("tokens", 0), ("tokenizers", 0), ("digests", 1), ("indices", 0), ("scores", 0)]);

    let shelf = cache.shelf("tokens", &key(0));
    assert_eq!(shelf.get(&key(1)), None);
    (0..3).for_each(|at| shelf.put(&key(at), &vec![0; PAYLOAD]));
    assert!((0..3).all(|at| shelf.get(&key(at)).is_some()));
    assert!(old.iter().chain([&left_over]).all(|path| !path.exists()));
    assert!(others.iter().all(|path| path.exists()));
    assert!(cache.get("digests", &key(2)).is_some());
}

#[test]
fn cache_is_cleared_by_kind_and_by_age() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path());
    let shelves = [0, 1].map(|file| cache.shelf("tokens", &key(file)));
    for shelf in &shelves {
        shelf.put(&key(0), &vec![1; PAYLOAD]);
    }
    cache.put("digests", &key(0), b"digest");
    make_old(&directory.path().join(layout::shelf("tokens", &key(1))), 8 * DAY);
    let select = |kind: Option<&str>, days: Option<u32>| Selection {
        kind: kind.map(str::to_owned),
        older_than: days.map(|days| days * DAY),
    };
    let count = |selection: &Selection, remove| cache.clear(selection, remove).0;
    assert_eq!(count(&select(None, None), false), 3);
    assert_eq!(count(&select(Some("old"), None), true), 0);
    assert_eq!(count(&select(Some("tokens"), Some(9)), true), 0);
    assert_eq!(count(&select(Some("tokens"), Some(7)), true), 1);
    assert!(shelves[0].get(&key(0)).is_some() && shelves[1].get(&key(0)).is_none());
    assert_eq!(count(&select(Some("tokens"), None), true), 1);
    assert!(cache.get("digests", &key(0)).is_some());
    assert_eq!(count(&select(None, None), true), 1);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "empty directories stay");
    // What uses it goes on.
    shelves[0].put(&key(0), b"again");
    assert_eq!(shelves[0].get(&key(0)).unwrap(), b"again");
}

/// Several processes, here threads with a cache each, write and remove at once: every entry is whole or absent.
#[test]
fn cache_serves_many_at_once_and_stays_within_its_bound() {
    let directory = tempfile::tempdir().unwrap();
    let limit = 30 * PAYLOAD as u64;
    std::thread::scope(|scope| {
        for writer in 0..4_usize {
            let root = directory.path();
            scope.spawn(move || {
                let cache = limited(root, limit);
                let shelf = cache.shelf("tokens", &key(writer % 2));
                for at in 0..60 {
                    let number = (at * 7 + writer) % 20;
                    match shelf.get(&key(number)) {
                        Some(payload) => assert_eq!(payload, vec![number as u8; PAYLOAD]),
                        None => shelf.put(&key(number), &vec![number as u8; PAYLOAD]),
                    }
                    if at % 20 == 19 {
                        cache.clear(&Selection::default(), true);
                    }
                }
            });
        }
    });
    // Each may write a fiftieth of the limit, and an entry, before it looks again.
    assert!(on_disk(directory.path()) <= limit + 4 * (limit / 50 + 2 * PAYLOAD as u64));
}
