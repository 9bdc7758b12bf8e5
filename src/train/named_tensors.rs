//! Tensors by name, as engines and as checkpoints have them.

use crate::error::{Error, Result};

use super::checkpoint;
use super::engine::NamedTensor;

/// An engine's tensors as checkpoints and hashes take them.
pub(crate) fn named<'a>(tensors: &'a [NamedTensor<'_>]) -> Vec<checkpoint::NamedTensor<'a>> {
    let named = |t: &'a NamedTensor<'_>| checkpoint::NamedTensor {
        name: t.name.clone(),
        shape: t.shape.clone(),
        values: (&t.values).into(),
    };
    tensors.iter().map(named).collect()
}

/// A checkpoint's tensors as engines take them.
pub fn plain<'a>(tensors: &'a [checkpoint::NamedTensor<'_>]) -> Result<Vec<NamedTensor<'a>>> {
    tensors
        .iter()
        .map(|tensor| {
            let values = tensor.as_f32().ok_or_else(|| {
                Error::input(format!(
                    "the tensor `{}` of the checkpoint is not of single precision",
                    tensor.name
                ))
            })?;
            Ok(NamedTensor { name: tensor.name.clone(), shape: tensor.shape.clone(), values: values.into() })
        })
        .collect()
}
