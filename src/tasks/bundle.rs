//! A bundle on disk: every file read and checked before anything is computed.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::example::{Example, TaskKind};
use super::lines::{Line, Lines};
use super::yaml::Yaml;
use super::{csv_table, yaml};
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};
use crate::rng::PythonRandom;

/// The list of tasks.
const TASKS: &str = "core.yaml";
/// What guessing reaches.
const BASELINES: &str = "eval_meta_data.csv";
/// Where the examples are.
const DATA: &str = "eval_data";
/// Longer lists of tasks or baselines are refused: upstream's have a few kilobytes.
const MOST_BYTES: u64 = 4 << 20;
/// Solved examples before the one that is asked, at most.
const MOST_SHOTS: usize = 1000;
/// The seed that a task's examples are shuffled with: upstream's.
const SHUFFLE_SEED: u64 = 1337;
/// What follows a context where a task does not say: upstream's.
const DELIMITER: &str = " ";
/// What decides how a bundle is evaluated, apart from its files: raised when values may become others.
const VERSION: u64 = 1;

/// How much of a bundle is evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Examples of a task, the first of them once shuffled; none is all.
    pub max_per_task: Option<u64>,
}

/// A bundle that was found sound.
#[derive(Debug)]
pub struct Bundle {
    /// Its tasks, in its order; at least one.
    pub tasks: Vec<Task>,
    limits: Limits,
}

/// A task.
#[derive(Debug)]
pub struct Task {
    /// Its name.
    pub label: String,
    /// What it asks for.
    pub kind: TaskKind,
    /// Solved examples before the one that is asked.
    pub shots: usize,
    /// Percent of examples that guessing gets right, below 100.
    pub random_baseline: f64,
    pub(super) delimiter: String,
    lines: Lines,
    /// The examples that are evaluated, and that shots are taken from: shuffled, then cut.
    order: Vec<Line>,
}

impl Bundle {
    /// Opens a bundle.
    ///
    /// # Errors
    /// A file that is missing or not what it should be, an unknown kind of task, tasks without examples or with fewer than
    /// their shots take; class `Input`.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self> {
        let path = dir.join(TASKS);
        let text = String::from_utf8(read(&path, dir)?)
            .map_err(|error| Error::input("the list of tasks is not UTF-8").file(&path).because(error))?;
        let list = yaml::read(&text).map_err(|(what, line)| {
            let error = Error::input(format!("the list of tasks cannot be read: {what}")).file(&path);
            match line {
                Some(line) => error.line(line),
                None => error,
            }
        })?;
        let baselines_path = dir.join(BASELINES);
        let baselines = csv_table::read(&read(&baselines_path, dir)?).map_err(|(what, line)| {
            let error =
                Error::input(format!("the table of baselines cannot be read: {what}")).file(&baselines_path);
            match line {
                Some(line) => error.line(line),
                None => error,
            }
        })?;
        let bad = |what: String| Error::input(what).file(&path);
        let list = list.get("icl_tasks").and_then(Yaml::items).ok_or_else(|| {
            bad("there is no list of tasks".to_owned())
                .key("icl_tasks")
                .expected("a list, as upstream's core.yaml has")
        })?;
        let mut tasks: Vec<Task> = Vec::new();
        for entry in list {
            let described = Described::of(entry).map_err(|error| error.file(&path))?;
            let label = described.label.clone();
            if tasks.iter().any(|known| known.label == label) {
                return Err(bad(format!("two tasks are called `{label}`")));
            }
            let baseline = *baselines.get(&label).ok_or_else(|| {
                Error::input(format!("the table of baselines has no row of `{label}`"))
                    .file(&baselines_path)
                    .expected("a row for each task of core.yaml")
            })?;
            tasks.push(described.open(dir, baseline, limits)?);
        }
        if tasks.is_empty() {
            return Err(bad("the list of tasks is empty".to_owned())
                .key("icl_tasks")
                .expected("at least one task"));
        }
        Ok(Self { tasks, limits })
    }

    /// How much of it is evaluated.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Hash of everything but the model that decides its number: files, baselines and limits.
    pub fn digest(&self) -> Digest {
        let mut canonical = Canonical::new("nanorun core bundle");
        for task in &self.tasks {
            canonical
                .str("label", &task.label)
                .f64("baseline", task.random_baseline)
                .digest("task", &task.digest());
        }
        canonical.finish()
    }

    /// Examples of all tasks.
    pub fn examples(&self) -> usize {
        self.tasks.iter().map(Task::examples).sum()
    }
}

/// A task as the list describes it.
struct Described {
    label: String,
    kind: TaskKind,
    shots: usize,
    delimiter: String,
    file: PathBuf,
}

impl Described {
    fn of(entry: &Yaml) -> Result<Self> {
        let text = |key: &'static str| {
            let text = entry.get(key).and_then(Yaml::text).filter(|text| !text.is_empty());
            text.ok_or_else(|| Error::input(format!("a task has no `{key}`")).key(key).expected("a text"))
        };
        let label = text("label")?.to_owned();
        let of = |error: Error| error.key(label.clone());
        let kind = text("icl_task_type").map_err(of)?;
        let kind = TaskKind::of(kind).ok_or_else(|| {
            of(Error::input(format!("`{label}` is a task of an unknown type, `{kind}`"))
                .expected("multiple_choice, schema or language_modeling"))
        })?;
        let shots = entry.get("num_fewshot").and_then(Yaml::items).and_then(<[Yaml]>::first);
        let shots = shots.and_then(Yaml::text).and_then(|text| text.parse().ok());
        let shots = shots.filter(|shots| *shots <= MOST_SHOTS).ok_or_else(|| {
            of(Error::input(format!("the `num_fewshot` of `{label}` cannot be used"))
                .expected(format!("a list that begins with a number up to {MOST_SHOTS}, such as [10]")))
        })?;
        let delimiter = match entry.get("continuation_delimiter") {
            Some(delimiter) => delimiter.text().map(str::to_owned).ok_or_else(|| {
                of(Error::input(format!("the `continuation_delimiter` of `{label}` is no text")))
            })?,
            None => DELIMITER.to_owned(),
        };
        let file = Path::new(text("dataset_uri").map_err(of)?).to_owned();
        if file.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(of(Error::input(format!("the `dataset_uri` of `{label}` leads out of the bundle"))
                .expected(format!("a path below {DATA}/"))));
        }
        Ok(Self { label, kind, shots, delimiter, file })
    }

    fn open(self, dir: &Path, random_baseline: f64, limits: Limits) -> Result<Task> {
        let Self { label, kind, shots, delimiter, file } = self;
        let path = dir.join(DATA).join(file);
        let (lines, mut order) =
            Lines::open(&path, &mut |line| Example::of(line.trim_ascii(), kind).map(drop))?;
        let all = order.len();
        if u32::try_from(all).is_err() {
            return Err(Error::input("a file of examples has too many lines").file(&path));
        }
        PythonRandom::new(SHUFFLE_SEED).shuffle(&mut order);
        order.truncate(limits.max_per_task.map_or(all, |most| usize::try_from(most).unwrap_or(all)));
        order.shrink_to_fit();
        if order.len() <= shots {
            let cut = if order.len() < all {
                format!(", of which {} are evaluated", order.len())
            } else {
                String::new()
            };
            let what = match shots {
                0 => format!("`{label}` has no examples"),
                _ => format!("`{label}` shows {shots} solved examples before each, and there are {all}{cut}"),
            };
            let error = Error::input(what).file(&path).key(label).expected(format!("{} or more", shots + 1));
            return Err(if all > shots {
                error.help(format!("evaluate {} examples a task or more", shots + 1))
            } else {
                error
            });
        }
        Ok(Task { label, kind, shots, random_baseline, delimiter, lines, order })
    }
}

impl Task {
    /// How many examples are evaluated; at least one.
    pub fn examples(&self) -> usize {
        self.order.len()
    }

    /// Hash of what decides how many of its examples are right, apart from the model.
    pub fn digest(&self) -> Digest {
        let mut canonical = Canonical::new("nanorun core task");
        canonical.u64("version", VERSION).str("kind", self.kind.name()).u64("shots", self.shots as u64);
        canonical.str("delimiter", &self.delimiter).digest("file", &self.lines.sha256);
        canonical.u64("examples", self.order.len() as u64).finish()
    }

    /// The example at a place of the order in which they are evaluated.
    ///
    /// # Errors
    /// A file that is no longer what it was.
    pub(super) fn example(&self, index: usize) -> Result<Example> {
        let line = *self.order.get(index).ok_or_else(|| Error::internal("an example beyond the last"))?;
        Example::of(self.lines.read(line)?.trim_ascii(), self.kind).map_err(|error| self.locate(index, error))
    }

    /// The solved examples before that one: drawn anew for each, as upstream draws them.
    ///
    /// # Errors
    /// As [`Task::example`].
    pub(super) fn shots_of(&self, index: usize) -> Result<Vec<Example>> {
        if self.shots == 0 {
            return Ok(Vec::new());
        }
        let drawn = PythonRandom::new(1234 + index as u64).sample(self.order.len() - 1, self.shots);
        drawn.into_iter().map(|other| self.example(other + usize::from(other >= index))).collect()
    }

    /// Adds to an error where the example stands.
    pub(super) fn locate(&self, index: usize, error: Error) -> Error {
        let error = error.file(self.lines.path()).key(self.label.clone());
        match self.order.get(index) {
            Some(line) => error.line(line.number),
            None => error,
        }
    }
}

/// A small file of the bundle in `dir`.
fn read(path: &Path, dir: &Path) -> Result<Vec<u8>> {
    let cannot = |error: std::io::Error| {
        Error::input("cannot read a file of an evaluation bundle")
            .file(path)
            .because(error)
            .expected(format!("{TASKS}, {BASELINES} and {DATA}/ in {}", dir.display()))
            .help("name the directory that upstream's eval_bundle.zip unpacks to")
    };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    match read.map_err(cannot)? as u64 {
        len if len > MOST_BYTES => {
            Err(Error::input(format!("a file of an evaluation bundle has more than {MOST_BYTES} bytes"))
                .file(path))
        }
        _ => Ok(bytes),
    }
}
