//! The CORE metric of a model: a bundle's tasks one after another, watched for memory, each task's score kept as soon as
//! it is there.
//!
//! Scores are kept in the cache under the hash of weights, model, tokenizer, environment class and task: what was
//! evaluated once is not evaluated again, and a stop or a kill loses the task at hand alone.

use std::sync::Arc;

use crate::data::{Cache, LoaderBytes, Tokenizer};
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};
use crate::model::config::ModelConfig;
use crate::plan::run_config::RunConfig;
use crate::tasks::bundle::{Bundle, Task};
use crate::tasks::evaluate::{CoreResult, Score, Subject};
use crate::train::engine::Engine;
use crate::train::guard::{DriftGuard, HeldBytes};
use crate::train::named_tensors::named;
use crate::train::result_hash::train_hash;
use crate::train::session::CoreMeter;

/// Positions that upstream computes rotary tables for, in training rows: nothing longer is fed.
const ROTARY_ROWS: usize = 10;

/// How far an evaluation is.
#[derive(Debug, Clone, Copy)]
pub struct CoreProgress<'a> {
    /// The task at hand.
    pub task: &'a str,
    /// Examples of all tasks that are done.
    pub done: u64,
    /// Of so many.
    pub of: u64,
}

/// What a CORE evaluation is about.
pub struct CoreEvaluation<'a> {
    /// The tasks.
    pub bundle: &'a Bundle,
    /// The model's configuration.
    pub config: &'a RunConfig,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Where scores are kept.
    pub cache: &'a Cache,
    /// Whether nothing else runs in this process, so that its memory is this evaluation's.
    pub alone: bool,
}

/// The most tokens that a model is fed: as many as upstream's feeds, beyond its training rows; of a model with an
/// embedding a position as many as it has.
pub fn context(model: &ModelConfig) -> usize {
    match model {
        ModelConfig::Gpt(_) | ModelConfig::Bigram(_) => model.sequence_len().saturating_mul(ROTARY_ROWS),
        ModelConfig::Microgpt(_) => model.sequence_len(),
    }
}

impl CoreEvaluation<'_> {
    /// Evaluates a model with the weights of `engine`. `each` hears how far it is. Returns what there is to tell beside.
    ///
    /// # Errors
    /// Examples that do not fit the model (class `Input`); more memory left behind than `eval.max_drift_bytes`, or logits
    /// that are no numbers (class `Run`); a stop (class `Interrupted`).
    pub fn run(
        &self,
        engine: &mut dyn Engine,
        each: &mut dyn FnMut(CoreProgress<'_>),
    ) -> Result<(CoreResult, Option<String>)> {
        let model = self.model(engine)?;
        let of = self.bundle.examples() as u64;
        let mut guard = DriftGuard::new(self.config.eval.max_drift_bytes);
        let mut watch = guard.start(HeldBytes::read(engine, LoaderBytes::default(), self.alone));
        let (mut scores, mut before) = (Vec::with_capacity(self.bundle.tasks.len()), 0);
        for task in &self.bundle.tasks {
            let key = key(&model, task);
            let known = self.cache.score(&key).map(|[correct, examples]| Score { correct, examples });
            let known = known.filter(|score| score.examples == task.examples() as u64);
            let score = if let Some(score) = known {
                score
            } else {
                let tokenizer = self.tokenizer;
                let mut subject = Subject { engine, tokenizer, context: context(&self.config.model) };
                let score = subject.score(task, &mut |engine, done| {
                    each(CoreProgress { task: &task.label, done: before + done, of });
                    watch.after_batch(HeldBytes::read(engine, LoaderBytes::default(), self.alone))
                })?;
                self.cache.keep_score(&key, [score.correct, score.examples]);
                score
            };
            scores.push(score);
            before += score.examples;
            each(CoreProgress { task: &task.label, done: before, of });
        }
        let told = watch.finish(HeldBytes::read(engine, LoaderBytes::default(), self.alone))?;
        let result = CoreResult::of(self.bundle, &scores);
        if !result.core.is_finite() {
            return Err(Error::internal(format!("the CORE metric is {}", result.core)));
        }
        Ok((result, told))
    }

    /// Hash of everything of the model that decides a score.
    fn model(&self, engine: &dyn Engine) -> Result<Digest> {
        let config = serde_json::to_vec(&(&self.config.model, &self.config.backend.precision));
        let config = config
            .map_err(|error| Error::internal("a model's configuration cannot be written").because(error))?;
        let mut canonical = Canonical::new("nanorun core model");
        canonical.digest("weights", &train_hash(std::iter::empty(), &named(&engine.parameters()?)));
        canonical.bytes("config", &config).digest("tokenizer", &self.tokenizer.digest());
        Ok(canonical.str("class", &engine.environment_class()).finish())
    }
}

/// The meter of a run in training.
pub(super) struct CoreInTraining {
    pub(super) bundle: Bundle,
    pub(super) config: RunConfig,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) cache: Cache,
    pub(super) alone: bool,
}

impl CoreMeter for CoreInTraining {
    fn settings(&self) -> Digest {
        self.bundle.digest()
    }

    fn measure(&self, engine: &mut dyn Engine, note: &mut dyn FnMut(&str)) -> Result<f64> {
        let Self { bundle, config, tokenizer, cache, alone } = self;
        let evaluation = CoreEvaluation { bundle, config, tokenizer, cache, alone: *alone };
        let (found, told) = evaluation.run(engine, &mut |_| {})?;
        if let Some(told) = told {
            note(&told);
        }
        Ok(found.core)
    }
}

fn key(model: &Digest, task: &Task) -> Digest {
    // The number is of how prompts are computed: another rounding may decide a near tie otherwise.
    let mut canonical = Canonical::new("nanorun core score 2");
    canonical.digest("model", model).digest("task", &task.digest()).finish()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::run::room::Use;
    use crate::run::trained::{ForeignOptions, Trained, foreign};
    use crate::stop::StopFlag;
    use crate::tasks::Limits;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    /// What computing one prompt takes.
    fn one_row(_: &RunConfig) -> Use {
        Use::Evaluate { rows: 1 }
    }

    /// Stopped after any example, it loses the task at hand alone.
    #[test]
    fn a_stop_loses_one_task_at_most() {
        let bundle = Bundle::open(&fixture("core_bundle"), Limits { max_per_task: Some(11) }).unwrap();
        let mut trained =
            foreign(&fixture("nanochat_base"), &ForeignOptions::default(), 2, &one_row).unwrap();
        let place = tempfile::tempdir().unwrap();
        let run = |trained: &mut Trained, cache: &Cache, stop_after: Option<u64>| {
            let Trained { config, tokenizer, engine, .. } = trained;
            let flag = StopFlag::default();
            engine.stop_on(&flag);
            let mut heard = Vec::new();
            let evaluation = CoreEvaluation { bundle: &bundle, config, tokenizer, cache, alone: false };
            let found = evaluation.run(engine.as_mut(), &mut |progress| {
                heard.push(progress.done);
                if stop_after.is_some_and(|after| progress.done >= after) {
                    flag.raise();
                }
            });
            (found, heard)
        };
        let (expected, all) = run(&mut trained, &Cache::disabled(), None);
        let (expected, told) = expected.unwrap();
        assert_eq!(told, None);
        // Every example, and every task.
        assert_eq!(all.len(), 7 * 12);
        for (number, after) in [1, 11, 17, 40].into_iter().enumerate() {
            let cache = Cache::at(place.path().join(number.to_string()));
            let (stopped, heard) = run(&mut trained, &cache, Some(after));
            assert_eq!(stopped.unwrap_err().class().exit_code(), 130);
            let kept = after / 11;
            assert!(heard.contains(&after) && !heard.contains(&(after + 1)));
            let (found, heard) = run(&mut trained, &cache, None);
            assert_eq!(found.unwrap().0, expected);
            assert_eq!(heard.len() as u64, kept + (7 - kept) * 12, "stopped after {after}");
            // Then all of it is there.
            assert_eq!(run(&mut trained, &cache, None).1.len(), 7);
        }
    }

    /// Memory is what it was after every example, whatever the examples' length.
    #[test]
    fn memory_is_flat_over_examples() {
        let bundle = Bundle::open(&fixture("core_bundle"), Limits { max_per_task: Some(11) }).unwrap();
        let mut trained =
            foreign(&fixture("nanochat_base"), &ForeignOptions::default(), 1, &one_row).unwrap();
        let Trained { config, tokenizer, engine, .. } = &mut trained;
        config.eval.max_drift_bytes = 0;
        let cache = &Cache::disabled();
        let evaluation = CoreEvaluation { bundle: &bundle, config, tokenizer, cache, alone: false };
        evaluation.run(engine.as_mut(), &mut |_| {}).unwrap();
    }
}
