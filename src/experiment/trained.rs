//! A run's weights, taken up again from its newest checkpoint.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::param::ParamSpec;
use crate::model::specs::specs;
use crate::plan::evaluation::VAL_BPB;
use crate::plan::run_config::BackendChoice;
use crate::plan::{Facts as _, PlannedRun};
use crate::record::AttemptDir;
use crate::run::engine::inference_engine;
use crate::run::room::{Memory, Wanted};
use crate::run::state::Status;
use crate::run::trained::{Trained, Wants};
use crate::train::checkpoint::{Checkpoint, CheckpointStore};
use crate::train::engine::in_order;
use crate::train::named_tensors::plain;

use super::Experiment;

impl Experiment {
    /// The run whose key begins with `key`, or the first that has a checkpoint, with its newest weights or those of one
    /// checkpoint's directory. `backend` computes in place of the run's own.
    ///
    /// # Errors
    /// No such run, a key that fits several, or no checkpoint that verifies.
    pub fn trained(
        &self,
        key: Option<&str>,
        checkpoint: Option<&Path>,
        backend: Option<&BackendChoice>,
        threads: usize,
        wants: Wants<'_>,
    ) -> Result<Trained> {
        let config_of = |run: &PlannedRun| {
            let mut config = run.config.clone();
            if let Some(backend) = backend {
                config.backend = backend.clone();
            }
            config
        };
        let asked = self.manifest.selected_cells().all(|cell| cell.settings.run.preflight);
        let (run, checkpoint) = self.checkpoint_if(key, checkpoint, &|run| {
            let config = config_of(run);
            // A checkpoint is in memory whole while the engine takes its weights.
            let wanted = Wanted { config: &config, what: wants(&config), threads, copies: 1 };
            if asked { wanted.fits(&Memory::here()) } else { Ok(()) }
        })?;
        let config = config_of(run);
        let found = plain(&checkpoint.params)?;
        in_order(&specs(&config.model), &found)?;
        let mut read = |spec: &ParamSpec| {
            let values = found.iter().find(|tensor| tensor.name == spec.name);
            Ok(values.map_or_else(Vec::new, |tensor| tensor.values.wide().into_owned()))
        };
        let engine = inference_engine(&config.model, &config.backend, threads, &mut read)?;
        Ok(Trained {
            label: self.label(run),
            step: checkpoint.state.step,
            steps: Some(run.sizes.steps),
            config,
            engine,
            tokenizer: Arc::clone(self.library.open(&run.config.data)?.tokenizer()),
            notes: Vec::new(),
        })
    }

    /// The run whose key begins with `key`, or the first that has a checkpoint, and its newest checkpoint or the one in a
    /// directory. Its data are here.
    ///
    /// # Errors
    /// As [`Self::trained`].
    pub fn checkpoint(
        &self,
        key: Option<&str>,
        checkpoint: Option<&Path>,
    ) -> Result<(&PlannedRun, Checkpoint<'static>)> {
        self.checkpoint_if(key, checkpoint, &|_| Ok(()))
    }

    /// The same, unless `before` refuses a run whose checkpoint is about to be read.
    fn checkpoint_if(
        &self,
        key: Option<&str>,
        checkpoint: Option<&Path>,
        before: &dyn Fn(&PlannedRun) -> Result<()>,
    ) -> Result<(&PlannedRun, Checkpoint<'static>)> {
        self.require_data()?;
        let key = key.map(|key| self.key_of(key)).transpose()?;
        let candidates = self.selected_runs().filter(|run| key.is_none_or(|key| run.key.run == key));
        let mut damaged = None;
        for run in candidates {
            let attempts = self.attempts_by_weight(run)?;
            if checkpoint.is_some() || !attempts.is_empty() {
                before(run)?;
            }
            let mut found = checkpoint.map(|dir| Checkpoint::read(&self.files, dir)).transpose()?;
            for attempt in attempts {
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
            return Ok((run, checkpoint));
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

    /// What a run's own evaluation gave at a step, where it has a result.
    pub fn evaluated(&self, run: &PlannedRun, step: u64) -> Option<f64> {
        let Status::Finished(result) = self.standing(run).ok()?.status else { return None };
        let point = result.evals.iter().rev().find(|eval| eval.step == step)?;
        Some(point.values.get(VAL_BPB)?.0)
    }

    /// The attempts at a run: the one that speaks for it, then the others, the last of them first.
    fn attempts_by_weight(&self, run: &PlannedRun) -> Result<Vec<AttemptDir>> {
        let speaks = self.standing(run)?.attempt;
        let others = self.dir.run(&run.key.run).attempts()?.into_iter().rev();
        Ok(speaks.clone().into_iter().chain(others.filter(|other| Some(other) != speaks.as_ref())).collect())
    }
}
