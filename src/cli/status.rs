//! `nanorun status`: how an experiment stands on a cluster, by what is on disk of it alone.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::cluster::{Overview, RunView, UnitState, UnitView};
use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::text::{Table, shortened};

use super::args::Common;
use super::output::Output;
use super::submit::results_dir;
use super::threads;

/// `nanorun status`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct StatusArgs {
    /// A manifest, or a results directory
    #[arg(value_name = "EXPERIMENT")]
    experiment: PathBuf,
    /// Common options
    #[command(flatten)]
    common: Common,
}

const HELP: &str = "\
Examples:
  nanorun status experiments/quickstart.toml         units, who trains what since when, what waits, what failed and what mends it
  nanorun status results/quickstart --json

It reads what is on disk and asks no scheduler.";

/// Tells how it stands.
pub(super) fn status(args: &StatusArgs) -> Result<Option<Class>> {
    threads::start(None)?;
    let dir = results_dir(&args.experiment, &args.common)?;
    let overview = Overview::read(&Files::new(), &dir)?;
    if overview.units.is_empty() && overview.runs.is_empty() {
        return Err(Error::input("nothing of this experiment was begun or submitted")
            .file(dir.path())
            .expected("an experiment that was")
            .help(format!("begin it: nanorun submit {}", args.experiment.display())));
    }
    let output = Output::new(args.common.quiet);
    if args.common.json {
        let json = serde_json::to_string(&overview)
            .map_err(|error| Error::internal("a status has no JSON").because(error))?;
        output.result(&json);
    } else {
        output.rows(&text(&overview));
    }
    Ok(None)
}

fn text(overview: &Overview) -> String {
    let mut text = format!("{}\n\n", overview.directory);
    if !overview.units.is_empty() {
        let mut table = Table::new([">unit", "", "state", "since", "job", "node", ">starts", "runs"]);
        for unit in &overview.units {
            table.push(row(unit));
        }
        text.push_str(&table.to_string());
        let _ = write!(text, "{} units: {}\n\n", overview.units.len(), overview.counts());
    }
    let mut table = Table::new(["run", "", "status", ">step", ">of", "by", "since"]);
    let mut shown = 0;
    // Of what is done, or has not begun, nothing more is to be told.
    for run in overview.all_runs().filter(|run| !matches!(run.status.as_str(), "finished" | "planned")) {
        table.push(run_row(run));
        shown += 1;
    }
    if shown > 0 {
        text.push_str(&table.to_string());
    }
    let finished = overview.all_runs().filter(|run| run.status == "finished").count();
    let _ = writeln!(text, "{finished} of {} runs are finished", overview.all_runs().count());
    text.push_str(&classes(overview));
    for help in &overview.help {
        let _ = writeln!(text, "help: {help}");
    }
    text
}

/// In which environment classes it was computed, and what the submission expects: hashes agree within one alone.
fn classes(overview: &Overview) -> String {
    let mut text = String::new();
    if let [(class, _)] = overview.classes.iter().collect::<Vec<_>>().as_slice() {
        let _ = writeln!(text, "environment class: {class}");
    } else if !overview.classes.is_empty() {
        let each = overview.classes.iter().map(|(class, runs)| format!("{class} of {runs}"));
        let each = each.collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "environment classes: {each}; hashes can be compared within one of them");
    }
    for (backend, class) in &overview.expected_classes {
        if !overview.classes.keys().eq([class]) {
            let _ = writeln!(text, "environment class when it was submitted, of {backend}: {class}");
        }
    }
    text
}

fn row(unit: &UnitView) -> Vec<String> {
    let finished = unit.runs.iter().filter(|run| run.status == "finished").count();
    let waits = match (unit.state, unit.after) {
        (UnitState::Waiting, Some(after)) => format!(", after unit {after}"),
        _ => String::new(),
    };
    let label = unit.runs.first().map_or("", |run| run.label.as_str());
    let more = match unit.runs.len() {
        0 | 1 => String::new(),
        runs => format!(" and {} more", runs - 1),
    };
    vec![
        unit.unit.to_string(),
        unit.kind.to_owned(),
        format!("{}{waits}", unit.state.word()),
        unit.since.clone().unwrap_or_default(),
        unit.job.clone().unwrap_or_default(),
        unit.node.clone().unwrap_or_default(),
        unit.starts.to_string(),
        format!("{finished} of {}: {}{more}", unit.runs.len(), shortened(label, 40)),
    ]
}

fn run_row(run: &RunView) -> Vec<String> {
    let reason = run.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let owner = run.owner.as_ref();
    vec![
        run.key.short(),
        shortened(&run.label, 40).into_owned(),
        format!("{}{}", run.status, shortened(&reason, 60)),
        run.step.to_string(),
        run.steps.to_string(),
        owner.map_or_else(String::new, |owner| format!("{} on {}", owner.pid, owner.host)),
        owner.map_or_else(String::new, |owner| owner.since.clone()),
    ]
}
