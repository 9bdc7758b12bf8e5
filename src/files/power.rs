//! A disk that forgets: what a power cut may leave of a sequence of writes.
//!
//! [`PowerCut`] follows every step in a model of the disk and stops the writer at one of them. What the disk holds
//! then is not one state but many: content that was not synced may be gone, zero or torn; changes of a directory that
//! was not synced may have reached the disk up to any of them. [`PowerCut::leave`] makes one of these states.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::faults::{Fault, Faults, Step};

/// What has become of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// All of it is gone.
    Nothing,
    /// Names have reached the disk, content has not: files are empty or shorter.
    NamesOnly,
    /// Names have, and files have their length, but zeros for content.
    NamesAndZeros,
    /// Some names and parts of some files, by a seed.
    Part(u64),
    /// All of it is there: the process died, the machine did not.
    Everything,
}

impl Left {
    /// Every kind, with a few seeds.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let some = (1..=3).map(Self::Part);
        [Self::Nothing, Self::NamesOnly, Self::NamesAndZeros, Self::Everything].into_iter().chain(some)
    }
}

/// Follows a writer in `root` up to a step, at which the power goes.
pub(crate) struct PowerCut {
    root: PathBuf,
    at: usize,
    state: Mutex<(usize, Disk)>,
}

#[derive(Default)]
struct Disk {
    nodes: Vec<Node>,
}

/// The number of a node; 0 is the root.
type Id = usize;

enum Node {
    File { now: Vec<u8>, synced: Vec<u8> },
    Dir { now: BTreeMap<String, Id>, synced: BTreeMap<String, Id>, changes: Vec<Change> },
}

/// A change of a directory; each reaches the disk as a whole, in order.
#[derive(Clone)]
enum Change {
    Put(String, Id),
    Take(String),
    Move { from: String, to: String, id: Id },
}

impl Change {
    fn apply(&self, entries: &mut BTreeMap<String, Id>) {
        match self {
            Self::Put(name, id) => {
                entries.insert(name.clone(), *id);
            }
            Self::Take(name) => {
                entries.remove(name);
            }
            Self::Move { from, to, id } => {
                entries.remove(from);
                entries.insert(to.clone(), *id);
            }
        }
    }
}

impl PowerCut {
    /// The power goes before step number `at` (from 0) of what is written under `root`; what is there now is durable.
    pub(crate) fn at(root: &Path, at: usize) -> Self {
        let mut disk = Disk::default();
        disk.load(root);
        Self { root: root.to_owned(), at, state: Mutex::new((0, disk)) }
    }

    /// How many steps have asked so far.
    pub(crate) fn seen(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Makes one of the states the disk may be in now, in the empty directory `place`.
    pub(crate) fn leave(&self, left: Left, place: &Path) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut random = match left {
            Left::Part(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        };
        state.1.write(0, left, &mut random, place);
    }
}

impl Faults for PowerCut {
    fn before(&self, step: Step<'_>, path: &Path) -> Option<Fault> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.0;
        state.0 += 1;
        if number >= self.at {
            return Some(Fault::Fail(ErrorKind::Other));
        }
        let names = |path: &Path| -> Vec<String> {
            let inside = path.strip_prefix(&self.root).expect("a path in the root");
            inside.iter().map(|name| name.to_str().unwrap().to_owned()).collect()
        };
        state.1.follow(step, &names(path), &names);
        None
    }
}

impl Disk {
    fn load(&mut self, path: &Path) -> Id {
        let id = self.nodes.len();
        if path.is_file() {
            let now = fs::read(path).unwrap();
            self.nodes.push(Node::File { synced: now.clone(), now });
            return id;
        }
        self.nodes.push(Node::Dir { now: BTreeMap::new(), synced: BTreeMap::new(), changes: Vec::new() });
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), self.load(&path));
        }
        self.nodes[id] = Node::Dir { now: found.clone(), synced: found, changes: Vec::new() };
        id
    }

    fn find(&self, names: &[String]) -> Option<Id> {
        names.iter().try_fold(0, |id, name| match &self.nodes[id] {
            Node::Dir { now, .. } => now.get(name).copied(),
            Node::File { .. } => None,
        })
    }

    fn change(&mut self, dir: Id, change: Change) {
        let Node::Dir { now, changes, .. } = &mut self.nodes[dir] else { panic!("not a directory") };
        change.apply(now);
        changes.push(change);
    }

    fn follow(&mut self, step: Step<'_>, path: &[String], names: &dyn Fn(&Path) -> Vec<String>) {
        let there = self.find(path);
        let (parent, name) = match path.split_last() {
            Some((name, parent)) => (self.find(parent), name.clone()),
            None => (None, String::new()),
        };
        let file = |disk: &mut Self, edit: &dyn Fn(&mut Vec<u8>, &mut Vec<u8>)| {
            let Some(Node::File { now, synced }) = there.map(|id| &mut disk.nodes[id]) else {
                panic!("{step:?} of {path:?}, which is no file")
            };
            edit(now, synced);
        };
        match step {
            Step::CreateDir | Step::Create => {
                let (None, Some(parent)) = (there, parent) else { return };
                let id = self.nodes.len();
                self.nodes.push(match step {
                    Step::Create => Node::File { now: Vec::new(), synced: Vec::new() },
                    _ => Node::Dir { now: BTreeMap::new(), synced: BTreeMap::new(), changes: Vec::new() },
                });
                self.change(parent, Change::Put(name, id));
            }
            Step::Write(bytes) => file(self, &|now, _| now.extend_from_slice(bytes)),
            Step::Truncate(length) => file(self, &|now, _| now.truncate(length as usize)),
            Step::Sync => file(self, &|now, synced| synced.clone_from(now)),
            Step::SyncDir => {
                let Some(Node::Dir { now, synced, changes }) = there.map(|id| &mut self.nodes[id]) else {
                    panic!("{path:?} is no directory")
                };
                synced.clone_from(now);
                changes.clear();
            }
            Step::Rename { from } => {
                let from = names(from);
                assert_eq!(from.len(), path.len(), "names move within one directory");
                let id = self.find(&from).expect("what is renamed is there");
                let from = from.last().unwrap().clone();
                self.change(parent.unwrap(), Change::Move { from, to: name, id });
            }
            Step::Remove => {
                let Some(id) = there else { return };
                self.empty(id);
                self.change(parent.unwrap(), Change::Take(name));
            }
        }
    }

    fn empty(&mut self, id: Id) {
        let Node::Dir { now, .. } = &self.nodes[id] else { return };
        for (name, inner) in now.clone() {
            self.empty(inner);
            self.change(id, Change::Take(name));
        }
    }

    fn write(&self, id: Id, left: Left, random: &mut u64, place: &Path) {
        let mut draw = |below: usize| {
            // xorshift64
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            (*random % (below as u64)) as usize
        };
        match &self.nodes[id] {
            Node::File { now, synced } => {
                let torn = |cut: usize| {
                    let mut torn = now.clone();
                    torn.truncate(cut.max(synced.len().min(now.len())));
                    torn
                };
                let content = match left {
                    _ if now == synced => now.clone(),
                    Left::Nothing | Left::NamesOnly => synced.clone(),
                    Left::NamesAndZeros => {
                        let mut zeros = synced.clone();
                        zeros.resize(now.len(), 0);
                        zeros
                    }
                    Left::Everything => now.clone(),
                    Left::Part(_) => torn(draw(now.len() + 1)),
                };
                fs::write(place, content).unwrap();
            }
            Node::Dir { synced, changes, .. } => {
                let reached = match left {
                    Left::Nothing => 0,
                    Left::Part(_) => draw(changes.len() + 1),
                    _ => changes.len(),
                };
                let mut entries = synced.clone();
                changes[..reached].iter().for_each(|change| change.apply(&mut entries));
                if !place.is_dir() {
                    fs::create_dir(place).unwrap();
                }
                for (name, id) in entries {
                    self.write(id, left, random, &place.join(name));
                }
            }
        }
    }
}
