//! Being asked to stop: by a signal to the process, or by whoever holds a [`StopFlag`].
//!
//! Nothing is interrupted by force. Whatever takes longer than a moment asks: the step loop between micro-batches and
//! evaluation batches, models between their blocks, the cpu backend between the tasks of an op, readers between pieces
//! of a file, tokenizers between documents and merges. What was begun is dropped, and what was there before is kept.

mod react;
mod signals;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::error::{Class, Error, Result};

pub use signals::watch;

pub use crate::system::outlive_file_limits;

/// The first signal that asked this process to stop; 0 while none has. A handler writes it, so it is all that a
/// handler may write.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether to stop: raised by hand, or by a signal to the process.
#[derive(Debug, Clone, Default)]
pub struct StopFlag {
    raised: Arc<AtomicBool>,
    /// How often it may still be asked before it is raised.
    #[cfg(test)]
    asks_left: Option<Arc<std::sync::atomic::AtomicI64>>,
}

impl StopFlag {
    /// Asks to stop. Never taken back: whoever saw it may have left work undone.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
    }

    /// Whether to stop.
    #[inline]
    pub fn is_raised(&self) -> bool {
        #[cfg(test)]
        if self.asks_left.as_ref().is_some_and(|left| left.fetch_sub(1, Ordering::SeqCst) <= 0) {
            self.raise();
        }
        self.raised.load(Ordering::Relaxed) || signalled()
    }

    /// One that is raised once it was asked this often, for tests to stop anywhere.
    #[cfg(test)]
    pub(crate) fn after(asks: i64) -> Self {
        let asks_left = Some(Arc::new(std::sync::atomic::AtomicI64::new(asks)));
        Self { raised: Arc::default(), asks_left }
    }
}

/// Whether a signal asked this process to stop.
#[inline]
pub fn signalled() -> bool {
    SIGNAL.load(Ordering::Relaxed) != 0
}

/// Asked in long work that has no flag at hand: reading, hashing, encoding.
///
/// # Errors
/// [`stopped`], once a signal asked this process to stop.
pub fn check() -> Result<()> {
    if signalled() { Err(stopped()) } else { Ok(()) }
}

/// What work ends with that was asked to stop; class `Interrupted`.
pub fn stopped() -> Error {
    let what = signal_name().map_or_else(|| "stopped".to_owned(), |name| format!("stopped by {name}"));
    Error::new(Class::Interrupted, what).help("the same command carries on from here")
}

/// Whether work ended because it was asked to.
pub fn is_stop(error: &Error) -> bool {
    error.class() == Class::Interrupted
}

/// `None` where work was asked to stop.
///
/// # Errors
/// Any other error.
pub fn unless_stopped<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_stop(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The signal that asked this process to stop, such as `SIGTERM`.
pub fn signal_name() -> Option<&'static str> {
    signalled().then(|| crate::system::signal_name(SIGNAL.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_shared_and_stays_raised() {
        let flag = StopFlag::default();
        let other = flag.clone();
        assert!(!flag.is_raised());
        other.raise();
        assert!(flag.is_raised());
        assert!(!StopFlag::default().is_raised(), "flags are no signals");
        assert!(check().is_ok());
    }

    #[test]
    fn a_stop_is_told_from_a_failure() {
        assert_eq!(stopped().class().exit_code(), 130);
        assert_eq!(unless_stopped(Ok(3)).unwrap(), Some(3));
        assert_eq!(unless_stopped::<()>(Err(stopped())).unwrap(), None);
        assert!(unless_stopped::<()>(Err(Error::run("full"))).is_err());
    }
}
