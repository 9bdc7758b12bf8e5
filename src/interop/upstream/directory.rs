//! Where the files of a checkpoint are.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The directory below the base that base_train writes into.
const BASE_CHECKPOINTS: &str = "base_checkpoints";

/// Directories of shards below the base, the newer data set first.
const SHARDS: [&str; 2] = ["base_data_climbmix", "base_data"];

/// More ranks than anybody has.
const MOST_RANKS: usize = 1 << 16;

/// A checkpoint of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamCheckpoint {
    /// The directory of its run, named by the tag.
    pub dir: PathBuf,
    /// Steps it was trained for.
    pub step: u64,
}

impl UpstreamCheckpoint {
    /// Whether a path names something of upstream's: a base directory, a run's directory, or a model file.
    pub fn is_named_by(path: &Path) -> bool {
        step_of(path).is_some_and(|_| path.is_file())
            || path.join(BASE_CHECKPOINTS).is_dir()
            || has_models(path)
            || (path.is_dir() && runs_in(path).is_ok_and(|runs| !runs.is_empty()))
    }

    /// The checkpoint that a path names: a model file itself, of a run's directory that of `step`, else the last; of a
    /// base directory that of its one run, else of the deepest, as upstream chooses.
    ///
    /// # Errors
    /// No checkpoint there, or several runs of which none is called `d` and a number; class `Input`.
    pub fn find(path: &Path, step: Option<u64>) -> Result<Self> {
        if let Some(found) = step_of(path).filter(|_| path.is_file()) {
            if let Some(asked) = step.filter(|&asked| asked != found) {
                return Err(Error::input(format!(
                    "this file holds step {found}, and step {asked} is asked for"
                ))
                .file(path)
                .help("name the run's directory, or leave out --step"));
            }
            let dir = path.parent().unwrap_or(Path::new("")).to_owned();
            return Ok(Self { dir, step: found });
        }
        let dir = if has_models(path) { path.to_owned() } else { run_of(path)? };
        let steps = steps_in(&dir)?;
        let known = || steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let found = match step {
            None => steps.last().copied(),
            Some(step) => steps.iter().copied().find(|&known| known == step),
        };
        let step = found.ok_or_else(|| {
            let what = format!("there is no model of step {}", step.unwrap_or_default());
            Error::input(what).file(&dir).expected(format!("one of the steps {}", known()))
        })?;
        Ok(Self { dir, step })
    }

    /// What it is called: tag and step.
    pub fn label(&self) -> String {
        format!("{} step {}", self.tag(), self.step)
    }

    /// The run's name: that of its directory.
    pub fn tag(&self) -> String {
        let path = std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone());
        path.file_name().map_or_else(|| "checkpoint".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// Its parameters.
    pub fn model(&self) -> PathBuf {
        self.dir.join(format!("model_{:06}.pt", self.step))
    }

    /// What upstream says of it.
    pub fn meta(&self) -> PathBuf {
        self.dir.join(format!("meta_{:06}.json", self.step))
    }

    /// Its optimizer's state by rank, as far as the files go on without a gap.
    pub fn optimizer(&self) -> Vec<PathBuf> {
        let file = |rank: usize| self.dir.join(format!("optim_{:06}_rank{rank}.pt", self.step));
        (0..MOST_RANKS).map(file).take_while(|path| path.is_file()).collect()
    }

    /// The base directory, where it lies in one.
    fn base(&self) -> Option<PathBuf> {
        let dir = std::path::absolute(&self.dir).ok()?;
        let checkpoints = dir.parent()?;
        let name = checkpoints.file_name()?.to_str()?;
        name.ends_with("_checkpoints").then(|| checkpoints.parent().map(Path::to_owned))?
    }

    /// The tokenizer's directory in the base, where it is there.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        let tokenizer = self.base()?.join("tokenizer");
        tokenizer.join("tokenizer.pkl").is_file().then_some(tokenizer)
    }

    /// The directory of shards in the base, where it is there.
    pub fn shards(&self) -> Option<PathBuf> {
        let base = self.base()?;
        SHARDS.map(|name| base.join(name)).into_iter().find(|dir| dir.is_dir())
    }
}

/// The step of `model_000500.pt`.
fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("model_")?.strip_suffix(".pt")?;
    // Only the exact spelling: the files beside it are found by it.
    let step: u64 = digits.parse().ok()?;
    (format!("{step:06}") == digits).then_some(step)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    };
    read().map_err(|error| Error::input("cannot read a directory").file(dir).because(error))
}

fn steps_in(dir: &Path) -> Result<Vec<u64>> {
    let mut steps: Vec<u64> = entries(dir)?.iter().filter_map(|path| step_of(path)).collect();
    steps.sort_unstable();
    Ok(steps)
}

fn has_models(dir: &Path) -> bool {
    dir.is_dir() && steps_in(dir).is_ok_and(|steps| !steps.is_empty())
}

/// The runs' directories in one of checkpoints, by name.
fn runs_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut runs: Vec<PathBuf> = entries(dir)?.into_iter().filter(|path| has_models(path)).collect();
    runs.sort();
    Ok(runs)
}

/// The run of a base directory, or of its directory of checkpoints.
fn run_of(path: &Path) -> Result<PathBuf> {
    let checkpoints = path.join(BASE_CHECKPOINTS);
    let place = if checkpoints.is_dir() { checkpoints } else { path.to_owned() };
    let runs = runs_in(&place)?;
    if let [one] = runs.as_slice() {
        return Ok(one.clone());
    }
    let depth = |run: &Path| run.file_name()?.to_str()?.strip_prefix('d')?.parse::<u64>().ok();
    if let Some((_, deepest)) =
        runs.iter().filter_map(|run| Some((depth(run)?, run))).max_by_key(|(depth, _)| *depth)
    {
        return Ok(deepest.clone());
    }
    let names: Vec<String> = runs.iter().map(|run| run.display().to_string()).collect();
    Err(match names.as_slice() {
        [] => Error::input("there is no checkpoint of upstream's here")
            .file(&place)
            .expected("model_NNNNNN.pt and meta_NNNNNN.json, as base_train leaves them"),
        _ => Error::input("several runs have checkpoints here")
            .file(&place)
            .expected(format!("one of them by its directory:\n    {}", names.join("\n    "))),
    })
}
