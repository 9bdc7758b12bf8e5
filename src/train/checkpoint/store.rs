//! The checkpoints of one run: which are there, which is the newest that verifies, which may go.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::CheckpointError;
use super::evaluation::EvalProgress;
use super::format::Checkpoint;
use crate::files::{FileError, Files, free_bytes};

/// Where the progress of an evaluation is kept.
const EVALUATION: &str = "evaluation.json";

/// The directory `checkpoints/` of one run.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    files: Files,
    dir: PathBuf,
}

/// Which checkpoints stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest stay whatever they are, 1 at least. Two while a run is under way: one to go back to when
    /// the newest turns out to be damaged.
    pub newest: usize,
    /// Every so many steps one is kept; 0 keeps none but the last.
    pub every: u64,
    /// How many of the kept ones stay, the newest of them; 0 is all.
    pub keep: usize,
    /// The run's last step, whose checkpoint is always kept.
    pub last_step: u64,
    /// Steps at which other runs fork: they stay until their caller lets go of them.
    pub pinned: BTreeSet<u64>,
}

/// The newest checkpoint that verifies.
#[derive(Debug)]
pub struct LatestValid {
    /// It, or none where none verifies.
    pub checkpoint: Option<Checkpoint<'static>>,
    /// Newer ones that were passed over, newest first.
    pub skipped: Vec<Skipped>,
}

/// A checkpoint that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// Its directory.
    pub dir: PathBuf,
    /// Why.
    pub reason: CheckpointError,
}

impl CheckpointStore {
    /// The store at `dir`, which need not exist yet.
    pub fn new(files: Files, dir: impl Into<PathBuf>) -> Self {
        Self { files, dir: dir.into() }
    }

    /// Where the checkpoint of a step is: `step_000500`, longer from a million on.
    pub fn step_dir(&self, step: u64) -> PathBuf {
        self.dir.join(format!("step_{step:06}"))
    }

    /// The steps that have a checkpoint, ascending, valid or not.
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let error = |error| FileError::new("read the directory", &self.dir, error);
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(error(e).into()),
        };
        let mut steps = Vec::new();
        for entry in entries {
            let path = entry.map_err(error)?.path();
            // Only the exact spelling: two directories never claim one step.
            steps.extend(step_of(&path).filter(|&step| self.step_dir(step) == path));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Writes a checkpoint durably.
    ///
    /// # Errors
    /// [`CheckpointError::NoRoom`] before anything is written, where the file system says that it has too little room;
    /// what the file system refuses.
    pub fn save(&self, checkpoint: &Checkpoint<'_>) -> Result<(), CheckpointError> {
        self.files.create_dir_all(&self.dir)?;
        let needs = checkpoint.size();
        if let Some(free) = free_bytes(&self.dir).filter(|&free| free < needs) {
            return Err(CheckpointError::NoRoom { step: checkpoint.state.step, needs, free });
        }
        checkpoint.write(&self.files, &self.step_dir(checkpoint.state.step))
    }

    /// Copies the checkpoint of a step from another store, byte for byte, durably and as a whole. Nothing is verified.
    ///
    /// # Errors
    /// As [`Self::save`]; a checkpoint that is not there or cannot be read.
    pub fn copy_from(&self, other: &Self, step: u64) -> Result<(), CheckpointError> {
        let from = other.step_dir(step);
        let error = |error| FileError::new("read the directory", &from, error);
        let mut names: Vec<(std::ffi::OsString, u64)> = Vec::new();
        for entry in std::fs::read_dir(&from).map_err(error)? {
            let entry = entry.map_err(error)?;
            names.push((entry.file_name(), entry.metadata().map_err(error)?.len()));
        }
        self.files.create_dir_all(&self.dir)?;
        let needs = names.iter().map(|(_, bytes)| bytes).sum();
        if let Some(free) = free_bytes(&self.dir).filter(|&free| free < needs) {
            return Err(CheckpointError::NoRoom { step, needs, free });
        }
        let staged = self.files.stage_dir(&self.step_dir(step))?;
        for name in names.iter().filter_map(|(name, _)| name.to_str()) {
            staged.write(name, &self.files.read(&from.join(name))?)?;
        }
        Ok(staged.commit()?)
    }

    /// Reads and verifies the checkpoint of a step.
    pub fn load(&self, step: u64) -> Result<Checkpoint<'static>, CheckpointError> {
        let dir = self.step_dir(step);
        let checkpoint = Checkpoint::read(&self.files, &dir)?;
        if checkpoint.state.step != step {
            let what = format!("it holds step {}", checkpoint.state.step);
            return Err(CheckpointError::Malformed { path: dir, what });
        }
        Ok(checkpoint)
    }

    /// The newest checkpoint that verifies, and what was passed over on the way to it.
    pub fn latest_valid(&self) -> Result<LatestValid, CheckpointError> {
        self.latest_valid_where(|_| Ok(()))
    }

    /// The newest checkpoint that verifies and that `accept` takes: one of another run or class is passed over too.
    pub fn latest_valid_where(
        &self,
        accept: impl Fn(&Checkpoint<'static>) -> Result<(), CheckpointError>,
    ) -> Result<LatestValid, CheckpointError> {
        let mut skipped = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            let outcome = self.load(step).and_then(|checkpoint| accept(&checkpoint).map(|()| checkpoint));
            match outcome {
                Ok(checkpoint) => return Ok(LatestValid { checkpoint: Some(checkpoint), skipped }),
                Err(reason) => skipped.push(Skipped { dir: self.step_dir(step), reason }),
            }
        }
        Ok(LatestValid { checkpoint: None, skipped })
    }

    /// Removes what `retention` does not keep; the newest always stays. To be called once a newer one is there.
    /// Returns the removed steps.
    pub fn prune(&self, retention: &Retention) -> Result<Vec<u64>, CheckpointError> {
        let surplus = surplus(&self.steps()?, retention);
        for &step in &surplus {
            // One that cannot be removed now only takes room; the next call tries again.
            self.files.discard_dir(&self.step_dir(step))?;
        }
        Ok(surplus)
    }

    /// Lets go of everything but the weights of every checkpoint but those at `whole`. Damaged ones stay as they are.
    pub fn keep_weights(&self, whole: &[u64]) -> Result<(), CheckpointError> {
        for step in self.steps()?.into_iter().filter(|step| !whole.contains(step)) {
            // Of a damaged one, whoever comes to need it is told what is wrong with it.
            if let Err(CheckpointError::File(error)) =
                Checkpoint::keep_weights(&self.files, &self.step_dir(step))
            {
                self.files.may_stay(Err(error))?;
            }
        }
        Ok(())
    }

    /// Removes every checkpoint but those at `whole`.
    pub fn remove_all(&self, whole: &[u64]) -> Result<(), CheckpointError> {
        for step in self.steps()?.into_iter().filter(|step| !whole.contains(step)) {
            self.files.discard_dir(&self.step_dir(step))?;
        }
        Ok(())
    }

    /// Keeps how far an evaluation has come, durably, in place of what was kept before.
    pub fn save_evaluation(&self, progress: &EvalProgress) -> Result<(), CheckpointError> {
        self.files.create_dir_all(&self.dir)?;
        Ok(self.files.write(&self.dir.join(EVALUATION), &progress.to_bytes())?)
    }

    /// How far the last evaluation came; none where nothing is kept or what is kept is damaged, since an evaluation
    /// can always be made again.
    pub fn evaluation(&self) -> Result<Option<EvalProgress>, CheckpointError> {
        let bytes = self.files.read_if_there(&self.dir.join(EVALUATION))?;
        Ok(bytes.and_then(|bytes| EvalProgress::from_bytes(&bytes)))
    }
}

/// Of the ascending `steps` that have checkpoints, those that may go: rolling ones as soon as enough newer ones are
/// there, kept ones beyond the newest `keep`.
pub fn surplus(steps: &[u64], retention: &Retention) -> Vec<u64> {
    let is_kept = |step: u64| {
        step == retention.last_step
            || (step > 0 && retention.every > 0 && step.is_multiple_of(retention.every))
    };
    let kept: Vec<_> = steps.iter().copied().filter(|&step| is_kept(step)).collect();
    let staying = if retention.keep == 0 { kept.len() } else { retention.keep.min(kept.len()) };
    let staying = &kept[kept.len() - staying..];
    let older = steps.len().saturating_sub(retention.newest.max(1));
    steps
        .iter()
        .take(older)
        .copied()
        .filter(|step| !staying.contains(step) && !retention.pinned.contains(step))
        .collect()
}

fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step_")?.parse().ok()
}
