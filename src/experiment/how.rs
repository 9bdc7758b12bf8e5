//! How an experiment is carried out.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::hash::Digest;
use crate::run::execute::MakeEngine;
use crate::run::progress::Display;
use crate::stop::StopFlag;

/// How to carry it out. Nothing here changes a result.
pub struct HowToRun<'a> {
    /// Threads in all.
    pub threads: usize,
    /// Runs at the same time; none leaves it to [`super::Experiment::jobs`].
    pub jobs: Option<usize>,
    /// Whether runs take over steps they share.
    pub share: bool,
    /// Whether finished runs are trained again.
    pub rerun: bool,
    /// Results from which finished runs are taken over: of experiments, or directories that hold several.
    pub reuse: &'a [PathBuf],
    /// The runs that this process may take; none where it may take all that the command is about.
    pub among: Option<&'a BTreeSet<Digest>>,
    /// What it calls itself among others: a unit of a submission.
    pub unit: Option<String>,
    /// Whether it stays until those have ended too that others train.
    pub stay: bool,
    /// Makes the engines of the runs.
    pub engine: &'a MakeEngine<'a>,
    /// Shows progress.
    pub display: &'a Display,
    /// Asks to stop.
    pub stop: &'a StopFlag,
}
