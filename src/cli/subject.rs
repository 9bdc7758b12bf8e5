//! The trained model that a command works with: of a run of nanorun's, or a checkpoint of upstream's.

use std::path::PathBuf;

use clap::Args;

use crate::backend::torch::device::TorchDevice;
use crate::data::Cache;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::interop::upstream::UpstreamCheckpoint;
use crate::plan::run_config::{BackendChoice, BackendKind};
use crate::precision::Precision;
use crate::run::library::Library;
use crate::run::trained::{ForeignOptions, Trained, Wants, foreign};
use crate::stop;

use super::args::Common;
use super::naming::{For, Found, find};
use super::output::Output;
use super::{all_threads, options, threads};

/// Which model, and what computes it.
#[derive(Debug, Clone, Args)]
pub(super) struct SubjectArgs {
    /// A manifest, a results directory, EXPERIMENT/KEY with the first digits of a run's key, a checkpoint's directory; or
    /// upstream's: a base directory, a run's directory, model_NNNNNN.pt
    #[arg(value_name = "RUN|CHECKPOINT")]
    pub(super) name: PathBuf,
    /// First hex digits of the run's key, where the experiment has several runs
    #[arg(long, value_name = "KEY")]
    pub(super) run: Option<String>,
    /// Compute on this backend: cpu, tch or scalar (default: the run's, of upstream's cpu)
    #[arg(long, value_name = "NAME", value_parser = ["cpu", "tch", "scalar"])]
    pub(super) backend: Option<String>,
    /// Device of the tch backend: cpu or cuda:N
    #[arg(long, value_name = "NAME", requires = "backend")]
    pub(super) device: Option<TorchDevice>,
    /// What the tch backend computes in: f32 or bf16
    #[arg(long, value_name = "NAME", value_parser = ["f32", "bf16"], requires = "backend")]
    pub(super) precision: Option<String>,
    /// Of upstream's: the step, where it has several (default: the last)
    #[arg(long, value_name = "N")]
    pub(super) step: Option<u64>,
    /// Of upstream's: the commit by which it was made, where its files do not tell
    #[arg(long, value_name = "HEX")]
    pub(super) commit: Option<String>,
    /// Of upstream's: its tokenizer's directory (default: tokenizer/ in its base directory)
    #[arg(long, value_name = "DIR")]
    pub(super) tokenizer: Option<PathBuf>,
}

/// A trained model and where its data are.
pub(super) struct Subject {
    /// It.
    pub(super) trained: Trained,
    /// Opens data.
    pub(super) library: Library,
}

/// Takes up the weights of what the arguments name, for what `wants` says.
///
/// # Errors
/// A name that names nothing, or options that are not for what it names; a model that will not fit into memory; whatever
/// keeps the weights from being read.
pub(super) fn subject(args: &SubjectArgs, common: &Common, wants: Wants<'_>) -> Result<Subject> {
    stop::watch()?;
    let backend = backend(args)?;
    let subject = if UpstreamCheckpoint::is_named_by(&args.name) {
        upstreams(args, common, backend, wants)?
    } else {
        ours(args, common, backend.as_ref(), wants)?
    };
    let output = Output::new(common.quiet);
    let Trained { label, step, steps, notes, .. } = &subject.trained;
    if let Some(steps) = steps {
        output.note(&format!("{label}: weights after step {step} of {steps}"));
    }
    for note in notes {
        output.note(note);
    }
    Ok(subject)
}

fn ours(
    args: &SubjectArgs,
    common: &Common,
    backend: Option<&BackendChoice>,
    wants: Wants<'_>,
) -> Result<Subject> {
    let given = [
        ("--step", args.step.is_some(), "a checkpoint by its directory, .../checkpoints/step_NNNNNN"),
        ("--commit", args.commit.is_some(), "upstream.commit in the manifest"),
        ("--tokenizer", args.tokenizer.is_some(), "the tokenizer that the run was trained with"),
    ];
    if let Some((option, _, instead)) = given.into_iter().find(|(_, given, _)| *given) {
        return Err(Error::input(format!("{option} is for checkpoints of upstream's"))
            .file(&args.name)
            .expected(format!("{instead}; or model_NNNNNN.pt where this is a directory of upstream's")));
    }
    let Found { experiment, key, checkpoint } = find(&args.name, common, For::Reading)?;
    let key = args.run.as_deref().or(key.as_deref());
    let trained =
        experiment.trained(key, checkpoint.as_deref(), backend, threads(common, &experiment), wants)?;
    let Experiment { library, .. } = experiment;
    Ok(Subject { trained, library })
}

fn upstreams(
    args: &SubjectArgs,
    common: &Common,
    backend: Option<BackendChoice>,
    wants: Wants<'_>,
) -> Result<Subject> {
    let refused = [("--run", args.run.is_some()), ("--profile", common.profile.is_some())];
    if let Some((option, _)) = refused.into_iter().find(|(_, given)| *given) {
        let error = Error::input(format!("{option} is for runs of nanorun's")).file(&args.name);
        return Err(
            error.help(format!("leave out {option}; --step chooses among steps, --set changes fields"))
        );
    }
    super::waiting::show_waiting(common.quiet);
    super::threads::start(common.threads.map(usize::from))?;
    let foreign_options = ForeignOptions {
        step: args.step,
        commit: args.commit.as_deref(),
        tokenizer: args.tokenizer.as_deref(),
        as_trained: false,
        layers: options(common),
        backend,
    };
    let threads = common.threads.map_or_else(all_threads, usize::from);
    let trained = foreign(&args.name, &foreign_options, threads, wants)?;
    Ok(Subject { trained, library: Library::new(Cache::from_env()?) })
}

/// What computes in place of the run's own backend.
fn backend(args: &SubjectArgs) -> Result<Option<BackendChoice>> {
    let Some(name) = args.backend.as_deref() else { return Ok(None) };
    let kind = match name {
        "tch" => BackendKind::Tch,
        "scalar" => BackendKind::Scalar,
        _ => BackendKind::Cpu,
    };
    if args.device.is_some() && kind != BackendKind::Tch {
        return Err(Error::input("--device is for --backend tch").expected(format!("--backend {name} alone")));
    }
    if args.precision.as_deref() == Some("bf16") && kind == BackendKind::Scalar {
        return Err(Error::input("--backend scalar does not compute in bf16")
            .key("--precision")
            .expected("f32, or --backend cpu or tch"));
    }
    let device = args.device.map_or_else(|| "cpu".to_owned(), |device| device.to_string());
    let precision = if args.precision.as_deref() == Some("bf16") { Precision::Bf16 } else { Precision::F32 };
    Ok(Some(BackendChoice { kind, device, precision }))
}
