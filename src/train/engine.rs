//! What the step loop needs of a model on a backend, whichever they are.

use crate::error::{Error, Result};
use crate::model::param::ParamSpec;
use crate::ops::{Hardware, Losses, SequenceShape};
use crate::optim::config::StepValues;
use crate::stop::StopFlag;
pub use crate::tensors::SingleTensor as NamedTensor;

/// Token ids of a micro-batch: N inputs and N targets (-1 is ignored), row-major over sequences.
#[derive(Debug, Clone, Copy)]
pub struct MicroBatch<'a> {
    /// Input ids.
    pub inputs: &'a [i32],
    /// Target ids.
    pub targets: &'a [i32],
    /// Sequences and positions.
    pub sequence: SequenceShape,
}

impl MicroBatch<'_> {
    /// How many targets count.
    pub fn valid_targets(&self) -> usize {
        self.targets.iter().filter(|&&target| target >= 0).count()
    }
}

/// A model with its weights, gradients and optimizer on a backend.
pub trait Engine {
    /// The flag that stops it: once it is raised, [`Self::accumulate`], [`Self::losses`], [`Self::logits`] and
    /// [`Self::decode`] end within a moment, in an error of class `Interrupted`. An update is made whole.
    fn stop_on(&mut self, stop: &StopFlag);
    /// The model's parameters.
    fn specs(&self) -> &[ParamSpec];
    /// Adds the gradient of `grad_scale * sum of the losses` and returns the losses of the N tokens, which the device
    /// may still be computing.
    fn accumulate(&mut self, batch: &MicroBatch<'_>, grad_scale: f32) -> Result<Losses<Error>>;
    /// Clears the gradients: those of a step that is dropped, or were left half made by a stop.
    fn drop_gradients(&mut self) -> Result<()>;
    /// One optimizer step on the accumulated gradients, which it clears.
    fn update(&mut self, values: &StepValues) -> Result<()>;
    /// Losses of the N tokens, without gradients.
    fn losses(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>>;
    /// Logits (N, V), row-major.
    fn logits(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>>;
    /// The accumulated gradients, in the order of [`Self::specs`].
    fn gradients(&self) -> Result<Vec<NamedTensor<'_>>>;
    /// The weights, in the order of [`Self::specs`].
    fn parameters(&self) -> Result<Vec<NamedTensor<'_>>>;
    /// The optimizer's state.
    fn optimizer_state(&self) -> Result<Vec<NamedTensor<'_>>>;
    /// Takes up weights and, after `steps` steps, optimizer state.
    ///
    /// # Errors
    /// A name or shape that does not fit the model, by name; class `Input`.
    fn restore(
        &mut self,
        steps: u64,
        parameters: &[NamedTensor<'_>],
        optimizer: &[NamedTensor<'_>],
    ) -> Result<()>;
    /// Takes up optimizer state after `steps` steps alone, for weights that are here already.
    ///
    /// # Errors
    /// As [`Self::restore`]; an engine whose state no other program writes.
    fn take_up_state(&mut self, steps: u64, optimizer: &[NamedTensor<'_>]) -> Result<()> {
        let _ = (steps, optimizer);
        Err(Error::internal("this engine takes up no optimizer state alone"))
    }
    /// Starts decoding one sequence of up to `capacity` tokens with the current weights.
    fn start_decoding(&mut self, capacity: usize) -> Result<()>;
    /// Feeds ids, any number to one sequence or one each to S of them, and returns the logits (S, V) after the last of
    /// each.
    fn decode(&mut self, ids: &[i32]) -> Result<Vec<f32>> {
        self.decode_last(ids, 1)
    }
    /// Feeds ids to one sequence and returns the logits (last, V) after each of the last of them, row-major; no more than
    /// `MOST_LAST` of `model::network`.
    fn decode_last(&mut self, ids: &[i32], last: usize) -> Result<Vec<f32>>;
    /// Lets go of what decoding holds.
    fn end_decoding(&mut self) {}
    /// Remembers where decoding of one sequence stands, for [`Self::rewind_decoding`].
    ///
    /// # Errors
    /// Decoding that was not started, memory that cannot be had.
    fn mark_decoding(&mut self) -> Result<()> {
        Err(Error::internal("this engine cannot remember where its decoding stands"))
    }
    /// Goes back to where decoding stood when it was last marked, as so many sequences: any number of continuations of
    /// one prompt, that many of them decoded together.
    ///
    /// # Errors
    /// Decoding that was not marked, memory that cannot be had.
    fn rewind_decoding(&mut self, sequences: usize) -> Result<()> {
        let _ = sequences;
        Err(Error::internal("this engine cannot remember where its decoding stands"))
    }
    /// Goes on with these of the sequences that are decoded together, in this order.
    ///
    /// # Errors
    /// A sequence that is not there, memory that cannot be had.
    fn keep_decoding(&mut self, sequences: &[usize]) -> Result<()> {
        let _ = sequences;
        Err(Error::internal("this engine decodes one sequence at a time"))
    }
    /// Whether sequences that are decoded together have the bits of each alone.
    fn decodes_together(&self) -> bool {
        false
    }
    /// Bytes the backend holds for tensors right now.
    fn live_bytes(&self) -> u64;
    /// The most bytes the backend held for tensors since the engine was made; none where it does not count.
    fn peak_bytes(&self) -> Option<u64> {
        None
    }
    /// Where the backend computes, for the records.
    fn hardware(&self) -> Hardware {
        Hardware::default()
    }
    /// How often tensor memory has been asked of the system; none where nobody counts.
    fn allocations(&self) -> Option<u64> {
        None
    }
    /// Waits until the device has done what it was given, for measurements.
    fn synchronize(&self) {}
    /// Which machines give the same bits.
    fn environment_class(&self) -> String;
}

/// The tensors of `found` in the order of `specs`.
///
/// # Errors
/// A parameter that is missing, of another shape, or that the model does not have: each by name.
pub fn in_order<'a, 'v>(
    specs: &[ParamSpec],
    found: &'a [NamedTensor<'v>],
) -> Result<Vec<&'a NamedTensor<'v>>> {
    if let Some(extra) = found.iter().find(|tensor| specs.iter().all(|spec| spec.name != tensor.name)) {
        return Err(Error::input(format!("the model has no parameter `{}`", extra.name))
            .expected(format!("the {} parameters of this configuration", specs.len()))
            .help("the weights belong to another depth, width or set of features"));
    }
    specs
        .iter()
        .map(|spec| {
            let tensor = found
                .iter()
                .find(|tensor| tensor.name == spec.name)
                .ok_or_else(|| Error::input(format!("the parameter `{}` is missing", spec.name)))?;
            if tensor.shape == spec.shape && tensor.values.len() == spec.numel() {
                return Ok(tensor);
            }
            Err(Error::input(format!("the parameter `{}` has shape {:?}", spec.name, tensor.shape))
                .expected(format!("{:?}", spec.shape)))
        })
        .collect()
}
