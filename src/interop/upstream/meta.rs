//! `meta_*.json`: what upstream says of a checkpoint.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::json::without_infinities;
use crate::error::{Error, Result};

/// Longer files are refused: upstream's have two kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// Sizes beyond are nobody's, and their products fit a machine word.
const MAX_SIZE: usize = 1 << 24;

/// What upstream says of a checkpoint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Meta {
    /// Steps it was trained for.
    pub step: u64,
    /// What upstream's own evaluation gave; none where it had made none.
    #[serde(default)]
    pub val_bpb: Option<f64>,
    /// The model's sizes.
    pub model_config: ModelMeta,
    /// The flags of the training script, by name.
    #[serde(default)]
    pub user_config: Map<String, Value>,
    /// Rows of a micro-batch.
    #[serde(default)]
    pub device_batch_size: Option<u64>,
    /// Tokens of a step; only newer commits say so.
    #[serde(default)]
    pub total_batch_size: Option<u64>,
    /// Where its loader stood.
    #[serde(default)]
    pub dataloader_state_dict: Option<LoaderState>,
}

/// The sizes of a model, by upstream's names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelMeta {
    /// T.
    pub sequence_len: usize,
    /// V.
    pub vocab_size: usize,
    /// Layers.
    pub n_layer: usize,
    /// H.
    pub n_head: usize,
    /// K.
    pub n_kv_head: usize,
    /// C.
    pub n_embd: usize,
    /// S and L; models before there were windows see everything.
    #[serde(default)]
    pub window_pattern: Option<String>,
}

/// The last refill of upstream's loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct LoaderState {
    /// File of the train split.
    pub pq_idx: usize,
    /// Row group of the file.
    pub rg_idx: usize,
    /// Counts rounds from 1.
    #[serde(default = "first_epoch")]
    pub epoch: u64,
}

fn first_epoch() -> u64 {
    1
}

impl Meta {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that is not there, too long, or not what upstream writes; sizes that no model has; class `Input`.
    pub fn read(path: &Path) -> Result<Self> {
        let expected = "meta_NNNNNN.json as upstream's base_train writes it";
        let cannot = |error: std::io::Error| {
            Error::input("cannot read the metadata of a checkpoint")
                .file(path)
                .because(error)
                .expected(expected)
        };
        let malformed = |what: String| {
            Error::input(format!("the metadata of a checkpoint cannot be used: {what}"))
                .file(path)
                .expected(expected)
        };
        let len = std::fs::metadata(path).map_err(cannot)?.len();
        if len > MAX_BYTES {
            return Err(malformed(format!("it has {len} bytes, more than {MAX_BYTES}")));
        }
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        let meta: Self =
            serde_json::from_str(&without_infinities(&text)).map_err(|error| malformed(error.to_string()))?;
        let ModelMeta { sequence_len, vocab_size, n_layer, n_head, n_kv_head, n_embd, .. } =
            meta.model_config;
        for (name, size) in [
            ("sequence_len", sequence_len),
            ("vocab_size", vocab_size),
            ("n_layer", n_layer),
            ("n_head", n_head),
            ("n_kv_head", n_kv_head),
            ("n_embd", n_embd),
        ] {
            if !(1..=MAX_SIZE).contains(&size) {
                return Err(malformed(format!("its {name} is {size}")));
            }
        }
        if !n_embd.is_multiple_of(n_head) || !n_head.is_multiple_of(n_kv_head) {
            return Err(malformed(format!(
                "{n_head} heads over {n_kv_head} do not divide {n_embd} channels"
            )));
        }
        Ok(meta)
    }

    /// A flag of the training script that is a whole number above 0; upstream's -1 is as good as none.
    pub(super) fn count(&self, flag: &str) -> Option<u64> {
        self.user_config.get(flag)?.as_u64().filter(|&count| count > 0)
    }

    /// A flag that is a finite number.
    pub(super) fn number(&self, flag: &str) -> Option<f64> {
        self.user_config.get(flag)?.as_f64()
    }
}
