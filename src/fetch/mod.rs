//! Published data sets, brought to this machine: upstream's shards, whole and checked.
//!
//! A shard is gathered under a name that no glob of shards matches and gets its own once it is whole: of the length
//! and the hash that the server says, a parquet file at both ends, with a footer that reads. What a process leaves
//! behind is carried on by the next one. `SHA256SUMS` beside the shards remembers what each was when it first came.
//!
//! The real host was never asked by nanorun's authors: what is known of its answers is from its documentation, and
//! the tests bring a server of their own.

mod address;
mod answer;
mod check;
mod client;
mod dataset;
mod gathering;
mod get;
mod patience;
mod proxy;
mod room;
mod shard;
mod sums;

pub use address::Address;
pub use check::{Checked, Found, check};
pub use client::Environment;
pub use dataset::{DATASETS, Dataset};
pub use get::{Fetched, Order, Origin, Place, Watcher, get};
pub use patience::Patience;
pub use sums::SUMS;
