//! Names of files and directories on their way, which say whose they are.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::host::{Life, ProcessId, life_here};

/// Bytes of a name that its temporary name keeps: with what follows them it stays within the 255 that file systems
/// take.
const KEPT: usize = 150;

/// A hidden name beside `path` that no other writer has: `.NAME.PID-NUMBER-BEGAN-PLACE.EXTENSION`, where the process id,
/// when it began and its place are those of [`ProcessId`].
pub fn temporary_name(path: &Path, extension: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // What was moved aside gets its name back by it; of anything else the name only helps people.
    let kept = if extension == "old" { &*name } else { shortened(&name) };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{kept}.{}.{extension}", signature(ProcessId::own(), number)))
}

/// Whether it is the name of something on its way: half written, or moved aside for its successor.
pub fn is_temporary(path: &Path) -> bool {
    Temporary::of(path).is_some()
}

/// Whether it is something on its way whose writer is not known to live: rubbish, for the holder of the directory's lock.
pub fn is_abandoned(path: &Path) -> bool {
    Temporary::of(path).is_some_and(|temporary| temporary.writer() != Life::Alive)
}

/// Its first [`KEPT`] bytes, whole characters.
fn shortened(name: &str) -> &str {
    let ends = name.char_indices().map(|(at, character)| at + character.len_utf8());
    &name[..ends.take_while(|end| *end <= KEPT).last().unwrap_or(0)]
}

/// What a temporary name says of its writer.
fn signature(process: &ProcessId, number: u64) -> String {
    format!("{}-{number}-{}-{}", process.pid, process.began, process.place())
}

/// A temporary name, read.
#[derive(Debug, PartialEq, Eq)]
pub struct Temporary {
    /// The name it was made from.
    pub original: String,
    /// Whether it was moved aside for a successor; else it is on its way to its name.
    pub aside: bool,
    /// Process id, beginning and place of its writer; none in the names of nanorun 0.1.0.
    writer: Option<(u32, u64, String)>,
}

impl Temporary {
    /// Of a temporary name; none of any other.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix('.')?;
        let (rest, extension) = name.rsplit_once('.')?;
        let aside = match extension {
            "tmp" => false,
            "old" => true,
            _ => return None,
        };
        let (original, signature) = rest.rsplit_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = signature.split('-').collect();
        let writer = match parts[..] {
            [pid, number] if digits(pid) && digits(number) => None,
            [pid, number, began, place] if digits(number) && digits(began) => {
                let hex = place.len() == 12 && place.bytes().all(|byte| byte.is_ascii_hexdigit());
                Some((
                    pid.parse().ok().filter(|_| digits(pid) && hex)?,
                    began.parse().ok()?,
                    place.to_owned(),
                ))
            }
            _ => return None,
        };
        Some(Self { original: original.to_owned(), aside, writer })
    }

    /// What is known of its writer. This process counts as dead: it asks before it writes.
    pub fn writer(&self) -> Life {
        let own = ProcessId::own();
        match &self.writer {
            // By its place too: containers that start together have one number and one beginning in them all.
            Some(_) if self.is_of(own) => Life::Dead,
            Some((pid, began, place)) if *place == own.place() && !own.boot.is_empty() => {
                life_here(*pid, *began)
            }
            _ => Life::Unknown,
        }
    }

    /// Whether it was made from the name of `target`.
    pub fn is_for(&self, target: &Path) -> bool {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        self.original == if self.aside { &*name } else { shortened(&name) }
    }

    /// Whether its writer is `process`.
    pub fn is_of(&self, process: &ProcessId) -> bool {
        self.writer.as_ref().is_some_and(|(pid, began, place)| {
            (*pid, *began) == (process.pid, process.began) && *place == process.place()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_says_whose_it_is() {
        for name in ["result.json", "step_000500", "a.b.c", ".hidden", "ü", ""] {
            for extension in ["tmp", "old"] {
                let path = temporary_name(&Path::new("somewhere").join(name).join(""), extension);
                let found = Temporary::of(&path).unwrap();
                assert!(found.is_of(ProcessId::own()), "{path:?}");
                assert_eq!(found.aside, extension == "old");
                if !name.is_empty() {
                    assert_eq!(found.original, name);
                }
            }
        }
        let old = Temporary::of(Path::new("runs/.result.json.7-3.tmp")).unwrap();
        assert_eq!((old.original.as_str(), old.writer()), ("result.json", Life::Unknown));
        for other in [
            ".a.tmp",
            "a.1-2.tmp",
            ".a.1-x.tmp",
            ".a.1-2-3.tmp",
            ".a.1-2-3-zzzzzzzzzzzz.tmp",
            ".a.1-2.txt",
            ".lock",
        ] {
            assert_eq!(Temporary::of(Path::new(other)), None, "{other}");
        }
    }

    /// Containers of one image that start together: what is one's own is told by the place as well.
    #[test]
    fn another_machines_process_of_the_same_number_and_beginning_is_another() {
        let own = ProcessId::own();
        let signed = |place: &str| format!(".a.{}-0-{}-{place}.tmp", own.pid, own.began);
        let writer = |name: String| Temporary::of(Path::new(&name)).unwrap().writer();
        assert_eq!(writer(signed(&own.place())), Life::Dead);
        assert_eq!(writer(signed("0123456789ab")), Life::Unknown);
    }

    #[test]
    fn long_names_have_temporary_names_that_fit() {
        let name = "ä".repeat(120);
        let path = temporary_name(&Path::new("x").join(&name), "tmp");
        assert!(path.file_name().unwrap().len() <= 255);
        assert!(Temporary::of(&path).is_some());
    }
}
