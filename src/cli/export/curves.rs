//! `nanorun export --to tensorboard`: curves as event files.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::ExportArgs;
use crate::cli::naming::results_of;
use crate::cli::output::Output;
use crate::cli::threads;
use crate::error::{Class, Error, Result};
use crate::files::Files;
use crate::interop::tensorboard::event_file;
use crate::record::PlanRecord;
use crate::survey::{One, Survey};

/// Writes a directory a run.
pub(super) fn export(args: &ExportArgs, files: &Files, to: &Path) -> Result<Option<Class>> {
    let of_weights = [args.step.is_some(), args.commit.is_some(), args.tokenizer.is_some()];
    if of_weights.contains(&true) {
        return Err(Error::input("--step, --commit and --tokenizer are for weights")
            .expected("--to tensorboard alone"));
    }
    threads::start(args.common.threads.map(usize::from))?;
    let (dir, key) = results_of(&args.name, &args.common.results)?;
    if to.symlink_metadata().is_ok() {
        return Err(Error::input("the directory is there already")
            .file(to)
            .expected("a name that is free")
            .help("TensorBoard shows several directories below one: give each export its own"));
    }
    let key = args.run.as_deref().or(key.as_deref());
    let keys: Vec<String> = if let Some(key) = key {
        vec![key.to_owned()]
    } else {
        PlanRecord::read(files, &dir)?;
        let survey = Survey::of(files, std::slice::from_ref(&dir));
        let keys: BTreeSet<String> = survey.runs.into_iter().map(|run| run.row.run_key).collect();
        keys.into_iter().collect()
    };
    let (mut exported, mut empty) = (Vec::new(), Vec::new());
    for key in &keys {
        let one = One::find(files, &dir, Some(key))?;
        let scalars = one.scalars();
        if scalars.is_empty() {
            empty.push(one.label());
        } else {
            exported.push((one, scalars));
        }
    }
    if exported.is_empty() {
        return Err(Error::input("no run of this experiment has curves yet")
            .file(dir.path())
            .expected("a run that was at least evaluated once"));
    }
    let staged = files.deliver_dir(to)?;
    let mut written = Vec::new();
    for (one, scalars) in &exported {
        // Arms have names of their own, and a seed each run.
        let name = if key.is_some() { String::new() } else { directory_of(one) };
        if !name.is_empty() {
            staged.create_dir(&name)?;
        }
        let began = one.began();
        let file = format!("events.out.tfevents.{began:010.0}.nanorun");
        let file = if name.is_empty() { file } else { format!("{name}/{file}") };
        staged.write(&file, &event_file(began, scalars))?;
        written.push(json!({ "run": one.name(), "label": one.label(), "file": to.join(&file), "scalars": scalars.len() }));
    }
    staged.commit()?;
    let output = Output::new(args.common.quiet);
    for label in &empty {
        output.note(&format!("{label}: nothing is on disk of its curves yet"));
    }
    if args.common.json {
        output.result(&json!({ "directory": to, "runs": written, "without_curves": empty }).to_string());
    } else {
        output.note(&format!(
            "curves of {} runs; look at them with: tensorboard --logdir {}",
            written.len(),
            args.directory.display()
        ));
        output.result(&args.directory.display().to_string());
    }
    Ok(None)
}

/// What TensorBoard calls a run: its label, as a directory's name, with what tells equal ones apart.
fn directory_of(one: &One) -> String {
    let plain =
        |letter: char| if letter.is_alphanumeric() || "_-.=,+".contains(letter) { letter } else { '_' };
    let label: String = one.label().chars().take(120).map(plain).collect();
    format!("{}-{}", label.trim_start_matches('.'), one.key().get(..6).unwrap_or_default())
}
