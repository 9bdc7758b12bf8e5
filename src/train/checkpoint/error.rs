//! Why a checkpoint could not be used.

use std::path::PathBuf;

use crate::error::{Class, Error};
use crate::files::FileError;
use crate::hash::Digest;

/// Why a checkpoint could not be written, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file of it is not there.
    #[error("the checkpoint `{}` lacks `{file}`", .dir.display())]
    Missing {
        /// The checkpoint's directory.
        dir: PathBuf,
        /// The file.
        file: String,
    },
    /// A file is shorter or longer than it was written.
    #[error("`{}` has {found} bytes; {expected} were written", .path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that were written.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A file's content is not what was written.
    #[error("`{}` is damaged: its SHA-256 is {found}; {expected} was written", .path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// Digest of what was written.
        expected: Digest,
        /// Digest of what is there.
        found: Digest,
    },
    /// A file that verifies, or the manifest, does not have the form it should have.
    #[error("`{}` is damaged: {what}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Written in a later version of the format.
    #[error("`{}` has checkpoint format {found}; this nanorun reads formats up to {expected}", .dir.display())]
    Format {
        /// The checkpoint's directory.
        dir: PathBuf,
        /// The latest format this build reads.
        expected: u32,
        /// The format it has.
        found: u32,
    },
    /// It belongs to another run.
    #[error(
        "the checkpoint at step {step} belongs to another run: its key is {found}, this run's is {expected}"
    )]
    OtherRun {
        /// Its step.
        step: u64,
        /// This run's key at that step.
        expected: Digest,
        /// The checkpoint's.
        found: Digest,
    },
    /// It was made in another environment class, where the same steps have other bits.
    #[error(
        "the checkpoint at step {step} was made on `{found}`; this is `{expected}`, whose bits may differ"
    )]
    OtherEnvironment {
        /// Its step.
        step: u64,
        /// The class of this process.
        expected: String,
        /// The checkpoint's.
        found: String,
    },
    /// Only its weights stayed.
    #[error("only the weights stayed of the checkpoint at step {step}: nothing can be trained on from there")]
    WeightsAlone {
        /// Its step.
        step: u64,
    },
    /// There is too little room to write it.
    #[error("the checkpoint of step {step} needs {needs} bytes on disk, and {free} are free")]
    NoRoom {
        /// Its step.
        step: u64,
        /// Bytes it needs.
        needs: u64,
        /// Bytes there are.
        free: u64,
    },
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        let help = match &error {
            CheckpointError::File(_) => None,
            CheckpointError::Format { .. } => Some("use the nanorun that wrote it, or start that run again"),
            CheckpointError::WeightsAlone { .. } => {
                Some("start the run again with --rerun; checkpoint.final = \"all\" keeps everything")
            }
            CheckpointError::OtherRun { .. } => {
                Some("start the run again with --rerun, or use another --results")
            }
            CheckpointError::OtherEnvironment { .. } => {
                Some("resume where it was started, or start the run again here with --rerun")
            }
            _ => Some("remove that directory: the run carries on from the checkpoint before"),
        };
        match (error, help) {
            (error @ CheckpointError::NoRoom { .. }, _) => Self::new(Class::Run, error.to_string()).help(
                "nothing is lost up to the checkpoint before: make room, then the same command carries on from there",
            ),
            (CheckpointError::File(error), _) => error.into(),
            (error, Some(help)) => Self::new(Class::Input, error.to_string()).help(help),
            (error, None) => Self::new(Class::Input, error.to_string()),
        }
    }
}
