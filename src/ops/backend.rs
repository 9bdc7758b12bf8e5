//! What a run needs of a backend besides its ops.

use super::TrainOps;

/// A backend that trains.
pub trait Backend: TrainOps {
    /// Bytes held for tensors right now, pooled memory not counted.
    fn live_bytes(&self) -> u64;
    /// How often tensor memory has been asked of the system; none where the backend does not count.
    fn allocations(&self) -> Option<u64> {
        None
    }
    /// Names the set of machines and settings that give the same bits.
    fn environment_class(&self) -> String;
}
