//! Runs in this process: stopped, killed, damaged, in the dark; and always the result of the undisturbed one.

mod damage;
mod last_bits;
mod legal;
mod power;
mod resume;
mod saves;
mod stop;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::engine::engine;
use super::library::Library;
use super::single::{Donor, Outcome, Setting, train};
use super::state::Start;
use super::task::Task;
use crate::data::Cache;
use crate::error::Result;
use crate::files::{Files, now};
use crate::manifest::{Manifest, Options};
use crate::plan::plan;
use crate::plan::prefix::PrefixForest;
use crate::record::{HostFacts, RunDir, RunResult, Timings};
use crate::stop::StopFlag;
use crate::train::checkpoint::CheckpointStore;
use crate::train::observer::{Event, Observer, Origin};

/// nanochat's GPT, as small as it goes.
const GPT: &str = include_str!("../../tests/fixtures/manifests/tiny.toml");

/// Short documents: a checkpoint holds the next thousand of them.
fn names() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/data/names.txt")
}

/// A small model on names.
fn small(kind: &str) -> String {
    let names = names();
    format!(
        "name = \"small\"\nupstream.commit = \"92d63d4\"\nrun = {{ seed = 1, backend = \"cpu\" }}\n\
         budget.steps = 5\nschedule.warmdown = \"linear\"\nmodel = {{ kind = \"{kind}\", sequence_len = 8 }}\n\
         data = {{ shards = \"{}\", document = \"line\", tokenizer = \"char\" }}\neval.tokens = 64\n",
        names.display()
    )
}

/// Data, opened once.
struct Lab {
    library: Library,
}

impl Lab {
    fn new() -> Self {
        Self { library: Library::new(Cache::at(std::env::temp_dir().join("nanorun-test-cache"))) }
    }

    /// The first run of a manifest that `--set`s select.
    fn task(&self, manifest: &str, sets: &[&str]) -> Task {
        let options =
            Options { sets: sets.iter().map(|&set| set.to_owned()).collect(), ..Options::default() };
        let manifest = Manifest::parse(Path::new("m.toml"), manifest, &options).unwrap();
        let plan = plan(&manifest, &self.library).unwrap();
        let selected = manifest.cells.iter().position(|cell| cell.selected).unwrap();
        Task::new("run".to_owned(), &plan.runs[selected])
    }

    /// A GPT of `steps` steps with an evaluation of four batches every two.
    fn gpt(&self, steps: u64, sets: &[&str]) -> Task {
        let steps = format!("budget.steps={steps}");
        let shards = format!("data.shards={:?}", names().display().to_string());
        let all = [
            &["run.seed=1", "schedule.warmdown=\"linear\"", "eval.every=2", &steps, &shards],
            &["data.document=\"line\"", "data.tokenizer=\"char\""][..],
            sets,
        ];
        self.task(GPT, &all.concat())
    }

    /// Trains from wherever `attempt.dir` stands.
    fn train(&self, task: &Task, attempt: &Attempt<'_>) -> (Result<Outcome>, Seen) {
        let rows = self.library.rows(&task.config).unwrap();
        let mut engine = engine(&task.config, attempt.threads).unwrap();
        engine.stop_on(&attempt.flag);
        let dir = RunDir::at(&attempt.dir);
        let (asked, begun, read) = (Cell::new(0), now(), Cell::new(0));
        let setting = Setting {
            files: &attempt.files,
            dir: &dir,
            start: &Start { attempt: dir.attempt(1), from: None },
            rerun: attempt.rerun,
            rows: rows.as_ref(),
            threads: attempt.threads,
            donors: attempt.donors,
            forks: attempt.forks,
            generation: 1,
            alone: attempt.alone,
            core: None,
            samples: &|_| Ok(String::new()),
            stop: &|| {
                asked.set(asked.get() + 1);
                attempt.flag.is_raised() || attempt.stop_at.is_some_and(|at| asked.get() > at)
            },
            clock: &|| {
                read.set(read.get() + 1);
                begun + attempt.tick * read.get()
            },
        };
        let mut seen = Seen::default();
        let outcome = train(task, &setting, engine.as_mut(), &mut seen);
        seen.asked = asked.get();
        (outcome, seen)
    }

    /// Trains to the end and returns the result.
    #[track_caller]
    fn finish(&self, task: &Task, attempt: &Attempt<'_>) -> (RunResult, Seen) {
        match self.train(task, attempt) {
            (Ok(Outcome::Finished(result)), seen) => (Arc::unwrap_or_clone(result), seen),
            (other, _) => panic!("{other:?}"),
        }
    }

    /// The result of a run that nothing disturbs.
    fn undisturbed(&self, task: &Task) -> RunResult {
        let place = tempfile::tempdir().unwrap();
        self.finish(task, &Attempt::at(place.path())).0
    }
}

/// How a run is trained.
struct Attempt<'a> {
    files: Files,
    dir: PathBuf,
    threads: usize,
    donors: &'a [Donor],
    forks: &'a [u64],
    /// How often it may ask whether to stop before it is told to.
    stop_at: Option<usize>,
    /// What the engine stops on, and the session.
    flag: StopFlag,
    /// How far the clock goes between two looks at it.
    tick: Duration,
    /// Whether its memory is the process's: that of other tests is then in it.
    alone: bool,
    /// Whether it was asked to train again.
    rerun: bool,
}

impl Attempt<'_> {
    /// Undisturbed, in `dir`.
    fn at(dir: &Path) -> Self {
        Self {
            files: Files::unsynced(),
            dir: dir.to_owned(),
            threads: 2,
            donors: &[],
            forks: &[],
            stop_at: None,
            flag: StopFlag::default(),
            tick: Duration::ZERO,
            alone: false,
            rerun: false,
        }
    }

    fn store(&self) -> CheckpointStore {
        CheckpointStore::new(Files::new(), RunDir::at(&self.dir).attempt(1).checkpoints())
    }
}

/// What a run told.
#[derive(Debug, Default)]
struct Seen {
    started: Option<(u64, Origin)>,
    saved: Vec<u64>,
    notes: Vec<String>,
    /// Steps trained.
    steps: u64,
    /// How often it asked whether to stop.
    asked: usize,
}

impl Observer for Seen {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { step, origin } => self.started = Some((*step, *origin)),
            Event::Saved { step } => self.saved.push(*step),
            Event::Note(note) => self.notes.push((*note).to_owned()),
            Event::Step(_) => self.steps += 1,
            _ => {}
        }
    }
}

/// Steps that the second may take over from the first.
fn shared_steps(donor: &Task, fork: &Task) -> u64 {
    let donors = PrefixForest::of(&[&donor.config, &fork.config]).donors(|_, _| donor.evaluates_like(fork));
    donors[1].map_or(0, |(_, steps)| steps)
}

/// Everything of a result that is no timing and no fact of the host.
fn exact(result: &RunResult) -> RunResult {
    RunResult { timings: Timings::default(), host: HostFacts::default(), ..result.clone() }
}

#[track_caller]
fn assert_same(found: &RunResult, expected: &RunResult, what: &str) {
    assert_eq!(found.result_hash, expected.result_hash, "{what}");
    assert!(exact(found) == exact(expected), "{what}: a value beside the hashes differs");
}
