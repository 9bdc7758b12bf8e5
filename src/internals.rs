//! Everything, for this package's own fuzzers, benchmarks and end-to-end tests: no promise to anybody.

// A module's own documentation is where the module is.
#![allow(missing_docs)]

macro_rules! reach {
    ($($name:ident)*) => {$(
        pub mod $name {
            #[allow(unused_imports)]
            pub use crate::$name::*;
        }
    )*};
}

reach! {
    error
    text
    caught_panics
    hash
    precision
    control_word
    simd
    math
    rng
    host
    files
    console
    stop
    tensors
    toml_text
    pickle
    torch_file
    upstream
    manifest
    data
    fetch
    ops
    model
    optim
    plan
    backend
    train
    generate
    interop
    tasks
    record
    history
    run
    parity
    bench
    scorecard
    gate
    ledger
    experiment
    survey
    cli
}
