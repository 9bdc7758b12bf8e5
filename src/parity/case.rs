//! Reading a case directory: `case.json` and the tensors beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::interop::safetensors::TensorFile;
use crate::model::param::ParamSpec;
use crate::ops::SequenceShape;
use crate::optim::config::StepValues;

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
    /// B, rows of a micro-batch.
    pub device_batch_size: usize,
    /// Micro-batches of an optimizer step.
    pub grad_accum_steps: usize,
    /// Seed of `train_params_init`.
    pub seed: u64,
    /// Schedule and optimizer values.
    pub schedule: CaseSchedule,
    /// Mean loss of the forward batch, and the same with the first five targets of row 0 ignored.
    pub mean_losses: [f64; 2],
    /// Greedy decoding with the forward parameters.
    pub greedy: Greedy,
    /// Bytes of each token id; 0 for special tokens.
    pub token_bytes: Vec<u32>,
    /// Trajectory from upstream's initialisation.
    pub train: Trajectory,
    /// Trajectory from the forward parameters.
    pub warm: Trajectory,
    /// Parameters by kind; `total` is their sum.
    pub scaling_params: BTreeMap<String, u64>,
    /// FLOPs a token by upstream's formula.
    pub flops_per_token: u64,
    forward_io: TensorFile,
    train_batches: TensorFile,
    val_batches: TensorFile,
    params: BTreeMap<&'static str, TensorFile>,
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
    pub final_param_noise: BTreeMap<String, f64>,
    /// Step by step.
    #[serde(rename = "trajectory")]
    pub steps: Vec<ReferenceStep>,
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
    model_config: CaseSizes,
    device_batch_size: usize,
    grad_accum_steps: usize,
    seed: u64,
    forward: MeanLosses,
    greedy: Greedy,
    schedule: CaseSchedule,
    train: Trajectory,
    warm: Trajectory,
    flops_per_token: u64,
    scaling_params: BTreeMap<String, u64>,
    token_bytes: Vec<u32>,
}

#[derive(Deserialize)]
struct MeanLosses {
    loss: f64,
    loss_with_first_5_targets_of_row_0_ignored: f64,
}

/// Files with a tensor for each parameter.
const PARAM_FILES: [&str; 7] = [
    "forward_params",
    "forward_grads",
    "train_params_init",
    "train_params_after_step_0",
    "train_params_final",
    "warm_params_after_step_0",
    "warm_params_final",
];

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
        let tensors = |name: &str| TensorFile::read(&directory.join(format!("{name}.safetensors")));
        let mut params = BTreeMap::new();
        for name in PARAM_FILES {
            params.insert(name, tensors(name)?);
        }
        let case = Self {
            name: directory.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            directory: directory.to_owned(),
            commit: json.commit,
            sizes: json.model_config,
            device_batch_size: json.device_batch_size,
            grad_accum_steps: json.grad_accum_steps,
            seed: json.seed,
            schedule: json.schedule,
            mean_losses: [json.forward.loss, json.forward.loss_with_first_5_targets_of_row_0_ignored],
            greedy: json.greedy,
            token_bytes: json.token_bytes,
            train: json.train,
            warm: json.warm,
            scaling_params: json.scaling_params,
            flops_per_token: json.flops_per_token,
            forward_io: tensors("forward_io")?,
            train_batches: tensors("train_batches")?,
            val_batches: tensors("val_batches")?,
            params,
        };
        case.validate().map_err(|error| error.file(&path))?;
        case.forward_batch()?;
        Ok(case)
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
        let tensors = self.params.values().map(|file| file.names().count()).max().unwrap_or(0);
        if sizes.n_layer > tensors {
            return bad("more layers than tensors", "model_config.n_layer", format!("at most {tensors}"));
        }
        let pattern = &sizes.window_pattern;
        if pattern.is_empty() || !pattern.bytes().all(|window| b"SLsl".contains(&window)) {
            return bad("unknown windows", "model_config.window_pattern", "letters S and L".into());
        }
        if self.token_bytes.len() != sizes.vocab_size {
            return bad("token bytes do not fit", "token_bytes", format!("{} numbers", sizes.vocab_size));
        }
        let vocabulary = 0..sizes.vocab_size as i64;
        let ids = self.greedy.prompt_ids.iter().chain(&self.greedy.output_ids);
        if self.greedy.prompt_ids.is_empty()
            || ids.into_iter().any(|&id| !vocabulary.contains(&i64::from(id)))
        {
            return bad("bad prompt", "greedy", "token ids below vocab_size, at least one".into());
        }
        for (key, trajectory) in [("train", &self.train), ("warm", &self.warm)] {
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
        self.batch(&self.forward_io, "")
    }

    /// Its losses token by token, (N).
    pub fn token_losses(&self) -> Result<&[f32]> {
        self.forward_io.f32("token_loss", &[self.device_batch_size, self.sizes.sequence_len])
    }

    /// Logits of the last positions of every row: their number P, and (B, P, V) values.
    pub fn logits_tail(&self) -> Result<(usize, &[f32])> {
        let tail = match *self.forward_io.shape("logits_tail")? {
            [_, tail, _] if tail <= self.sizes.sequence_len => tail,
            // Wrong below, where the error names both shapes.
            _ => self.sizes.sequence_len,
        };
        let shape = [self.device_batch_size, tail, self.sizes.vocab_size];
        Ok((tail, self.forward_io.f32("logits_tail", &shape)?))
    }

    /// A micro-batch of a step; both trajectories train on the same ones.
    pub fn train_batch(&self, step: u64, micro: usize) -> Result<Batch<'_>> {
        self.batch(&self.train_batches, &format!("step{step:02}.micro{micro}."))
    }

    /// A validation batch.
    pub fn val_batch(&self, index: usize) -> Result<Batch<'_>> {
        self.batch(&self.val_batches, &format!("val{index}."))
    }

    /// A tensor for each parameter, in the order of `specs`, from one of the case's files (`forward_params`, ...).
    /// A name or a shape that does not fit is an error, and so is a tensor that is no parameter.
    pub fn params(&self, file: &'static str, specs: &[ParamSpec]) -> Result<Vec<Vec<f32>>> {
        let file = self
            .params
            .get(file)
            .ok_or_else(|| Error::internal(format!("parity cases have no parameters `{file}`")))?;
        if let Some(extra) = file.names().find(|name| specs.iter().all(|spec| spec.name != *name)) {
            return Err(Error::input(format!("tensor `{extra}` is no parameter of this model"))
                .file(file.path())
                .help("are commit and model_config in case.json those of the tensors?"));
        }
        specs.iter().map(|spec| file.f32(&spec.name, &spec.shape).map(<[f32]>::to_vec)).collect()
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
