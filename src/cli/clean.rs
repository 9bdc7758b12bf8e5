//! `nanorun clean`: what nothing needs of results, and its removal.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::error::{Class, Error, Result};
use crate::experiment::{Cleaned, Experiment, clean as clean_results};
use crate::files::Files;
use crate::hash::Digest;
use crate::manifest::Options;
use crate::record::{ExperimentDir, Named, PlanRecord, experiments_in};

use super::args::CleanArgs;
use super::environment;
use super::output::Output;
use super::selection::picked;

/// Lists what nothing needs; removes it where it is told to.
pub(super) fn clean(args: &CleanArgs) -> Result<Option<Class>> {
    let files = Files::from_env()?;
    let mut cleaned = Vec::new();
    match &args.experiment {
        Some(name) => {
            let CleanedBy { dir, keys, within } = named(name, args)?;
            cleaned.push(clean_results(&files, &dir, keys.as_deref(), within.as_deref(), args.yes)?);
        }
        None => {
            for dir in experiments_in(&args.results)? {
                cleaned.push(clean_results(&files, &dir, None, None, args.yes)?);
            }
        }
    }
    let output = Output::new(false);
    let bytes: u64 = cleaned.iter().map(Cleaned::bytes).sum();
    if args.json {
        output.result(&json!({ "experiments": cleaned, "bytes": bytes, "removed": args.yes }).to_string());
        return Ok(None);
    }
    let mut text = String::new();
    for experiment in &cleaned {
        if let Some(who) = &experiment.in_use {
            output.note(&format!("left alone: {who}"));
        }
        for item in &experiment.items {
            let _ = writeln!(text, "{:>10}  {}  ({})", size(item.bytes), item.path.display(), item.why);
        }
    }
    output.result(&text);
    output.note(&match (text.is_empty(), args.yes) {
        (true, _) => "nothing is there that nothing needs".to_owned(),
        (false, true) => format!("removed: {}", size(bytes)),
        (false, false) => format!("{} can go: --yes removes it", size(bytes)),
    });
    Ok(None)
}

/// Results, and by what they are cleaned.
struct CleanedBy {
    dir: ExperimentDir,
    /// The keys of the runs that the experiment has; none are those of its plan.
    keys: Option<Vec<Digest>>,
    /// Those of the runs that it is about; none is everything.
    within: Option<Vec<Digest>>,
}

/// The results that `name` names; of a manifest, the keys of the runs that it has now as well.
fn named(name: &Path, args: &CleanArgs) -> Result<CleanedBy> {
    let named = Named::read(name, &args.results)?;
    if named.results().is_some() && (args.profile.is_some() || !args.sets.is_empty()) {
        return Err(super::naming::nothing_over_results(name));
    }
    match named {
        Named::Manifest(manifest) => {
            let options = Options {
                profile: args.profile.clone(),
                sets: args.sets.clone(),
                only: args.only.clone(),
                env: environment().collect(),
            };
            let experiment = Experiment::load_to_read(&manifest, &options, &args.results)?;
            if experiment.plan.runs.iter().any(|run| run.key.pending) {
                return Err(Error::input("what this manifest's runs are cannot be told without their data")
                    .file(manifest)
                    .help("name the results directory: what its own plan has is kept"));
            }
            let keys = Some(experiment.plan.runs.iter().map(|run| run.key.run).collect());
            let selected = || experiment.selected_runs().map(|run| run.key.run).collect();
            let within = experiment.manifest.is_view().then(selected);
            Ok(CleanedBy { dir: experiment.dir, keys, within })
        }
        Named::Results(dir) if args.only.is_empty() => Ok(CleanedBy { dir, keys: None, within: None }),
        Named::Results(dir) => {
            let record = PlanRecord::read(&Files::from_env()?, &dir)?;
            let within = Some(picked(&record, &args.only)?.iter().map(|run| run.key).collect());
            Ok(CleanedBy { dir, keys: None, within })
        }
        Named::Run { .. } | Named::Checkpoint { .. } => Err(Error::input("a run cannot be cleaned alone")
            .file(name)
            .expected("an experiment or its results")),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
