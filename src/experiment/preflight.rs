//! Whether the runs of an experiment will fit into their device's memory, before any of them is started.

use std::fmt;

use serde::Serialize;

use super::Experiment;
use crate::backend::torch::device::TorchDevice;
use crate::backend::torch::facts::device_memory;
use crate::backend::torch::memory::{MemoryEstimate, estimate, largest_batch};
use crate::host::memory_bytes;
use crate::plan::run_config::{BackendKind, RunConfig};

const GIB: f64 = 1_073_741_824.0;

/// What one shape of run needs of the tch backend's device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preflight {
    /// The device, as the manifest names it.
    pub device: String,
    /// Rows of a micro-batch.
    pub device_batch_size: usize,
    /// What it needs, bytes.
    pub needs: MemoryEstimate,
    /// What the device has, bytes; none where nobody can say.
    pub has: Option<u64>,
    /// The largest number of rows that fits, where this does not; none where it fits or nothing does.
    pub fitting_batch_size: Option<usize>,
}

impl Preflight {
    /// Of a run on the tch backend; none for the others and for the small models, which fit anywhere.
    fn of(config: &RunConfig, host_memory: Option<u64>) -> Option<Self> {
        if config.backend.kind != BackendKind::Tch {
            return None;
        }
        let device: TorchDevice = config.backend.device.parse().ok()?;
        let has = match device {
            TorchDevice::Cpu => host_memory,
            TorchDevice::Cuda(index) => device_memory(index),
        };
        Self::with(config, device, has)
    }

    fn with(config: &RunConfig, device: TorchDevice, has: Option<u64>) -> Option<Self> {
        let (rows, precision) = (config.batch.device_batch_size, config.backend.precision);
        let needs = estimate(&config.model, precision, device, rows)?;
        let too_much = has.filter(|&has| needs.total() > has);
        let fitting_batch_size =
            too_much.and_then(|has| largest_batch(&config.model, precision, device, rows, has));
        Some(Self {
            device: config.backend.device.clone(),
            device_batch_size: rows,
            needs,
            has,
            fitting_batch_size,
        })
    }
}

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: u64| bytes as f64 / GIB;
        let Self { device, device_batch_size: rows, needs, has, fitting_batch_size } = self;
        let total = needs.total();
        write!(f, "about {:.1} GiB", gib(total))?;
        match has {
            Some(has) => write!(f, " of {:.1} GiB on {device}", gib(*has))?,
            None => write!(f, " on {device}, which is not here")?,
        }
        write!(
            f,
            " with {rows} rows (parameters {:.1}, activations {:.1}, workspace {:.1})",
            gib(needs.parameters),
            gib(needs.activations),
            gib(needs.workspace)
        )?;
        match (has, fitting_batch_size) {
            (Some(has), None) if total > *has => {
                write!(f, "\n        does not fit, not even one row: lower model.depth")
            }
            (_, Some(fitting)) => {
                write!(f, "\n        does not fit: --set train.device_batch_size={fitting} would")
            }
            _ => Ok(()),
        }
    }
}

impl Experiment {
    /// One for each distinct shape of run on the tch backend.
    pub fn preflight(&self) -> Vec<Preflight> {
        let host_memory = memory_bytes();
        let mut found: Vec<Preflight> = Vec::new();
        for preflight in self.plan.runs.iter().filter_map(|run| Preflight::of(&run.config, host_memory)) {
            if !found.contains(&preflight) {
                found.push(preflight);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::{Manifest, Options};
    use crate::plan::{NoData, plan};

    #[test]
    fn a_run_that_does_not_fit_is_told_the_size_that_does() {
        let text = include_str!("../../experiments/d12_sqrt.toml");
        let options =
            Options { env: vec![("HOME".to_owned(), "/home/somebody".to_owned())], ..Options::default() };
        let manifest = Manifest::parse(Path::new("d12_sqrt.toml"), text, &options).unwrap();
        let config = plan(&manifest, &NoData).unwrap().runs.swap_remove(0).config;
        let on = |gib: Option<u64>| {
            Preflight::with(&config, TorchDevice::Cuda(0), gib.map(|gib| gib << 30)).unwrap()
        };
        assert_eq!(on(Some(139)).fitting_batch_size, None);
        let small = on(Some(16)).fitting_batch_size.unwrap();
        assert!((1..config.batch.device_batch_size).contains(&small), "{small}");
        assert_eq!(on(Some(1)).fitting_batch_size, None);
        let lines =
            [on(Some(139)), on(Some(16)), on(Some(1)), on(None)].map(|preflight| preflight.to_string());
        insta::assert_snapshot!(lines.join("\n"));
    }
}
