//! What the backends can compute: a shape beyond it is refused here, by its key, and not by an op in the middle of a
//! run. The cpu backend does not compile with another head than its kernels have.

use super::run_config::{BackendKind, RunConfig};
use crate::error::{Error, Result};
use crate::manifest::Cell;
use crate::model::config::ModelConfig;

/// The largest head of the cpu backend: a block of keys is as wide as its kernel's tiles are deep.
pub const CPU_HEAD_DIM: usize = 256;
/// Tokens of the largest micro-batch on any backend: sizes of activations stay far below what an index holds.
pub const MICRO_BATCH_TOKENS: usize = 1 << 26;

/// Fails where the run's backend cannot compute its shapes.
pub(super) fn check(cell: &Cell, config: &RunConfig) -> Result<()> {
    let (rows, len) = (config.batch.device_batch_size, config.model.sequence_len());
    if rows.saturating_mul(len) > MICRO_BATCH_TOKENS {
        let what =
            format!("a micro-batch of {rows} rows of {len} tokens is larger than any backend computes");
        let error = Error::input(what).expected(format!("at most {MICRO_BATCH_TOKENS} tokens at once"));
        return Err(match MICRO_BATCH_TOKENS / len {
            0 => cell.locate("model.sequence_len", error),
            most => cell.locate(
                "train.device_batch_size",
                error.help(format!("device_batch_size = {most} or less, more micro-batches a step")),
            ),
        });
    }
    if config.backend.kind == BackendKind::Cpu { cpu(cell, &config.model) } else { Ok(()) }
}

fn cpu(cell: &Cell, model: &ModelConfig) -> Result<()> {
    let (head_dim, path, help) = match model {
        ModelConfig::Gpt(config) => {
            let help = format!("model.head_dim = {CPU_HEAD_DIM} or less, or run.backend = \"tch\"");
            (config.head_dim(), "model.head_dim", help)
        }
        ModelConfig::Microgpt(config) => {
            let fits =
                |heads: &usize| config.n_embd.is_multiple_of(*heads) && config.n_embd / heads <= CPU_HEAD_DIM;
            let heads = (1..=config.n_embd).find(fits).unwrap_or(config.n_embd);
            let help = format!("model.n_head = {heads} gives heads of {}", config.n_embd / heads);
            (config.n_embd / config.n_head, "model.n_head", help)
        }
        ModelConfig::Bigram(_) => return Ok(()),
    };
    if head_dim <= CPU_HEAD_DIM {
        return Ok(());
    }
    let error =
        Error::input(format!("heads of {head_dim} channels are larger than the cpu backend computes"));
    Err(cell
        .locate(path, error.expected(format!("at most {CPU_HEAD_DIM} on run.backend = \"cpu\"")).help(help)))
}
