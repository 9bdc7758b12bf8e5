//! Reading a case directory: `case.json` and the tensors beside it.
//!
//! Only the commit, the sizes and the batch are required. A section of `case.json` promises the files it is about
//! ([`promised`]); a list `files` in it says instead which there are. A promised file that is not there is an error;
//! what a case does not promise is left out of the checks, and named. A section `continued` also promises upstream's
//! own checkpoint beside it: `model_NNNNNN.pt` and `optim_NNNNNN_rank0.pt` of its `step`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::interop::safetensors::TensorFile;
use crate::interop::upstream::UpstreamCheckpoint;
use crate::model::param::ParamSpec;
use crate::ops::SequenceShape;
use crate::optim::config::StepValues;
use crate::precision::Precision;

/// The file that makes a directory a case.
const CASE_FILE: &str = "case.json";

/// Upstream's numbers for one commit and one shape.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its directory.
    pub directory: PathBuf,
    /// The directory's name.
    pub name: String,
    /// The upstream commit, as many digits as the case gives.
    pub commit: String,
    /// Model sizes.
    pub sizes: CaseSizes,
    /// What upstream computed in.
    pub precision: Precision,
    /// B, rows of a micro-batch.
    pub device_batch_size: usize,
    /// Micro-batches of an optimizer step.
    pub grad_accum_steps: usize,
    /// Seed of `train_params_init`.
    pub seed: Option<u64>,
    /// Schedule and optimizer values; there if a trajectory is.
    pub schedule: Option<CaseSchedule>,
    /// Mean loss of the forward batch, and the same with the first five targets of row 0 ignored.
    pub mean_losses: Option<[f64; 2]>,
    /// Greedy decoding with the forward parameters.
    pub greedy: Option<Greedy>,
    /// Bytes of each token id, 0 for special tokens; empty if the case has no validation.
    pub token_bytes: Vec<u32>,
    /// Trajectory from upstream's initialisation.
    pub train: Option<Trajectory>,
    /// Trajectory from the forward parameters.
    pub warm: Option<Trajectory>,
    /// Trajectory from a checkpoint of upstream's.
    pub continued: Option<Continued>,
    /// Parameters by kind; `total` is their sum.
    pub scaling_params: BTreeMap<String, u64>,
    /// FLOPs a token by upstream's formula.
    pub flops_per_token: Option<u64>,
    tensors: BTreeMap<&'static str, TensorFile>,
}

/// Model sizes of a case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CaseSizes {
    /// T.
    pub sequence_len: usize,
    /// V, not padded.
    pub vocab_size: usize,
    /// Layers.
    pub n_layer: usize,
    /// H.
    pub n_head: usize,
    /// K.
    pub n_kv_head: usize,
    /// C.
    pub n_embd: usize,
    /// `S` and `L`, tiled over the layers.
    pub window_pattern: String,
}

/// Schedule and optimizer values of a case.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CaseSchedule {
    /// N.
    pub num_iterations: u64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Steps of warm-down over N.
    pub warmdown_ratio: f64,
    /// What the learning rate falls to.
    pub final_lr_frac: f64,
    /// `sqrt(B / 2^19)`, contained in the optimizer values already.
    pub batch_lr_factor: f64,
    /// Optimizer values.
    pub optimizer: OptimizerValues,
}

/// The arguments of upstream's `setup_optimizer`, scaled for the batch, not yet for the width.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OptimizerValues {
    /// `lm_head`.
    pub unembedding_lr: f64,
    /// wte and, with the recipe's factor, value embeddings.
    pub embedding_lr: f64,
    /// x0 lambdas and, times 0.01, residual lambdas.
    pub scalar_lr: f64,
    /// Muon.
    pub matrix_lr: f64,
    /// Muon's weight decay at step 0.
    pub weight_decay: f64,
}

/// Greedy decoding.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Greedy {
    /// The prompt.
    pub prompt_ids: Vec<i32>,
    /// What upstream goes on with.
    pub output_ids: Vec<i32>,
}

/// A training trajectory.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Trajectory {
    /// Validation bits per byte before the first step.
    pub val_bpb_initial: f64,
    /// And after the last one.
    pub val_bpb_final: f64,
    /// Upstream's noise in it.
    pub val_bpb_final_noise: f64,
    /// Validation batches.
    pub val_bpb_steps: usize,
    /// Upstream's noise in the final parameters, by name, relative.
    #[serde(default)]
    pub final_param_noise: BTreeMap<String, f64>,
    /// Step by step.
    #[serde(rename = "trajectory")]
    pub steps: Vec<ReferenceStep>,
}

/// A training trajectory that goes on from a checkpoint which upstream wrote in the middle of training.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Continued {
    /// Steps before it; the checkpoint's.
    pub step: u64,
    /// What upstream did from there.
    #[serde(flatten)]
    pub trajectory: Trajectory,
}

/// A step of a trajectory.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ReferenceStep {
    /// From 0.
    pub step: u64,
    /// Mean loss of each micro-batch.
    pub micro_losses: Vec<f32>,
    /// Learning-rate multiplier.
    pub lr_multiplier: f64,
    /// Muon's momentum.
    pub muon_momentum: f64,
    /// Muon's weight decay.
    pub muon_weight_decay: f64,
    /// Upstream's noise in the losses.
    pub loss_noise: f64,
}

impl ReferenceStep {
    /// What the optimizer consumes at this step.
    pub fn values(&self) -> StepValues {
        StepValues {
            lr_multiplier: self.lr_multiplier,
            muon_momentum: self.muon_momentum,
            muon_weight_decay: self.muon_weight_decay,
        }
    }
}

/// A batch: N inputs and N targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Token ids.
    pub inputs: &'a [i32],
    /// Token ids that follow, -1 to ignore.
    pub targets: &'a [i32],
    /// B and T.
    pub sequence: SequenceShape,
}

#[derive(Deserialize)]
struct CaseJson {
    commit: String,
    dtype: Option<String>,
    model_config: CaseSizes,
    device_batch_size: usize,
    #[serde(default = "one")]
    grad_accum_steps: usize,
    seed: Option<u64>,
    forward: Option<MeanLosses>,
    greedy: Option<Greedy>,
    schedule: Option<CaseSchedule>,
    train: Option<Trajectory>,
    warm: Option<Trajectory>,
    continued: Option<Continued>,
    flops_per_token: Option<u64>,
    #[serde(default)]
    scaling_params: BTreeMap<String, u64>,
    #[serde(default)]
    token_bytes: Vec<u32>,
    files: Option<Vec<String>>,
}

fn one() -> usize {
    1
}

#[derive(Deserialize)]
struct MeanLosses {
    loss: f64,
    loss_with_first_5_targets_of_row_0_ignored: f64,
}

/// The files of a case, each `<name>.safetensors`.
const FILES: [&str; 12] = [
    "forward_params",
    "forward_grads",
    "forward_io",
    "train_params_init",
    "train_batches",
    "val_batches",
    "train_params_after_step_0",
    "train_params_final",
    "warm_params_after_step_0",
    "warm_params_final",
    "continued_batches",
    "continued_params_final",
];

/// Whether a case without a list of its files has this one.
fn promised(json: &CaseJson, name: &str) -> bool {
    let (forward, warm, train) = (json.forward.is_some(), json.warm.is_some(), json.train.is_some());
    let continued = json.continued.is_some();
    match name {
        "forward_params" => forward || warm,
        "forward_grads" | "forward_io" => forward,
        "train_batches" => warm || train,
        "val_batches" => warm || train || continued,
        _ if name.starts_with("continued") => continued,
        _ if name.starts_with("warm") => warm,
        _ => train,
    }
}

/// The cases among `directories`: those that are one, and those directly below the others, by name.
pub fn discover(directories: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in directories {
        if directory.join(CASE_FILE).is_file() {
            found.push(directory.clone());
            continue;
        }
        let unreadable =
            |source| Error::input("cannot read a directory of parity cases").file(directory).because(source);
        let mut below = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.join(CASE_FILE).is_file() {
                below.push(path);
            }
        }
        if below.is_empty() {
            return Err(Error::input("no parity case here")
                .file(directory)
                .expected("a case.json, or directories that have one"));
        }
        below.sort();
        found.extend(below);
    }
    Ok(found)
}

impl Case {
    /// Reads a case whole.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(CASE_FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| Error::input("cannot read a parity case").file(&path).because(source))?;
        let json: CaseJson = serde_json::from_str(&text).map_err(|source| {
            let line = source.line();
            Error::input("not a parity case").file(&path).line(line).because(source)
        })?;
        let precision = match json.dtype.as_deref() {
            None | Some("float32") => Precision::F32,
            Some("bfloat16") => Precision::Bf16,
            Some(other) => {
                return Err(Error::input(format!("a parity case in `{other}`"))
                    .file(&path)
                    .key("dtype")
                    .expected("float32 or bfloat16"));
            }
        };
        let name_of = |file: &str| file.strip_suffix(".safetensors").map(str::to_owned);
        if let Some(files) = &json.files {
            let known = |file: &&String| name_of(file).is_some_and(|name| FILES.contains(&name.as_str()));
            if let Some(unknown) = files.iter().find(|file| !known(file)) {
                return Err(Error::input(format!("no file of a parity case is called `{unknown}`"))
                    .file(&path)
                    .key("files")
                    .expected(format!("of {}, with .safetensors", FILES.join(", "))));
            }
        }
        let mut tensors = BTreeMap::new();
        for name in FILES {
            let listed = json
                .files
                .as_ref()
                .map(|files| files.iter().any(|file| name_of(file).as_deref() == Some(name)));
            if listed.unwrap_or_else(|| promised(&json, name)) {
                let file = directory.join(format!("{name}.safetensors"));
                if !file.is_file() {
                    return Err(Error::input("the parity case lacks a file")
                        .file(file)
                        .help("to check a part of a case, list its files as `files` in case.json"));
                }
                tensors.insert(name, TensorFile::read(&file)?);
            }
        }
        let case = Self {
            name: directory.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            directory: directory.to_owned(),
            commit: json.commit,
            sizes: json.model_config,
            precision,
            device_batch_size: json.device_batch_size,
            grad_accum_steps: json.grad_accum_steps,
            seed: json.seed,
            schedule: json.schedule,
            mean_losses: json
                .forward
                .map(|means| [means.loss, means.loss_with_first_5_targets_of_row_0_ignored]),
            greedy: json.greedy,
            token_bytes: json.token_bytes,
            train: json.train,
            warm: json.warm,
            continued: json.continued,
            scaling_params: json.scaling_params,
            flops_per_token: json.flops_per_token,
            tensors,
        };
        case.validate().map_err(|error| error.file(&path))?;
        if case.has("forward_io") {
            case.forward_batch()?;
        }
        if let Some(checkpoint) = case.checkpoint() {
            for file in checkpoint.files(true)? {
                if !file.is_file() {
                    return Err(Error::input("the parity case lacks a file").file(file));
                }
            }
        }
        Ok(case)
    }

    /// Whether the case has this file (`forward_params`, ...).
    pub fn has(&self, file: &str) -> bool {
        self.tensors.contains_key(file)
    }

    /// Upstream's checkpoint from which training goes on, where the case has one.
    pub fn checkpoint(&self) -> Option<UpstreamCheckpoint> {
        let continued = self.continued.as_ref()?;
        Some(UpstreamCheckpoint { dir: self.directory.clone(), step: continued.step })
    }

    /// Whether bits per byte can be compared.
    pub fn has_validation(&self, trajectory: &Trajectory) -> bool {
        self.has("val_batches") && !self.token_bytes.is_empty() && trajectory.val_bpb_steps > 0
    }

    fn validate(&self) -> Result<()> {
        let sizes = &self.sizes;
        let positive = [
            ("model_config.sequence_len", sizes.sequence_len),
            ("model_config.vocab_size", sizes.vocab_size),
            ("model_config.n_layer", sizes.n_layer),
            ("model_config.n_head", sizes.n_head),
            ("model_config.n_kv_head", sizes.n_kv_head),
            ("model_config.n_embd", sizes.n_embd),
            ("device_batch_size", self.device_batch_size),
            ("grad_accum_steps", self.grad_accum_steps),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::input("a size is 0").key(*key).expected("a positive number"));
        }
        let bad = |what: &str, key: &str, expected: String| {
            Err(Error::input(what.to_owned()).key(key).expected(expected))
        };
        if !sizes.n_embd.is_multiple_of(sizes.n_head) || !(sizes.n_embd / sizes.n_head).is_multiple_of(2) {
            return bad("heads do not fit", "model_config.n_embd", "n_embd = n_head * an even number".into());
        }
        if !sizes.n_head.is_multiple_of(sizes.n_kv_head) {
            return bad("heads do not fit", "model_config.n_kv_head", "a divisor of n_head".into());
        }
        let tensors = self.tensors.values().map(|file| file.names().count()).max().unwrap_or(0);
        if tensors == 0 {
            return Err(Error::input("the case has no tensors to compare with").key("files"));
        }
        // Six matrices a layer: an absurd depth is noticed before it is built. Batches alone say nothing of it.
        if sizes.n_layer > tensors.max(1000) {
            return bad("more layers than tensors", "model_config.n_layer", format!("at most {tensors}"));
        }
        let pattern = &sizes.window_pattern;
        if pattern.is_empty() || !pattern.bytes().all(|window| b"SLsl".contains(&window)) {
            return bad("unknown windows", "model_config.window_pattern", "letters S and L".into());
        }
        if !self.token_bytes.is_empty() && self.token_bytes.len() != sizes.vocab_size {
            return bad("token bytes do not fit", "token_bytes", format!("{} numbers", sizes.vocab_size));
        }
        let vocabulary = 0..sizes.vocab_size as i64;
        if let Some(greedy) = &self.greedy {
            let mut ids = greedy.prompt_ids.iter().chain(&greedy.output_ids);
            if greedy.prompt_ids.is_empty() || ids.any(|&id| !vocabulary.contains(&i64::from(id))) {
                return bad("bad prompt", "greedy", "token ids below vocab_size, at least one".into());
            }
        }
        let continued = self.continued.as_ref().map(|continued| &continued.trajectory);
        for (key, trajectory) in
            [("train", self.train.as_ref()), ("warm", self.warm.as_ref()), ("continued", continued)]
        {
            let Some(trajectory) = trajectory else { continue };
            if self.schedule.is_none() {
                return bad(
                    "a trajectory without its schedule",
                    "schedule",
                    "optimizer values and steps".into(),
                );
            }
            let steps = &trajectory.steps;
            let fits = |step: &ReferenceStep| step.micro_losses.len() == self.grad_accum_steps;
            if steps.is_empty() || !steps.iter().all(fits) {
                let expected = format!("steps of {} micro-batches", self.grad_accum_steps);
                return bad("bad trajectory", &format!("{key}.trajectory"), expected);
            }
        }
        Ok(())
    }

    /// B and T of every batch.
    pub fn sequence(&self) -> SequenceShape {
        SequenceShape { batch: self.device_batch_size, len: self.sizes.sequence_len }
    }

    /// The batch of the forward case.
    pub fn forward_batch(&self) -> Result<Batch<'_>> {
        self.batch(self.file("forward_io")?, "")
    }

    /// Its losses token by token, (N).
    pub fn token_losses(&self) -> Result<&[f32]> {
        self.file("forward_io")?.f32("token_loss", &[self.device_batch_size, self.sizes.sequence_len])
    }

    /// Logits of the last positions of every row: their number P, and (B, P, V) values.
    pub fn logits_tail(&self) -> Result<(usize, &[f32])> {
        let io = self.file("forward_io")?;
        let tail = match *io.shape("logits_tail")? {
            [_, tail, _] if tail <= self.sizes.sequence_len => tail,
            // Wrong below, where the error names both shapes.
            _ => self.sizes.sequence_len,
        };
        let shape = [self.device_batch_size, tail, self.sizes.vocab_size];
        Ok((tail, io.f32("logits_tail", &shape)?))
    }

    /// A micro-batch of a step from one of the case's files: `train_batches`, which both trajectories train on, or
    /// `continued_batches`.
    pub fn micro_batch(&self, file: &str, step: u64, micro: usize) -> Result<Batch<'_>> {
        self.batch(self.file(file)?, &format!("step{step:02}.micro{micro}."))
    }

    /// A validation batch.
    pub fn val_batch(&self, index: usize) -> Result<Batch<'_>> {
        self.batch(self.file("val_batches")?, &format!("val{index}."))
    }

    /// A tensor for each parameter, in the order of `specs`, from one of the case's files (`forward_params`, ...).
    /// A name or a shape that does not fit is an error, and so is a tensor that is no parameter.
    pub fn params(&self, file: &str, specs: &[ParamSpec]) -> Result<Vec<Vec<f32>>> {
        let file = self.file(file)?;
        if let Some(extra) = file.names().find(|name| specs.iter().all(|spec| spec.name != *name)) {
            return Err(Error::input(format!("tensor `{extra}` is no parameter of this model"))
                .file(file.path())
                .help("are commit and model_config in case.json those of the tensors?"));
        }
        specs.iter().map(|spec| file.f32(&spec.name, &spec.shape).map(<[f32]>::to_vec)).collect()
    }

    fn file(&self, name: &str) -> Result<&TensorFile> {
        let absent =
            || Error::input(format!("the parity case has no {name}.safetensors")).file(&self.directory);
        self.tensors.get(name).ok_or_else(absent)
    }

    fn batch<'a>(&self, file: &'a TensorFile, prefix: &str) -> Result<Batch<'a>> {
        let shape = [self.device_batch_size, self.sizes.sequence_len];
        let inputs = file.i32(&format!("{prefix}x"), &shape)?;
        let targets = file.i32(&format!("{prefix}y"), &shape)?;
        let vocabulary = 0..self.sizes.vocab_size as i64;
        let inside = |&id: &i32| vocabulary.contains(&i64::from(id));
        if !inputs.iter().all(inside) || !targets.iter().all(|id| *id == -1 || inside(id)) {
            return Err(Error::input(format!("batch `{prefix}x`, `{prefix}y` has ids out of range"))
                .file(file.path())
                .expected(format!("token ids below {}", self.sizes.vocab_size)));
        }
        Ok(Batch { inputs, targets, sequence: self.sequence() })
    }
}
