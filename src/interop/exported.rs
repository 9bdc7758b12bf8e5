//! A trained model as it is handed to other programs.

use std::borrow::Cow;

use crate::data::{Position, Tokenizer};
use crate::plan::run_config::RunConfig;

/// Name, shape and values, row-major.
pub type Tensor<'a> = (String, Vec<usize>, Cow<'a, [f32]>);

/// A trained model.
#[derive(Clone)]
pub struct Exported<'a> {
    /// What it is called.
    pub label: String,
    /// The run that it is of.
    pub config: &'a RunConfig,
    /// Steps it was trained for, those before a checkpoint of another program among them.
    pub step: u64,
    /// Its parameters, by upstream's names.
    pub parameters: Vec<Tensor<'a>>,
    /// The optimizer's state, by nanorun's names; nothing where there is none.
    pub optimizer: Vec<Tensor<'a>>,
    /// Its validation, by the run's own definition.
    pub val_bpb: Option<f64>,
    /// The batch of documents that its loader read last.
    pub data: Option<Position>,
    /// Seconds of training.
    pub seconds: f64,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
}

impl Exported<'_> {
    /// A parameter or a state by its name.
    pub(super) fn find<'t>(tensors: &'t [Tensor<'_>], name: &str) -> Option<&'t Tensor<'t>> {
        tensors.iter().find(|(found, ..)| found == name)
    }
}
