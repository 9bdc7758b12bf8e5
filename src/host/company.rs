//! Which other processes of this host compute just now.

use crate::system;

/// Says that nothing else trains, whatever does: tests run beside one another, and some are about what is measured alone.
#[cfg(any(test, feature = "internals"))]
const ASSUMED_ALONE: &str = "NANORUN_TEST_ALONE";

/// Whether another process of this host has a thread of this name: nanorun gives one to every process that trains. On a
/// system that does not show its processes, and for those of other containers, nobody can tell, and the answer is no.
pub fn another_trains(thread: &str) -> bool {
    #[cfg(any(test, feature = "internals"))]
    if std::env::var_os(ASSUMED_ALONE).is_some() {
        return false;
    }
    system::another_has_thread(thread)
}
