//! What a run needs of the backend besides its ops.

use std::sync::atomic::Ordering;

use super::{CpuBackend, environment_class};
use crate::ops::{Backend, Operand};
use crate::precision::Precision;
use crate::stop::StopFlag;

impl Backend for CpuBackend {
    fn stored_bytes(&self, of: Operand<'_, Self>) -> u64 {
        let values = match of {
            Operand::Tensor(x) => &x.data,
            Operand::Weight(param) | Operand::Grad(param) | Operand::State(param) => &param.data,
        };
        size_of_val(&values[..]) as u64
    }

    fn live_bytes(&self) -> u64 {
        self.pool.live_bytes()
    }

    fn peak_bytes(&self) -> Option<u64> {
        Some(self.pool.peak_bytes())
    }

    fn release(&self) {
        self.pool.trim();
    }

    unsafe fn closely<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: the caller's promise.
        unsafe { self.workers.install_closely(f) }
    }

    fn allocations(&self) -> Option<u64> {
        Some(self.pool.allocations())
    }

    fn stop_on(&mut self, stop: &StopFlag) {
        self.workers.stop = stop.clone();
    }

    fn may_skip(&self, may: bool) {
        // No order with the tasks is needed: each op hands them over with one of its own.
        self.workers.may_skip.store(may, Ordering::Relaxed);
    }

    fn environment_class(&self) -> String {
        environment_class(Precision::F32)
    }
}
