//! Which data sets there are and where upstream keeps them. Another one is another entry of [`DATASETS`].

use std::path::PathBuf;

use super::address::Address;
use super::client::Environment;
use crate::error::{Error, Result};

/// A data set in upstream's layout: parquet shards numbered from 0.
#[derive(Debug, PartialEq, Eq)]
pub struct Dataset {
    /// What the command line calls it.
    pub name: &'static str,
    /// Its repository on the Hugging Face Hub.
    pub repository: &'static str,
    /// The directory that upstream keeps it in, under its base directory.
    pub directory: &'static str,
    /// Shards that may be asked for.
    pub shards: u32,
    /// The shard that upstream pins as the validation split, which always comes along; none where the last of those
    /// asked for validates.
    pub validation: Option<u32>,
}

/// All of them. Numbers and names are those of nanochat/dataset.py.
pub const DATASETS: [Dataset; 2] = [
    // From 324e69c on.
    Dataset {
        name: "climbmix",
        repository: "karpathy/climbmix-400b-shuffle",
        directory: "base_data_climbmix",
        shards: 6542,
        validation: Some(6542),
    },
    // Up to 2f09686.
    Dataset {
        name: "fineweb-edu",
        repository: "karpathy/fineweb-edu-100b-shuffle",
        directory: "base_data",
        shards: 1823,
        validation: None,
    },
];

/// Where the Hub is, unless `HF_ENDPOINT` says otherwise.
pub(super) const HUB: &str = "https://huggingface.co";

impl Dataset {
    /// The data set of that name.
    ///
    /// # Errors
    /// A name that none has.
    pub fn named(name: &str) -> Result<&'static Self> {
        DATASETS.iter().find(|dataset| dataset.name == name).ok_or_else(|| {
            let names = DATASETS.map(|dataset| format!("`{}`", dataset.name));
            Error::input(format!("there is no data set `{name}`")).expected(names.join(" or "))
        })
    }

    /// The files of its first `shards` shards and the validation shard, in the order of their names.
    ///
    /// # Errors
    /// More shards than there are, or none.
    pub fn files(&self, shards: u32) -> Result<Vec<String>> {
        if shards == 0 || shards > self.shards {
            return Err(Error::input(format!("{shards} shards of {} cannot be had", self.name))
                .key("--shards")
                .expected(format!("1 to {}", self.shards)));
        }
        let numbers = (0..shards).chain(self.validation);
        Ok(numbers.map(|number| format!("shard_{number:05}.parquet")).collect())
    }

    /// The address that a shard's name is added to.
    ///
    /// # Errors
    /// An `HF_ENDPOINT` that is no address.
    pub fn base(&self, environment: &Environment) -> Result<Address> {
        let hub = environment.hub()?;
        hub.beneath(&format!("datasets/{}/resolve/main", self.repository))
    }

    /// Upstream's directory for it: under `NANOCHAT_BASE_DIR`, else `~/.cache/nanochat`.
    ///
    /// # Errors
    /// Neither is known.
    pub fn place(&self, environment: &Environment) -> Result<PathBuf> {
        let base = environment.get("NANOCHAT_BASE_DIR").map(PathBuf::from);
        let home = || Some(PathBuf::from(environment.get("HOME")?).join(".cache/nanochat"));
        base.or_else(home).map(|base| base.join(self.directory)).ok_or_else(|| {
            Error::input("nobody says where upstream's data are: neither NANOCHAT_BASE_DIR nor HOME is set")
                .help("name the directory with --to DIR")
        })
    }
}
