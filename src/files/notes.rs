//! What a person should know of a file system, said once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::seam::Files;

/// What is said at most once a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Once {
    /// A directory cannot be synced.
    DirectorySync,
    /// A file cannot be synced.
    FileSync,
    /// Something old cannot be removed.
    Removal,
    /// A directory cannot be replaced in one step.
    Replacement,
}

type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// What was noted by all clones of one [`Files`].
#[derive(Default)]
pub(super) struct Notes(Mutex<State>);

#[derive(Default)]
struct State {
    said: BTreeSet<Once>,
    waiting: Vec<String>,
    sink: Option<Sink>,
}

impl Files {
    /// Hands notes to `sink` from now on; those that waited for it come at once, as one.
    pub fn notes_to(&self, sink: impl Fn(&str) + Send + Sync + 'static) {
        let sink: Sink = Arc::new(sink);
        let mut state = self.notes().0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut state.waiting);
        state.sink = Some(Arc::clone(&sink));
        // A sink may write files: it is called without the lock.
        drop(state);
        if !waiting.is_empty() {
            sink(&waiting.join("; "));
        }
    }

    /// Notes something about the file system.
    pub fn note(&self, text: String) {
        self.note_or_wait(None, || text);
    }

    pub(super) fn note_once(&self, what: Once, text: impl FnOnce() -> String) {
        self.note_or_wait(Some(what), text);
    }

    fn note_or_wait(&self, what: Option<Once>, text: impl FnOnce() -> String) {
        let mut state = self.notes().0.lock().unwrap_or_else(PoisonError::into_inner);
        if what.is_some_and(|what| !state.said.insert(what)) {
            return;
        }
        match state.sink.clone() {
            Some(sink) => {
                drop(state);
                sink(&text());
            }
            None => state.waiting.push(text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_comes_as_one_and_nothing_comes_twice() {
        let files = Files::new();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        files.note_once(Once::Removal, || "first".to_owned());
        files.clone().note_once(Once::Removal, || unreachable!("said already"));
        files.note("second".to_owned());
        let hear = Arc::clone(&heard);
        files.notes_to(move |text| hear.lock().unwrap().push(text.to_owned()));
        files.clone().note("third".to_owned());
        files.note_once(Once::Removal, || unreachable!("said already"));
        assert_eq!(*heard.lock().unwrap(), ["first; second", "third"]);
    }
}
