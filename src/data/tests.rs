//! Equality with upstream, against what its own code produced; and what a user reads when data are bad.

mod bad_input;
mod in_use;
mod pickle;
mod packing_rules;
mod ranks;
mod streams;
mod upstream;
mod writers;
