//! The scalar oracle: the forward ops written in the plainest way over f64 scalars, and gradients by reverse-mode
//! differentiation of what the forward did.
//!
//! It implements only [`crate::ops::ForwardOps`], so it never sees a hand-written backward: that is what makes it a
//! check of one. Attention is a loop over allowed keys, softmax is a quotient of exponentials, nothing is tiled or
//! fused. It trains the small models and tiny GPTs; [`optim`] is a second transcription of the optimizers.
//!
//! Nothing is recorded outside [`ScalarBackend::differentiate`], so evaluation and sampling leave no tape behind.

#[cfg(test)]
mod compare;
mod forward;
pub mod memory;
pub mod optim;
mod tape;
#[cfg(test)]
mod tests;
mod weight;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use tape::TapeCost;
pub use weight::{Tensor, Tokens, Weight};

use self::tape::{Scalar, Tape};
use self::weight::{Held, KvCache, WeightId, shape_error};
use crate::ops::{ForwardOps, HeadShape, OpError, OpResult};

/// Bytes a tape may grow to unless [`ScalarBackend::with_max_tape_bytes`] says otherwise.
pub const MAX_TAPE_BYTES: usize = 8 << 30;

/// The ops over f64 scalars.
#[derive(Debug)]
pub struct ScalarBackend {
    tape: RefCell<Tape>,
    /// Losses on the tape, appended by every `cross_entropy` of a [`ScalarBackend::differentiate`].
    losses: RefCell<Vec<Scalar>>,
    live_bytes: Arc<AtomicU64>,
}

/// What [`ScalarBackend::differentiate`] gives.
#[derive(Debug)]
pub struct Differentiated {
    /// Loss of every token in nats, in the order in which the forward computed them.
    pub losses: Vec<f64>,
    /// Gradients of the scaled sum of the losses.
    pub gradients: Gradients,
    /// What the tape took.
    pub cost: TapeCost,
}

/// Gradients of the weights.
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<WeightId, Vec<f64>>);

impl Gradients {
    /// The gradient of a weight, row-major; zeros for a weight that the forward did not read.
    pub fn weight_gradient(&self, weight: &Weight) -> Vec<f64> {
        self.0.get(&weight.id()).cloned().unwrap_or_else(|| vec![0.0; weight.values().len()])
    }

    /// Adds the gradients of another forward over the same weights: the next micro-batch.
    pub fn accumulate(&mut self, other: &Self) {
        for (id, gradient) in &other.0 {
            let sum = self.0.entry(*id).or_insert_with(|| vec![0.0; gradient.len()]);
            sum.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += gradient);
        }
    }
}

impl Default for ScalarBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarBackend {
    /// A backend with an empty tape.
    pub fn new() -> Self {
        Self::with_max_tape_bytes(MAX_TAPE_BYTES)
    }

    /// One whose ops answer [`OpError::OutOfMemory`] when the tape would pass `max_bytes`.
    pub fn with_max_tape_bytes(max_bytes: usize) -> Self {
        Self {
            tape: RefCell::new(Tape::new(max_bytes)),
            losses: RefCell::default(),
            live_bytes: Arc::default(),
        }
    }

    /// A weight from exact values.
    pub fn weight_from_f64(&self, shape: &[usize], values: Vec<f64>) -> OpResult<Weight> {
        if shape.iter().product::<usize>() != values.len() {
            return Err(shape_error("weight", format!("{} values for shape {shape:?}", values.len())));
        }
        let held = self.held(size_of_val(values.as_slice()));
        Ok(Weight::new(shape, values, held))
    }

    /// An empty cache of so many sequences.
    fn cache(&self, sequences: usize, capacity: usize, cols: usize) -> KvCache {
        let scalars = capacity * cols;
        let room = || Vec::with_capacity(scalars);
        KvCache {
            capacity,
            cols,
            sequences: (0..sequences).map(|_| [room(), room()]).collect(),
            _held: self.held(2 * sequences * scalars * size_of::<Scalar>()),
        }
    }

    /// Runs `forward` with the tape recording and gives the losses of every
    /// [`ForwardOps::cross_entropy`] in it, and the gradients of `grad_scale` times their sum.
    ///
    /// The tape starts empty and is empty afterwards, whatever happens. Tensors made inside must not be used again.
    ///
    /// # Errors
    /// The error of `forward`; a shape error if it is called within itself.
    pub fn differentiate<E: From<OpError>>(
        &self,
        grad_scale: f64,
        forward: impl FnOnce(&Self) -> Result<(), E>,
    ) -> Result<Differentiated, E> {
        if self.tape.borrow().is_recording() {
            return Err(shape_error("differentiate", "called within itself".to_owned()).into());
        }
        let recording = Recording::start(self);
        forward(self)?;
        let losses = std::mem::take(&mut *self.losses.borrow_mut());
        let total = self.record("differentiate", |tape| {
            let sum = tape.sum(losses.iter().copied());
            tape.scale(sum, grad_scale)
        })?;
        let tape = self.tape.borrow();
        let gradients = Gradients(tape.backward(total));
        let cost = tape.cost();
        drop(tape);
        drop(recording);
        Ok(Differentiated { losses: losses.into_iter().map(Scalar::value).collect(), gradients, cost })
    }

    /// [`ForwardOps::cross_entropy`] in f64.
    pub fn cross_entropy_f64(
        &self,
        x: &Tensor,
        lm_head: &Weight,
        targets: &Tokens,
        head: &HeadShape,
    ) -> OpResult<Vec<f64>> {
        let op = "cross_entropy";
        let targets = targets.targets(op, x.rows(), head.vocab_size)?;
        let logits = self.logits(x, lm_head, head)?;
        let losses: Vec<Scalar> = self.record(op, |tape| {
            let loss = |(row, target): (usize, &Option<usize>)| match target {
                Some(target) => {
                    let log_total = tape.log_sum_exp(logits.row(row));
                    tape.sub(log_total, logits.row(row)[*target])
                }
                None => Scalar::constant(0.0),
            };
            targets.iter().enumerate().map(loss).collect()
        })?;
        let values = losses.iter().map(|loss| loss.value()).collect();
        if self.tape.borrow().is_recording() {
            self.losses.borrow_mut().extend(losses);
        }
        Ok(values)
    }

    /// Bytes of the tensors, weights and caches alive, and of the tape.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed) + self.tape.borrow().cost().bytes as u64
    }

    /// Computes on the tape.
    fn record<R>(&self, op: &'static str, compute: impl FnOnce(&mut Tape) -> R) -> OpResult<R> {
        let mut tape = self.tape.borrow_mut();
        let result = compute(&mut tape);
        if tape.is_full() {
            return Err(OpError::OutOfMemory { op, bytes: tape.max_bytes() });
        }
        Ok(result)
    }

    /// A tensor of scalars that the closure computes on the tape, row-major.
    fn tensor_of(
        &self,
        op: &'static str,
        rows: usize,
        cols: usize,
        compute: impl FnOnce(&mut Tape) -> Vec<Scalar>,
    ) -> OpResult<Tensor> {
        let scalars = self.record(op, compute)?;
        let held = self.held(size_of_val(scalars.as_slice()));
        Ok(Tensor::new(rows, cols, scalars, held))
    }

    fn held(&self, bytes: usize) -> Held {
        Held::new(&self.live_bytes, bytes)
    }
}

/// The tape records while this lives; then it is cleared.
struct Recording<'a>(&'a ScalarBackend);

impl<'a> Recording<'a> {
    fn start(backend: &'a ScalarBackend) -> Self {
        backend.tape.borrow_mut().clear(true);
        backend.losses.borrow_mut().clear();
        Self(backend)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.0.tape.borrow_mut().clear(false);
        self.0.losses.borrow_mut().clear();
    }
}
