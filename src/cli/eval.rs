//! `nanorun eval`: bits per byte of a trained model, with what defines them.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::error::{Class, Result};
use crate::plan::evaluation::VAL_BPB;
use crate::plan::run_config::RunConfig;
use crate::run::evaluate::{Departures, Evaluated, evaluate, prepare};
use crate::run::room::Use;
use crate::stop::StopFlag;

use super::args::Common;
use super::naming::shards;
use super::output::Output;
use super::subject::{Subject, SubjectArgs, subject};

/// `nanorun eval`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct EvalArgs {
    /// Which model
    #[command(flatten)]
    subject: SubjectArgs,
    /// Evaluate on other text: a directory, a glob or files, of which the last by name is the validation split, or embedded
    #[arg(long, value_name = "PATH", num_args = 1..)]
    shards: Vec<PathBuf>,
    /// Tokens to evaluate, rounded down to whole batches (default: the run's eval.tokens)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 50))]
    tokens: Option<u64>,
    /// Rows of a batch (default: the run's train.device_batch_size)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    device_batch_size: Option<u16>,
    /// Evaluate on the rows that upstream reads with so many GPUs (default: the run's run.ranks)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    ranks: Option<u16>,
    /// Measure the CORE metric instead, on an evaluation bundle of upstream's: the directory with core.yaml
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["shards", "tokens", "device_batch_size", "ranks"])]
    core: Option<PathBuf>,
    /// With --core: only the first examples of each task, once shuffled (default: all)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 32), requires = "core")]
    max_per_task: Option<u64>,
    /// Common options
    #[command(flatten)]
    common: Common,
}

const HELP: &str = "\
Examples:
  nanorun eval quickstart/4734d3                                    by its own definition
  nanorun eval quickstart/4734d3 --shards other.parquet --json
  nanorun eval ~/.cache/nanochat --core eval_bundle                 a checkpoint of upstream's, by CORE

Without options a run is evaluated by its own definition, to the very bits of its own evaluation at that step. What defines \
the number is printed with it: numbers of two definitions are not comparable.

--core gives the accuracy of every task, how far it is from guessing (centered: 0 is guessing, 1 is all right) and their mean, \
as upstream's base_eval does. Scores are kept in the cache: stopped, the same command goes on after the last whole task.";

/// Evaluates and prints.
pub(super) fn eval(args: &EvalArgs) -> Result<Option<Class>> {
    if let Some(bundle) = &args.core {
        return super::eval_core::eval(bundle, args.max_per_task, &args.subject, &args.common);
    }
    let named = |path: &PathBuf| Ok(shards(path)?.to_string_lossy().into_owned());
    let shards = args.shards.iter().map(named).collect::<Result<_>>()?;
    let batch = args.device_batch_size.map(usize::from);
    let wants = |config: &RunConfig| Use::Evaluate { rows: batch.unwrap_or(config.batch.device_batch_size) };
    let Subject { mut trained, library } = subject(&args.subject, &args.common, &wants)?;
    let departures = Departures {
        shards,
        tokens: args.tokens,
        device_batch_size: batch,
        ranks: args.ranks.map(usize::from),
    };
    let (config, rows) = prepare(&library, &trained.config, &trained.tokenizer, &departures)?;
    trained.engine.stop_on(&StopFlag::default());
    let output = Output::new(args.common.quiet);
    let bar = output.fancy().then(bar);
    let mut each = |done, of| {
        if let Some(bar) = &bar {
            bar.set_length(of);
            bar.set_position(done);
        }
    };
    let evaluated = evaluate(trained.engine.as_mut(), rows.as_ref(), &config, &mut each);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let evaluated = evaluated?;
    let class = trained.engine.environment_class();
    if args.common.json {
        output.result(&report(&trained.label, trained.step, &class, &evaluated).to_string());
    } else {
        output.result(&text(&evaluated));
        output.note(&format!("computed in the environment class {class}"));
    }
    Ok(None)
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("evaluating {bar:30} {pos}/{len} batches");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The fields that define it, and the validation split.
fn definition(evaluated: &Evaluated) -> Vec<(&'static str, String)> {
    let mut fields = evaluated.definition.definition(VAL_BPB);
    fields.push(("model.vocab_size", evaluated.definition.vocab_size.to_string()));
    if let Some(content) = &evaluated.definition.content {
        fields.push(("data and tokenizer", format!("sha256 {content}")));
    }
    fields
}

fn text(evaluated: &Evaluated) -> String {
    let Evaluated { val_bpb, val_loss, tokens, bytes, .. } = evaluated;
    let mut text = format!("val_bpb   {val_bpb:.6}\nval_loss  {val_loss:.6}\n\n");
    let _ = writeln!(text, "over {tokens} tokens of {bytes} bytes, as defined by");
    let fields = definition(evaluated);
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in fields {
        let _ = writeln!(text, "  {name:width$}  {value}");
    }
    text
}

fn report(label: &str, step: u64, class: &str, evaluated: &Evaluated) -> Value {
    let fields =
        definition(evaluated).into_iter().map(|(name, value)| (name.to_owned(), Value::String(value)));
    json!({
        "run": label,
        "step": step,
        "val_bpb": evaluated.val_bpb,
        "val_loss": evaluated.val_loss,
        "tokens": evaluated.tokens,
        "bytes": evaluated.bytes,
        "environment_class": class,
        "settings": evaluated.definition.digest(),
        "definition": fields.collect::<Map<_, _>>(),
    })
}
