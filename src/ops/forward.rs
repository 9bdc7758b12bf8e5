//! The forward ops.

use super::{AttentionShape, HeadShape, OpResult, SequenceShape};
use crate::precision::Precision;
use crate::tensors::Single;

/// Forward ops on activations, weights and tokens.
///
/// Associated `*Saved` types hold what a backward needs beyond its documented arguments; backends without a
/// backward use `()`.
pub trait ForwardOps {
    /// A matrix of activations.
    type Tensor;
    /// A parameter, as the forward ops use it.
    type Weight;
    /// Token ids, with -1 for "ignore" in targets.
    type Tokens;
    /// Rotary cosines and sines.
    type Rotary;
    /// Keys and values of one layer for the positions decoded so far, of S sequences that are equally long.
    type KvCache;
    /// Kept by [`Self::rms_norm`].
    type NormSaved;
    /// Kept by [`Self::smear`].
    type SmearSaved;
    /// Kept by [`Self::value_embedding`].
    type ValueSaved;
    /// Kept by [`Self::rotary_norm`].
    type RotarySaved;
    /// Kept by [`Self::attention`].
    type AttentionSaved;

    /// A weight of the given shape from row-major values.
    fn weight(&self, shape: &[usize], values: &[f32]) -> OpResult<Self::Weight>;
    /// A weight that is only gathered from ([`Self::embedding`], [`Self::value_embedding`]). A backend that computes in
    /// bf16 may store it in bf16, with its optimizer state, as upstream does.
    fn table(&self, shape: &[usize], values: &[f32]) -> OpResult<Self::Weight> {
        self.weight(shape, values)
    }
    /// A weight that never changes and is only the right factor of products ([`Self::linear`] and its kin,
    /// [`Self::logits`], [`Self::cross_entropy`]). A backend may store it as its products read it.
    fn factor(&self, shape: &[usize], values: &[f32]) -> OpResult<Self::Weight> {
        self.weight(shape, values)
    }
    /// The values of a weight, row-major, exactly as they are stored.
    fn weight_values<'a>(&self, weight: &'a Self::Weight) -> OpResult<Single<'a>>;
    /// Token ids for the backend. `ids.len()` is N.
    fn tokens(&self, ids: &[i32]) -> OpResult<Self::Tokens>;
    /// The values of an activation, row-major.
    fn tensor_values(&self, tensor: &Self::Tensor) -> OpResult<Vec<f32>>;
    /// An activation (rows, cols) from row-major values.
    fn tensor(&self, rows: usize, cols: usize, values: &[f32]) -> OpResult<Self::Tensor>;
    /// Zeros (rows, cols).
    fn zeros(&self, rows: usize, cols: usize) -> OpResult<Self::Tensor> {
        self.tensor(rows, cols, &vec![0.0; rows * cols])
    }
    /// A copy.
    fn copy(&self, x: &Self::Tensor) -> OpResult<Self::Tensor>;
    /// Rows `start .. start + count` of `x`.
    fn rows(&self, x: &Self::Tensor, start: usize, count: usize) -> OpResult<Self::Tensor>;
    /// These rows of `x`, in this order; a row may come several times.
    fn gather(&self, x: &Self::Tensor, rows: &[usize]) -> OpResult<Self::Tensor>;
    /// Whether the bits of a row depend neither on the other rows of a call nor on how many there are. Without that,
    /// sequences decoded at once are not what each is alone.
    fn rows_stand_alone(&self) -> bool {
        false
    }

    /// Cosines and sines of `position * base^(-2j/D)` for `len` positions and D/2 frequencies, rounded to `precision`
    /// and used as f32. nanochat, RoFormer (arXiv 2104.09864).
    fn rotary(&self, len: usize, head_dim: usize, base: f64, precision: Precision) -> OpResult<Self::Rotary>;

    /// Gathers rows: table (>= V, C), N tokens -> (N, C).
    fn embedding(&self, table: &Self::Weight, tokens: &Self::Tokens) -> OpResult<Self::Tensor>;
    /// `x / sqrt(mean(x^2) + eps)` over each row: (N, C) -> (N, C). arXiv 1910.07467, without a gain.
    fn rms_norm(&self, x: &Self::Tensor, eps: f32) -> OpResult<(Self::Tensor, Self::NormSaved)>;
    /// `x w^T`: (N, in), (out, in) -> (N, out).
    fn linear(&self, x: &Self::Tensor, w: &Self::Weight) -> OpResult<Self::Tensor>;
    /// `residual + x w^T`: (N, out), (N, in), (out, in) -> (N, out).
    fn linear_add(
        &self,
        residual: Self::Tensor,
        x: &Self::Tensor,
        w: &Self::Weight,
    ) -> OpResult<Self::Tensor>;
    /// `x + y`, equal shapes.
    fn add(&self, x: Self::Tensor, y: &Self::Tensor) -> OpResult<Self::Tensor>;
    /// `max(x, 0)^2` elementwise. arXiv 2109.08668.
    fn relu_squared(&self, x: &Self::Tensor) -> OpResult<Self::Tensor>;
    /// `residual + max(u, 0)^2 w^T`: (N, out), (N, in), (out, in) -> (N, out). With the bits of [`Self::linear_add`] of
    /// [`Self::relu_squared`], which need not be held.
    fn relu_squared_linear_add(
        &self,
        residual: Self::Tensor,
        u: &Self::Tensor,
        w: &Self::Weight,
    ) -> OpResult<Self::Tensor> {
        self.linear_add(residual, &self.relu_squared(u)?, w)
    }
    /// `resid[layer] * x + x0_lambdas[layer] * x0`, all (N, C); the lambdas are vectors over layers.
    fn residual_mix(
        &self,
        x: &Self::Tensor,
        x0: &Self::Tensor,
        resid: &Self::Weight,
        x0_lambdas: &Self::Weight,
        layer: usize,
    ) -> OpResult<Self::Tensor>;
    /// `x[t] + lambda * sigmoid(gate . x[t][..c]) * x[t-1]` with the un-smeared `x[t-1]`; gate is (1, c), lambda (1).
    /// The first position of a sequence is left as it is, unless `previous` (B, C) holds the row before it.
    fn smear(
        &self,
        x: &Self::Tensor,
        gate: &Self::Weight,
        lambda: &Self::Weight,
        sequence: SequenceShape,
        previous: Option<&Self::Tensor>,
    ) -> OpResult<(Self::Tensor, Self::SmearSaved)>;
    /// Value embedding: `v[n, k] + scale * sigmoid(gate[k] . h[n][..c]) * table[token n, k]` for each of the K heads.
    /// v (N, K*D), h (N, C), table (>= V, K*D), gate (K, c) -> (N, K*D).
    fn value_embedding(
        &self,
        v: Self::Tensor,
        h: &Self::Tensor,
        table: &Self::Weight,
        tokens: &Self::Tokens,
        gate: &Self::Weight,
        scale: f32,
    ) -> OpResult<(Self::Tensor, Self::ValueSaved)>;
    /// Rotary embedding, then RMS norm over each head, then `scale`: (N, heads*D) -> (N, heads*D).
    /// Row t of a sequence has position `start + t`. Halves convention, rotated by minus theta:
    /// `y1 = x1 cos + x2 sin`, `y2 = x2 cos - x1 sin`.
    #[allow(clippy::too_many_arguments)]
    fn rotary_norm(
        &self,
        x: Self::Tensor,
        rotary: &Self::Rotary,
        start: usize,
        sequence: SequenceShape,
        head_dim: usize,
        scale: f32,
        eps: f32,
    ) -> OpResult<(Self::Tensor, Self::RotarySaved)>;
    /// Causal attention within a window, `softmax(q k^T / sqrt(D)) v`: q (N, H*D), k and v (N, K*D) -> (N, H*D).
    /// Never holds T x T scores for all heads at once.
    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        shape: &AttentionShape,
    ) -> OpResult<(Self::Tensor, Self::AttentionSaved)>;
    /// `x - lambda * kept`, (N, C); lambda is (1).
    fn backout(&self, x: Self::Tensor, kept: &Self::Tensor, lambda: &Self::Weight) -> OpResult<Self::Tensor>;
    /// Loss of each token in nats, `-log softmax(softcap(x lm_head^T))[target]`; 0 where the target is -1.
    /// x (N, C), `lm_head` (>= V, C) -> N losses, on the host. Holds no more than a chunk of the logits.
    fn cross_entropy(
        &self,
        x: &Self::Tensor,
        lm_head: &Self::Weight,
        targets: &Self::Tokens,
        head: &HeadShape,
    ) -> OpResult<Vec<f32>>;
    /// Logits after the softcap: x (N, C) -> (N, V).
    fn logits(&self, x: &Self::Tensor, lm_head: &Self::Weight, head: &HeadShape) -> OpResult<Self::Tensor>;

    /// An empty cache of one sequence for `capacity` positions of `cols` = K*D channels.
    fn kv_cache(&self, capacity: usize, cols: usize) -> OpResult<Self::KvCache>;
    /// Appends T keys and values to each of the S sequences, (S*T, K*D), one sequence after another. More than the
    /// capacity is an [`super::OpError::Shape`].
    fn kv_append(&self, cache: &mut Self::KvCache, k: &Self::Tensor, v: &Self::Tensor) -> OpResult<()>;
    /// Begins an empty cache of one sequence with the last `kept` of `positions` keys and values, (positions, K*D): what came
    /// before them is let go of at once.
    fn kv_begin(
        &self,
        cache: &mut Self::KvCache,
        k: &Self::Tensor,
        v: &Self::Tensor,
        positions: usize,
        kept: usize,
    ) -> OpResult<()> {
        let before = positions.saturating_sub(kept);
        let (k, v) = (self.rows(k, before, kept)?, self.rows(v, before, kept)?);
        self.kv_append(cache, &k, &v)
    }
    /// A cache of the same capacity with the last `positions` of these sequences of this one, in this order; a sequence
    /// may come several times. What it has not is an [`super::OpError::Shape`].
    fn kv_select(
        &self,
        cache: &Self::KvCache,
        sequences: &[usize],
        positions: usize,
    ) -> OpResult<Self::KvCache>;
    /// Attention of the last T positions of each sequence of the cache (B = S) over everything in it:
    /// q (S*T, H*D) -> (S*T, H*D).
    fn attention_cached(
        &self,
        q: &Self::Tensor,
        cache: &Self::KvCache,
        shape: &AttentionShape,
    ) -> OpResult<Self::Tensor>;
}
