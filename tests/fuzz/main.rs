//! Hostile input: every reader of files, fed with damaged ones.
//!
//! Each test takes valid seeds, mutates them for `NANORUN_FUZZ_SECONDS` seconds (1 without it) and checks that the
//! reader answers with a value or with a typed error that names the file: no panic, no abort, no stack overflow, no
//! memory reserved because a length in the file said so. What was found once stands under
//! `tests/fixtures/fuzz_regressions/<target>/` and is tried first. `scripts/fuzz` runs it by hand, guided by coverage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod coverage;
mod harness;
mod memory;
mod mutation;
mod rng;
mod seeds;
mod targets;

#[global_allocator]
static MEMORY: memory::Watched = memory::Watched;
