//! The program from outside: what it prints, what it leaves, how it exits.

mod bad_input;
mod commands;
mod diverge;
mod help;
mod interrupt;
mod layering;
mod run;
mod support;
