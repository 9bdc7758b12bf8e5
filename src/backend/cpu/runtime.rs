//! What a run needs of the backend besides its ops.

use super::{CpuBackend, environment_class};
use crate::ops::Backend;

impl Backend for CpuBackend {
    fn live_bytes(&self) -> u64 {
        self.pool.live_bytes()
    }

    fn peak_bytes(&self) -> Option<u64> {
        Some(self.pool.peak_bytes())
    }

    fn release(&self) {
        self.pool.trim();
    }

    fn allocations(&self) -> Option<u64> {
        Some(self.pool.allocations())
    }

    fn environment_class(&self) -> String {
        environment_class()
    }
}
