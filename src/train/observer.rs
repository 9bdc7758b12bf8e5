//! What the step loop tells whoever watches it.

use super::checkpoint::EvalPoint;

/// One optimizer step, done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepDone {
    /// The step, from 0.
    pub step: u64,
    /// Mean loss over the step's tokens, nats.
    pub loss: f32,
    /// Learning-rate multiplier it used.
    pub lr_multiplier: f64,
    /// Wall time, seconds.
    pub seconds: f64,
    /// Of which the optimizer update, seconds; on a GPU, giving it to the device.
    pub update_seconds: f64,
    /// Tokens it trained on.
    pub tokens: u64,
}

/// One evaluation, done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvalDone {
    /// Steps trained before it.
    pub step: u64,
    /// Validation bits per byte.
    pub val_bpb: f64,
    /// Wall time, seconds.
    pub seconds: f64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The loop begins, after this many steps done before.
    Started {
        /// Steps done before.
        step: u64,
        /// Where they came from: nothing, a checkpoint, or a prefix that another run trained.
        origin: Origin,
    },
    /// A step.
    Step(StepDone),
    /// An evaluation begins.
    Evaluating {
        /// Steps trained before it.
        step: u64,
    },
    /// An evaluation, and what is recorded of it.
    Evaluated(EvalDone, &'a EvalPoint),
    /// The CORE metric, and what is recorded of it.
    Measured {
        /// Its value and definition.
        point: &'a EvalPoint,
        /// Wall time, seconds.
        seconds: f64,
    },
    /// A checkpoint is being written.
    Saving,
    /// A checkpoint is durably on disk.
    Saved {
        /// Its step.
        step: u64,
    },
    /// Something worth a line, which changes no number.
    Note(&'a str),
}

/// Where a run's first steps came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Initial weights.
    Scratch,
    /// A checkpoint of the same run.
    Checkpoint,
    /// A prefix shared with another run.
    Prefix,
    /// An earlier attempt at the same run, whose steps are all there.
    Attempt,
}

/// Watches a step loop.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event<'_>);
}
