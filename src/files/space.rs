//! How much room a file system has.

use std::path::Path;

pub use crate::system::{Space, space};

/// Bytes that this user may still write where `path` is or, if it is not there yet, would be made. None where the file
/// system does not tell: some in user space say 0 of everything.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists() && !ancestor.as_os_str().is_empty());
    let found = space(existing.unwrap_or(Path::new("."))).ok()?;
    (found.total > 0).then_some(found.free)
}

#[cfg(all(test, unix))]
mod tests {
    use std::io;

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
