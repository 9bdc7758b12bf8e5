//! The ops against the references that every backend meets, and what is libtorch's own: precision, repetition, errors.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use super::TorchBackend;
use super::device::TorchDevice;
use crate::ops::{AttentionShape, Backend, ForwardOps, OpError, SequenceShape, TrainOps};
use crate::precision::Precision;

fn cpu(precision: Precision) -> TorchBackend {
    TorchBackend::new(TorchDevice::Cpu, precision, 2).unwrap()
}

mod f32 {
    use super::*;
    crate::backend::conformance::conformance_tests!(cpu(Precision::F32), 4e-6);
}

mod bf16 {
    use super::*;
    // bfloat16 rounds to 2^-9 of a value; inputs of a backward are rounded outputs of a forward.
    crate::backend::conformance::conformance_tests!(cpu(Precision::Bf16), 1.2e-2);
}

/// The CPU has no flash attention; where CUDA lacks it, the same happens.
#[test]
fn a_failed_trial_is_told_and_the_slow_way_taken() {
    const UNREADY: &str = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`";
    let ops = cpu(Precision::Bf16);
    let names = ("flash attention", "attention goes in blocks of scores");
    let mut fallbacks = Vec::new();
    assert_eq!(ops.tried(names, |_| Ok(()), &mut fallbacks), Ok(true));
    assert_eq!(fallbacks, [""; 0]);
    assert_eq!(ops.tried(names, super::flash::trial, &mut fallbacks), Ok(false));
    let told = "attention goes in blocks of scores, which is slow: flash attention";
    assert!(fallbacks.len() == 1 && fallbacks[0].starts_with(told), "{fallbacks:?}");
    assert!(!fallbacks[0].contains("Exception raised"), "{fallbacks:?}");
    let full = |_| Err(tch::TchError::Torch("CUDA out of memory. Tried to allocate 2.00 GiB.".to_owned()));
    let error = ops.tried(names, full, &mut fallbacks).unwrap_err().to_string();
    assert!(error.contains("flash attention: CUDA out of memory"), "{error}");
    // Which may be more than memory: its words are kept.
    let unready = |_| Err(tch::TchError::Torch(UNREADY.to_owned()));
    let error = ops.tried(names, unready, &mut fallbacks).unwrap_err();
    assert!(error.to_string().contains(UNREADY), "{error}");
    assert_eq!(fallbacks.len(), 1);
}

#[test]
fn a_bf16_run_keeps_master_weights_in_f32_and_tables_in_bf16() {
    let ops = cpu(Precision::Bf16);
    let fine = [1.000_123_f32, -0.5];
    let rounded = [1.0_f32, -0.5];
    assert_eq!(*ops.weight_values(&ops.weight(&[1, 2], &fine).unwrap()).unwrap().wide(), fine);
    assert_eq!(*ops.weight_values(&ops.table(&[1, 2], &fine).unwrap()).unwrap().wide(), rounded);
    let full = cpu(Precision::F32);
    assert_eq!(*full.weight_values(&full.table(&[1, 2], &fine).unwrap()).unwrap().wide(), fine);
}

#[test]
fn state_of_a_bf16_table_is_stored_in_bf16_and_restores_exactly() {
    let ops = cpu(Precision::Bf16);
    let step = crate::ops::AdamWStep {
        lr: 0.01,
        beta1: 0.8,
        beta2: 0.95,
        bias1: 0.2,
        bias2: 0.05,
        eps: 1e-10,
        weight_decay: 0.0,
    };
    let run = |restart: bool| {
        let mut table = ops.table(&[2, 2], &[1.0, 0.3, -0.7, 2.0]).unwrap();
        let mut moments = [0, 1].map(|_| ops.state(&[2, 2], &[0.0; 4]).unwrap());
        for t in 0..3 {
            let mut grad = ops.grad(&[2, 2]).unwrap();
            let dy = ops.tensor(2, 2, &[0.1, 0.7 * t as f32, -0.3, 0.013]).unwrap();
            ops.embedding_backward(&ops.tokens(&[0, 1]).unwrap(), &dy, &mut grad).unwrap();
            let [m, v] = &mut moments;
            ops.adamw(&mut table, &grad, m, v, &step).unwrap();
            if restart {
                table = ops.table(&[2, 2], &ops.weight_values(&table).unwrap().wide()).unwrap();
                moments = moments.map(|s| ops.state(&[2, 2], &ops.state_values(&s).unwrap().wide()).unwrap());
            }
        }
        let [m, v] = &moments;
        let owned = Cow::into_owned;
        (
            owned(ops.weight_values(&table).unwrap().wide()),
            owned(ops.state_values(m).unwrap().wide()),
            owned(ops.state_values(v).unwrap().wide()),
        )
    };
    let through = run(false);
    assert!(
        through.1.iter().all(|x| x.to_bits().trailing_zeros() >= 16),
        "stored in bfloat16: {:?}",
        through.1
    );
    assert_eq!(through, run(true));
}

#[test]
fn the_same_call_gives_the_same_bits() {
    for precision in [Precision::F32, Precision::Bf16] {
        let ops = cpu(precision);
        let n = 600;
        let wave: Vec<f32> = (0..n * 64).map(|i| libm::sinf(i as f32 * 0.37)).collect();
        let x = ops.tensor(n, 64, &wave).unwrap();
        let tokens = ops.tokens(&(0..n as i32).map(|i| i * i % 23).collect::<Vec<_>>()).unwrap();
        let sequence = SequenceShape { batch: 2, len: 300 };
        let shape = AttentionShape { sequence, n_head: 4, n_kv_head: 4, head_dim: 16, window: 100 };
        let run = || {
            let (o, saved) = ops.attention(&x, &x, &x, &shape).unwrap();
            let (dq, dk, dv) = ops.attention_backward(&x, &x, &x, &o, &saved, &shape, &x).unwrap();
            let mut table = ops.grad(&[23, 64]).unwrap();
            ops.embedding_backward(&tokens, &dk, &mut table).unwrap();
            let w = ops.weight(&[64, 64], &wave[..64 * 64]).unwrap();
            let mut dw = ops.grad(&[64, 64]).unwrap();
            let dx = ops.linear_backward(&o, &w, &dq, &mut dw, None).unwrap();
            let tensors = [o, dq, dk, dv, dx].map(|t| ops.tensor_values(&t).unwrap());
            (
                tensors,
                ops.grad_values(&table).unwrap().into_owned(),
                ops.grad_values(&dw).unwrap().into_owned(),
            )
        };
        let first = run();
        for _ in 0..3 {
            assert!(run() == first, "{precision:?}");
        }
    }
}

#[test]
fn a_lack_of_memory_is_told_apart() {
    let ops = cpu(Precision::F32);
    let error = ops.zeros(1 << 40, 1 << 10).unwrap_err();
    assert!(matches!(error, OpError::OutOfMemory { op: "zeros", bytes } if bytes >= 1 << 52), "{error}");
}

#[test]
fn shapes_that_do_not_fit_are_errors_with_the_ops_name() {
    let ops = cpu(Precision::F32);
    let (x, w) = (ops.zeros(2, 3).unwrap(), ops.weight(&[4, 5], &[0.0; 20]).unwrap());
    let error = ops.linear(&x, &w).unwrap_err().to_string();
    assert!(error.starts_with("linear: ") && error.contains("2x3"), "{error}");
    assert!(!error.contains("Exception raised"), "{error}");
    assert!(matches!(ops.weight(&[4, 5], &[0.0; 19]), Err(OpError::Shape { .. })));
}

/// The shim catches what libtorch throws: flash attention wants CUDA, and CUDA's counts want CUDA.
#[test]
fn a_bad_call_into_the_shim_is_an_error() {
    let tensor = || tch::Tensor::zeros([1, 8, 2, 64], (tch::Kind::BFloat16, tch::Device::Cpu));
    let error =
        super::shim::flash_forward(&tensor(), &tensor(), &tensor(), 0.125, -1).unwrap_err().to_string();
    assert!(error.contains("_flash_attention_forward"), "{error}");
    // Shapes that no attention has.
    let flat = tch::Tensor::zeros([3], (tch::Kind::Float, tch::Device::Cpu));
    assert!(super::shim::flash_forward(&flat, &flat, &flat, 1.0, -1).is_err());
    if super::facts::torch_facts().unwrap().cuda.is_err() {
        assert!(super::shim::cuda_bytes(0).is_err());
        assert!(super::shim::cuda_reset_peak(99).is_err());
        assert!(super::shim::cuda_synchronize(0).is_err());
    }
}

/// CUDA's half of libtorch is loaded after the CPU has computed, and still found.
#[test]
fn cuda_is_loaded_when_asked_for() {
    let ops = cpu(Precision::F32);
    let _ = ops.zeros(2, 2).unwrap();
    if let Err(error) = super::shim::load_cuda() {
        assert!(error.to_string().contains("built without CUDA"), "{error}");
    }
}

#[test]
fn live_bytes_follow_tensors() {
    let ops = cpu(Precision::F32);
    // Other tests allocate at the same time: look for a tensor far larger than theirs.
    let bytes = 1 << 30;
    let before = ops.live_bytes();
    let tensor = ops.zeros(1 << 14, 1 << 14).unwrap();
    let during = ops.live_bytes();
    drop(tensor);
    let after = ops.live_bytes();
    assert!(during.saturating_sub(before) > bytes / 2, "{before} {during}");
    assert!(during.saturating_sub(after) > bytes / 2, "{during} {after}");
}

#[test]
fn the_environment_class_names_what_decides_bits() {
    let class = cpu(Precision::F32).environment_class();
    for part in ["tch/cpu ", "libtorch 2.11.0", "2 threads"] {
        assert!(class.contains(part), "{class}");
    }
    assert_ne!(class, TorchBackend::new(TorchDevice::Cpu, Precision::F32, 3).unwrap().environment_class());
}
