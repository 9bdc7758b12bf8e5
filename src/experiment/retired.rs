//! Runs that have ended in an experiment's directory and are none of its plan now. Tables list them, nothing judges them.

use std::sync::Arc;

use super::Experiment;
use super::ends::RunEnd;
use super::tables::Recorded;
use crate::model::specs::specs;
use crate::plan::run_config::RunConfig;
use crate::record::{Attempts, RunDir, RunRow, read_table};
use crate::toml_text;

/// A run that the plan no longer has.
pub(super) struct Retired {
    arm: String,
    run_key: String,
    config: RunConfig,
    parameters: u64,
    flops_per_token: f64,
    epochs: [Option<f64>; 2],
    end: RunEnd,
}

impl Retired {
    /// As the tables have it.
    pub(super) fn recorded<'a>(&'a self, experiment: &'a str) -> Recorded<'a> {
        Recorded {
            experiment,
            arm: &self.arm,
            config: &self.config,
            epochs: self.epochs,
            run_key: self.run_key.clone(),
            parameters: self.parameters,
            flops_per_token: self.flops_per_token,
            end: &self.end,
            retired: true,
        }
    }

    /// What it is called, and the first digits of its key.
    pub(super) fn name(&self) -> (String, &str) {
        (format!("{} seed={}", self.arm, self.config.seed), self.run_key.get(..12).unwrap_or(&self.run_key))
    }
}

impl Experiment {
    /// The runs that ended here and that the plan no longer has, in the order of their directories. One whose records
    /// cannot be read any more is left out: it is nobody's, and hides no other.
    pub(super) fn retired(&self) -> Vec<Retired> {
        let planned: std::collections::BTreeSet<String> =
            self.plan.runs.iter().map(|run| run.key.run.short()).collect();
        let Ok(entries) = std::fs::read_dir(self.dir.file("runs")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.bytes().all(|digit| digit.is_ascii_hexdigit()) && !planned.contains(name));
        names.sort();
        let mut retired: Vec<Retired> = names.iter().filter_map(|name| self.retired_run(name)).collect();
        if !retired.is_empty() {
            // What only the plan of then could tell.
            let rows: Vec<RunRow> =
                read_table(&self.files, &self.dir.file("runs.parquet")).unwrap_or_default();
            for run in &mut retired {
                if let Some(row) = rows.iter().find(|row| row.run_key == run.run_key) {
                    run.flops_per_token = row.flops_per_token;
                    run.epochs = [row.train_epochs, row.eval_epochs];
                }
            }
        }
        retired
    }

    fn retired_run(&self, name: &str) -> Option<Retired> {
        let dir = RunDir::at(self.dir.file("runs").join(name));
        let attempts = Attempts::read(&self.files, &dir).ok()?;
        let finished = attempts.finished().next().map(|(_, result)| result.clone());
        let end = match finished {
            Some(result) => RunEnd::Finished(Arc::new(result)),
            None => RunEnd::Diverged(Box::new(attempts.all.into_iter().find_map(|one| one.divergence)?)),
        };
        let run_key = match &end {
            RunEnd::Finished(result) => result.run_key.to_string(),
            RunEnd::Diverged(divergence) => divergence.run_key.to_string(),
            RunEnd::Open(..) => return None,
        };
        let text = self.files.read_if_there(&dir.manifest()).ok()??;
        let config: RunConfig = toml_text::from_slice(&text).ok()?;
        let parameters = specs(&config.model).iter().map(|spec| spec.numel() as u64).sum();
        let arm = arm_of(&text, config.seed);
        Some(Retired { arm, run_key, config, parameters, flops_per_token: 0.0, epochs: [None; 2], end })
    }
}

/// The arm by the first line of a run's manifest, `# <arm> seed=<seed>: ...`; without one, no name.
fn arm_of(text: &[u8], seed: u64) -> String {
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let label = first.strip_prefix("# ").and_then(|line| line.rsplit_once(": "));
    let arm = label.and_then(|(label, _)| label.strip_suffix(&format!(" seed={seed}")));
    arm.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::arm_of;

    #[test]
    fn the_arm_stands_on_the_first_line() {
        let line = |label: &str| {
            format!("# {label}: everything that decides this run's numbers, complete.\nx = 1\n")
        };
        assert_eq!(arm_of(line("warmdown=sqrt seed=2").as_bytes(), 2), "warmdown=sqrt");
        assert_eq!(arm_of(line("shards=a: b seed=12").as_bytes(), 12), "shards=a: b");
        assert_eq!(arm_of(line(" seed=1").as_bytes(), 1), "");
        assert_eq!(arm_of(b"x = 1\n", 1), "");
    }
}
