//! The runs of a survey as a sheet, widened by whatever field somebody asks for.

use std::collections::{BTreeMap, BTreeSet};

use super::rows::Survey;
use super::sheet::{Cell, Sheet};
use crate::error::{Error, Result};
use crate::experiment::FromResults;
use crate::files::Files;
use crate::manifest::nearest;
use crate::record::{EvalRow, read_table};

/// A survey's runs with their fields.
pub struct Listing<'a> {
    files: &'a Files,
    survey: &'a Survey,
    /// The runs, in the order of the survey.
    pub sheet: Sheet,
    /// Environment variables that paths of manifests may refer to.
    environment: &'a [(String, String)],
    measured: Option<Measured>,
    settled: Option<Vec<Vec<Settings>>>,
}

/// The last value of every metric, by experiment and run key.
type Measured = BTreeMap<(usize, String), BTreeMap<String, f64>>;

/// What a cell's matrix sets, and what every field of the manifest is in it, by path.
type Settings = (BTreeMap<String, toml::Value>, BTreeMap<String, Cell>);

impl<'a> Listing<'a> {
    /// Of a survey: the columns of `runs.parquet`, what names a run, and the axes of the matrices.
    ///
    /// # Errors
    /// None that anybody has met.
    pub fn of(files: &'a Files, survey: &'a Survey, environment: &'a [(String, String)]) -> Result<Self> {
        let runs = &survey.runs;
        let rows: Vec<_> = runs.iter().map(|run| run.row.clone()).collect();
        let mut sheet = Sheet::of(&rows)?;
        let plan = |run: usize| runs.get(run).and_then(|run| survey.experiments.get(run.experiment));
        let name = |run: usize| {
            plan(run).and_then(|(dir, _)| Some(dir.path().file_name()?.to_string_lossy().into_owned()))
        };
        let each = || 0..runs.len();
        let key = |run: usize| runs[run].row.run_key.get(..12).unwrap_or(&runs[run].row.run_key);
        sheet.add(
            "run",
            "what a command calls it: its experiment's directory and the first digits of its key",
            each().map(|run| Cell::Text(format!("{}/{}", name(run).unwrap_or_default(), key(run)))),
        );
        sheet.add(
            "directory",
            "the results of its experiment",
            each().map(|run| {
                plan(run).map_or(Cell::Empty, |(dir, _)| Cell::Text(dir.path().display().to_string()))
            }),
        );
        sheet.add(
            "question",
            "what its experiment asks",
            each().map(|run| {
                plan(run)
                    .map_or(Cell::Empty, |(_, plan)| Cell::of_text(plan.question.as_deref().unwrap_or("")))
            }),
        );
        sheet.add(
            "hypothesis",
            "what was expected of it",
            each().map(|run| {
                plan(run)
                    .map_or(Cell::Empty, |(_, plan)| Cell::of_text(plan.hypothesis.as_deref().unwrap_or("")))
            }),
        );
        sheet.add(
            "varied",
            "in what its experiment departs from its manifest",
            each()
                .map(|run| plan(run).map_or(Cell::Empty, |(_, plan)| Cell::of_text(&plan.varied.join(", ")))),
        );
        let axes: BTreeSet<&String> = runs.iter().flat_map(|run| run.cell.keys()).collect();
        for axis in axes {
            let value = |run: usize| runs[run].cell.get(axis).map_or(Cell::Empty, Cell::of_toml);
            sheet.add(axis, "an axis of a matrix", each().map(value));
        }
        Ok(Self { files, survey, sheet, environment, measured: None, settled: None })
    }

    /// Makes sure of a field that `option` names: of the sheet, a metric that was evaluated, or a field of the manifest.
    ///
    /// # Errors
    /// Nothing of that name: the nearest names; class `Input`.
    pub fn require(&mut self, name: &str, option: &str) -> Result<()> {
        if self.sheet.find(name).is_some() {
            return Ok(());
        }
        let runs = &self.survey.runs;
        let measured = self.measured.get_or_insert_with(|| measured(self.files, self.survey));
        let of_metric = |run: usize| {
            let run = &runs[run];
            let values = measured.get(&(run.experiment, run.row.run_key.clone()))?;
            values.get(name).map(|value| Cell::Number(*value))
        };
        let cells: Vec<Option<Cell>> = (0..runs.len()).map(of_metric).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or(Cell::Empty));
            self.sheet.add(name, "the last value that was evaluated", cells);
            return Ok(());
        }
        let settled = self.settled.get_or_insert_with(|| settled(self.files, self.survey, self.environment));
        let of_setting = |run: usize| {
            let run = &runs[run];
            let cells = settled.get(run.experiment)?;
            let (_, fields) = cells.iter().find(|(cell, _)| *cell == run.cell)?;
            fields.get(name).cloned()
        };
        let cells: Vec<Option<Cell>> = (0..runs.len()).map(of_setting).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or(Cell::Empty));
            self.sheet.add(name, "a field of the manifest", cells);
            return Ok(());
        }
        Err(self.unknown(name, option))
    }

    fn unknown(&self, name: &str, option: &str) -> Error {
        let metrics: BTreeSet<&str> = self
            .measured
            .iter()
            .flatten()
            .flat_map(|(_, values)| values.keys())
            .map(String::as_str)
            .collect();
        let own = self.sheet.fields().iter().map(|field| field.name.as_str());
        let settings: BTreeSet<&str> = self
            .settled
            .iter()
            .flatten()
            .flatten()
            .flat_map(|(_, fields)| fields.keys())
            .map(String::as_str)
            .collect();
        let near = nearest(name, own.chain(metrics.iter().copied()).chain(settings.iter().copied()));
        let measured = if metrics.is_empty() {
            "nothing was evaluated here".to_owned()
        } else {
            format!("evaluated was {}", metrics.into_iter().collect::<Vec<_>>().join(", "))
        };
        let error = Error::input(format!("no run here has `{name}` ({option})"))
            .expected(format!("a column of runs.parquet, a field of the manifest or a metric: {measured}"));
        match near {
            Some(near) => error.help(format!("did you mean `{near}`? `nanorun runs --fields` lists all")),
            None => error.help("`nanorun runs --fields` lists all"),
        }
    }
}

/// The last values of all metrics, of the tables that can be read.
fn measured(files: &Files, survey: &Survey) -> Measured {
    let mut found = Measured::new();
    for (experiment, (dir, _)) in survey.experiments.iter().enumerate() {
        let rows: Vec<EvalRow> = read_table(files, &dir.file("evals.parquet")).unwrap_or_default();
        // In the order of steps.
        for row in rows {
            found.entry((experiment, row.run_key)).or_default().insert(row.metric, row.value);
        }
    }
    found
}

/// What the fields of the manifests are, cell by cell. A manifest that cannot be read any more has none.
fn settled(files: &Files, survey: &Survey, environment: &[(String, String)]) -> Vec<Vec<Settings>> {
    let of = |dir| {
        let manifest = FromResults::read(files, dir).and_then(|results| results.manifest(environment));
        let cells = manifest.map(|manifest| manifest.cells).unwrap_or_default();
        cells
            .into_iter()
            .map(|cell| {
                let mut fields = BTreeMap::new();
                if let Ok(settings) = toml::Value::try_from(&cell.settings) {
                    flatten("", &settings, &mut fields);
                }
                (cell.overrides, fields)
            })
            .collect()
    };
    survey.experiments.iter().map(|(dir, _)| of(dir)).collect()
}

fn flatten(path: &str, value: &toml::Value, fields: &mut BTreeMap<String, Cell>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, fields);
            }
        }
        value => {
            fields.insert(path.to_owned(), Cell::of_toml(value));
        }
    }
}
