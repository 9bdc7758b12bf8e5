//! The step loop: trains a run from wherever it stands to a step, evaluating and saving on the way.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::control_word;
use crate::data::Cursor;
use crate::error::{Error, Result};
use crate::files::{ExactF64, now};
use crate::hash::Digest;
use crate::plan::evaluation::CORE;
use crate::plan::key::KeyCursor;
use crate::plan::run_config::{InitSource, RunConfig};
use crate::stop::{signal_name, stopped, unless_stopped};

use super::cadence::{evaluates_at, is_saved, measures_core_at, retention};
use super::checkpoint::{Checkpoint, CheckpointStore, EvalPoint, TrainState};
use super::document_losses::DocumentLosses;
use super::engine::Engine;
use super::evaluation::{Evaluation, eval_settings};
use super::guard::DriftGuard;
use super::named_tensors::{named, plain};
use super::observer::{Event, Observer, Origin};
use super::result_hash::train_hash;
use super::rows::Rows;
use super::saves::Saves;

/// A run being trained.
pub struct Session<'a> {
    /// What it is.
    pub config: &'a RunConfig,
    /// Its key after each number of steps, `k[0]` to `k[N]`.
    pub keys: KeyCursor<'a>,
    /// Its rows.
    pub rows: &'a dyn Rows,
    /// Its checkpoints.
    pub store: &'a CheckpointStore,
    /// Steps whose checkpoint stays until the experiment is done: other runs start from them.
    pub forks: &'a [u64],
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Whether to stop. Asked between micro-batches and evaluation batches; inside them the engine and the rows ask
    /// for themselves. A step that was begun is dropped.
    pub stop: &'a dyn Fn() -> bool,
    /// The time, for saving by it.
    pub clock: &'a dyn Fn() -> Instant,
    /// Whether no other run trains in this process, so that the process's memory is this run's.
    pub alone: bool,
    /// Measures the CORE metric, where the configuration asks for it.
    pub core: Option<&'a dyn CoreMeter>,
}

/// Measures the CORE metric of a model in training.
pub trait CoreMeter {
    /// Digest of what defines it beside the model.
    fn settings(&self) -> Digest;

    /// Its value with the current weights; `note` hears what is worth a line.
    ///
    /// # Errors
    /// Examples that do not fit the model, memory that drifts; a stop.
    fn measure(&self, engine: &mut dyn Engine, note: &mut dyn FnMut(&str)) -> Result<f64>;
}

/// How a session ended.
#[derive(Debug)]
pub enum Ending {
    /// All steps are done.
    Finished(Box<Finished>),
    /// Asked to stop; a checkpoint of this step is on disk.
    Interrupted {
        /// Steps done.
        step: u64,
    },
    /// A loss or a value of an evaluation was not finite.
    Diverged {
        /// Losses, evaluations and timings before it.
        state: Box<TrainState>,
        /// What was not finite: `loss`, or the evaluation's value by its name.
        metric: &'static str,
        /// It.
        value: f64,
        /// The newest checkpoint before it.
        last_good: Option<u64>,
    },
}

/// A trained run.
#[derive(Debug)]
pub struct Finished {
    /// Losses, evaluations and timings.
    pub state: TrainState,
    /// Hash over losses and final parameters.
    pub train_hash: Digest,
    /// The environment class it was trained in.
    pub environment_class: String,
    /// The last evaluation by the documents of its text; none where that evaluation was not made here.
    pub documents: Option<DocumentLosses>,
}

impl Session<'_> {
    /// Trains to the last step. `start` is a checkpoint of this run, or of another with the same key at that step.
    ///
    /// # Errors
    /// Data, memory or file failures. A loss that is not finite is an [`Ending`].
    pub fn run(
        &mut self,
        engine: &mut dyn Engine,
        start: Option<(Checkpoint<'static>, Origin)>,
    ) -> Result<Ending> {
        control_word::set();
        let last = self.config.schedule.num_iterations;
        let (mut state, origin) = match start {
            Some((checkpoint, origin)) => {
                let (parameters, optimizer) = (plain(&checkpoint.params)?, plain(&checkpoint.optimizer)?);
                // Weights alone are to be evaluated: without an optimizer there is none to be taken up, of any step.
                let before = self.config.schedule.steps_before;
                let optimized = if checkpoint.weights_alone { 0 } else { before + checkpoint.state.step };
                engine.restore(optimized, &parameters, &optimizer)?;
                let mut state = checkpoint.state;
                // Evaluation settings are not in the run key: what was evaluated otherwise is evaluated again.
                let settings = eval_settings(self.config);
                state.evals.retain(|eval| eval.settings == settings);
                let settings = self.core.map(CoreMeter::settings);
                state.core.retain(|point| Some(point.settings) == settings);
                (state, origin)
            }
            None => (self.fresh(engine)?, Origin::Scratch),
        };
        self.observer.event(&Event::Started { step: state.step, origin });
        let mut guard = DriftGuard::new(self.config.eval.max_drift_bytes);
        let mut train = None;
        let mut causal = false;
        let mut last_documents = None;
        // A prefix lies in another run's directory: this run's own first checkpoint is still to be written.
        let saved = match origin {
            Origin::Checkpoint | Origin::Attempt => Some(state.step),
            Origin::Scratch | Origin::Prefix => None,
        };
        let mut saves = Saves::new(saved, self.config.checkpoint.minutes, (self.clock)());
        loop {
            let step = state.step;
            if evaluates_at(self.config, step) && state.evals.iter().all(|eval| eval.step != step) {
                self.save(engine, &state, &mut saves)?;
                let evaluated = self.checked_evaluation(engine, &mut guard, &mut state, &mut causal);
                match unless_stopped(evaluated)? {
                    Some(Evaluation::Done(documents)) => last_documents = documents,
                    Some(Evaluation::NotFinite { metric, value }) => {
                        let last_good = self.store.steps()?.into_iter().rev().find(|&saved| saved < step);
                        return Ok(Ending::Diverged { state: Box::new(state), metric, value, last_good });
                    }
                    None => {
                        self.tell_stop(&state, true);
                        return Ok(Ending::Interrupted { step });
                    }
                }
            }
            if let Some(meter) = self.core
                && measures_core_at(self.config, step)
                && state.core.iter().all(|point| point.step != step)
            {
                self.save(engine, &state, &mut saves)?;
                if unless_stopped(self.measure_core(meter, engine, &mut state))?.is_none() {
                    self.tell_stop(&state, true);
                    return Ok(Ending::Interrupted { step });
                }
            }
            if is_saved(self.config, self.forks, step) || saves.is_due((self.clock)()) {
                self.save(engine, &state, &mut saves)?;
            }
            if step == last {
                break;
            }
            let source = match &mut train {
                Some(source) => source,
                None => train.insert(self.rows.train(state.cursor.clone())?),
            };
            let Some(loss) = unless_stopped(self.step(engine, source.as_mut(), &mut state))? else {
                // The step is dropped: its rows are read again after the checkpoint before it.
                engine.drop_gradients()?;
                self.tell_stop(&state, saves.has(step));
                self.save(engine, &state, &mut saves)?;
                return Ok(Ending::Interrupted { step });
            };
            if !loss.is_finite() {
                let (metric, value) = ("loss", f64::from(loss));
                let last_good = self.store.steps()?.pop();
                return Ok(Ending::Diverged { state: Box::new(state), metric, value, last_good });
            }
        }
        let losses = state.step_losses.iter().map(|loss| loss.0);
        let train_hash = train_hash(losses, &named(&engine.parameters()?));
        let environment_class = engine.environment_class();
        let documents = last_documents;
        Ok(Ending::Finished(Box::new(Finished { state, train_hash, environment_class, documents })))
    }

    /// Measures CORE with the weights of a step whose checkpoint is on disk.
    fn measure_core(
        &mut self,
        meter: &dyn CoreMeter,
        engine: &mut dyn Engine,
        state: &mut TrainState,
    ) -> Result<()> {
        self.asked()?;
        let (started, step) = (now(), state.step);
        let value = meter.measure(engine, &mut |text| self.observer.event(&Event::Note(text)))?;
        let losses = state.step_losses.iter().map(|loss| loss.0);
        let train_hash = train_hash(losses, &named(&engine.parameters()?));
        let values = [(CORE.to_owned(), ExactF64(value))].into();
        let point = EvalPoint { step, settings: meter.settings(), train_hash, values };
        self.observer.event(&Event::Measured { point: &point, seconds: started.elapsed().as_secs_f64() });
        state.core.push(point);
        Ok(())
    }

    fn fresh(&mut self, engine: &dyn Engine) -> Result<TrainState> {
        Ok(TrainState {
            step: 0,
            run_key: self.key(0)?,
            config: config_digest(self.config)?,
            environment_class: engine.environment_class(),
            step_losses: Vec::new(),
            step_seconds: Vec::new(),
            evals: Vec::new(),
            core: Vec::new(),
            counters: BTreeMap::new(),
            cursor: match &self.config.init {
                InitSource::Resume { data: Some(next), .. } => {
                    Some(Cursor::resumed(*next, self.config.row_order.ranks))
                }
                _ => None,
            },
        })
    }

    pub(super) fn key(&mut self, step: u64) -> Result<Digest> {
        self.keys.link(step).ok_or_else(|| Error::internal(format!("the run has no key at step {step}")))
    }

    /// An error of class `Interrupted` where it is to stop.
    pub(super) fn asked(&self) -> Result<()> {
        if (self.stop)() { Err(stopped()) } else { Ok(()) }
    }

    /// Says that it stops, and what will be on disk; `saved` where it is there already.
    fn tell_stop(&mut self, state: &TrainState, saved: bool) {
        let why = signal_name().map_or_else(String::new, |name| format!(": {name}"));
        let step = state.step;
        let checkpoint = if saved {
            format!("the checkpoint of step {step} is on disk")
        } else {
            format!("a checkpoint of step {step} will be on disk in a moment")
        };
        self.observer.event(&Event::Note(&format!("stopping{why}; {checkpoint}")));
    }

    /// Puts the state on disk unless it is there already, then drops checkpoints that need not stay.
    fn save(&mut self, engine: &dyn Engine, state: &TrainState, saves: &mut Saves) -> Result<()> {
        if saves.has(state.step) {
            return Ok(());
        }
        let began = (self.clock)();
        self.observer.event(&Event::Saving);
        let (parameters, optimizer) = (engine.parameters()?, engine.optimizer_state()?);
        let (params, optimizer) = (named(&parameters), named(&optimizer));
        self.store.save(&Checkpoint { state: state.clone(), params, optimizer, weights_alone: false })?;
        saves.saved(state.step, began, (self.clock)());
        self.store.prune(&retention(self.config, self.forks, 2))?;
        self.observer.event(&Event::Saved { step: state.step });
        Ok(())
    }
}

/// Digest of the whole configuration, cadences included.
pub fn config_digest(config: &RunConfig) -> Result<Digest> {
    let json = serde_json::to_vec(config);
    Ok(Digest::of(
        &json.map_err(|e| Error::internal("the run's configuration cannot be written").because(e))?,
    ))
}
