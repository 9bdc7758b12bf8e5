//! What a run needs of a backend besides its ops.

use super::TrainOps;
use crate::stop::StopFlag;

/// Where a backend computes, for the records; nothing here changes a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Version of the library whose kernels it uses, where that is not nanorun's own.
    pub library: Option<String>,
    /// The accelerator's name, where it uses one.
    pub accelerator: Option<String>,
    /// Fast ways that it lacks here: what is done instead, and why.
    pub fallbacks: Vec<String>,
}

/// What an op reads or writes.
#[derive(Debug)]
pub enum Operand<'a, B: TrainOps> {
    /// Activations.
    Tensor(&'a B::Tensor),
    /// A weight.
    Weight(&'a B::Weight),
    /// Its gradient.
    Grad(&'a B::Grad),
    /// Its optimizer state.
    State(&'a B::State),
}

/// A backend that trains.
pub trait Backend: TrainOps {
    /// Bytes of an operand's values as ops that go through all of them read or write it.
    fn stored_bytes(&self, of: Operand<'_, Self>) -> u64
    where
        Self: Sized;
    /// Bytes held for tensors right now, pooled memory not counted.
    fn live_bytes(&self) -> u64;
    /// The most bytes held for tensors since the backend was made, with those that wait where the backend pools them
    /// itself; none where it does not count.
    fn peak_bytes(&self) -> Option<u64> {
        None
    }
    /// Gives memory that waits for reuse back, before work whose sizes are others.
    fn release(&self) {}
    /// How often tensor memory has been asked of the system; none where the backend does not count.
    fn allocations(&self) -> Option<u64> {
        None
    }
    /// Runs `f`, whose ops follow each other closely, where the least time passes between them.
    ///
    /// # Safety
    /// `f` may run on another thread, for which this one waits: what it holds must not be bound to this thread.
    unsafe fn closely<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }
    /// The flag that [`Self::may_skip`] goes by. A backend whose ops are over in a moment need not know it.
    fn stop_on(&mut self, _: &StopFlag) {}
    /// Whether ops, once the flag is raised, may leave their work undone and return whatever there is. The caller
    /// drops all that came of them then, and never lets an update of weights or state be among them.
    fn may_skip(&self, _: bool) {}
    /// Waits until every op is done, where ops may return before they are.
    fn synchronize(&self) {}
    /// Where it computes.
    fn hardware(&self) -> Hardware {
        Hardware::default()
    }
    /// Names the set of machines and settings that give the same bits.
    fn environment_class(&self) -> String;
}
