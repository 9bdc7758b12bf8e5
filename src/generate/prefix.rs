//! Many continuations of one prompt, which is fed once.

use super::{Sampling, SplitMix64, check_prompt};
use crate::error::Result;
use crate::train::engine::Engine;

/// Continuations that are decoded together at most: as many rows as the cpu backend meets with a weight that it has read
/// once. With more there is little left to share of reading them.
pub const AT_ONCE: usize = 12;
/// Bytes of the caches of those, at most; one there is always room for.
const CACHES: u64 = 1 << 30;

/// A prompt that an engine was fed, and what may come after it.
pub struct Prefix<'a> {
    engine: &'a mut dyn Engine,
    context_len: usize,
    prompt_len: usize,
    logits: Vec<f32>,
    /// How many continuations are decoded together.
    at_once: usize,
    /// Whether the engine has gone on from the prompt's end.
    moved: bool,
}

/// How continuations are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Tokens of each, at most.
    pub max_tokens: usize,
    /// Tokens before which one ends.
    pub stops: &'a [i32],
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Of continuation i, the stream is [`SplitMix64::nth`] of this and i.
    pub seed: u64,
}

/// What is heard of continuations: of which, and a token of it or none at its end. False ends them all.
pub type Heard<'h> = &'h mut dyn FnMut(usize, Option<i32>) -> bool;

/// A continuation that is not at its end.
struct Growing {
    /// Which it is.
    index: usize,
    rng: SplitMix64,
    tokens: usize,
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
        let before = engine.live_bytes();
        engine.start_decoding(capacity)?;
        let logits = engine.decode(prompt)?;
        let cache = engine.live_bytes().saturating_sub(before).max(1);
        if continuations > 1 {
            engine.mark_decoding()?;
        }
        let fitting = usize::try_from(CACHES / cache).unwrap_or(usize::MAX).clamp(1, AT_ONCE);
        let at_once = if engine.decodes_together() { fitting } else { 1 };
        let (context_len, prompt_len) = (capacity, prompt.len());
        Ok(Self { engine, context_len, prompt_len, logits, at_once, moved: false })
    }

    /// Draws `count` continuations, several together where the engine gives the same for them as for each alone; ends
    /// each before a stop or when the context is full. What is drawn depends neither on their number nor on how many
    /// are decoded together.
    ///
    /// # Errors
    /// What the engine and [`Sampling::choose`] report.
    pub fn continuations(&mut self, count: usize, draw: &Draw<'_>, heard: Heard<'_>) -> Result<()> {
        draw.sampling.validate()?;
        for start in (0..count).step_by(self.at_once) {
            if !self.together(start..count.min(start + self.at_once), draw, heard)? {
                break;
            }
        }
        Ok(())
    }

    /// Draws these together; false where `heard` has ended them.
    fn together(&mut self, which: std::ops::Range<usize>, draw: &Draw<'_>, heard: Heard<'_>) -> Result<bool> {
        // Until it has moved, the engine stands where a single one begins.
        if self.moved || which.len() > 1 {
            self.engine.rewind_decoding(which.len())?;
        }
        self.moved = true;
        let rng = |index| SplitMix64::nth(draw.seed, index);
        let mut growing: Vec<Growing> =
            which.map(|index| Growing { index, rng: rng(index), tokens: 0 }).collect();
        // All begin with the prompt's logits.
        let mut later: Option<Vec<f32>> = None;
        loop {
            let (mut next, mut kept) = (Vec::new(), Vec::new());
            let width = self.logits.len();
            for (row, one) in growing.iter_mut().enumerate() {
                let logits = later.as_ref().and_then(|later| later.get(row * width..(row + 1) * width));
                let drawn = if one.tokens < draw.max_tokens {
                    let token = draw.sampling.choose(logits.unwrap_or(&self.logits), &mut one.rng)? as i32;
                    (!draw.stops.contains(&token)).then_some(token)
                } else {
                    None
                };
                if let Some(token) = drawn {
                    one.tokens += 1;
                    if !heard(one.index, Some(token)) {
                        return Ok(false);
                    }
                    if one.tokens < draw.max_tokens && self.prompt_len + one.tokens <= self.context_len {
                        next.push(token);
                        kept.push(row);
                        continue;
                    }
                }
                if !heard(one.index, None) {
                    return Ok(false);
                }
            }
            if next.is_empty() {
                return Ok(true);
            }
            if kept.len() < growing.len() {
                self.engine.keep_decoding(&kept)?;
                let mut row = 0..;
                growing.retain(|_| row.next().is_some_and(|row| kept.contains(&row)));
            }
            later = Some(self.engine.decode(&next)?);
        }
    }

    /// One continuation, by the stream of the seed; its tokens. `each` hears every token as it comes and may end it by
    /// answering false.
    ///
    /// # Errors
    /// As [`Self::continuations`].
    #[cfg(test)]
    pub fn continuation(&mut self, draw: &Draw<'_>, each: &mut dyn FnMut(i32) -> bool) -> Result<Vec<i32>> {
        let mut tokens = Vec::new();
        self.continuations(1, draw, &mut |_, token| {
            token.is_none_or(|token| {
                tokens.push(token);
                each(token)
            })
        })?;
        Ok(tokens)
    }
}
