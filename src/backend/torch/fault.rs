//! libtorch's errors as the errors of the ops.

use tch::TchError;

use crate::caught_panics::{self, Payload};
use crate::ops::{OpError, OpResult};

/// `Result` of a tch call.
pub(super) type TchResult<T> = Result<T, TchError>;

/// A shape that an op refuses.
pub(super) fn shape_error(message: impl Into<String>) -> TchError {
    TchError::Shape(message.into())
}

/// How tch's own panics begin.
const PANIC: &str = "called `Result::unwrap()` on an `Err` value: Torch(";

/// What such a panic says of libtorch's error.
fn words(panic: &Payload) -> Option<&str> {
    panic.downcast_ref::<String>()?.strip_prefix(PANIC)
}

/// Runs a call into tch. Where a call that takes a number fails, tch 0.24 panics instead of giving the error back: it
/// drops the number first, and finds libtorch's error there. The panic becomes the error; any other panic goes on.
pub(super) fn caught<T>(call: impl FnOnce() -> TchResult<T>) -> TchResult<T> {
    // Nothing is read after a failed op: the run ends, or a trial's tensors are dropped.
    caught_panics::caught(|panic| words(panic).is_some(), call)
        .unwrap_or_else(|panic| Err(TchError::Torch(unescaped(words(&*panic).unwrap_or_default()))))
}

/// A message as it was before it was formatted for debugging.
fn unescaped(words: &str) -> String {
    words.trim_end_matches(')').trim_matches('"').replace("\\n", "\n").replace("\\\"", "\"")
}

/// Names the op and sorts the error.
pub(super) fn named<T>(op: &'static str, result: TchResult<T>) -> OpResult<T> {
    result.map_err(|error| match error {
        TchError::Shape(message) => OpError::Shape { op, message },
        TchError::Torch(message) if is_out_of_memory(&message) => {
            OpError::OutOfMemory { op, bytes: bytes_asked(&message).unwrap_or(0) }
        }
        other => OpError::Backend { op, message: told(&other) },
    })
}

/// What an error says, without tch's and libtorch's additions.
pub(super) fn told(error: &TchError) -> String {
    match error {
        TchError::Torch(message) => first_lines(message),
        other => other.to_string(),
    }
}

/// Whether libtorch says that memory could not be had: its CUDA allocator, its CPU allocator, or cuBLAS.
fn is_out_of_memory(message: &str) -> bool {
    let words = [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        // What cuBLAS says where its own context finds no room.
        "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",
    ];
    words.iter().any(|words| message.contains(words))
}

/// Bytes asked for, from "you tried to allocate 123 bytes" or "Tried to allocate 1.50 GiB".
fn bytes_asked(message: &str) -> Option<usize> {
    let start = message.find("ried to allocate ")? + "ried to allocate ".len();
    let mut words = message.get(start..)?.split_whitespace();
    let count: f64 = words.next()?.parse().ok()?;
    let unit = match words.next()?.trim_end_matches(['.', ',']) {
        "bytes" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some((count * unit) as usize)
}

/// libtorch appends a backtrace and debugging advice to its messages; the first lines say what happened.
fn first_lines(message: &str) -> String {
    let end = message.find("\nException raised from").or_else(|| message.find("\nDevice-side assertion"));
    message.get(..end.unwrap_or(message.len())).unwrap_or(message).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(message: &str) -> OpError {
        named::<()>("linear", Err(TchError::Torch(message.to_owned()))).unwrap_err()
    }

    #[test]
    fn out_of_memory_is_recognised_on_every_device() {
        let cuda = "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 139 GiB";
        assert!(matches!(fault(cuda), OpError::OutOfMemory { op: "linear", bytes: 1_610_612_736 }));
        let cpu = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you \
                   tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)";
        assert!(matches!(fault(cpu), OpError::OutOfMemory { bytes: 4096, .. }));
        let cublas = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`";
        assert!(matches!(fault(cublas), OpError::OutOfMemory { bytes: 0, .. }));
        let disguised = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`";
        assert!(matches!(fault(disguised), OpError::OutOfMemory { bytes: 0, .. }));
    }

    /// A call with a number among its arguments panics in tch.
    #[test]
    fn an_error_that_tch_panics_with_is_an_error() {
        let tensor = || tch::Tensor::zeros([2, 3], (tch::Kind::Int64, tch::Device::Cpu));
        let error = caught(|| tensor().f_mul_scalar_(0.5)).unwrap_err();
        let OpError::Backend { message, .. } = named::<()>("mul", Err(error)).unwrap_err() else {
            panic!("not a backend error");
        };
        assert!(message.contains("can't be cast") && !message.contains("Exception raised"), "{message}");
    }

    #[test]
    fn other_panics_go_on() {
        let outcome = std::panic::catch_unwind(|| caught::<()>(|| panic!("a defect")));
        assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"a defect"));
    }

    #[test]
    fn other_errors_keep_their_words_without_the_backtrace() {
        let OpError::Backend { message, .. } =
            fault("expected m1 and m2 to have the same dtype\nException raised from f at x.cpp:1")
        else {
            panic!("not a backend error");
        };
        assert_eq!(message, "expected m1 and m2 to have the same dtype");
    }
}
