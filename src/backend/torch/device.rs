//! Where the tch backend computes, and why it may not.

use std::fmt;
use std::str::FromStr;

use crate::error::{Class, Error};

/// The libtorch release that the pinned tch is made for.
pub const LIBTORCH_VERSION: &str = "2.11.0";

/// Compute capability from which a GPU multiplies bfloat16 (Ampere, 8.0).
pub const BF16_CAPABILITY: u32 = 80;

/// A device by the name a manifest gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TorchDevice {
    /// `cpu`.
    Cpu,
    /// `cuda:N`; `cuda` is `cuda:0`.
    Cuda(usize),
}

impl fmt::Display for TorchDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(feature = "tch")]
impl From<tch::Device> for TorchDevice {
    /// Where a tensor of this backend is.
    fn from(device: tch::Device) -> Self {
        match device {
            tch::Device::Cuda(index) => Self::Cuda(index),
            _ => Self::Cpu,
        }
    }
}

impl FromStr for TorchDevice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { text: text.to_owned() };
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", index)) if index.bytes().all(|b| b.is_ascii_digit()) => {
                index.parse().map(Self::Cuda).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }
}

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// This binary was built without the backend.
    #[error("this nanorun was built without the tch backend")]
    NotBuilt,
    /// No such name.
    #[error("unknown device `{text}`")]
    Unknown {
        /// As written.
        text: String,
    },
    /// No GPU, no driver, or a libtorch without CUDA.
    #[error("cuda:{index} is not available: {reason}")]
    NoCuda {
        /// N.
        index: usize,
        /// What is missing.
        reason: String,
    },
    /// Fewer GPUs than that.
    #[error("there is no cuda:{index}: this machine has {count} CUDA device(s)")]
    NoSuchDevice {
        /// N.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A GPU before Ampere.
    #[error(
        "{name} (cuda:{index}) does not compute in bf16: its compute capability is {major}.{minor}",
        major = capability / 10,
        minor = capability % 10
    )]
    NoBf16 {
        /// N.
        index: usize,
        /// The GPU's name.
        name: String,
        /// 75 is 7.5.
        capability: u32,
    },
    /// Another libtorch than the one tch is made for.
    #[error("libtorch {found} was loaded from {library}")]
    Libtorch {
        /// Its version.
        found: String,
        /// Its file.
        library: String,
    },
    /// OpenMP was told to start fewer threads than the environment class would name.
    #[error("OpenMP starts {started} of the {asked} threads that libtorch is to compute on")]
    Threads {
        /// As `--threads` says, or all cores.
        asked: usize,
        /// How many came.
        started: usize,
    },
    /// libtorch failed while starting.
    #[error("libtorch does not start: {message}")]
    Start {
        /// Its own words.
        message: String,
    },
}

impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        let class = if matches!(error, DeviceError::Unknown { .. }) { Class::Input } else { Class::Run };
        let made = Self::new(class, error.to_string());
        match error {
            DeviceError::NotBuilt => made.help(
                "pip install \"nanorun[torch]\" where it is a wheel's, eval \"$(scripts/setup_libtorch)\" && cargo build \
                 --release --features tch in its sources, or --set run.backend=cpu",
            ),
            DeviceError::Unknown { .. } => made.key("run.device").expected("`cpu` or `cuda:N`"),
            DeviceError::NoCuda { .. } => made
                .key("run.device")
                .help("nanorun doctor says what it finds; --set run.device=cpu runs without"),
            DeviceError::NoSuchDevice { count, .. } => made
                .key("run.device")
                .expected(format!("cuda:0 to cuda:{}", count.saturating_sub(1)))
                .help("CUDA_VISIBLE_DEVICES hides devices if it is set"),
            DeviceError::NoBf16 { .. } => made.key("run.precision").help("--set run.precision=f32"),
            DeviceError::Libtorch { .. } => made
                .expected(format!("libtorch {LIBTORCH_VERSION}"))
                .help("eval \"$(scripts/setup_libtorch)\" and build again, or unset LD_LIBRARY_PATH"),
            DeviceError::Threads { asked, started } => {
                made.key("run.threads").expected(format!("{asked} threads: their number decides bits")).help(format!(
                    "unset OMP_THREAD_LIMIT and OMP_MAX_ACTIVE_LEVELS, or --threads {}",
                    started.max(1)
                ))
            }
            DeviceError::Start { .. } => made.help("nanorun doctor says what it finds"),
        }
    }
}

/// Whether an error is that this binary lacks the backend.
pub fn is_not_built(error: &Error) -> bool {
    error.class() == Class::Run && error.what() == DeviceError::NotBuilt.to_string()
}

/// Whether the precision and device can be had here, and on the CPU device so many threads, without computing anything.
///
/// # Errors
/// What is missing.
pub fn check(device: TorchDevice, bf16: bool, threads: usize) -> Result<(), DeviceError> {
    let facts = super::facts::torch_facts().map_err(|reason| match reason {
        super::facts::Missing::NotBuilt => DeviceError::NotBuilt,
        super::facts::Missing::Start(message) => DeviceError::Start { message },
    })?;
    if facts.version.split('+').next() != Some(LIBTORCH_VERSION) {
        return Err(DeviceError::Libtorch { found: facts.version, library: facts.library });
    }
    let TorchDevice::Cuda(index) = device else { return check_threads(threads) };
    let cuda = facts.cuda.map_err(|reason| DeviceError::NoCuda { index, reason })?;
    let count = cuda.devices.len();
    let gpu = cuda.devices.get(index).ok_or(DeviceError::NoSuchDevice { index, count })?;
    if bf16 && gpu.capability < BF16_CAPABILITY {
        return Err(DeviceError::NoBf16 { index, name: gpu.name.clone(), capability: gpu.capability });
    }
    Ok(())
}

/// Whether OpenMP starts so many threads: the environment class names their number, for it decides bits.
#[cfg(feature = "tch")]
fn check_threads(asked: usize) -> Result<(), DeviceError> {
    use super::{fault, shim};

    shim::set_threads(asked).map_err(|error| DeviceError::Start { message: fault::told(&error) })?;
    let started = shim::team(asked);
    if started == asked { Ok(()) } else { Err(DeviceError::Threads { asked, started }) }
}

#[cfg(not(feature = "tch"))]
fn check_threads(_: usize) -> Result<(), DeviceError> {
    Err(DeviceError::NotBuilt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["cpu", "cuda:0", "cuda:7"] {
            assert_eq!(name.parse::<TorchDevice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(TorchDevice::Cuda(0)));
    }

    #[test]
    fn other_names_are_refused() {
        for name in
            ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cpu:0", "cuda:99999999999999999999"]
        {
            let error = name.parse::<TorchDevice>();
            assert_eq!(error, Err(DeviceError::Unknown { text: name.to_owned() }), "{name}");
        }
    }

    #[test]
    fn every_error_says_what_to_do() {
        let errors = [
            DeviceError::NotBuilt,
            DeviceError::Unknown { text: "gpu".to_owned() },
            DeviceError::NoCuda { index: 0, reason: "no NVIDIA driver (libcuda.so.1)".to_owned() },
            DeviceError::NoSuchDevice { index: 3, count: 2 },
            DeviceError::NoBf16 { index: 0, name: "Tesla T4".to_owned(), capability: 75 },
            DeviceError::Libtorch {
                found: "2.9.1".to_owned(),
                library: "/opt/torch/lib/libtorch_cpu.so".to_owned(),
            },
            DeviceError::Threads { asked: 8, started: 1 },
            DeviceError::Start { message: "symbol lookup error".to_owned() },
        ];
        let text: Vec<_> = errors
            .into_iter()
            .map(|e| {
                let error = Error::from(e);
                format!("exit {}: {error}", error.class().exit_code())
            })
            .collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[cfg(not(feature = "tch"))]
    #[test]
    fn without_the_feature_the_backend_is_known_but_not_here() {
        assert_eq!(check(TorchDevice::Cpu, false, 1), Err(DeviceError::NotBuilt));
    }

    #[cfg(feature = "tch")]
    #[test]
    fn the_cpu_device_is_always_here() {
        assert_eq!(check(TorchDevice::Cpu, true, 2), Ok(()));
        assert!(matches!(
            check(TorchDevice::Cuda(99), false, 1),
            Err(DeviceError::NoCuda { index: 99, .. } | DeviceError::NoSuchDevice { index: 99, .. })
        ));
    }
}
