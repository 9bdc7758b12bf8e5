//! `nanorun try`: one change against a control, with a verdict that holds however many changes are tried.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::error::{Class, Error, Result};
use crate::experiment::{Experiment, Side, Trial, level};
use crate::files::Files;
use crate::ledger::{self, Judged, Reservation, Tries};
use crate::scorecard::Outcome;
use crate::stop;

use super::args::{Common, RunArgs};
use super::naming::{For, Found, find};
use super::output::Output;
use super::run;

/// `nanorun try`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct TryArgs {
    /// The manifest of what is tried; --set changes it
    #[arg(value_name = "MANIFEST")]
    manifest: PathBuf,
    /// What it is compared with: a manifest, a results directory, or one of its runs for that run's arm (default: MANIFEST as
    /// it stands)
    #[arg(long, value_name = "CONTROL")]
    against: Option<PathBuf>,
    /// Runs trained at the same time (default: the plan's choice)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Common options
    #[command(flatten)]
    common: Common,
}

const HELP: &str = "\
Examples:
  nanorun try m.toml --set optimizer.matrix_lr=0.03                     against m.toml as it stands
  nanorun try m.toml --set model.smear=false --against results/m --json
  nanorun try m.toml --set budget.steps=2000 --against m/4734d3         against the arm of that run

Whoever tries many changes finds a better one by chance. So the i-th try against a control is judged at a share 6 / (pi^2 i^2)
of the error that scorecard.quality.confidence leaves: over all tries together it is no more than that. The number is
reserved in tries.jsonl, beside the results, before anything is trained; the same try has the same number whenever it is
taken up again, and more seeds make it another try. The control's runs are trained once and used again.

Exit codes: 0 better, equivalent, no worse or undecided; 5 worse than the margin allows; the others as everywhere.";

/// Tries a change.
pub(super) fn try_out(args: &TryArgs) -> Result<Option<Class>> {
    stop::watch()?;
    let here = std::env::current_dir()
        .map_err(|error| Error::input("the working directory cannot be told").because(error))?;
    let output = Output::new(args.common.quiet);
    let results = args.common.results.clone();
    let plain = Common { sets: Vec::new(), only: Vec::new(), ..args.common.clone() };
    let against = args.against.as_deref().unwrap_or(&args.manifest);
    let Found { experiment: mut control, key, .. } =
        find(against, &plain_for(against, &plain), For::Working)?;
    let home = std::env::current_dir().ok();
    let control_arm = control_arm(&control, key.as_deref(), against)?;
    // What a search for the batch finds decides which runs these are.
    control.search_batch(super::threads(&plain, &control), &run::display(output))?;
    enter(&here)?;
    let Found { experiment: mut ours, .. } = find(&args.manifest, &args.common, For::Working)?;
    let arm = tried_arm(&ours, &control, control_arm)?;
    // Before anything is reserved or trained.
    ours.require_data_here()?;
    ours.search_batch(super::threads(&args.common, &ours), &run::display(output))?;
    let trial = Trial {
        ours: Side { experiment: &ours, arm },
        control: Side { experiment: &control, arm: control_arm },
    };
    let (metric, margin, confidence) = trial.asks();
    let (control_id, own_id) = (trial.control.identity()?, trial.ours.identity()?);
    if control_id == own_id {
        return Err(Error::input("what is tried is its control: nothing was changed that decides a run")
            .file(&args.manifest)
            .expected("--set PATH=VALUE with another value, or --against another control"));
    }
    let seeds = trial.seeds();
    if seeds.is_empty() {
        return Err(Error::input("the try and its control have no seed in common")
            .file(&args.manifest)
            .key("run.seed")
            .expected(format!("some of the control's seeds: {:?}", trial.control.seeds())));
    }
    let files = Files::from_env()?;
    let alpha = 1.0 - confidence;
    let control_name = trial.control.name();
    let directory = ours.dir.path().file_name().map(|name| name.to_string_lossy().into_owned());
    let reservation = Reservation {
        id: trial.id()?,
        control: control_id,
        control_name: control_name.clone(),
        directory: directory.unwrap_or_default(),
        manifest: args.manifest.display().to_string(),
        varied: ours.manifest.variation.departures(),
        seeds: seeds.clone(),
        metric: metric.clone(),
        alpha,
    };
    let (number, taken_up) = Tries::reserve(&files, &results, &reservation)?;
    let confidence = level(alpha, number);
    let again = if taken_up { ", as before" } else { "" };
    output.note(&format!(
        "try {number} against {control_name}{again}: judged at {:.4} % confidence over {} seeds",
        confidence * 100.0,
        seeds.len()
    ));
    // What is judged is what is trained: these seeds of the two arms.
    ours.only_arm(arm, &seeds);
    control.only_arm(control_arm, &seeds);
    // The control first: without it nothing can be judged.
    if let Some(home) = &home {
        enter(home)?;
    }
    let failed = train(&mut control, args, &[], output);
    enter(&here)?;
    if let Some(class) = failed? {
        output
            .warn("the control is not finished, so nothing is judged; the same command carries on from here");
        return Ok(Some(class));
    }
    let reuse =
        if ours.dir.path() == control.dir.path() { Vec::new() } else { vec![control.dir.path().to_owned()] };
    let failed = train(&mut ours, args, &reuse, output)?;
    if failed == Some(Class::Interrupted) {
        output.note("interrupted: the same command carries on from here, with the same number");
        return Ok(failed);
    }
    let trial = Trial {
        ours: Side { experiment: &ours, arm },
        control: Side { experiment: &control, arm: control_arm },
    };
    let found = trial.judge(confidence)?;
    let row = found.verdict.row();
    let judged = Judged {
        id: reservation.id.to_string(),
        number,
        control_name: control_name.clone(),
        directory: reservation.directory.clone(),
        arm: trial.ours.label(),
        metric: row.metric.clone(),
        outcome: row.outcome.clone(),
        finding: row.finding.clone(),
        difference: row.difference,
        lower: row.lower,
        upper: row.upper,
        confidence,
        margin: row.limit,
        pairs: row.pairs,
        detail: row.detail.clone(),
    };
    // What was found stands, whether it could be written down or not.
    if let Err(error) = Tries::judged(&files, &results, &judged) {
        output.warn(&format!("note: the outcome is not in the log of tries: {}", error.what()));
    }
    ledger::update(&files, &ours.dir);
    let (finished, runs) = found.finished;
    if args.common.json {
        let report = json!({
            "format": 1,
            "try": number,
            "taken_up": taken_up,
            "control": control_name,
            "control_directory": control.dir.path(),
            "directory": ours.dir.path(),
            "arm": trial.ours.label(),
            "varied": reservation.varied,
            "seeds": seeds,
            "alpha": alpha,
            "confidence": confidence,
            "answer": found.answer,
            "verdict": {
                "metric": row.metric,
                "outcome": row.outcome,
                "finding": row.finding,
                "pairs": row.pairs,
                "arm_mean": row.arm_mean,
                "control_mean": row.control_mean,
                "difference": row.difference,
                "lower": row.lower,
                "upper": row.upper,
                "deviation": row.deviation,
                "seeds_needed": row.seeds_needed,
                "margin": margin,
                "detail": row.detail,
            },
            "cost": { "seconds": found.seconds, "flops": found.flops, "runs": runs, "finished_runs": finished },
        });
        output.result(&report.to_string());
    } else {
        output.prose(&format!(
            "{}\nTry {number} against {control_name}; {finished} of {runs} runs, {:.1} s, {:.2e} FLOPs; results are in {}",
            found.answer,
            found.seconds,
            found.flops,
            ours.dir.path().display()
        ));
    }
    let verdict = (found.verdict.outcome == Outcome::Fail).then_some(Class::Verdict);
    Ok([failed, verdict].into_iter().flatten().max_by_key(|class| class.severity()))
}

/// Over results nothing is laid.
fn plain_for(against: &Path, plain: &Common) -> Common {
    let profile = plain.profile.clone().filter(|_| against.is_file());
    Common { profile, ..plain.clone() }
}

/// The arm that is the control.
fn control_arm(control: &Experiment, key: Option<&str>, named: &Path) -> Result<usize> {
    let arms = &control.plan.arms;
    if let Some(key) = key {
        return control.arm_of(key);
    }
    if arms.len() == 1 {
        return Ok(0);
    }
    let mut own: Vec<usize> = arms.iter().filter_map(|arm| arm.control).collect();
    own.sort_unstable();
    own.dedup();
    match own.as_slice() {
        [one] => Ok(*one),
        several => {
            let what = if several.is_empty() {
                format!("the control has {} arms, and none is its own control", arms.len())
            } else {
                format!("the control has {} arms, of which {} are controls", arms.len(), several.len())
            };
            let arms: Vec<String> = arms
                .iter()
                .map(|arm| {
                    let key = arm.runs.first().and_then(|run| control.plan.runs.get(*run));
                    format!("{}  {}", key.map_or_else(String::new, |run| run.key.short()), arm.label)
                })
                .collect();
            Err(Error::input(what).file(named).expected(format!(
                "--against EXPERIMENT/KEY with the key of a run of the arm that is meant:\n    {}",
                arms.join("\n    ")
            )))
        }
    }
}

/// The arm that is tried: the only one that is picked, else the one that has the control's values of all axes.
fn tried_arm(ours: &Experiment, control: &Experiment, control_arm: usize) -> Result<usize> {
    let mut picked: Vec<usize> = ours.selected_runs().map(|run| run.arm).collect();
    picked.dedup();
    picked.sort_unstable();
    picked.dedup();
    if let [one] = picked.as_slice() {
        return Ok(*one);
    }
    let wanted = control.plan.arms.get(control_arm).map(|arm| &arm.values);
    let same = picked.iter().find(|arm| ours.plan.arms.get(**arm).map(|arm| &arm.values) == wanted);
    same.copied().ok_or_else(|| {
        let labels: Vec<&str> =
            picked.iter().filter_map(|arm| Some(ours.plan.arms.get(*arm)?.label.as_str())).collect();
        Error::input(format!("{} arms would be tried at once", labels.len()))
            .file(&ours.manifest.file)
            .expected(format!("one of them, picked with --only PATH=VALUE: {}", labels.join("; ")))
    })
}

/// Trains what is not finished of what the command is about. -> how that failed, where it did
fn train(
    experiment: &mut Experiment,
    args: &TryArgs,
    reuse: &[PathBuf],
    output: Output,
) -> Result<Option<Class>> {
    let how = RunArgs {
        manifest: args.manifest.clone(),
        rerun: false,
        no_share: false,
        reuse: reuse.to_vec(),
        jobs: args.jobs,
        devices: Vec::new(),
        undecided: super::undecided::UndecidedArgs::default(),
        common: args.common.clone(),
    };
    if !experiment.has_work()? {
        return Ok(None);
    }
    let report = run::carry_out(experiment, &how)?;
    for (label, error) in &report.failures {
        output.warn(&format!("{label} failed: {error}"));
    }
    report.notes.iter().for_each(|note| output.note(note));
    // Its own verdicts are not what was asked for.
    let failed = report.failures.iter().map(|(_, error)| error.class());
    let interrupted = report.interrupted.then_some(Class::Interrupted);
    Ok(failed.chain(interrupted).max_by_key(|class| class.severity()))
}

fn enter(directory: &Path) -> Result<()> {
    std::env::set_current_dir(directory).map_err(|error| {
        Error::input("cannot go back to the working directory").file(directory).because(error)
    })
}
