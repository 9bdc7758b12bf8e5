//! Files of other programs: torch's, upstream's metadata, tokenizers.

use std::fs;

use nanorun::internals::error::Error;
use nanorun::internals::interop::tokenizers;
use nanorun::internals::interop::upstream::{Meta, Weights};
use nanorun::internals::pickle::Node;
use nanorun::internals::torch_file::TorchFile;

use super::judged;
use crate::harness::{Target, Verdict, scratch};
use crate::seeds;

/// Words of archives and of the pickles in them.
const TORCH_WORDS: &[&[u8]] = &[
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x06\x07",
    b"\xff\xff\xff\xff",
    b"\x01\x00\x10\x00",
    b"ctorch\nBFloat16Storage\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ccollections\nOrderedDict\n",
    b"cos\nsystem\n",
    b"J\xff\xff\xff\x7f",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
];

/// Every tensor of a file that is a dict, and its values.
fn read_tensors(file: &mut TorchFile) -> Result<(), Error> {
    let Node::Dict(items) = file.pickle().root().clone() else { return Ok(()) };
    for (_, value) in items {
        let tensor = file.tensor("fuzzed", value)?;
        file.f32(&tensor)?;
    }
    Ok(())
}

#[test]
fn torch_file() {
    let place = scratch();
    let path = place.path().join("fuzzed.pt");
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        judged(TorchFile::open(&path).and_then(|mut file| read_tensors(&mut file)), "fuzzed.pt")
    };
    let seeds = ["types", "views"].map(|name| seeds::file(&format!("tests/fixtures/torch_files/{name}.pt")));
    Target::new("torch_file", seeds.to_vec(), TORCH_WORDS, &read).run();
}

/// The pickle alone is mutated; its checksum is made right, so that more than the archive's reader is reached.
#[test]
fn torch_pickle() {
    let place = scratch();
    let path = place.path().join("fuzzed.pt");
    let whole = seeds::file("tests/fixtures/torch_files/views.pt");
    let at = |bytes: &[u8], from: usize| {
        whole[from..].windows(bytes.len()).position(|window| window == bytes).unwrap() + from
    };
    let start = at(b"\x80\x02", 0);
    let end = at(b"PK\x07\x08", start);
    let directory = at(b"PK\x01\x02", end);
    let read = |pickle: &[u8]| {
        // Of the same length, so that nothing else moves.
        let mut pickle = pickle.to_vec();
        pickle.resize(end - start, b'.');
        let mut file = whole.clone();
        file[start..end].copy_from_slice(&pickle);
        let mut crc = flate2::Crc::new();
        crc.update(&pickle);
        file[directory + 16..directory + 20].copy_from_slice(&crc.sum().to_le_bytes());
        fs::write(&path, file).unwrap();
        judged(TorchFile::open(&path).and_then(|mut file| read_tensors(&mut file)), "fuzzed.pt")?;
        judged(Weights::open(&path), "fuzzed.pt")
    };
    Target::new("torch_pickle", vec![whole[start..end].to_vec()], TORCH_WORDS, &read).run();
}

#[test]
fn upstream_meta() {
    let place = scratch();
    let path = place.path().join("fuzzed.json");
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        judged(Meta::read(&path), "fuzzed.json")
    };
    let seed = seeds::file("tests/fixtures/nanochat_base/base_checkpoints/tiny/meta_000500.json");
    Target::new("upstream_meta", vec![seed], &[b"NaN", b"-Infinity", b"null", b"{", b"-1", b"1e999"], &read)
        .run();
}

#[test]
fn foreign_tokenizers() {
    let place = scratch();
    let paths = [place.path().join("fuzzed.json"), place.path().join("fuzzed.tiktoken")];
    let read = |input: &[u8]| {
        let mut verdict = Verdict::Refused;
        for path in &paths {
            fs::write(path, input).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            if judged(tokenizers::load(path), name)? == Verdict::Accepted {
                verdict = Verdict::Accepted;
            }
        }
        Ok(verdict)
    };
    let tokenizer = tokenizers::load(&seeds::path("tests/fixtures/data/tokenizer_300")).unwrap();
    let seeds = [tokenizers::Form::Json, tokenizers::Form::Ranks]
        .map(|form| tokenizers::bytes(&tokenizer, form).unwrap())
        .to_vec();
    Target::new("foreign_tokenizers", seeds, &[b"\"id\":", b"\"merges\":", b"null", b"==", b" 0\n"], &read)
        .run();
}
