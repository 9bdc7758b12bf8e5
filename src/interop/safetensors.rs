//! Safetensors files of other programs: their tensors by name, with errors that name the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::tensors::{NamedTensor, read_safetensors};

/// The tensors of one file by name.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorFile {
    path: PathBuf,
    tensors: BTreeMap<String, NamedTensor<'static>>,
}

impl TensorFile {
    /// Reads a file whole.
    ///
    /// # Errors
    /// A file that is not there, not whole, or holds other element types than float32, float64 and int32.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)
            .map_err(|source| Error::input("cannot read a tensor file").file(path).because(source))?;
        let tensors = read_safetensors(&bytes).map_err(|error| {
            Error::input("a tensor file cannot be used")
                .file(path)
                .because(error)
                .expected("a complete file in safetensors format")
        })?;
        let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
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
    ///
    /// # Errors
    /// No tensor of this name.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.tensor(name).map(|tensor| tensor.shape.as_slice())
    }

    /// The float32 tensor of this name and shape.
    ///
    /// # Errors
    /// No tensor of this name, another shape or element type.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let tensor = self.tensor_of_shape(name, shape)?;
        tensor.as_f32().ok_or_else(|| self.wrong_type(tensor, "F32"))
    }

    /// The int32 tensor of this name and shape.
    ///
    /// # Errors
    /// No tensor of this name, another shape or element type.
    pub fn i32(&self, name: &str, shape: &[usize]) -> Result<&[i32]> {
        let tensor = self.tensor_of_shape(name, shape)?;
        tensor.as_i32().ok_or_else(|| self.wrong_type(tensor, "I32"))
    }

    fn tensor(&self, name: &str) -> Result<&NamedTensor<'static>> {
        self.tensors.get(name).ok_or_else(|| Error::input(format!("no tensor `{name}`")).file(&self.path))
    }

    fn tensor_of_shape(&self, name: &str, shape: &[usize]) -> Result<&NamedTensor<'static>> {
        let tensor = self.tensor(name)?;
        if tensor.shape == shape {
            return Ok(tensor);
        }
        let found = &tensor.shape;
        Err(Error::input(format!("tensor `{name}` has shape {found:?}, expected {shape:?}")).file(&self.path))
    }

    fn wrong_type(&self, tensor: &NamedTensor<'_>, expected: &str) -> Error {
        let (name, (found, _)) = (&tensor.name, tensor.values.dtype());
        Error::input(format!("tensor `{name}` holds {found}, expected {expected}")).file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::write_safetensors;

    #[test]
    fn errors_name_file_tensor_and_shapes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &[NamedTensor::f32("w", &[1, 2], vec![0.5, -2.0])]).unwrap();
        std::fs::write(&path, &bytes).unwrap();
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
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        for error in [TensorFile::read(&path), TensorFile::read(&directory.path().join("b"))] {
            assert_eq!(error.unwrap_err().class().exit_code(), 2);
        }
    }
}
