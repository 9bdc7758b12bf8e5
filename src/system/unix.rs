//! What Unix systems have: room on file systems, identities of files, processes by their number, codes of errors.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use super::{Meaning, Space};

pub(super) fn space(path: &Path) -> io::Result<Space> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with its zero byte; the struct is the call's to fill. A signal may interrupt it.
    while unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeroed is a valid value of it, and the call has filled it.
    let found = unsafe { found.assume_init() };
    // The fields' widths differ from system to system.
    #[allow(clippy::unnecessary_cast)]
    let (block, free, total) = (found.f_frsize as u64, found.f_bavail as u64, found.f_blocks as u64);
    Ok(Space {
        free: block.saturating_mul(free),
        total: block.saturating_mul(total),
        read_only: found.f_flag & libc::ST_RDONLY != 0,
    })
}

// Every system has an answer, though this one's always is.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn identity(metadata: &Metadata) -> Option<[i64; 4]> {
    Some([metadata.dev() as i64, metadata.ino() as i64, metadata.ctime(), metadata.ctime_nsec()])
}

pub(super) fn allocated(metadata: &Metadata) -> u64 {
    metadata.blocks() * 512
}

pub(super) fn process_exists(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    if pid <= 0 {
        return false;
    }
    // SAFETY: signal 0 is not sent, only asked about.
    let sent = unsafe { libc::kill(pid, 0) };
    sent == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

pub(super) fn become_program(program: &Path, arguments: &[OsString]) -> io::Error {
    std::process::Command::new(program).args(arguments).exec()
}

pub(super) fn means(error: &io::Error, meaning: Meaning) -> bool {
    /// The kernel's own ENOTSUPP, which some network file systems let through on Linux.
    const KERNEL_NOT_SUPPORTED: i32 = 524;
    let codes: &[i32] = match meaning {
        Meaning::Unsupported if cfg!(target_os = "linux") => &[libc::ENOTTY, KERNEL_NOT_SUPPORTED],
        Meaning::Unsupported => &[],
        Meaning::NoLocks => &[libc::ENOLCK],
        Meaning::NotForDirectories => &[libc::EBADF, libc::EISDIR],
        Meaning::Broken => &[libc::EIO],
    };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

pub(super) fn ask_to_stop(child: u32) {
    if let Ok(pid) = libc::pid_t::try_from(child)
        && pid > 0
    {
        // SAFETY: a signal, to a process whose id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}
