//! The backend itself: its device, precision and threads.

use tch::{Device, Kind, Tensor};

use super::device::{self, DeviceError, TorchDevice};
use super::fault::{TchResult, caught, named, told};
use super::{facts, flash, linear, memory, shim};
use crate::host::cpu_model;
use crate::ops::{Backend, Hardware, OpError, OpResult, Operand};
use crate::precision::Precision;

/// The ops on libtorch.
#[derive(Debug)]
pub struct TorchBackend {
    pub(super) device: TorchDevice,
    pub(super) precision: Precision,
    threads: usize,
    /// Whether flash attention passed its trial on this device; decided once, part of the class.
    pub(super) flash: bool,
    /// Whether this device adds bfloat16 products to a float32 accumulator in one call.
    pub(super) mixed_addmm: bool,
    class: String,
    hardware: Hardware,
}

/// What CUDA has faster ways for, as a trial names it, and the way taken without.
const SUMS: (&str, &str) = ("the product of bf16 factors added to f32", "factors are widened to f32 first");
const ATTENTION: (&str, &str) = ("flash attention", "attention goes in blocks of scores");

impl TorchBackend {
    /// The backend on a device. `threads` are the intra-op threads of libtorch's CPU work: on the CPU device they
    /// decide bits, so they are part of the environment class.
    ///
    /// # Errors
    /// A device, precision, libtorch or number of threads that cannot be had here.
    pub fn new(device: TorchDevice, precision: Precision, threads: usize) -> Result<Self, DeviceError> {
        device::check(device, precision == Precision::Bf16, threads.max(1))?;
        let facts = facts::torch_facts().map_err(|_| DeviceError::NotBuilt)?;
        let mut backend = Self {
            device,
            precision,
            threads: threads.max(1),
            flash: false,
            mixed_addmm: false,
            class: String::new(),
            hardware: Hardware::default(),
        };
        let start = |e: tch::TchError| DeviceError::Start { message: told(&e) };
        let _guard = tch::no_grad_guard();
        shim::set_threads(backend.threads).map_err(start)?;
        memory::limit_cpu();
        let mut fallbacks = Vec::new();
        if let TorchDevice::Cuda(index) = device {
            // The first kernel starts CUDA; its failure is the driver's or the library's, not an op's.
            let _ = caught(|| Tensor::f_ones([1], (Kind::Float, backend.tch_device()))).map_err(start)?;
            shim::cuda_synchronize(index).map_err(start)?;
            if precision == Precision::Bf16 {
                backend.mixed_addmm = backend.tried(SUMS, linear::trial, &mut fallbacks)?;
                backend.flash = backend.tried(ATTENTION, flash::trial, &mut fallbacks)?;
            }
        }
        backend.class = backend.describe(&facts);
        backend.hardware = Hardware {
            library: Some(facts.version.clone()),
            accelerator: backend.gpu(&facts).map(str::to_owned),
            fallbacks,
        };
        memory::reset_peak(device);
        Ok(backend)
    }

    /// Whether the device passes a trial; where it does not, why is added to `fallbacks`.
    pub(super) fn tried(
        &self,
        (what, instead): (&'static str, &str),
        trial: fn(Device) -> TchResult<()>,
        fallbacks: &mut Vec<String>,
    ) -> Result<bool, DeviceError> {
        let Err(error) = caught(|| trial(self.tch_device())) else { return Ok(true) };
        // In libtorch's words: what says so little as a cuBLAS that does not start may be more than its memory.
        let words = told(&error);
        // Full memory says nothing of what the device can do.
        if let Err(OpError::OutOfMemory { .. }) = named(what, Err::<(), _>(error)) {
            return Err(DeviceError::Start { message: format!("{what}: {words}") });
        }
        fallbacks.push(format!("{instead}, which is slow: {what}: {words}"));
        Ok(false)
    }

    /// The name of the GPU it computes on.
    fn gpu<'a>(&self, facts: &'a facts::TorchFacts) -> Option<&'a str> {
        let TorchDevice::Cuda(index) = self.device else { return None };
        facts.cuda.as_ref().ok()?.devices.get(index).map(|gpu| gpu.name.as_str())
    }

    /// The environment class: what must be equal for bits to be.
    fn describe(&self, facts: &facts::TorchFacts) -> String {
        let libtorch = &facts.version;
        match self.device {
            TorchDevice::Cpu => format!(
                "tch/cpu {}, libtorch {libtorch}, {}, {} threads",
                cpu_model(),
                facts.cpu_capability,
                self.threads
            ),
            TorchDevice::Cuda(_) => {
                let name = self.gpu(facts).unwrap_or("unknown");
                // What was found by trial decides bits like the device itself.
                let ways = match (self.precision, self.flash, self.mixed_addmm) {
                    (Precision::F32, ..) => String::new(),
                    (Precision::Bf16, flash, fused) => {
                        let attention = if flash { "flash" } else { "chunked" };
                        let sums = if fused { "fused" } else { "widened" };
                        format!(", {attention} attention, {sums} bf16 sums")
                    }
                };
                format!("tch/cuda {name}, libtorch {libtorch}{ways}")
            }
        }
    }

    /// The device as tch names it.
    pub(super) fn tch_device(&self) -> Device {
        match self.device {
            TorchDevice::Cpu => Device::Cpu,
            TorchDevice::Cuda(index) => Device::Cuda(index),
        }
    }

    /// Kind of activations and of the weights that products read.
    pub(super) fn kind(&self) -> Kind {
        match self.precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        }
    }

    /// Runs an op: no autograd, the fixed number of threads, errors under the op's name.
    pub(super) fn run<T>(&self, op: &'static str, body: impl FnOnce() -> TchResult<T>) -> OpResult<T> {
        let _guard = tch::no_grad_guard();
        named(op, shim::set_threads(self.threads).and_then(|()| caught(body)))
    }

    /// Values from the host as a tensor of `kind` on the device, for which CUDA may wait.
    pub(super) fn upload<T: tch::kind::Element>(
        &self,
        values: &[T],
        shape: &[i64],
        kind: Kind,
    ) -> TchResult<Tensor> {
        Tensor::f_from_slice(values)?.f_to_device_(self.tch_device(), kind, true, false)?.f_reshape(shape)
    }

    /// What every micro-batch sends, token ids and the like, as (N) int64. From pinned memory, so that nothing waits.
    pub(super) fn upload_ids<T: tch::kind::Element>(&self, values: &[T]) -> TchResult<Tensor> {
        let ids = Tensor::f_from_slice(values)?.f_to_dtype(Kind::Int64, false, false)?;
        match self.device {
            TorchDevice::Cpu => Ok(ids),
            TorchDevice::Cuda(_) => {
                shim::pin(&ids)?.f_to_device_(self.tch_device(), Kind::Int64, true, false)
            }
        }
    }
}

impl Backend for TorchBackend {
    fn stored_bytes(&self, of: Operand<'_, Self>) -> u64 {
        let values = match of {
            Operand::Tensor(x) => x,
            Operand::Weight(weight) => &weight.master,
            Operand::Grad(grad) => &grad.0,
            Operand::State(state) => &state.0,
        };
        (values.numel() * values.kind().elt_size_in_bytes()) as u64
    }

    fn live_bytes(&self) -> u64 {
        memory::live_and_peak(self.device).map_or(0, |(live, _)| live)
    }

    fn peak_bytes(&self) -> Option<u64> {
        memory::live_and_peak(self.device).map(|(_, peak)| peak)
    }

    fn allocations(&self) -> Option<u64> {
        memory::allocations(self.device)
    }

    fn synchronize(&self) {
        if let TorchDevice::Cuda(index) = self.device {
            // A failed kernel shows again at the next op, with its name.
            drop(shim::cuda_synchronize(index));
        }
    }

    fn hardware(&self) -> Hardware {
        self.hardware.clone()
    }

    fn environment_class(&self) -> String {
        self.class.clone()
    }
}
