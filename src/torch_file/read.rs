//! Reading what `torch.save` wrote.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::zip::{Archive, ZipError};
use crate::error::{self, Error};
use crate::pickle::{Node, NodeId, ORDERED_DICT, Pickle, PickleError};

/// The most bytes of the pickle: it has some two hundred a tensor, and reading it takes up to sixty times as much.
const MAX_PICKLE: u64 = 4 << 20;

/// The most bytes of a small record.
const MAX_NOTE: u64 = 64;

/// Tensors claim at most this many times the file's length: a few may share their values, as tied weights do.
const MOST_SHARING: u64 = 4;

const REBUILD: (&str, &str) = ("torch._utils", "_rebuild_tensor_v2");
const PARAMETER: (&str, &str) = ("torch._utils", "_rebuild_parameter");

/// Everything that a file of tensors names: functions that are not called, and classes that stand for element types.
const ALLOWED: [(&str, &str); 10] = [
    ORDERED_DICT,
    REBUILD,
    PARAMETER,
    ("torch", "FloatStorage"),
    ("torch", "BFloat16Storage"),
    ("torch", "HalfStorage"),
    ("torch", "DoubleStorage"),
    ("torch", "LongStorage"),
    ("torch", "IntStorage"),
    ("torch", "BoolStorage"),
];

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// `float32`
    F32,
    /// `bfloat16`
    Bf16,
    /// `float16`
    F16,
    /// `float64`
    F64,
    /// `int64`
    I64,
    /// `int32`
    I32,
    /// `bool`
    Bool,
}

impl Dtype {
    fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "FloatStorage" => Self::F32,
            "BFloat16Storage" => Self::Bf16,
            "HalfStorage" => Self::F16,
            "DoubleStorage" => Self::F64,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of an element.
    pub fn width(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Bool => 1,
        }
    }

    /// torch's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F64 => "float64",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::Bool => "bool",
        }
    }
}

/// Why a file of torch could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// The archive.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// The pickle in it.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The format of torch before 1.6.
    #[error("it is in torch's format from before version 1.6")]
    Legacy,
    /// Numbers of the other byte order.
    #[error("its numbers are not little-endian")]
    ByteOrder,
    /// Something else stands where a tensor should.
    #[error("`{0}` is no tensor")]
    NoTensor(String),
    /// Sizes, strides or places that do not fit.
    #[error("the tensor `{0}` does not fit its values: its sizes, strides or offset are damaged")]
    Damaged(String),
    /// A tensor larger than what is stored.
    #[error("the tensor `{0}` repeats its values: no checkpoint does")]
    Repeats(String),
    /// Tensors that claim more than the file has.
    #[error("its tensors claim many times the bytes that the file has")]
    Claims,
    /// Elements of another type.
    #[error("the tensor `{name}` holds {found}, expected {expected}")]
    Type {
        /// The tensor.
        name: String,
        /// Its element type.
        found: &'static str,
        /// What can be read.
        expected: &'static str,
    },
}

/// A tensor of a file, its values still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// What it is called in errors.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    strides: Vec<usize>,
    /// First element in the storage.
    offset: usize,
    /// Record of the storage.
    record: String,
    /// Elements of the storage.
    stored: usize,
}

impl Tensor {
    /// How many values it has.
    pub fn numel(&self) -> usize {
        // Checked to fit when it was read.
        self.shape.iter().product()
    }

    /// Whether its values lie one after another.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size <= 1 || stride == expected;
            expected *= size.max(1);
            fits
        })
    }
}

/// A file of `torch.save`.
#[derive(Debug)]
pub struct TorchFile {
    path: PathBuf,
    archive: Archive,
    pickle: Pickle,
    /// What stands before the names of all records.
    prefix: String,
    /// Records whose checksum was found right.
    verified: BTreeSet<String>,
    /// Bytes that tensors claimed so far.
    claimed: u64,
}

impl TorchFile {
    /// Opens a file and reads what it says of its tensors, no values yet.
    ///
    /// # Errors
    /// A file that is not there, not whole, or names anything but tensors and plain data; class `Input`.
    pub fn open(path: &Path) -> error::Result<Self> {
        Self::read(path).map_err(|what| told(path, what))
    }

    fn read(path: &Path) -> Result<Self, TorchError> {
        let mut archive = match Archive::open(path) {
            Err(ZipError::NoDirectory) if begins_as_legacy(path) => return Err(TorchError::Legacy),
            opened => opened?,
        };
        let pickle = archive
            .names()
            .find(|name| name.ends_with("/data.pkl") && name.matches('/').count() == 1)
            .map(str::to_owned)
            .ok_or_else(|| ZipError::Missing("*/data.pkl".to_owned()))?;
        let prefix = pickle.trim_end_matches("data.pkl").to_owned();
        let order = format!("{prefix}byteorder");
        if archive.record_len(&order).is_ok() && archive.read(&order, MAX_NOTE)? != b"little" {
            return Err(TorchError::ByteOrder);
        }
        let bytes = archive.read(&pickle, MAX_PICKLE)?;
        let pickle = Pickle::read(&bytes, &ALLOWED)?;
        let path = path.to_owned();
        Ok(Self { path, archive, pickle, prefix, verified: BTreeSet::new(), claimed: 0 })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, as pickled: tensors are [`Node::Call`]s, for [`Self::tensor`].
    pub fn pickle(&self) -> &Pickle {
        &self.pickle
    }

    /// The tensor that a node of the pickle is; `name` is for errors.
    ///
    /// # Errors
    /// A node that is none, or one that does not fit the file; class `Input`.
    pub fn tensor(&mut self, name: &str, node: NodeId) -> error::Result<Tensor> {
        self.find_tensor(name, node).map_err(|what| told(&self.path, what))
    }

    fn find_tensor(&mut self, name: &str, node: NodeId) -> Result<Tensor, TorchError> {
        let no_tensor = || TorchError::NoTensor(name.to_owned());
        let damaged = || TorchError::Damaged(name.to_owned());
        let pickle = &self.pickle;
        let mut args = called(pickle, node, REBUILD);
        if args.is_none() {
            let data = called(pickle, node, PARAMETER).and_then(|args| args.first().copied());
            args = data.and_then(|data| called(pickle, data, REBUILD));
        }
        let [storage, offset, shape, strides, ..] = args.ok_or_else(no_tensor)? else {
            return Err(no_tensor());
        };
        let Node::Persistent(storage) = pickle.node(*storage) else { return Err(no_tensor()) };
        let Node::Tuple(storage) = pickle.node(*storage) else { return Err(no_tensor()) };
        let [kind, class, key, _device, stored, ..] = storage.as_slice() else { return Err(no_tensor()) };
        let (Node::Str(kind), Node::Global { name: class, .. }, Node::Str(key)) =
            (pickle.node(*kind), pickle.node(*class), pickle.node(*key))
        else {
            return Err(no_tensor());
        };
        let dtype = Dtype::of_storage(class).filter(|_| kind == "storage").ok_or_else(no_tensor)?;
        let size = |node: &NodeId| match pickle.node(*node) {
            Node::Int(size) => usize::try_from(*size).map_err(|_| damaged()),
            _ => Err(damaged()),
        };
        let sizes = |node: &NodeId| match pickle.node(*node) {
            Node::Tuple(items) if items.len() <= 8 => items.iter().map(size).collect::<Result<Vec<_>, _>>(),
            _ => Err(damaged()),
        };
        let (offset, shape, strides, stored) = (size(offset)?, sizes(shape)?, sizes(strides)?, size(stored)?);
        let record = format!("{}data/{key}", self.prefix);
        let tensor = Tensor { name: name.to_owned(), dtype, shape, strides, offset, record, stored };

        let bytes = self.archive.record_len(&tensor.record)?;
        let width = dtype.width() as u64;
        if tensor.shape.len() != tensor.strides.len()
            || (tensor.stored as u64).checked_mul(width) != Some(bytes)
        {
            return Err(damaged());
        }
        let numel =
            tensor.shape.iter().try_fold(1_usize, |all, &size| all.checked_mul(size)).ok_or_else(damaged)?;
        if numel > 0 {
            let last = tensor.shape.iter().zip(&tensor.strides).try_fold(offset, |last, (&size, &stride)| {
                (size - 1).checked_mul(stride).and_then(|far| last.checked_add(far))
            });
            if last.is_none_or(|last| last >= tensor.stored) {
                return Err(damaged());
            }
            if numel > tensor.stored {
                return Err(TorchError::Repeats(name.to_owned()));
            }
        }
        self.claimed = self.claimed.saturating_add(numel as u64 * width);
        if self.claimed > self.archive.len().saturating_mul(MOST_SHARING) {
            return Err(TorchError::Claims);
        }
        Ok(tensor)
    }

    /// The values of a tensor of floats, row-major, widened exactly to single precision.
    ///
    /// # Errors
    /// A type that is not exactly one of single precision; bytes that do not match their checksum; class `Input`.
    pub fn f32(&mut self, tensor: &Tensor) -> error::Result<Vec<f32>> {
        let read = match tensor.dtype {
            Dtype::F32 => self.values(tensor, |bytes: [u8; 4]| f32::from_le_bytes(bytes)),
            Dtype::Bf16 => self.values(tensor, |bytes: [u8; 2]| bf16(u16::from_le_bytes(bytes))),
            Dtype::F16 => self.values(tensor, |bytes: [u8; 2]| f16(u16::from_le_bytes(bytes))),
            other => Err(wrong_type(tensor, other, "float32, bfloat16 or float16")),
        };
        read.map_err(|what| told(&self.path, what))
    }

    /// The values of a tensor of integers, row-major.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn i64(&mut self, tensor: &Tensor) -> error::Result<Vec<i64>> {
        let read = match tensor.dtype {
            Dtype::I64 => self.values(tensor, i64::from_le_bytes),
            Dtype::I32 => self.values(tensor, |bytes: [u8; 4]| i64::from(i32::from_le_bytes(bytes))),
            other => Err(wrong_type(tensor, other, "int32 or int64")),
        };
        read.map_err(|what| told(&self.path, what))
    }

    fn values<T: Copy, const N: usize>(
        &mut self,
        tensor: &Tensor,
        value: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, TorchError> {
        let (numel, record) = (tensor.numel(), &tensor.record);
        let mut values = Vec::with_capacity(numel);
        if tensor.is_contiguous() && numel == tensor.stored {
            // A piece is a whole number of values, as its length is a multiple of every width.
            self.archive.stream(record, &mut |piece| {
                values.extend(piece.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)));
            })?;
            self.verified.insert(record.clone());
            return Ok(values);
        }
        // A view: its storage is checked once, whoever else looks into it, then read where it is looked at.
        if !self.verified.contains(record) {
            self.archive.stream(record, &mut |_| {})?;
            self.verified.insert(record.clone());
        }
        if numel == 0 {
            return Ok(values);
        }
        let reach: usize =
            tensor.shape.iter().zip(&tensor.strides).map(|(&size, &stride)| (size - 1) * stride).sum();
        let (from, len) = ((tensor.offset * N) as u64, ((reach + 1) * N) as u64);
        let bytes = self.archive.read_range(record, from, len)?;
        let (stored, _) = bytes.as_chunks::<N>();
        let mut index = vec![0; tensor.shape.len()];
        let mut at = 0;
        for _ in 0..numel {
            let found = stored.get(at).ok_or_else(|| TorchError::Damaged(tensor.name.clone()))?;
            values.push(value(*found));
            // The next index, the last dimension first.
            for ((index, &size), &stride) in index.iter_mut().zip(&tensor.shape).zip(&tensor.strides).rev() {
                *index += 1;
                at += stride;
                if *index < size {
                    break;
                }
                at -= size * stride;
                *index = 0;
            }
        }
        Ok(values)
    }
}

/// The arguments of a call of `function`.
fn called<'p>(pickle: &'p Pickle, node: NodeId, function: (&str, &str)) -> Option<&'p [NodeId]> {
    let Node::Call { function: called, args, .. } = pickle.node(node) else { return None };
    let Node::Global { module, name } = pickle.node(*called) else { return None };
    let Node::Tuple(args) = pickle.node(*args) else { return None };
    ((module.as_str(), name.as_str()) == function).then_some(args)
}

fn wrong_type(tensor: &Tensor, found: Dtype, expected: &'static str) -> TorchError {
    TorchError::Type { name: tensor.name.clone(), found: found.name(), expected }
}

/// Whether a file begins as torch's files did before they were zip archives: with a pickle of a long number.
fn begins_as_legacy(path: &Path) -> bool {
    use std::io::Read as _;
    let mut start = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start[0] == 0x80 && start[2..] == [0x8a, 0x0a]
}

fn told(path: &Path, what: TorchError) -> Error {
    let help = match &what {
        TorchError::Legacy => Some("load it with torch and save it again"),
        TorchError::Pickle(PickleError::Global { .. }) => {
            Some("nothing of it was run; save tensors, numbers and texts alone, such as a state dict")
        }
        TorchError::Zip(ZipError::Checksum(_) | ZipError::NoDirectory) => {
            Some("copy it again from where it is whole")
        }
        _ => None,
    };
    let error = match what {
        TorchError::Zip(ZipError::Read(cause)) => Error::input("cannot read a file of torch").because(cause),
        what => Error::input("a file of torch cannot be used").because(what),
    };
    let error = error.file(path);
    match help {
        Some(help) => error.help(help),
        None => error,
    }
}

/// The upper half of a number of single precision.
fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// IEEE half precision: every value of it is one of single precision.
fn f16(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10) & 0x1f, u32::from(bits) & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: a whole number of 2^-24, exactly.
        0 => (fraction as f32 * f32::from_bits(0x3380_0000)).to_bits(),
        0x1f => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}
