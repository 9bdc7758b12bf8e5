//! Signals, as Unix has them.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::register;

use super::Signal;

/// What asks to stop: people, terminals that close, schedulers and their warnings, limits of processor time. SIGCONT
/// is not among them: it does what it always does.
const WATCHED: [i32; 6] = [SIGTERM, SIGHUP, SIGINT, SIGUSR1, SIGUSR2, libc::SIGXCPU];

/// See `at_signals` of the seam.
pub(super) fn at_signals(handle: impl Fn(Signal) + Copy + Send + Sync + 'static) -> Result<(), String> {
    // SIGHUP under `nohup`, SIGINT in the background of a script.
    for number in WATCHED.into_iter().filter(|&number| !is_ignored(number)) {
        let signal = Signal { number, by_hand: number == SIGINT, repeats_itself: number == libc::SIGXCPU };
        // SAFETY: `handle` does what a signal handler may, which is asked of whoever gives it.
        unsafe { register(number, move || handle(signal)) }
            .map_err(|error| format!("{}: {error}", name(number)))?;
    }
    Ok(())
}

/// See `outlive_file_limits` of the seam.
pub(super) fn outlive_file_limits() {
    if !is_ignored(libc::SIGXFSZ) {
        // SAFETY: the handler does nothing. Where it cannot be put in place, all is as it was.
        let _ = unsafe { register(libc::SIGXFSZ, || {}) };
    }
}

/// Ends the process, as a handler may.
pub(super) fn exit(code: i32) -> ! {
    signal_hook::low_level::exit(code)
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
    if number == libc::SIGXCPU {
        "SIGXCPU"
    } else {
        signal_hook::low_level::signal_name(number).unwrap_or("a signal")
    }
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
