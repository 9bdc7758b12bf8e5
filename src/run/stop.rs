//! Ctrl-C and SIGTERM: the first asks every run to stop at its next step boundary, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Class, Error, Result};

/// Whether the user asked to stop.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that signals raise. At most one a process.
    pub fn on_signals() -> Result<Self> {
        let flag = Self::default();
        let raised = flag.clone();
        ctrlc::set_handler(move || {
            if raised.0.swap(true, Ordering::SeqCst) {
                // Asked twice: whoever asks does not want to wait for the step. Checkpoints on disk are whole.
                std::process::exit(i32::from(Class::Interrupted.exit_code()));
            }
        })
        .map_err(|e| Error::internal("cannot watch for signals").because(e))?;
        Ok(flag)
    }

    /// Asks to stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether to stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
