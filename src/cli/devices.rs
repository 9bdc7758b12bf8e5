//! `--devices`: a process of its own for each device, all on one experiment, and one display of what they say.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::torch::device::DeviceError;
use crate::backend::torch::facts::{Missing, torch_facts};
use crate::console;
use crate::error::{Class, Error, Result};
use crate::experiment::{Experiment, HowToRun, Report};
use crate::plan::run_config::BackendKind;
use crate::run::engine::engine;
use crate::run::progress::Display;
use crate::stop::StopFlag;
use crate::system;

use super::args::RunArgs;

/// How often the processes are looked after.
const PAUSE: Duration = Duration::from_millis(50);

/// Carries an experiment out by a worker a device, and judges it once they have ended.
///
/// # Errors
/// Devices that are not there or that the experiment cannot use; processes that cannot be started.
pub(super) fn carry_out(
    experiment: &Experiment,
    args: &RunArgs,
    threads: usize,
    display: &Display,
) -> Result<(Report, Option<Class>)> {
    let devices = devices(experiment, &args.devices)?;
    let stop = StopFlag::default();
    let how = HowToRun {
        threads,
        jobs: Some(1),
        share: !args.no_share,
        rerun: false,
        reuse: &args.reuse,
        among: None,
        unit: Some("--devices".to_owned()),
        stay: false,
        engine: &engine,
        display,
        stop: &stop,
    };
    experiment.supervise(&how, || work(&devices, args, threads, &stop))
}

/// The devices that are meant, each as its worker is told.
fn devices(experiment: &Experiment, asked: &[String]) -> Result<Vec<Device>> {
    let on_tch = experiment.plan.runs.iter().any(|run| run.config.backend.kind == BackendKind::Tch);
    let refused =
        |what: String, expected: &str| Error::input(what).key("--devices").expected(expected.to_owned());
    let mut names: Vec<String> = Vec::new();
    for name in asked {
        if name == "all" {
            if !on_tch {
                return Err(refused(
                    "`all` means all GPUs, and this experiment trains on none".to_owned(),
                    "run.backend = \"tch\", or `cpu` as often as there are to be workers: --devices cpu,cpu",
                ));
            }
            names.extend((0..gpus()?).map(|index| format!("cuda:{index}")));
        } else {
            names.push(name.clone());
        }
    }
    for (at, name) in names.iter().enumerate() {
        match name.strip_prefix("cuda:").map(str::parse::<usize>) {
            Some(Ok(index)) => {
                if !on_tch {
                    let what = format!("{name} is a GPU, and this experiment trains on none");
                    return Err(refused(what, "run.backend = \"tch\", or --devices cpu,cpu"));
                }
                let there = gpus()?;
                if index >= there {
                    return Err(refused(
                        format!("{name} is not there"),
                        &format!("one of the {there} GPUs here"),
                    ));
                }
                if names[..at].contains(name) {
                    let what = format!("{name} is named twice: two runs would share its memory");
                    return Err(refused(what, "each GPU once"));
                }
            }
            None if name == "cpu" => {}
            _ => {
                return Err(refused(
                    format!("`{name}` is no device"),
                    "cpu, cuda:N or all, with commas between",
                ));
            }
        }
    }
    let cpus = names.iter().filter(|name| *name == "cpu").count();
    let named = names.iter().enumerate().map(|(at, name)| {
        let label = if cpus > 1 { format!("{name} {}", at + 1) } else { name.clone() };
        Device { name: name.clone(), label, on_tch }
    });
    Ok(named.collect())
}

/// How many GPUs there are.
fn gpus() -> Result<usize> {
    let why = match torch_facts() {
        Ok(facts) => match facts.cuda {
            Ok(cuda) => return Ok(cuda.devices.len()),
            Err(why) => why,
        },
        Err(Missing::NotBuilt) => return Err(DeviceError::NotBuilt.into()),
        Err(Missing::Start(why)) => why,
    };
    Err(Error::run(format!("no GPU can be used: {why}")).help("`nanorun doctor` says more"))
}

/// A worker's device.
struct Device {
    name: String,
    label: String,
    /// Whether the experiment's backend has devices that can be told apart.
    on_tch: bool,
}

/// Starts a worker a device and waits for all of them. -> the gravest of their ends
fn work(devices: &[Device], args: &RunArgs, threads: usize, stop: &StopFlag) -> Result<Option<Class>> {
    let each = (threads / devices.len().max(1)).max(1);
    let mut workers: Vec<Child> = Vec::new();
    let started: Result<()> = devices.iter().try_for_each(|device| {
        workers.push(start(device, args, each)?);
        Ok(())
    });
    let ends = std::thread::scope(|scope| {
        for (worker, device) in workers.iter_mut().zip(devices) {
            if let Some(said) = worker.stderr.take() {
                scope.spawn(|| pass_on(said, &device.label));
            }
        }
        // One that cannot be started: the others are asked to stop, as whoever started this sees an error.
        if started.is_err() {
            stop.raise();
        }
        wait(&mut workers, stop)
    });
    started?;
    let classes = ends?.into_iter().zip(devices).filter_map(|(end, device)| class_of(end, &device.label));
    Ok(classes.max_by_key(|class| class.severity()))
}

fn start(device: &Device, args: &RunArgs, threads: usize) -> Result<Child> {
    let failed =
        |error| Error::run(format!("the worker of {} cannot be started", device.label)).because(error);
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    let progress = if console::is_json() { "json" } else { "lines" };
    command.args(["--progress", progress, "work"]).arg(&args.manifest);
    let common = &args.common;
    let mut options: Vec<OsString> = vec!["--results".into(), common.results.clone().into()];
    options.extend(["--threads".into(), threads.to_string().into(), "--jobs".into(), "1".into()]);
    let pairs = [("--profile", common.profile.as_slice()), ("--set", &common.sets), ("--only", &common.only)];
    for (name, values) in pairs {
        options.extend(values.iter().flat_map(|value| [OsString::from(name), value.into()]));
    }
    for place in &args.reuse {
        options.extend(["--reuse".into(), place.clone().into()]);
    }
    if device.on_tch {
        options.extend(["--set".into(), format!("run.device=\"{}\"", device.name).into()]);
    }
    if args.no_share {
        options.push("--no-share".into());
    }
    if common.quiet {
        options.push("--quiet".into());
    }
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(failed)
}

/// Waits for the workers, and hands on that this process is asked to stop.
fn wait(workers: &mut [Child], stop: &StopFlag) -> Result<Vec<ExitStatus>> {
    let mut asked = false;
    let mut ends: Vec<Option<ExitStatus>> = vec![None; workers.len()];
    while ends.iter().any(Option::is_none) {
        // Ctrl-C in a terminal reaches them too; a second signal so soon after it changes nothing.
        if stop.is_raised() && !std::mem::replace(&mut asked, true) {
            let running = workers.iter().zip(&ends).filter(|(_, end)| end.is_none());
            running.for_each(|(worker, _)| system::ask_to_stop(worker.id()));
        }
        for (worker, end) in workers.iter_mut().zip(&mut ends) {
            if end.is_none() {
                *end =
                    worker.try_wait().map_err(|e| Error::run("a worker cannot be waited for").because(e))?;
            }
        }
        std::thread::sleep(PAUSE);
    }
    Ok(ends.into_iter().flatten().collect())
}

/// Says what a worker says, under its device's name.
fn pass_on(said: ChildStderr, label: &str) {
    for line in BufReader::new(said).lines().map_while(std::io::Result::ok) {
        match serde_json::from_str::<Value>(&line) {
            Ok(Value::Object(mut fields)) if console::is_json() => {
                let event = fields.remove("event").and_then(|event| event.as_str().map(str::to_owned));
                fields.insert("device".to_owned(), json!(label));
                console::event(event.as_deref().unwrap_or("progress"), Value::Object(fields));
            }
            _ => console::say(console::Kind::Progress, &format!("[{label}] {line}")),
        }
    }
}

/// What the end of a worker means; what it said of it has been passed on.
fn class_of(end: ExitStatus, label: &str) -> Option<Class> {
    match end.code() {
        Some(0) => None,
        Some(code) => Some(Class::of_exit_code(code).unwrap_or(Class::Run)),
        None => {
            // What it had is carried on by whoever comes next.
            console::say(console::Kind::Warning, &format!("the worker of {label} was killed: {end}"));
            Some(Class::Run)
        }
    }
}
