//! `nanorun clean`: what nothing needs of results, and its removal.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::{Class, Error, Result};
use crate::experiment::{Cleaned, Experiment, clean as clean_results};
use crate::files::Files;
use crate::hash::Digest;
use crate::record::{ExperimentDir, Named};

use super::args::CleanArgs;
use super::output::Output;
use super::{environment, plan_options};

/// Lists what nothing needs; removes it where it is told to.
pub(super) fn clean(args: &CleanArgs) -> Result<Option<Class>> {
    let files = Files::from_env()?;
    let mut cleaned = Vec::new();
    match &args.experiment {
        Some(name) => {
            let (dir, keys) = named(name, &args.results)?;
            cleaned.push(clean_results(&files, &dir, keys.as_deref(), args.yes)?);
        }
        None => {
            for dir in experiments(&args.results)? {
                cleaned.push(clean_results(&files, &dir, None, args.yes)?);
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

/// The results that `name` names; of a manifest, the keys of the runs that it has now as well.
fn named(name: &Path, results: &Path) -> Result<(ExperimentDir, Option<Vec<Digest>>)> {
    let named = Named::read(name, results)?;
    match named {
        Named::Manifest(manifest) => {
            let experiment = Experiment::load_to_read(&manifest, &plan_options(environment()), results)?;
            if experiment.plan.runs.iter().any(|run| run.key.pending) {
                return Err(Error::input("what this manifest's runs are cannot be told without their data")
                    .file(manifest)
                    .help("name the results directory: what its own plan has is kept"));
            }
            let keys = experiment.plan.runs.iter().map(|run| run.key.run).collect();
            Ok((experiment.dir, Some(keys)))
        }
        Named::Results(results) => Ok((results, None)),
        Named::Run { .. } | Named::Checkpoint { .. } => Err(Error::input("a run cannot be cleaned alone")
            .file(name)
            .expected("an experiment or its results")),
    }
}

/// Every experiment below a directory of results.
fn experiments(results: &Path) -> Result<Vec<ExperimentDir>> {
    let entries = match std::fs::read_dir(results) {
        Ok(entries) => entries,
        Err(error) => {
            return Err(Error::input(format!("the results cannot be read: {error}"))
                .file(results)
                .expected("a directory of results, such as --results results"));
        }
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.join("plan.toml").is_file());
    found.sort();
    Ok(found.into_iter().map(ExperimentDir::at).collect())
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
