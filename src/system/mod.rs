//! What operating systems do each in its own way: the one place that asks which of them this is.
//!
//! `portable` answers every question with what Rust's library knows, or with "not known here", and whoever asks lives with
//! that. Unix systems know more, Linux most. `NANORUN_SYSTEM=portable` holds a process down to the first, to test that
//! results are the same there. Instruction sets are no matter of the system: `simd` has them.

mod large_pages;
#[cfg(target_os = "linux")]
mod linux;
mod portable;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod unix;

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::OnceLock;

use crate::error::{Error, Result};

pub use large_pages::LargePages;

/// What holds a process down to what every system has.
const VARIABLE: &str = "NANORUN_SYSTEM";

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

/// What an error of the system says beyond its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The file system does not know what was asked.
    Unsupported,
    /// There is no lock service (ENOLCK).
    NoLocks,
    /// A directory is not to be opened for that (EBADF, EISDIR).
    NotForDirectories,
    /// The device itself fails (EIO).
    Broken,
}

/// A signal that asks to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Whether a hand at a terminal can send it (SIGINT).
    pub by_hand: bool,
    /// Whether the system sends it again and again (SIGXCPU).
    pub repeats_itself: bool,
}

/// Whether this process is held down to what every system has.
fn held_down() -> bool {
    static HELD: OnceLock<bool> = OnceLock::new();
    // Whoever starts a command has checked what the variable says; a library's caller may not have.
    *HELD.get_or_init(|| forced().unwrap_or(false))
}

/// Whether `NANORUN_SYSTEM` holds this process down: `portable`, or nothing.
///
/// # Errors
/// Another word; class `Input`.
pub(crate) fn forced() -> Result<bool> {
    let word = std::env::var_os(VARIABLE).unwrap_or_default();
    match word.to_str() {
        Some("") => Ok(false),
        Some("portable") => Ok(true),
        _ => Err(Error::input(format!("{VARIABLE} is `{}`", word.to_string_lossy()))
            .key(VARIABLE)
            .expected("portable, or nothing for all that the system tells")),
    }
}

/// Asks the best of the systems that this one is.
macro_rules! ask {
    (unix $function:ident($($argument:expr),*)) => {{
        #[cfg(unix)]
        if !held_down() {
            return unix::$function($($argument),*);
        }
        portable::$function($($argument),*)
    }};
    (linux $function:ident($($argument:expr),*)) => {{
        #[cfg(target_os = "linux")]
        if !held_down() {
            return linux::$function($($argument),*);
        }
        portable::$function($($argument),*)
    }};
}

/// A text in which the kernel tells of itself, by its absolute path; none where it has none.
pub fn kernel_text(path: &Path) -> Option<String> {
    ask!(linux kernel_text(path))
}

/// What a link of the kernel's names, such as a namespace; none where it has none.
pub fn kernel_link(path: &Path) -> Option<String> {
    ask!(linux kernel_link(path))
}

/// Memory for [`LargePages`].
fn map_large(len: usize) -> Option<NonNull<u8>> {
    ask!(linux map_large(len))
}

/// The file system that `path` is on, which must exist.
///
/// # Errors
/// A path that is not there, a system that does not tell, and whatever it answers.
pub fn space(path: &Path) -> io::Result<Space> {
    ask!(unix space(path))
}

/// Device, inode, and seconds and nanoseconds of the last change, which moves even where a copy keeps the modification
/// time; none where files have no such identity.
pub fn identity(metadata: &Metadata) -> Option<[i64; 4]> {
    ask!(unix identity(metadata))
}

/// Bytes that a file takes of its disk.
pub fn allocated(metadata: &Metadata) -> u64 {
    ask!(unix allocated(metadata))
}

/// Whether there is a process of this id, whoever's it is; true where that cannot be told.
pub fn process_exists(pid: u32) -> bool {
    ask!(unix process_exists(pid))
}

/// Whether another process than this one, of the same program, has a thread of this name; false where that cannot be told.
pub fn another_has_thread(thread: &str) -> bool {
    ask!(linux another_has_thread(thread))
}

/// Asks a process to stop (SIGTERM), where the system has a way to; it must be a child that has not been waited for, so
/// that its id is no other's.
pub fn ask_to_stop(child: u32) {
    ask!(unix ask_to_stop(child));
}

/// Whether an error has this meaning by the system's own codes; its kind may say so beside.
pub fn means(error: &io::Error, meaning: Meaning) -> bool {
    ask!(unix means(error, meaning))
}

/// From now on `handle` runs at every signal that asks to stop, instead of its ending the process; those that whoever
/// started this process chose to ignore stay ignored. `handle` may do what a signal handler may: it neither allocates
/// nor locks.
///
/// # Errors
/// A system that takes no handlers, with the signal's name.
pub fn at_signals(handle: impl Fn(Signal) + Copy + Send + Sync + 'static) -> std::result::Result<(), String> {
    #[cfg(unix)]
    return signals::at_signals(handle);
    #[cfg(not(unix))]
    portable::at_signals(handle)
}

/// What a signal is called.
pub fn signal_name(number: i32) -> &'static str {
    #[cfg(unix)]
    return signals::name(number);
    #[cfg(not(unix))]
    portable::signal_name(number)
}

/// From now on a write beyond `ulimit -f` is an error that says so, where there is such a limit; by default the system
/// ends the process (SIGXFSZ) in the middle of it, without a word and with a core file.
pub fn outlive_file_limits() {
    #[cfg(unix)]
    signals::outlive_file_limits();
}

/// Becomes another program, with these arguments after its name, where the system lets a process do that; elsewhere runs
/// it and ends as it did. Comes back with why it could not be started.
pub fn become_program(program: &Path, arguments: &[OsString]) -> io::Error {
    ask!(unix become_program(program, arguments))
}

/// Ends the process from within a signal's handler.
pub fn end_at_once(code: i32) -> ! {
    #[cfg(unix)]
    signals::exit(code);
    #[cfg(not(unix))]
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On every system, and whatever it is.
    #[test]
    fn the_portable_answers_are_there_to_live_with() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        let metadata = file.path().metadata().unwrap();
        assert_eq!(portable::kernel_text(Path::new("/proc/meminfo")), None);
        assert_eq!(portable::kernel_link(Path::new("/proc/self/ns/pid")), None);
        assert_eq!(portable::space(file.path()).unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_eq!(portable::identity(&metadata), None);
        assert_eq!(portable::allocated(&metadata), 5);
        assert!(portable::process_exists(u32::MAX), "nobody is taken for dead who may live");
        let error = io::Error::from_raw_os_error(5);
        assert!(!portable::means(&error, Meaning::Broken));
        assert!(!portable::another_has_thread("any"));
        assert!(portable::map_large(1 << 30).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn unix_tells_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.path().metadata().unwrap();
        assert!(unix::space(file.path()).unwrap().total > 0);
        assert!(unix::identity(&metadata).unwrap()[1] > 0);
        assert!(unix::process_exists(std::process::id()));
        assert!(!unix::process_exists(u32::MAX));
        assert!(unix::means(&io::Error::from_raw_os_error(libc::EIO), Meaning::Broken));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_most() {
        assert!(linux::kernel_text(Path::new("/proc/meminfo")).unwrap().contains("MemTotal:"));
        assert_eq!(linux::kernel_text(Path::new("/proc/nothing")), None);
        assert!(linux::kernel_link(Path::new("/proc/self/ns/pid")).unwrap().starts_with("pid:["));
        let meeting = std::sync::Arc::new(std::sync::Barrier::new(2));
        let theirs = std::sync::Arc::clone(&meeting);
        let thread = std::thread::Builder::new().name("nanorun-looked-f".to_owned());
        let thread = thread.spawn(move || {
            theirs.wait();
            theirs.wait();
        });
        let thread = thread.unwrap();
        // A thread gives itself its name after it has begun: without this meeting it is looked for before it has one.
        meeting.wait();
        let own = Path::new("/proc").join(std::process::id().to_string());
        // The kernel keeps 15 bytes of a name.
        assert!(linux::has_thread(&own, "nanorun-looked-"));
        assert!(!linux::has_thread(&own, "nobody-has-this"));
        meeting.wait();
        thread.join().unwrap();
    }
}
