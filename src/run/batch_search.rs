//! The device batch size of `train.device_batch_size = "auto"`: the largest that fits, found by trying.
//!
//! What a search finds depends on what else is in the device's memory, so it is made once: the size is written beside
//! the results and taken from there ever after. The run key holds the size like any other.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::files::Files;
use crate::hash::{Canonical, Digest};
use crate::model::config::ModelConfig;
use crate::ops::SequenceShape;
use crate::plan::Plan;
use crate::plan::run_config::{BackendKind, RunConfig};
use crate::record::ExperimentDir;
use crate::toml_text;
use crate::train::engine::MicroBatch;
use crate::train::ops_engine::is_out_of_memory;

use super::engine::engine;

/// The file of sizes found, by what they were found for.
const NAME: &str = "device_batch_size.toml";

/// What a search is for: the runs of a plan, whose own device batch size is only the one that the search starts from.
pub fn question(plan: &Plan) -> Digest {
    let mut canonical = Canonical::new("nanorun device batch size");
    for run in &plan.runs {
        canonical.digest("run", &run.key.run);
    }
    canonical.finish()
}

/// The size that was found for `question` before.
///
/// # Errors
/// A record that cannot be read.
pub fn recorded(files: &Files, dir: &ExperimentDir, question: &Digest) -> Result<Option<usize>> {
    Ok(read(files, dir)?.get(&question.to_string()).copied())
}

/// Writes down what was found.
///
/// # Errors
/// A record that cannot be read or written.
pub fn record(files: &Files, dir: &ExperimentDir, question: &Digest, rows: usize) -> Result<()> {
    let mut sizes = read(files, dir)?;
    sizes.insert(question.to_string(), rows);
    let table = toml::to_string(&sizes)
        .map_err(|cause| Error::internal("the device batch size cannot be written as TOML").because(cause))?;
    let text =
        format!("# Rows a micro-batch, found by search; without its line a size is searched anew.\n{table}");
    files.create_dir_all(dir.path())?;
    Ok(files.write(&dir.file(NAME), text.as_bytes())?)
}

fn read(files: &Files, dir: &ExperimentDir) -> Result<BTreeMap<String, usize>> {
    let path = dir.file(NAME);
    let Some(bytes) = files.read_if_there(&path)? else { return Ok(BTreeMap::new()) };
    toml_text::from_slice(&bytes).map_err(|cause| {
        Error::input("the record of device batch sizes is damaged")
            .file(path)
            .help("remove it: sizes are searched anew")
            .because(cause)
    })
}

/// The largest power of two of rows that every run of the plan can train with.
///
/// # Errors
/// A backend without a device to fill; a run that does not fit with one row; any failure but a lack of memory.
pub fn search(plan: &Plan, threads: usize) -> Result<usize> {
    let mut configs: Vec<&RunConfig> = Vec::new();
    for run in &plan.runs {
        let same =
            |other: &&RunConfig| other.model == run.config.model && other.backend == run.config.backend;
        if !configs.iter().any(same) {
            configs.push(&run.config);
        }
    }
    if configs.iter().any(|config| config.backend.kind != BackendKind::Tch) {
        return Err(Error::input("only run.backend = \"tch\" searches for a device batch size")
            .key("train.device_batch_size")
            .expected("a number of rows"));
    }
    let start = configs.iter().map(|config| config.batch.device_batch_size).min().unwrap_or(1);
    let most = plan.runs.iter().map(|run| run.config.rows_of_rank()).fold(0, gcd);
    // An evaluation takes whole micro-batches too.
    let evaluated = |config: &RunConfig| {
        config.eval.tokens as usize / (config.model.sequence_len() * config.row_order.ranks.max(1))
    };
    let cap = plan.runs.iter().map(|run| evaluated(&run.config)).min().unwrap_or(1);
    let mut last = None;
    let found = largest(start, most, cap, &mut |rows| {
        for config in &configs {
            match trial(config, rows, threads) {
                Ok(()) => {}
                Err(error) if is_out_of_memory(&error) => {
                    last = Some(error);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    });
    // The last trial may have failed, and its memory is in the pool still.
    for config in configs {
        release(config);
    }
    found?.ok_or_else(|| last.unwrap_or_else(|| Error::internal("no device batch size was tried")))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The largest power of two up to `cap` that divides `most` and fits, if one row does. Starts near `start`, doubles
/// while it fits or halves until it does.
fn largest(
    start: usize,
    most: usize,
    cap: usize,
    fits: &mut dyn FnMut(usize) -> Result<bool>,
) -> Result<Option<usize>> {
    let divides = |rows: &usize| *rows <= most.min(cap) && most.is_multiple_of(*rows);
    let powers: Vec<usize> = (0..usize::BITS).map(|bit| 1 << bit).take_while(divides).collect();
    let mut index = powers.iter().rposition(|&rows| rows <= start.max(1)).unwrap_or(0);
    let Some(&first) = powers.get(index) else { return Ok(None) };
    if fits(first)? {
        while let Some(&next) = powers.get(index + 1) {
            if !fits(next)? {
                break;
            }
            index += 1;
        }
        return Ok(powers.get(index).copied());
    }
    for &rows in powers[..index].iter().rev() {
        if fits(rows)? {
            return Ok(Some(rows));
        }
    }
    Ok(None)
}

/// Two micro-batches and an update of a fresh engine: everything that training holds at once.
fn trial(config: &RunConfig, rows: usize, threads: usize) -> Result<()> {
    release(config);
    let mut engine = engine(config, threads)?;
    let (len, vocab) = (config.model.sequence_len(), vocab_size(&config.model));
    let ids: Vec<i32> = (0..rows * len).map(|index| (index % vocab) as i32).collect();
    let batch = MicroBatch { inputs: &ids, targets: &ids, sequence: SequenceShape { batch: rows, len } };
    engine.accumulate(&batch, 1.0 / ids.len() as f32)?.read()?;
    engine.update(&config.schedule.step_values(0))?;
    engine.accumulate(&batch, 1.0 / ids.len() as f32)?.read()?;
    drop(engine);
    release(config);
    Ok(())
}

fn vocab_size(model: &ModelConfig) -> usize {
    match model {
        ModelConfig::Gpt(config) => config.vocab_size,
        ModelConfig::Microgpt(config) => config.vocab_size,
        ModelConfig::Bigram(config) => config.vocab_size,
    }
}

/// Gives the device its pooled memory back, so that a trial does not meet what the one before it left.
fn release(config: &RunConfig) {
    #[cfg(feature = "tch")]
    if let Ok(device) = config.backend.device.parse() {
        crate::backend::torch::memory::release_pool(device);
    }
    #[cfg(not(feature = "tch"))]
    let _ = config;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(start: usize, most: usize, limit: usize) -> (Option<usize>, Vec<usize>) {
        let mut tried = Vec::new();
        let rows = largest(start, most, 256, &mut |rows| {
            tried.push(rows);
            Ok(rows <= limit)
        });
        (rows.unwrap(), tried)
    }

    #[test]
    fn doubles_until_it_does_not_fit_and_halves_until_it_does() {
        assert_eq!(found(8, 256, 64), (Some(64), vec![8, 16, 32, 64, 128]));
        assert_eq!(found(32, 256, 5), (Some(4), vec![32, 16, 8, 4]));
        assert_eq!(found(32, 256, 1000), (Some(256), vec![32, 64, 128, 256]));
        assert_eq!(found(4, 12, 100), (Some(4), vec![4]), "8 does not divide 12");
        assert_eq!(found(4, 12, 0), (None, vec![4, 2, 1]));
        assert_eq!(found(128, 1024, 9999), (Some(256), vec![128, 256]), "no more than an evaluation takes");
        assert_eq!(found(1, 7, 9), (Some(1), vec![1]));
    }

    #[test]
    fn sizes_are_kept_by_what_they_were_found_for() {
        let place = tempfile::tempdir().unwrap();
        let (files, dir) = (Files::new(), ExperimentDir::at(place.path().join("e")));
        let [a, b] = [b"a", b"b"].map(|bytes| Digest::of(bytes));
        assert_eq!(recorded(&files, &dir, &a).unwrap(), None);
        record(&files, &dir, &a, 16).unwrap();
        record(&files, &dir, &b, 8).unwrap();
        assert_eq!(recorded(&files, &dir, &a).unwrap(), Some(16));
        assert_eq!(recorded(&files, &dir, &b).unwrap(), Some(8));
        std::fs::write(dir.file(NAME), "not = [toml").unwrap();
        assert_eq!(recorded(&files, &dir, &a).unwrap_err().class().exit_code(), 2);
    }
}
