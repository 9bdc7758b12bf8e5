//! CORE: in-context tasks (DCLM, arXiv 2406.11794) as upstream measures them (nanochat/core_eval.py,
//! scripts/base_eval.py), from upstream's evaluation bundle.
//!
//! A bundle is a directory: `core.yaml` lists the tasks, `eval_meta_data.csv` has the accuracy that guessing reaches, and
//! `eval_data/` the examples, one JSON object a line. An example is scored by the model's losses on what differs
//! between its choices, or, in language modelling, by whether the model's most probable tokens are the continuation.
//!
//! [`bundle`] reads and checks a bundle, [`prompts`] and [`sequences`] make token sequences of an example,
//! [`evaluate`] scores them.

pub mod bundle;
mod csv_table;
pub mod evaluate;
mod example;
mod lines;
mod prompts;
mod sequences;
mod yaml;

#[cfg(test)]
mod tests;

pub use bundle::{Bundle, Limits};
pub use evaluate::{CoreResult, TaskResult};
