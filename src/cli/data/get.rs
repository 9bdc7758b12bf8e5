//! `nanorun data get`: upstream's shards, downloaded.

use serde_json::json;

use super::GetArgs;
use super::progress::Progress;
use crate::cli::output::Output;
use crate::cli::{environment, lock};
use crate::data::Cache;
use crate::error::{Class, Result};
use crate::fetch::{self, Address, Dataset, Environment, Fetched, Order, Origin, Patience, Place};
use crate::files::Files;
use crate::stop::{self, StopFlag};

/// Downloads, and pins where asked to.
pub(super) fn get(args: &GetArgs) -> Result<Option<Class>> {
    let dataset = Dataset::named(&args.dataset)?;
    let variables = Environment::of(environment());
    let order = Order {
        files: dataset.files(args.shards)?,
        base: match &args.base_url {
            Some(url) => Address::parse(url).map_err(|error| error.key("--base-url"))?,
            None => dataset.base(&variables)?,
        },
        dir: match &args.to {
            Some(dir) => dir.clone(),
            None => dataset.place(&variables)?,
        },
        jobs: usize::from(args.jobs),
    };
    // Before anything is downloaded: a base with a query has no files beneath it.
    order.files.first().map(|name| order.base.beneath(name)).transpose()?;
    let output = Output::new(args.quiet);
    if args.dry_run {
        dry_run(args, &order, output);
        return Ok(None);
    }
    if let Some(manifest) = &args.lock {
        lock::check_reads_shards(manifest)?;
    }
    stop::watch()?;
    let stop = StopFlag::default();
    let place = Place {
        environment: variables,
        files: Files::from_env()?,
        cache: Cache::from_env()?,
        patience: Patience::default(),
    };
    output.note(&format!(
        "{} shards of {} from {} to {}",
        order.files.len(),
        dataset.name,
        order.base.shown(),
        order.dir.display()
    ));
    let progress = Progress::new(output.fancy(), args.quiet, order.files.len());
    let fetched = fetch::get(&order, &place, &progress, &|| stop.is_raised());
    progress.end();
    let fetched = fetched?;
    if let Some(manifest) = &args.lock {
        let pins: Vec<(String, String)> =
            fetched.iter().map(|shard| (shard.name.clone(), shard.sha256.to_string())).collect();
        lock::lock_shards(manifest, &pins, output)?;
    }
    report(args, &order, &fetched, output);
    Ok(None)
}

fn report(args: &GetArgs, order: &Order, fetched: &[Fetched], output: Output) {
    let came = || fetched.iter().filter(|shard| shard.origin == Origin::Network);
    if args.json {
        let shards: Vec<_> = fetched
            .iter()
            .map(|shard| {
                json!({ "name": shard.name, "state": shard.origin, "bytes": shard.bytes, "sha256": shard.sha256 })
            })
            .collect();
        let report = json!({
            "dataset": args.dataset,
            "directory": order.dir,
            "base_url": order.base.shown(),
            "shards": shards,
            "downloaded": came().count(),
        });
        output.result(&report.to_string());
        return;
    }
    for shard in fetched {
        output.result(&format!("{}  {}", shard.sha256, shard.name));
    }
    let bytes: u64 = came().map(|shard| shard.bytes).sum();
    output.note(&format!(
        "{} shards in {}: {} came now ({:.1} MB), {} were there",
        fetched.len(),
        order.dir.display(),
        came().count(),
        bytes as f64 / 1e6,
        fetched.len() - came().count()
    ));
}

fn dry_run(args: &GetArgs, order: &Order, output: Output) {
    let state = order.state();
    if args.json {
        let shards: Vec<_> = state
            .iter()
            .map(|(name, origin, here)| json!({ "name": name, "state": origin, "bytes_here": here }))
            .collect();
        let report = json!({
            "dataset": args.dataset,
            "directory": order.dir,
            "base_url": order.base.shown(),
            "shards": shards,
        });
        output.result(&report.to_string());
        return;
    }
    for (name, origin, here) in &state {
        let what = match origin {
            Origin::Here | Origin::Network => format!("here, {:.1} MB", *here as f64 / 1e6),
            Origin::Part => format!("to be carried on after {:.1} MB", *here as f64 / 1e6),
            Origin::Away => "to be downloaded".to_owned(),
        };
        output.result(&format!("{name}  {what}"));
    }
    let away = state.iter().filter(|(_, origin, _)| *origin != Origin::Here).count();
    output.note(&format!("{away} of {} would come from {}", state.len(), order.base.shown()));
    output.note(&format!("to {}", order.dir.display()));
}
