//! `nanorun --version --json`: what this binary is, for programs.

use std::ffi::OsString;

use serde_json::{Value, json};

use crate::backend::cpu::environment_class;
use crate::backend::torch::facts::torch_facts;
use crate::console::PROGRESS_FORMAT;
use crate::host::HostFacts;
use crate::plan::key::numerics_version;
use crate::plan::run_config::BackendKind;
use crate::precision::Precision;
use crate::record::{Divergence, LAYOUT, RunResult};
use crate::simd;
use crate::upstream::RECIPES;

/// Whether the command line asks for it: `--version` and `--json`, in either order, and nothing else.
pub(super) fn is_asked_for(given: &[OsString]) -> bool {
    let rest: Vec<&str> = given.iter().skip(1).filter_map(|argument| argument.to_str()).collect();
    let is_version = |word: &&str| matches!(*word, "--version" | "-V");
    rest.len() + 1 == given.len()
        && rest.contains(&"--json")
        && rest.iter().any(is_version)
        && rest.iter().all(|word| is_version(word) || *word == "--json")
}

/// The version of everything that has one.
pub(super) fn version() -> Value {
    let features: &[&str] = if cfg!(feature = "tch") { &["tch"] } else { &[] };
    let numerics = |kind, precision| numerics_version(kind, precision);
    let commits: Vec<Value> =
        RECIPES.iter().map(|recipe| json!({ "commit": recipe.commit, "note": recipe.note })).collect();
    json!({
        "nanorun": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("NANORUN_COMMIT"),
        "features": features,
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "kernels": { "cpu": simd::name(), "cpu_features": HostFacts::collect(1).cpu_features },
        "environment_classes": {
            "f32": environment_class(Precision::F32),
            "bf16": environment_class(Precision::Bf16),
        },
        "libtorch": torch_facts().ok().map(|facts| facts.version),
        "numerics_versions": {
            "cpu": {
                "f32": numerics(BackendKind::Cpu, Precision::F32),
                "bf16": numerics(BackendKind::Cpu, Precision::Bf16),
            },
            "tch": {
                "f32": numerics(BackendKind::Tch, Precision::F32),
                "bf16": numerics(BackendKind::Tch, Precision::Bf16),
            },
            "scalar": { "f32": numerics(BackendKind::Scalar, Precision::F32) },
        },
        "formats": {
            "results_layout": LAYOUT,
            "result": RunResult::FORMAT,
            "divergence": Divergence::FORMAT,
            "checkpoint": crate::train::checkpoint::FORMAT,
            "progress": PROGRESS_FORMAT,
            "ledger": crate::ledger::FORMAT,
            "tries": crate::ledger::TRIES_FORMAT,
        },
        "upstream": commits,
    })
}
