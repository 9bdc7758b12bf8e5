//! What a command means by a name. One grammar everywhere:
//!
//! - a manifest: `experiments/quickstart.toml`;
//! - a results directory: `results/quickstart`, or `quickstart` where it lies in the results of the command;
//! - a run: `results/quickstart/4734d3` with the first digits of its key, or its directory;
//! - a checkpoint: its directory.

use std::path::{Component, Path, PathBuf};

use super::layout::ExperimentDir;
use super::plan_record::{PlanRecord, PlannedRun};
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::manifest::nearest;

/// What was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A manifest, which may not be there.
    Manifest(PathBuf),
    /// The results of an experiment.
    Results(ExperimentDir),
    /// A run of an experiment.
    Run {
        /// The experiment.
        results: ExperimentDir,
        /// The first digits of its key.
        key: String,
    },
    /// A checkpoint of a run of an experiment.
    Checkpoint {
        /// The experiment.
        results: ExperimentDir,
        /// The first digits of the run's key.
        key: String,
        /// Its directory.
        dir: PathBuf,
    },
}

impl Named {
    /// What `name` names; `results` is where the command keeps results.
    ///
    /// # Errors
    /// A name that names nothing, class `Input`.
    pub fn read(name: &Path, results: &Path) -> Result<Self> {
        if name.is_file() {
            return Ok(Self::Manifest(name.to_owned()));
        }
        if let Some(found) = Self::below_results(name) {
            return Ok(found);
        }
        // Of a name alone, and of its run.
        if name.is_relative()
            && let Some(found) = Self::below_results(&results.join(name))
        {
            return Ok(found);
        }
        if name.is_dir() || name.extension().is_some_and(|extension| extension == "toml") {
            // What is wrong with it as a manifest, reading it says best.
            return Ok(Self::Manifest(name.to_owned()));
        }
        let what = format!("there is no manifest, no results directory and no run `{}`", name.display());
        let error = Error::input(what).expected(
            "a manifest, a results directory such as results/quickstart, results/quickstart/KEY with the first digits \
             of a run's key, or a checkpoint's directory",
        );
        Err(match Self::meant(name, results) {
            Some(meant) => error.help(format!("did you mean `{meant}`?")),
            None => error,
        })
    }

    /// The experiment whose name is nearest to what was named, as it would have to be named.
    fn meant(name: &Path, results: &Path) -> Option<String> {
        // The last part may be a run's key.
        name.ancestors().take(2).find_map(|path| {
            let word = path.file_name()?.to_str()?;
            let beside = path.parent().filter(|parent| parent.is_dir());
            let places = beside.into_iter().chain(std::iter::once(results).filter(|_| name.is_relative()));
            places.into_iter().find_map(|place| {
                let there = experiments_in(place).ok()?;
                let names: Vec<String> = there
                    .iter()
                    .filter_map(|dir| Some(dir.path().file_name()?.to_str()?.to_owned()))
                    .collect();
                let near = nearest(word, names.iter().map(String::as_str))?;
                Some(place.join(near).display().to_string())
            })
        })
    }

    /// A results directory, or something in one.
    fn below_results(path: &Path) -> Option<Self> {
        let is_results = |dir: &Path| dir.join(super::plan_record::NAME).is_file();
        let experiment = path.ancestors().find(|dir| !dir.as_os_str().is_empty() && is_results(dir))?;
        let results = ExperimentDir::at(experiment);
        let below: Vec<String> = path
            .strip_prefix(experiment)
            .ok()?
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_string_lossy().into_owned(),
                other => other.as_os_str().to_string_lossy().into_owned(),
            })
            .collect();
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        let is_key =
            |key: &str| (1..=64).contains(&key.len()) && key.bytes().all(|digit| digit.is_ascii_hexdigit());
        match below.as_slice() {
            [] => Some(Self::Results(results)),
            [key] | ["runs", key] if is_key(key) => {
                Some(Self::Run { results, key: key.to_ascii_lowercase() })
            }
            ["runs", key, rest @ ..] if is_key(key) && path.is_dir() => {
                let key = key.to_ascii_lowercase();
                match rest {
                    [.., "checkpoints", step] if step.starts_with("step_") => {
                        Some(Self::Checkpoint { results, key, dir: path.to_owned() })
                    }
                    _ => Some(Self::Run { results, key }),
                }
            }
            _ => None,
        }
    }

    /// The results it is of; none of a manifest.
    pub fn results(&self) -> Option<&ExperimentDir> {
        match self {
            Self::Manifest(_) => None,
            Self::Results(results) | Self::Run { results, .. } | Self::Checkpoint { results, .. } => {
                Some(results)
            }
        }
    }

    /// The first digits of the run's key, where it names one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Run { key, .. } | Self::Checkpoint { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// The experiments whose results lie in a directory, in the order of their names.
///
/// # Errors
/// A directory that cannot be read; class `Input`.
pub fn experiments_in(results: &Path) -> Result<Vec<ExperimentDir>> {
    let entries = std::fs::read_dir(results).map_err(|error| {
        let what = if error.kind() == std::io::ErrorKind::NotFound {
            "there are no results: the directory does not exist".to_owned()
        } else {
            format!("the results cannot be read: {error}")
        };
        Error::input(what).file(results).expected("a directory of results, such as --results results")
    })?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.join(super::plan_record::NAME).is_file());
    found.sort();
    Ok(found.into_iter().map(ExperimentDir::at).collect())
}

/// Keys or names that an error lists.
const LISTED: usize = 8;

/// The one key among `keys` that begins with `digits`; `keys` go with what their runs are called.
///
/// # Errors
/// None or several; class `Input`.
pub fn key_of(digits: &str, keys: &[(Digest, String)]) -> Result<Digest> {
    let mut found: Vec<Digest> = keys.iter().map(|(key, _)| *key).collect();
    found.retain(|key| !digits.is_empty() && key.to_string().starts_with(&digits.to_ascii_lowercase()));
    // Cells with one run key are one run.
    found.sort_unstable();
    found.dedup();
    let known = || {
        // The nearest first, where there are too many to list.
        let mut nearest: Vec<&(Digest, String)> = keys.iter().collect();
        if nearest.len() > LISTED {
            let near = |key: &Digest| {
                let short = key.short();
                strsim::damerau_levenshtein(digits, short.get(..digits.len()).unwrap_or(&short))
            };
            nearest.sort_by_key(|(key, _)| near(key));
        }
        let more = nearest.len().saturating_sub(LISTED);
        let mut lines: Vec<String> =
            nearest.iter().take(LISTED).map(|(key, label)| format!("{}  {label}", key.short())).collect();
        if more > 0 {
            lines.push(format!("and {more} more: `nanorun runs EXPERIMENT` lists them"));
        }
        format!("the first digits of one of\n    {}", lines.join("\n    "))
    };
    match found.as_slice() {
        [key] => Ok(*key),
        [] => Err(Error::input(format!("no run's key begins with {digits:?}")).expected(known())),
        _ => Err(Error::input(format!("several runs' keys begin with {digits:?}")).expected(known())),
    }
}

impl PlanRecord {
    /// The run whose key begins with these digits.
    ///
    /// # Errors
    /// None or several; class `Input`.
    pub fn run_of(&self, digits: &str) -> Result<&PlannedRun> {
        let label = |run: &PlannedRun| (run.key, format!("{} seed={}", run.arm, run.seed));
        let key = key_of(digits, &self.runs.iter().map(label).collect::<Vec<_>>())?;
        self.runs
            .iter()
            .find(|run| run.key == key)
            .ok_or_else(|| Error::internal("a run that was found is gone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_grammar_names_everything() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for dir in [
            "results/tiny/runs/4734d3adfbc1/attempt/1/checkpoints/step_000008",
            "results/tiny/runs/fcf76af1918e/checkpoints/step_000002",
            "elsewhere",
        ] {
            std::fs::create_dir_all(path(dir)).unwrap();
        }
        std::fs::write(path("results/tiny/plan.toml"), "").unwrap();
        std::fs::write(path("m.toml"), "").unwrap();
        let results = ExperimentDir::at(path("results/tiny"));
        let read = |name: &str| Named::read(&path(name), Path::new("none"));
        let run = |key: &str| Named::Run { results: results.clone(), key: key.to_owned() };
        assert_eq!(read("m.toml").unwrap(), Named::Manifest(path("m.toml")));
        assert_eq!(read("missing.toml").unwrap(), Named::Manifest(path("missing.toml")));
        assert_eq!(read("elsewhere").unwrap(), Named::Manifest(path("elsewhere")));
        assert_eq!(read("results/tiny").unwrap(), Named::Results(results.clone()));
        assert_eq!(read("results/tiny/").unwrap(), Named::Results(results.clone()));
        assert_eq!(read("results/tiny/47").unwrap(), run("47"));
        assert_eq!(read("results/tiny/47AB").unwrap(), run("47ab"));
        assert_eq!(read("results/tiny/runs/4734d3adfbc1").unwrap(), run("4734d3adfbc1"));
        assert_eq!(read("results/tiny/runs/4734d3adfbc1/attempt/1").unwrap(), run("4734d3adfbc1"));
        for (checkpoint, key) in [
            ("results/tiny/runs/4734d3adfbc1/attempt/1/checkpoints/step_000008", "4734d3adfbc1"),
            ("results/tiny/runs/fcf76af1918e/checkpoints/step_000002", "fcf76af1918e"),
        ] {
            let dir = path(checkpoint);
            let expected = Named::Checkpoint { results: results.clone(), key: key.to_owned(), dir };
            assert_eq!(read(checkpoint).unwrap(), expected);
        }
        // Of the command's own results, by name.
        let short = |name: &str| Named::read(Path::new(name), &path("results"));
        assert_eq!(short("tiny").unwrap(), Named::Results(results.clone()));
        assert_eq!(short("tiny/4734").unwrap(), run("4734"));
        for nothing in ["results/tiny/xyz", "results/tiny/runs/0000/attempt", "results/nope", "nope"] {
            let error = read(nothing).unwrap_err();
            assert_eq!(error.class().exit_code(), 2);
            assert!(error.what().contains("no results directory and no run"), "{error}");
        }
    }

    #[test]
    fn a_key_is_named_by_its_first_digits() {
        let keys = [b"a", b"b", b"a"].map(|bytes| (Digest::of(bytes), "run".to_owned()));
        let (a, b) = (keys[0].0, keys[1].0);
        assert_ne!(a.short()[..1], b.short()[..1]);
        assert_eq!(key_of(&a.short()[..1], &keys).unwrap(), a);
        assert_eq!(key_of(&b.to_string().to_ascii_uppercase(), &keys).unwrap(), b);
        for nothing in ["", "zz"] {
            assert!(key_of(nothing, &keys).unwrap_err().what().starts_with("no run's key begins with"));
        }
    }
}
