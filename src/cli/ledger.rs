//! `nanorun ledger`: what was asked before, and how it came out.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::error::{Class, Result};
use crate::files::Files;
use crate::ledger::{Ledger, NAME};
use crate::survey::{Filter, Order, Sheet};

use super::naming::no_results_in;
use super::output::Output;
use super::runs::{fitting, list_fields, places, with_asked};
use super::threads;

/// `nanorun ledger`
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct LedgerArgs {
    /// Only questions with all of these words, in the question, the hypothesis, the names or the verdict
    #[arg(value_name = "WORD")]
    words: Vec<String>,
    /// Only rows of which this holds: FIELD with <, <=, >, >=, =, !=, ~ (has the text) or !~; several all hold
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// Sort by a field (default: when it began); :desc turns the order round
    #[arg(long, value_name = "FIELD[:desc]")]
    sort: Vec<String>,
    /// Show these fields
    #[arg(long, value_name = "FIELD,...", value_delimiter = ',')]
    columns: Vec<String>,
    /// Show so many rows at most
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
    /// Print the rows only
    #[arg(long, short)]
    quiet: bool,
}

const HELP: &str = "\
Examples:
  nanorun ledger                                     every question, oldest first
  nanorun ledger warmdown sqrt                       those with both words
  nanorun ledger --where finding=better --sort effect
  nanorun ledger --where 'started>=2026-11' --columns experiment,question,finding,effect,flops --json

The ledger is made from the results that are there, written to ledger.parquet beside them, and kept up by every run that
ends: deleting it loses nothing. A question is the manifest's `question`, and what was expected its `hypothesis`.";

/// What is shown, the most important first.
const COLUMNS: [&str; 10] =
    ["experiment", "question", "arm", "finding", "effect", "lower", "upper", "seeds", "seconds", "started"];

/// Fields that words are looked for in.
const SEARCHED: [&str; 9] =
    ["experiment", "name", "question", "hypothesis", "varied", "arm", "control", "finding", "detail"];

/// Makes the ledger anew and shows what is asked for.
pub(super) fn ledger(args: &LedgerArgs) -> Result<Option<Class>> {
    threads::start(None)?;
    let filters = args.conditions.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let orders = args.sort.iter().map(|text| Order::parse(text)).collect::<Result<Vec<_>>>()?;
    let files = Files::from_env()?;
    let output = Output::new(args.quiet);
    let made = Ledger::of(&files, &args.results)?;
    if made.rows.is_empty() && made.damaged.is_empty() {
        return Err(no_results_in(&args.results));
    }
    for error in &made.damaged {
        output.warn(&format!("error: {error}"));
    }
    let class = if made.damaged.is_empty() { None } else { Some(Class::Input) };
    // What cannot be read now may be in the ledger that is there.
    if class.is_none() {
        match made.write(&files, &args.results) {
            Ok(true) => output.note(&format!("{} is up to date", args.results.join(NAME).display())),
            Ok(false) => {}
            // It is shown all the same.
            Err(error) => output.note(&format!("{NAME} is not written: {}", error.what())),
        }
    }
    let mut sheet = Sheet::of(&made.rows)?;
    if args.fields {
        list_fields(&sheet, output, args.json);
        return Ok(class);
    }
    let all = sheet.len();
    let searched: Vec<usize> = SEARCHED.iter().filter_map(|name| sheet.find(name)).collect();
    for word in args.words.iter().map(|word| word.to_lowercase()) {
        sheet.retain(|row| {
            let has = |&place: &usize| {
                row.get(place).is_some_and(|cell| cell.shown().to_lowercase().contains(&word))
            };
            searched.iter().any(has)
        });
    }
    for filter in &filters {
        filter.apply(&mut sheet)?;
    }
    for order in orders.iter().rev() {
        order.apply(&mut sheet)?;
    }
    let left_out = args.limit.map_or(0, |most| sheet.truncate(most));
    if args.json {
        let fields = if args.columns.is_empty() {
            (0..sheet.fields().len()).collect()
        } else {
            places(&sheet, &args.columns)?
        };
        let report = json!({
            "format": crate::ledger::FORMAT,
            "rows": sheet.json(&fields),
            "left_out": left_out,
            "damaged": made.damaged.iter().map(ToString::to_string).collect::<Vec<_>>(),
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
    output.note(&format!("{} rows{of}{more}", sheet.len() + left_out));
    Ok(class)
}
