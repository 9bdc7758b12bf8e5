//! A worker's unit: what was frozen, held against what is here now.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::freeze::{own_digest, plan_digest};
use super::submission::{FrozenUnit, Submission, SubmissionDir};
use crate::data::{FrozenShard, FrozenShards};
use crate::error::{Class, Error, Result};
use crate::experiment::{Experiment, quoted};
use crate::files::Files;
use crate::hash::Digest;
use crate::host::host_name;
use crate::manifest::{Manifest, Options};

/// A unit of a submission, for the worker that is to do it.
#[derive(Debug)]
pub struct Work {
    /// The submission.
    pub submission: Submission,
    /// Where it is.
    pub dir: SubmissionDir,
    /// The unit's number.
    pub number: usize,
    text: String,
}

impl Work {
    /// Opens a unit and makes sure that nothing that was frozen has changed.
    ///
    /// # Errors
    /// A submission that is not here or was cancelled, no such unit, a file that changed; class `Input`, with the command
    /// that mends it.
    pub fn open(files: &Files, dir: &SubmissionDir, number: usize) -> Result<Self> {
        let submission = dir.read(files)?;
        if dir.is_cancelled() {
            return Err(Error::input("this submission was cancelled")
                .file(dir.path())
                .help(format!("submit what is left: {}", submission.command())));
        }
        if number >= submission.units.len() {
            let last = submission.units.len().saturating_sub(1);
            return Err(Error::input(format!("this submission has no unit {number}"))
                .file(dir.path())
                .expected(format!("a unit from 0 to {last}")));
        }
        files.check_writable(&submission.results).map_err(|error| {
            Error::input(format!("the results cannot be written from {}", host_name()))
                .file(&submission.results)
                .expected("a directory on a file system that every node shares and may write to")
                .because(error)
        })?;
        if own_digest(&submission.binary.path)? != submission.binary.sha256 {
            return Err(submission
                .changed("nanorun is not the program that this was submitted with")
                .file(&submission.binary.path));
        }
        let manifest = dir.file("manifest.toml");
        let bytes = files.read(&manifest)?;
        if Digest::of(&bytes) != submission.manifest.sha256 {
            return Err(submission.changed("the manifest of this submission was changed").file(manifest));
        }
        scripts(files, dir, &submission)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| submission.changed("the manifest of this submission is not UTF-8").file(manifest))?;
        Ok(Self { submission, dir: dir.clone(), number, text })
    }

    /// The unit.
    pub fn unit(&self) -> Option<&FrozenUnit> {
        self.submission.units.get(self.number)
    }

    /// The keys of its runs.
    pub fn keys(&self) -> BTreeSet<Digest> {
        self.unit().into_iter().flat_map(|unit| &unit.runs).map(|run| run.key).collect()
    }

    /// The experiment as it was frozen; goes to the directory in which it was submitted. Of the environment, `here` has
    /// what paths refer to.
    ///
    /// # Errors
    /// That directory is not here; a plan with other runs: the data are not those that were there.
    pub fn experiment(&self, here: &[(String, String)]) -> Result<Experiment> {
        let Submission { directory, results, .. } = &self.submission;
        std::env::set_current_dir(directory).map_err(|error| {
            Error::input(format!("{} has no directory from which this was submitted", host_name()))
                .file(directory)
                .expected("the same directories on every node")
                .because(error)
        })?;
        let paths = here.iter().filter(|(name, _)| !name.starts_with("NANORUN_")).cloned();
        let frozen = self.submission.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        let options = Options {
            profile: self.submission.profile.clone(),
            sets: self.submission.sets.clone(),
            only: self.submission.only.clone(),
            env: paths.chain(frozen).collect(),
        };
        let manifest = Manifest::parse(&self.submission.manifest.path, &self.text, &options)?;
        let place = results.parent().unwrap_or(Path::new("results"));
        let shards = FrozenShards::new(&self.submission.shards);
        let mut experiment = Experiment::of_frozen(manifest, place, shards)?;
        experiment.require_data_here()?;
        experiment.expect_classes(self.submission.classes.clone());
        self.require_same_files(&experiment)?;
        if plan_digest(&experiment) != self.submission.plan {
            return Err(self
                .submission
                .changed("the runs of this experiment are not those that were submitted")
                .file(self.dir.path())
                .expected("the same text shards, tokenizer and initial weights on every node"));
        }
        Ok(experiment)
    }

    /// Refuses shards that were not there when this was submitted, and the want of those that were. That each is what it was,
    /// its digest says.
    fn require_same_files(&self, experiment: &Experiment) -> Result<()> {
        let paths =
            |shards: Vec<FrozenShard>| shards.into_iter().map(|shard| shard.path).collect::<BTreeSet<_>>();
        // Of earlier versions nothing is known.
        if self.submission.shards.is_empty() {
            return Ok(());
        }
        let (before, now) = (paths(self.submission.shards.clone()), paths(experiment.frozen_shards()?));
        let (what, path) = match (now.difference(&before).next(), before.difference(&now).next()) {
            (Some(more), _) => ("other data: this shard was not there", more),
            (None, Some(less)) => ("other data: this shard is no longer there", less),
            (None, None) => return Ok(()),
        };
        Err(self.submission.changed(what).file(path))
    }

    /// Writes down that nothing is left of this unit: what starts the worker may come to another opinion, as `srun` does
    /// whose node is gone.
    pub fn is_done(&self) {
        self.note(&format!("done on {}", host_name()));
    }

    /// Writes down that another try of this unit would come to the same.
    pub fn is_final(&self, why: &str) {
        self.note(&format!("final {why}"));
    }

    fn note(&self, what: &str) {
        let line = format!("{} {what}\n", crate::files::utc_now());
        let path = self.dir.events_file(self.number);
        // Added at the end in one go, as the job's script does it: no line of the other is written over. It is for people,
        // and saves a needless try: work is not lost where it cannot be written.
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

impl Submission {
    /// The command that submits it again.
    pub fn command(&self) -> String {
        let mut words = vec![self.manifest.path.display().to_string()];
        words.extend(self.profile.iter().flat_map(|profile| ["--profile".to_owned(), profile.clone()]));
        for (option, values) in [("--set", &self.sets), ("--only", &self.only)] {
            words.extend(values.iter().flat_map(|value| [option.to_owned(), value.clone()]));
        }
        if self.results.parent() != Some(&self.directory.join("results")) {
            let place = self.results.parent().map(|place| place.display().to_string()).unwrap_or_default();
            words.extend(["--results".to_owned(), place]);
        }
        let mut command = "nanorun submit".to_owned();
        for word in words {
            let _ = write!(command, " {}", quoted(&word));
        }
        if self.engine != super::Engine::Slurm {
            let _ = write!(command, " --engine {}", self.engine.word());
        }
        command
    }

    /// The error of what is not what it was.
    fn changed(&self, what: &str) -> Error {
        Error::new(Class::Input, what).expected("what was frozen when it was submitted").help(format!(
            "nanorun cancel {}, then submit what is left: {}",
            quoted(&self.results.display().to_string()),
            self.command()
        ))
    }
}

/// Makes sure that the scripts are what was frozen.
pub(super) fn scripts(files: &Files, dir: &SubmissionDir, submission: &Submission) -> Result<()> {
    for (name, sha256) in [("job.sh", submission.script), ("report.sh", submission.report)] {
        let path = dir.file(name);
        let found = files.read_if_there(&path)?.unwrap_or_default();
        if Digest::of(&found) != sha256 {
            return Err(submission.changed("a script of this submission was changed").file(path));
        }
    }
    Ok(())
}
