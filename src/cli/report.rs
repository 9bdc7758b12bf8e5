//! `nanorun report`: judge what is on disk again, and make pages of it.

use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::report;

use super::args::ReportArgs;
use super::naming::{For, Found, absolute, find};
use super::output::Output;
use super::run;

/// Prints the scorecards of the runs that are finished, and writes the page and the figures that are asked for.
pub(super) fn report(args: &ReportArgs) -> Result<Option<Class>> {
    let output = Output::new(args.common.quiet);
    let here = working_directory()?;
    let html = args.html.as_deref().map(absolute).transpose()?;
    let svg = args.svg.as_deref().map(absolute).transpose()?;
    let (mut subjects, mut gravest) = (Vec::new(), None);
    let several = args.experiments.len() > 1;
    let mut directories: Vec<PathBuf> = Vec::new();
    for name in &args.experiments {
        let Found { mut experiment, key, .. } = find(name, &args.common, For::Reading)?;
        if let Some(key) = key {
            experiment.only(&key)?;
        }
        let directory = absolute(experiment.dir.path())?;
        if directories.contains(&directory) {
            return Err(Error::input("this experiment is named twice")
                .file(name)
                .expected("experiments that are compared, each once"));
        }
        directories.push(directory);
        let (report, subject) = experiment.read_for_page()?;
        run::tell(&experiment, &report, &args.common, output);
        if several && !args.common.json {
            output.result("\n");
        }
        subjects.push(subject);
        let class = args.undecided.gravest(report.class(), &report.scorecard);
        gravest = [gravest, class].into_iter().flatten().max_by_key(|class| class.severity());
        // Results are read from where they were started; the next name is relative to where this command was.
        enter(&here)?;
    }
    let files = Files::from_env()?;
    if let Some(path) = &html {
        write(&files, path, report::page(&subjects).as_bytes(), "the page")?;
        output.note(&format!("the page is in {}", path.display()));
    }
    if let Some(dir) = &svg {
        files.create_dir_all(dir).map_err(|error| cannot_write(dir, "the figures", &error))?;
        let figures = report::figures(&subjects);
        for (name, text) in &figures {
            write(&files, &dir.join(name), text.as_bytes(), "a figure")?;
        }
        output.note(&format!("{} figures are in {}", figures.len(), dir.display()));
    }
    Ok(gravest)
}

fn working_directory() -> Result<PathBuf> {
    std::env::current_dir()
        .map_err(|error| Error::input("the working directory cannot be told").because(error))
}

fn enter(directory: &Path) -> Result<()> {
    std::env::set_current_dir(directory).map_err(|error| {
        Error::input("cannot go back to the working directory").file(directory).because(error)
    })
}

fn write(files: &Files, path: &Path, bytes: &[u8], what: &str) -> Result<()> {
    files.deliver(path, bytes).map_err(|error| cannot_write(path, what, &error))
}

fn cannot_write(path: &Path, what: &str, error: &crate::files::FileError) -> Error {
    Error::input(format!("{what} cannot be written: {error}"))
        .file(path)
        .expected("a place in a directory that is there and can be written")
}
