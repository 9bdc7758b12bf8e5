//! The files of text that an experiment reads, for whoever freezes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Experiment;
use crate::data::{EMBEDDED, FrozenShard};
use crate::error::Result;

impl Experiment {
    /// The shards that the runs read which the command is about, each once, with their digests; what is in the program is none.
    ///
    /// # Errors
    /// Data that are missing or bad, or gone meanwhile.
    pub fn frozen_shards(&self) -> Result<Vec<FrozenShard>> {
        let mut known = Vec::new();
        let mut found: BTreeMap<PathBuf, FrozenShard> = BTreeMap::new();
        for run in self.selected_runs() {
            let data = &run.config.data;
            if known.contains(&data) || data.shards.iter().any(|pattern| pattern == EMBEDDED) {
                continue;
            }
            known.push(data);
            for (path, sha256) in self.library.open(data)?.files(&self.library)? {
                let shard = FrozenShard::of(&path, sha256)?;
                found.insert(shard.path.clone(), shard);
            }
        }
        Ok(found.into_values().collect())
    }
}
