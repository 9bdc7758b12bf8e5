//! Threads: how many every pool of the process gets, and whether they can be had.
//!
//! Beside the threads that a backend computes on, rayon has a pool for the whole process (reading, hashing, encoding)
//! and polars one of its own. Each takes as many threads as there are cores unless told, and each panics where the
//! system gives it fewer. So before anything else is done all that will be needed are started once, for a moment.

use std::io;
use std::sync::RwLock;
use std::thread;

use crate::error::{Error, Result};

use super::all_threads;

/// Threads beside the pools: signals, training rows, evaluation rows, the progress bar, one of polars that gives memory
/// back, and one to spare.
const BESIDE: usize = 6;

/// Bounds every pool by `asked`, by `--threads` or by the manifest, and makes sure that the threads can be had. Without
/// one it is the number of CPUs that may be used, for rayon's pool `RAYON_NUM_THREADS`.
///
/// # Errors
/// Fewer threads than needed can be started.
pub(super) fn start(asked: Option<usize>) -> Result<()> {
    let threads = asked.unwrap_or_else(all_threads);
    let told = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    let rayon = asked.or_else(|| told("RAYON_NUM_THREADS")).unwrap_or(threads);
    let polars = told("POLARS_MAX_THREADS").map_or(threads, |told: usize| told.min(threads));
    can_start(threads + rayon + polars + BESIDE, threads)?;
    // SAFETY: the threads of `can_start` have ended and no other was started yet, so nobody reads the environment.
    unsafe {
        std::env::set_var("POLARS_MAX_THREADS", polars.to_string());
    }
    match rayon::ThreadPoolBuilder::new().num_threads(rayon).build_global() {
        Ok(()) => Ok(()),
        // There already: a command that plans twice.
        Err(_) if rayon::current_num_threads() == rayon => Ok(()),
        Err(error) => Err(refused(rayon, 0, threads, &error.to_string())),
    }
}

/// Whether so many threads can be started beside those that run.
fn can_start(needed: usize, threads: usize) -> Result<()> {
    let gate = RwLock::new(());
    thread::scope(|scope| {
        let closed = gate.write();
        for started in 0..needed {
            // It waits, so that all are there at the same time.
            let waits = || drop(gate.read());
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, waits) {
                drop(closed);
                return Err(refused(needed, started, threads, &reason(&error)));
            }
        }
        drop(closed);
        Ok(())
    })
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock => "the system gives no more".to_owned(),
        _ => error.to_string(),
    }
}

fn refused(needed: usize, started: usize, threads: usize, reason: &str) -> Error {
    let raise =
        "raise the limit (`ulimit -u`; in a container its pids limit, in a batch job that of its tasks)";
    Error::input(format!("{needed} threads are needed and only {started} can be started: {reason}"))
        .expected(format!(
            "room for three pools of {threads}, for computing, data and tables, and {BESIDE} threads more"
        ))
        .help(if threads > 1 {
            format!("lower the number with --threads, or {raise}")
        } else {
            raise.to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_threads_are_told_in_one_message() {
        can_start(20, 1).unwrap();
        let text = refused(9, 2, 1, "the system gives no more").to_string();
        assert!(
            text.contains("9 threads are needed and only 2 can be started") && !text.contains("--threads"),
            "{text}"
        );
        assert!(refused(30, 2, 8, "x").to_string().contains("--threads"));
    }
}
