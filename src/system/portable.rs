//! What every system has.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::ptr::NonNull;

use super::{Meaning, Space};

pub(super) fn kernel_text(_path: &Path) -> Option<String> {
    None
}

pub(super) fn kernel_link(_path: &Path) -> Option<String> {
    None
}

pub(super) fn map_large(_len: usize) -> Option<NonNull<u8>> {
    None
}

pub(super) fn space(_path: &Path) -> io::Result<Space> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn identity(_metadata: &Metadata) -> Option<[i64; 4]> {
    None
}

pub(super) fn allocated(metadata: &Metadata) -> u64 {
    metadata.len()
}

/// Nobody is taken for dead who may live.
pub(super) fn process_exists(_pid: u32) -> bool {
    true
}

pub(super) fn another_has_thread(_thread: &str) -> bool {
    false
}

/// Whoever is not asked ends by itself.
pub(super) fn ask_to_stop(_child: u32) {}

pub(super) fn means(_error: &io::Error, _meaning: Meaning) -> bool {
    false
}

pub(super) fn become_program(program: &Path, arguments: &[OsString]) -> io::Error {
    match std::process::Command::new(program).args(arguments).status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}

/// Signals are watched on unix alone: elsewhere they end the process, which may begin again at its last checkpoint.
#[cfg(not(unix))]
pub(super) fn at_signals(
    _handle: impl Fn(super::Signal) + Copy + Send + Sync + 'static,
) -> Result<(), String> {
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn signal_name(_number: i32) -> &'static str {
    "a signal"
}
