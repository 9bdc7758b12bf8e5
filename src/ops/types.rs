//! Arguments and errors of the ops.

use crate::precision::Precision;

/// Why an op failed.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// Shapes that do not fit together.
    #[error("{op}: {message}")]
    Shape {
        /// The op.
        op: &'static str,
        /// The shapes found and expected.
        message: String,
    },
    /// Memory could not be had.
    #[error("{op}: out of memory ({bytes} bytes asked for)")]
    OutOfMemory {
        /// The op.
        op: &'static str,
        /// Bytes asked for; 0 where the backend does not say.
        bytes: usize,
    },
    /// Whoever runs it asked to stop; what was begun is to be dropped.
    #[error("stopped")]
    Stopped,
    /// Anything else the backend reports.
    #[error("{op}: {message}")]
    Backend {
        /// The op.
        op: &'static str,
        /// The backend's own words.
        message: String,
    },
}

/// `Result` of an op.
pub type OpResult<T> = Result<T, OpError>;

/// How the N rows of an activation divide into sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceShape {
    /// B, sequences.
    pub batch: usize,
    /// T, positions in each.
    pub len: usize,
}

impl SequenceShape {
    /// N, rows in all.
    pub fn rows(self) -> usize {
        self.batch * self.len
    }
}

/// Heads and window of a causal attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// B and T of the queries. In training the keys have the same T.
    pub sequence: SequenceShape,
    /// H, query heads.
    pub n_head: usize,
    /// K, key/value heads; divides H. Query head h reads key head `h / (H / K)`.
    pub n_kv_head: usize,
    /// D.
    pub head_dim: usize,
    /// Position i sees keys j with `0 <= i - j <= window`: `window + 1` keys.
    pub window: usize,
}

/// What turns the last activations into logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadShape {
    /// V: logits of the padding rows of `lm_head` are cut off.
    pub vocab_size: usize,
    /// s in `s * tanh(logits / s)`; none leaves logits as they are.
    pub softcap: Option<f32>,
}

/// The scalars of one AdamW update, in the precision in which upstream consumes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// `1 - beta1^t`, t from 1.
    pub bias1: f32,
    /// `1 - beta2^t`.
    pub bias2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay; the weight is first multiplied by `1 - lr * weight_decay`.
    pub weight_decay: f32,
}

/// The scalars of one SGD update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Learning rate of this step.
    pub lr: f32,
    /// Momentum; 0 is plain SGD and touches no buffer.
    pub momentum: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// The scalars of one Muon update (momentum, polar iteration, NorMuon, cautious decay: [`crate::upstream::Recipe`] has what
/// each commit does).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MuonStep {
    /// Learning rate of this step, already times `sqrt(max(1, R / K))`.
    pub lr: f32,
    /// Momentum of this step.
    pub momentum: f32,
    /// Weight decay of this step, applied where update and weight agree in sign.
    pub weight_decay: f32,
    /// Decay of NorMuon's second moment.
    pub beta2: f32,
    /// f in `X / (|X| * f + 1e-6)`.
    pub norm_factor: f32,
    /// Polar iterations, at most 5.
    pub ns_steps: usize,
    /// MuonEq: scale every row to the mean row norm before the iteration.
    pub row_equilibration: bool,
    /// Muon+: scale to Frobenius norm `sqrt(min(R, K))` after it.
    pub renormalize: bool,
    /// bf16 rounds the polar iteration as upstream's eager bf16 kernels do.
    pub polar_precision: Precision,
    /// bf16 leaves the direction, `beta2`, `lr` and the decay in bf16 up to the weight update (upstream before
    /// eb16d01, where the direction was not cast back).
    pub update_precision: Precision,
}

/// One matrix of a Muon update. All matrices of a call have one shape (R, K).
#[derive(Debug)]
pub struct MuonParam<'a, Weight, Grad, State> {
    /// The matrix, updated in place.
    pub weight: &'a mut Weight,
    /// Its gradient; may be used as scratch.
    pub grad: &'a mut Grad,
    /// Momentum (R, K).
    pub momentum: &'a mut State,
    /// NorMuon's second moment: R entries if R >= K, else K.
    pub second_moment: &'a mut State,
}
