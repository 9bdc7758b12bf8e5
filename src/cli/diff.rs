//! `nanorun diff`: compare two results directories.

use std::path::Path;

use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::gate::{Tolerance, compare, read_results};
use crate::record::ExperimentDir;

use super::args::DiffArgs;
use super::comparison::json;
use super::output::Output;

/// Exits 4 where two runs of one cell differ.
pub(super) fn diff(args: &DiffArgs) -> Result<Option<Class>> {
    let files = Files::new();
    let read = |path: &Path| {
        if !path.join("plan.toml").exists() {
            return Err(Error::input("this is no results directory of an experiment")
                .file(path)
                .expected("a directory with a plan.toml, such as results/quickstart"));
        }
        read_results(&files, &ExperimentDir::at(path))
    };
    let ((name, a), (_, b)) = (read(&args.a)?, read(&args.b)?);
    let expected: Vec<_> = a.into_iter().filter_map(|candidate| candidate.record).collect();
    let comparison = compare(&name, &b, &args.a.display().to_string(), &expected, Tolerance::default());
    Output::new(false).result(&if args.json {
        json(&comparison).to_string()
    } else {
        comparison.to_string()
    });
    Ok(comparison.failure())
}
