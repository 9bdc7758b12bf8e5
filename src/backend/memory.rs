//! What a run will need of memory, counted before it starts.

use serde::Serialize;

/// What a training run needs at once, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// Master weights, compute copies, gradients, optimizer state and tables.
    pub parameters: u64,
    /// What the forward keeps for the backward, and the largest temporaries of forward, backward, loss and optimizer
    /// that come together.
    pub activations: u64,
    /// What the loss or the optimizer needs beyond the room that activations take; scratch of threads; on a GPU the
    /// library.
    pub workspace: u64,
}

impl MemoryEstimate {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parameters.saturating_add(self.activations).saturating_add(self.workspace)
    }
}
