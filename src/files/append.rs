//! Lines at the end of a file, each of them whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::error::{FileError, FileResult};
use super::faults::Step;
use super::raw::RawFile;
use super::seam::Files;
use super::trouble::reopened;

impl Files {
    /// Appends one line (given without its newline) and syncs it. A line that an earlier crash left without its
    /// end is cut off first, so that every line of the file is whole.
    pub fn append_line(&self, path: &Path, line: &str) -> FileResult<()> {
        let error = |error| FileError::new("append to", path, error);
        self.check(Step::Create, path).map_err(error)?;
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = reopened(open).map_err(error)?;
        let length = file.metadata().map_err(error)?.len();
        let whole = whole_lines(&mut file, length).map_err(error)?;
        if whole < length {
            self.check(Step::Truncate(whole), path).map_err(error)?;
            file.set_len(whole).map_err(error)?;
        }
        file.seek(SeekFrom::Start(whole)).map_err(error)?;
        let mut raw = RawFile { files: self.clone(), file, path: path.to_owned() };
        raw.write_all(format!("{line}\n").as_bytes()).map_err(error)?;
        raw.sync().map_err(error)?;
        if length == 0 { self.sync_parent(path) } else { Ok(()) }
    }
}

/// How many bytes of the file belong to lines that have their newline.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut block = [0_u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
