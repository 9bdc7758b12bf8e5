//! The `nanorun` command.

fn main() {}
