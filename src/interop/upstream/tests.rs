use std::path::{Path, PathBuf};

use super::*;

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nanochat_base")
}

fn described<'a>(sets: &'a [String], commit: Option<&'static str>, purpose: Purpose) -> Described<'a> {
    Described { commit, sets, tokenizer: Path::new("t"), token_bytes: None, shards: &[], purpose }
}

/// The recipe is told by what computes; what trains has to be asked for where several fit.
#[test]
fn recipes_are_told_or_asked_for() {
    let checkpoint = UpstreamCheckpoint::find(&base(), None).unwrap();
    let meta = Meta::read(&checkpoint.meta()).unwrap();
    let weights = Weights::open(&checkpoint.model()).unwrap();
    let tell = |commit, purpose| describe(&checkpoint, &meta, &weights, &described(&[], commit, purpose));
    let (_, told) = tell(None, Purpose::Evaluate).unwrap();
    assert_eq!((told.recipe.short(), told.fields.as_slice()), ("92d63d4", &[][..]));
    let asked = tell(None, Purpose::Train).unwrap_err().to_string();
    for commit in ["a825e63", "4e014d3", "92d63d4"] {
        assert!(asked.contains(commit), "{asked}");
        assert_eq!(tell(Some(commit), Purpose::Train).unwrap().1.recipe.short(), commit);
    }
    // The tensors decide what is in the model, whatever the commit is said to be.
    let (table, told) = tell(Some("2f09686"), Purpose::Evaluate).unwrap();
    assert_eq!(told.fields.len(), 3);
    assert_eq!(table["model"]["ve_gate_channels"].as_integer(), Some(12));
    assert!(table["model"]["smear"].as_bool().unwrap());
    assert!(tell(Some("1234567"), Purpose::Evaluate).is_err());
}

/// The flags that upstream noted are in the manifest, and it gives the learning rates that upstream's optimizer had.
#[test]
fn flags_are_taken_over() {
    let checkpoint = UpstreamCheckpoint::find(&base(), None).unwrap();
    let meta = Meta::read(&checkpoint.meta()).unwrap();
    let weights = Weights::open(&checkpoint.model()).unwrap();
    let (table, _) =
        describe(&checkpoint, &meta, &weights, &described(&[], Some("92d63d4"), Purpose::Train)).unwrap();
    insta::assert_snapshot!("imported_manifest", table.to_string());
}

#[test]
fn a_directory_names_its_deepest_run_and_its_last_step() {
    let place = tempfile::tempdir().unwrap();
    let touch = |name: &str| {
        let path = place.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    };
    let find = |name: &str, step| UpstreamCheckpoint::find(&place.path().join(name), step);
    assert!(!UpstreamCheckpoint::is_named_by(place.path()));
    for name in [
        "d4/model_000100.pt",
        "d12/model_000250.pt",
        "d12/model_001000.pt",
        "d12/model_latest.pt",
        "x/model_000001.pt",
    ] {
        touch(&format!("base_checkpoints/{name}"));
    }
    for name in ["", "base_checkpoints", "base_checkpoints/d12"] {
        let found = find(name, None).unwrap();
        assert_eq!((found.tag().as_str(), found.step), ("d12", 1000), "{name}");
        assert_eq!(find(name, Some(250)).unwrap().step, 250);
        assert!(UpstreamCheckpoint::is_named_by(&place.path().join(name)));
    }
    let error = find("base_checkpoints/d12", Some(7)).unwrap_err().to_string();
    assert!(error.contains("there is no model of step 7") && error.contains("250, 1000"), "{error}");
    let file = "base_checkpoints/d12/model_000250.pt";
    assert_eq!(find(file, None).unwrap().step, 250);
    assert!(find(file, Some(1000)).is_err());
    std::fs::rename(place.path().join("base_checkpoints/d4"), place.path().join("base_checkpoints/y"))
        .unwrap();
    std::fs::rename(place.path().join("base_checkpoints/d12"), place.path().join("base_checkpoints/z"))
        .unwrap();
    assert!(find("", None).unwrap_err().to_string().contains("several runs have checkpoints here"));
    touch("elsewhere/notes.txt");
    assert!(
        find("elsewhere", None)
            .unwrap_err()
            .to_string()
            .contains("there is no checkpoint of upstream's here")
    );
}

/// A checkpoint as a commit leaves it, from its parity case: parameters, sizes, and the flags of its script.
struct Case {
    place: tempfile::TempDir,
    greedy: serde_json::Value,
}

impl Case {
    /// `total` says whether the metadata name the total batch; `keep` which parameters are there.
    fn new(commit: &str, total: bool, keep: &dyn Fn(&str) -> bool) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/parity/{commit}_d3"));
        let case: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join("case.json")).unwrap()).unwrap();
        let parameters =
            crate::interop::safetensors::TensorFile::read(&dir.join("forward_params.safetensors")).unwrap();
        let names: Vec<String> =
            parameters.names().filter(|name| keep(name)).map(|name| format!("_orig_mod.{name}")).collect();
        let tensors = names.iter().map(|name| {
            let plain = name.trim_start_matches("_orig_mod.");
            let shape = parameters.shape(plain).unwrap().to_vec();
            let values = parameters.f32(plain, &shape).unwrap();
            (crate::torch_file::Saved::Str(name), crate::torch_file::Saved::Tensor(shape, values))
        });
        let value = crate::torch_file::Saved::Ordered(tensors.collect());
        let place = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(place.path().join("model_000001.pt")).unwrap();
        crate::torch_file::save(file, &value).unwrap();
        let recipe = crate::upstream::find(commit).unwrap();
        let warmup = match recipe.schedule.warmup {
            crate::upstream::WarmupRule::Ratio(_) => "warmup_ratio",
            crate::upstream::WarmupRule::Steps(_) => "warmup_steps",
        };
        let mut flags = serde_json::json!({ "target_param_data_ratio": 10.5, warmup: 0 });
        if commit != "348fbb3" {
            flags["fp8"] = false.into();
        }
        let mut meta = serde_json::json!({
            "step": 1, "model_config": case["model_config"], "user_config": flags, "device_batch_size": 1,
        });
        if total {
            meta["total_batch_size"] = 1024.into();
        }
        std::fs::write(place.path().join("meta_000001.json"), meta.to_string()).unwrap();
        Self { place, greedy: case["greedy"].clone() }
    }

    fn tell(
        &self,
        sets: &[String],
        commit: Option<&'static str>,
    ) -> crate::error::Result<(toml::Table, super::recipe::Told)> {
        let checkpoint = UpstreamCheckpoint::find(self.place.path(), None).unwrap();
        let meta = Meta::read(&checkpoint.meta()).unwrap();
        let weights = Weights::open(&checkpoint.model()).unwrap();
        describe(&checkpoint, &meta, &weights, &described(sets, commit, Purpose::Evaluate))
    }

    /// Greedy tokens by the recipe that was told.
    fn continues(&self, commit: Option<&'static str>) -> (Vec<i32>, Vec<i32>) {
        let checkpoint = UpstreamCheckpoint::find(self.place.path(), None).unwrap();
        let mut weights = Weights::open(&checkpoint.model()).unwrap();
        let (table, _) = self.tell(&[], commit).unwrap();
        let options = crate::manifest::Options::default();
        let manifest =
            crate::manifest::Manifest::parse(Path::new("m"), &table.to_string(), &options).unwrap();
        let config = crate::plan::plan(&manifest, &crate::plan::NoData).unwrap().runs.remove(0).config;
        weights.check(&crate::model::specs::specs(&config.model)).unwrap();
        let mut read = |spec: &crate::model::param::ParamSpec| weights.values(spec);
        let mut engine =
            crate::run::engine::inference_engine(&config.model, &config.backend, 1, &mut read).unwrap();
        let ids = |name: &str| -> Vec<i32> {
            self.greedy[name].as_array().unwrap().iter().map(|id| id.as_i64().unwrap() as i32).collect()
        };
        let (prompt, expected) = (ids("prompt_ids"), ids("output_ids"));
        let new = expected.len();
        let mut prefix = crate::generate::Prefix::feed(engine.as_mut(), &prompt, 4096, new, 1).unwrap();
        let sampling = crate::generate::Sampling::GREEDY;
        let draw = crate::generate::Draw { max_tokens: new, stops: &[], sampling, seed: 0 };
        let found = prefix.continuation(&draw, &mut |_| true).unwrap();
        (found, expected)
    }
}

/// Checkpoints of every commit with a model of its own are told by their tensors and metadata, and compute what upstream
/// computed; where several commits fit that compute differently, it is asked for.
#[test]
fn checkpoints_of_every_age_are_told() {
    let all = |_: &str| true;
    for (commit, told, total) in [
        ("348fbb3", "348fbb3", false),
        ("2f09686", "2f09686", false),
        ("6ed7d1d", "6ed7d1d", true),
        ("4e014d3", "92d63d4", true),
        ("92d63d4", "92d63d4", true),
    ] {
        let case = Case::new(commit, total, &all);
        assert_eq!(case.tell(&[], None).unwrap().1.recipe.short(), told, "{commit}");
        let (found, expected) = case.continues(None);
        assert_eq!(found, expected, "{commit}");
    }
    // Between 2f09686 and 324e69c the softcap changed, which nothing in the files shows.
    let case = Case::new("324e69c", true, &all);
    let asked = case.tell(&[], None).unwrap_err().to_string();
    assert!(asked.contains("model.softcap is 15 by 2f09686, 20 by 324e69c"), "{asked}");
    assert_eq!(case.tell(&["model.softcap=20".to_owned()], None).unwrap().1.recipe.short(), "324e69c");
    let (found, expected) = case.continues(Some("324e69c"));
    assert_eq!(found, expected);
    // From before value embeddings and lambdas: what was not there is filled in as upstream's own loader does.
    let old =
        |name: &str| !name.contains("ve_gate") && !name.contains("value_embeds") && !name.contains("lambdas");
    let case = Case::new("348fbb3", false, &old);
    let (table, told) = case.tell(&[], None).unwrap();
    assert_eq!(told.recipe.short(), "348fbb3");
    assert_eq!(table["model"]["value_embeds"].as_bool(), Some(false));
    let checkpoint = UpstreamCheckpoint::find(case.place.path(), None).unwrap();
    let mut weights = Weights::open(&checkpoint.model()).unwrap();
    let spec = |name: &str| crate::model::param::ParamSpec {
        name: name.to_owned(),
        shape: vec![3],
        group: crate::model::param::ParamGroup::Resid,
        init: crate::model::param::Init::Constant(0.5),
        draw_order: 0,
    };
    assert_eq!(weights.values(&spec("resid_lambdas")).unwrap(), [1.0; 3]);
    assert_eq!(weights.values(&spec("x0_lambdas")).unwrap(), [0.0; 3]);
    assert!(weights.values(&spec("smear_lambda")).is_err());
}
