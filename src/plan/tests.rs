//! Plans of the experiments in the repository, and bad input.

use std::path::{Path, PathBuf};

use super::*;
use crate::manifest::Options;
use crate::model::config::ModelConfig;
use crate::optim::config::GroupConfig;

fn options() -> Options {
    Options { env: vec![("HOME".to_owned(), "/home/ada".to_owned())], ..Options::default() }
}

fn experiment(name: &str, options: &Options) -> Plan {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("experiments").join(name);
    let text = std::fs::read_to_string(file).unwrap();
    let manifest = Manifest::parse(Path::new(name), &text, options).unwrap_or_else(|error| panic!("{error}"));
    plan(&manifest, &NoData).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_experiment_plans() {
    for (name, runs, arms) in [
        ("quickstart.toml", 4, 2),
        ("ci.toml", 5, 3),
        ("d12_sqrt.toml", 6, 2),
        ("ablation_features.toml", 14, 7),
        ("warmdown_shapes.toml", 12, 4),
        ("microgpt.toml", 4, 2),
        ("bigram_ablation.toml", 12, 4),
    ] {
        let plan = experiment(name, &options());
        assert_eq!((plan.runs.len(), plan.arms.len()), (runs, arms), "{name}");
        let controls = plan.arms.iter().filter(|arm| arm.control.is_none()).count();
        assert_eq!(controls, 1, "{name}");
        println!("{name}: {} {:?}", plan.prefixes.saving(), plan.runs[0].sizes);
    }
}
