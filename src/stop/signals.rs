//! The signals that ask to stop.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::SIGNAL;
use super::react::{Asked, Manners, Reaction};
use crate::error::{Class, Error, Result};
use crate::files::now;
use crate::system;

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
        // It reads a clock, changes atomics and at most ends the process, all of which a handler may do.
        system::at_signals(move |signal| {
            let manners = Manners {
                number: signal.number,
                by_hand: signal.by_hand && terminal,
                repeats_itself: signal.repeats_itself,
            };
            handle(manners, start);
        })
    });
    watching.clone().map_err(|why| Error::internal("cannot watch for signals").because(why))
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
        Reaction::End => system::end_at_once(i32::from(Class::Interrupted.exit_code())),
    }
}
