//! Sampling: a prompt is fed once, then token by token with cached keys and values.

mod prefix;
pub mod sampler;

pub use prefix::{AT_ONCE, Draw, Prefix};
pub use sampler::Sampling;

use crate::error::{Error, Result};
use crate::rng::SplitMix64;
use crate::train::engine::Engine;

/// One sequence being decoded.
pub trait Decoder {
    /// Tokens it can be fed in all.
    fn context_len(&self) -> usize;
    /// Starts a new sequence with a prompt; logits (V) after its last token.
    ///
    /// # Errors
    /// An empty prompt, or one longer than the context; class `Input`.
    fn prefill(&mut self, tokens: &[i32]) -> Result<Vec<f32>>;
    /// Feeds one more token; logits (V) after it.
    ///
    /// # Errors
    /// A token beyond the context; class `Run`.
    fn step(&mut self, token: i32) -> Result<Vec<f32>>;
}

/// Decodes with the current weights of an engine.
pub struct EngineDecoder<'a> {
    engine: &'a mut dyn Engine,
    context_len: usize,
    fed: usize,
}

impl<'a> EngineDecoder<'a> {
    /// A decoder with room for `context_len` tokens.
    pub fn new(engine: &'a mut dyn Engine, context_len: usize) -> Self {
        Self { engine, context_len, fed: 0 }
    }
}

impl Decoder for EngineDecoder<'_> {
    fn context_len(&self) -> usize {
        self.context_len
    }

    fn prefill(&mut self, tokens: &[i32]) -> Result<Vec<f32>> {
        check_prompt(tokens.len(), self.context_len)?;
        self.engine.start_decoding(self.context_len)?;
        self.fed = tokens.len();
        self.engine.decode(tokens)
    }

    fn step(&mut self, token: i32) -> Result<Vec<f32>> {
        if self.fed == 0 {
            return Err(Error::internal("a token was decoded before a prompt"));
        }
        if self.fed >= self.context_len {
            return Err(Error::run(format!("the key/value cache is full: {} tokens", self.context_len))
                .help("ask for fewer tokens, or give a shorter prompt"));
        }
        self.fed += 1;
        self.engine.decode(&[token])
    }
}

fn check_prompt(len: usize, context_len: usize) -> Result<()> {
    if len == 0 {
        return Err(Error::input("the prompt is empty")
            .expected("at least one token")
            .help("a prompt of the beginning-of-sequence token alone starts a new document"));
    }
    if len > context_len {
        return Err(Error::input(format!("the prompt has {len} tokens, the context {context_len}"))
            .expected(format!("at most {context_len} tokens"))
            .help("shorten the prompt"));
    }
    Ok(())
}

/// Generates up to `max_tokens` tokens after `prompt`; ends before `stop` or when the context is full.
///
/// The last token that fits is generated but not fed: a context of n tokens gives up to `n + 1 - prompt` new ones.
///
/// # Errors
/// What [`Decoder::prefill`], [`Decoder::step`] and [`Sampling::choose`] report.
pub fn generate(
    decoder: &mut dyn Decoder,
    prompt: &[i32],
    max_tokens: usize,
    stop: Option<i32>,
    sampling: &Sampling,
    rng: &mut SplitMix64,
) -> Result<Vec<i32>> {
    sampling.validate()?;
    let mut logits = decoder.prefill(prompt)?;
    let mut tokens = Vec::new();
    while tokens.len() < max_tokens {
        let token = sampling.choose(&logits, rng)? as i32;
        if Some(token) == stop {
            break;
        }
        tokens.push(token);
        if tokens.len() == max_tokens || prompt.len() + tokens.len() > decoder.context_len() {
            break;
        }
        logits = decoder.step(token)?;
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests;
