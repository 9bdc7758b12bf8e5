//! What an experiment's runs are called, and the commands on it that advice tells.

use std::fmt::Write as _;
use std::path::Path;

use super::Experiment;
use crate::error::Result;
use crate::hash::Digest;
use crate::plan::PlannedRun;
use crate::record::key_of;

impl Experiment {
    /// The key that begins with these digits.
    ///
    /// # Errors
    /// None or several; class `Input`.
    pub(super) fn key_of(&self, digits: &str) -> Result<Digest> {
        let keys: Vec<_> = self.plan.runs.iter().map(|run| (run.key.run, self.label(run))).collect();
        key_of(digits, &keys)
    }

    /// A command on this experiment, as advice tells it: with everything that makes it this one.
    pub fn command(&self, verb: &str) -> String {
        let mut command = self.command_on_manifest(verb);
        if let Some(results) = self.dir.path().parent().filter(|results| *results != Path::new("results")) {
            let _ = write!(command, " --results '{}'", results.display());
        }
        command
    }

    /// The same of one that has no results.
    pub(super) fn command_on_manifest(&self, verb: &str) -> String {
        let mut command = format!("nanorun {verb} {}", self.manifest.file.display());
        if let Some(profile) = &self.manifest.profile {
            let _ = write!(command, " --profile {profile}");
        }
        for (option, values) in [("--set", &self.manifest.sets), ("--only", &self.manifest.only)] {
            for value in values {
                let _ = write!(command, " {option} '{value}'");
            }
        }
        command
    }

    /// What a run is called.
    pub fn label(&self, run: &PlannedRun) -> String {
        format!("{} seed={}", self.arm(run), run.config.seed)
    }

    pub(super) fn arm(&self, run: &PlannedRun) -> &str {
        self.plan.arms.get(run.arm).map_or("base", |arm| &arm.label)
    }
}
