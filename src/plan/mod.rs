//! Cell by cell: recipe + overrides + data facts -> complete runs, their keys and the tree of shared prefixes.

pub mod run_config;
