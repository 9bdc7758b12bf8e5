//! The step loop: trains a run from wherever it stands to a step, evaluating and saving on the way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::control_word;
use crate::data::{Batch, Cursor, LoaderBytes};
use crate::error::{Error, Result};
use crate::files::{ExactF32, ExactF64, now};
use crate::hash::Digest;
use crate::ops::SequenceShape;
use crate::plan::evaluation::Evaluation as EvaluationSettings;
pub use crate::plan::evaluation::{VAL_BPB, VAL_LOSS};
use crate::plan::key::KeyCursor;
use crate::plan::run_config::{EvalConfig, InitSource, RunConfig};
use crate::stop::{signal_name, stopped, unless_stopped};

use super::causality::check_causality;
use super::checkpoint::{self, Checkpoint, CheckpointStore, EvalPoint, EvalProgress, Retention, TrainState};
use super::engine::{Engine, MicroBatch, NamedTensor};
use super::guard::{DriftGuard, HeldBytes};
use super::observer::{EvalDone, Event, Observer, Origin, StepDone};
use super::result_hash::train_hash;
use super::saves::Saves;

/// How often the progress of a long evaluation is put on disk.
const KEEP_PROGRESS_EVERY: Duration = Duration::from_secs(20);

/// Rows of tokens, one micro-batch after another.
pub trait BatchSource {
    /// The next micro-batch.
    fn next_batch(&mut self) -> Result<Batch>;

    /// What it holds beside the micro-batches that it has given out, by its own count.
    fn held(&self) -> LoaderBytes {
        LoaderBytes::default()
    }
}

/// Where a session's rows come from.
pub trait Rows {
    /// The train split from `cursor` on, from its start without one.
    fn train(&self, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>>;
    /// The validation split from `cursor` on, from its start without one.
    fn validation(&self, cursor: Option<Cursor>) -> Result<Box<dyn BatchSource>>;
    /// Bytes of each token, for bits per byte.
    fn token_bytes(&self) -> &[u32];
}

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

/// How an evaluation ended.
enum Evaluation {
    Done,
    NotFinite { metric: &'static str, value: f64 },
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
                (state, origin)
            }
            None => (self.fresh(engine)?, Origin::Scratch),
        };
        self.observer.event(&Event::Started { step: state.step, origin });
        let mut guard = DriftGuard::new(self.config.eval.max_drift_bytes);
        let mut train = None;
        let mut causal = false;
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
                    Some(Evaluation::Done) => {}
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
            if self.saves_at(step) || saves.is_due((self.clock)()) {
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
        Ok(Ending::Finished(Box::new(Finished { state, train_hash, environment_class })))
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
            counters: BTreeMap::new(),
            cursor: match &self.config.init {
                InitSource::Resume { data: Some(next), .. } => {
                    Some(Cursor { next: *next, ..Cursor::start() })
                }
                _ => None,
            },
        })
    }

    fn key(&mut self, step: u64) -> Result<Digest> {
        self.keys.link(step).ok_or_else(|| Error::internal(format!("the run has no key at step {step}")))
    }

    fn saves_at(&self, step: u64) -> bool {
        step == self.config.schedule.num_iterations
            || is_kept(self.config, step)
            || self.forks.contains(&step)
    }

    /// An error of class `Interrupted` where it is to stop.
    fn asked(&self) -> Result<()> {
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

    /// One optimizer step; returns its mean loss, which is not recorded where it is not finite. Where it is asked to
    /// stop, `state` and the weights are those before the step.
    fn step(
        &mut self,
        engine: &mut dyn Engine,
        source: &mut dyn BatchSource,
        state: &mut TrainState,
    ) -> Result<f32> {
        control_word::set();
        let started = now();
        let accumulation = self.config.batch.grad_accum_steps;
        let (mut losses, mut cursor, mut tokens) = (Vec::new(), None, 0);
        for _ in 0..accumulation {
            self.asked()?;
            let batch = source.next_batch()?;
            let micro = micro_batch(&batch);
            let valid = micro.valid_targets().max(1);
            let grad_scale = 1.0 / (valid as f32 * accumulation as f32);
            losses.push((engine.accumulate(&micro, grad_scale)?, valid));
            tokens += micro.inputs.len() as u64;
            cursor = Some(batch.cursor_after);
        }
        // The one wait for the device in a step. It stands before the update, not after, for a step whose loss is not
        // finite must leave the weights as they are.
        let mut sum = 0.0_f64;
        for (losses, valid) in losses {
            sum += mean(&losses.read()?, valid);
        }
        let loss = (sum / accumulation as f64) as f32;
        if !loss.is_finite() {
            return Ok(loss);
        }
        let values = self.config.schedule.step_values(state.step);
        let update = now();
        engine.update(&values)?;
        let (update_seconds, seconds) = (update.elapsed().as_secs_f64(), started.elapsed().as_secs_f64());
        let done = StepDone {
            step: state.step,
            loss,
            lr_multiplier: values.lr_multiplier,
            seconds,
            update_seconds,
            tokens,
        };
        state.step += 1;
        state.run_key = self.key(state.step)?;
        state.step_losses.push(ExactF32(loss));
        state.step_seconds.push(seconds);
        *state.counters.entry("tokens".to_owned()).or_default() += tokens;
        state.cursor = cursor;
        self.observer.event(&Event::Step(done));
        Ok(loss)
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

    /// The causality check, before the first evaluation of this process, and an evaluation.
    fn checked_evaluation(
        &mut self,
        engine: &mut dyn Engine,
        guard: &mut DriftGuard,
        state: &mut TrainState,
        checked: &mut bool,
    ) -> Result<Evaluation> {
        self.asked()?;
        if !std::mem::replace(checked, true) {
            self.check_causality(engine)?;
        }
        self.evaluate(engine, guard, state)
    }

    fn check_causality(&self, engine: &mut dyn Engine) -> Result<()> {
        let batch = self.rows.validation(None)?.next_batch()?;
        // One row tells; a whole micro-batch would cost as much as an evaluation of a small run.
        let (rows, len) = (1.min(batch.rows), batch.len);
        let micro = MicroBatch {
            inputs: &batch.inputs[..rows * len],
            targets: &batch.targets[..rows * len],
            sequence: SequenceShape { batch: rows, len },
        };
        check_causality(engine, &micro, self.config.model.vocab_size())
    }

    /// Bits per byte and mean loss over `eval.tokens / (B * T)` batches from the start of the validation split,
    /// carried on from where an earlier process left it. A value that is not finite is told and not recorded.
    ///
    /// # Errors
    /// `eval.tokens` below one batch, or a split in which no target has bytes; class `Input`. Where it is asked to stop
    /// in between, what it has is on disk; class `Interrupted`.
    fn evaluate(
        &mut self,
        engine: &mut dyn Engine,
        guard: &mut DriftGuard,
        state: &mut TrainState,
    ) -> Result<Evaluation> {
        control_word::set();
        let started = now();
        let step = state.step;
        self.observer.event(&Event::Evaluating { step });
        let batches = eval_batches(self.config)?;
        let losses = state.step_losses.iter().map(|loss| loss.0);
        let train_hash = train_hash(losses, &named(&engine.parameters()?));
        let settings = eval_settings(self.config);
        let mut progress = EvalProgress::begin(step, settings, train_hash, engine.environment_class());
        if let Some(before) = self.store.evaluation()?
            && progress.continues(&before)
            && (1..=batches).contains(&before.batches)
        {
            progress = before;
            let how = if progress.batches < batches {
                format!("goes on after batch {} of {batches}", progress.batches)
            } else {
                "was finished before".to_owned()
            };
            self.observer.event(&Event::Note(&format!("the evaluation at step {step} {how}")));
        }
        let mut watch = guard.start(HeldBytes::read(engine, LoaderBytes::default(), self.alone));
        let mut kept = now();
        if progress.batches < batches {
            let mut source = self.rows.validation(progress.cursor.clone())?;
            while progress.batches < batches {
                let made = self.asked().and_then(|()| {
                    let batch = source.next_batch()?;
                    let losses = engine.losses(&micro_batch(&batch))?;
                    Ok((batch, losses))
                });
                let Some((batch, losses)) = unless_stopped(made)? else {
                    // Without a batch there is nothing to keep, and what another evaluation kept stays.
                    if progress.batches > 0 {
                        self.store.save_evaluation(&progress)?;
                    }
                    return Err(stopped());
                };
                progress.sums.add(&losses, &batch.targets, self.rows.token_bytes());
                progress.batches += 1;
                // A finished one needs no place to go on from.
                progress.cursor = (progress.batches < batches).then_some(batch.cursor_after);
                let sound = watch.after_batch(HeldBytes::read(engine, source.held(), self.alone));
                let keep = sound.is_err() || progress.batches == batches;
                if keep || kept.elapsed() >= KEEP_PROGRESS_EVERY {
                    // Before the guard ends the run: the next process goes on after this batch, not at the same end.
                    let saved = self.store.save_evaluation(&progress);
                    sound?;
                    saved?;
                    kept = now();
                }
            }
        }
        let told = watch.finish(HeldBytes::read(engine, LoaderBytes::default(), self.alone))?;
        if let Some(told) = told {
            self.observer.event(&Event::Note(&told));
        }
        let sums = &progress.sums;
        let (bpb, loss) = sums.value().zip(sums.mean_loss()).ok_or_else(|| {
            Error::input("the validation split is empty: no target of it has bytes")
                .key("data.shards")
                .expected("text in the last shard")
        })?;
        for (metric, value) in [(VAL_BPB, bpb), (VAL_LOSS, loss)] {
            if !value.is_finite() {
                return Ok(Evaluation::NotFinite { metric, value });
            }
        }
        let values = [(VAL_BPB.to_owned(), ExactF64(bpb)), (VAL_LOSS.to_owned(), ExactF64(loss))];
        let point = EvalPoint { step, settings, train_hash, values: values.into() };
        let seconds = started.elapsed().as_secs_f64();
        self.observer.event(&Event::Evaluated(EvalDone { step, val_bpb: bpb, seconds }, &point));
        state.evals.push(point);
        Ok(Evaluation::Done)
    }
}

fn evaluates_at(config: &RunConfig, step: u64) -> bool {
    let EvalConfig { every, .. } = config.eval;
    step == 0 || step == config.schedule.num_iterations || (every > 0 && step.is_multiple_of(every))
}

/// Whether `checkpoint.every` keeps the checkpoint of this step.
fn is_kept(config: &RunConfig, step: u64) -> bool {
    let every = config.checkpoint.every;
    step > 0 && every > 0 && step.is_multiple_of(every)
}

/// Whether a run that gets as far as this step always has had a checkpoint there: what time alone saved is not among
/// these.
pub fn is_scheduled(config: &RunConfig, step: u64) -> bool {
    evaluates_at(config, step) || is_kept(config, step)
}

/// How many batches an evaluation has.
pub(crate) fn eval_batches(config: &RunConfig) -> Result<u64> {
    let tokens = (config.batch.device_batch_size * config.model.sequence_len()) as u64;
    match config.eval.tokens / tokens.max(1) {
        0 => Err(Error::input(format!("the evaluation has {} tokens", config.eval.tokens))
            .key("eval.tokens")
            .expected(format!("at least one batch: {tokens} tokens"))),
        batches => Ok(batches),
    }
}

/// Which of a run's checkpoints stay: of the newest this many, those at `forks`, and what its configuration keeps.
pub fn retention(config: &RunConfig, forks: &[u64], newest: usize) -> Retention {
    Retention {
        newest,
        every: config.checkpoint.every,
        keep: config.checkpoint.keep,
        last_step: config.schedule.num_iterations,
        pinned: forks.iter().copied().collect(),
    }
}

/// Digest of everything that decides an evaluation besides the weights.
pub fn eval_settings(config: &RunConfig) -> Digest {
    EvaluationSettings::of(config).digest()
}

/// Digest of the whole configuration, cadences included.
pub fn config_digest(config: &RunConfig) -> Result<Digest> {
    let json = serde_json::to_vec(config);
    Ok(Digest::of(
        &json.map_err(|e| Error::internal("the run's configuration cannot be written").because(e))?,
    ))
}

pub(crate) fn micro_batch(batch: &Batch) -> MicroBatch<'_> {
    let sequence = SequenceShape { batch: batch.rows, len: batch.len };
    MicroBatch { inputs: &batch.inputs, targets: &batch.targets, sequence }
}

/// Mean over the counted targets, summed in token order in double precision.
fn mean(losses: &[f32], valid: usize) -> f64 {
    losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / valid as f64
}

/// An engine's tensors as checkpoints and hashes take them.
fn named<'a>(tensors: &'a [NamedTensor<'_>]) -> Vec<checkpoint::NamedTensor<'a>> {
    tensors.iter().map(|t| checkpoint::NamedTensor::f32(&*t.name, &t.shape, &*t.values)).collect()
}

/// A checkpoint's tensors as engines take them.
pub fn plain<'a>(tensors: &'a [checkpoint::NamedTensor<'_>]) -> Result<Vec<NamedTensor<'a>>> {
    tensors
        .iter()
        .map(|tensor| {
            let values = tensor.as_f32().ok_or_else(|| {
                Error::input(format!(
                    "the tensor `{}` of the checkpoint is not of single precision",
                    tensor.name
                ))
            })?;
            Ok(NamedTensor { name: tensor.name.clone(), shape: tensor.shape.clone(), values: values.into() })
        })
        .collect()
}
