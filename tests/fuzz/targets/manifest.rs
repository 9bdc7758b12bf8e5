//! Manifests, up to their plan.

use std::fs;

use nanorun::internals::error::Error;
use nanorun::internals::hash::Digest;
use nanorun::internals::manifest::settings::Budget;
use nanorun::internals::manifest::{Manifest, Options, with_pins};
use nanorun::internals::plan::run_config::{DataConfig, TokenizerChoice};
use nanorun::internals::plan::{DataFacts, Facts, plan};

use super::judged;
use crate::harness::{Target, Verdict, scratch};
use crate::seeds;

/// Data that suit any manifest.
struct Plenty;

impl Facts for Plenty {
    fn data(&self, data: &DataConfig) -> Result<DataFacts, Error> {
        let vocab_size = match data.tokenizer {
            TokenizerChoice::Train { vocab_size } => Some(vocab_size),
            TokenizerChoice::Char => Some(27),
            TokenizerChoice::Path(_) => None,
        };
        Ok(DataFacts { vocab_size, content: Some(Digest::of(b"content")), splits: None })
    }

    fn init_file(&self, path: &str) -> Result<Digest, Error> {
        Ok(Digest::of(path.as_bytes()))
    }
}

#[test]
fn manifest() {
    let place = scratch();
    let path = place.path().join("fuzzed.toml");
    let env = vec![("HOME".to_owned(), "/home/someone".to_owned())];
    let options = Options { env, ..Options::default() };
    let read = |input: &[u8]| {
        fs::write(&path, input).unwrap();
        let manifest = match Manifest::load(&path, &options) {
            Ok(manifest) => manifest,
            refused => return judged(refused, "fuzzed.toml"),
        };
        let pins = [("shard 1.parquet".to_owned(), Digest::of(b"").to_string())];
        match with_pins(&path, &manifest.text, &pins) {
            Ok(pinned) => {
                if with_pins(&path, &pinned, &pins).ok() != Some(pinned) {
                    return Err("pinning twice is not pinning once".to_owned());
                }
            }
            refused => {
                judged(refused, "fuzzed.toml")?;
            }
        }
        // Keys are made step by step; a plan of millions of them takes its time by right.
        let small = manifest.cells.iter().all(|cell| match cell.settings.budget {
            Budget::Steps(steps) => steps <= 5000,
            Budget::Tokens(tokens) => tokens <= 5000,
            Budget::Flops(_) | Budget::ParamDataRatio(_) => false,
        });
        if small && manifest.cells.len() <= 64 {
            judged(plan(&manifest, &Plenty), "")
        } else {
            Ok(Verdict::Accepted)
        }
    };
    let words: &[&[u8]] = &[
        b"[matrix]\n",
        b"\n[[matrix.zip]]\n",
        b"\n[[matrix.exclude]]\n",
        b"\n[[matrix.include]]\n",
        b"\n[profile.x]\n",
        b"\n[data.sha256]\nx = \"00\"\n",
        b"\n[optimizer]\n",
        b"model.kind = \"bigram\"\n",
        b"\"run.seed\" = [1, 2]\n",
        b"window_pattern = \"SSSL\"\n",
        b"steps = 1\n",
        b"false",
        b"true",
        b"inf",
        b"nan",
        b"[]",
        b"{}",
        b"\"",
        b"'''",
        b"[[[[[[[[[[[[[[[[",
        b"a.b.c.d = 1\n",
        b"1979-05-27T07:32:00Z",
    ];
    Target::new("manifest", seeds::manifests(), words, &read).run();
}
