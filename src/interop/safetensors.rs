//! Reading and writing safetensors files of float32 and int32 tensors.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, Result};

/// What is wrong with a safetensors file or with what is asked of it.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The container itself: truncated, a header that is not JSON, offsets that overlap.
    #[error("not a whole safetensors file")]
    Format(#[source] SafeTensorError),
    /// A name that stands twice in the header.
    #[error("tensor `{name}` is there twice")]
    Duplicate {
        /// The tensor.
        name: String,
    },
    /// An element type that is neither `F32` nor `I32`.
    #[error("tensor `{name}` has element type {found}")]
    UnknownDtype {
        /// The tensor.
        name: String,
        /// Its element type.
        found: Dtype,
    },
    /// No such tensor.
    #[error("no tensor `{name}`")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// The other element type.
    #[error("tensor `{name}` holds {found}, expected {expected}")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its element type.
        found: &'static str,
        /// The one asked for.
        expected: &'static str,
    },
    /// Another shape.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The one asked for.
        expected: Vec<usize>,
    },
}

impl TensorFileError {
    /// As a user reads it, naming the file.
    pub fn at(self, path: impl Into<PathBuf>) -> Error {
        let expected = match &self {
            Self::Format(_) => Some("a complete file in safetensors format"),
            Self::Duplicate { .. } => Some("every name once"),
            Self::UnknownDtype { .. } => Some("F32 or I32"),
            _ => None,
        };
        let error = match self {
            Self::Format(source) => Error::input("not a whole safetensors file").because(source),
            other => Error::input(other.to_string()),
        };
        let error = error.file(path);
        match expected {
            Some(expected) => error.expected(expected),
            None => error,
        }
    }
}

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// float32.
    F32(Vec<f32>),
    /// int32.
    I32(Vec<i32>),
}

impl Elements {
    fn dtype(&self) -> (&'static str, Dtype) {
        match self {
            Self::F32(_) => ("F32", Dtype::F32),
            Self::I32(_) => ("I32", Dtype::I32),
        }
    }

    fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

/// A tensor: its shape and its elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many elements as the shape says.
    pub elements: Elements,
}

/// The tensors of one file by name, with the file's path for error messages.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorFile {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl TensorFile {
    /// Reads a file whole.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)
            .map_err(|source| Error::input("cannot read a tensor file").file(path).because(source))?;
        let tensors = decode(&bytes).map_err(|error| error.at(path))?;
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names in ascending order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.tensor(name).map(|tensor| tensor.shape.as_slice()).map_err(|error| error.at(&self.path))
    }

    /// The float32 tensor of this name and shape.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let values = self.tensor_of_shape(name, shape).and_then(|tensor| match &tensor.elements {
            Elements::F32(values) => Ok(values.as_slice()),
            other @ Elements::I32(_) => Err(wrong_dtype(name, other, "F32")),
        });
        values.map_err(|error| error.at(&self.path))
    }

    /// The int32 tensor of this name and shape.
    pub fn i32(&self, name: &str, shape: &[usize]) -> Result<&[i32]> {
        let values = self.tensor_of_shape(name, shape).and_then(|tensor| match &tensor.elements {
            Elements::I32(values) => Ok(values.as_slice()),
            other @ Elements::F32(_) => Err(wrong_dtype(name, other, "I32")),
        });
        values.map_err(|error| error.at(&self.path))
    }

    fn tensor(&self, name: &str) -> std::result::Result<&Tensor, TensorFileError> {
        self.tensors.get(name).ok_or_else(|| TensorFileError::Missing { name: name.to_owned() })
    }

    fn tensor_of_shape(&self, name: &str, shape: &[usize]) -> std::result::Result<&Tensor, TensorFileError> {
        let tensor = self.tensor(name)?;
        if tensor.shape == shape {
            return Ok(tensor);
        }
        let (found, expected) = (tensor.shape.clone(), shape.to_vec());
        Err(TensorFileError::Shape { name: name.to_owned(), found, expected })
    }
}

fn wrong_dtype(name: &str, found: &Elements, expected: &'static str) -> TensorFileError {
    TensorFileError::Dtype { name: name.to_owned(), found: found.dtype().0, expected }
}

/// The tensors in the bytes of a safetensors file.
pub fn decode(bytes: &[u8]) -> std::result::Result<BTreeMap<String, Tensor>, TensorFileError> {
    let file = SafeTensors::deserialize(bytes).map_err(TensorFileError::Format)?;
    if let Some(name) = duplicate_name(bytes) {
        return Err(TensorFileError::Duplicate { name });
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let elements = match view.dtype() {
            Dtype::F32 => Elements::F32(words(view.data()).map(f32::from_le_bytes).collect()),
            Dtype::I32 => Elements::I32(words(view.data()).map(i32::from_le_bytes).collect()),
            found => return Err(TensorFileError::UnknownDtype { name, found }),
        };
        tensors.insert(name, Tensor { shape: view.shape().to_vec(), elements });
    }
    Ok(tensors)
}

/// A safetensors file of these tensors, with text metadata.
pub fn encode(
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> std::result::Result<Vec<u8>, TensorFileError> {
    let mut data = BTreeMap::new();
    for (name, tensor) in tensors {
        match data.entry(name.as_str()) {
            Entry::Occupied(_) => return Err(TensorFileError::Duplicate { name: name.clone() }),
            Entry::Vacant(slot) => slot.insert((tensor, tensor.elements.to_le_bytes())),
        };
    }
    let views = data
        .iter()
        .map(|(&name, (tensor, bytes))| {
            let view = TensorView::new(tensor.elements.dtype().1, tensor.shape.clone(), bytes);
            view.map(|view| (name, view)).map_err(TensorFileError::Format)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let metadata = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
    safetensors::serialize(views, metadata).map_err(TensorFileError::Format)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.as_chunks::<4>().0.iter().copied()
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

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let (mut seen, mut duplicate) = (std::collections::BTreeSet::new(), None);
        while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
            if !seen.insert(name.clone()) {
                duplicate.get_or_insert(name);
            }
        }
        Ok(duplicate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor { shape: shape.to_vec(), elements: Elements::F32(values.to_vec()) }
    }

    fn sample() -> Vec<(String, Tensor)> {
        let ids = Tensor { shape: vec![3], elements: Elements::I32(vec![1, -1, 7]) };
        vec![("ids".into(), ids), ("w".into(), f32s(&[1, 2], &[0.5, -2.0]))]
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
        let bytes = encode(&sample(), &BTreeMap::from([("step".into(), "3".into())])).unwrap();
        assert_eq!(decode(&bytes).unwrap().into_iter().collect::<Vec<_>>(), sample());
    }

    #[test]
    fn duplicate_names_are_refused() {
        let twice = [sample(), sample()].concat();
        let error = encode(&twice, &BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), "tensor `ids` is there twice");

        let entry = r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        let error = decode(&raw(&format!("{{{entry},{entry}}}"), 4)).unwrap_err();
        assert!(matches!(error, TensorFileError::Duplicate { name } if name == "a"));
    }

    #[test]
    fn other_element_types_are_refused() {
        let header = r#"{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#;
        let error = decode(&raw(header, 8)).unwrap_err();
        assert!(matches!(error, TensorFileError::UnknownDtype { found: Dtype::F64, .. }));
    }

    #[test]
    fn errors_name_file_tensor_and_shapes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        std::fs::write(&path, encode(&sample(), &BTreeMap::new()).unwrap()).unwrap();
        let file = TensorFile::read(&path).unwrap();
        assert_eq!(file.f32("w", &[1, 2]).unwrap(), [0.5, -2.0]);
        let cases = [
            (file.f32("w", &[2, 1]).unwrap_err(), "tensor `w` has shape [1, 2], expected [2, 1]"),
            (file.i32("w", &[1, 2]).unwrap_err(), "tensor `w` holds F32, expected I32"),
            (file.f32("v", &[1]).unwrap_err(), "no tensor `v`"),
        ];
        for (error, what) in cases {
            assert_eq!((error.what(), error.class().exit_code()), (what, 2));
            assert!(error.to_string().contains("a.safetensors"));
        }
        let error = TensorFile::read(&directory.path().join("b")).unwrap_err();
        assert_eq!(error.class().exit_code(), 2);
    }

    proptest! {
        /// However a file is cut short, and whatever bytes it has, the answer is an error and not a panic.
        #[test]
        fn truncated_files_are_refused(keep in 0.0_f64..1.0) {
            let bytes = encode(&sample(), &BTreeMap::new()).unwrap();
            let cut = (keep * bytes.len() as f64) as usize;
            prop_assert!(matches!(decode(&bytes[..cut]), Err(TensorFileError::Format(_))));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, header in ".*") {
            let _ = decode(&bytes);
            let _ = decode(&raw(&header, bytes.len()));
        }
    }
}
