//! Text files and JSON lines, read as a stream: one pass finds where the groups of documents begin, then each group is
//! read from there. Nothing of a file is held but the group that is asked for.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::config::{DocumentSplit, Nulls};
use super::json_lines::{self, Field};
use super::shard_kind::{Compressed, backticked, head, looks_like};
use super::unpack;
use crate::error::{Error, Result};

/// Documents of a group: text has no row groups of its own, so it is dealt out in groups of this many. A multiple
/// of the tokenizer batch, so that batches are what they would be without groups.
const GROUP_DOCUMENTS: usize = 1024;

/// The byte-order mark of UTF-8. It is no part of the text.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// How a file divides into documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Division {
    /// Plain text.
    Text(DocumentSplit),
    /// The field of this name in the object of each line, and what becomes of lines without it.
    JsonLines(String, Nulls),
}

/// Where the groups of a file begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    /// Groups, none of them empty.
    pub(super) groups: Vec<Begin>,
    /// Documents in all.
    pub(super) documents: u64,
    /// UTF-8 bytes of all documents.
    pub(super) bytes: u64,
}

/// Where a group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    /// Bytes before it, unpacked.
    at: u64,
    /// Lines before it.
    line: u64,
}

/// A file whose groups are known.
pub(super) struct TextShard {
    path: PathBuf,
    compressed: Compressed,
    division: Division,
    index: Arc<Index>,
    /// The group that comes next in an open stream.
    open: Mutex<Option<(usize, Documents)>>,
}

impl TextShard {
    pub(super) fn new(path: &Path, compressed: Compressed, division: Division, index: Arc<Index>) -> Self {
        Self { path: path.to_owned(), compressed, division, index, open: Mutex::new(None) }
    }

    /// The documents of a group; reading groups one after the other reads the file once.
    pub(super) fn read(&self, group: usize) -> Result<Vec<String>> {
        let Some(begin) = self.index.groups.get(group) else {
            return Err(Error::internal(format!("group {group} is beyond the file's end")).file(&self.path));
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut documents = match open.take() {
            // An unpacked stream cannot go back, and need not leave out what it can read past.
            Some((next, documents)) if next == group => documents,
            _ => Documents::open(&self.path, self.compressed, self.division.clone(), *begin)?,
        };
        let wanted = self.index.group_len(group);
        let mut texts = Vec::with_capacity(wanted);
        while texts.len() < wanted {
            let Some(text) = documents.next_document()? else {
                return Err(Error::input("a shard ends before its last document").file(&self.path));
            };
            texts.push(text);
        }
        *open = Some((group + 1, documents));
        Ok(texts)
    }
}

impl Index {
    /// Reads a file once, from beginning to end.
    ///
    /// # Errors
    /// Whatever of it is no document: text that is not UTF-8, a line that is not JSON, a null that nobody allows; a
    /// file without documents.
    pub(super) fn build(path: &Path, compressed: Compressed, division: Division) -> Result<Self> {
        let mut reader = Documents::open(path, compressed, division, Begin { at: 0, line: 0 })?;
        let mut index = Self { groups: Vec::new(), documents: 0, bytes: 0 };
        loop {
            let begin = reader.place();
            let Some(text) = reader.next_document()? else { break };
            if index.documents.is_multiple_of(GROUP_DOCUMENTS as u64) {
                index.groups.push(begin);
            }
            index.documents += 1;
            index.bytes += text.len() as u64;
        }
        if index.documents == 0 {
            return Err(Error::input("a text file holds no documents")
                .file(path)
                .expected("text other than white space"));
        }
        Ok(index)
    }

    /// Documents of a group.
    pub(super) fn group_len(&self, group: usize) -> usize {
        let before = (group as u64).saturating_mul(GROUP_DOCUMENTS as u64);
        self.documents.saturating_sub(before).min(GROUP_DOCUMENTS as u64) as usize
    }

    /// The form that [`Index::from_bytes`] reads: numbers of eight bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let groups = self.groups.iter().flat_map(|begin| [begin.at, begin.line]);
        [self.documents, self.bytes].into_iter().chain(groups).flat_map(u64::to_le_bytes).collect()
    }

    /// The index in these bytes; none where it is not whole.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else { return None };
        let mut numbers = numbers.iter().map(|&number| u64::from_le_bytes(number));
        let (documents, bytes) = (numbers.next()?, numbers.next()?);
        let mut groups = Vec::new();
        while let Some(at) = numbers.next() {
            groups.push(Begin { at, line: numbers.next()? });
        }
        let whole = groups.len() as u64 == documents.div_ceil(GROUP_DOCUMENTS as u64);
        whole.then_some(Self { groups, documents, bytes })
    }
}

/// Whether a file begins with a byte-order mark.
pub(super) fn has_mark(path: &Path, compressed: Compressed) -> bool {
    let first = unpack::open(path, compressed).and_then(|mut file| Ok(file.fill_buf()?.starts_with(BOM)));
    first.unwrap_or(false)
}

/// The documents of a file, one after the other.
struct Documents {
    path: PathBuf,
    source: Box<dyn BufRead + Send>,
    compressed: Compressed,
    division: Division,
    /// Bytes and lines read.
    at: u64,
    line: u64,
    buffer: Vec<u8>,
}

impl Documents {
    fn open(path: &Path, compressed: Compressed, division: Division, begin: Begin) -> Result<Self> {
        let source = match compressed {
            Compressed::No => unpack::open_at(path, begin.at),
            _ => unpack::open(path, compressed),
        };
        let source = source.map_err(|error| Error::input("cannot open a shard").file(path).because(error))?;
        let mut this = Self {
            path: path.to_owned(),
            source,
            compressed,
            division,
            at: begin.at,
            line: begin.line,
            buffer: Vec::new(),
        };
        if compressed != Compressed::No {
            this.skip(begin.at)?;
        }
        Ok(this)
    }

    /// Unpacks so many bytes and drops them.
    fn skip(&mut self, mut left: u64) -> Result<()> {
        while left > 0 {
            let here = self.source.fill_buf().map(<[u8]>::len);
            let here = here.map_err(|error| self.unreadable(error))?;
            if here == 0 {
                return Err(Error::input("a shard ends before its last document").file(&self.path));
            }
            let now = left.min(here as u64);
            self.source.consume(now as usize);
            left -= now;
        }
        Ok(())
    }

    fn place(&self) -> Begin {
        Begin { at: self.at, line: self.line }
    }

    /// The next document; none at the end.
    fn next_document(&mut self) -> Result<Option<String>> {
        match &self.division {
            Division::Text(DocumentSplit::Line) => loop {
                let Some(line) = self.next_line()? else { return Ok(None) };
                let line = line.trim();
                if !line.is_empty() {
                    return Ok(Some(line.to_owned()));
                }
            },
            Division::Text(DocumentSplit::Block) => {
                let mut block = String::new();
                while let Some(line) = self.next_line()? {
                    if !line.trim().is_empty() {
                        if !block.is_empty() {
                            block.push('\n');
                        }
                        block.push_str(line);
                    } else if !block.is_empty() {
                        break;
                    }
                }
                Ok((!block.is_empty()).then_some(block))
            }
            Division::JsonLines(column, nulls) => {
                let (column, nulls) = (column.clone(), *nulls);
                loop {
                    let Some(line) = self.next_line()? else { return Ok(None) };
                    if line.trim().is_empty() {
                        continue;
                    }
                    match json_lines::field(line, &column) {
                        Ok(Field::Text(text)) => return Ok(Some(text)),
                        Ok(Field::Null | Field::Absent) if nulls == Nulls::Skip => {}
                        other => {
                            let line = line.to_owned();
                            return Err(self.no_text(&line, &column, other));
                        }
                    }
                }
            }
        }
    }

    /// The next line without what ends it; none at the end of the file.
    fn next_line(&mut self) -> Result<Option<&str>> {
        self.buffer.clear();
        let first = self.at == 0;
        let read = self.source.read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|error| self.unreadable(error))?;
        if read == 0 {
            return Ok(None);
        }
        self.at += read as u64;
        self.line += 1;
        let mut line = &*self.buffer;
        if first {
            line = line.strip_prefix(BOM).unwrap_or(line);
        }
        if let Some(rest) = line.strip_suffix(b"\n") {
            line = rest.strip_suffix(b"\r").unwrap_or(rest);
        }
        match std::str::from_utf8(line) {
            Ok(line) => Ok(Some(line)),
            Err(_) => Err(not_utf8(&self.path, self.line, first.then_some(line))),
        }
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        use std::io::ErrorKind;
        let bad = |what: &str| Error::input(what).file(&self.path);
        match (self.compressed, error.kind()) {
            (Compressed::No, _) => bad("cannot read a shard").because(error),
            (_, ErrorKind::UnexpectedEof) => bad("a compressed shard is cut short").help("download it again"),
            _ => {
                let head = head(&self.path);
                let found = looks_like(&head).filter(|kind| !matches!(*kind, "gzip" | "zstd"));
                let error = bad("a compressed shard does not unpack").because(error);
                match found {
                    Some(kind) => {
                        error.expected(format!("what its name says; by its first bytes it is {kind}"))
                    }
                    None => error.help("it is damaged, or not what its name says"),
                }
            }
        }
    }

    /// The error of a line that gives no text.
    fn no_text(&self, line: &str, column: &str, found: std::result::Result<Field, String>) -> Error {
        let bad = |what: String| {
            let number = usize::try_from(self.line).unwrap_or(usize::MAX);
            Error::input(what).file(&self.path).line(number)
        };
        match found {
            Ok(Field::Other(what)) => bad(format!("field `{column}` of a line holds {what}"))
                .expected(format!("a field `{column}` that holds a string")),
            Ok(Field::Null) => bad(format!("field `{column}` of a line is null"))
                .expected("a string in every line")
                .help("`data.nulls = \"skip\"` passes over such lines"),
            Ok(_) => {
                let names = json_lines::names(line);
                bad(format!("a line has no field `{column}`, only {}", backticked(&names)))
                    .expected(format!("a field `{column}` that holds a string"))
                    .help(
                        "name the field that holds the texts with data.column; `data.nulls = \"skip\"` passes over \
                         lines without it",
                    )
            }
            Err(_) if line.trim_start().starts_with('[') => bad("a JSON array is not JSON lines".to_owned())
                .expected("one object a line")
                .help("write one object a line: jq -c '.[]' FILE.json > FILE.jsonl"),
            Err(why) => bad("a line is not one JSON object".to_owned())
                .because(why)
                .expected(format!("{{\"{column}\": \"...\"}}, one object a line"))
                .help("a file of plain text is named .txt"),
        }
    }
}

/// The error of text that is not UTF-8, named for what it is where its first bytes say so.
fn not_utf8(path: &Path, line: u64, first: Option<&[u8]>) -> Error {
    let error = Error::input("a text file is not UTF-8").file(path);
    let error = error.line(usize::try_from(line).unwrap_or(usize::MAX));
    let kind = if first.is_some() || line < 3 { looks_like(&head(path)) } else { None };
    match kind {
        Some(kind @ ("UTF-16" | "UTF-32")) => error
            .expected(format!("UTF-8 text; it begins with the byte-order mark of {kind}"))
            .help(format!("convert it: iconv -f {kind} -t UTF-8 FILE > FILE.txt")),
        Some(kind @ ("gzip" | "zstd")) => {
            let end = if kind == "gzip" { ".gz" } else { ".zst" };
            error.expected(format!("UTF-8 text; it is {kind}")).help(format!("name it with {end} at the end"))
        }
        Some("parquet") => error.expected("UTF-8 text; it is parquet").help("name it .parquet"),
        Some(kind) if kind != "JSON" && kind != "a JSON array" => {
            error.expected(format!("UTF-8 text; it is {kind}"))
        }
        _ => error.expected("UTF-8 text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divide(text: &[u8], division: Division) -> Result<Vec<String>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let begin = Begin { at: 0, line: 0 };
        let mut documents = Documents::open(file.path(), Compressed::No, division, begin)?;
        let mut all = Vec::new();
        while let Some(document) = documents.next_document()? {
            all.push(document);
        }
        Ok(all)
    }

    #[test]
    fn lines_and_blocks() {
        let text = b"anna\r\n  bob \n\n \ncarl\ndora\r";
        assert_eq!(
            divide(text, Division::Text(DocumentSplit::Line)).unwrap(),
            ["anna", "bob", "carl", "dora"]
        );
        // A carriage return that no line feed follows is part of the text.
        assert_eq!(
            divide(text, Division::Text(DocumentSplit::Block)).unwrap(),
            ["anna\n  bob ", "carl\ndora\r"]
        );
        assert!(divide(b" \n\t\n", Division::Text(DocumentSplit::Block)).unwrap().is_empty());
        assert_eq!(
            divide(b"\xef\xbb\xbfa\n\xef\xbb\xbfb", Division::Text(DocumentSplit::Line)).unwrap(),
            ["a", "\u{feff}b"]
        );
    }

    #[test]
    fn an_index_comes_back() {
        let groups = vec![Begin { at: 0, line: 0 }, Begin { at: 5000, line: 1030 }];
        let index = Index { groups, documents: 1030, bytes: 4000 };
        let bytes = index.to_bytes();
        assert_eq!(Index::from_bytes(&bytes), Some(index.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(Index::from_bytes(&bytes[..cut]), None);
        }
        assert_eq!([0, 1, 2].map(|group| index.group_len(group)), [1024, 6, 0]);
    }

    #[test]
    fn any_group_can_be_read_from_any_packing() {
        let directory = tempfile::tempdir().unwrap();
        let texts: Vec<String> = (0..3000).map(|number| format!("document {number}")).collect();
        let plain = texts.join("\r\n\r\n").into_bytes();
        let gzip = |bytes: &[u8]| {
            use std::io::Write as _;
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        // Members and frames that follow each other are one file, wherever they are cut.
        let (front, back) = plain.split_at(20_001);
        let files = [
            (Compressed::No, plain.clone()),
            (Compressed::Gzip, [gzip(front), gzip(back)].concat()),
            (Compressed::Zstd, [zstd(front), zstd(back)].concat()),
        ];
        for (compressed, bytes) in files {
            let path = directory.path().join("shard");
            std::fs::write(&path, &bytes).unwrap();
            let division = Division::Text(DocumentSplit::Block);
            let index = Arc::new(Index::build(&path, compressed, division.clone()).unwrap());
            assert_eq!((index.documents, index.groups.len()), (3000, 3));
            assert_eq!(index.bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
            let shard = TextShard::new(&path, compressed, division.clone(), index);
            for group in [2, 0, 1, 2, 1] {
                let end = texts.len().min((group + 1) * GROUP_DOCUMENTS);
                assert_eq!(shard.read(group).unwrap(), texts[group * GROUP_DOCUMENTS..end]);
            }
            // Cut anywhere it is refused by name, but for plain text, which has no end of its own.
            for cut in [bytes.len() - 1, bytes.len() / 2, 30] {
                std::fs::write(&path, &bytes[..cut]).unwrap();
                let refused = Index::build(&path, compressed, division.clone());
                match compressed {
                    Compressed::No => assert!(refused.is_ok()),
                    _ => assert!(
                        refused.unwrap_err().to_string().contains("cut short"),
                        "{compressed:?} {cut}"
                    ),
                }
            }
        }
    }
}
