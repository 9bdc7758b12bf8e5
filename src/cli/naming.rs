//! The experiment that a command names, from its manifest or from its results alone.

use std::path::{Path, PathBuf};

use crate::data::EMBEDDED;
use crate::error::{Error, Result};
use crate::experiment::{Experiment, FromResults};
use crate::files::Files;
use crate::manifest::Manifest;
use crate::record::{ExperimentDir, Named};

use super::args::Common;
use super::{environment, options, plan_options, threads};

/// An experiment, and what of it was named.
pub(super) struct Found {
    /// The experiment.
    pub(super) experiment: Experiment,
    /// The first digits of the run's key, where a run was named.
    pub(super) key: Option<String>,
    /// The checkpoint's directory, where one was named.
    pub(super) checkpoint: Option<PathBuf>,
}

/// What a command does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// It reads results: no data are needed.
    Reading,
    /// It trains or samples: with the data that are here.
    Working,
}

/// Finds what `name` names.
///
/// # Errors
/// A name that names nothing; whatever is wrong with the experiment; options that lay something over results.
pub(super) fn find(name: &Path, common: &Common, purpose: For) -> Result<Found> {
    super::waiting::show_waiting(common.quiet);
    threads::start(common.threads.map(usize::from))?;
    let named = Named::read(name, &common.results)?;
    let Some(results) = named.results() else {
        let load = if purpose == For::Reading { Experiment::load_to_read } else { Experiment::load };
        let experiment = load(name, &options(common), &common.results)?;
        return Ok(Found { experiment, key: None, checkpoint: None });
    };
    if common.profile.is_some() || !common.sets.is_empty() {
        return Err(nothing_over_results(results.path()));
    }
    let (results, checkpoint) = match &named {
        Named::Checkpoint { dir, .. } => (at_home(results)?, Some(absolute(dir)?)),
        _ => (at_home(results)?, None),
    };
    let environment: Vec<_> = environment().collect();
    let experiment = match purpose {
        For::Reading => results.to_read(&environment, &common.only)?,
        For::Working => results.to_carry_on(&environment, &common.only)?,
    };
    Ok(Found { experiment, key: named.key().map(str::to_owned), checkpoint })
}

/// The error of laying something over results.
pub(super) fn nothing_over_results(results: &Path) -> Error {
    Error::input("results have the profile and the settings that they were made with")
        .file(results)
        .expected("neither --profile nor --set")
        .help("name the manifest to lay something over it; --only picks cells of results too")
}

/// The results that `name` names, those of a manifest by its name, and the first digits of the run's key.
///
/// # Errors
/// As [`find`].
pub(super) fn results_of(name: &Path, results: &Path) -> Result<(ExperimentDir, Option<String>)> {
    let named = Named::read(name, results)?;
    if let Some(found) = named.results() {
        return Ok((found.clone(), named.key().map(str::to_owned)));
    }
    if name.is_dir() {
        return Err(no_results_in(name));
    }
    let manifest = Manifest::load(name, &plan_options(environment()))?;
    Ok((ExperimentDir::at(results.join(manifest.results_name())), None))
}

/// The error of a directory that holds nothing of nanorun's.
pub(super) fn no_results_in(dir: &Path) -> Error {
    Error::input("no experiment has left results here").file(dir).expected(
        "a directory that holds results of experiments, such as results, or one of them, such as results/quickstart",
    )
}

/// Reads results, and goes where they were started: what their manifest calls by a relative path is found there.
pub(super) fn at_home(dir: &ExperimentDir) -> Result<FromResults> {
    let files = Files::new();
    let found = FromResults::read(&files, dir)?;
    let Some(home) = found.home() else { return Ok(found) };
    let dir = ExperimentDir::at(absolute(dir.path())?);
    std::env::set_current_dir(&home).map_err(|error| {
        Error::input("cannot go to the directory in which this experiment was started")
            .file(&home)
            .because(error)
    })?;
    FromResults::read(&files, &dir)
}

/// The path from the root: it stays what it is wherever the process goes.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Error::input("the working directory cannot be told").file(path).because(error))
}

/// Shards as an option names them, by a path that stays what it is wherever the process goes. The text that comes with
/// nanorun has a name, not a path.
pub(super) fn shards(path: &Path) -> Result<PathBuf> {
    if path == Path::new(EMBEDDED) { Ok(path.to_owned()) } else { absolute(path) }
}
