//! Named tensors and the safetensors format: checkpoints, initial weights, upstream's reference numbers.
//!
//! Writing is ours, because it streams (the `safetensors` crate wants every tensor's bytes in memory a second
//! time); reading is the crate's, which checks the header against the file's length before anything is allocated
//! by it. Names that stand twice, which the crate lets pass, are refused here.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};

use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::json;

/// A tensor by name, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Named<V> {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: V,
}

/// One as files hold it.
pub type NamedTensor<'a> = Named<Values<'a>>;

/// One of single precision, as engines hold it: values of the backend itself, where the host can read them.
pub type SingleTensor<'a> = Named<Single<'a>>;

/// Values of single precision, as they are held.
#[derive(Debug, Clone)]
pub enum Single<'a> {
    /// In four bytes each.
    Whole(Cow<'a, [f32]>),
    /// In two bytes each, as bfloat16. Files and hashes have them in four: written so, they are widened block by block, for
    /// at once they would take twice the memory that they have.
    Half(&'a [u16]),
}

impl<'a> Single<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(values) => values.len(),
            Self::Half(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In four bytes each, borrowed where they are.
    pub fn wide(&self) -> Cow<'_, [f32]> {
        match self {
            Self::Whole(values) => Cow::Borrowed(values),
            Self::Half(values) => values.iter().map(|&x| widened(x)).collect(),
        }
    }

    /// The same for as long as they are held.
    pub fn into_wide(self) -> Cow<'a, [f32]> {
        match self {
            Self::Whole(values) => values,
            Self::Half(_) => Cow::Owned(self.wide().into_owned()),
        }
    }
}

impl<'a, V: Into<Cow<'a, [f32]>>> From<V> for Single<'a> {
    fn from(values: V) -> Self {
        Self::Whole(values.into())
    }
}

/// Equal when every value is, whatever it is held in.
impl PartialEq for Single<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.wide() == other.wide()
    }
}

/// The f32 of a bfloat16, exactly.
fn widened(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

impl SingleTensor<'_> {
    /// With values of its own.
    pub fn into_owned(self) -> SingleTensor<'static> {
        let Self { name, shape, values } = self;
        Named { name, shape, values: values.into_wide().into_owned().into() }
    }
}

/// Values in the type they are computed in, borrowed where they can be.
#[derive(Debug, Clone)]
pub enum Values<'a> {
    /// Single precision.
    F32(Cow<'a, [f32]>),
    /// Single precision that is held as bfloat16: an engine's, to be written. What was read is never this.
    Half(&'a [u16]),
    /// Double precision: the scalar backend's.
    F64(Cow<'a, [f64]>),
    /// Token ids.
    I32(Cow<'a, [i32]>),
}

/// Why bytes are no safetensors file that can be read.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The container itself: cut short, a header that is not JSON, offsets that overlap.
    #[error("it is not a whole safetensors file: {0}")]
    Format(SafeTensorError),
    /// A name that stands twice in the header.
    #[error("tensor `{name}` is there twice")]
    Duplicate {
        /// The tensor.
        name: String,
    },
    /// Another element type.
    #[error("tensor `{name}` has element type {found:?}; expected F32, F64 or I32")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its element type.
        found: Dtype,
    },
}

impl<'a> NamedTensor<'a> {
    /// A tensor of single precision.
    pub fn f32(name: impl Into<String>, shape: &[usize], values: impl Into<Cow<'a, [f32]>>) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), values: Values::F32(values.into()) }
    }

    /// A tensor of token ids.
    pub fn i32(name: impl Into<String>, shape: &[usize], values: impl Into<Cow<'a, [i32]>>) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), values: Values::I32(values.into()) }
    }

    /// A tensor of double precision.
    pub fn f64(name: impl Into<String>, shape: &[usize], values: impl Into<Cow<'a, [f64]>>) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), values: Values::F64(values.into()) }
    }

    /// Its values where they are of single precision.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(values) => Some(values),
            Values::Half(_) | Values::F64(_) | Values::I32(_) => None,
        }
    }

    /// Its values where they are of double precision.
    pub fn as_f64(&self) -> Option<&[f64]> {
        match &self.values {
            Values::F64(values) => Some(values),
            Values::F32(_) | Values::Half(_) | Values::I32(_) => None,
        }
    }

    /// Its values where they are token ids.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.values {
            Values::I32(values) => Some(values),
            Values::F32(_) | Values::Half(_) | Values::F64(_) => None,
        }
    }
}

/// Equal when name, shape, type and every bit of the values are.
impl PartialEq for Values<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())),
            (Self::Half(a), Self::Half(b)) => a == b,
            (Self::F32(wide), Self::Half(half)) | (Self::Half(half), Self::F32(wide)) => {
                wide.iter().map(|x| x.to_bits()).eq(half.iter().map(|&x| widened(x).to_bits()))
            }
            (Self::F64(a), Self::F64(b)) => a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())),
            (Self::I32(a), Self::I32(b)) => a == b,
            _ => false,
        }
    }
}

impl<'a> From<&'a Single<'_>> for Values<'a> {
    fn from(values: &'a Single<'_>) -> Self {
        match values {
            Single::Whole(values) => Values::F32(Cow::Borrowed(values)),
            Single::Half(values) => Values::Half(values),
        }
    }
}

impl Values<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Half(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::I32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The format's name of the element type, and its width in bytes.
    pub fn dtype(&self) -> (&'static str, usize) {
        match self {
            Self::F32(_) | Self::Half(_) => ("F32", 4),
            Self::F64(_) => ("F64", 8),
            Self::I32(_) => ("I32", 4),
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
            Values::Half(values) => write_values(out, values, |x| widened(x).to_le_bytes())?,
            Values::F64(values) => write_values(out, values, f64::to_le_bytes)?,
            Values::I32(values) => write_values(out, values, i32::to_le_bytes)?,
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

/// The tensors in the bytes of a safetensors file, in the order of their data.
pub fn read_safetensors(bytes: &[u8]) -> Result<Vec<NamedTensor<'static>>, TensorError> {
    let file = SafeTensors::deserialize(bytes).map_err(TensorError::Format)?;
    if let Some(name) = duplicate_name(bytes) {
        return Err(TensorError::Duplicate { name });
    }
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by_key(|(name, view)| (view.data().as_ptr() as usize, *name));
    let mut found = Vec::with_capacity(tensors.len());
    for (name, view) in tensors {
        let (shape, data) = (view.shape(), view.data());
        found.push(match view.dtype() {
            Dtype::F32 => NamedTensor::f32(name, shape, read_values(data, f32::from_le_bytes)),
            Dtype::F64 => NamedTensor::f64(name, shape, read_values(data, f64::from_le_bytes)),
            Dtype::I32 => NamedTensor::i32(name, shape, read_values(data, i32::from_le_bytes)),
            found => return Err(TensorError::Dtype { name: name.to_owned(), found }),
        });
    }
    Ok(found)
}

fn read_values<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| value(chunk)).collect()
}

/// The first name that stands twice in the header. The `safetensors` crate keeps the last of them silently.
fn duplicate_name(bytes: &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    serde_json::Deserializer::from_slice(header).deserialize_map(FirstDuplicate).ok()?
}

struct FirstDuplicate;

impl<'de> Visitor<'de> for FirstDuplicate {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a safetensors header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut seen, mut duplicate) = (BTreeSet::new(), None);
        while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
            if seen.contains(&name) {
                duplicate.get_or_insert(name);
            } else {
                seen.insert(name);
            }
        }
        Ok(duplicate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<NamedTensor<'static>> {
        vec![
            NamedTensor::i32("ids", &[3], vec![1, -1, 7]),
            NamedTensor::f32("w", &[1, 2], vec![0.5, -2.0]),
            NamedTensor::f64("scalar", &[], vec![2.5]),
        ]
    }

    /// What is held in two bytes is written and compared as the four that it stands for: also a NaN's payload, an
    /// infinity, a zero's sign and a subnormal number.
    #[test]
    fn bfloat16_is_written_as_the_single_precision_that_it_is() {
        let halves = [0x3f80_u16, 0xbf80, 0x0000, 0x8000, 0x0001, 0x7f80, 0xff80, 0x7fc1, 0x7f7f];
        let wide: Vec<f32> = halves.iter().map(|&x| f32::from_bits(u32::from(x) << 16)).collect();
        let held = Single::Half(&halves);
        assert!(held.wide().iter().zip(&wide).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert_eq!((held.len(), Single::from(&wide[..]).len()), (halves.len(), halves.len()));
        let named = |values| [NamedTensor { name: "table".to_owned(), shape: vec![3, 3], values }];
        let (half, whole) = (named(Values::from(&held)), [NamedTensor::f32("table", &[3, 3], &wide)]);
        assert!(matches!(half[0].values, Values::Half(_)));
        assert_eq!(written(&half), written(&whole));
        assert_eq!(half, whole);
        assert_ne!(half, [NamedTensor::f32("table", &[3, 3], vec![1.0; 9])]);
        assert_eq!(read_safetensors(&written(&half)).unwrap(), whole);
    }

    fn written(tensors: &[NamedTensor<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, tensors).unwrap();
        bytes
    }

    /// A file with this header and this many bytes of data.
    fn raw(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read_safetensors(&written(&sample())).unwrap(), sample());
    }

    #[test]
    fn bad_headers_are_told_apart() {
        let entry = r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        let cases = [
            (raw(&format!("{{{entry},{entry}}}"), 4), "tensor `a` is there twice"),
            (
                raw(r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#, 8),
                "tensor `a` has element type U8; expected F32, F64 or I32",
            ),
            (raw(&format!("{{{entry}}}"), 3), "it is not a whole safetensors file: "),
        ];
        for (bytes, what) in cases {
            let error = read_safetensors(&bytes).unwrap_err().to_string();
            assert!(error.starts_with(what), "{error}");
        }
    }

    proptest! {
        /// However a file is cut short, and whatever bytes it has, the answer is an error and not a panic.
        #[test]
        fn truncated_files_are_refused(keep in 0.0_f64..1.0) {
            let bytes = written(&sample());
            let cut = (keep * bytes.len() as f64) as usize;
            prop_assert!(matches!(read_safetensors(&bytes[..cut]), Err(TensorError::Format(_))));
        }
    }
}
