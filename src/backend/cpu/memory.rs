//! How much memory a run's tensors will take, to the byte: the run is gone through with ops that only count.

use super::tally::Tally;
use crate::backend::memory::MemoryEstimate;
use crate::error::{Error, Result};
use crate::model::bigram::Bigram;
use crate::model::config::ModelConfig;
use crate::model::gpt::Gpt;
use crate::model::microgpt::Microgpt;
use crate::model::network::{Inputs, Network};
use crate::model::param::Params;
use crate::ops::{ForwardOps, OpError, OpResult, SequenceShape, TrainOps};
use crate::optim::config::{OptimizerConfig, StepValues};
use crate::optim::optimizer::Optimizer;
use crate::precision::Precision;
use crate::stop::StopFlag;

/// Times that what repeats is gone through: pools settle in two.
const MOST_ROUNDS: usize = 4;
/// Tokens of the longest prompt that is sampled from at a run's end, or about as many.
const PROMPT: usize = 5;

/// What decides the memory of a run on the cpu backend.
#[derive(Debug, Clone, Copy)]
pub struct CpuRun<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// Its optimizer.
    pub optimizer: &'a OptimizerConfig,
    /// Rows of a micro-batch.
    pub rows: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Threads.
    pub threads: usize,
    /// What it computes in.
    pub precision: Precision,
    /// Whether it goes on from a checkpoint, whose tensors are taken in beside the first ones.
    pub resumed: bool,
}

/// The most bytes that the tensors of a run hold, as the backend itself counts them; none where they are more than can
/// be counted.
///
/// # Errors
/// A configuration that no network can be made of.
pub fn estimate(run: &CpuRun<'_>) -> Result<Option<MemoryEstimate>> {
    match run.model {
        ModelConfig::Gpt(config) => counted(&Gpt::new(config.clone())?, run),
        ModelConfig::Microgpt(config) => counted(&Microgpt::new(config.clone())?, run),
        ModelConfig::Bigram(config) => counted(&Bigram::new(config.clone())?, run),
    }
}

/// What a model is used for that is not trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Batches of so many rows are evaluated.
    Evaluate {
        /// Of the model's sequence length each.
        rows: usize,
    },
    /// A prompt is continued.
    Sample {
        /// Its tokens.
        prompt: usize,
        /// Tokens that there is room for, with it.
        positions: usize,
        /// Continuations that are decoded together.
        sequences: usize,
    },
}

/// The most bytes that the tensors of a model in use hold, as [`estimate`] gives those of a run.
///
/// # Errors
/// A configuration that no network can be made of.
pub fn estimate_use(
    model: &ModelConfig,
    precision: Precision,
    threads: usize,
    wanted: Use,
) -> Result<Option<MemoryEstimate>> {
    let ops = match Tally::new(threads, precision) {
        Ok(ops) => ops,
        Err(error) => return told(Err(error.into())),
    };
    match model {
        ModelConfig::Gpt(config) => told(used(&Gpt::new(config.clone())?, ops, wanted)),
        ModelConfig::Microgpt(config) => told(used(&Microgpt::new(config.clone())?, ops, wanted)),
        ModelConfig::Bigram(config) => told(used(&Bigram::new(config.clone())?, ops, wanted)),
    }
}

fn used<M: Network>(network: &M, ops: Tally, wanted: Use) -> std::result::Result<MemoryEstimate, Failed> {
    let scratch = ops.held_bytes();
    let weights = network.specs().iter().map(|spec| ops.fixed(spec)).collect::<OpResult<Vec<_>>>()?;
    let sequence_len = network.sequence_len();
    let tables = network.tables(&ops, sequence_len)?;
    let parameters = ops.held_bytes() - scratch;
    let walk = Walk { network, ops, weights: Params(weights), tables, sequence_len };
    match wanted {
        Use::Evaluate { rows } => walk.losses(rows)?,
        Use::Sample { prompt, positions, sequences } => {
            let Walk { network, ops, weights, .. } = &walk;
            let mut first = network.cache(ops, positions)?;
            network.decode(ops, weights, &mut first, &vec![0; prompt.min(positions)], 1)?;
            if sequences > 1 {
                let marked = network.fork(ops, &first, &[0])?;
                drop(first);
                first = network.fork(ops, &marked, &vec![0; sequences])?;
            }
            if prompt < positions {
                network.decode(ops, weights, &mut first, &vec![0; sequences.max(1)], 1)?;
            }
        }
    }
    let peak = walk.ops.peak_bytes();
    Ok(MemoryEstimate {
        parameters,
        activations: peak.saturating_sub(parameters + scratch),
        workspace: scratch,
    })
}

fn counted<M: Network>(network: &M, run: &CpuRun<'_>) -> Result<Option<MemoryEstimate>> {
    told(walk(network, run))
}

fn told(counted: std::result::Result<MemoryEstimate, Failed>) -> Result<Option<MemoryEstimate>> {
    match counted {
        Ok(estimate) => Ok(Some(estimate)),
        Err(Failed::Op(OpError::OutOfMemory { .. })) => Ok(None),
        // The workers it is gone through with heed signals as those of training do.
        Err(Failed::Op(OpError::Stopped)) => Err(crate::stop::stopped()),
        Err(Failed::Op(error)) => {
            Err(Error::internal("the memory of a run cannot be counted").because(error))
        }
        Err(Failed::Other(error)) => Err(error),
    }
}

enum Failed {
    Op(OpError),
    Other(Error),
}

impl From<OpError> for Failed {
    fn from(error: OpError) -> Self {
        Self::Op(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// A run on the ops that count, as [`crate::train`] goes through it on those that compute.
struct Walk<'a, M: Network> {
    network: &'a M,
    ops: Tally,
    weights: Params<<Tally as ForwardOps>::Weight>,
    tables: M::Tables<Tally>,
    sequence_len: usize,
}

impl<M: Network> Walk<'_, M> {
    fn losses(&self, rows: usize) -> OpResult<()> {
        let sequence = SequenceShape { batch: rows, len: self.sequence_len };
        let (tokens, targets) =
            (self.ops.some_tokens(sequence.rows())?, self.ops.some_tokens(sequence.rows())?);
        let Self { network, ops, weights, tables, .. } = self;
        network
            .losses(
                &Inputs { ops, weights, tables, tokens: &tokens, sequence, stop: &StopFlag::default() },
                &targets,
            )
            .map(drop)
    }

    fn accumulate(&self, rows: usize, grads: &mut Params<<Tally as TrainOps>::Grad>) -> OpResult<()> {
        let sequence = SequenceShape { batch: rows, len: self.sequence_len };
        let (tokens, targets) =
            (self.ops.some_tokens(sequence.rows())?, self.ops.some_tokens(sequence.rows())?);
        let Self { network, ops, weights, tables, .. } = self;
        let stop = StopFlag::default();
        let inputs = Inputs { ops, weights, tables, tokens: &tokens, sequence, stop: &stop };
        network.loss_and_grads(&inputs, &targets, 1.0, grads).map(drop)
    }

    /// Samples of a trained run: one token after another, then a prompt.
    fn decode(&self) -> OpResult<()> {
        let Self { network, ops, weights, .. } = self;
        for prompt in [1, PROMPT.min(self.sequence_len)] {
            let mut cache = network.cache(ops, self.sequence_len)?;
            network.decode(ops, weights, &mut cache, &vec![0; prompt], 1)?;
            if prompt < self.sequence_len {
                network.decode(ops, weights, &mut cache, &[0], 1)?;
            }
        }
        Ok(())
    }
}

fn walk<M: Network>(network: &M, run: &CpuRun<'_>) -> std::result::Result<MemoryEstimate, Failed> {
    let ops = Tally::new(run.threads, run.precision)?;
    let scratch = ops.held_bytes();
    let specs = network.specs();
    let each = || specs.iter().map(|spec| ops.stored(spec)).collect::<OpResult<Vec<_>>>();
    let (weights, mut grads) = (Params(each()?), Params(each()?));
    let mut optimizer = Optimizer::new(&ops, specs, run.optimizer).map_err(too_large)?;
    let sequence_len = run.model.sequence_len();
    let tables = network.tables(&ops, sequence_len)?;
    let parameters = ops.held_bytes() - scratch;
    let mut walk = Walk { network, ops, weights, tables, sequence_len };
    if run.resumed {
        for (weight, spec) in walk.weights.0.iter_mut().zip(specs) {
            *weight = walk.ops.stored(spec)?;
        }
        // Names and shapes: there are no values.
        let states: Vec<_> =
            optimizer.export(&walk.ops)?.into_iter().map(crate::tensors::SingleTensor::into_owned).collect();
        optimizer.import(&walk.ops, 1, &states).map_err(too_large)?;
    } else {
        // The causality check and the evaluation of step 0.
        walk.losses(1)?;
        walk.losses(run.rows)?;
    }
    let values = StepValues { lr_multiplier: 1.0, muon_momentum: 0.9, muon_weight_decay: 0.0 };
    let mut before = 0;
    for _ in 0..MOST_ROUNDS {
        for _ in 0..2 {
            for _ in 0..run.accumulation.clamp(1, MOST_ROUNDS) {
                walk.accumulate(run.rows, &mut grads)?;
            }
            optimizer.step(&walk.ops, &mut walk.weights, &mut grads, &values)?;
        }
        walk.losses(1)?;
        walk.losses(run.rows)?;
        if std::mem::replace(&mut before, walk.ops.held_bytes()) == walk.ops.held_bytes() {
            break;
        }
    }
    walk.ops.trim();
    walk.decode()?;
    let peak = walk.ops.peak_bytes();
    Ok(MemoryEstimate {
        parameters,
        activations: peak.saturating_sub(parameters + scratch),
        workspace: scratch,
    })
}

/// The optimizer tells of memory as of a failed run; claims fail in no other way.
fn too_large(error: Error) -> Failed {
    if error.class() == crate::error::Class::Run {
        return Failed::Op(OpError::OutOfMemory { op: "optimizer", bytes: usize::MAX });
    }
    Failed::Other(error)
}
