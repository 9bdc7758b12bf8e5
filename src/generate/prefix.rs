//! Many continuations of one prompt, which is fed once.

use super::{Sampling, SplitMix64, check_prompt};
use crate::error::Result;
use crate::train::engine::Engine;

/// A prompt that an engine was fed, and what may come after it.
pub struct Prefix<'a> {
    engine: &'a mut dyn Engine,
    context_len: usize,
    prompt_len: usize,
    logits: Vec<f32>,
    /// Whether the engine has gone on from the prompt's end.
    moved: bool,
}

impl<'a> Prefix<'a> {
    /// Feeds a prompt, for up to `continuations` of it in a context of `context_len` tokens, none of which will be
    /// longer than `max_tokens`.
    ///
    /// # Errors
    /// An empty prompt, or one longer than the context (class `Input`); what the engine reports.
    pub fn feed(
        engine: &'a mut dyn Engine,
        prompt: &[i32],
        context_len: usize,
        max_tokens: usize,
        continuations: usize,
    ) -> Result<Self> {
        check_prompt(prompt.len(), context_len)?;
        // The last token that is generated is not fed.
        let capacity = context_len.min(prompt.len().saturating_add(max_tokens.saturating_sub(1)));
        engine.start_decoding(capacity)?;
        let logits = engine.decode(prompt)?;
        if continuations > 1 {
            engine.mark_decoding()?;
        }
        Ok(Self { engine, context_len: capacity, prompt_len: prompt.len(), logits, moved: false })
    }

    /// One continuation of up to `max_tokens` tokens; ends before a token of `stops` or when the context is full. `each`
    /// hears every token as it comes and may end it by answering false.
    ///
    /// # Errors
    /// What the engine and [`Sampling::choose`] report.
    pub fn continuation(
        &mut self,
        max_tokens: usize,
        stops: &[i32],
        sampling: &Sampling,
        rng: &mut SplitMix64,
        each: &mut dyn FnMut(i32) -> bool,
    ) -> Result<Vec<i32>> {
        sampling.validate()?;
        if std::mem::replace(&mut self.moved, true) {
            self.engine.rewind_decoding()?;
        }
        let mut later: Option<Vec<f32>> = None;
        let mut tokens = Vec::new();
        while tokens.len() < max_tokens {
            let token = sampling.choose(later.as_ref().unwrap_or(&self.logits), rng)? as i32;
            if stops.contains(&token) {
                break;
            }
            tokens.push(token);
            let full = tokens.len() == max_tokens || self.prompt_len + tokens.len() > self.context_len;
            if !each(token) || full {
                break;
            }
            later = Some(self.engine.decode(&[token])?);
        }
        Ok(tokens)
    }
}
