//! The ops tests that every backend passes.

use crate::backend::cpu::CpuBackend;

fn backend() -> CpuBackend {
    CpuBackend::new(2).unwrap()
}

crate::backend::conformance::conformance_tests!(backend(), 4e-6);
