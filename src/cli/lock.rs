//! `nanorun lock`: pin the hashes of an experiment's data in its manifest.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::error::{Class, Error, Result};
use crate::experiment::{Experiment, TOKENIZER_PIN};
use crate::files::Files;
use crate::manifest::{Manifest, with_pins};

use super::args::LockArgs;
use super::output::Output;
use super::{experiment, options};

/// Writes `[data.sha256]`; everything else in the manifest stays as it is.
pub(super) fn lock(args: &LockArgs) -> Result<Option<Class>> {
    let experiment = experiment(&args.manifest, &args.common)?;
    experiment.require_present()?;
    let pins = experiment.pins()?;
    let mut pins: Vec<(String, String)> =
        pins.into_iter().map(|(name, digest)| (name, digest.to_string())).collect();
    let (text, held) = held(args, &experiment, &pins)?;
    let text = if held.len() == pins.len() {
        text
    } else {
        // What every cell replaces, such as the tokenizer that the matrix names, has no place in the manifest.
        pins.retain(|(name, _)| held.contains(name));
        with_pins(&args.manifest, &experiment.manifest.text, &pins)?
    };
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

/// The manifest with these pins, and the names of those that hold for every cell.
///
/// # Errors
/// A profile or override that names other data than the manifest, in which the pins stand; cells that drop a pin of a
/// shard.
fn held(
    args: &LockArgs,
    experiment: &Experiment,
    pins: &[(String, String)],
) -> Result<(String, BTreeSet<String>)> {
    let manifest = &experiment.manifest;
    let text = with_pins(&args.manifest, &manifest.text, pins)?;
    let pinned = Manifest::parse(&args.manifest, &text, &options(&args.common))?;
    let mut held: BTreeSet<String> = pins.iter().map(|(name, _)| name.clone()).collect();
    for cell in &pinned.cells {
        let kept = cell.settings.data.sha256.as_ref();
        held.retain(|name| kept.is_some_and(|kept| kept.contains_key(name)));
    }
    let overridden = manifest.profile.is_some() || !manifest.sets.is_empty() || !manifest.env.is_empty();
    let lost = pins.iter().find(|(name, _)| !held.contains(name) && (overridden || name != TOKENIZER_PIN));
    let Some((name, _)) = lost else { return Ok((text, held)) };
    let error = Error::input(format!("the pin of `{name}` would not hold for every cell"))
        .file(&args.manifest)
        .key("data.sha256");
    Err(if overridden {
        error
            .expected("the manifest's own data: the profile or an override names other data")
            .help("lock without --profile, --set and NANORUN_DATA__ variables")
    } else {
        error
            .expected("the same shards in every cell")
            .help("a cell that names other shards drops the pins: give it a manifest of its own")
    })
}
