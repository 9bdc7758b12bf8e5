//! The ops on libtorch, through tch: CPU and CUDA, float32 and bfloat16.
//!
//! Forward and backward are hand-written; libtorch gives tensors, memory and kernels, never its autograd. Results are
//! equal from run to run within one environment class (`TorchBackend::environment_class`): kernels are chosen
//! deterministic, the number of intra-op threads is fixed, cuBLAS has a fixed workspace, and rows of a gradient that
//! belong to one token are summed in an order that the tokens alone decide. No op waits for the device, except those
//! that hand values to the host.
//!
//! In bfloat16, activations and products are bfloat16 as upstream's are; master weights, weight gradients, norms,
//! softmax, loss and lambdas are float32; embedding tables are bfloat16 throughout.
//!
//! Without the Cargo feature `tch` only [`device`], [`memory`] and [`peak`] are here: they know the backend, plan its
//! memory and say how to get it.

mod chunks;
pub mod device;
pub mod facts;
mod flash;
pub mod memory;
pub mod peak;

#[cfg(feature = "tch")]
mod attention;
#[cfg(feature = "tch")]
mod backend;
#[cfg(feature = "tch")]
mod embedding;
#[cfg(feature = "tch")]
mod fault;
#[cfg(feature = "tch")]
mod forward;
#[cfg(feature = "tch")]
mod gate;
#[cfg(feature = "tch")]
mod linear;
#[cfg(feature = "tch")]
mod loss;
#[cfg(feature = "tch")]
mod norm;
#[cfg(feature = "tch")]
mod optimizer;
#[cfg(feature = "tch")]
mod residual;
#[cfg(feature = "tch")]
mod rotary;
#[cfg(feature = "tch")]
mod shim;
#[cfg(feature = "tch")]
mod tokens;
#[cfg(feature = "tch")]
mod train;
#[cfg(feature = "tch")]
mod weight;

#[cfg(feature = "tch")]
pub use backend::TorchBackend;

#[cfg(all(test, feature = "tch"))]
mod oracle;
#[cfg(all(test, feature = "tch"))]
mod tests;
