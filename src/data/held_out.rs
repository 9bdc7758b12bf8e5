//! Which shards of a corpus validate.

use std::sync::Arc;

use super::shard::Shard;
use super::shard_kind::backticked;
use crate::error::{Error, Result};

/// Which of the shards validate: the last, or those that `wanted` names.
pub(super) fn validation(shards: &[Arc<Shard>], wanted: Option<&str>) -> Result<Vec<bool>> {
    let last = shards.len().saturating_sub(1);
    let Some(wanted) = wanted else { return Ok((0..shards.len()).map(|at| at == last).collect()) };
    let error = |what: String| Error::input(what).key("data.validation");
    let pattern = glob::Pattern::new(wanted)
        .map_err(|why| error(format!("`{wanted}` is neither a name nor a glob")).because(why))?;
    let is_name = !wanted.contains(['*', '?', '[']);
    let matches = |shard: &Arc<Shard>| {
        let path = shard.name();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        // As much of the path as is written.
        name == wanted || path.ends_with(wanted) || pattern.matches(&name) || pattern.matches_path(path)
    };
    let found: Vec<bool> = shards.iter().map(matches).collect();
    let names = |found: &[bool]| {
        let of = shards.iter().zip(found).filter(|(_, found)| **found);
        backticked(&of.map(|(shard, _)| shard.name().display().to_string()).collect::<Vec<_>>())
    };
    match found.iter().filter(|found| **found).count() {
        0 => Err(error(format!("`{wanted}` is not among the shards"))
            .expected(format!("one of {} shards, such as {}", shards.len(), names(&vec![true; shards.len()])))
            .help("get the shard, or correct data.validation")),
        all if all == shards.len() => Err(error(format!("`{wanted}` leaves no shard to train on"))
            .expected("some of the shards, not all")
            .help("left out, the last shard by name validates; of a single one, its last tenth")),
        several if several > 1 && is_name => {
            Err(error(format!("`{wanted}` names {several} shards: {}", names(&found)))
                .expected("one shard, or a glob for several")
                .help("write more of its path"))
        }
        _ => Ok(found),
    }
}
