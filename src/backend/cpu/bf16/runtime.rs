//! What a run needs of the backend besides its ops.

use super::super::environment_class;
use super::storage::{Data, Stored};
use super::{Bf16Backend, dot};
use crate::ops::{Backend, Hardware, Operand};
use crate::precision::Precision;
use crate::stop::StopFlag;

impl Backend for Bf16Backend {
    fn stored_bytes(&self, of: Operand<'_, Self>) -> u64 {
        let bytes = match of {
            Operand::Tensor(x) => match &x.data {
                Data::Half(values) => size_of_val(&values[..]),
                Data::Single(values) => size_of_val(&values[..]),
            },
            Operand::Weight(values) | Operand::Grad(values) | Operand::State(values) => match values {
                Stored::Single(param) => size_of_val(&param.data[..]),
                Stored::Table(table) => size_of_val(&table.data[..]),
            },
        };
        bytes as u64
    }

    fn live_bytes(&self) -> u64 {
        self.0.live_bytes()
    }

    fn peak_bytes(&self) -> Option<u64> {
        self.0.peak_bytes()
    }

    fn release(&self) {
        self.0.release();
    }

    unsafe fn closely<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: the caller's promise.
        unsafe { self.0.closely(f) }
    }

    fn allocations(&self) -> Option<u64> {
        Backend::allocations(&self.0)
    }

    fn stop_on(&mut self, stop: &StopFlag) {
        self.0.stop_on(stop);
    }

    fn may_skip(&self, may: bool) {
        self.0.may_skip(may);
    }

    fn hardware(&self) -> Hardware {
        let departs = dot::instruction_departs().then(|| {
            "bf16 products are made of fused multiply-adds, at the speed of float32: the instruction for them gives \
             other bits on this CPU"
                .to_owned()
        });
        Hardware { fallbacks: departs.into_iter().collect(), ..Hardware::default() }
    }

    fn environment_class(&self) -> String {
        environment_class(Precision::Bf16)
    }
}
