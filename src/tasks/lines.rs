//! A file of examples, one JSON object a line, of which only the place of each line is held.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::hash::Digest;

/// A longer line is no example.
const MOST_BYTES: usize = 16 << 20;

/// Where a line is, without its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: usize,
    at: u64,
    len: u32,
    crc: u32,
}

/// A file whose lines were found and looked at.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: Mutex<File>,
    /// SHA-256 of its bytes.
    pub(super) sha256: Digest,
}

impl Lines {
    /// Opens a file and shows each line to `look`.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is too long, what `look` says of one (with file and line added); a stop
    /// asked for meanwhile.
    pub(super) fn open(path: &Path, look: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<(Self, Vec<Line>)> {
        let cannot =
            |error: io::Error| Error::input("cannot read a file of examples").file(path).because(error);
        let file = File::open(path).map_err(cannot)?;
        if file.metadata().map_err(cannot)?.is_dir() {
            return Err(Error::input("a file of examples is a directory").file(path));
        }
        let mut reader = BufReader::new(&file);
        let (mut hash, mut lines, mut at) = (Sha256::new(), Vec::new(), 0_u64);
        let mut line = Vec::new();
        loop {
            if lines.len() % 1024 == 0 {
                crate::stop::check()?;
            }
            line.clear();
            let read =
                (&mut reader).take(MOST_BYTES as u64 + 1).read_until(b'\n', &mut line).map_err(cannot)?;
            if read == 0 {
                break;
            }
            let number = lines.len() + 1;
            let here = |error: Error| error.file(path).line(number);
            if read > MOST_BYTES {
                let what = format!("a line of a file of examples has more than {MOST_BYTES} bytes");
                return Err(here(Error::input(what).expected("one JSON object a line")));
            }
            hash.update(&line);
            look(&line).map_err(here)?;
            lines.push(Line { number, at, len: line.len() as u32, crc: crc32fast::hash(&line) });
            at += read as u64;
        }
        drop(reader);
        let sha256 = Digest::from(<[u8; 32]>::from(hash.finalize()));
        Ok((Self { path: path.to_owned(), file: Mutex::new(file), sha256 }, lines))
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of a line.
    ///
    /// # Errors
    /// A file that is no longer what it was; class `Input`.
    pub(super) fn read(&self, line: Line) -> Result<Vec<u8>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; line.len as usize];
        let read = file.seek(SeekFrom::Start(line.at)).and_then(|_| file.read_exact(&mut bytes));
        let changed = || {
            Error::input("a file of examples was replaced while it was in use")
                .file(&self.path)
                .line(line.number)
                .help("bring back the file that was there")
        };
        read.map_err(|error| changed().because(error))?;
        if crc32fast::hash(&bytes) == line.crc { Ok(bytes) } else { Err(changed()) }
    }
}
