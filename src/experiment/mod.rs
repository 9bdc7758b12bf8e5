//! A manifest carried out, from its plan to tables and scorecard.

mod anew;
mod carry_out;
mod class;
mod clean;
mod curves;
mod devices;
mod disk;
mod ends;
mod frozen;
mod how;
mod jobs;
mod judge;
mod load;
mod matched;
mod missing;
mod names;
mod outcome;
mod owner;
mod page;
mod pace;
mod pins;
mod post;
mod power;
mod preflight;
mod read;
mod recorded;
mod report;
mod retired;
mod reuse;
mod room;
mod scaling;
mod speed;
mod standing;
mod tables;
mod taking;
mod tokenizer;
mod trained;
mod trial;
mod view;

use crate::files::Files;
use crate::hash::Digest;
use crate::manifest::Manifest;
use crate::plan::Plan;
use crate::plan::run_config::BackendKind;
use crate::record::ExperimentDir;
use crate::run::library::Library;

use recorded::RecordedFacts;

pub use class::Classes;
pub use clean::{Cleaned, clean};
pub use curves::Curves;
pub use disk::DiskPlan;
pub(crate) use ends::RunEnd;
pub use how::HowToRun;
pub(crate) use page::quoted;
pub(crate) use pins::{TOKENIZER_PIN, shard_pins};
pub use preflight::MemoryPlan;
pub use recorded::FromResults;
pub use report::{Report, Worked};
pub use speed::ResultsOnDisk;
pub(crate) use tables::{Recorded, run_row};
pub use tables::{mfu, tokens_per_second};
pub use tokenizer::{AskedFor, TokenizerOrder};
pub use trial::{Side, Trial, level};

/// An experiment: its plan, its data and where its results are.
pub struct Experiment {
    /// The manifest, settled.
    pub manifest: Manifest,
    /// What it plans.
    pub plan: Plan,
    /// Its directory.
    pub dir: ExperimentDir,
    /// Its data.
    pub library: Library,
    files: Files,
    /// What results know of the data, where that is what the plan was made by.
    facts: Option<RecordedFacts>,
    /// Whether runs are trained that a look has made needless, or that wait for one: looks are for the experiment's own
    /// question, and somebody asks another over all of its seeds.
    past_looks: bool,
    /// The environment classes that were known when it was submitted.
    expected_classes: Classes,
    /// The search that `train.device_batch_size = "auto"` still asks for.
    search: Option<Digest>,
}

impl Experiment {
    /// Whether runs compute on tch's device: they go one after another, for its memory, its counts and the bits of its
    /// CPU work are the whole process's.
    fn shares_a_device(&self) -> bool {
        self.plan.runs.iter().any(|run| run.config.backend.kind == BackendKind::Tch)
    }
}
