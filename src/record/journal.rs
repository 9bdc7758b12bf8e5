//! `journal.jsonl`: what happened to a run, in order, one event a line.
//!
//! For people and for finding out what went wrong. No number of a run depends on it; the facts that its result records
//! beside them do: since when it trained, how often it was resumed, which steps it took over from another run. What that
//! asks of the reader:
//!
//! - A last line without its end is what a crash in the middle of a write leaves. It is no event, and no damage: the next
//!   event is written in its place.
//! - Any other line that is no event is damage. It costs that event alone and stops no run, but it is told, by its number:
//!   [`JournalText::damaged`]. A run with such lines is not known to have trained all its steps itself, so its speed is
//!   not judged.
//! - A clock that went backwards harms nobody: the order is that of the lines.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::files::{FileResult, Files, utc_now};
use crate::hash::Digest;

/// In what circumstances a life of a run trained. No number depends on them; whether its speed may be judged does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The class it computes in.
    pub environment_class: String,
    /// CPU or accelerator.
    pub machine: String,
    /// Threads.
    pub threads: usize,
    /// Whether nothing else trained: neither in its process nor, as far as it could see, on its host. Older versions
    /// speak of the process.
    pub alone: bool,
    /// The generation of its lease: of two lives that overlap, the one with the lower number lost it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, UTC, by the host's clock.
    pub at: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happens to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It began at step 0.
    Started {
        /// Its run key.
        run_key: Digest,
        /// The class it computes in.
        environment_class: String,
        /// The host.
        host: String,
        /// nanorun's version.
        nanorun: String,
        /// In what circumstances; journals of older versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        conditions: Option<Conditions>,
    },
    /// It took over the steps that another run of the experiment shares with it.
    Forked {
        /// That run's key.
        from: Digest,
        /// Steps taken over.
        step: u64,
        /// The host; journals of older versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// In what circumstances; journals of older versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        conditions: Option<Conditions>,
    },
    /// It carries on from a checkpoint of an earlier attempt at the same run: one that is finished, to be evaluated
    /// otherwise, or one of a process of which nothing was heard.
    TakenUp {
        /// That attempt.
        attempt: u32,
        /// The checkpoint's step.
        step: u64,
        /// The host.
        host: String,
        /// In what circumstances; journals of older versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        conditions: Option<Conditions>,
    },
    /// It carried on from a checkpoint.
    Resumed {
        /// The checkpoint's step.
        step: u64,
        /// The host.
        host: String,
        /// In what circumstances; journals of older versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        conditions: Option<Conditions>,
    },
    /// A checkpoint was passed over.
    CheckpointSkipped {
        /// Its directory's name.
        checkpoint: String,
        /// Why.
        reason: String,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Its step.
        step: u64,
        /// Wall seconds it took; journals of older versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// An evaluation was made.
    Evaluated {
        /// At which step.
        step: u64,
        /// Its values.
        values: BTreeMap<String, f64>,
        /// Its eval hash.
        eval_hash: Digest,
        /// Wall seconds it took; journals of older versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// It was stopped by a signal.
    Interrupted {
        /// Steps done.
        step: u64,
    },
    /// It cannot go on.
    Failed {
        /// Steps done.
        step: u64,
        /// Why.
        reason: String,
        /// The last checkpoint that can be gone back to.
        last_checkpoint: Option<u64>,
    },
    /// A loss or an evaluation was no finite number: it is over until somebody asks for another attempt.
    Diverged {
        /// Steps done.
        step: u64,
        /// What, in words.
        reason: String,
        /// The last checkpoint before it.
        last_checkpoint: Option<u64>,
    },
    /// Its end was taken over from other results, with everything above.
    TakenOver {
        /// The attempt there.
        from: String,
        /// The host.
        host: String,
    },
    /// Another attempt stands for the run from here on.
    SetAside {
        /// Why.
        reason: String,
    },
    /// It is done.
    Finished {
        /// Its result hash.
        result_hash: Digest,
    },
}

/// Appends to a journal.
#[derive(Debug, Clone)]
pub struct Journal {
    files: Files,
    path: PathBuf,
}

/// A journal as read back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JournalText {
    /// Its events, oldest first.
    pub entries: Vec<Entry>,
    /// Lines (from 1) that are no event: a last one without its end is no damage and not among them.
    pub damaged: Vec<usize>,
}

impl Journal {
    /// The journal at `path`; it need not exist yet.
    pub fn new(files: Files, path: impl Into<PathBuf>) -> Self {
        Self { files, path: path.into() }
    }

    /// Adds an event, durably.
    pub fn add(&self, event: Event) -> FileResult<()> {
        let entry = Entry { at: utc_now(), event };
        // Plain data with string keys: it always has a JSON form.
        let line = serde_json::to_string(&entry).unwrap_or_default();
        self.files.append_line(&self.path, &line)
    }

    /// Reads it; one that is not there is empty. Lines that are no events are passed over and told.
    pub fn read(&self) -> FileResult<JournalText> {
        let bytes = self.files.read_if_there(&self.path)?.unwrap_or_default();
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let mut text = JournalText::default();
        for (number, line) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
            match serde_json::from_slice(line) {
                Ok(entry) => text.entries.push(entry),
                Err(_) => text.damaged.push(number + 1),
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn events() -> Vec<Event> {
        let digest = Digest::of(b"x");
        vec![
            Event::Started {
                run_key: digest,
                environment_class: "cpu/x86_64-fma".into(),
                host: "crunch".into(),
                nanorun: "0.1.0".into(),
                conditions: Some(Conditions {
                    environment_class: "cpu/x86_64-fma".into(),
                    machine: "Some CPU".into(),
                    threads: 2,
                    alone: true,
                    generation: Some(1),
                }),
            },
            Event::Forked { from: digest, step: 3, host: None, conditions: None },
            Event::Checkpoint { step: 5, seconds: Some(0.5) },
            Event::Evaluated {
                step: 5,
                values: [("val_bpb".into(), 2.5)].into(),
                eval_hash: digest,
                seconds: None,
            },
            Event::Interrupted { step: 5 },
            Event::CheckpointSkipped { checkpoint: "step_000006".into(), reason: "damaged".into() },
            Event::Resumed { step: 5, host: "crunch".into(), conditions: None },
            Event::Failed { step: 6, reason: "NaN".into(), last_checkpoint: None },
            Event::Finished { result_hash: digest },
        ]
    }

    #[test]
    fn events_come_back_in_order_and_a_torn_line_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let journal = Journal::new(Files::new(), &path);
        assert_eq!(journal.read().unwrap(), JournalText::default());
        for event in events() {
            journal.add(event).unwrap();
        }
        let read = |expected: &[Event], damaged: &[usize]| {
            let text = journal.read().unwrap();
            assert_eq!(text.entries.into_iter().map(|entry| entry.event).collect::<Vec<_>>(), expected);
            assert_eq!(text.damaged, damaged);
        };
        read(&events(), &[]);
        let whole = fs::read(&path).unwrap();
        let cut = whole.len() - 20;
        fs::write(&path, &whole[..cut]).unwrap();
        read(&events()[..8], &[]);
        journal.add(events()[8].clone()).unwrap();
        read(&events(), &[]);
        let mut flipped = whole;
        flipped[3] = 0xff;
        fs::write(&path, flipped).unwrap();
        read(&events()[1..], &[1]);
    }

    #[test]
    fn lines_look_like_this() {
        let lines: Vec<_> = events()
            .into_iter()
            .map(|event| serde_json::to_string(&Entry { at: "2026-01-31T23:59:59Z".into(), event }).unwrap())
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
