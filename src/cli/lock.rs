//! `nanorun lock`: pin the hashes of an experiment's data in its manifest.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::data::EMBEDDED;
use crate::error::{Class, Error, Result};
use crate::experiment::{TOKENIZER_PIN, shard_pins};
use crate::files::Files;
use crate::manifest::{Manifest, Options, with_pins};

use super::args::LockArgs;
use super::output::Output;
use super::{environment, experiment, options};

/// Writes `[data.sha256]`; everything else in the manifest stays as it is.
pub(super) fn lock(args: &LockArgs) -> Result<Option<Class>> {
    if let Some(only) = args.common.only.first() {
        return Err(Error::input("pins are those of every cell")
            .file(format!("--only {only}"))
            .expected("no --only"));
    }
    let experiment = experiment(&args.manifest, &args.common)?;
    experiment.require_present()?;
    let pins = experiment.pins()?;
    let mut pins: Vec<(String, String)> =
        pins.into_iter().map(|(name, digest)| (name, digest.to_string())).collect();
    let changed = write(&experiment.manifest, &options(&args.common), &mut pins)?;
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

/// Puts the pins into the manifest's file and says whether that changed it. Those that no cell keeps are left out of
/// `pins` too.
fn write(manifest: &Manifest, options: &Options, pins: &mut Vec<(String, String)>) -> Result<bool> {
    let (text, held) = held(manifest, options, pins)?;
    let text = if held.len() == pins.len() {
        text
    } else {
        // What every cell replaces, such as the tokenizer that the matrix names, has no place in the manifest.
        pins.retain(|(name, _)| held.contains(name));
        with_pins(&manifest.file, &manifest.text, pins)?
    };
    let changed = text != manifest.text;
    if changed {
        Files::new().deliver(&manifest.file, text.as_bytes())?;
    }
    Ok(changed)
}

/// Makes sure, before anything is downloaded, that shards can be pinned in a manifest.
pub(super) fn check_reads_shards(manifest: &Path) -> Result<()> {
    let manifest = Manifest::load(manifest, &no_options())?;
    match manifest.cells.iter().find(|cell| cell.settings.data.shards.as_slice() == [EMBEDDED]) {
        None => Ok(()),
        Some(cell) => Err(cell
            .locate("data.shards", Error::input("the manifest reads the embedded corpus: no shards to pin"))
            .expected("the directory or glob of the shards")),
    }
}

/// Pins the shards that a manifest reads, of which these have just been brought; the tokenizer need not be there.
pub(super) fn lock_shards(manifest: &Path, brought: &[(String, String)], output: Output) -> Result<()> {
    let manifest = Manifest::load(manifest, &no_options())?;
    let mut pins = shard_pins(&manifest)?;
    if !pins.iter().any(|pin| brought.contains(pin)) {
        return Err(Error::input("the manifest reads none of the shards that were downloaded")
            .file(&manifest.file)
            .key("data.shards")
            .expected("the directory that they came to, or a glob in it")
            .help("nothing was pinned: correct data.shards, then `nanorun lock` pins them"));
    }
    let changed = write(&manifest, &no_options(), &mut pins)?;
    let what = if changed { "pinned in" } else { "already pinned in" };
    output.note(&format!("{} shards {what} {}", pins.len(), manifest.file.display()));
    Ok(())
}

/// The manifest as it stands, in this environment.
fn no_options() -> Options {
    Options { env: environment().collect(), ..Options::default() }
}

/// The manifest with these pins, and the names of those that hold for every cell.
///
/// # Errors
/// A profile or override that names other data than the manifest, in which the pins stand; cells that drop a pin of a
/// shard.
fn held(
    manifest: &Manifest,
    options: &Options,
    pins: &[(String, String)],
) -> Result<(String, BTreeSet<String>)> {
    let text = with_pins(&manifest.file, &manifest.text, pins)?;
    let pinned = Manifest::parse(&manifest.file, &text, options)?;
    let mut held: BTreeSet<String> = pins.iter().map(|(name, _)| name.clone()).collect();
    for cell in &pinned.cells {
        let kept = cell.settings.data.sha256.as_ref();
        held.retain(|name| kept.is_some_and(|kept| kept.contains_key(name)));
    }
    let overridden = manifest.profile.is_some() || !manifest.sets.is_empty() || !manifest.env.is_empty();
    let lost = pins.iter().find(|(name, _)| !held.contains(name) && (overridden || name != TOKENIZER_PIN));
    let Some((name, _)) = lost else { return Ok((text, held)) };
    let error = Error::input(format!("the pin of `{name}` would not hold for every cell"))
        .file(&manifest.file)
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
