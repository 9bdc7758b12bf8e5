//! Which answers of the system mean what: not known here, not now, ask again.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::space::space;

/// The kernel's own ENOTSUPP, which some network file systems let through.
#[cfg(target_os = "linux")]
const KERNEL_NOT_SUPPORTED: i32 = 524;

fn is_raw(error: &io::Error, codes: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Whether the file system does not know what was asked, as against failing at it: ENOSYS, EOPNOTSUPP, EINVAL and the
/// like. An I/O error or a full disk never is.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    if is_raw(error, &[libc::ENOTTY, KERNEL_NOT_SUPPORTED]) {
        return true;
    }
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
}

/// Whether locks are not to be had there: also where a network file system has no lock service (ENOLCK).
pub(super) fn has_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    if is_raw(error, &[libc::ENOLCK]) {
        return true;
    }
    is_unsupported(error)
}

/// Whether `path` cannot be synced there, or that failed. POSIX lets a system answer EROFS for "not on this kind of
/// file"; a file system that has become read-only answers the same, and there what was written is lost.
pub(super) fn cannot_sync(error: &io::Error, path: &Path) -> bool {
    let not_read_only = || space(path).is_ok_and(|space| !space.read_only);
    is_unsupported(error) || (error.kind() == ErrorKind::ReadOnlyFilesystem && not_read_only())
}

/// Whether a directory cannot be synced there: also where it must not be opened for that (a directory without read
/// permission, EBADF and EISDIR of some network file systems).
pub(super) fn cannot_sync_directory(error: &io::Error, dir: &Path) -> bool {
    #[cfg(unix)]
    if is_raw(error, &[libc::EBADF, libc::EISDIR]) {
        return true;
    }
    error.kind() == ErrorKind::PermissionDenied || cannot_sync(error, dir)
}

/// Whether something stays for now though nothing is broken: open elsewhere on a network file system (ENOTEMPTY, EBUSY,
/// ESTALE) or not ours to remove.
pub(super) fn stays_for_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DirectoryNotEmpty
            | ErrorKind::ResourceBusy
            | ErrorKind::ExecutableFileBusy
            | ErrorKind::StaleNetworkFileHandle
            | ErrorKind::PermissionDenied
            | ErrorKind::NotFound
    )
}

/// Does it again while a signal interrupts it.
///
/// # Errors
/// Those of `action`.
pub fn uninterrupted<T>(mut action: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match action() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Does it once more where the file was another one on the server than here (ESTALE): opening it again finds the new one.
///
/// # Errors
/// Those of `action`.
pub fn reopened<T>(mut action: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match uninterrupted(&mut action) {
        Err(error) if error.kind() == ErrorKind::StaleNetworkFileHandle => uninterrupted(action),
        other => other,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn error(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn what_is_not_known_is_told_from_what_fails() {
        for code in [libc::ENOSYS, libc::EOPNOTSUPP, libc::EINVAL, 524] {
            assert!(is_unsupported(&error(code)) && has_no_locks(&error(code)), "{code}");
        }
        assert!(has_no_locks(&error(libc::ENOLCK)) && !is_unsupported(&error(libc::ENOLCK)));
        let here = Path::new("/tmp");
        for code in [libc::EIO, libc::ENOSPC, libc::EDQUOT] {
            let error = error(code);
            assert!(!has_no_locks(&error) && !cannot_sync_directory(&error, here) && !stays_for_now(&error));
        }
        assert!(cannot_sync(&error(libc::EROFS), here));
        assert!(!cannot_sync(&error(libc::EROFS), Path::new("/proc/self/nowhere")));
    }

    #[test]
    fn a_stale_handle_is_opened_once_more() {
        let mut left = vec![libc::ESTALE, libc::EINTR, libc::EINTR];
        let mut asked = 0;
        let mut action = || {
            asked += 1;
            left.pop().map_or(Ok(7), |code| Err(error(code)))
        };
        assert_eq!(reopened(&mut action).unwrap(), 7);
        assert_eq!(asked, 4);
        let twice = || -> io::Result<()> { Err(error(libc::ESTALE)) };
        assert_eq!(reopened(twice).unwrap_err().raw_os_error(), Some(libc::ESTALE));
    }
}
