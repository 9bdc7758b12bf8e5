//! nanorun: a declarative, bit-exactly reproducible experiment runner for nanochat-style pretraining.
//!
//! A TOML manifest says what to compare; nanorun expands it into a run matrix, trains every run, and leaves
//! tables, hashes and a scorecard that anybody can check. The program is `nanorun`; this library is for those who
//! build on it: they read manifests, plan, carry plans out, read results and judge them.
//!
//! # Manifests and plans
//!
//! A [`Manifest`] is settled cell by cell; [`plan()`] makes a [`Plan`] of it, with the size and the key of every run.
//! Nothing is computed for it; where the data are not here ([`NoData`]), keys are pending.
//!
//! ```
//! # fn main() -> nanorun::Result<()> {
//! use std::path::Path;
//!
//! use nanorun::{Manifest, NoData, Options, plan};
//!
//! let text = r#"
//!     name = "shapes"
//!     upstream.commit = "92d63d4"
//!     run = { seed = 1, backend = "cpu" }
//!     budget.steps = 100
//!     schedule.warmdown = "linear"
//!     model.depth = 2
//!     data.vocab_size = 4096
//!     data.tokenizer.path = "tokenizer"
//!     [matrix]
//!     "schedule.warmdown" = ["linear", "sqrt"]
//! "#;
//! let manifest = Manifest::parse(Path::new("shapes.toml"), text, &Options::default())?;
//! let plan = plan(&manifest, &NoData)?;
//! assert_eq!(plan.arms[1].label, "warmdown=sqrt");
//! assert_eq!(plan.runs[1].sizes.steps, 100);
//! assert!(plan.runs[1].key.pending);
//! // Both shapes are one run until the learning rate falls.
//! assert!(plan.prefixes.forks(1));
//! # Ok(())
//! # }
//! ```
//!
//! # Running
//!
//! An [`Experiment`] is a plan with its data and its directory. [`Experiment::run`] trains what is not finished and
//! returns a [`Report`]; stopped at any moment, it carries on from there the next time.
//!
//! ```no_run
//! # fn main() -> nanorun::Result<()> {
//! use std::path::Path;
//!
//! use nanorun::{Display, Experiment, HowToRun, Options, StopFlag, engine};
//!
//! let (manifest, results) = (Path::new("experiments/quickstart.toml"), Path::new("results"));
//! let experiment = Experiment::load(manifest, &Options::default(), results)?;
//! let report = experiment.run(&HowToRun {
//!     threads: 2,
//!     jobs: None,
//!     share: true,
//!     rerun: false,
//!     reuse: &[],
//!     among: None,
//!     unit: None,
//!     stay: true,
//!     engine: &engine,
//!     display: &Display::lines(),
//!     stop: &StopFlag::default(),
//! })?;
//! println!("{}", report.scorecard);
//! # Ok(())
//! # }
//! ```
//!
//! # Results
//!
//! An [`ExperimentDir`] holds the plan as it was carried out, a [`RunResult`] a run, and tables that are made from
//! those. Reading checks every file against its own checksum.
//!
//! ```no_run
//! # fn main() -> nanorun::Result<()> {
//! use nanorun::{Attempts, ExperimentDir, Files, PlanRecord, RunRow, read_table};
//!
//! let (files, dir) = (Files::new(), ExperimentDir::at("results/quickstart"));
//! for run in PlanRecord::read(&files, &dir)?.runs {
//!     let attempts = Attempts::read(&files, &dir.run(&run.key))?;
//!     if let Some((_, result)) = attempts.result(&run.key, run.evaluation.as_ref()) {
//!         println!("{} seed={}: {:?}", run.arm, run.seed, result.final_value("val_bpb"));
//!     }
//! }
//! let rows: Vec<RunRow> = read_table(&files, &dir.file("runs.parquet"))?;
//! assert!(rows.iter().all(|row| row.steps_done <= row.steps));
//! # Ok(())
//! # }
//! ```
//!
//! # Verdicts
//!
//! [`Experiment::read`] judges what is on disk; [`read_results`] and [`compare`] hold two directories against each
//! other, run by run and bit by bit.
//!
//! ```no_run
//! # fn main() -> nanorun::Result<()> {
//! use nanorun::{ExperimentDir, Files, Tolerance, compare, read_results};
//!
//! let read = |path: &str| read_results(&Files::new(), &ExperimentDir::at(path));
//! let (ours, theirs) = (read("results/quickstart")?, read("other/results/quickstart")?);
//! let theirs: Vec<_> = theirs.candidates.into_iter().filter_map(|candidate| candidate.record).collect();
//! let comparison = compare(&ours.experiment, &ours.candidates, "theirs", &theirs, Tolerance::default());
//! assert!(comparison.passed(), "{comparison}");
//! # Ok(())
//! # }
//! ```

// Modules stand in the order in which data flows: each uses what stands above it, never what stands below.

mod error;
mod text;
mod caught_panics;
mod hash;
mod precision;
mod control_word;
mod math;
mod simd;
mod rng;
mod system;
mod host;
mod files;
mod lease;
mod console;
mod stop;
mod tensors;
mod toml_text;
mod pickle;
mod torch_file;

mod upstream;
mod manifest;
mod data;
mod fetch;

mod ops;
mod model;
mod optim;
mod plan;
mod backend;

mod train;
mod generate;
mod interop;
mod tasks;
mod record;
mod history;
mod run;
mod parity;
mod bench;
mod stats;
mod scorecard;
mod gate;
mod report;
mod ledger;
mod experiment;
mod survey;
mod cluster;
mod cli;

#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;

// The face. What is not here may change from one version to the next.
#[doc(hidden)]
pub use cli::main as command;
pub use error::{Class, Error, Result};
pub use experiment::{Experiment, HowToRun, Report, Worked};
pub use files::{FileError, Files};
pub use gate::{
    Baseline, Candidate, Comparison, Difference, Results, RunComparison, RunOutcome, RunRecord, StepRecord,
    Tolerance, compare, read_results,
};
pub use hash::Digest;
pub use manifest::{Cell, Manifest, Options};
pub use plan::key::RunKey;
pub use plan::prefix::{PrefixForest, PrefixNode};
pub use plan::run_config::RunConfig;
pub use plan::{Arm, DataFacts, Facts, NoData, Plan, PlannedRun, RunSizes, plan};
pub use record::{
    Attempt, AttemptDir, Attempts, Divergence, DocumentRow, EvalRow, ExperimentDir, HostFacts, OwnStepRow,
    PlanRecord, RecordError, Row, RunDir, RunResult, RunRow, ScorecardRow, StepRow, TableError, Timings,
    read_table,
};
pub use run::engine::engine;
pub use run::progress::Display;
pub use run::state::{Standing, Status};
pub use scorecard::{Finding, Outcome, Scorecard, Verdict, VerdictKind};
pub use stop::StopFlag;
pub use train::engine::Engine;
