//! One run with everything that is on disk of it.

use std::collections::BTreeMap;
use std::path::Path;

use super::rows::{end_of, run_config};
use crate::error::{Error, Result};
use crate::experiment::{Curves, Recorded, RunEnd, quoted, run_row};
use crate::files::Files;
use crate::hash::Digest;
use crate::model::specs::specs;
use crate::plan::run_config::RunConfig;
use crate::record::{
    AttemptDir, Attempts, ExperimentDir, PlanRecord, PlannedRun, RunDir, RunRow, key_of, read_table,
};

/// A run.
pub struct One {
    /// Its experiment.
    pub dir: ExperimentDir,
    /// The plan of that.
    pub plan: PlanRecord,
    /// What the plan says of it; none where the plan does not have it any more.
    pub planned: Option<PlannedRun>,
    /// Its directory.
    pub place: RunDir,
    /// Everything that decides it; none where it was never begun.
    pub config: Option<RunConfig>,
    /// Where it has come to.
    pub end: RunEnd,
    /// The attempt that says so.
    pub attempt: Option<AttemptDir>,
    /// Its row of `runs.parquet`, as it is now.
    pub row: RunRow,
    /// Its curves, as far as they are on disk.
    pub curves: Curves,
}

impl One {
    /// The run of an experiment whose key begins with these digits; without any, the only one.
    ///
    /// # Errors
    /// No results; no such run, or several; records that are damaged; class `Input`.
    pub fn find(files: &Files, dir: &ExperimentDir, digits: Option<&str>) -> Result<Self> {
        let plan = PlanRecord::read(files, dir).map_err(|error| {
            let is_there = dir.file("plan.toml").is_file();
            let error = Error::from(error);
            if is_there {
                error
            } else {
                Error::input("this experiment has no results yet").file(dir.path()).help("run it first")
            }
        })?;
        let table = dir.file("runs.parquet");
        let rows: Vec<RunRow> = if table.is_file() { read_table(files, &table)? } else { Vec::new() };
        let mut keys: Vec<(Digest, String)> = Vec::new();
        let label = |arm: &str, seed: u64| {
            if arm.is_empty() { format!("seed={seed}") } else { format!("{arm} seed={seed}") }
        };
        keys.extend(plan.runs.iter().map(|run| (run.key, label(&run.arm, run.seed))));
        for row in &rows {
            let Ok(key) = row.run_key.parse::<Digest>() else { continue };
            if !keys.iter().any(|(known, _)| *known == key) {
                keys.push((key, format!("{}, retired", label(&row.arm, row.seed))));
            }
        }
        let key = match (digits, keys.as_slice()) {
            (Some(digits), _) => key_of(digits, &keys).map_err(|error| error.file(dir.path()))?,
            (None, [(key, _)]) => *key,
            (None, _) => {
                let lines: Vec<String> =
                    keys.iter().take(8).map(|(key, label)| format!("{}  {label}", key.short())).collect();
                let name = dir.path().display();
                let more = keys.len().saturating_sub(lines.len());
                let more = if more == 0 { String::new() } else { format!("\n    and {more} more") };
                return Err(Error::input(format!("this experiment has {} runs", keys.len()))
                    .file(dir.path())
                    .expected(format!("one of them, as {name}/KEY\n    {}{more}", lines.join("\n    "))));
            }
        };
        let planned = plan.runs.iter().find(|run| run.key == key).cloned();
        let known = rows.into_iter().find(|row| row.run_key == key.to_string());
        Self::of(files, dir, plan, planned, key, known.as_ref())
    }

    fn of(
        files: &Files,
        dir: &ExperimentDir,
        plan: PlanRecord,
        planned: Option<PlannedRun>,
        key: Digest,
        known: Option<&RunRow>,
    ) -> Result<Self> {
        let place = dir.run(&key);
        let config = run_config(files, &place)?;
        let evaluation = planned.as_ref().and_then(|run| run.evaluation);
        let end = end_of(files, &place, &key, evaluation.as_ref());
        let attempts = Attempts::read(files, &place)?;
        let attempt = match &end {
            RunEnd::Finished(_) => attempts.result(&key, evaluation.as_ref()).map(|(dir, _)| dir.clone()),
            RunEnd::Diverged(_) => {
                attempts.all.iter().find(|one| one.divergence.is_some()).map(|one| one.dir.clone())
            }
            RunEnd::Open(..) => attempts.all.last().map(|one| one.dir.clone()),
        };
        let curves = Curves::of(files, &end, attempt.as_ref());
        let arm = planned.as_ref().map(|run| run.arm.clone()).or_else(|| known.map(|row| row.arm.clone()));
        let arm = arm.unwrap_or_default();
        let row = match &config {
            Some(config) => {
                let epochs = planned.as_ref().and_then(|run| run.data);
                let then = known;
                run_row(&Recorded {
                    experiment: &plan.name,
                    arm: &arm,
                    config,
                    epochs: [
                        epochs.map(|data| data.train.epochs).or(then.and_then(|row| row.train_epochs)),
                        epochs.map(|data| data.validation.epochs).or(then.and_then(|row| row.eval_epochs)),
                    ],
                    run_key: key.to_string(),
                    parameters: specs(&config.model).iter().map(|spec| spec.numel() as u64).sum(),
                    flops_per_token: then.map_or(0.0, |row| row.flops_per_token),
                    end: &end,
                    retired: planned.is_none(),
                })
            }
            None => RunRow {
                arm,
                seed: planned.as_ref().map_or(0, |run| run.seed),
                run_key: key.to_string(),
                status: "planned".to_owned(),
                steps: planned.as_ref().map_or(0, |run| run.steps),
                ..RunRow::default()
            },
        };
        Ok(Self { dir: dir.clone(), plan, planned, place, config, end, attempt, row, curves })
    }

    /// What a command calls it.
    pub fn name(&self) -> String {
        let experiment = self.dir.path().file_name().map(|name| name.to_string_lossy().into_owned());
        format!("{}/{}", experiment.unwrap_or_default(), self.key())
    }

    /// The first digits of its key.
    pub fn key(&self) -> &str {
        self.row.run_key.get(..12).unwrap_or(&self.row.run_key)
    }

    /// What people call it.
    pub fn label(&self) -> String {
        let (arm, seed) = (&self.row.arm, self.row.seed);
        if arm.is_empty() { format!("seed={seed}") } else { format!("{arm} seed={seed}") }
    }

    /// The command that trains it again, to the same hash; none where the plan no longer has it.
    pub fn command_again(&self) -> Option<String> {
        use std::fmt::Write as _;

        let run = self.planned.as_ref()?;
        let mut command = String::new();
        if let Some(directory) = &self.plan.directory {
            let _ = write!(command, "cd {} && ", quoted(directory));
        }
        for (name, value) in &self.plan.env {
            if name.starts_with("NANORUN_") {
                let _ = write!(command, "{name}={} ", quoted(value));
            }
        }
        let _ = write!(command, "nanorun run {}", quoted(&self.manifest().0));
        if let Some(profile) = &self.plan.profile {
            let _ = write!(command, " --profile {}", quoted(profile));
        }
        for set in &self.plan.sets {
            let _ = write!(command, " --set {}", quoted(set));
        }
        let decided = |path: &str| {
            self.plan.sets.iter().any(|set| set.split('=').next().is_some_and(|name| name.trim() == path))
        };
        for (path, value) in run.cell.iter().filter(|(path, _)| !decided(path)) {
            let _ = write!(command, " --only {}", quoted(&format!("{path}={}", bare(value))));
        }
        let results = self.dir.path().parent().filter(|results| *results != Path::new("results"));
        if let Some(results) = results.filter(|results| !results.as_os_str().is_empty()) {
            let results = std::path::absolute(results).unwrap_or_else(|_| results.to_owned());
            let _ = write!(command, " --results {}", quoted(&results.display().to_string()));
        }
        command.push_str(" --rerun");
        Some(command)
    }

    /// The manifest as a command would name it, and whether it is the copy among the results because the file that it was
    /// copied from is gone or changed.
    pub fn manifest(&self) -> (String, bool) {
        let then = Path::new(&self.plan.manifest);
        let place =
            self.plan.directory.as_ref().map_or_else(|| then.to_owned(), |home| Path::new(home).join(then));
        let copy = self.dir.manifest();
        let same = match (std::fs::read(&place), std::fs::read(&copy)) {
            (Ok(now), Ok(copied)) => now == copied,
            (Ok(_), Err(_)) => true,
            _ => false,
        };
        if same {
            (self.plan.manifest.clone(), false)
        } else {
            let copy = std::path::absolute(&copy).unwrap_or(copy);
            (copy.display().to_string(), true)
        }
    }

    /// Its settings by path, as text: everything that decides its numbers, and its cadences.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        if let Some(config) = &self.config
            && let Ok(value) = toml::Value::try_from(config)
        {
            flatten("", &value, &mut found);
        }
        found
    }
}

/// A value as `--only` takes it.
fn bare(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn flatten(path: &str, value: &toml::Value, found: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                flatten(&below(name), value, found);
            }
        }
        // Groups of the optimizer: pairs of a name and its table.
        toml::Value::Array(items) if !items.is_empty() && items.iter().all(is_named) => {
            for item in items {
                if let Some([toml::Value::String(name), value]) = item.as_array().map(Vec::as_slice) {
                    flatten(&below(name), value, found);
                }
            }
        }
        value => {
            found.insert(path.to_owned(), bare(value));
        }
    }
}

fn is_named(item: &toml::Value) -> bool {
    matches!(item.as_array().map(Vec::as_slice), Some([toml::Value::String(_), toml::Value::Table(_)]))
}
