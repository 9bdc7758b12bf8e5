//! `nanorun diff`: compare two results directories.

use std::path::Path;

use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::gate::{Tolerance, compare, read_results};
use crate::record::PlanRecord;

use super::args::DiffArgs;
use super::comparison::json;
use super::naming::results_of;
use super::output::Output;
use super::selection::picked;

/// Exits 4 where two runs of one cell differ.
pub(super) fn diff(args: &DiffArgs) -> Result<Option<Class>> {
    let files = Files::new();
    let read = |name: &Path| {
        let (dir, key) = results_of(name, &args.results)?;
        let mut found = read_results(&files, &dir)?;
        if let Some(key) = &key {
            let run = PlanRecord::read(&files, &dir)?;
            let run = run.run_of(key)?;
            found.candidates.retain(|candidate| candidate.arm == run.arm && candidate.seed == run.seed);
        }
        if !args.only.is_empty() {
            let record = PlanRecord::read(&files, &dir)?;
            let runs = picked(&record, &args.only)?;
            let is_picked = |arm: &str, seed: u64| runs.iter().any(|run| run.arm == arm && run.seed == seed);
            found.candidates.retain(|candidate| is_picked(&candidate.arm, candidate.seed));
        }
        Ok::<_, Error>((found, key.is_some()))
    };
    let ((mut a, one_of_a), (b, one_of_b)) = (read(&args.a)?, read(&args.b)?);
    if one_of_a
        && one_of_b
        && let ([ours], [theirs]) = (a.candidates.as_mut_slice(), b.candidates.as_slice())
    {
        // Two runs that are named are compared, whatever cells they are of.
        ours.call(&theirs.arm, theirs.seed);
    }
    let mut notes = [a.notes, b.notes].concat();
    if a.experiment != b.experiment {
        notes.push(format!("experiment `{}` is compared with `{}`", b.experiment, a.experiment));
    }
    let mut expected = Vec::new();
    for candidate in a.candidates {
        match candidate.record {
            Some(record) => expected.push(record),
            None => notes.push(format!("{} is unfinished in {}", candidate.name(), args.a.display())),
        }
    }
    let reference = args.a.display().to_string();
    let mut comparison = compare(&b.experiment, &b.candidates, &reference, &expected, Tolerance::default());
    comparison.notes.extend(notes);
    let output = Output::new(false);
    let damaged = [a.damaged, b.damaged].concat();
    for what in &damaged {
        output.warn(what);
    }
    output.result(&if args.json { json(&comparison).to_string() } else { comparison.to_string() });
    // What cannot be read decides nothing, whatever the rest says.
    Ok(if damaged.is_empty() { comparison.failure() } else { Some(Class::Input) })
}
