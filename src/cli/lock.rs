//! `nanorun lock`: pin the hashes of an experiment's data in its manifest.

use serde_json::{Map, Value, json};

use crate::error::{Class, Error, Result};
use crate::experiment::Experiment;
use crate::files::Files;
use crate::manifest::{Manifest, Options, with_pins};
use crate::plan::run_config::DataConfig;

use super::args::LockArgs;
use super::output::Output;
use super::{environment, experiment, options};

/// Writes `[data.sha256]`; everything else in the manifest stays as it is.
pub(super) fn lock(args: &LockArgs) -> Result<Option<Class>> {
    let experiment = experiment(&args.manifest, &args.common)?;
    experiment.require_present()?;
    own_data(&experiment, args)?;
    let pins = experiment.pins()?;
    let pins: Vec<(String, String)> =
        pins.into_iter().map(|(name, digest)| (name, digest.to_string())).collect();
    let text = with_pins(&args.manifest, &experiment.manifest.text, &pins)?;
    let pinned = Manifest::parse(&args.manifest, &text, &options(&args.common))?;
    if pinned.cells.iter().any(|cell| cell.settings.data.sha256.is_none()) {
        return Err(Error::input("the pins would not hold for every cell")
            .file(&args.manifest)
            .key("data.sha256")
            .expected("the same shards in every cell")
            .help("a cell that names other shards drops the pins: give it a manifest of its own"));
    }
    let changed = text != experiment.manifest.text;
    if changed {
        Files::new().write(&args.manifest, text.as_bytes())?;
    }
    let output = Output::new(args.common.quiet);
    if args.common.json {
        let pins: Map<String, Value> =
            pins.into_iter().map(|(name, digest)| (name, Value::String(digest))).collect();
        output.result(&json!({ "manifest": args.manifest, "changed": changed, "sha256": pins }).to_string());
    } else {
        for (name, digest) in &pins {
            output.result(&format!("{digest}  {name}"));
        }
        let what = if changed { "pinned in" } else { "already pinned in" };
        output.note(&format!("{what} {}", args.manifest.display()));
    }
    Ok(None)
}

/// Pins stand in the manifest itself: they must not be those of a profile's data, or of an override's.
fn own_data(experiment: &Experiment, args: &LockArgs) -> Result<()> {
    let manifest = &experiment.manifest;
    if manifest.profile.is_none() && manifest.sets.is_empty() && manifest.env.is_empty() {
        return Ok(());
    }
    let env = environment().filter(|(name, _)| !manifest.env.contains_key(name)).collect();
    let own = Experiment::load(
        &args.manifest,
        &Options { profile: None, sets: Vec::new(), env },
        &args.common.results,
    )?;
    let data = |experiment: &Experiment| {
        let mut found: Vec<DataConfig> = Vec::new();
        for run in &experiment.plan.runs {
            if !found.contains(&run.config.data) {
                found.push(run.config.data.clone());
            }
        }
        found
    };
    if data(experiment) == data(&own) {
        return Ok(());
    }
    Err(Error::input("the profile or an override names other data than the manifest itself")
        .file(&args.manifest)
        .key("data.sha256")
        .expected("the manifest's own data: pins stand in its [data.sha256]")
        .help("lock without --profile, --set and NANORUN_DATA__ variables"))
}
