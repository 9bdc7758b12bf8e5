//! Text from a run's weights: for `samples.txt` at its end, and for `nanorun sample`.

use std::fmt::Write as _;

use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::generate::{EngineDecoder, Sampling, generate};
use crate::plan::run_config::RunConfig;
use crate::rng::SplitMix64;
use crate::train::engine::Engine;

/// What `samples.txt` begins with; a prompt that the tokenizer or the context has no room for is left out.
const PROMPTS: [&str; 3] = ["", "The ", "I "];
/// Tokens of each of its samples.
const TOKENS: usize = 32;

/// The continuation of `prompt`, without it; an empty prompt begins a document.
///
/// # Errors
/// A prompt longer than the context or with characters that the tokenizer does not know (class `Input`); weights
/// that give no numbers (class `Run`).
pub fn continuation(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    context_len: usize,
    prompt: &str,
    max_tokens: usize,
    sampling: &Sampling,
    rng: &mut SplitMix64,
) -> Result<String> {
    let mut ids = vec![tokenizer.bos() as i32];
    ids.extend(tokenizer.encode(prompt)?.into_iter().map(|id| id as i32));
    let stop = Some(tokenizer.bos() as i32);
    let mut decoder = EngineDecoder::new(engine, context_len);
    let new = generate(&mut decoder, &ids, max_tokens, stop, sampling, rng)?;
    Ok(tokenizer.decode(&new.into_iter().map(|id| id as u32).collect::<Vec<_>>()))
}

/// The ids of a prompt, with BOS before it.
///
/// # Errors
/// Characters that the tokenizer does not know; class `Input`.
pub fn prompt_ids(tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<i32>> {
    let mut ids = vec![tokenizer.bos() as i32];
    ids.extend(tokenizer.encode(prompt)?.into_iter().map(|id| id as i32));
    Ok(ids)
}

/// The tokens before which a continuation ends: where another document begins, and where upstream's chat models end a
/// turn.
pub fn stops(tokenizer: &Tokenizer) -> Vec<i32> {
    let end = tokenizer.special("<|assistant_end|>");
    std::iter::once(tokenizer.bos()).chain(end).map(|id| id as i32).collect()
}

/// Text from tokens as they come: bytes that are not yet a whole character wait for the rest of it.
#[derive(Debug, Default)]
pub struct TextStream {
    waiting: Vec<u8>,
}

impl TextStream {
    /// Takes a token and gives the text that is whole now, with U+FFFD for what can be none.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: i32) -> String {
        self.waiting.extend(u32::try_from(token).ok().and_then(|id| tokenizer.token(id)).unwrap_or_default());
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.waiting) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.waiting.clear();
                    return text;
                }
                Err(error) => {
                    let (whole, rest) = self.waiting.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(whole));
                    let Some(bad) = error.error_len() else {
                        self.waiting = rest.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.waiting = rest.get(bad..).unwrap_or_default().to_vec();
                }
            }
        }
    }

    /// The text of what still waits.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.waiting).into_owned()
    }
}

/// A few samples from fixed prompts, equal for equal weights and seeds.
///
/// # Errors
/// Weights that give no numbers.
pub fn at_the_end(engine: &mut dyn Engine, tokenizer: &Tokenizer, config: &RunConfig) -> Result<String> {
    let context_len = config.model.sequence_len();
    let mut text = String::new();
    for prompt in PROMPTS {
        for sampling in [Sampling::GREEDY, Sampling { temperature: 0.8, top_k: Some(50) }] {
            let mut rng = SplitMix64::new(config.seed);
            let drawn = continuation(engine, tokenizer, context_len, prompt, TOKENS, &sampling, &mut rng);
            match drawn {
                Ok(drawn) => {
                    let _ = writeln!(text, "--- prompt {prompt:?}, temperature {}", sampling.temperature);
                    let _ = writeln!(text, "{prompt}{drawn}\n");
                }
                Err(error) if is_about_the_prompt(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(text)
}

fn is_about_the_prompt(error: &Error) -> bool {
    error.class() == crate::error::Class::Input
}
