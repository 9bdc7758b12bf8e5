//! `nanorun sample`: text from a trained model.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::error::{Class, Error, Result};
use crate::files::now;
use crate::generate::{AT_ONCE, Draw, Prefix, Sampling};
use crate::plan::run_config::RunConfig;
use crate::run::room::Use;
use crate::run::sample::{TextStream, prompt_ids, stops};
use crate::run::trained::Trained;
use crate::stop::StopFlag;

use super::args::Common;
use super::output::Output;
use super::subject::{SubjectArgs, subject};

/// `nanorun sample`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct SampleArgs {
    /// Which model
    #[command(flatten)]
    subject: SubjectArgs,
    /// Text to continue; without it, prompts are asked for on a terminal, and a document is begun elsewhere
    #[arg(long)]
    prompt: Option<String>,
    /// Tokens to sample at most
    #[arg(long, alias = "tokens", value_name = "N", default_value_t = 64)]
    max_tokens: usize,
    /// Samples to draw
    #[arg(long, short, alias = "number", value_name = "N", default_value_t = 1)]
    num: usize,
    /// 0 takes the most likely token
    #[arg(long, default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f64,
    /// Sample among the K most likely tokens; 0 is among all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Seed of the sampling
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Common options
    #[command(flatten)]
    common: Common,
}

const HELP: &str = "\
Examples:
  nanorun sample quickstart/4734d3 --prompt 'The king' --num 3
  nanorun sample ~/.cache/nanochat --prompt 'The capital of France is' --temperature 0

Text appears as it is sampled. The prompt is computed once for all samples, and several of them are decoded together where
the backend gives each the bits it has alone (cpu and scalar). Equal seeds give equal samples on one backend: of N samples,
the first are those of a smaller N.";

/// Prints the prompt and its continuations.
pub(super) fn sample(args: &SampleArgs) -> Result<Option<Class>> {
    let sampling = Sampling { temperature: args.temperature, top_k: Some(args.top_k).filter(|&k| k > 0) };
    sampling.validate()?;
    if args.prompt.as_deref() == Some("") {
        return Err(Error::input("the prompt is empty")
            .expected("text to continue")
            .help("leave out --prompt to begin a document"));
    }
    // A token is a byte of text or more, and BOS comes before it.
    let prompt = 1 + args.prompt.as_ref().map_or(0, String::len);
    let wants = |config: &RunConfig| {
        let context = config.model.sequence_len();
        Use::Sample {
            prompt: prompt.min(context),
            positions: prompt.saturating_add(args.max_tokens).min(context),
            sequences: args.num.clamp(1, AT_ONCE),
        }
    };
    let mut trained = subject(&args.subject, &args.common, &wants)?.trained;
    trained.engine.stop_on(&StopFlag::default());
    let output = Output::new(args.common.quiet);
    let asks =
        args.prompt.is_none() && !args.common.json && io::stdin().is_terminal() && io::stdout().is_terminal();
    if asks {
        return converse(args, &mut trained, &sampling, output);
    }
    let prompt = args.prompt.as_deref().unwrap_or_default();
    let mut texts = Vec::new();
    let took = continuations(args, &mut trained, prompt, &sampling, args.seed, &mut |piece| match piece {
        Piece::Begins if args.common.json => true,
        Piece::Begins => output.part(prompt),
        Piece::Text(text) => args.common.json || output.part(text),
        Piece::Ends(text) if args.common.json => {
            texts.push(Value::String(text.to_owned()));
            true
        }
        Piece::Ends(_) => output.part("\n"),
    })?;
    if args.common.json {
        let Trained { label, step, .. } = &trained;
        let Took { prompt_tokens, tokens, prefill, decode } = took;
        let json = json!({
            "run": label, "step": step, "prompt": prompt, "continuations": texts, "prompt_tokens": prompt_tokens,
            "tokens": tokens, "prefill_seconds": prefill.as_secs_f64(), "decode_seconds": decode.as_secs_f64(),
        });
        output.result(&json.to_string());
    }
    Ok(None)
}

/// What is heard of a continuation.
enum Piece<'t> {
    /// It begins.
    Begins,
    /// More of its text.
    Text(&'t str),
    /// It ends; all of its text.
    Ends(&'t str),
}

/// What continuations took.
struct Took {
    /// Of the prompt, with BOS.
    prompt_tokens: usize,
    /// Drawn, over all continuations.
    tokens: usize,
    /// From the prompt's first token to logits after its last.
    prefill: Duration,
    /// From there to the end.
    decode: Duration,
}

/// Draws `--num` continuations of one prompt; `each` ends them all by answering false.
fn continuations(
    args: &SampleArgs,
    trained: &mut Trained,
    prompt: &str,
    sampling: &Sampling,
    seed: u64,
    each: &mut dyn FnMut(Piece<'_>) -> bool,
) -> Result<Took> {
    let Trained { engine, tokenizer, config, .. } = trained;
    let ids = prompt_ids(tokenizer, prompt)?;
    let stops = stops(tokenizer);
    let context_len = config.model.sequence_len();
    let started = now();
    let mut prefix = Prefix::feed(engine.as_mut(), &ids, context_len, args.max_tokens, args.num)?;
    let prefill = started.elapsed();
    let draw = Draw { max_tokens: args.max_tokens, stops: &stops, sampling: *sampling, seed };
    let (mut texts, mut tokens) = (Texts::default(), 0);
    prefix.continuations(args.num, &draw, &mut |index, token| {
        let Some(token) = token else { return texts.end(index, each) };
        tokens += 1;
        texts.grow(index, |stream| stream.push(tokenizer, token), each)
    })?;
    Ok(Took { prompt_tokens: ids.len(), tokens, prefill, decode: started.elapsed().saturating_sub(prefill) })
}

/// Texts that grow together, and are shown one after another: the first as it comes, the others as far as they are when
/// their turn comes.
#[derive(Default)]
struct Texts {
    /// Those that were not shown to their end, by their numbers.
    waiting: BTreeMap<usize, Growing>,
    /// Whose turn it is.
    turn: usize,
    /// Whether that one has begun to be shown.
    begun: bool,
}

#[derive(Default)]
struct Growing {
    stream: TextStream,
    text: String,
    /// Bytes of it that were shown.
    shown: usize,
    ended: bool,
}

impl Texts {
    fn grow(
        &mut self,
        index: usize,
        more: impl FnOnce(&mut TextStream) -> String,
        each: &mut dyn FnMut(Piece<'_>) -> bool,
    ) -> bool {
        let one = self.waiting.entry(index).or_default();
        let text = more(&mut one.stream);
        one.text.push_str(&text);
        self.show(each)
    }

    fn end(&mut self, index: usize, each: &mut dyn FnMut(Piece<'_>) -> bool) -> bool {
        let one = self.waiting.entry(index).or_default();
        one.text.push_str(&std::mem::take(&mut one.stream).finish());
        one.ended = true;
        self.show(each)
    }

    /// Shows what can be; false once nobody wants any more.
    fn show(&mut self, each: &mut dyn FnMut(Piece<'_>) -> bool) -> bool {
        while let Some(one) = self.waiting.get_mut(&self.turn) {
            if !std::mem::replace(&mut self.begun, true) && !each(Piece::Begins) {
                return false;
            }
            let new = one.text.get(one.shown..).unwrap_or_default();
            if !new.is_empty() && !each(Piece::Text(new)) {
                return false;
            }
            one.shown = one.text.len();
            if !one.ended {
                return true;
            }
            if !each(Piece::Ends(&one.text)) {
                return false;
            }
            self.waiting.remove(&self.turn);
            (self.turn, self.begun) = (self.turn + 1, false);
        }
        true
    }
}

/// Asks for prompts until there are no more. A prompt that cannot be used is told, and the next one asked for.
fn converse(
    args: &SampleArgs,
    trained: &mut Trained,
    sampling: &Sampling,
    output: Output,
) -> Result<Option<Class>> {
    output.note("a prompt a line; an empty one begins a document; the end of input (Ctrl-D) ends");
    let mut lines = io::stdin().lock().lines();
    for seed in (0..).map(|number| args.seed.wrapping_add(number)) {
        let _ = write!(io::stderr(), "> ");
        let Some(Ok(prompt)) = lines.next() else {
            output.note("");
            return Ok(None);
        };
        let drawn = continuations(args, trained, &prompt, sampling, seed, &mut |piece| match piece {
            Piece::Begins => output.part(&prompt),
            Piece::Text(text) => output.part(text),
            Piece::Ends(_) => output.part("\n"),
        });
        match drawn {
            Err(error) if error.class() == Class::Input => output.warn(&format!("error: {error}")),
            drawn => {
                drawn?;
            }
        }
    }
    Ok(None)
}
