//! What a page needs to know of an experiment, as plain data; and the page in its directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::curves::Curves;
use super::ends::RunEnd;
use super::retired::Retired;
use super::tables::{self, Recorded};
use super::{Experiment, judge};
use crate::optim::config::GroupConfig;
use crate::plan::evaluation::{Evaluation, TRAIN_LOSS, VAL_BPB};
use crate::plan::run_config::TokenizerChoice;
use crate::record::AttemptDir;
use crate::report::{Evaluated, Run, RunData, Subject, page};
use crate::scorecard::Scorecard;
use crate::train::checkpoint::EvalPoint;

/// The page's name.
pub(super) const PAGE: &str = "report.html";

impl Experiment {
    /// What a page shows: of the runs that the command is about, or of the whole experiment. The scorecard is about the
    /// same ones.
    pub(super) fn subject(
        &self,
        ends: &[RunEnd],
        retired: &[Retired],
        scorecard: &Scorecard,
        whole: bool,
    ) -> Subject {
        let whole = whole || !self.manifest.is_view();
        let metric = judge::metric(self);
        let across = self.manifest.head.scorecard.across.as_slice();
        let mut scheduled = BTreeSet::new();
        let mut runs: Vec<Run> = self
            .recorded(ends)
            .iter()
            .enumerate()
            .filter(|(index, _)| whole || self.is_selected(*index))
            .map(|(index, recorded)| {
                let planned = self.plan.runs.get(index);
                let mut run = of_run(recorded, &metric, across, scheduled.insert(recorded.arm.to_owned()));
                run.data.size = planned.and_then(|planned| planned.data);
                run.samples = planned.and_then(|planned| self.samples(&planned.key.run));
                if let (RunEnd::Open(..), Some(planned)) = (recorded.end, planned) {
                    self.so_far(&planned.key.run, &mut run);
                }
                run
            })
            .collect();
        if whole {
            runs.extend(
                retired.iter().map(|run| of_run(&run.recorded(&self.plan.name), &metric, across, false)),
            );
        }
        let name = self.dir.path().file_name().map(|name| name.to_string_lossy().into_owned());
        Subject {
            name: name.unwrap_or_else(|| self.plan.name.clone()),
            scorecard: scorecard.clone(),
            metric,
            runs,
            varied: self.manifest.variation.departures(),
            selection: (!whole).then(|| {
                format!(
                    "This page is about {} of {} runs",
                    self.selected_runs().count(),
                    self.plan.runs.len()
                )
            }),
            command: self.command_again(whole),
            manifest: self.manifest.text.clone(),
            nanorun: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Writes the page about the whole experiment into its directory. Results are whole without it, so whatever goes
    /// wrong is only noted.
    pub(super) fn write_page(&self, ends: &[RunEnd], retired: &[Retired], scorecard: &Scorecard) {
        let text = page(&[self.subject(ends, retired, scorecard, true)]);
        if let Err(error) = self.files.write(&self.dir.file(PAGE), text.as_bytes()) {
            self.files.note(format!("{PAGE} is not written, the results are whole without it: {error}"));
        }
    }

    /// What is on disk of the curves of a run that has not ended.
    fn so_far(&self, run_key: &crate::hash::Digest, run: &mut Run) {
        let attempts = self.dir.run(run_key).attempts().unwrap_or_default();
        let Some(attempt) = attempts.last() else { return };
        let curves = Curves::under_way(&self.files, attempt);
        run.losses = curves.losses;
        run.seconds = curves.seconds.iter().map(|seconds| *seconds as f32).collect();
        run.evaluations =
            curves.evaluations.into_iter().map(|(step, values)| Evaluated { step, values }).collect();
    }

    /// What was sampled from the attempt that speaks for a run.
    fn samples(&self, run_key: &crate::hash::Digest) -> Option<String> {
        let attempts = self.dir.run(run_key).attempts().ok()?;
        let finished = |attempt: &AttemptDir| attempt.result().is_file();
        let attempt = attempts.into_iter().find(finished)?;
        let bytes = self.files.read_if_there(&attempt.samples()).ok()??;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The command that makes these results again, as a shell reads it.
    fn command_again(&self, whole: bool) -> String {
        let mut command = String::new();
        // What only picks runs is no part of what makes the whole experiment.
        let departures = self.manifest.variation.departures();
        let says = |path: &str| {
            !(whole && self.manifest.is_view())
                || departures.iter().any(|departure| departure.starts_with(&format!("{path} ")))
        };
        let field =
            |name: &str| name.strip_prefix("NANORUN_").map(|name| name.to_lowercase().replace("__", "."));
        for (name, value) in &self.manifest.env {
            if field(name).is_some_and(|path| !says(&path)) {
                continue;
            }
            let _ = write!(command, "{name}={} ", quoted(value));
        }
        let _ = write!(command, "nanorun run {}", quoted(&self.manifest.file.display().to_string()));
        if let Some(profile) = &self.manifest.profile {
            let _ = write!(command, " --profile {}", quoted(profile));
        }
        let only = if whole { &[] } else { self.manifest.only.as_slice() };
        for (option, values) in [("--set", self.manifest.sets.as_slice()), ("--only", only)] {
            for value in values {
                if option == "--set" && !says(value.split('=').next().unwrap_or_default().trim()) {
                    continue;
                }
                let _ = write!(command, " {option} {}", quoted(value));
            }
        }
        if let Some(results) = self.dir.path().parent().filter(|results| *results != Path::new("results")) {
            let _ = write!(command, " --results {}", quoted(&results.display().to_string()));
        }
        command
    }
}

/// As one word of a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./=:,+@%~".contains(letter);
    if !word.is_empty() && !word.starts_with('~') && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn of_run(run: &Recorded<'_>, metric: &str, across: &[String], with_schedule: bool) -> Run {
    let (losses, seconds, evaluations): (_, &[f64], &[EvalPoint]) = match run.end {
        RunEnd::Finished(result) => {
            (result.step_losses.as_slice(), &result.timings.step_seconds, &result.evals)
        }
        RunEnd::Diverged(end) => (end.step_losses.as_slice(), &end.timings.step_seconds, &end.evals),
        RunEnd::Open(..) => (&[][..], &[], &[]),
    };
    let evaluated = |point: &EvalPoint| Evaluated {
        step: point.step,
        values: point.values.iter().map(|(name, value)| (name.clone(), value.0)).collect(),
    };
    let has_ended = !matches!(run.end, RunEnd::Open(..));
    let config = run.config;
    let schedule = if with_schedule && has_ended {
        // What nothing consumes is no schedule.
        let has_muon = config.optimizer.groups.iter().any(|(_, group)| matches!(group, GroupConfig::Muon(_)));
        let of_muon = |value: f64| if has_muon { value } else { f64::NAN };
        tables::schedule(config)
            .map(|values| {
                [values.lr_multiplier, of_muon(values.muon_momentum), of_muon(values.muon_weight_decay)]
            })
            .collect()
    } else {
        Vec::new()
    };
    let evaluation = Evaluation::of(config);
    let mut measured = BTreeMap::new();
    for metric in [metric, VAL_BPB, TRAIN_LOSS] {
        let mut definition = evaluation.definition(metric);
        definition.retain(|(field, _)| !across.iter().any(|across| across == field));
        measured.insert(metric.to_owned(), definition);
    }
    let tokenizer = match &config.data.tokenizer {
        TokenizerChoice::Char => format!("one token a character, {} tokens", config.model.vocab_size()),
        TokenizerChoice::Path(path) => format!("{path}, {} tokens", config.model.vocab_size()),
        TokenizerChoice::Train { vocab_size } => {
            format!("trained on the training text, {vocab_size} tokens")
        }
    };
    Run {
        row: tables::run_row(run),
        losses: losses.iter().map(|loss| loss.0).collect(),
        seconds: seconds.iter().map(|seconds| *seconds as f32).collect(),
        evaluations: evaluations.iter().map(evaluated).collect(),
        batch: config.batch.total_batch_size as u64,
        schedule,
        samples: None,
        data: RunData {
            shards: config.data.shards.join(", "),
            tokenizer,
            content: config.data.content.map(|content| content.to_string()),
            size: None,
            eval_tokens: evaluation.counted_tokens(),
            measured,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_of_a_shell() {
        assert_eq!(quoted("experiments/d12.toml"), "experiments/d12.toml");
        assert_eq!(quoted("run.seed=[1, 2]"), "'run.seed=[1, 2]'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("~"), "'~'");
        assert_eq!(quoted("$(x)"), "'$(x)'");
    }
}
