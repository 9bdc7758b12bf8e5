//! The C++ shim as Rust functions. Everything `unsafe` of this backend is here.

use std::ffi::{CStr, c_char, c_int};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use super::fault::TchResult;

unsafe extern "C" {
    fn nanorun_free(text: *mut c_char);
    fn nanorun_start() -> *mut c_char;
    fn nanorun_threads(threads: c_int) -> *mut c_char;
    fn nanorun_team(threads: c_int) -> c_int;
    fn nanorun_version() -> *mut c_char;
    fn nanorun_library() -> *mut c_char;
    fn nanorun_cpu_capability() -> *mut c_char;
    fn nanorun_cpu_bytes() -> u64;
    fn nanorun_cpu_peak() -> u64;
    fn nanorun_cpu_reset_peak();
    fn nanorun_cpu_allocations() -> u64;
    fn nanorun_cpu_limit(bytes: u64);
    fn nanorun_cpu_trim() -> *mut c_char;
    fn nanorun_load_cuda() -> *mut c_char;
    fn nanorun_cuda_synchronize(device: c_int) -> *mut c_char;
    fn nanorun_cuda_bytes(
        device: c_int,
        live: *mut u64,
        peak: *mut u64,
        allocations: *mut u64,
    ) -> *mut c_char;
    fn nanorun_cuda_reset_peak(device: c_int) -> *mut c_char;
    fn nanorun_cuda_empty_cache() -> *mut c_char;
    fn nanorun_driver(version: *mut c_int, count: *mut c_int) -> *mut c_char;
    fn nanorun_device(
        device: c_int,
        name: *mut c_char,
        capacity: c_int,
        bytes: *mut u64,
        capability: *mut c_int,
    ) -> *mut c_char;
    fn nanorun_pin(x: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    fn nanorun_flash_forward(
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        scale: f64,
        window: i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn nanorun_flash_backward(
        d_o: *const C_tensor,
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        o: *const C_tensor,
        lse: *const C_tensor,
        state: *const C_tensor,
        unused: *const C_tensor,
        scale: f64,
        window: i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Takes over a string of the shim's.
fn text(pointer: *mut c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the shim returns null or a NUL-terminated string of its own that is freed once, here.
    unsafe {
        let text = CStr::from_ptr(pointer).to_string_lossy().into_owned();
        nanorun_free(pointer);
        Some(text)
    }
}

fn check(message: *mut c_char) -> TchResult<()> {
    text(message).map_or(Ok(()), |message| Err(TchError::Torch(message)))
}

/// Sets the process-wide switches, once; see `nanorun_start` in `shim.cpp`.
pub(super) fn start() -> TchResult<()> {
    // SAFETY: no arguments.
    check(unsafe { nanorun_start() })
}

/// Intra-op threads of the calling thread.
pub(super) fn set_threads(threads: usize) -> TchResult<()> {
    // SAFETY: a plain number.
    check(unsafe { nanorun_threads(c_int::try_from(threads).unwrap_or(c_int::MAX)) })
}

/// How many of so many intra-op threads really start.
pub(super) fn team(threads: usize) -> usize {
    // SAFETY: a plain number.
    let started = unsafe { nanorun_team(c_int::try_from(threads).unwrap_or(c_int::MAX)) };
    usize::try_from(started).unwrap_or_default()
}

/// Version of libtorch this was built against, such as `2.11.0`.
pub(super) fn version() -> String {
    // SAFETY: no arguments.
    text(unsafe { nanorun_version() }).unwrap_or_default()
}

/// File of the libtorch that is loaded.
pub(super) fn library() -> String {
    // SAFETY: no arguments.
    text(unsafe { nanorun_library() }).unwrap_or_default()
}

/// Vector instructions in use on the CPU, such as `AVX2`.
pub(super) fn cpu_capability() -> String {
    // SAFETY: no arguments.
    text(unsafe { nanorun_cpu_capability() }).unwrap_or_default()
}

/// Bytes in CPU tensors, now and at most since the last reset.
pub(super) fn cpu_bytes() -> (u64, u64) {
    // SAFETY: no arguments.
    unsafe { (nanorun_cpu_bytes(), nanorun_cpu_peak()) }
}

/// Starts counting the peak of CPU tensors anew.
pub(super) fn cpu_reset_peak() {
    // SAFETY: no arguments.
    unsafe { nanorun_cpu_reset_peak() };
}

/// Hands pooled CPU memory back to the system.
pub(super) fn cpu_trim() -> TchResult<()> {
    // SAFETY: no arguments.
    check(unsafe { nanorun_cpu_trim() })
}

/// How often CPU memory was asked of the system, for the pool had none of the size.
pub(super) fn cpu_allocations() -> u64 {
    // SAFETY: no arguments.
    unsafe { nanorun_cpu_allocations() }
}

/// Bytes that CPU tensors may take in all; more is out of memory.
pub(super) fn cpu_limit(bytes: u64) {
    // SAFETY: a plain number.
    unsafe { nanorun_cpu_limit(bytes) };
}

/// Loads the CUDA half of libtorch; before anything asks it for CUDA.
pub(super) fn load_cuda() -> TchResult<()> {
    // SAFETY: no arguments.
    check(unsafe { nanorun_load_cuda() })
}

/// Waits for a CUDA device.
pub(super) fn cuda_synchronize(device: usize) -> TchResult<()> {
    // SAFETY: a plain number.
    check(unsafe { nanorun_cuda_synchronize(index(device)) })
}

/// Bytes in tensors of a CUDA device, now and at most since the last reset, and how often the pool had to ask the
/// device for memory.
pub(super) fn cuda_bytes(device: usize) -> TchResult<(u64, u64, u64)> {
    let (mut live, mut peak, mut allocations) = (0, 0, 0);
    // SAFETY: the pointers are to live numbers.
    check(unsafe { nanorun_cuda_bytes(index(device), &raw mut live, &raw mut peak, &raw mut allocations) })?;
    Ok((live, peak, allocations))
}

/// Starts counting a CUDA device's peak anew.
pub(super) fn cuda_reset_peak(device: usize) -> TchResult<()> {
    // SAFETY: a plain number.
    check(unsafe { nanorun_cuda_reset_peak(index(device)) })
}

/// Hands pooled CUDA memory back.
pub(super) fn cuda_empty_cache() -> TchResult<()> {
    // SAFETY: no arguments.
    check(unsafe { nanorun_cuda_empty_cache() })
}

/// Version and device count of the NVIDIA driver, or why there is none.
pub(super) fn driver() -> TchResult<(i32, usize)> {
    let (mut version, mut count) = (0, 0);
    // SAFETY: both pointers are to live numbers.
    check(unsafe { nanorun_driver(&raw mut version, &raw mut count) })?;
    Ok((version, usize::try_from(count).unwrap_or(0)))
}

/// Name, bytes of memory and compute capability (90 is 9.0) of a device; after [`driver`].
pub(super) fn device(device: usize) -> TchResult<(String, u64, u32)> {
    let mut name = [0; 256];
    let (mut bytes, mut capability) = (0, 0);
    // SAFETY: the buffer has the capacity told, the pointers are to live numbers.
    check(unsafe {
        nanorun_device(index(device), name.as_mut_ptr(), 256, &raw mut bytes, &raw mut capability)
    })?;
    let name = name.iter().take_while(|&&c| c != 0).map(|&c| char::from(c.cast_unsigned())).collect();
    Ok((name, bytes, u32::try_from(capability).unwrap_or(0)))
}

/// A copy in pinned memory, from which a CUDA device reads while the host goes on.
pub(super) fn pin(x: &Tensor) -> TchResult<Tensor> {
    let mut out = [std::ptr::null_mut()];
    // SAFETY: the tensor lives through the call; `out` has room for the one it makes.
    check(unsafe { nanorun_pin(x.as_ptr(), out.as_mut_ptr()) })?;
    // SAFETY: a fresh tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out[0]) })
}

/// Output, logsumexp and what else the backward wants of a flash attention.
#[derive(Debug)]
pub(super) struct Flash {
    /// (B, T, H, D)
    pub(super) output: Tensor,
    lse: Tensor,
    state: Tensor,
    unused: Tensor,
}

/// Causal flash attention within a window on CUDA: q (B, T, H, D), k and v (B, T, K, D), all bf16.
pub(super) fn flash_forward(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, window: i64) -> TchResult<Flash> {
    let mut out = [std::ptr::null_mut(); 4];
    // SAFETY: the tensors live through the call; `out` has room for the four it makes.
    check(unsafe {
        nanorun_flash_forward(q.as_ptr(), k.as_ptr(), v.as_ptr(), scale, window, out.as_mut_ptr())
    })?;
    // SAFETY: each pointer is a fresh tensor that nobody else owns.
    let [output, lse, state, unused] = out.map(|pointer| unsafe { Tensor::from_ptr(pointer) });
    Ok(Flash { output, lse, state, unused })
}

/// Deterministic backward of [`flash_forward`]. -> (dq, dk, dv)
pub(super) fn flash_backward(
    d_o: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    o: &Tensor,
    saved: &Flash,
    scale: f64,
    window: i64,
) -> TchResult<[Tensor; 3]> {
    let mut out = [std::ptr::null_mut(); 3];
    // SAFETY: the tensors live through the call; `out` has room for the three it makes.
    check(unsafe {
        nanorun_flash_backward(
            d_o.as_ptr(),
            q.as_ptr(),
            k.as_ptr(),
            v.as_ptr(),
            o.as_ptr(),
            saved.lse.as_ptr(),
            saved.state.as_ptr(),
            saved.unused.as_ptr(),
            scale,
            window,
            out.as_mut_ptr(),
        )
    })?;
    // SAFETY: each pointer is a fresh tensor that nobody else owns.
    Ok(out.map(|pointer| unsafe { Tensor::from_ptr(pointer) }))
}

fn index(device: usize) -> c_int {
    c_int::try_from(device).unwrap_or(c_int::MAX)
}
