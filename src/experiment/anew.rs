//! Finished runs that no longer count, and what changed since: what a changed manifest would train anew.

use std::collections::BTreeMap;

use super::Experiment;
use super::retired::Retired;
use crate::plan::PlannedRun;
use crate::record::{Attempts, PlanRecord};
use crate::toml_text;

/// Differences that are told of a run; of more, how many.
const TOLD: usize = 4;

impl Experiment {
    /// Every run that was carried out before, has a result, and is none of the plan's now: in words, with what
    /// changed. Nothing of them goes; whoever goes back finds them finished.
    pub fn no_longer_counts(&self) -> Vec<String> {
        let mut told = Vec::new();
        // A plan that cannot be read tells nothing; whoever needs it says so.
        let record = PlanRecord::read(&self.files, &self.dir);
        let recorded = record.map(|record| record.runs).unwrap_or_default();
        for then in &recorded {
            let key = |run: &&PlannedRun| run.key.run == then.key;
            if self.plan.runs.iter().any(|run| key(&run)) {
                continue;
            }
            let attempts = Attempts::read(&self.files, &self.dir.run(&then.key)).unwrap_or_default();
            if attempts.result(&then.key, None).is_none() {
                continue;
            }
            let name = format!("{} seed={}", then.arm, then.seed);
            let now = self.plan.runs.iter().find(|run| run.cell == then.cell);
            told.push(match now {
                // Without its data nobody knows.
                Some(run) if run.key.pending => continue,
                Some(run) => {
                    let changed = self.changed(run, then.key.short().as_str());
                    format!(
                        "{name} is trained anew, its result {} no longer counts: {changed}",
                        then.key.short()
                    )
                }
                None => no_longer_there(&name, &then.key.short()),
            });
        }
        // Of earlier plans.
        let retired = self.retired();
        let is_told = |key: &str| recorded.iter().any(|then| then.key.short() == key);
        let older = retired.iter().map(Retired::name).filter(|(_, key)| !is_told(key));
        told.extend(older.map(|(name, key)| no_longer_there(&name, key)));
        told
    }

    /// In what a run differs from what the directory of another one says of itself.
    fn changed(&self, run: &PlannedRun, then: &str) -> String {
        let path = self.dir.file("runs").join(then).join("manifest.toml");
        let before = self.files.read_if_there(&path).ok().flatten();
        let before: Option<toml::Table> = before.and_then(|bytes| toml_text::from_slice(&bytes).ok());
        let now = toml::Table::try_from(&run.config).ok();
        let (Some(before), Some(now)) = (before, now) else { return "something in it changed".to_owned() };
        let (before, now) = (flat(&before), flat(&now));
        let fields = before.keys().chain(now.keys().filter(|field| !before.contains_key(*field)));
        let differs = |field: &&String| before.get(*field) != now.get(*field);
        // What does not enter keys explains none; what an older version did not write down explains nothing either.
        let enters = |field: &&String| {
            !["eval.", "checkpoint.", "commit", "data.shards"].iter().any(|other| field.starts_with(other))
                && before.contains_key(*field)
        };
        let mut words: Vec<String> = fields
            .filter(enters)
            .filter(differs)
            .map(|field| match field.as_str() {
                "data.content" => "the contents of its shards or its tokenizer".to_owned(),
                field => {
                    let show =
                        |side: &BTreeMap<String, String>| side.get(field).map_or("nothing", |v| v).to_owned();
                    format!("{field} was {}, is {}", show(&before), show(&now))
                }
            })
            .collect();
        if words.is_empty() {
            return "what keys are made of changed with nanorun itself".to_owned();
        }
        let more = words.len().saturating_sub(TOLD);
        words.truncate(TOLD);
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        words.join(", ") + &more
    }
}

fn no_longer_there(name: &str, key: &str) -> String {
    format!("{name} is no longer in the manifest; its result {key} stays")
}

/// Values by their paths, as text.
fn flat(table: &toml::Table) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open: Vec<(String, &toml::Table)> = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                toml::Value::Table(inner) => open.push((path, inner)),
                value => {
                    found.insert(path, value.to_string());
                }
            }
        }
    }
    found
}
