//! What is exported of a trained model, wherever it comes from.

use std::borrow::Cow;
use std::path::Path;

use crate::data::{Cursor, Position, Tokenizer};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::interop::exported::Exported;
use crate::interop::{huggingface, onnx, upstream};
use crate::model::param::ParamSpec;
use crate::model::specs::specs;
use crate::plan::evaluation::VAL_BPB;
use crate::plan::run_config::RunConfig;
use crate::tensors::NamedTensor;
use crate::train::checkpoint::Checkpoint;

use super::trained::Foreign;

/// The form that a model is exported in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Upstream's directories, with the optimizer's state of so many ranks, or of the run's own.
    Upstream {
        /// How many; the run's own where it is none.
        ranks: Option<usize>,
    },
    /// Weights in safetensors, sizes and tokenizer beside them.
    Safetensors,
    /// What transformers loads.
    HuggingFace,
    /// A graph for ONNX runtimes.
    Onnx,
}

impl<'a> Exported<'a> {
    /// Of a checkpoint of a run.
    ///
    /// # Errors
    /// Tensors of another type than float32; class `Input`.
    pub fn of_checkpoint(
        label: String,
        config: &'a RunConfig,
        checkpoint: &'a Checkpoint<'_>,
        tokenizer: &'a Tokenizer,
    ) -> Result<Self> {
        let state = &checkpoint.state;
        let borrow = |tensor: &'a NamedTensor<'_>| {
            let values = tensor.as_f32().ok_or_else(|| {
                Error::input(format!("the tensor `{}` is not of single precision", tensor.name))
            })?;
            Ok((tensor.name.clone(), tensor.shape.clone(), Cow::Borrowed(values)))
        };
        let settings = crate::train::evaluation::eval_settings(config);
        let last = state.evals.iter().rev().find(|eval| eval.step == state.step && eval.settings == settings);
        let mut optimizer = checkpoint.optimizer.iter().map(borrow).collect::<Result<Vec<_>>>()?;
        if checkpoint.weights_alone {
            optimizer.clear();
        }
        Ok(Self {
            label,
            config,
            step: config.schedule.steps_before + state.step,
            parameters: checkpoint.params.iter().map(borrow).collect::<Result<_>>()?,
            optimizer,
            val_bpb: last.and_then(|eval| eval.values.get(VAL_BPB)).map(|value| value.0),
            data: state.cursor.as_ref().and_then(Cursor::last),
            seconds: state.step_seconds.iter().sum(),
            tokenizer,
        })
    }
}

/// A checkpoint of upstream's with its values, to be exported.
pub struct ForeignValues {
    parameters: Vec<(String, Vec<usize>, Vec<f32>)>,
    optimizer: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl ForeignValues {
    /// Reads the parameters and, for a form that takes it along, the optimizer's state where it is there: it is twice as
    /// large as they.
    ///
    /// # Errors
    /// Values that cannot be read; class `Input`.
    pub fn read(foreign: &mut Foreign, target: Target) -> Result<Self> {
        let specs = specs(&foreign.config.model);
        let weights = &mut foreign.weights;
        let one = |spec: &ParamSpec| Ok((spec.name.clone(), spec.shape.clone(), weights.values(spec)?));
        let parameters = specs.iter().map(one).collect::<Result<_>>()?;
        let takes_optimizer = matches!(target, Target::Upstream { .. });
        let optimizer = if takes_optimizer && !foreign.checkpoint.optimizer().is_empty() {
            let state = foreign.checkpoint.optimizer_state(&specs)?;
            state
                .into_iter()
                .map(|state| (state.name, state.shape, state.values.into_wide().into_owned()))
                .collect()
        } else {
            Vec::new()
        };
        Ok(Self { parameters, optimizer })
    }

    /// The model.
    pub fn exported<'a>(&'a self, foreign: &'a Foreign) -> Exported<'a> {
        let borrow = |tensors: &'a [(String, Vec<usize>, Vec<f32>)]| {
            let one = |(name, shape, values): &'a (String, Vec<usize>, Vec<f32>)| {
                (name.clone(), shape.clone(), Cow::Borrowed(values.as_slice()))
            };
            tensors.iter().map(one).collect()
        };
        let at = foreign.meta.dataloader_state_dict;
        Exported {
            label: foreign.checkpoint.label(),
            config: &foreign.config,
            step: foreign.checkpoint.step,
            parameters: borrow(&self.parameters),
            optimizer: borrow(&self.optimizer),
            val_bpb: foreign.meta.val_bpb,
            data: at.map(|at| Position { epoch: at.epoch, file: at.pq_idx, group: at.rg_idx, batch: 0 }),
            seconds: 0.0,
            tokenizer: &foreign.tokenizer,
        }
    }
}

/// Writes a model in the form asked for, whole or not at all. Returns what is to be told.
///
/// # Errors
/// A directory that is there already, a form that cannot hold the model (says which feature); class `Input`. What the
/// file system refuses.
pub fn export(files: &Files, exported: &Exported<'_>, target: Target, to: &Path) -> Result<Vec<String>> {
    if to.symlink_metadata().is_ok() {
        return Err(Error::input("something is there already")
            .file(to)
            .expected("the name of a directory that is not there yet")
            .help("name another, or remove it"));
    }
    match target {
        Target::Upstream { ranks } => upstream::export(files, exported, ranks, to),
        Target::Safetensors => huggingface::safetensors(files, exported, to),
        Target::HuggingFace => huggingface::transformers(files, exported, to),
        Target::Onnx => onnx::export(files, exported, to),
    }
}
