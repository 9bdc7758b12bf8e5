//! One cell of the matrix, settled in the manifest's own terms: every field has a value, nothing is derived yet.

use serde::{Deserialize, Serialize};

use super::cluster::ClusterSettings;
use crate::precision::Precision;
use crate::upstream::{PrecisionRule, ShortWindow, TokenBytesRule, WeightDecayLaw, WeightDecayShape};

/// A settled cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// `[upstream]`.
    pub upstream: UpstreamSettings,
    /// `[run]`.
    pub run: RunSettings,
    /// `[budget]`.
    pub budget: Budget,
    /// `[schedule]`.
    pub schedule: ScheduleSettings,
    /// `[train]`.
    pub train: TrainSettings,
    /// `[model]`.
    pub model: ModelSettings,
    /// `[optimizer]`.
    pub optimizer: OptimizerSettings,
    /// `[data]`.
    pub data: DataSettings,
    /// `[eval]`.
    pub eval: EvalSettings,
    /// `[checkpoint]`.
    pub checkpoint: CheckpointSettings,
}

/// `[upstream]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamSettings {
    /// Whose recipe.
    pub repo: String,
    /// All 40 digits.
    pub commit: String,
}

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSettings {
    /// Seed of initial weights and sampling.
    pub seed: u64,
    /// Ranks of upstream's whose rows are trained on.
    pub ranks: usize,
    /// Which ops.
    pub backend: BackendKind,
    /// `cpu` or `cuda:N`, of the tch backend.
    pub device: String,
    /// Compute precision.
    pub precision: Precision,
    /// Threads, none for all cores.
    pub threads: Option<usize>,
    /// Whether runs that will not fit are refused.
    pub preflight: bool,
}

/// `[budget]`: exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Optimizer steps.
    Steps(u64),
    /// Tokens.
    Tokens(u64),
    /// FLOPs by upstream's formula.
    Flops(f64),
    /// Tokens a scaling parameter.
    ParamDataRatio(f64),
}

/// `[schedule]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleSettings {
    /// Shape of the warm-down.
    pub warmdown: Warmdown,
    /// Its length.
    pub warmdown_ratio: f64,
    /// LR warm-up in steps.
    pub warmup_steps: Option<u64>,
    /// Or as a fraction of all steps.
    pub warmup_ratio: Option<f64>,
    /// What the multiplier approaches.
    pub final_lr_frac: f64,
    /// Momentum at step 0.
    pub momentum_start: f64,
    /// Momentum after its warm-up.
    pub momentum_peak: f64,
    /// Steps of its warm-up.
    pub momentum_warmup_steps: u64,
    /// What it falls to.
    pub momentum_warmdown_to: Switch,
    /// Shape of Muon's decay.
    pub weight_decay_shape: WeightDecayShape,
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// Rows of a micro-batch.
    pub device_batch_size: DeviceBatch,
    /// Tokens of a step.
    pub total_batch_size: TotalBatch,
}

/// Rows of a micro-batch, or the most that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DeviceBatch {
    /// In rows.
    Rows(usize),
    /// Found by search on the device.
    Auto(AutoWord),
}

impl DeviceBatch {
    /// The rows, once they are known.
    pub fn rows(self) -> Option<usize> {
        match self {
            Self::Rows(rows) => Some(rows),
            Self::Auto(_) => None,
        }
    }
}

/// Tokens of a step, or upstream's law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TotalBatch {
    /// In tokens.
    Tokens(u64),
    /// From the horizon.
    Auto(AutoWord),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoWord {
    /// `auto`.
    Auto,
}

/// What permutes the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DataSeed {
    /// A seed of its own.
    Seed(u64),
    /// Whatever `run.seed` is.
    Run(RunWord),
}

/// The word `run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunWord {
    /// `run`.
    Run,
}

/// A number, or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Switch {
    /// Switched off.
    Off(bool),
    /// Switched on with this value.
    On(f64),
}

impl Default for Switch {
    fn default() -> Self {
        Self::Off(false)
    }
}

impl Switch {
    /// The value where it is on.
    pub fn value(self) -> Option<f64> {
        match self {
            Self::Off(_) => None,
            Self::On(value) => Some(value),
        }
    }
}

/// One of `scorecard.quality.also`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlsoSettings {
    /// What is compared.
    pub metric: QualityMetric,
    /// How much worse still passes.
    pub margin: f64,
    /// The standard deviation of one run, where it is assumed.
    pub sigma: Option<f64>,
}

/// One of `scorecard.target`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetSettings {
    /// Whose rule fills in the rest.
    pub rule: Option<TargetRule>,
    /// What is held against it.
    pub metric: Option<QualityMetric>,
    /// The mean is to be at most this.
    pub at_most: Option<f64>,
    /// Or at least this.
    pub at_least: Option<f64>,
    /// One-sided level.
    pub p: Option<f64>,
    /// The standard deviation of one run, where it is assumed.
    pub sigma: Option<f64>,
}

/// Numbers of seeds, or `false`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LookSeeds {
    /// There are no looks before the end.
    Off(bool),
    /// After so many each.
    After(Vec<u32>),
}

impl Default for LookSeeds {
    fn default() -> Self {
        Self::Off(false)
    }
}

/// `[model]`. A kind reads the fields it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "every field is described in the manifest's field table under the same name")]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a manifest")]
pub struct ModelSettings {
    pub kind: ModelKind,
    pub depth: usize,
    pub sequence_len: usize,
    pub aspect_ratio: usize,
    pub head_dim: usize,
    pub n_kv_head: Option<usize>,
    pub window_pattern: String,
    pub short_window: ShortWindow,
    pub rope_base: f64,
    pub rotary_precision: PrecisionRule,
    pub qk_scale: Switch,
    pub softcap: Switch,
    pub value_embeds: bool,
    pub ve_gate_channels: usize,
    pub ve_gate_scale: f64,
    pub smear: bool,
    pub smear_channels: usize,
    pub backout: bool,
    pub n_embd: usize,
    pub n_head: usize,
    pub tie_lm_head: bool,
    pub input_rmsnorm: bool,
    pub norm_eps: f64,
    pub init: InitChoice,
    pub init_std: f64,
    pub init_wte_std: f64,
    pub init_lm_head_std: f64,
    pub init_c_fc_scale: f64,
    pub init_ve_gate_max: f64,
    pub init_resid_lambda: f64,
    pub init_resid_lambda_fall: f64,
    pub init_x0_lambda: f64,
    pub init_x0_lambda_fall: f64,
    pub init_smear_gate_max: f64,
    pub init_smear_lambda: f64,
    pub init_backout_lambda: f64,
}

/// `[optimizer]`. A kind reads the fields it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "every field is described in the manifest's field table under the same name")]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a manifest")]
pub struct OptimizerSettings {
    pub kind: OptimizerKind,
    pub lr: f64,
    pub betas: (f64, f64),
    pub eps: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub weight_decay_law: WeightDecayLaw,
    pub batch_lr_scaling: bool,
    pub width_lr_scaling: bool,
    pub matrix_lr: f64,
    pub matrix_betas: (f64, f64),
    pub unembedding_lr: f64,
    pub unembedding_betas: (f64, f64),
    pub unembedding_weight_decay: f64,
    pub embedding_lr: f64,
    pub embedding_betas: (f64, f64),
    pub embedding_weight_decay: f64,
    pub value_embeds_lr_factor: f64,
    pub value_embeds_betas: (f64, f64),
    pub value_embeds_weight_decay: f64,
    pub scalar_lr: f64,
    pub resid_lr_factor: f64,
    pub resid_betas: (f64, f64),
    pub resid_weight_decay: f64,
    pub x0_betas: (f64, f64),
    pub x0_weight_decay: f64,
    pub smear_lr: f64,
    pub smear_betas: (f64, f64),
    pub smear_weight_decay: f64,
    pub muon_beta2: f64,
    pub norm_factor: f64,
    pub ns_steps: usize,
    pub row_equilibration: bool,
    pub renormalize: bool,
    pub polar_precision: PrecisionRule,
    pub update_precision: PrecisionRule,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSettings {
    /// Patterns with `~` and variables expanded, or `embedded`.
    pub shards: OneOrMany,
    /// Column of parquet shards, field of JSON lines.
    pub column: String,
    /// What becomes of rows without a text.
    pub nulls: Nulls,
    /// Name or glob of the shards that validate.
    pub validation: Option<String>,
    /// Which tokenizer.
    #[serde(with = "spelled")]
    pub tokenizer: TokenizerChoice,
    /// Permutes the row groups of the train split.
    pub seed: Option<DataSeed>,
    /// Declared vocabulary.
    pub vocab_size: Option<usize>,
    /// Pinned SHA-256 by file name, and `tokenizer`.
    pub sha256: Option<std::collections::BTreeMap<String, String>>,
    /// How text divides into documents.
    pub document: DocumentSplit,
    /// How rows are made.
    pub packing: Packing,
    /// What counts as the bytes of a token.
    pub token_bytes: TokenBytesRule,
}

/// One text or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// `[eval]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalSettings {
    /// Steps between validations.
    pub every: u64,
    /// Tokens of one.
    pub tokens: u64,
    /// Limit of the drift guard.
    pub max_drift_bytes: u64,
    /// The CORE metric.
    #[serde(default)]
    pub core: CoreSettings,
}

/// `[eval.core]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreSettings {
    /// The evaluation bundle; none measures none.
    pub bundle: Option<String>,
    /// Steps between measurements.
    pub every: u64,
    /// Examples of a task.
    pub max_per_task: Option<u64>,
}

/// `checkpoint.final`: what stays of a finished run's checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointEnd {
    /// The weights.
    #[default]
    Weights,
    /// Everything.
    All,
    /// Nothing.
    None,
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointSettings {
    /// Steps between kept ones.
    pub every: u64,
    /// How many stay.
    pub keep: usize,
    /// What stays of them in the end.
    #[serde(rename = "final")]
    pub at_end: CheckpointEnd,
    /// Minutes between those that are saved by time.
    pub minutes: Switch,
}

/// What no cell changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The experiment's name.
    pub name: String,
    /// What it asks.
    pub question: Option<String>,
    /// What is expected of it.
    #[serde(default)]
    pub hypothesis: Option<String>,
    /// How it is judged.
    pub scorecard: ScorecardSettings,
    /// What else is made of its runs.
    #[serde(default)]
    pub analysis: AnalysisSettings,
    /// Who else works on it, and what a scheduler is asked for.
    pub cluster: ClusterSettings,
}

/// `[analysis]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnalysisSettings {
    /// The scaling fit.
    #[serde(default)]
    pub scaling: ScalingSettings,
}

/// `[analysis.scaling]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingSettings {
    /// What power laws are in; none makes no fit.
    #[serde(default)]
    pub x: Option<ScalingAxis>,
    /// How arms are grouped.
    #[serde(default)]
    pub groups: ScalingGroups,
}

/// `[scorecard]` without its control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScorecardSettings {
    /// The quality verdict.
    pub quality: QualitySettings,
    /// Numbers that arms are held against.
    #[serde(default)]
    pub target: Vec<TargetSettings>,
    /// Differences between evaluations that verdicts are to compare across, by field.
    pub across: OneOrMany,
    /// The speed verdict.
    pub speed: SpeedSettings,
    /// The reproducibility verdict.
    #[serde(default)]
    pub reproducibility: ReproducibilitySettings,
}

/// `[scorecard.quality]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualitySettings {
    /// What is compared.
    pub metric: QualityMetric,
    /// How much worse still passes.
    pub margin: f64,
    /// Of the two-sided intervals whose ends decide.
    pub confidence: f64,
    /// Where the spread of differences is taken from.
    #[serde(default)]
    pub variance: QualityVariance,
    /// The standard deviation of one run, where it is assumed.
    #[serde(default)]
    pub sigma: Switch,
    /// Further metrics.
    #[serde(default)]
    pub also: Vec<AlsoSettings>,
    /// Seeds after which it is judged before all are trained.
    #[serde(default)]
    pub looks: LookSeeds,
}

/// `[scorecard.speed]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpeedSettings {
    /// Of the control's tokens a second.
    pub min_ratio: f64,
}

/// `[scorecard.reproducibility]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReproducibilitySettings {
    /// The baseline, where there is one.
    pub baseline: Option<String>,
}

/// The words a field takes, as an enum.
macro_rules! words {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }
    )+};
}

words! {
    /// `model.kind`.
    ModelKind {
        /// nanochat's GPT.
        Gpt,
        /// Karpathy's microgpt.
        Microgpt,
        /// A bigram model.
        Bigram,
    }
    /// `optimizer.kind`.
    OptimizerKind {
        /// Muon on the blocks, AdamW on the rest.
        MuonAdamw,
        /// AdamW on everything.
        Adamw,
        /// SGD on everything.
        Sgd,
    }
    /// The implementations of the ops: `run.backend`.
    BackendKind {
        /// `ndarray` matrices, `rayon` threads, kernels of its own.
        Cpu,
        /// libtorch.
        Tch,
        /// Reverse-mode differentiation over f64 scalars.
        Scalar,
    }
    /// Shape of the warm-down, `schedule.warmdown`; p is the fraction of it already done, f the final fraction.
    Warmdown {
        /// `(1 - p) + p * f`, upstream's.
        Linear,
        /// `f + (1 - f) * (1 - sqrt(p))`. arXiv 2405.18392.
        Sqrt,
        /// `f + (1 - f) * (1 + cos(pi p)) / 2`.
        Cosine,
        /// 1 throughout.
        Constant,
    }
    /// How a text file divides into documents: `data.document`.
    DocumentSplit {
        /// Blank-line separated blocks.
        Block,
        /// A document a line.
        Line,
    }
    /// What becomes of a row without a text: `data.nulls`.
    #[derive(Default)]
    Nulls {
        /// It is an error, before anything is computed.
        #[default]
        Error,
        /// It is passed over.
        Skip,
    }
    /// How rows are made: `data.packing`.
    Packing {
        /// Upstream's best-fit packing, BOS at the start of each document.
        BestFitBos,
        /// One document a row: BOS, the document, BOS; cut at the context, targets beyond the end ignored.
        Document,
    }
    /// `cluster.class`.
    #[derive(Default)]
    ClusterClass {
        /// Runs of any classes.
        #[default]
        Any,
        /// All of one.
        Same,
    }
    /// `scorecard.quality.variance`.
    #[derive(Default)]
    QualityVariance {
        /// All arms that share a control, where they scatter alike.
        #[default]
        Pooled,
        /// Each arm by itself.
        Pair,
    }
    /// `analysis.scaling.x`.
    ScalingAxis {
        /// FLOPs of a run.
        Flops,
        /// Parameters that scaling laws count.
        Params,
        /// Tokens of a run.
        Tokens,
        /// Layers.
        Depth,
    }
    /// `analysis.scaling.groups`.
    #[derive(Default)]
    ScalingGroups {
        /// All arms together.
        #[default]
        None,
        /// Arms of one budget.
        Budget,
    }
    /// `rule` of a `scorecard.target`.
    TargetRule {
        /// The speedrun: one-sample t test.
        #[serde(rename = "modded_nanogpt_track_1")]
        ModdedNanogptTrack1,
        /// The optimization benchmark: z test with an assumed deviation.
        #[serde(rename = "modded_nanogpt_track_3")]
        ModdedNanogptTrack3,
    }
    /// `scorecard.quality.metric`.
    QualityMetric {
        /// Validation bits per byte.
        ValBpb,
        /// Validation loss, nats a token.
        ValLoss,
        /// Training loss.
        TrainLoss,
        /// The CORE metric, of which more is better.
        Core,
    }
}

/// `model.init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitChoice {
    /// torch's CPU generator and upstream's order of draws.
    Torch,
    /// A safetensors file.
    File(String),
    /// The weights of a checkpoint.
    Checkpoint(String),
    /// A checkpoint of upstream's that is trained on.
    Resume(String),
}

/// Which tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerChoice {
    /// A trained one: upstream's directory or `tokenizer.pkl`.
    Path(String),
    /// BPE trained on the train split to this vocabulary.
    Train {
        /// V, with the nine special tokens.
        vocab_size: usize,
    },
    /// One token a character and one BOS (the small models).
    Char,
}

/// `data.tokenizer` as manifests spell it: records and keys have spelled it otherwise since before.
mod spelled {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::TokenizerChoice;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Spelled {
        Char,
        Path(String),
        VocabSize(usize),
    }

    pub(super) fn serialize<S: Serializer>(choice: &TokenizerChoice, to: S) -> Result<S::Ok, S::Error> {
        match choice.clone() {
            TokenizerChoice::Char => Spelled::Char,
            TokenizerChoice::Path(path) => Spelled::Path(path),
            TokenizerChoice::Train { vocab_size } => Spelled::VocabSize(vocab_size),
        }
        .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TokenizerChoice, D::Error> {
        Ok(match Spelled::deserialize(from)? {
            Spelled::Char => TokenizerChoice::Char,
            Spelled::Path(path) => TokenizerChoice::Path(path),
            Spelled::VocabSize(vocab_size) => TokenizerChoice::Train { vocab_size },
        })
    }
}
