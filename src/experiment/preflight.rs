//! Whether the runs of an experiment will fit into memory, before any of them is started.

use std::fmt;

use serde::Serialize;

use crate::backend::cpu::memory::{self as cpu, CpuRun};
use crate::backend::memory::MemoryEstimate;
use crate::backend::scalar::{self, MAX_TAPE_BYTES};
use crate::backend::torch::device::TorchDevice;
use crate::backend::torch::memory as torch;
use crate::error::{Error, Result};
use crate::host::MemoryLimit;
use crate::optim::optimizer::state_elements;
use crate::plan::PlannedRun;
use crate::plan::run_config::{BackendKind, RunConfig};
pub(super) use crate::run::room::Memory;
use crate::run::room::{ANYWAY, PROCESS};
use crate::text::size;
use crate::train::footprint::specs;

/// Documents, text and tokens that a run's loaders hold beside batches.
const LOADERS: u64 = 16 << 20;
/// Text and tokens that the loader of one more rank holds, and the documents that wait in its packing buffer.
const OF_RANK: u64 = 8 << 20;
const BUFFERED: u64 = 1128;
/// An id of a waiting document.
const ID: u64 = 4;
/// Batches that a loader makes ahead at most, and the bytes of them.
const AHEAD: u64 = 8;
const AHEAD_BYTES: u64 = 32 << 20;
/// An input and a target.
const TOKEN: u64 = 8;
/// What no machine has stands for more than can be counted.
const BEYOND: u64 = 1 << 60;
/// Tenths of what there is from which a warning is given.
const NEAR: u64 = 9;

/// What one shape of run needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preflight {
    /// Its backend.
    pub backend: BackendKind,
    /// The device, as the manifest names it.
    pub device: String,
    /// Rows of a micro-batch.
    pub device_batch_size: usize,
    /// Whether tensors are counted to the byte; else they are estimated.
    pub exact: bool,
    /// What its tensors need, bytes.
    pub needs: MemoryEstimate,
    /// What it needs beside them in main memory, bytes; 0 where the tensors are on a GPU.
    pub host: u64,
    /// What there is for it, bytes: of main memory what is available; none where nobody can say.
    pub has: Option<u64>,
    /// The largest number of rows that fits and divides a step, where this does not; none where it fits or nothing
    /// does.
    pub fitting_batch_size: Option<usize>,
}

impl Preflight {
    /// All that one run needs, bytes.
    pub fn total(&self) -> u64 {
        self.needs.total().saturating_add(self.host)
    }

    fn on_gpu(&self) -> bool {
        self.device != "cpu"
    }

    fn fits(&self) -> bool {
        self.has.is_none_or(|has| self.total() <= has)
    }
}

/// What the runs of an experiment need of memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// One for each distinct shape of run.
    pub shapes: Vec<Preflight>,
    /// Runs at the same time.
    pub jobs: usize,
    /// What they and the process need of main memory together, bytes.
    pub at_once: u64,
    /// Main memory that is available, bytes; none where the system does not tell.
    pub available: Option<u64>,
    /// The most that this process may have, and who says so.
    pub limit: Option<MemoryLimit>,
}

/// What a run is asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    config: &'a RunConfig,
    flops_per_token: u64,
    parameters: u64,
    threads: usize,
    resumed: bool,
}

impl Asked<'_> {
    /// What its tensors need with so many rows a micro-batch; none for the small models on tch, which fit anywhere.
    fn tensors(&self, rows: usize) -> Result<Option<MemoryEstimate>> {
        let config = self.config;
        let tokens = rows * config.model.sequence_len();
        Ok(match config.backend.kind {
            BackendKind::Cpu => {
                let step = config.batch.device_batch_size * config.batch.grad_accum_steps;
                let run = CpuRun {
                    model: &config.model,
                    optimizer: &config.optimizer,
                    rows,
                    accumulation: step / rows.max(1),
                    threads: self.threads,
                    precision: config.backend.precision,
                    resumed: self.resumed,
                };
                let beyond = MemoryEstimate { parameters: BEYOND, activations: 0, workspace: 0 };
                Some(cpu::estimate(&run)?.unwrap_or(beyond))
            }
            BackendKind::Scalar => {
                Some(scalar::memory::estimate(self.parameters, self.flops_per_token, tokens))
            }
            BackendKind::Tch => match config.backend.device.parse() {
                Ok(device) => torch::estimate(&config.model, config.backend.precision, device, rows),
                Err(_) => None,
            },
        })
    }

    /// What it needs beside them in main memory.
    fn host(&self, rows: usize, tensors: &MemoryEstimate) -> Result<u64> {
        // Of the training and of the validation split: those that wait, one being made and one in use.
        let batch = (rows * self.config.model.sequence_len()) as u64 * TOKEN;
        let ranks = self.config.row_order.ranks as u64;
        let buffered = (BUFFERED * self.config.model.sequence_len() as u64 * ID).min(OF_RANK);
        let more = 2 * ranks.saturating_sub(1) * (OF_RANK + buffered);
        let loaders = LOADERS + more + 2 * ((AHEAD * batch).min(AHEAD_BYTES) + 2 * batch);
        if !self.resumed {
            return Ok(loaders);
        }
        // A checkpoint is read before anything is computed: its weights, its states, and the file of these.
        let mut read = 0_u64;
        for spec in specs(&self.config.model) {
            let weights = spec.shape.iter().fold(4_u64, |bytes, &size| bytes.saturating_mul(size as u64));
            let states = state_elements(&self.config.optimizer, &spec)?.saturating_mul(2 * 4);
            read = read.saturating_add(weights).saturating_add(states);
        }
        Ok(loaders.saturating_add(read.saturating_sub(tensors.activations)))
    }

    fn preflight(&self, memory: &Memory) -> Result<Option<Preflight>> {
        let config = self.config;
        let rows = config.batch.device_batch_size;
        let Some(needs) = self.tensors(rows)? else { return Ok(None) };
        let device = config.backend.device.parse().unwrap_or(TorchDevice::Cpu);
        let on_gpu = device != TorchDevice::Cpu;
        let host = |rows, needs: &MemoryEstimate| if on_gpu { Ok(0) } else { self.host(rows, needs) };
        let has = match config.backend.kind {
            // The tape grows no further.
            BackendKind::Scalar => memory.for_runs().map(|has| has.min(MAX_TAPE_BYTES as u64)),
            BackendKind::Cpu | BackendKind::Tch => memory.of(device),
        };
        let host_bytes = host(rows, &needs)?;
        let mut fitting_batch_size = None;
        if let Some(has) = has.filter(|&has| needs.total().saturating_add(host_bytes) > has) {
            let step = config.rows_of_rank();
            for fewer in (1..rows).rev().filter(|&fewer| step.is_multiple_of(fewer)) {
                let Some(needs) = self.tensors(fewer)? else { break };
                if needs.total().saturating_add(host(fewer, &needs)?) <= has {
                    fitting_batch_size = Some(fewer);
                    break;
                }
            }
        }
        Ok(Some(Preflight {
            backend: config.backend.kind,
            device: config.backend.device.clone(),
            device_batch_size: rows,
            exact: config.backend.kind == BackendKind::Cpu,
            needs,
            host: host_bytes,
            has,
            fitting_batch_size,
        }))
    }
}

/// Whether two runs take the same memory: learning rates and the like take none.
fn alike(a: &RunConfig, b: &RunConfig) -> bool {
    let kinds = |config: &RunConfig| -> Vec<_> {
        let groups = config.optimizer.groups.iter();
        groups.map(|(group, config)| (*group, std::mem::discriminant(config))).collect()
    };
    a.model == b.model
        && a.batch == b.batch
        && a.row_order.ranks == b.row_order.ranks
        && a.backend == b.backend
        && kinds(a) == kinds(b)
}

impl MemoryPlan {
    /// Of the runs that are `pending`, by index into `runs`, `jobs` of them at a time on `threads` threads each.
    pub(super) fn of(
        runs: &[PlannedRun],
        pending: &[usize],
        resumed: impl Fn(usize) -> bool,
        (jobs, threads): (usize, usize),
        memory: &Memory,
    ) -> Result<Self> {
        let mut known: Vec<(usize, bool, Option<Preflight>)> = Vec::new();
        let (mut shapes, mut each) = (Vec::new(), Vec::new());
        for &index in pending {
            let Some(run) = runs.get(index) else { continue };
            let resumed = resumed(index);
            let before = known.iter().find(|(other, was, _)| {
                *was == resumed && runs.get(*other).is_some_and(|other| alike(&other.config, &run.config))
            });
            let found = if let Some((_, _, found)) = before {
                found.clone()
            } else {
                let asked = Asked {
                    config: &run.config,
                    flops_per_token: run.sizes.flops_per_token,
                    parameters: run.sizes.params.total,
                    threads,
                    resumed,
                };
                let found = asked.preflight(memory)?;
                known.push((index, resumed, found.clone()));
                found
            };
            let Some(found) = found else { continue };
            each.push(if found.on_gpu() { 0 } else { found.total() });
            if !shapes.contains(&found) {
                shapes.push(found);
            }
        }
        each.sort_unstable_by(|a, b| b.cmp(a));
        let at_once = each.iter().take(jobs.max(1)).fold(PROCESS, |sum, &bytes| sum.saturating_add(bytes));
        let Memory { available, limit } = memory.clone();
        Ok(Self { shapes, jobs, at_once, available, limit })
    }

    /// Whether all that is at work at once fits into main memory.
    pub(super) fn fits(&self) -> bool {
        self.available.is_none_or(|available| self.at_once <= available)
    }

    /// The first shape that does not fit, even alone.
    fn misfit(&self) -> Option<&Preflight> {
        self.shapes.iter().find(|shape| !shape.fits())
    }

    /// Why the runs cannot be started, and the field that it is about; none where they can.
    pub(super) fn refusal(&self) -> Option<(&'static str, Error)> {
        let there = self.there();
        if let Some(shape) = self.misfit() {
            let about = if shape.exact { "" } else { "about " };
            let what = format!(
                "a run needs {about}{} of memory with {} rows a micro-batch, and {} are there",
                size(shape.total()),
                shape.device_batch_size,
                size(shape.has.unwrap_or_default()),
            );
            let expected = if shape.on_gpu() { format!("what {} has", shape.device) } else { there };
            let help = match shape.fitting_batch_size {
                Some(rows) => format!(
                    "--set train.device_batch_size={rows} fits (more micro-batches a step; another run to its key); \
                     {ANYWAY}"
                ),
                None => format!(
                    "not even one row a micro-batch fits: lower model.depth or model.sequence_len; {ANYWAY}"
                ),
            };
            return Some(("train.device_batch_size", Error::input(what).expected(expected).help(help)));
        }
        if self.fits() {
            return None;
        }
        let what = format!("{} runs at a time need {} of memory", self.jobs, size(self.at_once));
        let error = Error::input(what).expected(there).help(format!("fewer --jobs; {ANYWAY}"));
        Some(("run.preflight", error))
    }

    /// What there is of main memory, and whose limit it is.
    fn there(&self) -> String {
        Memory { available: self.available, limit: self.limit.clone() }.there()
    }

    /// That it will be close; none where it will not.
    pub(super) fn warning(&self) -> Option<String> {
        let near = |needs: u64, has: Option<u64>| has.is_some_and(|has| needs > has / 10 * NEAR);
        let close = near(self.at_once, self.available)
            || self.shapes.iter().any(|shape| shape.on_gpu() && near(shape.total(), shape.has));
        close.then(|| format!("memory will be scarce: {}", self.lines().join("; ")))
    }

    /// The plan for a person: a line each shape, and one for all if several are at work.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.shapes.iter().map(ToString::to_string).collect();
        if self.jobs > 1 {
            lines.push(format!("{} in all, {} runs at a time", size(self.at_once), self.jobs));
        }
        if self.misfit().is_none() && !self.fits() {
            lines.push("does not fit: fewer --jobs would".to_owned());
        }
        lines
    }
}

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, device_batch_size: rows, needs, host, has, .. } = self;
        let about = if self.exact { "" } else { "about " };
        write!(f, "{about}{} a run", size(self.total()))?;
        match (has, self.on_gpu()) {
            (Some(has), true) => write!(f, " of {} on {device}", size(*has))?,
            (Some(has), false) => write!(f, " of {} available", size(*has))?,
            (None, true) => write!(f, " on {device}, which is not here,")?,
            (None, false) => {}
        }
        let s = if *rows == 1 { "" } else { "s" };
        write!(
            f,
            " with {rows} row{s} (parameters {}, activations {}, workspace {}",
            size(needs.parameters),
            size(needs.activations),
            size(needs.workspace.saturating_add(*host))
        )?;
        f.write_str(if self.exact { ")" } else { "; an estimate)" })?;
        if self.fits() {
            return Ok(());
        }
        match self.fitting_batch_size {
            Some(fitting) => write!(f, "; does not fit: --set train.device_batch_size={fitting} would"),
            None => f.write_str("; does not fit, not even one row: lower model.depth"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::LimitFrom;
    use crate::manifest::{Manifest, Options};
    use crate::plan::{NoData, Plan, plan};

    fn memory(gib: u64) -> Memory {
        let limit = MemoryLimit { bytes: (gib + 1) << 30, from: LimitFrom::ControlGroup };
        Memory { available: Some((gib << 30) + PROCESS), limit: Some(limit) }
    }

    fn d12(sets: &[&str]) -> Plan {
        let text = include_str!("../../experiments/d12_sqrt.toml");
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let env = vec![("HOME".to_owned(), "/home/somebody".to_owned())];
        let options = Options { sets, env, ..Options::default() };
        plan(&Manifest::parse(Path::new("d12_sqrt.toml"), text, &options).unwrap(), &NoData).unwrap()
    }

    fn of(plan: &Plan, jobs: usize, memory: &Memory) -> MemoryPlan {
        let all: Vec<usize> = (0..plan.runs.len()).collect();
        MemoryPlan::of(&plan.runs, &all, |_| false, (jobs, 2), memory).unwrap()
    }

    /// A row of the faults: default d12 on a CPU was killed by the kernel.
    #[test]
    fn no_memory_check_on_cpu() {
        let plan = d12(&["run.backend=\"cpu\"", "run.precision=\"f32\""]);
        let found = of(&plan, 1, &memory(24));
        let shape = &found.shapes[0];
        assert!(found.shapes.len() == 1 && shape.exact && shape.total() > 25 << 30, "{shape:?}");
        let (key, error) = found.refusal().unwrap();
        assert_eq!((key, error.class().exit_code()), ("train.device_batch_size", 2));
        let text = format!("{error}\n\n{}", found.lines().join("\n"));
        // What a process takes differs by the features it is built with.
        let text = text.replace(&size((24 << 30) + PROCESS), &size(24 << 30));
        insta::assert_snapshot!("d12_on_a_cpu", text);
        // The advice helps.
        let rows = shape.fitting_batch_size.unwrap();
        let set = format!("train.device_batch_size={rows}");
        let plan = d12(&["run.backend=\"cpu\"", "run.precision=\"f32\"", &set]);
        assert!(of(&plan, 1, &memory(24)).refusal().is_none());
        // One run fits, but not beside another.
        let two = of(&plan, 2, &memory(24));
        assert!(!two.fits() && two.refusal().unwrap().1.help_text().unwrap().contains("--jobs"));
        // Nothing fits into a gibibyte.
        let none = of(&plan, 1, &memory(1)).refusal().unwrap().1;
        assert!(none.help_text().unwrap().contains("not even one row"), "{none}");
        assert!(of(&plan, 1, &memory(999)).refusal().is_none());
    }

    #[test]
    fn what_is_near_the_limit_is_warned_of() {
        let plan = d12(&["run.backend=\"cpu\"", "run.precision=\"f32\"", "train.device_batch_size=8"]);
        let needs = of(&plan, 1, &memory(999)).at_once;
        let warned = |available: u64| {
            let memory = Memory { available: Some(available), limit: None };
            let found = of(&plan, 1, &memory);
            (found.refusal().is_some(), found.warning().is_some())
        };
        assert_eq!(warned(needs - 1), (true, true));
        assert_eq!(warned(needs), (false, true));
        assert_eq!(warned(needs / 8 * 10), (false, false));
    }

    #[test]
    fn a_run_that_does_not_fit_on_a_gpu_is_told_the_size_that_does() {
        let plan = d12(&[]);
        let on = |gib: Option<u64>| {
            let run = &plan.runs[0];
            let asked = Asked {
                config: &run.config,
                flops_per_token: run.sizes.flops_per_token,
                parameters: run.sizes.params.total,
                threads: 2,
                resumed: false,
            };
            let mut found = asked.preflight(&memory(1)).unwrap().unwrap();
            found.has = gib.map(|gib| gib << 30);
            let misfits = found.has.is_some_and(|has| found.total() > has);
            let fits = |rows: &usize| asked.tensors(*rows).unwrap().unwrap().total() <= found.has.unwrap();
            found.fitting_batch_size = misfits.then(|| [16, 8, 4, 2, 1].into_iter().find(fits)).flatten();
            found
        };
        let lines =
            [on(Some(139)), on(Some(16)), on(Some(1)), on(None)].map(|preflight| preflight.to_string());
        insta::assert_snapshot!("on_a_gpu", lines.join("\n"));
    }
}
