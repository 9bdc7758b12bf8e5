//! The tensors of a checkpoint, and whether they are a model's.

use std::collections::BTreeMap;

use super::error::{CheckpointError, Misfit};
pub use crate::tensors::{NamedTensor, Values, read_safetensors, write_safetensors};

/// Checks that `found` has exactly the expected names with the expected shapes, in any order.
pub fn check_fit<'a>(
    expected: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    found: &[NamedTensor<'_>],
) -> Result<(), CheckpointError> {
    let mut rest: BTreeMap<&str, &[usize]> =
        found.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
    let mut misfit = Misfit::default();
    for (name, shape) in expected {
        match rest.remove(name) {
            None => misfit.missing.push(name.to_owned()),
            Some(other) if other != shape => {
                misfit.shapes.push((name.to_owned(), shape.to_vec(), other.to_vec()));
            }
            Some(_) => {}
        }
    }
    misfit.unexpected = rest.into_keys().map(str::to_owned).collect();
    if misfit == Misfit::default() { Ok(()) } else { Err(CheckpointError::Misfit(misfit)) }
}
