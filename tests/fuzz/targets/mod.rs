//! The readers.

mod checkpoints;
mod data;
mod foreign;
mod gate;
mod manifest;
mod parity;
mod records;
mod tasks;
mod tensors;

use nanorun::internals::error::{Class, Error};

use super::harness::Verdict;

/// What a reader answered: an error must be the input's, and name `file`.
fn judged<T>(answer: Result<T, impl Into<Error>>, file: &str) -> Result<Verdict, String> {
    match answer {
        Ok(_) => Ok(Verdict::Accepted),
        Err(error) => {
            let error = error.into();
            if error.class() == Class::Internal {
                return Err(format!("bad input is taken for a defect: {error}"));
            }
            if !error.to_string().contains(file) {
                return Err(format!("the error does not name {file}: {error}"));
            }
            Ok(Verdict::Refused)
        }
    }
}

/// What numbers, strings and lists of JSON can be instead.
const NUMBER_WORDS: [&[u8]; 4] = [b"null", b"true", b"{}", b"[[[[[[[[[[[[[[[[[[[["];

/// Words of a parquet file's footer.
const PARQUET_WORDS: &[&[u8]] = &[
    b"PAR1",
    b"\x15\x00",
    b"\x15\x02",
    b"\x15\x04",
    b"\x15\x06",
    b"\x19\xfc",
    b"text",
    b"schema",
    b"\x00\x00",
];
