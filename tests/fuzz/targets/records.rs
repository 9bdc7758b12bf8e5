//! What runs and experiments leave.

use std::fs;

use nanorun::internals::files::{DirLock, Files, LockError, LockHolder};
use nanorun::internals::hash::Digest;
use nanorun::internals::record::column::table_rows;
use nanorun::internals::record::journal::{Event, Journal};
use nanorun::internals::record::{ExperimentDir, RunRow, StepRow, read_table};
use nanorun::internals::run::batch_search;

use super::{NUMBER_WORDS, PARQUET_WORDS, judged};
use crate::harness::{Target, Verdict, scratch};
use crate::seeds;

#[test]
fn journal() {
    let place = scratch();
    let dir = ExperimentDir::at(place.path().join("fuzzed"));
    seeds::results(&dir);
    let path = dir.run(&Digest::of(b"key")).attempt(1).journal();
    let seed = fs::read(&path).unwrap();
    let journal = Journal::new(Files::new(), &path);
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        let text = journal.read().map_err(|error| error.to_string())?;
        let whole = input.split(|&byte| byte == b'\n').count() - 1;
        if text.entries.len() + text.damaged.len() != whole {
            return Err(format!("{text:?} is not what {whole} lines hold"));
        }
        // What follows is read whatever came before.
        let event = Event::Interrupted { step: 7 };
        journal.add(event.clone()).map_err(|error| format!("nothing can follow: {error}"))?;
        let after = journal.read().map_err(|error| error.to_string())?;
        if after.damaged != text.damaged || after.entries.last().map(|entry| &entry.event) != Some(&event) {
            return Err(format!("{text:?} became {after:?}"));
        }
        Ok(if text.damaged.is_empty() { Verdict::Accepted } else { Verdict::Refused })
    };
    Target::new("journal", vec![seed], &NUMBER_WORDS, &read).run();
}

/// A table of results.
#[test]
fn table() {
    let place = scratch();
    let dir = ExperimentDir::at(place.path().join("fuzzed"));
    seeds::results(&dir);
    let path = dir.file("steps.parquet");
    let seed = fs::read(&path).unwrap();
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        judged(read_table::<StepRow>(&Files::new(), &path), "steps.parquet")?;
        // Past the checksum, which keeps all but the seed out.
        if table_rows::<RunRow>(input).is_ok() {
            return Err("steps are taken for runs".to_owned());
        }
        Ok(if table_rows::<StepRow>(input).is_ok() { Verdict::Accepted } else { Verdict::Refused })
    };
    Target::new("table", vec![seed], PARQUET_WORDS, &read).run();
}

/// Sizes found by search.
#[test]
fn device_batch_size() {
    let place = scratch();
    let dir = ExperimentDir::at(place.path().join("fuzzed"));
    let (files, question) = (Files::new(), Digest::of(b"question"));
    batch_search::record(&files, &dir, &question, 32).unwrap();
    let path = dir.file("device_batch_size.toml");
    let seed = fs::read(&path).unwrap();
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        let found = batch_search::recorded(&files, &dir, &question);
        if found.is_ok() {
            batch_search::record(&files, &dir, &question, 32)
                .map_err(|error| format!("read, but {error}"))?;
        }
        judged(found, "device_batch_size.toml")
    };
    Target::new("device_batch_size", vec![seed], &[b"=", b"[", b"{", b"\"\"", b"\n"], &read).run();
}

/// What a lock file says of its holder, while another has the lock.
#[test]
fn lock() {
    let place = scratch();
    let holder = LockHolder::this_process("here");
    let _held = DirLock::acquire(place.path(), &holder).unwrap();
    let path = place.path().join(".lock");
    let seed = fs::read(&path).unwrap();
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        match DirLock::acquire(place.path(), &holder) {
            Err(LockError::Held { holder: Some(_), .. }) => Ok(Verdict::Accepted),
            Err(LockError::Held { .. }) => Ok(Verdict::Refused),
            other => Err(format!("two have the lock, or {other:?}")),
        }
    };
    Target::new("lock", vec![seed], &NUMBER_WORDS, &read).run();
}
