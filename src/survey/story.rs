//! One run's story, for people and for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::one::One;
use super::sheet::shown;
use crate::error::Result;
use crate::experiment::RunEnd;
use crate::files::Files;
use crate::history::{Beginning, Ended, History, Life};
use crate::plan::evaluation::{Evaluation, VAL_BPB};
use crate::plan::run_config::TokenizerChoice;
use crate::record::{AttemptDir, Event, Journal};
use crate::run::progress::grouped;
use crate::text::{Table, extent, size, sparkline};
use crate::train::checkpoint::CheckpointStore;

/// A run's story.
pub struct Story<'a> {
    one: &'a One,
    attempts: Vec<Told>,
    checkpoints: Vec<Kept>,
}

/// An attempt with its lives.
struct Told {
    dir: AttemptDir,
    lives: Vec<Life>,
    /// What else its journal says: why it failed, from which run steps were taken over.
    remarks: Vec<String>,
    damaged: bool,
}

/// A checkpoint that is there.
struct Kept {
    path: String,
    step: u64,
    bytes: u64,
    whole: bool,
}

impl<'a> Story<'a> {
    /// Of a run.
    ///
    /// # Errors
    /// Directories or journals that cannot be read.
    pub fn of(files: &Files, one: &'a One) -> Result<Self> {
        let (mut attempts, mut checkpoints) = (Vec::new(), Vec::new());
        for dir in one.place.attempts()? {
            let history = History::read(files, &one.place, &dir)?.until(one.row.steps);
            let journal = Journal::new(files.clone(), dir.journal()).read()?;
            let remarks = journal.entries.iter().filter_map(|entry| remark(&entry.event)).collect();
            let store = CheckpointStore::new(files.clone(), dir.checkpoints());
            for step in store.steps()? {
                let path = store.step_dir(step);
                checkpoints.push(Kept {
                    step,
                    bytes: bytes_in(&path),
                    whole: path.join("optimizer.safetensors").is_file(),
                    path: path.display().to_string(),
                });
            }
            attempts.push(Told { dir, lives: history.lives, remarks, damaged: history.damaged });
        }
        Ok(Self { one, attempts, checkpoints })
    }

    /// For people.
    pub fn text(&self, width: usize) -> String {
        let one = self.one;
        let mut text = String::new();
        let _ = writeln!(text, "{}: {}", one.name(), one.label());
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(text, "  {name:<12}  {value}");
            }
        };
        line("state", &self.state());
        line("question", one.plan.question.as_deref().unwrap_or(""));
        line("hypothesis", one.plan.hypothesis.as_deref().unwrap_or(""));
        line("varied", &one.plan.varied.join(", "));
        line("trained", &self.trained());
        line(
            "shared",
            &match one.row.shared_steps {
                0 => String::new(),
                steps => format!("{steps} steps were trained as part of another run"),
            },
        );
        if !self.attempts.is_empty() {
            let _ = writeln!(text, "\nlives");
            text.push_str(&indented(&self.lives().to_string()));
            for told in &self.attempts {
                for remark in &told.remarks {
                    let _ = writeln!(text, "  attempt {}: {remark}", told.dir.number());
                }
                if told.damaged {
                    let _ =
                        writeln!(text, "  attempt {}: lines of its journal are damaged", told.dir.number());
                }
            }
        }
        let curves = self.curves(width);
        if !curves.is_empty() {
            let _ = writeln!(text, "\ncurves");
            text.push_str(&curves);
        }
        let mut section = |title: &str, lines: Vec<(&str, String)>| {
            let lines: Vec<_> = lines.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            if lines.is_empty() {
                return;
            }
            let _ = writeln!(text, "\n{title}");
            for (name, value) in lines {
                let _ = writeln!(text, "  {name:<12}  {value}");
            }
        };
        section(
            "final values",
            self.finals().into_iter().map(|(name, value)| (name, shown(value))).collect(),
        );
        section("identity", self.identity());
        section("environment", self.environment());
        section("data", self.data());
        section("files", self.files());
        text.push('\n');
        text.push_str(&self.again());
        text
    }

    fn state(&self) -> String {
        let row = &self.one.row;
        let reason = row.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        match self.one.end {
            RunEnd::Finished(_) if row.status == "finished" => format!("finished {}{reason}", row.finished),
            _ => format!("{}{reason}", row.status),
        }
    }

    fn trained(&self) -> String {
        let row = &self.one.row;
        let mut text = format!("{} of {} steps", row.steps_done, row.steps);
        if row.tokens > 0 {
            let _ = write!(text, ", {} tokens", grouped(row.tokens as f64));
        }
        if row.flops_per_token > 0.0 && row.tokens > 0 {
            let _ = write!(text, ", {:.3e} FLOPs", row.flops_per_token * row.tokens as f64);
        }
        if row.train_seconds > 0.0 {
            let _ = write!(text, ", {:.1} s in steps", row.train_seconds);
        }
        if row.eval_seconds > 0.0 {
            let _ = write!(text, ", {:.1} s in evaluations", row.eval_seconds);
        }
        if row.checkpoint_seconds > 0.0 {
            let _ = write!(text, ", {:.1} s in checkpoints", row.checkpoint_seconds);
        }
        text
    }

    fn lives(&self) -> Table {
        let mut table = Table::new([
            ">attempt",
            ">life",
            "began",
            "how",
            ">from step",
            ">kept to",
            "host",
            "machine",
            "ended",
            "last sign",
        ]);
        for told in &self.attempts {
            for (number, life) in told.lives.iter().enumerate() {
                let machine = life.conditions.as_ref().map_or_else(
                    || "not known".to_owned(),
                    |known| {
                        let company = if known.alone { "alone" } else { "in company" };
                        let threads = known.threads;
                        format!("{}, {threads} threads, {company}", known.machine)
                    },
                );
                table.push(vec![
                    told.dir.number().to_string(),
                    (number + 1).to_string(),
                    life.since.clone(),
                    beginning(life.beginning).to_owned(),
                    life.from.to_string(),
                    life.kept_to.map_or_else(|| "-".to_owned(), |step| step.to_string()),
                    life.host.clone().unwrap_or_else(|| "not known".to_owned()),
                    machine,
                    self.ended(life).to_owned(),
                    life.until.clone(),
                ]);
            }
        }
        table
    }

    fn ended(&self, life: &Life) -> &'static str {
        match life.ended {
            Ended::Finished => "finished",
            Ended::Diverged => "diverged",
            Ended::Interrupted => "interrupted",
            Ended::Failed => "failed",
            Ended::Unknown if self.one.row.status == "running" => "running",
            Ended::Unknown => "not known",
        }
    }

    fn curves(&self, width: usize) -> String {
        let curves = &self.one.curves;
        let room = width.saturating_sub(62).clamp(16, 60);
        let mut text = String::new();
        let mut draw = |name: &str, points: &[(u64, f64)], lower_is_better: bool| {
            let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
            let (Some(first), Some(last), Some((low, high))) =
                (points.first(), points.last(), extent(&values))
            else {
                return;
            };
            let best = if lower_is_better { low } else { high };
            let at = points.iter().find(|(_, value)| *value == best).map_or(0, |(step, _)| *step);
            let word = if lower_is_better { "lowest" } else { "highest" };
            let _ = writeln!(
                text,
                "  {name:<12}  {:<room$}  {} at step {} to {} at step {}, {word} {} at step {at}",
                sparkline(&values, room),
                shown(first.1),
                first.0,
                shown(last.1),
                last.0,
                shown(best)
            );
        };
        let losses: Vec<(u64, f64)> = (0..).zip(curves.losses()).collect();
        draw("train_loss", &losses, true);
        for metric in curves.metrics() {
            let lower = !crate::plan::evaluation::higher_is_better(&metric);
            draw(&metric, &curves.of_metric(&metric), lower);
        }
        let batch = self.one.config.as_ref().map_or(0, |config| config.batch.total_batch_size);
        // The first step allocates.
        let speeds: Vec<(u64, f64)> = (0..)
            .zip(&curves.seconds)
            .skip(1)
            .filter(|(_, seconds)| **seconds > 0.0)
            .map(|(step, seconds)| (step, (batch as f64 / seconds).round()))
            .collect();
        draw("tokens/s", &speeds, false);
        text
    }

    fn finals(&self) -> Vec<(&'static str, f64)> {
        let mut finals = Vec::new();
        if let RunEnd::Finished(result) = &self.one.end {
            finals.extend(result.final_value(VAL_BPB).map(|value| ("val_bpb", value)));
            finals.extend(result.final_value("val_loss").map(|value| ("val_loss", value)));
            finals.extend(
                result.core.last().and_then(|point| point.values.get("core")).map(|value| ("core", value.0)),
            );
            finals.extend(result.step_losses.last().map(|loss| ("train_loss", f64::from(loss.0))));
        }
        finals
    }

    fn identity(&self) -> Vec<(&'static str, String)> {
        let row = &self.one.row;
        let hash = |hash: &Option<String>| hash.clone().unwrap_or_default();
        let evaluation = self.one.config.as_ref().map_or_else(String::new, |config| {
            let words: Vec<String> = Evaluation::of(config)
                .definition(VAL_BPB)
                .into_iter()
                .map(|(field, value)| format!("{field} {value}"))
                .collect();
            words.join(", ")
        });
        vec![
            ("run key", row.run_key.clone()),
            ("train hash", hash(&row.train_hash)),
            ("eval hash", hash(&row.eval_hash)),
            ("result hash", hash(&row.result_hash)),
            ("evaluated by", evaluation),
        ]
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let row = &self.one.row;
        let nanorun = match &self.one.end {
            RunEnd::Finished(result) => result.host.nanorun.clone(),
            _ => self.one.plan.nanorun.clone(),
        };
        let backend = match row.backend.as_str() {
            "tch" => format!("tch on {} in {}", row.device, row.precision),
            "" => String::new(),
            other => format!("{other} in {}", row.precision),
        };
        let class = if row.environment_class.is_empty() {
            String::new()
        } else {
            format!("{} (numerics version {})", row.environment_class, row.numerics_version)
        };
        let machine = [Some(row.cpu_model.as_str()), row.accelerator.as_deref()];
        let machine: Vec<&str> = machine.into_iter().flatten().filter(|name| !name.is_empty()).collect();
        let threads = if row.threads == 0 { String::new() } else { format!(", {} threads", row.threads) };
        let memory = row.peak_rss_bytes.map_or_else(String::new, |bytes| format!("{} at most", size(bytes)));
        vec![
            ("upstream", row.commit.clone()),
            ("backend", backend),
            ("class", class),
            ("nanorun", nanorun),
            ("machine", if machine.is_empty() { String::new() } else { machine.join(", ") + &threads }),
            ("host", row.host.clone()),
            ("memory", memory),
        ]
    }

    fn data(&self) -> Vec<(&'static str, String)> {
        let Some(config) = &self.one.config else { return Vec::new() };
        let tokenizer = match &config.data.tokenizer {
            TokenizerChoice::Char => "one token a character".to_owned(),
            TokenizerChoice::Path(path) => path.clone(),
            TokenizerChoice::Train { vocab_size } => {
                format!("trained on the training text, {vocab_size} tokens")
            }
        };
        let epochs = self.one.row.train_epochs;
        vec![
            ("shards", config.data.shards.join(", ")),
            ("tokenizer", tokenizer),
            ("contents", config.data.content.map_or_else(String::new, |content| content.to_string())),
            (
                "epochs",
                epochs.map_or_else(String::new, |epochs| {
                    format!("reads its training text {} times", shown(epochs))
                }),
            ),
        ]
    }

    fn files(&self) -> Vec<(&'static str, String)> {
        let one = self.one;
        let there = |path: &Path| if path.exists() { path.display().to_string() } else { String::new() };
        let of_attempt = |of: fn(&AttemptDir) -> std::path::PathBuf| {
            one.attempt.as_ref().map_or_else(String::new, |attempt| there(&of(attempt)))
        };
        let mut lines = vec![
            ("directory", there(one.place.path())),
            ("settings", there(&one.place.manifest())),
            ("journal", of_attempt(AttemptDir::journal)),
            ("steps", of_attempt(AttemptDir::steps)),
            ("samples", of_attempt(AttemptDir::samples)),
        ];
        for kept in &self.checkpoints {
            let what = if kept.whole { "whole" } else { "weights" };
            lines.push(("checkpoint", format!("{} ({what}, {})", kept.path, size(kept.bytes))));
        }
        lines
    }

    fn again(&self) -> String {
        let one = self.one;
        let Some(command) = one.command_again() else {
            return "again\n  the manifest no longer has this run: what made it is in its directory\n"
                .to_owned();
        };
        let mut text = format!("again\n  {command}\n");
        text.push_str(
            "  trains it once more beside what is there, and says so if a hash differs; without --rerun what is finished \
             is kept\n",
        );
        if one.manifest().1 {
            text.push_str(
                "  the manifest that it was made from is gone or has changed: this is the copy of then\n",
            );
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let one = self.one;
        let attempts: Vec<Value> = self
            .attempts
            .iter()
            .map(|told| {
                let lives: Vec<Value> = told
                    .lives
                    .iter()
                    .map(|life| {
                        json!({
                            "began": life.since,
                            "how": beginning(life.beginning),
                            "from_step": life.from,
                            "kept_to": life.kept_to,
                            "host": life.host,
                            "conditions": life.conditions,
                            "ended": self.ended(life),
                            "last_sign": life.until,
                        })
                    })
                    .collect();
                json!({
                    "attempt": told.dir.number(),
                    "directory": told.dir.path(),
                    "lives": lives,
                    "remarks": told.remarks,
                    "damaged": told.damaged,
                })
            })
            .collect();
        let evaluations: Vec<Value> = one
            .curves
            .evaluations
            .iter()
            .map(|(step, values)| json!({ "step": step, "values": values }))
            .collect();
        let checkpoints: Vec<Value> = self
            .checkpoints
            .iter()
            .map(|kept| {
                json!({ "step": kept.step, "path": kept.path, "bytes": kept.bytes, "weights_alone": !kept.whole })
            })
            .collect();
        let strings = |lines: Vec<(&'static str, String)>| {
            let each = lines.into_iter().filter(|(_, value)| !value.is_empty());
            Value::Object(each.map(|(name, value)| (name.replace(' ', "_"), Value::String(value))).collect())
        };
        let finals: serde_json::Map<String, Value> =
            self.finals().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        json!({
            "format": 1,
            "run": one.name(),
            "label": one.label(),
            "arm": one.row.arm,
            "seed": one.row.seed,
            "status": one.row.status,
            "reason": one.row.reason,
            "question": one.plan.question,
            "hypothesis": one.plan.hypothesis,
            "varied": one.plan.varied,
            "steps": one.row.steps,
            "steps_done": one.row.steps_done,
            "tokens": one.row.tokens,
            "shared_steps": one.row.shared_steps,
            "train_seconds": one.row.train_seconds,
            "eval_seconds": one.row.eval_seconds,
            "checkpoint_seconds": one.row.checkpoint_seconds,
            "attempts": attempts,
            "losses": one.curves.losses,
            "step_seconds": one.curves.seconds,
            "evaluations": evaluations,
            "final": finals,
            "identity": strings(self.identity()),
            "environment": strings(self.environment()),
            "data": strings(self.data()),
            "directory": one.place.path(),
            "checkpoints": checkpoints,
            "settings": one.settings(),
            "command": one.command_again(),
        })
    }
}

fn beginning(beginning: Beginning) -> &'static str {
    match beginning {
        Beginning::Started => "started",
        Beginning::Forked => "forked",
        Beginning::TakenUp => "taken up",
        Beginning::Resumed => "resumed",
    }
}

/// What a journal says that lives do not.
fn remark(event: &Event) -> Option<String> {
    Some(match event {
        Event::Forked { from, step, .. } => {
            format!("its first {step} steps are those of run {}", from.short())
        }
        Event::TakenUp { attempt, step, .. } => format!("takes up attempt {attempt} after step {step}"),
        Event::CheckpointSkipped { checkpoint, reason } => format!("{checkpoint} was passed over: {reason}"),
        Event::Failed { step, reason, .. } => {
            format!("failed at step {step}: {}", reason.lines().next().unwrap_or_default())
        }
        Event::Diverged { step, reason, .. } => format!("diverged at step {step}: {reason}"),
        Event::TakenOver { from, .. } => format!("taken over from {from}"),
        Event::SetAside { reason } => format!("set aside: {reason}"),
        _ => return None,
    })
}

fn indented(text: &str) -> String {
    let mut indented = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        indented.extend(["  ", line, "\n"]);
    }
    indented
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}
