//! What was asked over many experiments, and how it came out: `ledger.parquet` beside their directories.
//!
//! It is made from results alone (plans, tables, and the log of tries), so deleting it loses nothing. A run keeps it up as
//! it ends; `nanorun ledger` makes it anew. Of the log of tries ([`tries`]) nothing can be made again: it is only ever
//! added to, and nothing removes it.

mod rows;
mod tries;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files::{DirLock, Files, LockError, LockHolder};
use crate::host::host_name;
use crate::record::{ExperimentDir, LedgerRow, experiments_in, read_table, write_table};

pub use rows::cost;
pub use tries::{Judged, Reservation, TRIES_FORMAT, Tries, try_id};

/// The version of the ledger: raised when a column changes its meaning.
pub const FORMAT: u32 = 1;

/// Its name among the results.
pub const NAME: &str = "ledger.parquet";

/// How long somebody else may write it before a run goes on without: it can always be made again.
const PATIENCE: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// A ledger as it was made, with what could not be read.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Its rows, oldest question first.
    pub rows: Vec<LedgerRow>,
    /// Experiments that are not in it, and why.
    pub damaged: Vec<Error>,
}

impl Ledger {
    /// Of everything in `results`; writes nothing.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn of(files: &Files, results: &Path) -> Result<Self> {
        let mut ledger = Self::default();
        let tries = Tries::read(files, results)?;
        for dir in experiments_in(results)? {
            match rows::of_experiment(files, &dir, &tries) {
                Ok(mut rows) => ledger.rows.append(&mut rows),
                Err(error) => ledger.damaged.push(error),
            }
        }
        in_order(&mut ledger.rows);
        Ok(ledger)
    }

    /// Writes it, where what is there is another one. -> whether it did
    ///
    /// # Errors
    /// Results that cannot be written.
    pub fn write(&self, files: &Files, results: &Path) -> Result<bool> {
        let path = results.join(NAME);
        if read_table::<LedgerRow>(files, &path).is_ok_and(|there| there == self.rows) {
            return Ok(false);
        }
        let _lock = lock(results)?;
        write_table(files, &path, &self.rows)?;
        Ok(true)
    }
}

/// Brings the ledger up to date with one experiment. Whatever is in the way is only told: it can be made again.
pub fn update(files: &Files, dir: &ExperimentDir) {
    if let Err(error) = updated(files, dir) {
        files.note(format!(
            "{NAME} is not brought up to date (`nanorun ledger` does it at any time): {}",
            error.what()
        ));
    }
}

fn updated(files: &Files, dir: &ExperimentDir) -> Result<()> {
    let results = dir.path().parent().filter(|parent| !parent.as_os_str().is_empty());
    let results = results.unwrap_or(Path::new("."));
    let _lock = lock(results)?;
    let path = results.join(NAME);
    let known = if path.is_file() { read_table::<LedgerRow>(files, &path).ok() } else { None };
    let rows = match known {
        Some(mut rows) => {
            let own = rows::name_of(dir);
            rows.retain(|row| row.experiment != own);
            rows.append(&mut rows::of_experiment(files, dir, &Tries::read(files, results)?)?);
            // What was removed since is no more in it.
            let there: BTreeSet<String> = experiments_in(results)?.iter().map(rows::name_of).collect();
            rows.retain(|row| there.contains(&row.experiment));
            in_order(&mut rows);
            rows
        }
        // None is there, or one of another version.
        None => Ledger::of(files, results)?.rows,
    };
    Ok(write_table(files, &path, &rows)?)
}

fn in_order(rows: &mut [LedgerRow]) {
    // What has not begun comes last.
    let key = |row: &LedgerRow| (row.started.is_empty(), row.started.clone(), row.experiment.clone());
    rows.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.arm.cmp(&b.arm)));
}

/// The lock on what several experiments share: held for moments.
fn lock(results: &Path) -> Result<DirLock> {
    let holder = LockHolder::this_process(&host_name());
    let mut asked = 0;
    let lock = DirLock::acquire_waiting(results, &holder, PAUSE, |_| {
        asked += 1;
        asked < PATIENCE
    });
    lock.map_err(|error| match error {
        LockError::Held { .. } => Error::run(error.to_string()).help(
            "it holds the ledger and the log of tries for moments only: try again, or look at what it does",
        ),
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{PlanRecord, RunRow, ScorecardRow};

    fn experiment(files: &Files, results: &Path, name: &str, started: &str) -> ExperimentDir {
        let dir = ExperimentDir::at(results.join(name));
        std::fs::create_dir_all(dir.path()).unwrap();
        let plan = PlanRecord {
            layout: crate::record::LAYOUT,
            name: name.to_owned(),
            question: Some(format!("Does {name} help?")),
            hypothesis: Some("It does.".to_owned()),
            manifest: "m.toml".to_owned(),
            directory: None,
            profile: None,
            sets: Vec::new(),
            env: std::collections::BTreeMap::new(),
            only: Vec::new(),
            varied: Vec::new(),
            no_share: false,
            nanorun: "0.1.0".to_owned(),
            control: None,
            runs: Vec::new(),
        };
        plan.write(files, &dir).unwrap();
        let run = |arm: &str, shared_steps| RunRow {
            arm: arm.to_owned(),
            status: "finished".to_owned(),
            commit: "92d63d4e".to_owned(),
            backend: "cpu".to_owned(),
            steps: 4,
            steps_done: 4,
            tokens: 400,
            flops_per_token: 10.0,
            shared_steps,
            train_seconds: 8.0,
            eval_seconds: 1.0,
            started: started.to_owned(),
            finished: started.to_owned(),
            ..RunRow::default()
        };
        write_table(files, &dir.file("runs.parquet"), &[run("a", 0), run("b", 2)]).unwrap();
        let verdict = ScorecardRow {
            verdict: "quality".to_owned(),
            arm: "b".to_owned(),
            control: Some("a".to_owned()),
            metric: "val_bpb".to_owned(),
            outcome: "pass".to_owned(),
            finding: Some("better".to_owned()),
            pairs: 3,
            difference: Some(-0.01),
            lower: Some(-0.02),
            upper: Some(-0.001),
            ..ScorecardRow::default()
        };
        write_table(files, &dir.file("scorecard.parquet"), &[verdict]).unwrap();
        dir
    }

    #[test]
    fn a_ledger_that_is_kept_up_is_the_one_that_is_made_anew() {
        let place = tempfile::tempdir().unwrap();
        let (files, results) = (Files::new(), place.path());
        let second = experiment(&files, results, "second", "2026-02-01T00:00:00Z");
        let first = experiment(&files, results, "first", "2026-01-01T00:00:00Z");
        update(&files, &second);
        update(&files, &first);
        let read = || read_table::<LedgerRow>(&files, &results.join(NAME)).unwrap();
        let kept = read();
        assert_eq!(kept.iter().map(|row| row.experiment.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        assert_eq!(Ledger::of(&files, results).unwrap().rows, kept);
        // Deleting it loses nothing.
        std::fs::remove_file(results.join(NAME)).unwrap();
        update(&files, &second);
        assert_eq!(read(), kept);
        // One of another version is made anew; what is gone is gone from it.
        std::fs::write(results.join(NAME), "of another version").unwrap();
        std::fs::remove_dir_all(first.path()).unwrap();
        update(&files, &second);
        assert_eq!(read().len(), 1);
        assert!(!Ledger::of(&files, results).unwrap().write(&files, results).unwrap());
    }

    #[test]
    fn shared_steps_cost_once() {
        let place = tempfile::tempdir().unwrap();
        let files = Files::new();
        experiment(&files, place.path(), "one", "2026-01-01T00:00:00Z");
        let row = Ledger::of(&files, place.path()).unwrap().rows.remove(0);
        assert_eq!((row.arm_flops, row.flops), (2000.0, 6000.0));
        assert_eq!((row.arm_seconds, row.seconds), (5.0, 14.0));
        assert_eq!((row.arms.as_str(), row.seeds, row.effect), ("a, b", 3, Some(-0.01)));
        assert_eq!(row.hypothesis.as_deref(), Some("It does."));
        assert_eq!((row.runs, row.finished_runs, row.status.as_str()), (2, 2, "finished"));
    }

    #[test]
    fn an_experiment_that_cannot_be_read_hides_no_other() {
        let place = tempfile::tempdir().unwrap();
        let files = Files::new();
        experiment(&files, place.path(), "one", "2026-01-01T00:00:00Z");
        let other = experiment(&files, place.path(), "other", "2026-01-02T00:00:00Z");
        std::fs::write(other.file("scorecard.parquet"), "no table").unwrap();
        let ledger = Ledger::of(&files, place.path()).unwrap();
        assert_eq!((ledger.rows.len(), ledger.damaged.len()), (1, 1));
        assert_eq!(ledger.damaged[0].class().exit_code(), 2);
    }
}
