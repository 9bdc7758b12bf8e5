//! The signals that ask to stop.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::{exit, register, signal_name};

use super::SIGNAL;
use super::react::{Asked, Manners, Reaction};
use crate::error::{Class, Error, Result};
use crate::files::now;

/// What asks to stop: people, terminals that close, schedulers and their warnings, limits of processor time. SIGCONT
/// is not among them: it does what it always does.
const WATCHED: [i32; 6] = [SIGTERM, SIGHUP, SIGINT, SIGUSR1, SIGUSR2, libc::SIGXCPU];

static ASKED: Asked = Asked::new();

/// From now on signals ask to stop instead of ending the process. What whoever started it chose to ignore stays
/// ignored: SIGHUP under `nohup`, SIGINT in the background of a script. May be called again, to no effect.
///
/// # Errors
/// A system that takes no handlers; class `Internal`.
pub fn watch() -> Result<()> {
    static WATCHING: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let watching = WATCHING.get_or_init(|| {
        let (start, terminal) = (now(), std::io::stdin().is_terminal() || std::io::stderr().is_terminal());
        for number in WATCHED.into_iter().filter(|&number| !is_ignored(number)) {
            let manners = Manners {
                number,
                by_hand: number == SIGINT && terminal,
                repeats_itself: number == libc::SIGXCPU,
            };
            // SAFETY: the handler reads a clock, changes atomics and at most ends the process, all of which a signal
            // handler may do: it neither allocates nor locks.
            unsafe { register(number, move || handle(manners, start)) }
                .map_err(|error| format!("{}: {error}", name(number)))?;
        }
        Ok(())
    });
    watching.clone().map_err(|why| Error::internal("cannot watch for signals").because(why))
}

/// From now on a write beyond `ulimit -f` is an error that says so; by default the system ends the process (SIGXFSZ) in the
/// middle of it, without a word and with a core file.
pub fn outlive_file_limits() {
    if !is_ignored(libc::SIGXFSZ) {
        // SAFETY: the handler does nothing. Where it cannot be put in place, all is as it was.
        let _ = unsafe { register(libc::SIGXFSZ, || {}) };
    }
}

/// Runs inside the handler.
fn handle(signal: Manners, start: Instant) {
    let at = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
    match ASKED.react(signal, at) {
        Reaction::Stop => {
            let _ = SIGNAL.compare_exchange(0, signal.number, Ordering::SeqCst, Ordering::SeqCst);
        }
        Reaction::Nothing => {}
        // Files are whole at any moment: they are written under another name and renamed.
        Reaction::End => exit(i32::from(Class::Interrupted.exit_code())),
    }
}

/// Whether the process was started with the signal ignored.
fn is_ignored(number: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the action alone; `action` is where it is written.
    let found = unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: written, or the zeros it was made of, which are an action.
    found == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// What a signal is called.
pub(super) fn name(number: i32) -> &'static str {
    // Of those that signal-hook does not name.
    if number == libc::SIGXCPU { "SIGXCPU" } else { signal_name(number).unwrap_or("a signal") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_watched_signal_has_a_name() {
        let names: Vec<_> = WATCHED.into_iter().map(name).collect();
        assert_eq!(names, ["SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGXCPU"]);
    }

    #[test]
    fn an_ignored_signal_is_known() {
        // The runtime of Rust ignores SIGPIPE.
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGSEGV));
    }
}
