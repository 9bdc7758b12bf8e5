//! A run's weights, taken up again from its newest checkpoint.

use std::path::Path;
use std::sync::Arc;

use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::plan::{Facts as _, PlannedRun};
use crate::record::AttemptDir;
use crate::run::engine::engine;
use crate::train::checkpoint::{Checkpoint, CheckpointStore};
use crate::train::engine::Engine;
use crate::train::session::plain;

use super::Experiment;

/// A run as it can be sampled from.
pub struct Trained {
    /// What the run is called.
    pub label: String,
    /// Steps its weights were trained for.
    pub step: u64,
    /// Steps it is trained for in all.
    pub steps: u64,
    /// T, the context.
    pub sequence_len: usize,
    /// The model with those weights.
    pub engine: Box<dyn Engine>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
}

impl Experiment {
    /// The run whose key begins with `key`, or the first that has a checkpoint, with its newest weights or those of one
    /// checkpoint's directory.
    ///
    /// # Errors
    /// No such run, a key that fits several, or no checkpoint that verifies.
    pub fn trained(&self, key: Option<&str>, checkpoint: Option<&Path>, threads: usize) -> Result<Trained> {
        self.require_data()?;
        let key = key.map(|key| self.key_of(key)).transpose()?;
        let candidates = self.selected_runs().filter(|run| key.is_none_or(|key| run.key.run == key));
        let mut damaged = None;
        for run in candidates {
            let mut found = checkpoint.map(|dir| Checkpoint::read(&self.files, dir)).transpose()?;
            for attempt in self.attempts_by_weight(run)? {
                if found.is_some() {
                    break;
                }
                let store = CheckpointStore::new(self.files.clone(), attempt.checkpoints());
                let newest = store.latest_valid()?;
                damaged = damaged.or_else(|| newest.skipped.into_iter().next());
                found = newest.checkpoint;
            }
            let Some(checkpoint) = found else { continue };
            // The plan may be made by what the results know of the data; its text takes the tokenizer that is here.
            let here = self.library.data(&run.config.data)?;
            if here.content != run.config.data.content {
                return Err(Error::input(
                    "the data or the tokenizer are not those that this run was trained with",
                )
                .file(self.dir.path())
                .key("data.shards")
                .help(
                    "bring back the shards and the tokenizer of then: without them, its tokens are no text",
                ));
            }
            let mut engine = engine(&run.config, threads)?;
            // Weights alone: sampling needs no optimizer, so that of no step is taken up.
            engine.restore(0, &plain(&checkpoint.params)?, &[])?;
            return Ok(Trained {
                label: self.label(run),
                step: checkpoint.state.step,
                steps: run.sizes.steps,
                sequence_len: run.config.model.sequence_len(),
                engine,
                tokenizer: Arc::clone(self.library.open(&run.config.data)?.tokenizer()),
            });
        }
        let candidates = self.selected_runs().filter(|run| key.is_none_or(|key| run.key.run == key));
        let ended = candidates.map(|run| Ok(self.standing(run)?.has_ended())).collect::<Result<Vec<_>>>()?;
        // What has ended is not trained again unless somebody asks for it.
        let again = format!("{} --rerun --set checkpoint.final=weights trains it again", self.command("run"));
        let over = ended.iter().all(|ended| *ended);
        if let Some(skipped) = damaged {
            let error = Error::from(skipped.reason);
            return Err(if over { error.help(again) } else { error });
        }
        let error = Error::input(if over {
            "no weights of this experiment's runs were kept"
        } else {
            "no run of this experiment has weights yet"
        });
        let error = error.file(self.dir.path()).expected("a checkpoint of a run that was at least begun");
        Err(error.help(if over { again } else { format!("train it first: {}", self.command("run")) }))
    }

    /// The attempts at a run: the one that speaks for it, then the others, the last of them first.
    fn attempts_by_weight(&self, run: &PlannedRun) -> Result<Vec<AttemptDir>> {
        let speaks = self.standing(run)?.attempt;
        let others = self.dir.run(&run.key.run).attempts()?.into_iter().rev();
        Ok(speaks.clone().into_iter().chain(others.filter(|other| Some(other) != speaks.as_ref())).collect())
    }
}
