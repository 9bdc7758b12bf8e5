//! Tensor files.

use nanorun::internals::tensors::{read_safetensors, write_safetensors};

use crate::harness::{Target, Verdict};
use crate::seeds;

/// Words of a header.
pub(super) const TENSOR_WORDS: &[&[u8]] = &[
    b"\"dtype\":\"F32\"",
    b"\"dtype\":\"F64\"",
    b"\"dtype\":\"I32\"",
    b"\"dtype\":\"BF16\"",
    b"\"shape\":[]",
    b"\"shape\":[18446744073709551615,2]",
    b"\"data_offsets\":[0,0]",
    b"\"data_offsets\":[0,18446744073709551615]",
    b"__metadata__",
    b",",
    b"{",
    b"}",
    b"[[[[[[[[[[[[[[[[[[[[[",
    b" ",
];

/// Reads tensors; what was accepted is written and read again.
fn read_tensors(input: &[u8]) -> Result<Verdict, String> {
    let Ok(tensors) = read_safetensors(input) else { return Ok(Verdict::Refused) };
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, &tensors).map_err(|error| format!("accepted, but {error}"))?;
    match read_safetensors(&bytes) {
        Ok(again) if again == tensors => Ok(Verdict::Accepted),
        Ok(again) => Err(format!("accepted, but once written {tensors:?} is {again:?}")),
        Err(error) => Err(format!("accepted, but not once written: {error}")),
    }
}

#[test]
fn safetensors() {
    Target::new("safetensors", seeds::tensors(), TENSOR_WORDS, &read_tensors).run();
}

/// The header alone is mutated; its length and the data behind it are made to fit.
#[test]
fn safetensors_header() {
    let read = |header: &[u8]| {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        file.extend_from_slice(&[0; 32]);
        read_tensors(&file)
    };
    let file = &seeds::tensors()[2];
    let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header = file[8..8 + len].to_vec();
    Target::new("safetensors_header", vec![header], TENSOR_WORDS, &read).run();
}
