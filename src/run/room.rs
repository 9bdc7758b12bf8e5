//! Whether a trained model fits into memory, before its weights are read; and how much memory there is.

pub use crate::backend::cpu::memory::Use;
use crate::backend::cpu::memory::estimate_use;
use crate::backend::memory::MemoryEstimate;
use crate::backend::torch::device::TorchDevice;
use crate::backend::torch::facts::device_memory;
use crate::error::{Error, Result};
use crate::host::{MemoryLimit, available_memory, memory_limit};
use crate::model::specs::specs;
use crate::plan::run_config::{BackendKind, RunConfig};
use crate::precision::Precision;
use crate::text::size;

/// What a process holds beside its runs: code, threads, tokenizer and allocator. Measured in
/// results/benchmarks/2026-11-29-memory.md.
pub const PROCESS: u64 = if cfg!(feature = "tch") { (32 + LIBTORCH) << 20 } else { 32 << 20 };
/// MiB that libtorch takes in a program that is linked against it, whichever backend trains.
const LIBTORCH: u64 = 84;
/// What no machine has stands for more than can be counted.
const BEYOND: u64 = 1 << 60;
/// The way past a refusal.
pub const ANYWAY: &str = "--set run.preflight=false starts it all the same";

/// How much memory there is to plan with.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// Main memory that is available, bytes; none where the system does not tell.
    pub available: Option<u64>,
    /// The most that this process may have, and who says so.
    pub limit: Option<MemoryLimit>,
}

impl Memory {
    /// Of this machine, to this process, now.
    pub fn here() -> Self {
        let limit = memory_limit();
        let most = limit.as_ref().map(|limit| limit.bytes);
        let available = available_memory().map(|bytes| bytes.min(most.unwrap_or(u64::MAX))).or(most);
        Self { available, limit }
    }

    /// What is left of it for runs.
    pub fn for_runs(&self) -> Option<u64> {
        self.available.map(|bytes| bytes.saturating_sub(PROCESS))
    }

    /// What a device has for runs.
    pub fn of(&self, device: TorchDevice) -> Option<u64> {
        match device {
            TorchDevice::Cpu => self.for_runs(),
            TorchDevice::Cuda(index) => device_memory(index),
        }
    }

    /// What there is of main memory, and whose limit it is.
    pub fn there(&self) -> String {
        let available = self.available.map_or_else(|| "an unknown amount".to_owned(), size);
        match &self.limit {
            Some(limit) => {
                format!("at most {available}: {} has {}, the rest is in use", limit.from, size(limit.bytes))
            }
            None => format!("at most {available}"),
        }
    }
}

/// A model that is to be used, and how.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The run that it is of.
    pub config: &'a RunConfig,
    /// What for.
    pub what: Use,
    /// Threads.
    pub threads: usize,
    /// Copies of its weights that are in main memory while the engine takes them.
    pub copies: u64,
}

impl Wanted<'_> {
    fn parameters(&self) -> u64 {
        let of = |shape: &[usize]| shape.iter().fold(1_u64, |all, &size| all.saturating_mul(size as u64));
        specs(&self.config.model).iter().fold(0, |sum: u64, spec| sum.saturating_add(of(&spec.shape)))
    }

    /// Bytes of its tensors, and whether they are counted; else they are the least that there will be.
    fn needs(&self, what: Use) -> Result<(u64, bool)> {
        let weights = |bytes: u64| Ok((self.parameters().saturating_mul(bytes), false));
        match (self.config.backend.kind, self.config.backend.precision) {
            (BackendKind::Cpu, precision) => {
                let counted = estimate_use(&self.config.model, precision, self.threads, what)?;
                Ok((counted.as_ref().map_or(BEYOND, MemoryEstimate::total), true))
            }
            // Kept as f64, and read as f32 first.
            (BackendKind::Scalar, _) => weights(12),
            (BackendKind::Tch, Precision::F32) => weights(4),
            // Beside what they are rounded from.
            (BackendKind::Tch, Precision::Bf16) => weights(6),
        }
    }

    /// Refuses what will not fit into `memory`.
    ///
    /// # Errors
    /// Too little memory, with what would fit; class `Input`.
    pub fn fits(&self, memory: &Memory) -> Result<()> {
        let device = self.config.backend.device.parse().unwrap_or(TorchDevice::Cpu);
        let on_gpu = device != TorchDevice::Cpu;
        let Some(has) = memory.of(device) else { return Ok(()) };
        // What the weights are read from is let go of before anything is computed.
        let read = if on_gpu { 0 } else { self.parameters().saturating_mul(4 * (1 + self.copies)) };
        let (tensors, counted) = self.needs(self.what)?;
        let needs = tensors.max(read);
        if needs <= has {
            return Ok(());
        }
        let about = if counted { "" } else { "at least " };
        let what = match self.what {
            Use::Evaluate { rows } => format!("with {rows} rows a batch"),
            Use::Sample { sequences, positions, .. } => {
                format!("for {sequences} sequences of up to {positions} tokens")
            }
        };
        let told =
            format!("the model needs {about}{} of memory {what}, and {} are there", size(needs), size(has));
        let expected =
            if on_gpu { format!("what {} has", self.config.backend.device) } else { memory.there() };
        let help = match self.fitting(has)? {
            Some(advice) if read <= has => format!("{advice} fits; {ANYWAY}"),
            _ => format!("its weights alone do not fit; {ANYWAY}"),
        };
        Err(Error::input(told).expected(expected).help(help))
    }

    /// Less of the same that fits.
    fn fitting(&self, has: u64) -> Result<Option<String>> {
        let mut less = self.what;
        loop {
            let advice = match &mut less {
                Use::Evaluate { rows } if *rows > 1 => {
                    *rows /= 2;
                    format!("--device-batch-size {rows}")
                }
                Use::Sample { sequences, .. } if *sequences > 1 => {
                    *sequences /= 2;
                    format!("--num {sequences}")
                }
                Use::Sample { prompt, positions, .. } if *positions > *prompt + 1 => {
                    *positions = (*positions).midpoint(*prompt);
                    format!("--num 1 --max-tokens {}", *positions - *prompt)
                }
                _ => return Ok(None),
            };
            if self.needs(less)?.0 <= has {
                return Ok(Some(advice));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::{Manifest, Options};
    use crate::plan::{NoData, plan};

    fn d12() -> RunConfig {
        let text = include_str!("../../experiments/d12_sqrt.toml");
        let sets = ["run.backend=\"cpu\"", "run.precision=\"f32\""].map(str::to_owned).to_vec();
        let env = vec![("HOME".to_owned(), "/home/somebody".to_owned())];
        let options = Options { sets, env, ..Options::default() };
        let manifest = Manifest::parse(Path::new("d12_sqrt.toml"), text, &options).unwrap();
        plan(&manifest, &NoData).unwrap().runs.remove(0).config
    }

    fn refusal(config: &RunConfig, what: Use, mib: u64) -> Option<Error> {
        let memory = Memory { available: Some((mib << 20) + PROCESS), limit: None };
        Wanted { config, what, threads: 2, copies: 1 }.fits(&memory).err()
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let config = d12();
        let evaluate = |rows| Use::Evaluate { rows };
        let error = refusal(&config, evaluate(256), 4096).unwrap();
        assert_eq!(error.class().exit_code(), 2);
        let help = error.help_text().unwrap().to_owned();
        let rows: usize = help.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(help.starts_with("--device-batch-size ") && (1..256).contains(&rows), "{help}");
        assert!(refusal(&config, evaluate(rows), 4096).is_none(), "the advice helps");
        assert!(refusal(&config, evaluate(256), 1 << 20).is_none());

        let sample = |sequences| Use::Sample { prompt: 100, positions: 2048, sequences };
        let error = refusal(&config, sample(12), 2600).unwrap();
        let help = error.help_text().unwrap();
        let count: usize = help.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(help.starts_with("--num ") && refusal(&config, sample(count), 2600).is_none(), "{help}");

        // 286 million parameters, twice while they are read.
        let error = refusal(&config, evaluate(1), 1024).unwrap();
        assert!(error.help_text().unwrap().contains("weights alone"), "{error}");
    }
}
