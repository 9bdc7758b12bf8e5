//! `nanorun lock`: pin the hashes of an experiment's data in its manifest.

use serde_json::{Map, Value, json};

use crate::error::{Class, Error, Result};
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
