//! `nanorun runs`: the runs of all results, filtered and sorted.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::record::{ExperimentDir, experiments_in};
use crate::survey::{Cell, Filter, Listing, Order, Sheet, Survey};

use super::naming::{no_results_in, results_of};
use super::output::Output;
use super::{environment, threads};

/// `nanorun runs`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct RunsArgs {
    /// Manifests, results directories, runs, or directories of results (default: all of --results)
    #[arg(value_name = "EXPERIMENT|DIR")]
    names: Vec<PathBuf>,
    /// Only runs of which this holds: FIELD with <, <=, >, >=, =, !=, ~ (has the text) or !~; several all hold
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// Sort by a field; :desc turns the order round; runs without a value come last
    #[arg(long, value_name = "FIELD[:desc]")]
    sort: Vec<String>,
    /// Show these fields: columns of runs.parquet, axes and other fields of the manifest, metrics
    #[arg(long, value_name = "FIELD,...", value_delimiter = ',')]
    columns: Vec<String>,
    /// Show so many runs at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// List the fields there are, and what they mean
    #[arg(long)]
    fields: bool,
    /// Where results are kept
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
    /// Print the runs only
    #[arg(long, short)]
    quiet: bool,
}

const HELP: &str = "\
Examples:
  nanorun runs                                       every run in results/
  nanorun runs quickstart --sort val_bpb             one experiment's, the best first
  nanorun runs --where 'val_bpb<2.6' --where arm~sqrt --limit 10
  nanorun runs --where status!=finished              what is unfinished, diverged, failed or retired
  nanorun runs --where model.depth=12 --columns run,val_bpb,optimizer.matrix_lr --json

A run is called EXPERIMENT/KEY, by which every other command takes it: `nanorun show quickstart/4734d3`.";

/// What is shown of a run, the most important first: what does not fit into the terminal is left out from the end.
const COLUMNS: [&str; 9] =
    ["run", "arm", "seed", "status", "steps_done", "steps", "val_bpb", "final_loss", "finished"];

/// Lists runs.
pub(super) fn runs(args: &RunsArgs) -> Result<Option<Class>> {
    threads::start(None)?;
    let filters = args.conditions.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let orders = args.sort.iter().map(|text| Order::parse(text)).collect::<Result<Vec<_>>>()?;
    let files = Files::new();
    let (dirs, keys) = asked_for(&args.names, &args.results)?;
    let mut survey = Survey::of(&files, &dirs);
    if !keys.is_empty() {
        survey.runs.retain(|run| {
            let of = keys.iter().filter(|(experiment, _)| *experiment == run.experiment);
            // An experiment that was named as a whole has no keys.
            of.clone().next().is_none()
                || of.clone().any(|(_, key)| run.row.run_key.starts_with(key.as_str()))
        });
    }
    let output = Output::new(args.quiet);
    for error in &survey.damaged {
        output.warn(&format!("error: {error}"));
    }
    let environment: Vec<_> = environment().collect();
    let mut listing = Listing::of(&files, &survey, &environment)?;
    for filter in &filters {
        listing.require(&filter.field, "--where")?;
    }
    for order in &orders {
        listing.require(order.field(), "--sort")?;
    }
    for column in &args.columns {
        listing.require(column, "--columns")?;
    }
    let mut sheet = listing.sheet;
    let class = if survey.damaged.is_empty() { None } else { Some(Class::Input) };
    if args.fields {
        list_fields(&sheet, output, args.json);
        return Ok(class);
    }
    let all = sheet.len();
    for filter in &filters {
        filter.apply(&mut sheet)?;
    }
    // The last one given decides least.
    for order in orders.iter().rev() {
        order.apply(&mut sheet)?;
    }
    let counts = counts(&sheet)?;
    let left_out = args.limit.map_or(0, |most| sheet.truncate(most));
    if args.json {
        let fields = if args.columns.is_empty() {
            (0..sheet.fields().len()).collect()
        } else {
            places(&sheet, &args.columns)?
        };
        let report = json!({
            "format": 1,
            "runs": sheet.json(&fields),
            "left_out": left_out,
            "damaged": survey.damaged.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        output.result(&report.to_string());
        return Ok(class);
    }
    let columns: Vec<String> = if args.columns.is_empty() {
        let asked = filters.iter().map(|filter| filter.field.as_str()).chain(orders.iter().map(Order::field));
        with_asked(&COLUMNS, asked, &sheet)
    } else {
        args.columns.clone()
    };
    let places = places(&sheet, &columns)?;
    let shown = if args.columns.is_empty() { fitting(&sheet, &places, output) } else { places };
    output.rows(&sheet.table(&shown).to_string());
    let of = if sheet.len() + left_out == all { String::new() } else { format!(" of {all}") };
    let more = if left_out == 0 { String::new() } else { format!("; {left_out} more are not shown") };
    output.note(&format!("{} runs{of}: {counts}{more}", sheet.len() + left_out));
    Ok(class)
}

/// Experiments, and where single runs of them are asked for, whose by its place and the first digits of its key.
type Asked = (Vec<ExperimentDir>, Vec<(usize, String)>);

/// The experiments that are asked for.
fn asked_for(names: &[PathBuf], results: &Path) -> Result<Asked> {
    let (mut dirs, mut keys): Asked = (Vec::new(), Vec::new());
    let add = |dir: ExperimentDir, dirs: &mut Vec<ExperimentDir>| {
        dirs.iter().position(|known| *known == dir).unwrap_or_else(|| {
            dirs.push(dir);
            dirs.len() - 1
        })
    };
    if names.is_empty() {
        dirs = experiments_in(results)?;
        return if dirs.is_empty() { Err(no_results_in(results)) } else { Ok((dirs, keys)) };
    }
    for name in names {
        let below = if name.is_dir() && !name.join("plan.toml").is_file() {
            experiments_in(name)?
        } else {
            Vec::new()
        };
        if !below.is_empty() {
            for dir in below {
                add(dir, &mut dirs);
            }
            continue;
        }
        let (dir, key) = results_of(name, results)?;
        if !dir.path().is_dir() {
            return Err(Error::input("this experiment has no results yet")
                .file(dir.path())
                .help(format!("run it: nanorun {}", name.display())));
        }
        let at = add(dir, &mut dirs);
        keys.extend(key.map(|key| (at, key)));
    }
    Ok((dirs, keys))
}

/// The places of fields that are there.
pub(super) fn places(sheet: &Sheet, names: &[String]) -> Result<Vec<usize>> {
    names.iter().map(|name| sheet.place(name, "--columns")).collect()
}

/// The usual columns, and behind the first of them those that are asked for.
pub(super) fn with_asked<'a>(
    usual: &[&str],
    asked: impl Iterator<Item = &'a str>,
    sheet: &Sheet,
) -> Vec<String> {
    let mut columns: Vec<String> = usual.iter().map(|name| (*name).to_owned()).collect();
    let mut at = columns.len().min(4);
    for name in asked {
        let same = |known: &String| sheet.find(known) == sheet.find(name);
        if !columns.iter().any(same) {
            columns.insert(at, name.to_owned());
            at += 1;
        }
    }
    columns
}

/// As many of the columns as fit into the terminal, the first ones always; columns without any value go first.
pub(super) fn fitting(sheet: &Sheet, places: &[usize], output: Output) -> Vec<usize> {
    let has_values = |place: &usize| (0..sheet.len()).any(|row| *sheet.cell(row, *place) != Cell::Empty);
    let mut shown: Vec<usize> = places.to_vec();
    if !sheet.is_empty() {
        shown.retain(has_values);
    }
    let Some(room) = output.width() else { return shown };
    while shown.len() > 3 && sheet.table(&shown).width() > room {
        shown.pop();
    }
    shown
}

/// Prints what fields there are.
pub(super) fn list_fields(sheet: &Sheet, output: Output, as_json: bool) {
    if as_json {
        let each =
            sheet.fields().iter().map(|field| json!({ "field": field.name, "meaning": field.meaning }));
        output.result(&json!({ "fields": each.collect::<Vec<_>>() }).to_string());
        return;
    }
    let mut table = crate::text::Table::new(["field", "meaning"]);
    for field in sheet.fields() {
        table.push(vec![field.name.clone(), field.meaning.clone()]);
    }
    output.prose(&table.to_string());
    output
        .note("besides these: fields of the manifest (`nanorun fields`) and every metric that was evaluated");
}

/// `10 finished, 2 planned`.
fn counts(sheet: &Sheet) -> Result<String> {
    let status = sheet.place("status", "the sheet")?;
    let mut counts: Vec<(String, usize)> = Vec::new();
    for row in 0..sheet.len() {
        let status = sheet.cell(row, status).shown();
        match counts.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => counts.push((status, 1)),
        }
    }
    if counts.is_empty() {
        return Ok("none".to_owned());
    }
    let words: Vec<String> = counts.into_iter().map(|(status, count)| format!("{count} {status}")).collect();
    Ok(words.join(", "))
}
