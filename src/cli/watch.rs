//! `nanorun watch`: how runs go on, by what is on disk of them alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::console;
use crate::error::{Class, Error, Result};
use crate::experiment::Curves;
use crate::files::Files;
use crate::lease::somebody_works;
use crate::plan::render::duration;
use crate::record::{Attempts, ExperimentDir, experiments_in};
use crate::report;
use crate::stop::{self, signalled};
use crate::survey::{Listed, Survey};
use crate::text::{Table, sparkline};

use super::args::Common;
use super::naming::{For, absolute, find, results_of};
use super::output::Output;
use super::threads;

/// `nanorun watch`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct WatchArgs {
    /// Results directories or manifests (default: every experiment of --results in which a nanorun works)
    #[arg(value_name = "RESULTS")]
    names: Vec<PathBuf>,
    /// Seconds between looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    every: f64,
    /// Look once and end
    #[arg(long)]
    once: bool,
    /// Leave report.html as it is
    #[arg(long)]
    no_page: bool,
    /// Where results are kept
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print a JSON line on stdout for every run that changed
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  nanorun watch                                      whatever runs in results/
  nanorun watch results/d12_sqrt                     one experiment, until its runs have ended or Ctrl-C
  nanorun watch results/d12_sqrt --once | cat        how it stands now

It reads what is on disk: losses up to a run's newest checkpoint, evaluations as they are made. checkpoint.minutes = 0
saves, and so shows, every step. The experiment's report.html is written anew whenever something changed: reload it.
Ends with 0 when no nanorun works there any more, with 130 on Ctrl-C.";

/// How often a page is written at most.
const PAGE_EVERY: Duration = Duration::from_secs(5);

/// Where a run stands, as far as anybody would notice.
type Stand = (String, u64, usize, usize);

/// Watches.
pub(super) fn watch(args: &WatchArgs) -> Result<Option<Class>> {
    stop::watch()?;
    threads::start(None)?;
    if !(args.every.is_finite() && (0.05..=86_400.0).contains(&args.every)) {
        return Err(
            Error::input(format!("--every {} is no pause", args.every)).expected("0.05 to 86400 seconds")
        );
    }
    let files = Files::from_env()?;
    let dirs = asked_for(args)?;
    let output = Output::new(false);
    let redraws = console::has_colour(true) && !args.json && !args.once;
    let mut screen = Screen { lines: 0, redraws };
    let mut known: BTreeMap<String, Stand> = BTreeMap::new();
    let mut pages = Pages::default();
    // Of what has ended nothing changes any more.
    let mut ended: BTreeMap<String, Curves> = BTreeMap::new();
    loop {
        let works = dirs.iter().any(|dir| somebody_works(dir.path()));
        let mut survey = Survey::of(&files, &dirs);
        if survey.experiments.is_empty()
            && let Some(error) = survey.damaged.pop()
        {
            return Err(error);
        }
        let views: Vec<View<'_>> =
            survey.runs.iter().map(|run| View::of(&files, &survey, run, &mut ended)).collect();
        let changed: Vec<&View<'_>> =
            views.iter().filter(|view| known.get(&view.name) != Some(&view.stand())).collect();
        if args.json {
            for view in &changed {
                output.result(&view.json().to_string());
            }
        } else if redraws {
            screen.draw(&drawn(&views, output.width().unwrap_or(100)), output);
        } else if args.once {
            output.prose(&drawn(&views, output.width().unwrap_or(120)));
        } else {
            for view in &changed {
                output.result(&view.line());
            }
        }
        let something = !changed.is_empty();
        known = views.iter().map(|view| (view.name.clone(), view.stand())).collect();
        drop(views);
        if something && !args.no_page {
            pages.stale = true;
        }
        let last = args.once || !works;
        if pages.stale && (last || pages.is_due()) {
            pages.write(&files, &dirs, output);
        }
        if last {
            if !works && !args.once {
                output.note("no nanorun works there any more");
            }
            return Ok(None);
        }
        if !pause(args.every) {
            return Ok(Some(Class::Interrupted));
        }
    }
}

/// What is to be watched.
fn asked_for(args: &WatchArgs) -> Result<Vec<ExperimentDir>> {
    let mut dirs = Vec::new();
    for name in &args.names {
        let below = if name.is_dir() && !name.join("plan.toml").is_file() {
            experiments_in(name)?
        } else {
            Vec::new()
        };
        if below.is_empty() {
            let (dir, _) = results_of(name, &args.results)?;
            if !dir.file("plan.toml").is_file() {
                return Err(Error::input("there is nothing to watch: this experiment has not begun")
                    .file(dir.path())
                    .expected(
                        "the results directory of an experiment that was begun, such as results/quickstart",
                    ));
            }
            dirs.push(ExperimentDir::at(absolute(dir.path())?));
        } else {
            dirs.extend(works_in(below)?);
        }
    }
    if args.names.is_empty() {
        dirs = works_in(experiments_in(&args.results)?)?;
        if dirs.is_empty() {
            return Err(Error::input("no nanorun works in these results")
                .file(&args.results)
                .expected("an experiment that runs; name one to see how it stands"));
        }
    }
    Ok(dirs)
}

/// Those of them in which a nanorun works.
fn works_in(dirs: Vec<ExperimentDir>) -> Result<Vec<ExperimentDir>> {
    let working = dirs.into_iter().filter(|dir| somebody_works(dir.path()));
    working.map(|dir| Ok(ExperimentDir::at(absolute(dir.path())?))).collect()
}

/// Waits. -> whether to go on
fn pause(seconds: f64) -> bool {
    let mut left = Duration::from_secs_f64(seconds);
    while !left.is_zero() {
        if signalled() {
            return false;
        }
        let part = left.min(Duration::from_millis(50));
        std::thread::sleep(part);
        left = left.saturating_sub(part);
    }
    !signalled()
}

/// A run as it is shown.
struct View<'a> {
    name: String,
    run: &'a Listed,
    curves: Curves,
}

impl<'a> View<'a> {
    fn of(files: &Files, survey: &Survey, run: &'a Listed, known: &mut BTreeMap<String, Curves>) -> Self {
        let dir = survey.experiments.get(run.experiment).map(|(dir, _)| dir);
        let short = run.row.run_key.get(..12).unwrap_or(&run.row.run_key);
        let experiment = dir.and_then(|dir| dir.path().file_name()).map(|name| name.to_string_lossy());
        let name = format!("{}/{short}", experiment.unwrap_or_default());
        let place = dir.zip(run.row.run_key.parse().ok()).map(|(dir, key)| dir.run(&key));
        let has_ended = matches!(run.row.status.as_str(), "finished" | "diverged" | "retired");
        let curves = match (place, known.get(&name).filter(|_| has_ended)) {
            (_, Some(curves)) => curves.clone(),
            (None, None) => Curves::default(),
            (Some(place), None) if has_ended => {
                let attempts = Attempts::read(files, &place).unwrap_or_default();
                let curves = Curves::ended(&attempts);
                known.insert(name.clone(), curves.clone());
                curves
            }
            (Some(place), None) => {
                let attempts = place.attempts().unwrap_or_default();
                attempts.last().map_or_else(Curves::default, |attempt| Curves::under_way(files, attempt))
            }
        };
        Self { name, run, curves }
    }

    fn stand(&self) -> Stand {
        let row = &self.run.row;
        (row.status.clone(), row.steps_done, self.curves.losses.len(), self.curves.evaluations.len())
    }

    fn label(&self) -> String {
        let row = &self.run.row;
        if row.arm.is_empty() {
            format!("seed={}", row.seed)
        } else {
            format!("{} seed={}", row.arm, row.seed)
        }
    }

    fn steps_done(&self) -> u64 {
        self.run.row.steps_done.max(self.curves.losses.len() as u64)
    }

    fn last(&self) -> (Option<f32>, Option<f64>) {
        (self.curves.losses.last().copied(), self.curves.of_metric("val_bpb").last().map(|(_, value)| *value))
    }

    /// About how long it still takes, where it runs.
    fn left(&self) -> Option<f64> {
        let row = &self.run.row;
        let recent: Vec<f64> = self.curves.seconds.iter().rev().take(50).copied().collect();
        let mean = recent.iter().sum::<f64>() / recent.len() as f64;
        (row.status == "running" && mean.is_finite())
            .then(|| mean * row.steps.saturating_sub(self.steps_done()) as f64)
    }

    fn line(&self) -> String {
        let row = &self.run.row;
        let (loss, bpb) = self.last();
        let loss = loss.map_or_else(String::new, |loss| format!("  loss {loss:.4}"));
        let bpb = bpb.map_or_else(String::new, |bpb| format!("  val bpb {bpb:.4}"));
        let left = self.left().map_or_else(String::new, |left| format!("  eta {}", duration(left)));
        let reason = row.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!(
            "{} {}: {}{reason}  step {}/{}{loss}{bpb}{left}",
            self.name,
            self.label(),
            row.status,
            self.steps_done(),
            row.steps
        )
    }

    fn json(&self) -> Value {
        let row = &self.run.row;
        let (loss, bpb) = self.last();
        json!({
            "run": self.name,
            "label": self.label(),
            "status": row.status,
            "reason": row.reason,
            "step": self.steps_done(),
            "steps": row.steps,
            "loss": loss,
            "val_bpb": bpb,
            "eta_seconds": self.left(),
        })
    }
}

/// All runs, a row each, with their curves in what room is left.
fn drawn(views: &[View<'_>], width: usize) -> String {
    // Of one experiment everybody knows its name.
    let experiment = |view: &View<'_>| view.name.split('/').next().unwrap_or_default().to_owned();
    let one =
        views.first().map(experiment).filter(|first| views.iter().all(|view| experiment(view) == *first));
    let table = |losses: usize, evaluations: usize| {
        let mut table = Table::new(["run", "", "status", ">step", ">of", "loss", "", "val bpb", "", "eta"]);
        for view in views {
            let row = &view.run.row;
            let bpbs: Vec<f64> =
                view.curves.of_metric("val_bpb").into_iter().map(|(_, value)| value).collect();
            let (loss, bpb) = view.last();
            let key = view.name.rsplit('/').next().unwrap_or_default();
            table.push(vec![
                if one.is_some() { key.get(..6).unwrap_or(key).to_owned() } else { view.name.clone() },
                view.label(),
                row.status.clone(),
                view.steps_done().to_string(),
                row.steps.to_string(),
                sparkline(&view.curves.losses(), losses),
                loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}")),
                sparkline(&bpbs, evaluations),
                bpb.map_or_else(|| "-".to_owned(), |bpb| format!("{bpb:.4}")),
                view.left().map_or_else(String::new, duration),
            ]);
        }
        table
    };
    // Numbers first; curves have what they leave.
    let left = width.saturating_sub(table(0, 0).width());
    let losses = (left * 2 / 3).min(60);
    let text = table(losses, left.saturating_sub(losses).min(30)).to_string();
    let text = one.map_or_else(|| text.clone(), |name| format!("{name}\n{text}"));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for view in views {
        *counts.entry(view.run.row.status.as_str()).or_default() += 1;
    }
    let words: Vec<String> = counts.into_iter().map(|(status, count)| format!("{count} {status}")).collect();
    format!("{text}{} runs: {}\n", views.len(), words.join(", "))
}

/// A part of the terminal that is drawn over.
struct Screen {
    lines: usize,
    redraws: bool,
}

impl Screen {
    fn draw(&mut self, text: &str, output: Output) {
        if self.redraws && self.lines > 0 {
            output.up(self.lines);
        }
        // Lines wider than the terminal would take two of its own.
        let width = output.width().unwrap_or(100);
        let cut: Vec<String> =
            text.lines().map(|line| crate::text::shortened(line, width).into_owned()).collect();
        self.lines = cut.len();
        output.rows(&cut.join("\n"));
    }
}

/// The pages of the experiments.
#[derive(Default)]
struct Pages {
    stale: bool,
    written: Option<std::time::Instant>,
    /// What was told of them before.
    told: Option<String>,
}

impl Pages {
    fn is_due(&self) -> bool {
        self.written.is_none_or(|then| then.elapsed() >= PAGE_EVERY)
    }

    /// Writes them. Nobody waits for a page: whatever is in the way is told once.
    fn write(&mut self, files: &Files, dirs: &[ExperimentDir], output: Output) {
        self.stale = false;
        self.written = Some(crate::files::now());
        for dir in dirs {
            if let Err(error) = page(files, dir) {
                let told = format!("report.html is not written: {}", error.what());
                if self.told.as_ref() != Some(&told) {
                    output.note(&told);
                    self.told = Some(told);
                }
            }
        }
    }
}

fn page(files: &Files, dir: &ExperimentDir) -> Result<()> {
    let common = Common {
        profile: None,
        sets: Vec::new(),
        only: Vec::new(),
        results: dir.path().parent().map_or_else(PathBuf::new, Path::to_owned),
        threads: None,
        json: false,
        quiet: true,
    };
    let found = find(dir.path(), &common, For::Reading)?;
    let (_, subject) = found.experiment.read_for_page()?;
    files.deliver(&dir.file("report.html"), report::page(&[subject]).as_bytes())?;
    Ok(())
}
