//! Plans of the experiments in the repository, laws for every commit, keys, prefixes, and bad input.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::render::{RunStatus, View};
use super::run_config::{BackendKind, InitSource};
use super::time::{Speed, evaluations};
use super::*;
use crate::manifest::Options;
use crate::model::config::{GptConfig, ModelConfig};
use crate::model::param::ParamGroup;
use crate::optim::config::GroupConfig;
use crate::precision::Precision::{Bf16, F32};
use crate::upstream::RECIPES;

fn options(profile: Option<&str>, sets: &[&str]) -> Options {
    Options {
        profile: profile.map(str::to_owned),
        sets: sets.iter().map(|&set| set.to_owned()).collect(),
        only: Vec::new(),
        env: vec![("HOME".to_owned(), "/home/ada".to_owned())],
    }
}

fn experiment(name: &str, options: &Options) -> Plan {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("experiments").join(name);
    let text = std::fs::read_to_string(file).unwrap();
    let manifest = Manifest::parse(Path::new(name), &text, options).unwrap_or_else(|error| panic!("{error}"));
    plan(&manifest, &NoData).unwrap_or_else(|error| panic!("{error}"))
}

const BASE: &str = r#"name = "t"
[upstream]
commit = "92d63d4"
[run]
seed = 1
backend = "cpu"
[budget]
param_data_ratio = 12
[schedule]
warmdown = "linear"
[data]
vocab_size = 32768
tokenizer = { path = "tok" }
"#;

fn planned(sets: &[&str], facts: &dyn Facts) -> Result<Plan> {
    let manifest = Manifest::parse(Path::new("t.toml"), BASE, &options(None, sets))?;
    plan(&manifest, facts)
}

fn run(sets: &[&str]) -> PlannedRun {
    planned(sets, &NoData).unwrap_or_else(|error| panic!("{error}")).runs.remove(0)
}

fn gpt(run: &PlannedRun) -> &GptConfig {
    match &run.config.model {
        ModelConfig::Gpt(gpt) => gpt,
        other => panic!("{other:?}"),
    }
}

struct Known(DataFacts);

impl Facts for Known {
    fn data(&self, _: &DataConfig) -> Result<DataFacts> {
        Ok(self.0)
    }

    fn init_file(&self, path: &str) -> Result<Digest> {
        Ok(Digest::of(path.as_bytes()))
    }
}

fn here() -> Known {
    Known(DataFacts { vocab_size: Some(32768), content: Some(Digest::of(b"data")), splits: None })
}

#[test]
fn every_experiment_plans() {
    for (name, runs, arms) in [
        ("quickstart.toml", 6, 2),
        ("ci.toml", 5, 3),
        ("d12_sqrt.toml", 6, 2),
        ("ablation_features.toml", 14, 7),
        ("warmdown_shapes.toml", 12, 4),
        ("microgpt.toml", 4, 2),
        ("bigram_ablation.toml", 12, 4),
    ] {
        let plan = experiment(name, &options(None, &[]));
        assert_eq!((plan.runs.len(), plan.arms.len()), (runs, arms), "{name}");
        assert_eq!(plan.arms.iter().filter(|arm| arm.control.is_none()).count(), 1, "{name}");
        assert!(plan.runs.iter().all(|run| run.key.pending));
    }
}

#[test]
fn d12_is_upstreams() {
    let plan = experiment("d12_sqrt.toml", &options(None, &[]));
    for run in &plan.runs {
        let gpt = gpt(run);
        assert_eq!((gpt.n_embd, gpt.n_head, run.config.batch.total_batch_size), (768, 6, 524_288));
        assert_eq!(run.sizes.steps, 2520);
        assert_eq!(run.config.data.shards, ["/home/ada/.cache/nanochat/base_data_climbmix/*.parquet"]);
    }
    let smoke = experiment("d12_sqrt.toml", &options(Some("smoke"), &[]));
    assert_eq!((smoke.results_name.as_str(), smoke.runs.len()), ("d12_sqrt@smoke", 2));
    let run = &smoke.runs[0];
    assert_eq!((run.config.backend.kind, run.config.backend.device.as_str()), (BackendKind::Cpu, "cpu"));
    assert_eq!((gpt(run).vocab_size, run.sizes.steps, run.sizes.tokens), (4096, 3, 3072));
}

/// Depth alone derives what upstream derives: batch and steps from 2c062aa on, at the recipe's ratio.
#[test]
fn a_depth_derives_everything_for_every_commit() {
    for recipe in &RECIPES {
        for (depth, log2_batch, steps) in [(4, 18, 528), (12, 19, 2520), (20, 20, 4980), (26, 20, 10510)] {
            let set = [format!("upstream.commit={}", recipe.short()), format!("model.depth={depth}")];
            let run = run(&[&set[0], &set[1]]);
            let batch = run.config.batch.total_batch_size as u64;
            let auto = recipe.data.total_batch_size == crate::upstream::BatchRule::Auto;
            assert_eq!(batch, if auto { 1 << log2_batch } else { 1 << 19 });
            assert_eq!(run.sizes.steps, if auto { steps } else { 12 * run.sizes.params.scaling() / batch });
            let k = (batch as f64 / 524_288.0).sqrt();
            let muon = |run: &PlannedRun| {
                let groups = run.config.optimizer.groups.iter();
                groups.into_iter().find_map(|(_, group)| match group {
                    GroupConfig::Muon(muon) => Some(muon.clone()),
                    _ => None,
                })
            };
            assert_eq!(muon(&run).unwrap().lr, 0.02 * k);
            let has_smear = run.config.optimizer.groups.iter().any(|(group, _)| *group == ParamGroup::Smear);
            assert_eq!(has_smear, recipe.model.smear);
            assert_eq!(gpt(&run).smear_channels.is_some(), recipe.model.smear);
        }
    }
}

/// What upstream's training script derives from its flags, over depths, horizons and batches, for every commit: batch,
/// steps, decay, the rate of each group, parameters and FLOPs.
#[test]
fn laws_are_what_upstreams_script_derives() {
    let mut commits = std::collections::BTreeSet::new();
    for row in include_str!("../../tests/fixtures/upstream/laws.jsonl").lines() {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        let commit = row["commit"].as_str().unwrap();
        commits.insert(commit.to_owned());
        let recipe = crate::upstream::find(commit).unwrap();
        let mut sets = vec![
            format!("upstream.commit={commit}"),
            format!("data.vocab_size={}", row["vocab_size"]),
            format!("budget.param_data_ratio={}", recipe.schedule.param_data_ratio),
        ];
        for (flag, value) in row["flags"].as_object().unwrap() {
            let path = match flag.as_str() {
                "depth" => "model.depth",
                "aspect_ratio" => "model.aspect_ratio",
                "head_dim" => "model.head_dim",
                "max_seq_len" => "model.sequence_len",
                "target_param_data_ratio" => "budget.param_data_ratio",
                "num_iterations" => "budget.steps",
                "target_flops" => "budget.flops",
                "total_batch_size" => "train.total_batch_size",
                other => panic!("{other}"),
            };
            if path.starts_with("budget") {
                sets.retain(|set| !set.starts_with("budget"));
            }
            sets.push(format!("{path}={value}"));
        }
        let run = run(&sets.iter().map(String::as_str).collect::<Vec<_>>());
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let near = |what: &str, value: f64, expected: &serde_json::Value| {
            let expected = number(expected);
            assert!((value / expected - 1.0).abs() < 1e-14, "{what}: {value} for {expected}, {row}");
        };
        assert_eq!(
            run.config.batch.total_batch_size as u64,
            row["total_batch_size"].as_u64().unwrap(),
            "{row}"
        );
        assert_eq!(run.sizes.steps, row["num_iterations"].as_u64().unwrap(), "{row}");
        assert_eq!(run.sizes.params.scaling(), row["scaling_params"].as_u64().unwrap(), "{row}");
        assert_eq!(run.sizes.flops_per_token, row["flops_per_token"].as_u64().unwrap(), "{row}");
        near("decay", run.config.schedule.weight_decay, &row["weight_decay"]);
        let mut rates = row["lr"].as_object().unwrap().clone();
        for (group, config) in &run.config.optimizer.groups {
            let lr = match config {
                GroupConfig::Adamw(adamw) => adamw.lr,
                GroupConfig::Muon(muon) => muon.lr,
                GroupConfig::Sgd(sgd) => sgd.lr,
            };
            let name = match group {
                ParamGroup::LmHead => "unembedding",
                ParamGroup::Wte => "embedding",
                ParamGroup::ValueEmbeds => "value_embeds",
                ParamGroup::Resid => "resid",
                ParamGroup::X0 => "x0",
                ParamGroup::Smear => "smear",
                ParamGroup::Matrix => "matrix",
            };
            near(name, lr, &rates.remove(name).unwrap());
        }
        assert!(rates.is_empty(), "upstream has groups of its own: {rates:?}");
    }
    assert_eq!(commits.len(), RECIPES.len());
}

/// The parity cases state the rates that upstream's optimizer was given: before width, with the batch factor.
#[test]
fn rates_of_the_parity_cases() {
    for case in include_str!("../../tests/fixtures/upstream/schedules.jsonl").lines() {
        let case: serde_json::Value = serde_json::from_str(case).unwrap();
        let model = &case["model_config"];
        let (dim, heads) = (model["n_embd"].as_u64().unwrap(), model["n_head"].as_u64().unwrap());
        let (depth, len) = (model["n_layer"].as_u64().unwrap(), model["sequence_len"].as_u64().unwrap());
        let rows = case["device_batch_size"].as_u64().unwrap();
        let total = rows * len * case["grad_accum_steps"].as_u64().unwrap();
        let sets = [
            format!("upstream.commit={}", case["commit"].as_str().unwrap()),
            format!("model.depth={depth}"),
            format!("model.head_dim={}", dim / heads),
            format!("model.aspect_ratio={}", dim / depth),
            format!("model.sequence_len={len}"),
            format!("train.device_batch_size={rows}"),
            format!("train.total_batch_size={total}"),
            format!("data.vocab_size={}", model["vocab_size"]),
            format!("budget.steps={}", case["num_iterations"]),
            format!("schedule.warmup_steps={}", case["warmup_steps"]),
            "optimizer.width_lr_scaling=false".to_owned(),
            "optimizer.weight_decay_law=constant".to_owned(),
        ];
        let run = run(&sets.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(gpt(&run).n_embd as u64, dim);
        let expected = |name: &str| case["optimizer"][name].as_f64().unwrap();
        for (group, config) in &run.config.optimizer.groups {
            let (lr, name) = match (group, config) {
                (ParamGroup::LmHead, GroupConfig::Adamw(adamw)) => (adamw.lr, "unembedding_lr"),
                (ParamGroup::Wte, GroupConfig::Adamw(adamw)) => (adamw.lr, "embedding_lr"),
                (ParamGroup::X0, GroupConfig::Adamw(adamw)) => (adamw.lr, "scalar_lr"),
                (ParamGroup::Matrix, GroupConfig::Muon(muon)) => (muon.lr, "matrix_lr"),
                _ => continue,
            };
            assert!((lr / expected(name) - 1.0).abs() < 1e-15, "{name}: {lr}");
        }
        assert_eq!(run.config.schedule.weight_decay, expected("weight_decay"));
        let warmdown = case["warmdown_ratio"].as_f64().unwrap() * run.sizes.steps as f64;
        assert_eq!(run.config.schedule.warmdown_steps, warmdown.round_ties_even() as u64);
    }
}

#[test]
fn precisions_follow_the_commit_and_the_run() {
    let precisions = |commit: &str, precision: &str| {
        let set = format!("upstream.commit={commit}");
        let precision = format!("run.precision={precision}");
        let run = run(&[&set, "run.backend=tch", &precision, "model.depth=4"]);
        let rotary = gpt(&run).rotary_precision;
        let muon = run.config.optimizer.groups.iter().find_map(|(_, group)| match group {
            GroupConfig::Muon(muon) => Some((muon.polar_precision, muon.update_precision)),
            _ => None,
        });
        let (polar, update) = muon.unwrap();
        [rotary, polar, update]
    };
    assert_eq!(precisions("324e69c", "f32"), [Bf16, Bf16, Bf16]);
    assert_eq!(precisions("6ed7d1d", "f32"), [F32, Bf16, Bf16]);
    assert_eq!(precisions("4e014d3", "f32"), [F32, F32, F32]);
    assert_eq!(precisions("4e014d3", "bf16"), [Bf16, Bf16, Bf16]);
    assert_eq!(precisions("92d63d4", "bf16"), [Bf16, Bf16, F32]);
}

#[test]
fn budgets() {
    let steps = |set: &str| run(&["model.depth=12", set]).sizes.steps;
    assert_eq!(steps("budget.param_data_ratio=10.5"), 2205);
    assert_eq!(steps("budget.tokens=1100000"), 2);
    assert_eq!(steps("budget.flops=1e15"), {
        let per_step = run(&["model.depth=12"]).sizes.flops_per_token as f64 * 524_288.0;
        (1e15 / per_step).round_ties_even() as u64
    });
}

#[test]
fn small_models_train_on_a_document_a_step() {
    let plan = experiment("microgpt.toml", &options(Some("scalar"), &[]));
    let config = &plan.runs[0].config;
    assert_eq!(config.backend.kind, BackendKind::Scalar);
    assert_eq!((config.batch.device_batch_size, config.batch.grad_accum_steps), (1, 1));
    assert_eq!(config.data.packing, run_config::Packing::Document);
    let GroupConfig::Adamw(adamw) = &config.optimizer.groups[0].1 else { panic!() };
    assert_eq!((adamw.lr, adamw.beta1, adamw.beta2), (0.01, 0.9, 0.95));
    assert_eq!(config.schedule.warmdown_steps, config.schedule.num_iterations);
}

#[test]
fn human_plan_of_d12() {
    let plan = experiment("d12_sqrt.toml", &options(None, &[]));
    let speed = Speed::of_training(2e14, "recorded on 2026-01-31".to_owned());
    let statuses = [RunStatus::Done, RunStatus::Resumes { step: 500 }];
    let view = View { plan: &plan, statuses: &statuses, speed: Some(&speed) };
    insta::assert_snapshot!(view.human());
    assert_eq!(view.json()["runs"][1]["status"], "resumes");
    assert_eq!(view.json()["prefixes"]["runs"], 6);
}

#[test]
fn human_plan_of_ci() {
    let plan = experiment("ci.toml", &options(None, &[]));
    let view = View { plan: &plan, statuses: &[], speed: None };
    insta::assert_snapshot!(view.human());
}

#[test]
fn known_data_settle_the_keys() {
    let with_data = planned(&["model.depth=4"], &here()).unwrap();
    assert!(!with_data.runs[0].key.pending);
    // Paths do not matter once contents are known.
    let elsewhere = planned(&["model.depth=4", "data.shards=elsewhere", "name=other"], &here()).unwrap();
    assert_eq!(with_data.runs[0].key, elsewhere.runs[0].key);
    let declared = planned(&["model.depth=4", "data.vocab_size=1000"], &here());
    assert!(declared.unwrap_err().to_string().contains("declares 1000"));
}

#[test]
fn bad_input() {
    let mut all = String::new();
    for (title, sets) in [
        ("batch not divisible", &["train.total_batch_size=100000"][..]),
        ("rows too many", &["train.total_batch_size=16384", "model.sequence_len=1024"]),
        ("rows that divide nothing", &["train.device_batch_size=3", "model.depth=4"]),
        ("odd head size", &["model.head_dim=33"]),
        ("n_kv_head that does not divide", &["model.n_kv_head=3", "model.depth=20"]),
        ("gate wider than the model", &["model.depth=1", "model.aspect_ratio=8", "model.head_dim=8"]),
        ("vocabulary below 265", &["data.vocab_size=200"]),
        ("vocabulary unknown", &["data.tokenizer.path=elsewhere"]),
        ("budget below a step", &["budget.tokens=1000"]),
        ("budget without end", &["budget.flops=1e300"]),
        ("evaluation below a batch", &["eval.tokens=100"]),
        ("heads of a microgpt", &["model.kind=microgpt", "model.n_head=3"]),
        ("initial weights that are not there", &["model.init.file=nowhere.safetensors", "model.depth=4"]),
    ] {
        let error = planned(sets, &NoData).unwrap_err();
        assert_eq!(error.class().exit_code(), 2);
        all.extend(["## ", title, "\n", &error.to_string(), "\n\n"]);
    }
    let text = format!(
        "{BASE}[scorecard.control]\n\"schedule.warmdown\" = \"cosine\"\n[matrix]\n\"schedule.warmdown\" = [\"linear\", \"sqrt\"]\n"
    );
    let manifest = Manifest::parse(Path::new("t.toml"), &text, &options(None, &[])).unwrap();
    all.extend(["## no control\n", &plan(&manifest, &NoData).unwrap_err().to_string(), "\n"]);
    insta::assert_snapshot!(all);
}

/// Suggested sizes are right ones.
#[test]
fn suggested_batches_fit() {
    let error = planned(&["train.total_batch_size=16384", "model.sequence_len=1024"], &NoData).unwrap_err();
    assert!(error.to_string().contains("device_batch_size = 16"), "{error}");
    let fits = ["train.total_batch_size=16384", "model.sequence_len=1024", "train.device_batch_size=16"];
    assert_eq!(run(&fits).config.batch.grad_accum_steps, 1);
}

/// Ranks divide a step as micro-batches do, and evaluations.
#[test]
fn ranks_divide_steps_and_evaluations() {
    let of = |ranks: usize| {
        let ranks = format!("run.ranks={ranks}");
        run(&[
            "train.total_batch_size=524288",
            "train.device_batch_size=8",
            "model.sequence_len=1024",
            &ranks,
        ])
    };
    let (one, eight) = (of(1), of(8));
    assert_eq!((one.config.batch.grad_accum_steps, one.config.turn()), (64, 64));
    assert_eq!((eight.config.batch.grad_accum_steps, eight.config.turn()), (64, 8));
    assert_eq!(eight.config.rows_of_rank(), 64);
    assert_eq!(eight.config.eval_turn() * 8, one.config.eval_turn());
    assert_eq!(
        one.key.start,
        run(&["train.total_batch_size=524288", "train.device_batch_size=8", "model.sequence_len=1024",])
            .key
            .start
    );
    let evaluation = |run: &PlannedRun| Evaluation::of(&run.config).digest();
    assert_ne!(evaluation(&one), evaluation(&eight));
    // A data seed moves no row of the validation split.
    let permuted = run(&["data.seed=3"]);
    assert_eq!(evaluation(&permuted), evaluation(&run(&[])));
    // `run` is the value of run.seed, not a word of its own.
    assert_eq!(run(&["data.seed=run"]).key.start, run(&["data.seed=1"]).key.start);
}

#[test]
fn what_ranks_do_not_divide_is_refused() {
    let errors = [
        &[
            "train.total_batch_size=65536",
            "train.device_batch_size=8",
            "model.sequence_len=1024",
            "run.ranks=3",
        ][..],
        &["eval.tokens=65536", "run.ranks=8"],
        &["run.ranks=0"],
        &["data.seed=-1"],
    ]
    .map(|sets| planned(sets, &NoData).unwrap_err().to_string());
    insta::assert_snapshot!(errors.join("\n\n"));
}

/// Overrides of which each decides numbers that do not change over steps.
const DECIDING: &[&str] = &[
    "run.seed=2",
    "run.backend=scalar",
    "model.depth=3",
    "model.head_dim=64",
    "model.window_pattern=L",
    "model.rope_base=5000",
    "model.qk_scale=false",
    "model.softcap=false",
    "model.softcap=20",
    "model.value_embeds=false",
    "model.ve_gate_scale=2",
    "model.smear=false",
    "model.backout=false",
    "model.norm_eps=1e-6",
    "model.init_wte_std=1",
    "model.init_x0_lambda_fall=0",
    "model.init.file=a.safetensors",
    "model.rotary_precision=bf16",
    "optimizer.kind=adamw",
    "optimizer.kind=sgd",
    "optimizer.matrix_lr=0.03",
    "optimizer.embedding_betas=[0.8, 0.99]",
    "optimizer.smear_lr=0.1",
    "optimizer.eps=1e-8",
    "optimizer.ns_steps=4",
    "optimizer.polar_precision=bf16",
    "optimizer.update_precision=bf16",
    "optimizer.row_equilibration=false",
    "train.device_batch_size=16",
    "train.total_batch_size=65536",
    "data.packing=document",
    "data.document=line",
    "run.ranks=2",
    "data.seed=0",
    "data.seed=run",
];

/// Overrides that change schedules alone.
const SCHEDULES: &[&str] = &[
    "schedule.warmdown=sqrt",
    "schedule.warmdown_ratio=0.3",
    "schedule.warmup_steps=3",
    "schedule.final_lr_frac=0.0500001",
    "schedule.momentum_peak=0.96",
    "schedule.weight_decay_shape=linear",
    "optimizer.weight_decay=0.1",
];

/// Overrides that decide no number of the training.
const IDLE: &[&str] = &[
    "name=other",
    "question=why",
    "run.threads=3",
    "data.shards=elsewhere",
    "eval.every=7",
    "eval.tokens=262144",
    "eval.max_drift_bytes=1",
    "checkpoint.every=3",
    "checkpoint.keep=2",
    "checkpoint.minutes=0",
    "checkpoint.minutes=false",
    "data.token_bytes=decoded",
    "run.device=cuda:1",
];

fn key(sets: &[&str]) -> RunKey {
    let short =
        ["model.depth=4", "budget.steps=30", "schedule.warmup_steps=5", "train.total_batch_size=131072"];
    let sets: Vec<&str> = short.iter().chain(sets).copied().collect();
    planned(&sets, &here()).unwrap_or_else(|error| panic!("{error}")).runs[0].key
}

#[test]
fn what_decides_the_numbers_decides_the_key() {
    let base = key(&[]);
    let mut seen = vec![base];
    for set in DECIDING {
        let key = key(&[set]);
        assert!(seen.iter().all(|other| other.start != key.start), "{set}");
        seen.push(key);
    }
    for set in SCHEDULES {
        let key = key(&[set]);
        assert_eq!(key.start, base.start, "{set}");
        assert!(seen.iter().all(|other| other.run != key.run), "{set}");
        seen.push(key);
    }
    for set in IDLE {
        assert_eq!(key(&[set]), base, "{set}");
    }
    // The commit itself is no number: 4e014d3 and 92d63d4 compute the same in float32.
    assert_eq!(key(&["upstream.commit=4e014d3"]), base);
}

#[test]
fn evaluation_settings_have_a_key_of_their_own() {
    let eval = |set: &str| Evaluation::of(&run(&["model.depth=4", set]).config).digest();
    assert_eq!(eval("eval.every=3"), eval("eval.every=4"));
    assert_ne!(eval("eval.tokens=65536"), eval("eval.tokens=131072"));
    assert_ne!(eval("data.token_bytes=raw"), eval("data.token_bytes=decoded"));
}

#[test]
fn weights_from_a_file_are_known_by_content() {
    let run = planned(&["model.depth=4", "model.init.file=a"], &here()).unwrap().runs.remove(0);
    assert_eq!(run.config.init, InitSource::File { path: "a".to_owned(), sha256: Digest::of(b"a") });
}

/// Without Muon, decay and momentum are not consumed, so the horizon does not part runs before the warmdown.
#[test]
fn runs_of_other_horizons_share_what_they_can() {
    let text = format!("{BASE}[matrix]\n\"budget.steps\" = [100, 200]\n");
    let sets = ["optimizer.kind=adamw", "model.depth=4", "schedule.warmup_steps=0"];
    let manifest = Manifest::parse(Path::new("t.toml"), &text, &options(None, &sets)).unwrap();
    let plan = plan(&manifest, &here()).unwrap();
    // Warm-down 0.65: steps 0 to 35 of the shorter run are at full rate.
    assert_eq!(plan.prefixes.roots.len(), 1);
    assert_eq!(plan.prefixes.roots[0].end, 36);
    assert_eq!(plan.prefixes.roots[0].steps(), 36 + 64 + 164);
    assert_eq!(plan.prefixes.saving(), "2 runs, 1.76 runs of work");
}

/// Runs that share, by the forest: the steps two runs have in common.
fn shared(node: &prefix::PrefixNode, a: usize, b: usize) -> u64 {
    if !(node.runs.contains(&a) && node.runs.contains(&b)) {
        return 0;
    }
    let below = node.children.iter().map(|child| shared(child, a, b)).max().unwrap_or(0);
    below.max(node.end)
}

fn schedules() -> impl Strategy<Value = Vec<String>> {
    let warmdown = prop_oneof![Just("linear"), Just("sqrt"), Just("constant")];
    (warmdown, 3_u64..25, 0_u64..4, prop_oneof![Just(0.0), Just(0.5)], 1_u64..3).prop_map(
        |(shape, steps, warmup, last, seed)| {
            vec![
                format!("schedule.warmdown={shape}"),
                format!("budget.steps={steps}"),
                format!("schedule.warmup_steps={warmup}"),
                format!("schedule.final_lr_frac={last}"),
                format!("run.seed={seed}"),
                "schedule.weight_decay_shape=constant".to_owned(),
                "schedule.momentum_warmdown_to=false".to_owned(),
                "model.depth=1".to_owned(),
            ]
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

    /// Two runs share s steps exactly when their `k[s]` are equal.
    #[test]
    fn prefixes_are_equal_links(cells in proptest::collection::vec(schedules(), 2..5)) {
        let configs: Vec<RunConfig> = cells
            .iter()
            .map(|sets| {
                let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
                planned(&sets, &here()).unwrap().runs.remove(0).config
            })
            .collect();
        let chains: Vec<KeyChain<'_>> = configs.iter().map(KeyChain::new).collect();
        let forest = PrefixForest::of_chains(&chains);
        let kept = forest.links(&chains);
        // Link by link, whatever is kept.
        let links: Vec<Vec<Digest>> = chains
            .iter()
            .map(|chain| (0..=chain.steps()).map(|step| chain.advance(chain.start(), 0, step)).collect())
            .collect();
        let donors = forest.donors(|_, _| true);
        for (a, config) in configs.iter().enumerate() {
            prop_assert_eq!(kept[a].last(), *links[a].last().unwrap());
            prop_assert_eq!(Links::of(config).last(), kept[a].last());
            // Forwards, and back and forth.
            let steps: Vec<u64> = (0..links[a].len() as u64).collect();
            let mut cursor = kept[a].cursor(config);
            for step in steps.iter().chain(steps.iter().rev()) {
                prop_assert_eq!(cursor.link(*step), Some(links[a][*step as usize]));
            }
            prop_assert_eq!(cursor.link(links[a].len() as u64), None);
            let mut forks = false;
            let mut donor: Option<(usize, u64)> = None;
            for b in 0..a {
                let together = forest.roots.iter().map(|root| shared(root, a, b)).max().unwrap_or(0);
                let equal = links[a].iter().zip(&links[b]).take_while(|(x, y)| x == y).count() as u64;
                prop_assert_eq!(together, equal.saturating_sub(1), "{} {}", a, b);
                forks |= together > 0;
                if together > donor.map_or(0, |(_, steps)| steps) {
                    donor = Some((b, together));
                }
                // Once apart, apart for good.
                prop_assert!(links[a].iter().zip(&links[b]).skip(equal as usize).all(|(x, y)| x != y));
            }
            prop_assert_eq!(forest.forks(a), forks);
            prop_assert_eq!(donors[a], donor);
        }
        // Every run is in one root, and no work is lost or gained.
        let runs: usize = forest.roots.iter().map(|root| root.runs.len()).sum();
        prop_assert_eq!(runs, configs.len());
        prop_assert!(forest.runs_of_work <= configs.len() as f64 + 1e-9);
    }

    /// Two overrides that decide numbers give two keys, alone and together.
    #[test]
    fn keys_tell_overrides_apart(a in 0..DECIDING.len(), b in 0..SCHEDULES.len(), c in 0..IDLE.len()) {
        let both = key(&[DECIDING[a], IDLE[c]]);
        prop_assert_eq!(both, key(&[DECIDING[a]]));
        prop_assert_ne!(both.run, key(&[SCHEDULES[b], IDLE[c]]).run);
    }
}

fn warnings(lines: &str, sets: &[&str]) -> Vec<String> {
    let text = format!("{BASE}\n{lines}");
    let manifest = Manifest::parse(Path::new("t.toml"), &text, &options(None, sets)).unwrap();
    plan(&manifest, &NoData).unwrap().warnings
}

/// The row "schedules that make no sense": a phase that never comes is told, and the schedule line says what happens.
#[test]
fn schedules_that_make_no_sense() {
    let of = |sets: &[&str]| warnings("", &[&["budget.steps=12"], sets].concat());
    assert_eq!(of(&["schedule.warmup_steps=4", "schedule.warmdown_ratio=0.5"]), [""; 0]);
    insta::assert_snapshot!(
        [
            of(&["schedule.warmup_steps=1000"]),
            of(&["schedule.warmup_steps=1000", "schedule.warmdown=\"constant\""]),
            of(&["schedule.warmup_steps=9", "schedule.warmdown_ratio=0.5"]),
            of(&["schedule.momentum_warmup_steps=13", "eval.every=50", "checkpoint.every=13"]),
        ]
        .concat()
        .join("\n")
    );
    let line = |sets: &[&str]| details::schedule(&run(&[&["budget.steps=12"], sets].concat()));
    assert_eq!(line(&["schedule.warmup_steps=1000"]), "rates up over all 12 steps to 0.012 of their peak");
    let cut = line(&["schedule.warmup_steps=9", "schedule.warmdown_ratio=0.5", "schedule.final_lr_frac=0"]);
    assert_eq!(cut, "rates up over 9 steps; linear down to 0 over the last 3 of 12");
}

/// The rows "arms that are one run" and "seeds that decide nothing", found before anything is trained.
#[test]
fn arms_and_seeds_that_are_one_run() {
    let matrix = |lines: &str| warnings(&format!("[matrix]\n{lines}\n"), &["schedule.warmdown=\"constant\""]);
    let apart = matrix("'model.depth' = [4, 6]\n'run.seed' = [1, 2]");
    assert_eq!(apart, [""; 0]);
    insta::assert_snapshot!(
        [
            matrix("'schedule.final_lr_frac' = [0.0, 0.1]\n'run.seed' = [1, 2]"),
            matrix("'eval.every' = [2, 4]"),
            matrix("'run.seed' = [1, 4294967297, 2]"),
        ]
        .concat()
        .join("\n")
    );
}

/// The row "plan leaves out evaluations": 20 steps take seconds, and the recipe's two evaluations of 42 million tokens
/// above an hour.
#[test]
fn plan_counts_evaluations() {
    let sets = ["model.depth=4", "model.sequence_len=512", "budget.steps=20", "train.device_batch_size=8"];
    let run = run(&[&sets[..], &["train.total_batch_size=4096"]].concat());
    let time = Speed::of_training(5e10, String::new()).time(&run);
    assert!(time.training < 120.0, "{time:?}");
    assert!(time.evaluations > 3600.0, "{time:?}");
    assert!(time.total() > time.training + time.evaluations);
    let count = |every: u64, steps: u64| {
        let mut config = run.config.clone();
        (config.eval.every, config.schedule.num_iterations) = (every, steps);
        // Counted as the step loop asks.
        let asked = (0..=steps)
            .filter(|&step| step == 0 || step == steps || (every > 0 && step.is_multiple_of(every)));
        assert_eq!(evaluations(&config), asked.count() as u64, "every {every} of {steps}");
    };
    for (every, steps) in [(0, 1), (0, 12), (5, 12), (4, 12), (12, 12), (13, 12), (1, 12), (1, 1)] {
        count(every, steps);
    }
}

/// Values of a field, as `--set` takes them, that say something else of it than one another.
fn some_values(field: &crate::manifest::field::Field) -> Vec<String> {
    use crate::manifest::field::Kind;

    const NUMBERS: &[&str] = &["0", "1", "2", "3", "4", "8", "24", "64", "128", "512", "1024", "4096"];
    const FRACTIONS: &[&str] = &["0", "0.125", "0.25", "0.5", "0.75", "0.9375", "1", "2"];

    // Horizons of any length would be hashed step by step.
    match field.path {
        "budget.flops" => return vec!["1e13".into()],
        "budget.param_data_ratio" => return vec!["0.01".into()],
        _ => {}
    }

    let within = |low: f64, high: f64, values: &[&str]| -> Vec<String> {
        let inside = |text: &&&str| (low..=high).contains(&text.parse().unwrap());
        values.iter().filter(inside).map(|&text| text.to_owned()).collect()
    };
    match field.kind {
        Kind::Bool => vec!["true".into(), "false".into()],
        Kind::Int(low, high) => within(low as f64, high as f64, NUMBERS),
        Kind::IntOr(low, high, word) => {
            [within(low as f64, high as f64, NUMBERS), vec![word.to_owned()]].concat()
        }
        Kind::Float(low, high) => within(low, high, FRACTIONS),
        Kind::FloatOrFalse(low, high) => [within(low, high, FRACTIONS), vec!["false".into()]].concat(),
        Kind::IntsOrFalse => vec!["[2, 3]".into(), "false".into()],
        Kind::Betas => vec!["[0.5, 0.25]".into()],
        Kind::Text | Kind::Name | Kind::Plain => vec!["other".into()],
        Kind::TimeLimit => vec!["12:00:00".into()],
        Kind::Memory => vec!["64G".into()],
        Kind::Options => vec!["--exclusive".into()],
        Kind::Texts => vec!["[\"other.txt\"]".into()],
        Kind::Word(words) => words.iter().map(|&word| word.to_owned()).collect(),
        Kind::WindowPattern => vec!["L".into(), "SL".into()],
        Kind::Commit => RECIPES.iter().map(|recipe| recipe.short().to_owned()).collect(),
        Kind::Device => vec!["cpu".into(), "cuda:1".into()],
        Kind::Tables(_) => Vec::new(),
        Kind::Digests => vec![format!("{{ \"a.txt\" = \"{}\" }}", "0".repeat(64))],
    }
}

/// What `manifest/effect.rs` says of every field is what keys and evaluations do: what it says decides nothing moves
/// none of them, and what it says enters one moves one, in some model under some optimizer.
#[test]
fn what_fields_are_said_to_decide_is_what_they_decide() {
    use crate::manifest::effect::{Effect, effect};
    use crate::train::evaluation::eval_settings;

    let bases: &[&[&str]] = &[
        &["run.backend=tch"],
        &["schedule.warmup_steps=4", "schedule.warmdown=sqrt", "budget.steps=64", "upstream.commit=348fbb3"],
        &["optimizer.kind=adamw"],
        &["optimizer.kind=sgd", "optimizer.lr=0.1"],
        &["model.kind=microgpt", "optimizer.kind=adamw"],
        &["model.kind=microgpt", "optimizer.kind=sgd"],
        &["model.kind=bigram"],
    ];
    let text = BASE.replace("param_data_ratio = 12", "steps = 8")
        + "[train]\ndevice_batch_size = 4\ntotal_batch_size = 2048\n[model]\nsequence_len = 64\n";
    let identity = |sets: &[&str]| {
        let manifest = Manifest::parse(Path::new("t.toml"), &text, &options(None, sets)).ok()?;
        let plan = plan(&manifest, &NoData).ok()?;
        let run = plan.runs.first()?;
        Some((run.key.run, run.sizes.steps, eval_settings(&run.config)))
    };
    let mut moves_nothing = Vec::new();
    // Keys know nothing of verdicts.
    let fields = crate::manifest::fields::all()
        .filter(|field| !field.path.starts_with("scorecard.") && !field.path.starts_with("analysis."));
    for field in fields {
        let mut moved = false;
        let mut taken = false;
        for base in bases {
            let Some(before) = identity(base) else { panic!("{base:?} does not plan") };
            for value in some_values(field) {
                let set = format!("{}={value}", field.path);
                let mut sets = [base, &[set.as_str()][..]].concat();
                if field.path.starts_with("data.tokenizer") {
                    // Another tokenizer takes the vocabulary with it that was declared.
                    sets.push("data.vocab_size=32768");
                }
                if field.path.starts_with("eval.core.") {
                    // The others are of a bundle.
                    sets.insert(base.len(), "eval.core.bundle=bundle");
                }
                let Some(after) = identity(&sets) else { continue };
                taken = true;
                moved |= after != before;
                // The declared vocabulary stands in for that of a tokenizer that is not here, and is compared once it is.
                if effect(field.path) == Some(Effect::Nothing) && field.path != "data.vocab_size" {
                    assert_eq!(after, before, "--set {set} over {base:?}");
                }
            }
        }
        assert!(taken || field.path.starts_with("model.init."), "{} was never set", field.path);
        if effect(field.path).is_some_and(Effect::varies) && !moved {
            moves_nothing.push(field.path);
        }
    }
    // What has one value alone, what eight steps never come to, and what takes a bundle that is here.
    insta::assert_snapshot!(moves_nothing.join(" "));
}
