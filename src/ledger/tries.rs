//! `tries.jsonl`: which changes were tried against which control, in order.
//!
//! Whoever tries many changes against one control finds an improvement sooner or later, by chance. So the i-th try is
//! judged at a share 6 / (pi^2 i^2) of the error that is allowed: over all tries, however many there are going to be, the
//! shares add up to 1. That holds only where a number is taken before anything is known of the outcome, and by one try
//! alone: numbers are reserved under a lock, in a log that is only ever added to. A try that is taken up again keeps its
//! number; with more seeds it is another look, and so another try.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{Files, utc_now};
use crate::hash::Digest;

/// The version of the log's lines.
pub const TRIES_FORMAT: u32 = 1;

const NAME: &str = "tries.jsonl";

/// What is reserved: one number against one control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reservation {
    /// What tells this try from every other: the same again is the same try.
    pub id: Digest,
    /// What is tried against: a run's key without its seed.
    pub control: Digest,
    /// What people call it.
    pub control_name: String,
    /// The directory of the try's results.
    pub directory: String,
    /// The manifest.
    pub manifest: String,
    /// In what it departs from it.
    pub varied: Vec<String>,
    /// The seeds that it is judged over.
    pub seeds: Vec<u64>,
    /// What is compared.
    pub metric: String,
    /// The error that is allowed over all tries against the control.
    pub alpha: f64,
}

/// How a try came out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The try.
    pub id: String,
    /// Its number.
    pub number: u64,
    /// What people call its control.
    pub control_name: String,
    /// The directory of its results.
    pub directory: String,
    /// Its arm there.
    pub arm: String,
    /// What was compared.
    pub metric: String,
    /// As in `scorecard.parquet`.
    pub outcome: String,
    /// As in `scorecard.parquet`.
    pub finding: Option<String>,
    /// Mean of try - control.
    pub difference: Option<f64>,
    /// Lower confidence bound.
    pub lower: Option<f64>,
    /// Upper confidence bound.
    pub upper: Option<f64>,
    /// Confidence of the interval.
    pub confidence: f64,
    /// How much worse still passes.
    pub margin: Option<f64>,
    /// Pairs of runs with equal seeds.
    pub pairs: u64,
    /// The verdict in words.
    pub detail: String,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    format: u32,
    at: String,
    #[serde(flatten)]
    event: Event,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Reserved {
        number: u64,
        #[serde(flatten)]
        what: Box<Reservation>,
    },
    Judged(Box<Judged>),
}

/// The log as it was read.
#[derive(Debug, Clone, Default)]
pub struct Tries {
    reserved: Vec<(u64, Reservation)>,
    judged: Vec<Judged>,
    /// Lines that cannot be read: each may have been a try.
    damaged: u64,
}

/// What tells a try from every other.
pub fn try_id(control: &Digest, arm: &Digest, seeds: &[u64], metric: &str, margin: f64) -> Digest {
    let mut text = format!("nanorun try 1\n{control}\n{arm}\n{metric}\n{margin:?}\n");
    for seed in seeds {
        text.push_str(&seed.to_string());
        text.push('\n');
    }
    Digest::of(text.as_bytes())
}

impl Tries {
    fn path(results: &Path) -> PathBuf {
        results.join(NAME)
    }

    /// Reads the log; where there is none nothing was tried.
    ///
    /// # Errors
    /// A log that is there and cannot be read, or is of a later version.
    pub fn read(files: &Files, results: &Path) -> Result<Self> {
        let path = Self::path(results);
        let bytes = files.read_if_there(&path)?.unwrap_or_default();
        // A last line without its end was never reserved: whoever wrote it died before it was told its number.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let mut tries = Self::default();
        for line in bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Line>(line) {
                Ok(line) if line.format > TRIES_FORMAT => {
                    return Err(Error::input(format!("the log of tries has format {}", line.format))
                        .file(path)
                        .expected(format!("format {TRIES_FORMAT} or an earlier one"))
                        .help("a newer nanorun wrote it: use that one"));
                }
                Ok(Line { event: Event::Reserved { number, what }, .. }) => {
                    tries.reserved.push((number, *what));
                }
                Ok(Line { event: Event::Judged(judged), .. }) => tries.judged.push(*judged),
                Err(_) => tries.damaged += 1,
            }
        }
        Ok(tries)
    }

    /// Takes the number of a try against its control, before anything of it is trained: the same try has the number that
    /// it had, another one the next. -> the number, from 1, and whether it was taken before
    ///
    /// # Errors
    /// A log that cannot be read or written; somebody who holds it for long.
    pub fn reserve(files: &Files, results: &Path, what: &Reservation) -> Result<(u64, bool)> {
        files.create_dir_all(results)?;
        let _lock = super::lock(results)?;
        let tries = Self::read(files, results)?;
        if let Some((number, _)) = tries.reserved.iter().find(|(_, known)| known.id == what.id) {
            return Ok((*number, true));
        }
        let before = tries.reserved.iter().filter(|(_, known)| known.control == what.control);
        let last = before.map(|(number, _)| *number).max().unwrap_or(0);
        // What cannot be read may have been tries against this control.
        let number = last + tries.damaged + 1;
        let event = Event::Reserved { number, what: Box::new(what.clone()) };
        add(files, results, event)?;
        Ok((number, false))
    }

    /// Writes down how a try came out; once for each outcome.
    ///
    /// # Errors
    /// A log that cannot be written.
    pub fn judged(files: &Files, results: &Path, judged: &Judged) -> Result<()> {
        let _lock = super::lock(results)?;
        let known = Self::read(files, results)?;
        if known.judged.iter().rev().find(|other| other.id == judged.id) == Some(judged) {
            return Ok(());
        }
        add(files, results, Event::Judged(Box::new(judged.clone())))
    }

    /// How the tries came out whose results are in a directory, the last outcome of each.
    pub(super) fn judged_in(&self, directory: &str) -> impl Iterator<Item = &Judged> {
        self.judged.iter().enumerate().filter_map(move |(at, judged)| {
            let later = self.judged.iter().skip(at + 1).any(|other| other.id == judged.id);
            (judged.directory == directory && !later).then_some(judged)
        })
    }

    /// How many tries there were against a control.
    pub fn against(&self, control: &Digest) -> usize {
        self.reserved.iter().filter(|(_, known)| known.control == *control).count()
    }
}

fn add(files: &Files, results: &Path, event: Event) -> Result<()> {
    let line = Line { format: TRIES_FORMAT, at: utc_now(), event };
    let text = serde_json::to_string(&line)
        .map_err(|error| Error::internal(format!("a try has no JSON form: {error}")))?;
    Ok(files.append_line(&Tries::path(results), &text)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn reservation(arm: &str, control: &str) -> Reservation {
        let (arm, control) = (Digest::of(arm.as_bytes()), Digest::of(control.as_bytes()));
        Reservation {
            id: try_id(&control, &arm, &[1, 2], "val_bpb", 0.01),
            control,
            control_name: "m linear".to_owned(),
            directory: "m~1".to_owned(),
            manifest: "m.toml".to_owned(),
            varied: vec!["x = 1".to_owned()],
            seeds: vec![1, 2],
            metric: "val_bpb".to_owned(),
            alpha: 0.05,
        }
    }

    #[test]
    fn numbers_count_for_each_control_and_a_try_keeps_its_own() {
        let place = tempfile::tempdir().unwrap();
        let files = Files::unsynced();
        let take = |arm, control| Tries::reserve(&files, place.path(), &reservation(arm, control)).unwrap();
        assert_eq!(take("a", "one"), (1, false));
        assert_eq!(take("b", "one"), (2, false));
        assert_eq!(take("a", "other"), (1, false));
        assert_eq!(take("a", "one"), (1, true));
        assert_eq!(take("c", "one"), (3, false));
        // More seeds are another look.
        let one = Digest::of(b"one");
        assert_ne!(
            try_id(&one, &one, &[1, 2], "val_bpb", 0.01),
            try_id(&one, &one, &[1, 2, 3], "val_bpb", 0.01)
        );
        assert_eq!(Tries::read(&files, place.path()).unwrap().against(&one), 3);
    }

    #[test]
    fn of_many_at_once_each_has_a_number_of_its_own() {
        let place = tempfile::tempdir().unwrap();
        let numbers = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (place, numbers) = (place.path(), &numbers);
                scope.spawn(move || {
                    for arm in 0..5 {
                        let what = reservation(&format!("{worker} {arm}"), "one");
                        let (number, _) = Tries::reserve(&Files::unsynced(), place, &what).unwrap();
                        numbers.lock().unwrap().push(number);
                    }
                });
            }
        });
        let mut numbers = numbers.into_inner().unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_read_counts_as_tries_and_a_torn_line_does_not() {
        let place = tempfile::tempdir().unwrap();
        let files = Files::unsynced();
        let take = |arm| Tries::reserve(&files, place.path(), &reservation(arm, "one")).unwrap().0;
        assert_eq!(take("a"), 1);
        let path = place.path().join(NAME);
        let log = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{log}no line of a log\n{{\"format\":1,\"at\"")).unwrap();
        assert_eq!(take("b"), 3);
        std::fs::write(&path, log.replace("\"format\":1", "\"format\":9")).unwrap();
        let error = Tries::reserve(&files, place.path(), &reservation("c", "one")).unwrap_err();
        assert_eq!(error.class().exit_code(), 2);
    }

    #[test]
    fn the_last_outcome_of_a_try_counts() {
        let place = tempfile::tempdir().unwrap();
        let files = Files::unsynced();
        let judged = |id: &str, outcome: &str| Judged {
            id: id.to_owned(),
            directory: "m~1".to_owned(),
            outcome: outcome.to_owned(),
            ..Judged::default()
        };
        for one in [judged("a", "undecided"), judged("b", "pass"), judged("a", "pass"), judged("a", "pass")] {
            Tries::judged(&files, place.path(), &one).unwrap();
        }
        let tries = Tries::read(&files, place.path()).unwrap();
        assert_eq!(tries.judged.len(), 3);
        assert_eq!(
            tries.judged_in("m~1").cloned().collect::<Vec<_>>(),
            [judged("b", "pass"), judged("a", "pass")]
        );
    }
}
