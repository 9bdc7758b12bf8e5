//! `nanorun eval --core`: the CORE metric of a trained model, task by task.

use std::fmt::Write as _;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::data::Cache;
use crate::error::{Class, Result};
use crate::plan::run_config::RunConfig;
use crate::run::core_metric::CoreEvaluation;
use crate::run::room::Use;
use crate::stop::StopFlag;
use crate::tasks::{Bundle, CoreResult, Limits};
use crate::text::Table;

use super::args::Common;
use super::output::Output;
use super::subject::{Subject, SubjectArgs, subject};

/// Evaluates and prints.
pub(super) fn eval(
    bundle: &Path,
    max_per_task: Option<u64>,
    named: &SubjectArgs,
    common: &Common,
) -> Result<Option<Class>> {
    // What is wrong with it is told before weights are read.
    let bundle = Bundle::open(bundle, Limits { max_per_task })?;
    // Prompts are cut to the context, and one at a time is computed.
    let wants = |config: &RunConfig| {
        let context = config.model.sequence_len();
        Use::Sample { prompt: context, positions: context, sequences: 1 }
    };
    let Subject { mut trained, .. } = subject(named, common, &wants)?;
    trained.engine.stop_on(&StopFlag::default());
    let output = Output::new(common.quiet);
    let bar = output.fancy().then(bar);
    let evaluation = CoreEvaluation {
        bundle: &bundle,
        config: &trained.config,
        tokenizer: &trained.tokenizer,
        cache: &Cache::from_env()?,
        alone: true,
    };
    let evaluated = evaluation.run(trained.engine.as_mut(), &mut |progress| {
        if let Some(bar) = &bar {
            bar.set_length(progress.of);
            bar.set_position(progress.done);
            bar.set_message(progress.task.to_owned());
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let (found, told) = evaluated?;
    if let Some(told) = told {
        output.note(&told);
    }
    let class = trained.engine.environment_class();
    if common.json {
        output.result(&report(&trained.label, trained.step, &class, &bundle, &found).to_string());
    } else {
        output.result(&text(&bundle, &found));
        output.note(&format!("computed in the environment class {class}"));
    }
    Ok(None)
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("evaluating {bar:30} {pos}/{len} examples, {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn text(bundle: &Bundle, found: &CoreResult) -> String {
    let mut table = Table::new(["task", "type", ">shots", ">examples", ">right", ">accuracy", ">centered"]);
    for task in &found.tasks {
        table.push(vec![
            task.label.clone(),
            task.kind.name().to_owned(),
            task.shots.to_string(),
            task.score.examples.to_string(),
            task.score.correct.to_string(),
            format!("{:.6}", task.accuracy),
            format!("{:.6}", task.centered),
        ]);
    }
    let mut text = format!("CORE  {:.6}\n\n{table}", found.core);
    let _ = write!(text, "\nas defined by\n  bundle        sha256 {}", bundle.digest());
    if let Some(most) = bundle.limits().max_per_task {
        let _ = write!(text, "\n  max_per_task  {most}");
    }
    text
}

fn report(label: &str, step: u64, class: &str, bundle: &Bundle, found: &CoreResult) -> Value {
    let task = |task: &crate::tasks::TaskResult| {
        json!({
            "task": task.label,
            "type": task.kind.name(),
            "shots": task.shots,
            "examples": task.score.examples,
            "right": task.score.correct,
            "accuracy": task.accuracy,
            "random_baseline": task.random_baseline,
            "centered": task.centered,
        })
    };
    json!({
        "run": label,
        "step": step,
        "core": found.core,
        "tasks": found.tasks.iter().map(task).collect::<Vec<_>>(),
        "environment_class": class,
        "definition": { "bundle": bundle.digest(), "max_per_task": bundle.limits().max_per_task },
    })
}
