//! The program from outside: what it prints, what it leaves, how it exits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod advice;
mod attempts;
mod backends;
mod bad_input;
mod cache_command;
mod commands;
mod core;
mod damage;
mod disks;
mod exchange;
mod diverge;
mod download;
mod faults;
mod guards;
mod gate;
mod golden;
mod help;
mod interrupt;
mod last_bits;
mod looks;
mod layering;
mod memory_guard;
mod misfits;
mod naming;
mod parity;
mod oracle;
mod readme;
mod report;
mod reproduce;
mod reuse;
mod retention;
mod room;
mod run;
mod shards;
mod small_models;
mod supply;
mod support;
mod threads;
mod targets;
mod tch;
mod tokenizer;
mod vary;
mod tokenizers;
