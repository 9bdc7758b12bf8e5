//! Freezing an experiment: everything that its jobs will read, decided now.

use std::io::Read as _;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::share::Share;
use super::submission::{Engine, FORMAT, FrozenFile, FrozenRun, FrozenUnit, Submission, SubmissionDir};
use super::{hyperqueue, slurm};
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::files::{Files, reopened, utc_now};
use crate::hash::Digest;
use crate::manifest::ClusterSettings;
use crate::manifest::settings::OneOrMany;
use crate::run::state::Standing;
use crate::train::evaluation::eval_settings;

/// A submission that is not written yet.
#[derive(Debug)]
pub struct Draft {
    /// What it says.
    pub submission: Submission,
    /// Where it will be.
    pub dir: SubmissionDir,
    /// `job.sh`.
    pub script: String,
    /// `report.sh`.
    pub report: String,
    manifest: String,
}

/// Freezes an experiment and its units. `standings` are those of its runs, by which environment classes are known where
/// something is finished.
///
/// # Errors
/// A program or directories that cannot be told; a path that a scheduler would read something into; `cluster.file`; shards
/// that are gone meanwhile.
pub fn freeze(
    experiment: &Experiment,
    standings: &[Option<Standing>],
    share: &Share,
    engine: Engine,
) -> Result<Draft> {
    let cluster = experiment.manifest.cluster()?;
    let results = absolute(experiment.dir.path().to_owned())?;
    let created = utc_now();
    let digits: String = created.chars().filter(char::is_ascii_alphanumeric).collect();
    let dir = free(results.join("submit").join(digits.trim_end_matches('Z')));
    let binary = std::env::current_exe()
        .map_err(|error| Error::input("nanorun cannot tell where its own program is").because(error))?;
    let directory = std::env::current_dir()
        .map_err(|error| Error::input("the working directory cannot be told").because(error))?;
    for (what, path) in
        [("results", &results), ("nanorun's program", &binary), ("this directory", &directory)]
    {
        let text = path.to_str().unwrap_or("\0");
        // Slurm takes a backslash for its own, and lines end where they end.
        if text.chars().any(|letter| letter.is_control() || letter == '\\') {
            return Err(Error::input(format!("the path of {what} is none that a scheduler can be given"))
                .file(path)
                .expected("a path in UTF-8 without line ends, other control characters and backslashes"));
        }
    }
    let sha256 = own_digest(&binary)?;
    let manifest = &experiment.manifest;
    let mut submission = Submission {
        format: FORMAT,
        created,
        nanorun: env!("CARGO_PKG_VERSION").to_owned(),
        engine,
        binary: FrozenFile { path: binary, sha256 },
        manifest: FrozenFile { path: manifest.file.clone(), sha256: Digest::of(manifest.text.as_bytes()) },
        directory,
        results,
        profile: manifest.profile.clone(),
        sets: manifest.sets.clone(),
        only: manifest.only.clone(),
        env: manifest.env.clone(),
        plan: plan_digest(experiment),
        script: Digest::of(b""),
        report: Digest::of(b""),
        classes: experiment.known_classes(standings)?,
        cluster,
        shards: experiment.frozen_shards()?,
        units: units(experiment, share),
    };
    let threads_are_written = manifest.selected_cells().any(|cell| cell.settings.run.threads.is_some());
    let report = match engine {
        Engine::Slurm => slurm::report_script(&submission, &dir),
        Engine::Hyperqueue => hyperqueue::report_script(&submission, &dir),
    };
    submission.report = Digest::of(report.as_bytes());
    let script = match engine {
        Engine::Slurm => slurm::job_script(&submission, &dir, threads_are_written),
        Engine::Hyperqueue => {
            hyperqueue::job_script(&submission, &dir, threads_are_written, &submission.report)
        }
    };
    submission.script = Digest::of(script.as_bytes());
    Ok(Draft { submission, dir, script, report, manifest: manifest.text.clone() })
}

impl Draft {
    /// Writes it, as a whole.
    ///
    /// # Errors
    /// Results that cannot be written.
    pub fn write(&self, files: &Files) -> Result<()> {
        let place = self.submission.results.join("submit");
        files.create_dir_all(&place)?;
        let staged = files.stage_dir(self.dir.path())?;
        // Before anything is submitted: Slurm before 23.02 says nothing where the directory of a log is missing.
        staged.create_dir("logs")?;
        staged.create_dir("events")?;
        staged.create_dir(super::jobs::PLACE)?;
        staged.write("manifest.toml", self.manifest.as_bytes())?;
        staged.write("job.sh", self.script.as_bytes())?;
        staged.write("report.sh", self.report.as_bytes())?;
        staged.write("submission.toml", self.submission.text()?.as_bytes())?;
        Ok(staged.commit()?)
    }

    /// Makes sure that what the scheduler is about to be given is what was frozen.
    ///
    /// # Errors
    /// Somebody changed a script.
    pub fn verify(&self, files: &Files) -> Result<()> {
        super::verify::scripts(files, &self.dir, &self.submission)
    }

    /// Takes back what was written, where nothing was submitted.
    pub fn take_back(&self, files: &Files) {
        // What stays is a submission without jobs, which nobody minds.
        let _ = files.discard_dir(self.dir.path());
    }
}

/// The SHA-256 of this process's own program.
pub(super) fn own_digest(binary: &std::path::Path) -> Result<Digest> {
    // The file that runs, also where another one has its name by now.
    let running = std::path::Path::new("/proc/self/exe");
    let path = if running.exists() { running } else { binary };
    let failed = |error| Error::input("nanorun's own program cannot be read").file(binary).because(error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = reopened(|| file.read(&mut piece)).map_err(failed)?;
        match piece.get(..read) {
            Some(part) if !part.is_empty() => hash.update(part),
            _ => return Ok(Digest::from(<[u8; 32]>::from(hash.finalize()))),
        }
    }
}

/// Over the keys of all runs.
pub(super) fn plan_digest(experiment: &Experiment) -> Digest {
    let keys: Vec<String> = experiment.plan.runs.iter().map(|run| run.key.run.to_string()).collect();
    Digest::of(keys.join("\n").as_bytes())
}

/// What the shell of a job does before the worker starts.
pub(super) fn setup(cluster: &ClusterSettings) -> String {
    let mut text = String::new();
    let lines = cluster.setup.iter().flat_map(OneOrMany::as_slice);
    for (at, line) in lines.enumerate() {
        if at == 0 {
            text.push_str("\n# cluster.setup\n");
        }
        text.push_str(line);
        text.push('\n');
    }
    if let Some(cache) = &cluster.cache {
        text.push_str("\n# cluster.cache\nexport NANORUN_CACHE=");
        text.push_str(&with_variables(cache));
        text.push('\n');
    }
    text
}

/// A path for a shell that puts variables into it, `$NAME` and `${NAME}`, and does nothing else with it.
fn with_variables(path: &str) -> String {
    let mut text = "\"".to_owned();
    let mut rest = path;
    while let Some(letter) = rest.chars().next() {
        let after = &rest[letter.len_utf8()..];
        let is_name = |name: &str| {
            name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let variable = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').is_some_and(|(name, _)| is_name(name)),
            None => after.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_'),
        };
        if matches!(letter, '"' | '`' | '\\') || letter == '$' && !variable {
            text.push('\\');
        }
        text.push(letter);
        rest = after;
    }
    text.push('"');
    text
}

fn units(experiment: &Experiment, share: &Share) -> Vec<FrozenUnit> {
    let run = |&(index, _): &(usize, u64)| {
        experiment.plan.runs.get(index).map(|run| FrozenRun {
            key: run.key.run,
            label: experiment.label(run),
            steps: run.sizes.steps,
            evaluation: eval_settings(&run.config),
        })
    };
    let unit = |unit: &super::units::Unit| FrozenUnit {
        kind: unit.kind,
        after: unit.after,
        runs: unit.runs.iter().filter_map(run).collect(),
    };
    share.units.iter().map(unit).collect()
}

/// The first of this name that is not taken.
fn free(path: PathBuf) -> SubmissionDir {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let numbered = (2..).map(|number| path.with_file_name(format!("{name}-{number}")));
    let found = std::iter::once(path.clone()).chain(numbered).find(|path| !path.exists());
    SubmissionDir::at(found.unwrap_or(path))
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path)
        .map_err(|error| Error::input("the working directory cannot be told").file(path).because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_puts_variables_in_and_does_nothing_else() {
        assert_eq!(
            with_variables("/scratch/$USER/${SLURM_JOB_ID}/c"),
            "\"/scratch/$USER/${SLURM_JOB_ID}/c\""
        );
        assert_eq!(with_variables("a b'c"), "\"a b'c\"");
        assert_eq!(with_variables("$(rm x)`rm y`\"; rm z"), "\"\\$(rm x)\\`rm y\\`\\\"; rm z\"");
        assert_eq!(with_variables("${x:-$(rm)}$1\\"), "\"\\${x:-\\$(rm)}\\$1\\\\\"");
    }
}
