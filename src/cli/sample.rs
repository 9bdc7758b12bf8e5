//! `nanorun sample`: text from a trained model.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use serde_json::{Value, json};

use crate::error::{Class, Error, Result};
use crate::generate::{Prefix, Sampling, SplitMix64};
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
Text appears as it is sampled. The prompt is computed once for all samples. Equal seeds give equal samples on one backend.";

/// Prints the prompt and its continuations.
pub(super) fn sample(args: &SampleArgs) -> Result<Option<Class>> {
    let sampling = Sampling { temperature: args.temperature, top_k: Some(args.top_k).filter(|&k| k > 0) };
    sampling.validate()?;
    if args.prompt.as_deref() == Some("") {
        return Err(Error::input("the prompt is empty")
            .expected("text to continue")
            .help("leave out --prompt to begin a document"));
    }
    let mut trained = subject(&args.subject, &args.common)?.trained;
    trained.engine.stop_on(&StopFlag::default());
    let output = Output::new(args.common.quiet);
    let mut rng = SplitMix64::new(args.seed);
    let asks =
        args.prompt.is_none() && !args.common.json && io::stdin().is_terminal() && io::stdout().is_terminal();
    if asks {
        return converse(args, &mut trained, &sampling, &mut rng, output);
    }
    let prompt = args.prompt.as_deref().unwrap_or_default();
    let mut texts = Vec::new();
    continuations(args, &mut trained, prompt, &sampling, &mut rng, &mut |piece| match piece {
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
        let json = json!({ "run": label, "step": step, "prompt": prompt, "continuations": texts });
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

/// Draws `--num` continuations of one prompt; `each` ends them all by answering false.
fn continuations(
    args: &SampleArgs,
    trained: &mut Trained,
    prompt: &str,
    sampling: &Sampling,
    rng: &mut SplitMix64,
    each: &mut dyn FnMut(Piece<'_>) -> bool,
) -> Result<()> {
    let Trained { engine, tokenizer, config, .. } = trained;
    let ids = prompt_ids(tokenizer, prompt)?;
    let stops = stops(tokenizer);
    let context_len = config.model.sequence_len();
    let mut prefix = Prefix::feed(engine.as_mut(), &ids, context_len, args.max_tokens, args.num)?;
    for _ in 0..args.num {
        if !each(Piece::Begins) {
            return Ok(());
        }
        let (mut stream, mut whole, mut heard) = (TextStream::default(), String::new(), true);
        prefix.continuation(args.max_tokens, &stops, sampling, rng, &mut |token| {
            let text = stream.push(tokenizer, token);
            heard = text.is_empty() || each(Piece::Text(&text));
            whole.push_str(&text);
            heard
        })?;
        let rest = stream.finish();
        heard = heard && (rest.is_empty() || each(Piece::Text(&rest)));
        whole.push_str(&rest);
        if !heard || !each(Piece::Ends(&whole)) {
            return Ok(());
        }
    }
    Ok(())
}

/// Asks for prompts until there are no more. A prompt that cannot be used is told, and the next one asked for.
fn converse(
    args: &SampleArgs,
    trained: &mut Trained,
    sampling: &Sampling,
    rng: &mut SplitMix64,
    output: Output,
) -> Result<Option<Class>> {
    output.note("a prompt a line; an empty one begins a document; the end of input (Ctrl-D) ends");
    let mut lines = io::stdin().lock().lines();
    loop {
        let _ = write!(io::stderr(), "> ");
        let Some(Ok(prompt)) = lines.next() else {
            output.note("");
            return Ok(None);
        };
        let drawn = continuations(args, trained, &prompt, sampling, rng, &mut |piece| match piece {
            Piece::Begins => output.part(&prompt),
            Piece::Text(text) => output.part(text),
            Piece::Ends(_) => output.part("\n"),
        });
        match drawn {
            Err(error) if error.class() == Class::Input => output.warn(&format!("error: {error}")),
            drawn => drawn?,
        }
    }
}
