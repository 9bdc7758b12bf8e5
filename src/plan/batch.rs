//! Batch sizes that fit, or an error that says which would.

use super::run_config::BatchConfig;
use crate::error::{Error, Result};
use crate::manifest::Cell;

/// Divides a step of `total` tokens into micro-batches. Where their size is still to be searched for, the largest power
/// of two up to `usual` that divides stands in.
pub(super) fn batch(cell: &Cell, total: u64, sequence_len: usize, usual: usize) -> Result<BatchConfig> {
    let ranks = cell.settings.run.ranks as u64;
    let device_batch_size = match cell.settings.train.device_batch_size.rows() {
        Some(rows) => rows,
        None => stand_in(total / (sequence_len as u64 * ranks), usual),
    };
    let micro = device_batch_size as u64 * sequence_len as u64;
    let round = micro.saturating_mul(ranks);
    if round <= total && total.is_multiple_of(round) {
        return Ok(BatchConfig {
            device_batch_size,
            total_batch_size: total as usize,
            grad_accum_steps: (total / micro) as usize,
        });
    }
    let auto = if cell.is_written("train.total_batch_size") { "" } else { ", which the recipe decides," };
    let (on, times) =
        if ranks > 1 { (format!(" on each of {ranks} ranks"), " * run.ranks") } else { (String::new(), "") };
    let what = format!(
        "a step of {total} tokens{auto} does not divide into micro-batches of {device_batch_size} rows of \
         {sequence_len} tokens{on}"
    );
    let error = Error::input(what)
        .expected(format!("total_batch_size to be a multiple of device_batch_size * sequence_len{times}"))
        .help(suggestion(total, device_batch_size as u64, (sequence_len as u64).saturating_mul(ranks)));
    // Point at whichever of them was written.
    let written = ["train.total_batch_size", "train.device_batch_size", "run.ranks", "model.sequence_len"];
    let path = written.into_iter().find(|path| cell.is_written(path)).unwrap_or("train.device_batch_size");
    Err(cell.locate(path, error))
}

fn stand_in(rows: u64, usual: usize) -> usize {
    let fits = |size: &usize| *size <= usual && rows.is_multiple_of(*size as u64);
    std::iter::successors(Some(1_usize), |size| size.checked_mul(2)).take_while(fits).last().unwrap_or(1)
}

fn suggestion(total: u64, device: u64, sequence: u64) -> String {
    let micro = device * sequence;
    let totals = format!("total_batch_size = {} fits", total.div_ceil(micro).max(1) * micro);
    if !total.is_multiple_of(sequence) {
        return totals;
    }
    let rows = total / sequence;
    // The nearest sizes that fit, the larger ones first; powers of two are found soon.
    let fitting: Vec<String> = (1..=rows.min(device))
        .rev()
        .filter(|size| rows.is_multiple_of(*size))
        .take(3)
        .map(|size| size.to_string())
        .collect();
    format!("device_batch_size = {} fits, or {totals}", fitting.join(" or "))
}
