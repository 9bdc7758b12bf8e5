//! One shard: asked for until it is here, whole and what it should be.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::address::Address;
use super::answer::{Answer, page};
use super::client::{Client, Outcome, Rest, Trouble, broken, passed_over};
use super::gathering::{Gathering, Note};
use super::get::{Fetched, Origin, Watcher};
use super::patience::Patience;
use super::room::Room;
use super::sums::{SUMS, Sums};
use crate::data::{Cache, check_shard, file_digest};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::Digest;

/// Bytes taken from the connection at once.
const BLOCK: usize = 256 << 10;

/// How often a stop is looked for in a pause.
const TICK: Duration = Duration::from_millis(50);

/// How both ends of a parquet file read.
const MAGIC: &[u8; 4] = b"PAR1";

/// What the shards of one download share.
pub(super) struct Shared<'a> {
    pub(super) client: &'a Client,
    pub(super) files: &'a Files,
    pub(super) cache: &'a Cache,
    pub(super) dir: &'a Path,
    pub(super) sums: &'a Mutex<Sums>,
    pub(super) room: &'a Room,
    pub(super) patience: &'a Patience,
    pub(super) watcher: &'a dyn Watcher,
    /// Whether to stop, for whatever reason.
    pub(super) halt: &'a (dyn Fn() -> bool + Sync),
}

impl Shared<'_> {
    fn sum(&self, name: &str) -> Option<Digest> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).get(name)
    }

    fn remember(&self, name: &str, digest: Digest) -> Result<()> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).add(self.files, name, digest)
    }

    /// Waits, unless asked to stop.
    fn pause(&self, mut left: Duration) -> Outcome<()> {
        while !left.is_zero() {
            if (self.halt)() {
                return Err(Trouble::Stopped);
            }
            let tick = left.min(TICK);
            std::thread::sleep(tick);
            left -= tick;
        }
        Ok(())
    }

    /// Brings one shard, or finds it here.
    pub(super) fn bring(&self, name: &str, address: &Address) -> Outcome<Fetched> {
        let target = self.dir.join(name);
        if target.symlink_metadata().is_ok() {
            let found = self.here(name, &target)?;
            self.room.came(name);
            return Ok(found);
        }
        let mut gathering = Gathering::open(self.files, &target, &address.shown())?;
        let mut tries = Tries { most: gathering.bytes(), in_row: 0, in_all: 0 };
        let mut spoiled = false;
        loop {
            let what = match self.ask(name, address, &mut gathering) {
                Ok(()) => match self.wrong(name, &gathering) {
                    None => break,
                    Some(what) if spoiled => return Err(Trouble::Final(what)),
                    Some(what) => {
                        // Once may be an accident of the way here.
                        spoiled = true;
                        gathering.clear()?;
                        tries.most = 0;
                        Trouble::Passing(what.what().to_owned(), None)
                    }
                },
                Err(trouble) => trouble,
            };
            if (self.halt)() {
                return Err(Trouble::Stopped);
            }
            let Trouble::Passing(what, asked) = what else { return Err(what) };
            let pause = tries.pause(name, &what, asked, gathering.bytes(), self.patience)?;
            self.watcher.note(&format!("{name}: {what}; again in {} s", pause.as_secs_f64().ceil()));
            self.pause(pause)?;
        }
        let (bytes, sha256) = (gathering.bytes(), gathering.sha256());
        gathering.commit()?;
        self.remember(name, sha256)?;
        self.room.came(name);
        Ok(Fetched { name: name.to_owned(), bytes, sha256, origin: Origin::Network })
    }

    /// A shard that is here already: what `SHA256SUMS` says, or taken as it is where it says nothing.
    fn here(&self, name: &str, target: &Path) -> Result<Fetched> {
        let bytes = std::fs::metadata(target).map_or(0, |found| found.len());
        check_shard(target)
            .map_err(|error| error.help("move the file away: the same command then brings it again"))?;
        let sha256 = file_digest(target, self.cache)?;
        match self.sum(name) {
            Some(sum) if sum != sha256 => Err(Error::input(format!("`{name}` is not what {SUMS} says"))
                .file(target)
                .expected(sum.to_string())
                .help(format!(
                    "its SHA-256 is {sha256}: move it away to bring it again, or take its line out of {SUMS} if it \
                     is meant"
                ))),
            Some(_) => Ok(()),
            None => self.remember(name, sha256),
        }?;
        Gathering::tidy(self.files, target)?;
        Ok(Fetched { name: name.to_owned(), bytes, sha256, origin: Origin::Here })
    }

    /// Asks once for what is not here. Afterwards all of it is.
    fn ask(&self, name: &str, address: &Address, gathering: &mut Gathering) -> Outcome<()> {
        let from = gathering.bytes();
        if gathering.note().bytes.is_some_and(|bytes| bytes == from) {
            return Ok(());
        }
        let rest = Rest { from, version: gathering.note().version.as_deref() };
        let mut reply = self.client.get(address, (from > 0).then_some(&rest))?;
        let answer = Answer::of(&reply, from, self.client)?;
        let total = match answer {
            Answer::Whole(total) => total,
            Answer::Rest(total) => Some(total),
            Answer::Elsewhere => None,
        };
        let note = Note::of(&address.shown(), &reply, total);
        self.refuse_another_version(name, &note)?;
        let other = from > 0 && gathering.note().contradicts(&note);
        if matches!(answer, Answer::Elsewhere) || (other && matches!(answer, Answer::Rest(_))) {
            gathering.clear()?;
            return Err(Trouble::Passing("the server has another version by now".to_owned(), None));
        }
        if matches!(answer, Answer::Whole(_)) && from > 0 {
            gathering.clear()?;
        }
        if let (Some(said), Some(sent)) = (reply.promise.bytes, total)
            && said != sent
        {
            return Err(Trouble::Final(
                Error::input(format!("{} sends {sent} bytes of `{name}`", reply.from.shown()))
                    .expected(format!("{said} bytes, as the Hub says"))
                    .help("something on the way changes the file: try another network or proxy"),
            ));
        }
        if let Some(total) = note.bytes {
            self.room.check(name, total, gathering.bytes())?;
        }
        let total = note.bytes;
        gathering.belongs_to(note)?;
        self.watcher.started(name, gathering.bytes(), total);
        let mut reader = reply.body.as_reader();
        let mut block = vec![0; BLOCK];
        loop {
            if (self.halt)() {
                return Err(Trouble::Stopped);
            }
            let read = match reader.read(&mut block) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Trouble::Passing(cut(&broken(&error), gathering.bytes(), total), None));
                }
            };
            let bytes = block.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            if gathering.bytes() == 0 {
                refuse_other_files(name, bytes, &reply.from)?;
            }
            gathering.push(bytes)?;
            self.room.moved(name, gathering.bytes());
            self.watcher.moved(name, gathering.bytes());
        }
        match total {
            Some(total) if gathering.bytes() < total => {
                Err(Trouble::Passing(cut("the connection was cut", gathering.bytes(), Some(total)), None))
            }
            _ => Ok(()),
        }
    }

    /// What came once is what has to come again, whoever says otherwise.
    fn refuse_another_version(&self, name: &str, note: &Note) -> Outcome<()> {
        match (self.sum(name), note.sha256) {
            (Some(sum), Some(sha256)) if sum != sha256 => {
                Err(Trouble::Final(self.another_version(name, sum, sha256)))
            }
            _ => Ok(()),
        }
    }

    fn another_version(&self, name: &str, sum: Digest, sha256: Digest) -> Error {
        Error::input(format!("the server's `{name}` is not the one that came here first: its SHA-256 is {sha256}"))
            .file(self.dir.join(SUMS))
            .expected(sum.to_string())
            .help(format!("if upstream has new data, bring them to another directory with --to, or take the line out of {SUMS}"))
    }

    /// What is wrong with all the bytes of a shard; none where nothing is.
    fn wrong(&self, name: &str, gathering: &Gathering) -> Option<Error> {
        let (sha256, promise) = (gathering.sha256(), gathering.note().promise());
        let help = "something on the way changes the file, or it is damaged where it comes from";
        if promise.bytes.is_some_and(|bytes| bytes != gathering.bytes()) {
            return Some(
                Error::input(format!("`{name}` came with {} bytes", gathering.bytes()))
                    .expected(format!("{} bytes", promise.bytes.unwrap_or_default()))
                    .help(help),
            );
        }
        if let Some(promised) = promise.sha256.filter(|promised| *promised != sha256) {
            return Some(
                Error::input(format!(
                    "the bytes of `{name}` are not those that the server says: their SHA-256 is {sha256}"
                ))
                .expected(promised.to_string())
                .help(help),
            );
        }
        if let Some(sum) = self.sum(name).filter(|sum| *sum != sha256) {
            return Some(self.another_version(name, sum, sha256));
        }
        check_shard(gathering.path()).err().map(|error| {
            Error::input(format!("what came as `{name}` is no shard: {}", error.what()))
                .because(error)
                .help(help)
        })
    }
}

fn cut(what: &str, here: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{what} after {here} of {total} bytes"),
        None => format!("{what} after {here} bytes"),
    }
}

/// Nothing but a parquet file begins like one.
fn refuse_other_files(name: &str, start: &[u8], from: &Address) -> Outcome<()> {
    let magic = start.get(..MAGIC.len()).unwrap_or(start);
    if MAGIC.starts_with(magic) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(start.get(..start.len().min(256)).unwrap_or_default());
    if text.trim_start().starts_with('<') {
        return Err(Trouble::Final(page(&from.shown())));
    }
    let text: String = text.chars().take(60).flat_map(char::escape_default).collect();
    Err(Trouble::Final(
        Error::input(format!(
            "what {} sends as `{name}` is no parquet file: it begins with `{text}`",
            from.shown()
        ))
        .help("check --base-url and HF_ENDPOINT"),
    ))
}

/// How often a shard was tried.
struct Tries {
    /// The most bytes that were ever here: a server that starts over each time brings nothing new.
    most: u64,
    in_row: u32,
    in_all: u32,
}

impl Tries {
    /// How long to wait after a failure, with so many bytes here.
    fn pause(
        &mut self,
        name: &str,
        what: &str,
        asked: Option<Duration>,
        here: u64,
        patience: &Patience,
    ) -> Outcome<Duration> {
        if here > self.most {
            self.most = here;
            self.in_row = 0;
        }
        self.in_row += 1;
        self.in_all += 1;
        let help = "the same command carries on from what is here";
        if self.in_row >= patience.attempts || self.in_all >= patience.failures {
            let error = passed_over(format!("`{name}` did not come: {what}"));
            return Err(Trouble::Final(error.help(format!("tried {} times; {help}", self.in_all))));
        }
        match asked {
            Some(asked) if asked > patience.asked => {
                Err(Trouble::Final(passed_over(format!("`{name}` did not come: {what}")).help(format!(
                    "the server asks to wait {} minutes; {help}",
                    asked.as_secs().div_ceil(60)
                ))))
            }
            Some(asked) => Ok(asked.max(patience.first)),
            None => Ok(patience.pause(self.in_row)),
        }
    }
}
