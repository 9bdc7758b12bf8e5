//! Files of `torch.save`: a zip archive of stored records, one of them a pickle that says what the others are.
//!
//! Nothing in such a file is executed: of classes and functions, only those that tensors need are accepted, and anything
//! else is refused by name. Its tensors are read one at a time, so that a file never has to fit in memory.

mod read;
mod write;
mod zip;

#[cfg(test)]
mod tests;

pub use read::{Dtype, Tensor, TorchFile};
pub(crate) use write::int32;
pub use write::{Saved, save};
