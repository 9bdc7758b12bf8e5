//! Text files: documents are blank-line separated blocks, or lines.

use std::path::Path;

use super::config::DocumentSplit;
use crate::error::{Error, Result};

/// Documents of a group: text has no row groups of its own, so it is dealt out in groups of this many. A multiple
/// of the tokenizer batch, so that batches are what they would be without groups.
const GROUP_DOCUMENTS: usize = 1024;

/// A text file, read whole.
pub(super) struct TextShard {
    documents: Vec<String>,
}

impl TextShard {
    /// Reads the file and divides it.
    pub(super) fn open(path: &Path, split: DocumentSplit) -> Result<Self> {
        let bytes = std::fs::read(path)
            .map_err(|error| Error::input("cannot read a text file").file(path).because(error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes().iter().take(valid).filter(|&&byte| byte == b'\n').count() + 1;
            Error::input("a text file is not UTF-8").file(path).line(line).expected("UTF-8 text")
        })?;
        let documents = divide(&text, split);
        if documents.is_empty() {
            return Err(Error::input("a text file holds no documents")
                .file(path)
                .expected("text other than white space"));
        }
        Ok(Self { documents })
    }

    pub(super) fn groups(&self) -> usize {
        self.documents.len().div_ceil(GROUP_DOCUMENTS)
    }

    pub(super) fn group_len(&self, group: usize) -> usize {
        self.group(group).len()
    }

    pub(super) fn read(&self, group: usize) -> Vec<String> {
        self.group(group).to_vec()
    }

    fn group(&self, group: usize) -> &[String] {
        self.documents.chunks(GROUP_DOCUMENTS).nth(group).unwrap_or_default()
    }
}

/// The documents of `text`: trimmed lines, or blocks of lines between blank ones; empty ones are none.
fn divide(text: &str, split: DocumentSplit) -> Vec<String> {
    match split {
        DocumentSplit::Line => {
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
        }
        DocumentSplit::Block => {
            let mut documents = Vec::new();
            let mut block = String::new();
            for line in text.lines().chain([""]) {
                if !line.trim().is_empty() {
                    if !block.is_empty() {
                        block.push('\n');
                    }
                    block.push_str(line);
                } else if !block.is_empty() {
                    documents.push(std::mem::take(&mut block));
                }
            }
            documents
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_blocks() {
        let text = "anna\r\n  bob \n\n \ncarl\ndora";
        assert_eq!(divide(text, DocumentSplit::Line), ["anna", "bob", "carl", "dora"]);
        assert_eq!(divide(text, DocumentSplit::Block), ["anna\n  bob ", "carl\ndora"]);
        assert!(divide(" \n\t\n", DocumentSplit::Block).is_empty());
    }
}
