//! Validation of a trained model by a definition of its own choice.

use std::sync::Arc;

use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::plan::evaluation::Evaluation;
use crate::plan::run_config::RunConfig;
use crate::train::bpb::BitsPerByte;
use crate::train::engine::Engine;
use crate::train::evaluation::eval_batches;
use crate::train::rows::{Rows, micro_batch};

use super::library::Library;

/// Where an evaluation departs from the run's own definition.
#[derive(Debug, Clone, Default)]
pub struct Departures {
    /// Other shards; none is the run's.
    pub shards: Vec<String>,
    /// Other tokens.
    pub tokens: Option<u64>,
    /// Another device batch.
    pub device_batch_size: Option<usize>,
    /// As the rows of other ranks.
    pub ranks: Option<usize>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// By what it was measured.
    pub definition: Evaluation,
    /// Bits per byte.
    pub val_bpb: f64,
    /// Mean loss, nats a token.
    pub val_loss: f64,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Bytes that they stand for.
    pub bytes: u64,
}

/// The configuration by which a run is evaluated so, and its rows.
///
/// # Errors
/// Shards that are not there or bad; class `Input`.
pub fn prepare(
    library: &Library,
    run: &RunConfig,
    tokenizer: &Arc<Tokenizer>,
    departures: &Departures,
) -> Result<(RunConfig, Box<dyn Rows>)> {
    let mut config = run.clone();
    if let Some(tokens) = departures.tokens {
        config.eval.tokens = tokens;
    }
    if let Some(rows) = departures.device_batch_size {
        config.batch.device_batch_size = rows;
    }
    if let Some(ranks) = departures.ranks {
        config.row_order.ranks = ranks;
    }
    if !departures.shards.is_empty() {
        config.data.shards.clone_from(&departures.shards);
        // What pinned the run's validation split names none of these.
        config.data.validation = None;
    }
    if config.data.shards.is_empty() {
        return Err(Error::input("there are no shards beside this checkpoint")
            .expected("the text to evaluate on")
            .help("name a directory, a glob or files with --shards; the last by name is evaluated"));
    }
    let missing = library.missing(&config.data)?;
    if let Some(missing) = missing.first() {
        return Err(Error::input(format!("nothing is at {}", missing.path))
            .key(missing.field)
            .expected(missing.expected())
            .help("name other text with --shards"));
    }
    let (rows, content) = library.rows_with(&config, tokenizer)?;
    config.data.content = Some(content);
    Ok((config, rows))
}

/// Evaluates over `eval.tokens` tokens from the start of the validation split, the sums being those of a run's own
/// evaluations. `each` hears how many of how many batches are done.
///
/// # Errors
/// Fewer tokens than a batch has, or a split without text (class `Input`); values that are not finite (class `Run`);
/// a stop (class `Interrupted`).
pub fn evaluate(
    engine: &mut dyn Engine,
    rows: &dyn Rows,
    config: &RunConfig,
    each: &mut dyn FnMut(u64, u64),
) -> Result<Evaluated> {
    let batches = eval_batches(config)?;
    let (mut sums, mut tokens) = (BitsPerByte::default(), 0);
    let mut source = rows.validation(None)?;
    for done in 0..batches {
        crate::stop::check()?;
        each(done, batches);
        let batch = source.next_batch()?;
        let losses = engine.losses(&micro_batch(&batch))?;
        sums.add(&losses, &batch.targets, rows.token_bytes());
        tokens += batch.inputs.len() as u64;
    }
    each(batches, batches);
    let (val_bpb, val_loss) = sums.value().zip(sums.mean_loss()).ok_or_else(|| {
        Error::input("the validation split is empty: no target of it has bytes")
            .key("data.shards")
            .expected("text in the last shard")
    })?;
    if !(val_bpb.is_finite() && val_loss.is_finite()) {
        return Err(Error::run(format!("the validation loss is {val_loss}"))
            .help("the weights have diverged: evaluate an earlier checkpoint"));
    }
    Ok(Evaluated { definition: Evaluation::of(config), val_bpb, val_loss, tokens, bytes: sums.bytes() })
}
