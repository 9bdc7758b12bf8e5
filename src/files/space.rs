//! How much room a file system has.

use std::io;
use std::path::Path;

/// A file system as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this user may still write, as far as the file system tells; a quota often shows only when it is
    /// reached.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Whether nothing can be written there.
    pub read_only: bool,
}

/// The file system that `path` is on, which must exist.
///
/// # Errors
/// A path that is not there, and whatever the system answers.
#[cfg(unix)]
pub fn space(path: &Path) -> io::Result<Space> {
    use std::os::unix::ffi::OsStrExt as _;

    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    super::trouble::uninterrupted(|| {
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: the path ends with its zero byte; the struct is the call's to fill.
        if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
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
    })
}

/// Not known on this system.
///
/// # Errors
/// Always.
#[cfg(not(unix))]
pub fn space(_path: &Path) -> io::Result<Space> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Bytes that this user may still write where `path` is or, if it is not there yet, would be made. None where the file
/// system does not tell: some in user space say 0 of everything.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists() && !ancestor.as_os_str().is_empty());
    let found = space(existing.unwrap_or(Path::new("."))).ok()?;
    (found.total > 0).then_some(found.free)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_there_yet_has_the_room_of_where_it_would_be() {
        let place = tempfile::tempdir().unwrap();
        assert!(free_bytes(place.path()).unwrap() > 0);
        assert!(free_bytes(&place.path().join("not/yet/here")).is_some());
        assert_eq!(free_bytes(Path::new("/proc")), None);
    }

    #[test]
    fn a_file_system_has_no_more_room_than_it_is_large() {
        let dir = tempfile::tempdir().unwrap();
        let found = space(dir.path()).unwrap();
        assert!(found.free > 0 && found.free <= found.total && !found.read_only, "{found:?}");
        assert_eq!(space(&dir.path().join("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
