//! An experiment carried out with a backend that does nothing: what is left is what the runner itself costs.
//!
//! `scripts/scale` builds and starts it: `scale MANIFEST RESULTS [JOBS]` plans the manifest, carries it out and
//! prints a line of JSON. Without arguments, as tests start it, a small experiment goes through the same way in a place
//! of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;

use nanorun::internals::error::{Error, Result};
use nanorun::internals::experiment::{Experiment, HowToRun};
use nanorun::internals::files::now;
use nanorun::internals::manifest::Options;
use nanorun::internals::model::param::ParamSpec;
use nanorun::internals::ops::Losses;
use nanorun::internals::optim::config::StepValues;
use nanorun::internals::plan::run_config::RunConfig;
use nanorun::internals::record::RunResult;
use nanorun::internals::run::progress::Display;
use nanorun::internals::stop::StopFlag;
use nanorun::internals::train::engine::{Engine, MicroBatch, NamedTensor};
use nanorun::internals::train::footprint::specs;

/// Weights that never change and losses that are always the same.
struct Idle {
    specs: Vec<ParamSpec>,
    weights: Vec<Vec<f32>>,
    vocab_size: usize,
}

impl Idle {
    fn new(config: &RunConfig) -> Self {
        let specs = specs(&config.model);
        let weights = specs.iter().map(|spec| vec![0.0; spec.numel()]).collect();
        Self { specs, weights, vocab_size: config.model.vocab_size() }
    }
}

impl Engine for Idle {
    fn stop_on(&mut self, _: &StopFlag) {}
    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }
    fn accumulate(&mut self, batch: &MicroBatch<'_>, _: f32) -> Result<Losses<Error>> {
        self.losses(batch).map(Losses::from)
    }
    fn drop_gradients(&mut self) -> Result<()> {
        Ok(())
    }
    fn update(&mut self, _: &StepValues) -> Result<()> {
        Ok(())
    }
    fn losses(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
        Ok(vec![2.0; batch.inputs.len()])
    }
    fn logits(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
        Ok(vec![0.0; batch.inputs.len() * self.vocab_size])
    }
    fn gradients(&self) -> Result<Vec<NamedTensor<'_>>> {
        self.parameters()
    }
    fn parameters(&self) -> Result<Vec<NamedTensor<'_>>> {
        let each = self.specs.iter().zip(&self.weights);
        let named = |(spec, values): (&ParamSpec, &'_ Vec<f32>)| {
            (spec.name.clone(), spec.shape.clone(), values.clone())
        };
        Ok(each
            .map(named)
            .map(|(name, shape, values)| NamedTensor { name, shape, values: values.into() })
            .collect())
    }
    fn optimizer_state(&self) -> Result<Vec<NamedTensor<'_>>> {
        Ok(Vec::new())
    }
    fn restore(&mut self, _: u64, _: &[NamedTensor<'_>], _: &[NamedTensor<'_>]) -> Result<()> {
        Ok(())
    }
    fn start_decoding(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
    fn decode_last(&mut self, _: &[i32], _: usize) -> Result<Vec<f32>> {
        Ok(vec![0.0; self.vocab_size])
    }
    fn live_bytes(&self) -> u64 {
        0
    }
    fn environment_class(&self) -> String {
        "idle".to_owned()
    }
}

/// What came of it.
struct Carried {
    runs: usize,
    /// Steps that were trained; shared ones once.
    steps: usize,
    plan_seconds: f64,
    run_seconds: f64,
    /// Those of them in steps.
    step_seconds: f64,
}

/// Plans and carries out.
fn carry_out(manifest: &Path, results: &Path, jobs: usize) -> Result<Carried> {
    let environment = std::env::vars().collect();
    let began = now();
    let experiment =
        Experiment::load(manifest, &Options { env: environment, ..Options::default() }, results)?;
    let planned = began.elapsed().as_secs_f64();
    let began = now();
    let report = experiment.run(&HowToRun {
        threads: jobs,
        jobs: Some(jobs),
        share: true,
        rerun: false,
        reuse: &[],
        among: None,
        unit: None,
        stay: true,
        engine: &|config, _| Ok(Box::new(Idle::new(config))),
        display: &Display::silent(),
        stop: &StopFlag::default(),
    })?;
    let carried_out = began.elapsed().as_secs_f64();
    for (label, error) in &report.failures {
        eprintln!("{label}: {error}");
    }
    assert!(report.failures.is_empty() && report.results.iter().all(Option::is_some));
    let own = |result: &Arc<RunResult>| {
        let seconds = &result.timings.step_seconds[result.timings.shared_steps as usize..];
        (seconds.len(), seconds.iter().sum::<f64>())
    };
    let own: Vec<_> = report.results.iter().flatten().map(own).collect();
    Ok(Carried {
        runs: report.results.len(),
        steps: own.iter().map(|(steps, _)| steps).sum(),
        plan_seconds: planned,
        run_seconds: carried_out,
        step_seconds: own.iter().map(|(_, seconds)| seconds).sum(),
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let carried = if let [manifest, results, jobs @ ..] = arguments.as_slice() {
        let jobs = jobs.last().map_or(1, |jobs| jobs.parse().unwrap());
        carry_out(Path::new(manifest), Path::new(results), jobs).unwrap()
    } else {
        let place = tempfile::tempdir().unwrap();
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests/tiny.toml");
        let first = carry_out(&manifest, place.path(), 2).unwrap();
        assert_eq!(first.runs, 4);
        carry_out(&manifest, place.path(), 2).unwrap()
    };
    let Carried { runs, steps, plan_seconds, run_seconds, step_seconds } = carried;
    println!(
        "{{\"runs\": {runs}, \"steps\": {steps}, \"plan_seconds\": {plan_seconds:.3}, \
         \"run_seconds\": {run_seconds:.3}, \"step_seconds\": {step_seconds:.3}}}"
    );
}
