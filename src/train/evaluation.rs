//! The evaluation of a run in training: checked for causality, guarded, carried on where it was left.

use std::time::Duration;

use crate::control_word;
use crate::data::LoaderBytes;
use crate::error::{Error, Result};
use crate::files::{ExactF64, now};
use crate::hash::Digest;
use crate::ops::SequenceShape;
use crate::plan::evaluation::{Evaluation as EvaluationSettings, VAL_BPB, VAL_LOSS};
use crate::plan::run_config::RunConfig;
use crate::stop::{stopped, unless_stopped};

use super::causality::check_causality;
use super::checkpoint::{EvalPoint, EvalProgress, TrainState};
use super::document_losses::DocumentLosses;
use super::engine::{Engine, MicroBatch};
use super::guard::{DriftGuard, HeldBytes};
use super::named_tensors::named;
use super::observer::{EvalDone, Event};
use super::result_hash::train_hash;
use super::rows::micro_batch;
use super::session::Session;

/// How often the progress of a long evaluation is put on disk.
const KEEP_PROGRESS_EVERY: Duration = Duration::from_secs(20);

/// How an evaluation ended.
pub(super) enum Evaluation {
    /// Recorded, with the losses of its documents where it is the run's last.
    Done(Option<DocumentLosses>),
    NotFinite {
        metric: &'static str,
        value: f64,
    },
}

impl Session<'_> {
    /// The causality check, before the first evaluation of this process, and an evaluation.
    pub(super) fn checked_evaluation(
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
        // What verdicts are about is the end of a run.
        let is_last = step == self.config.schedule.num_iterations;
        progress.documents = is_last.then(DocumentLosses::default);
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
                if let Some(documents) = &mut progress.documents {
                    documents.add(&batch, &losses, self.rows.token_bytes());
                }
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
        Ok(Evaluation::Done(progress.documents.filter(|_| is_last)))
    }
}

/// How many batches an evaluation has.
pub(crate) fn eval_batches(config: &RunConfig) -> Result<u64> {
    let tokens = (config.batch.device_batch_size * config.model.sequence_len()) as u64;
    let ranks = config.row_order.ranks as u64;
    let of_each = if ranks > 1 { format!(" on each of {ranks} ranks") } else { String::new() };
    match config.eval_turn() {
        0 => Err(Error::input(format!("the evaluation has {} tokens", config.eval.tokens))
            .key("eval.tokens")
            .expected(format!("at least one batch{of_each}: {} tokens", tokens.saturating_mul(ranks)))),
        batches => Ok(batches * ranks),
    }
}

/// Digest of everything that decides an evaluation besides the weights.
pub fn eval_settings(config: &RunConfig) -> Digest {
    EvaluationSettings::of(config).digest()
}
