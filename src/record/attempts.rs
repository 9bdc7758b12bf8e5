//! What the attempts at a run have left: one place that knows which of them speaks for the run.

use super::divergence::Divergence;
use super::layout::{AttemptDir, RunDir};
use super::result::{RecordError, RunResult};
use crate::files::{FileResult, Files};
use crate::hash::Digest;

/// An attempt and how it ended, as far as its records say.
#[derive(Debug)]
pub struct Attempt {
    /// Where it is.
    pub dir: AttemptDir,
    /// Its result, if it is finished; an error where there is one that cannot be read.
    pub result: Result<Option<RunResult>, RecordError>,
    /// How it diverged, if it did.
    pub divergence: Option<Divergence>,
}

/// The attempts at one run, in order.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Those that are there.
    pub all: Vec<Attempt>,
    /// Results that a version with layout 1 put aside when it trained again.
    pub put_aside: Vec<RunResult>,
}

impl Attempts {
    /// Reads what is there. A result that is damaged is kept as such; it hides no other.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn read(files: &Files, run: &RunDir) -> FileResult<Self> {
        let mut all = Vec::new();
        for dir in run.attempts()? {
            let read = RunResult::read(files, &dir.result());
            let (result, mut divergence) = match read {
                // A version that did not look took it for finished.
                Ok(Some(result)) => match Divergence::of(&result) {
                    Some(divergence) => (Ok(None), Some(divergence)),
                    None => (Ok(Some(result)), None),
                },
                other => (other, None),
            };
            let mut result = result;
            if divergence.is_none() && matches!(result, Ok(None)) {
                match Divergence::read(files, &dir.divergence()) {
                    Ok(found) => divergence = found,
                    Err(error) => result = Err(error),
                }
            }
            all.push(Attempt { dir, result, divergence });
        }
        // Whatever is wrong with what an older version put aside, it speaks for nothing.
        let read = |path: std::path::PathBuf| RunResult::read(files, &path).ok().flatten();
        let put_aside = run.put_aside().into_iter().filter_map(read).collect();
        Ok(Self { all, put_aside })
    }

    /// The finished attempts with their results, lowest first.
    pub fn finished(&self) -> impl DoubleEndedIterator<Item = (&AttemptDir, &RunResult)> {
        self.all.iter().filter_map(|attempt| Some((&attempt.dir, attempt.result.as_ref().ok()?.as_ref()?)))
    }

    /// The run's result: that of the lowest finished attempt at this key under this evaluation; without one given, of
    /// the lowest at all. Directories show 12 of a key's 64 digits, so the rest is compared as well.
    pub fn result(&self, run_key: &Digest, evaluation: Option<&Digest>) -> Option<(&AttemptDir, &RunResult)> {
        self.finished().find(|(_, result)| {
            result.run_key == *run_key
                && evaluation.is_none_or(|evaluation| result.evaluation().as_ref() == Some(evaluation))
        })
    }

    /// Two results of this key that cannot both be right, the earlier first.
    pub fn contradiction(&self) -> Option<(&RunResult, &RunResult)> {
        let results: Vec<&RunResult> =
            self.put_aside.iter().chain(self.finished().map(|(_, result)| result)).collect();
        let pairs = results
            .iter()
            .enumerate()
            .flat_map(|(at, later)| results.iter().take(at).map(move |earlier| (*earlier, *later)));
        pairs.into_iter().find(|(earlier, later)| later.contradicts(earlier))
    }

    /// The first record that cannot be read.
    pub fn damage(self) -> Option<RecordError> {
        self.all.into_iter().find_map(|attempt| attempt.result.err())
    }

    /// The number of the last attempt; 0 where there is none.
    pub fn last(&self) -> u32 {
        self.all.last().map_or(0, |attempt| attempt.dir.number())
    }
}
