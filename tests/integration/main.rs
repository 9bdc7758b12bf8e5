//! The program from outside: what it prints, what it leaves, how it exits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_input;
mod commands;
mod diverge;
mod faults;
mod help;
mod interrupt;
mod layering;
mod readme;
mod reproduce;
mod run;
mod support;
