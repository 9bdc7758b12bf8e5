//! The beats of this process: one thread rewrites the nonces of all leases it holds.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::files::uninterrupted;

/// The name of the thread that beats. Every process that trains has one, so others of the host can tell that it does.
pub const THREAD: &str = "nanorun-beats";

/// Beats until it is dropped.
pub(super) struct Heart {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    leases: Vec<Weak<One>>,
    over: bool,
}

/// One nonce that the heart rewrites.
#[derive(Debug)]
struct One {
    path: PathBuf,
    /// What is there once somebody took the lease over.
    successor: Option<PathBuf>,
    lost: AtomicBool,
    ended: AtomicBool,
}

/// That the heart beats for something.
#[derive(Debug)]
pub(super) struct Beating(Arc<One>);

impl Heart {
    pub(super) fn new(period: Duration) -> Self {
        let state = Arc::new(State { held: Mutex::default(), changed: Condvar::new() });
        let shared = Arc::clone(&state);
        let beat = move || shared.run(period);
        // Without the thread nothing beats: others may take over what this process does, and both finish it.
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(beat).ok();
        Self { state, thread }
    }

    /// Writes a nonce to `path`, and from then on at every beat. If something is at `successor` then, it is lost.
    pub(super) fn beat(&self, path: PathBuf, successor: Option<PathBuf>) -> io::Result<Beating> {
        let one =
            Arc::new(One { path, successor, lost: AtomicBool::new(false), ended: AtomicBool::new(false) });
        one.write()?;
        self.state.lock().leases.push(Arc::downgrade(&one));
        Ok(Beating(one))
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.state.lock().over = true;
        self.state.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, period: Duration) {
        let mut held = self.lock();
        while !held.over {
            (held, _) = self.changed.wait_timeout(held, period).unwrap_or_else(PoisonError::into_inner);
            if held.over {
                return;
            }
            held.leases.retain(|one| one.strong_count() > 0);
            let leases: Vec<_> = held.leases.iter().filter_map(Weak::upgrade).collect();
            // A file server that hangs must keep nobody from taking a lease or letting go of one.
            drop(held);
            for one in leases {
                one.tick();
            }
            held = self.lock();
        }
    }
}

impl One {
    fn tick(&self) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        // Whatever is wrong (ESTALE, EIO, a full disk), it is tried again at the next beat: to lose the lease costs a run
        // that is done twice, to give up costs the run.
        let _ = self.write();
        if self.successor.as_ref().is_some_and(|successor| successor.symlink_metadata().is_ok()) {
            self.lost.store(true, Ordering::Release);
        }
    }

    fn write(&self) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Opened anew each time: closing it is what makes other machines see it.
        let mut file = uninterrupted(|| std::fs::File::create(&self.path))?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        file.write_all(format!("{}-{count}", std::process::id()).as_bytes())
    }
}

impl Beating {
    pub(super) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }

    /// Nothing is written after it, save what is being written just now.
    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
    }
}
