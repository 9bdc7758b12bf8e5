//! `nanorun export`: a trained model in the form of another program.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::interop::exported::Exported;
use crate::interop::upstream::UpstreamCheckpoint;
use crate::run::export::{ForeignValues, Target, export as exported_to};
use crate::run::trained::{ForeignOptions, open_foreign};
use crate::stop;

mod curves;

use super::args::Common;
use super::naming::{For, Found, absolute, find};
use super::options;
use super::output::Output;

/// `nanorun export`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct ExportArgs {
    /// A manifest, a results directory, EXPERIMENT/KEY with the first digits of a run's key, a checkpoint's directory; or
    /// upstream's: a base directory, a run's directory, model_NNNNNN.pt
    #[arg(value_name = "RUN|CHECKPOINT")]
    name: PathBuf,
    /// The form
    #[arg(long, value_name = "FORM")]
    to: Form,
    /// The directory to write, which must not be there yet
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// First hex digits of the run's key, where the experiment has several runs
    #[arg(long, value_name = "KEY")]
    run: Option<String>,
    /// Of upstream's: the step, where it has several (default: the last)
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Of upstream's: the commit by which it was made, where its files do not tell
    #[arg(long, value_name = "HEX")]
    commit: Option<String>,
    /// Of upstream's: its tokenizer's directory (default: tokenizer/ in its base directory)
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// With --to upstream: ranks (GPUs) that the optimizer's state is divided over (default: the run's run.ranks)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    ranks: Option<u16>,
    /// Common options
    #[command(flatten)]
    common: Common,
}

/// The forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Upstream's base directory: its own code loads, evaluates and continues it
    Upstream,
    /// model.safetensors, config.json and tokenizer.json
    Safetensors,
    /// What transformers loads: its own NanoChat class where the model is one, else modeling_nanorun.py beside it
    Hf,
    /// model.onnx with model.onnx.data, config.json and tokenizer.json: a graph that decodes with its cache as states
    Onnx,
    /// Curves, not weights: event files that TensorBoard shows, a directory a run; of an experiment all its runs
    Tensorboard,
}

const HELP: &str = "\
Examples:
  nanorun export quickstart/4734d3 --to hf model            weights that transformers loads
  nanorun export quickstart/4734d3 --to upstream base       a base directory for upstream's own code
  nanorun export quickstart --to tensorboard logs           curves of all runs; then: tensorboard --logdir logs

The directory appears whole or not at all. Parameters are written as they are, in float32; a model that a form cannot hold is \
refused by the field that it lacks. To continue a run with upstream's code its optimizer must still be there: \
checkpoint.final = \"all\" in the manifest keeps it.";

/// Exports.
pub(super) fn export(args: &ExportArgs) -> Result<Option<Class>> {
    stop::watch()?;
    let files = Files::from_env()?;
    let to = absolute(&args.directory)?;
    if args.ranks.is_some() && args.to != Form::Upstream {
        return Err(Error::input(
            "--ranks divides the optimizer's state, which --to upstream alone takes along",
        )
        .expected("--to upstream, or no --ranks"));
    }
    let target = match args.to {
        Form::Tensorboard => return curves::export(args, &files, &to),
        Form::Upstream => Target::Upstream { ranks: args.ranks.map(usize::from) },
        Form::Safetensors => Target::Safetensors,
        Form::Hf => Target::HuggingFace,
        Form::Onnx => Target::Onnx,
    };
    let (label, step, notes) = if UpstreamCheckpoint::is_named_by(&args.name) {
        super::threads::start(args.common.threads.map(usize::from))?;
        let found = UpstreamCheckpoint::find(&args.name, args.step)?;
        let foreign_options = ForeignOptions {
            step: args.step,
            commit: args.commit.as_deref(),
            tokenizer: args.tokenizer.as_deref(),
            // What the optimizer's file says follows from the run's flags.
            as_trained: args.to == Form::Upstream && !found.optimizer().is_empty(),
            layers: options(&args.common),
            backend: None,
        };
        let mut foreign = open_foreign(&args.name, &foreign_options)?;
        let values = ForeignValues::read(&mut foreign, target)?;
        let exported = values.exported(&foreign);
        let mut notes = foreign.notes.clone();
        notes.extend(exported_to(&files, &exported, target, &to)?);
        (exported.label.clone(), exported.step, notes)
    } else {
        let given = [args.step.is_some(), args.commit.is_some(), args.tokenizer.is_some()];
        if given.contains(&true) {
            return Err(Error::input("--step, --commit and --tokenizer are for checkpoints of upstream's")
                .file(&args.name)
                .expected("a run of nanorun's by its key, or a checkpoint by its directory"));
        }
        let Found { experiment, key, checkpoint } = find(&args.name, &args.common, For::Reading)?;
        let key = args.run.as_deref().or(key.as_deref());
        let (run, checkpoint) = experiment.checkpoint(key, checkpoint.as_deref())?;
        let opened = experiment.library.open(&run.config.data)?;
        let mut exported =
            Exported::of_checkpoint(experiment.label(run), &run.config, &checkpoint, opened.tokenizer())?;
        // A checkpoint is written before its step is evaluated.
        let step = checkpoint.state.step;
        exported.val_bpb = exported.val_bpb.or_else(|| experiment.evaluated(run, step));
        let notes = exported_to(&files, &exported, target, &to)?;
        (exported.label.clone(), exported.step, notes)
    };
    let output = Output::new(args.common.quiet);
    for note in &notes {
        output.note(note);
    }
    if args.common.json {
        let report = json!({ "run": label, "step": step, "directory": to, "notes": notes });
        output.result(&report.to_string());
    } else {
        output.note(&format!("{label}: weights after step {step}"));
        output.result(&args.directory.display().to_string());
    }
    Ok(None)
}
