//! The engine of every backend with hand-written backwards.

use crate::error::{Error, Result};
use crate::model::init::InitialValues;
use crate::model::network::{Inputs, Network};
use crate::model::param::{ParamSpec, Params};
use crate::ops::{Backend, Hardware, Losses, OpError, OpResult};
use crate::optim::config::{OptimizerConfig, StepValues};
use crate::optim::optimizer::Optimizer;
use crate::stop::{StopFlag, stopped};

use super::decoding::Decoding;
use super::engine::{Engine, MicroBatch, NamedTensor};
use crate::tensors::Single;

/// A network on a training backend.
pub struct OpsEngine<M: Network, B: Backend> {
    network: M,
    ops: B,
    tables: M::Tables<B>,
    weights: Params<B::Weight>,
    /// None where it only computes with its weights.
    training: Option<Training<B>>,
    decoding: Decoding<M, B>,
    /// Rows of the last micro-batch, to name in an out-of-memory.
    rows: usize,
    stop: StopFlag,
}

/// What training takes beside the weights: three times as much as they.
struct Training<B: Backend> {
    grads: Params<B::Grad>,
    optimizer: Optimizer<B>,
}

/// Reads the values of a parameter.
pub type ReadValues<'a> = dyn FnMut(&ParamSpec) -> Result<Vec<f32>> + 'a;

/// Every parameter on the backend, as they come.
fn weights<B: Backend>(ops: &B, specs: &[ParamSpec], values: InitialValues) -> Result<Params<B::Weight>> {
    let unfit = || Error::internal("initial values do not fit the network's parameters");
    let mut weights: Vec<Option<B::Weight>> = specs.iter().map(|_| None).collect();
    values.for_each(specs, |index, values| {
        let spec = specs.get(index).filter(|spec| spec.numel() == values.len()).ok_or_else(unfit)?;
        weights[index] = Some(weight(ops, spec, values, Use::Training).map_err(op_error)?);
        // Drawing millions of values takes seconds.
        crate::stop::check()
    })?;
    Ok(Params(weights.into_iter().collect::<Option<Vec<_>>>().ok_or_else(unfit)?))
}

/// What an engine does with its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// They change.
    Training,
    /// They stay as they are.
    Inference,
}

/// A parameter as its group is used.
fn weight<B: Backend>(ops: &B, spec: &ParamSpec, values: &[f32], wanted: Use) -> OpResult<B::Weight> {
    if spec.group.is_table() {
        ops.table(&spec.shape, values)
    } else if wanted == Use::Inference && spec.is_factor() {
        ops.factor(&spec.shape, values)
    } else {
        ops.weight(&spec.shape, values)
    }
}

impl<M: Network, B: Backend> OpsEngine<M, B> {
    /// An engine whose weights start at `values`.
    ///
    /// # Errors
    /// Memory that cannot be had; values that do not fit the network's parameters.
    pub fn new(network: M, ops: B, optimizer: &OptimizerConfig, values: InitialValues) -> Result<Self> {
        let specs = network.specs();
        let weights = weights(&ops, specs, values)?;
        let grad = |spec: &ParamSpec| {
            if spec.group.is_table() { ops.table_grad(&spec.shape) } else { ops.grad(&spec.shape) }
        };
        let grads = specs.iter().map(grad).collect::<OpResult<_>>().map_err(op_error)?;
        let optimizer = Optimizer::new(&ops, specs, optimizer)?;
        Self::with(network, ops, weights, Some(Training { grads: Params(grads), optimizer }))
    }

    /// An engine that evaluates and decodes with weights that are read one at a time: it has neither gradients nor an
    /// optimizer, and training with it is an internal error.
    ///
    /// # Errors
    /// Memory that cannot be had; values that cannot be read or do not fit.
    pub fn for_inference(network: M, ops: B, read: &mut ReadValues<'_>) -> Result<Self> {
        let one = |spec: &ParamSpec| {
            crate::stop::check()?;
            let values = read(spec)?;
            if values.len() != spec.numel() {
                return Err(Error::internal(format!("the values of `{}` do not fit it", spec.name)));
            }
            weight(&ops, spec, &values, Use::Inference).map_err(op_error)
        };
        let weights = network.specs().iter().map(one).collect::<Result<_>>()?;
        Self::with(network, ops, Params(weights), None)
    }

    fn with(network: M, ops: B, weights: Params<B::Weight>, training: Option<Training<B>>) -> Result<Self> {
        let tables = network.tables(&ops, network.sequence_len()).map_err(op_error)?;
        let stop = StopFlag::default();
        Ok(Self { network, tables, weights, training, decoding: Decoding::default(), rows: 0, stop, ops })
    }

    fn named<'a>(&'a self, values: impl Fn(usize) -> OpResult<Single<'a>>) -> Result<Vec<NamedTensor<'a>>> {
        let specs = self.network.specs().iter().enumerate();
        specs
            .map(|(index, spec)| {
                Ok(NamedTensor { name: spec.name.clone(), shape: spec.shape.clone(), values: values(index)? })
            })
            .collect::<OpResult<_>>()
            .map_err(op_error)
    }
}

fn trains_not() -> Error {
    Error::internal("this engine was made to compute with its weights, not to train them")
}

/// Runs ops where the least time passes between them: a step is a thousand pieces of work that threads share out, and a
/// thread of another pool would wait to be woken after each.
fn closely<B: Backend, R>(ops: &B, run: impl FnOnce() -> R) -> R {
    // SAFETY: weights, state, caches, tensors and the backend are memory or handles that any one thread at a time may
    // use, and so is all else that an engine's ops are given.
    unsafe { ops.closely(run) }
}

/// Runs ops that may be left undone once the flag is raised. What came of them is dropped then: of none is it known
/// whether it was done.
fn stoppable<B: Backend, R>(ops: &B, stop: &StopFlag, run: impl FnOnce() -> OpResult<R>) -> OpResult<R> {
    ops.may_skip(true);
    let done = closely(ops, run);
    ops.may_skip(false);
    // Asked after the last op: a flag is never lowered, so that whatever an op saw is seen here.
    if stop.is_raised() { Err(OpError::Stopped) } else { done }
}

impl<M: Network, B: Backend> Engine for OpsEngine<M, B> {
    fn stop_on(&mut self, stop: &StopFlag) {
        self.stop = stop.clone();
        self.ops.stop_on(stop);
    }

    fn drop_gradients(&mut self) -> Result<()> {
        let Some(Training { grads, .. }) = &mut self.training else { return Ok(()) };
        let ops = &self.ops;
        closely(ops, || grads.0.iter_mut().try_for_each(|grad| ops.zero_grad(grad))).map_err(op_error)
    }

    fn specs(&self) -> &[ParamSpec] {
        self.network.specs()
    }

    fn accumulate(&mut self, batch: &MicroBatch<'_>, grad_scale: f32) -> Result<Losses<Error>> {
        let Self { network, ops, tables, weights, training, stop, .. } = self;
        let Training { grads, .. } = training.as_mut().ok_or_else(trains_not)?;
        let run = || {
            let (tokens, targets) = (ops.tokens(batch.inputs)?, ops.tokens(batch.targets)?);
            let inputs = Inputs { ops, weights, tables, tokens: &tokens, sequence: batch.sequence, stop };
            network.loss_and_grads(&inputs, &targets, grad_scale, grads)
        };
        let done = stoppable(ops, stop, run);
        let rows = batch.sequence.batch;
        self.rows = rows;
        let told = move |error| batch_error(error, rows);
        Ok(done.map_err(told)?.map_err(told))
    }

    fn update(&mut self, values: &StepValues) -> Result<()> {
        // What fits beside the optimizer's temporaries depends on the micro-batch no longer, but on what it left in
        // pools.
        let Self { ops, weights, training, rows, .. } = self;
        let rows = *rows;
        let Training { grads, optimizer } = training.as_mut().ok_or_else(trains_not)?;
        let updated = closely(ops, || optimizer.step(ops, weights, grads, values));
        updated.map_err(|error| batch_error(error, rows))?;
        self.drop_gradients()
    }

    fn losses(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
        let Self { network, ops, tables, weights, stop, .. } = self;
        let run = || {
            let (tokens, targets) = (ops.tokens(batch.inputs)?, ops.tokens(batch.targets)?);
            let inputs = Inputs { ops, weights, tables, tokens: &tokens, sequence: batch.sequence, stop };
            network.losses(&inputs, &targets)
        };
        stoppable(ops, stop, run).map_err(|error| batch_error(error, batch.sequence.batch))
    }

    fn logits(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
        let Self { network, ops, tables, weights, stop, .. } = self;
        let run = || {
            let tokens = ops.tokens(batch.inputs)?;
            let inputs = Inputs { ops, weights, tables, tokens: &tokens, sequence: batch.sequence, stop };
            ops.tensor_values(&network.logits(&inputs)?)
        };
        stoppable(ops, stop, run).map_err(op_error)
    }

    fn gradients(&self) -> Result<Vec<NamedTensor<'_>>> {
        let Training { grads, .. } = self.training.as_ref().ok_or_else(trains_not)?;
        self.named(|index| self.ops.grad_values(&grads.0[index]).map(Single::from))
    }

    fn parameters(&self) -> Result<Vec<NamedTensor<'_>>> {
        self.named(|index| self.ops.weight_values(&self.weights.0[index]))
    }

    fn optimizer_state(&self) -> Result<Vec<NamedTensor<'_>>> {
        let Training { optimizer, .. } = self.training.as_ref().ok_or_else(trains_not)?;
        optimizer.export(&self.ops).map_err(op_error)
    }

    fn restore(
        &mut self,
        steps: u64,
        parameters: &[NamedTensor<'_>],
        optimizer: &[NamedTensor<'_>],
    ) -> Result<()> {
        let values = super::engine::in_order(self.network.specs(), parameters)?;
        let wanted = if self.training.is_some() { Use::Training } else { Use::Inference };
        for (index, tensor) in values.into_iter().enumerate() {
            let spec = &self.network.specs()[index];
            self.weights.0[index] =
                weight(&self.ops, spec, &tensor.values.wide(), wanted).map_err(op_error)?;
        }
        if steps > 0 {
            self.take_up_state(steps, optimizer)?;
        }
        self.decoding.clear();
        Ok(())
    }

    fn take_up_state(&mut self, steps: u64, optimizer: &[NamedTensor<'_>]) -> Result<()> {
        let training = self.training.as_mut().ok_or_else(trains_not)?;
        training.optimizer.import(&self.ops, steps, optimizer)
    }

    fn start_decoding(&mut self, capacity: usize) -> Result<()> {
        // The sizes of one token fit none of a micro-batch, whose memory would only wait beside theirs.
        if !self.decoding.clear() {
            self.ops.release();
        }
        self.decoding.start(&self.network, &self.ops, capacity)
    }

    fn decode_last(&mut self, ids: &[i32], last: usize) -> Result<Vec<f32>> {
        let Self { network, ops, weights, decoding, stop, .. } = self;
        let feed = || decoding.feed(network, ops, weights, ids, last);
        stoppable(ops, stop, feed).map_err(op_error)
    }

    fn mark_decoding(&mut self) -> Result<()> {
        self.decoding.mark(&self.network, &self.ops)
    }

    fn rewind_decoding(&mut self, sequences: usize) -> Result<()> {
        self.decoding.rewind(&self.network, &self.ops, sequences)
    }

    fn keep_decoding(&mut self, sequences: &[usize]) -> Result<()> {
        self.decoding.keep(&self.network, &self.ops, sequences)
    }

    fn decodes_together(&self) -> bool {
        self.ops.rows_stand_alone()
    }

    fn end_decoding(&mut self) {
        self.decoding.clear();
    }

    fn live_bytes(&self) -> u64 {
        self.ops.live_bytes()
    }

    fn peak_bytes(&self) -> Option<u64> {
        self.ops.peak_bytes()
    }

    fn hardware(&self) -> Hardware {
        self.ops.hardware()
    }

    fn synchronize(&self) {
        self.ops.synchronize();
    }

    fn allocations(&self) -> Option<u64> {
        self.ops.allocations()
    }

    fn environment_class(&self) -> String {
        self.ops.environment_class()
    }
}

const OUT_OF_MEMORY: &str = "the run does not fit into memory";

/// An op's failure as a failed run, with what to try.
pub fn op_error(error: OpError) -> Error {
    match error {
        OpError::OutOfMemory { .. } => Error::run(OUT_OF_MEMORY)
            .help("the model itself does not fit, whatever the batch: lower model.depth, or take another device")
            .because(error),
        OpError::Shape { .. } => {
            Error::internal("an operation was given shapes that do not fit").because(error)
        }
        OpError::Backend { .. } => Error::run("the backend failed").because(error),
        OpError::Stopped => stopped(),
    }
}

/// The same with a micro-batch of `rows` rows on the device: where memory ran out, it names the size to try.
pub fn batch_error(error: OpError, rows: usize) -> Error {
    let out_of_memory = matches!(error, OpError::OutOfMemory { .. });
    let told = op_error(error);
    if out_of_memory { told.help(smaller_batch(rows)) } else { told }
}

/// Whether an error says that memory ran out.
pub fn is_out_of_memory(error: &Error) -> bool {
    error.what() == OUT_OF_MEMORY
}

/// What to try where a device batch of `rows` rows does not fit: the largest size below it that divides every batch
/// that `rows` divides.
pub fn smaller_batch(rows: usize) -> String {
    match (2..=rows).find(|factor| rows.is_multiple_of(*factor)) {
        Some(factor) => format!(
            "try --set train.device_batch_size={} (gradient accumulation keeps the total batch; the run is another one \
             to its key, for sums are made in another order)",
            rows / factor
        ),
        None => "one row a micro-batch does not fit: lower model.sequence_len or model.depth, or take another device"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_names_a_size_that_divides_the_batch() {
        let error = |rows| batch_error(OpError::OutOfMemory { op: "linear", bytes: 1 << 30 }, rows);
        for (rows, smaller) in [(32, 16), (6, 3), (9, 3), (5, 1)] {
            let error = error(rows);
            assert!(is_out_of_memory(&error));
            assert_eq!(error.class().exit_code(), 3);
            let help = error.help_text().unwrap();
            assert!(help.contains(&format!("device_batch_size={smaller} ")), "{help}");
        }
        assert!(error(1).help_text().unwrap().contains("one row"));
        assert!(!is_out_of_memory(&op_error(OpError::Backend { op: "linear", message: "x".to_owned() })));
    }
}
