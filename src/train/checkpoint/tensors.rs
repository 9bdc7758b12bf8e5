//! Named tensors and the safetensors format.
//!
//! Writing is ours, because it streams (the `safetensors` crate wants every tensor's bytes in memory a second
//! time); reading is the crate's, which checks the header.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use safetensors::{Dtype, SafeTensors};
use serde_json::json;

use super::error::{CheckpointError, Misfit};

/// A tensor by name, row-major.
#[derive(Debug, Clone)]
pub struct NamedTensor<'a> {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Values<'a>,
}

/// Values in the type they are computed in, borrowed where they can be.
#[derive(Debug, Clone)]
pub enum Values<'a> {
    /// Single precision.
    F32(Cow<'a, [f32]>),
    /// Double precision: the scalar backend's.
    F64(Cow<'a, [f64]>),
}

impl<'a> NamedTensor<'a> {
    /// A tensor of single precision.
    pub fn f32(name: impl Into<String>, shape: &[usize], values: impl Into<Cow<'a, [f32]>>) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), values: Values::F32(values.into()) }
    }

    /// A tensor of double precision.
    pub fn f64(name: impl Into<String>, shape: &[usize], values: impl Into<Cow<'a, [f64]>>) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), values: Values::F64(values.into()) }
    }

    /// Its values where they are of single precision.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(values) => Some(values),
            Values::F64(_) => None,
        }
    }

    /// Its values where they are of double precision.
    pub fn as_f64(&self) -> Option<&[f64]> {
        match &self.values {
            Values::F64(values) => Some(values),
            Values::F32(_) => None,
        }
    }
}

/// Equal when name, shape, type and every bit of the values are.
impl PartialEq for NamedTensor<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.shape == other.shape && self.values == other.values
    }
}

impl PartialEq for Values<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())),
            (Self::F64(a), Self::F64(b)) => a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())),
            _ => false,
        }
    }
}

impl Values<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn dtype(&self) -> (&'static str, usize) {
        match self {
            Self::F32(_) => ("F32", 4),
            Self::F64(_) => ("F64", 8),
        }
    }
}

/// Writes tensors in the safetensors format, in the order given, with the metadata `format = pt` that loaders of
/// the field ask for. Two of one name, or a shape that does not multiply to its values, is `InvalidInput`.
pub fn write_safetensors(out: &mut impl Write, tensors: &[NamedTensor<'_>]) -> io::Result<()> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let (dtype, width) = tensor.values.dtype();
        if tensor.shape.iter().product::<usize>() != tensor.values.len() {
            let (name, shape, len) = (&tensor.name, &tensor.shape, tensor.values.len());
            return Err(invalid(format!("tensor `{name}` of shape {shape:?} has {len} values")));
        }
        let end = offset + tensor.values.len() * width;
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end] });
        if header.insert(tensor.name.clone(), entry).is_some() {
            return Err(invalid(format!("two tensors are named `{}`", tensor.name)));
        }
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in tensors {
        match &tensor.values {
            Values::F32(values) => write_values(out, values, f32::to_le_bytes)?,
            Values::F64(values) => write_values(out, values, f64::to_le_bytes)?,
        }
    }
    Ok(())
}

fn write_values<T: Copy, const N: usize>(
    out: &mut impl Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    for block in values.chunks(buffer.len() / N) {
        for (slot, &value) in buffer.chunks_exact_mut(N).zip(block) {
            slot.copy_from_slice(&bytes(value));
        }
        out.write_all(&buffer[..block.len() * N])?;
    }
    Ok(())
}

/// The tensors of a safetensors file, in the order of their data. Only `F32` and `F64` are known; the error says
/// what is wrong.
pub fn read_safetensors(bytes: &[u8]) -> Result<Vec<NamedTensor<'static>>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by_key(|(name, view)| (view.data().as_ptr() as usize, *name));
    let mut found = Vec::with_capacity(tensors.len());
    for (name, view) in tensors {
        let data = view.data();
        found.push(match view.dtype() {
            Dtype::F32 => NamedTensor::f32(name, view.shape(), read_values(data, f32::from_le_bytes)),
            Dtype::F64 => NamedTensor::f64(name, view.shape(), read_values(data, f64::from_le_bytes)),
            other => return Err(format!("tensor `{name}` has type {other:?}; expected F32 or F64")),
        });
    }
    Ok(found)
}

fn read_values<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| value(chunk)).collect()
}

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
