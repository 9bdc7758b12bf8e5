//! The backward ops and optimizer updates.

use std::borrow::Cow;

use super::{
    AdamWStep, AttentionShape, ForwardOps, HeadShape, Losses, MuonParam, MuonStep, OpResult, SequenceShape,
    SgdStep,
};
use crate::tensors::Single;

/// Backwards of the forward ops and fused optimizer updates.
///
/// `d` before a name is the loss gradient with respect to it. Weight gradients are f32 (those of [`Self::table_grad`] may
/// be less) and *accumulated* into the [`Self::Grad`] given. Every reduction has a shape that depends on the op's
/// arguments alone, never on the number of threads, so results are equal bit for bit on any of them.
pub trait TrainOps: ForwardOps {
    /// Accumulator for the gradient of a weight.
    type Grad;
    /// Optimizer state, shaped by its use.
    type State;

    /// A zeroed accumulator for a weight of this shape.
    fn grad(&self, shape: &[usize]) -> OpResult<Self::Grad>;
    /// One for the gradient of a [`ForwardOps::table`]; a backend that stores tables in fewer bits may store it likewise.
    fn table_grad(&self, shape: &[usize]) -> OpResult<Self::Grad> {
        self.grad(shape)
    }
    /// Sets it to zero.
    fn zero_grad(&self, grad: &mut Self::Grad) -> OpResult<()>;
    /// Its values, row-major.
    fn grad_values<'a>(&self, grad: &'a Self::Grad) -> OpResult<Cow<'a, [f32]>>;
    /// State from values.
    fn state(&self, shape: &[usize], values: &[f32]) -> OpResult<Self::State>;
    /// State of [`Self::adamw`] on a [`ForwardOps::table`]; a backend that stores tables in fewer bits stores it
    /// likewise.
    fn table_state(&self, shape: &[usize], values: &[f32]) -> OpResult<Self::State> {
        self.state(shape, values)
    }
    /// State of zeros; `table` says that it is one of [`Self::table_state`].
    fn zero_state(&self, shape: &[usize], table: bool) -> OpResult<Self::State> {
        let zeros = vec![0.0; shape.iter().product()];
        if table { self.table_state(shape, &zeros) } else { self.state(shape, &zeros) }
    }
    /// The values of a state, exactly as stored.
    fn state_values<'a>(&self, state: &'a Self::State) -> OpResult<Single<'a>>;

    /// Backward of [`ForwardOps::embedding`]: sums dy (N, C) into the rows of dtable, in token order.
    fn embedding_backward(
        &self,
        tokens: &Self::Tokens,
        dy: &Self::Tensor,
        dtable: &mut Self::Grad,
    ) -> OpResult<()>;
    /// Backward of [`ForwardOps::rms_norm`] from its output `y`. Adds to `dresidual` if given. -> dx (N, C)
    fn rms_norm_backward(
        &self,
        y: &Self::Tensor,
        saved: &Self::NormSaved,
        dy: &Self::Tensor,
        dresidual: Option<Self::Tensor>,
    ) -> OpResult<Self::Tensor>;
    /// Backward of [`ForwardOps::linear`]: `dw += dy^T x`, -> `dx = dy w` (N, in), added to `dx` if given.
    fn linear_backward(
        &self,
        x: &Self::Tensor,
        w: &Self::Weight,
        dy: &Self::Tensor,
        dw: &mut Self::Grad,
        dx: Option<Self::Tensor>,
    ) -> OpResult<Self::Tensor>;
    /// Backward of [`ForwardOps::relu_squared`] from its input `x`: `dy * 2 max(x, 0)`.
    fn relu_squared_backward(&self, x: &Self::Tensor, dy: Self::Tensor) -> OpResult<Self::Tensor>;
    /// Backward of [`ForwardOps::relu_squared_linear_add`] from its input `u`: `dw += dy^T max(u, 0)^2`, -> du (N, in).
    /// The squares are computed again; with the bits of [`Self::linear_backward`] and [`Self::relu_squared_backward`].
    fn relu_squared_linear_backward(
        &self,
        u: &Self::Tensor,
        w: &Self::Weight,
        dy: &Self::Tensor,
        dw: &mut Self::Grad,
    ) -> OpResult<Self::Tensor> {
        let a = self.relu_squared(u)?;
        let da = self.linear_backward(&a, w, dy, dw, None)?;
        drop(a);
        self.relu_squared_backward(u, da)
    }
    /// Backward of [`ForwardOps::residual_mix`]: adds `x0_lambdas[layer] * dy` to `dx0`, accumulates both lambda
    /// gradients at `layer`, -> `resid[layer] * dy`.
    #[allow(clippy::too_many_arguments)]
    fn residual_mix_backward(
        &self,
        x: &Self::Tensor,
        x0: &Self::Tensor,
        resid: &Self::Weight,
        x0_lambdas: &Self::Weight,
        layer: usize,
        dy: Self::Tensor,
        dx0: &mut Self::Tensor,
        dresid: &mut Self::Grad,
        dx0_lambdas: &mut Self::Grad,
    ) -> OpResult<Self::Tensor>;
    /// Backward of [`ForwardOps::smear`] (without `previous`) from its input `x`. -> dx (N, C)
    #[allow(clippy::too_many_arguments)]
    fn smear_backward(
        &self,
        x: &Self::Tensor,
        gate: &Self::Weight,
        lambda: &Self::Weight,
        sequence: SequenceShape,
        saved: &Self::SmearSaved,
        dy: &Self::Tensor,
        dgate: &mut Self::Grad,
        dlambda: &mut Self::Grad,
    ) -> OpResult<Self::Tensor>;
    /// Backward of [`ForwardOps::value_embedding`]; the gradient of `v` is `dv` itself. Adds the gate's share to the
    /// first c channels of `dh` (N, C).
    #[allow(clippy::too_many_arguments)]
    fn value_embedding_backward(
        &self,
        h: &Self::Tensor,
        table: &Self::Weight,
        tokens: &Self::Tokens,
        gate: &Self::Weight,
        scale: f32,
        saved: &Self::ValueSaved,
        dv: &Self::Tensor,
        dtable: &mut Self::Grad,
        dgate: &mut Self::Grad,
        dh: &mut Self::Tensor,
    ) -> OpResult<()>;
    /// Backward of [`ForwardOps::rotary_norm`] (with `start` 0) from its output `y`.
    #[allow(clippy::too_many_arguments)]
    fn rotary_norm_backward(
        &self,
        y: &Self::Tensor,
        rotary: &Self::Rotary,
        sequence: SequenceShape,
        head_dim: usize,
        scale: f32,
        saved: &Self::RotarySaved,
        dy: Self::Tensor,
    ) -> OpResult<Self::Tensor>;
    /// Backward of [`ForwardOps::attention`] from its inputs and output `o`. -> (dq, dk, dv)
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        o: &Self::Tensor,
        saved: &Self::AttentionSaved,
        shape: &AttentionShape,
        d_o: &Self::Tensor,
    ) -> OpResult<(Self::Tensor, Self::Tensor, Self::Tensor)>;
    /// Backward of [`ForwardOps::backout`]: `dlambda -= sum(kept * dy)`, -> `dkept = -lambda * dy`; dx is dy itself.
    fn backout_backward(
        &self,
        kept: &Self::Tensor,
        lambda: &Self::Weight,
        dy: &Self::Tensor,
        dlambda: &mut Self::Grad,
    ) -> OpResult<Self::Tensor>;
    /// [`ForwardOps::cross_entropy`] and its backward in one pass over chunks of logits. The gradient is that of
    /// `grad_scale * sum of the losses`; `dlm_head` accumulates. -> (N losses on the host, dx (N, C))
    fn cross_entropy_train(
        &self,
        x: &Self::Tensor,
        lm_head: &Self::Weight,
        targets: &Self::Tokens,
        head: &HeadShape,
        grad_scale: f32,
        dlm_head: &mut Self::Grad,
    ) -> OpResult<(Vec<f32>, Self::Tensor)>;
    /// [`Self::cross_entropy_train`] without waiting for the losses: a device computes them while the host goes on to
    /// the backward.
    fn cross_entropy_train_unread(
        &self,
        x: &Self::Tensor,
        lm_head: &Self::Weight,
        targets: &Self::Tokens,
        head: &HeadShape,
        grad_scale: f32,
        dlm_head: &mut Self::Grad,
    ) -> OpResult<(Losses, Self::Tensor)> {
        let (losses, dx) = self.cross_entropy_train(x, lm_head, targets, head, grad_scale, dlm_head)?;
        Ok((losses.into(), dx))
    }

    /// AdamW with decoupled decay applied first: `w *= 1 - lr*wd`, moments by EMA,
    /// `w -= lr/bias1 * m / (sqrt(v / bias2) + eps)`. arXiv 1711.05101.
    fn adamw(
        &self,
        weight: &mut Self::Weight,
        grad: &Self::Grad,
        exp_avg: &mut Self::State,
        exp_avg_sq: &mut Self::State,
        step: &AdamWStep,
    ) -> OpResult<()>;
    /// Muon on matrices of one shape: Nesterov momentum, polar iteration (Polar Express, arXiv 2505.16932), NorMuon
    /// (arXiv 2510.05491), cautious decay.
    fn muon(
        &self,
        params: &mut [MuonParam<'_, Self::Weight, Self::Grad, Self::State>],
        step: &MuonStep,
    ) -> OpResult<()>;
    /// SGD with momentum and decoupled decay: `w *= 1 - lr*wd`, `m = momentum*m + g`, `w -= lr*m`.
    fn sgd(
        &self,
        weight: &mut Self::Weight,
        grad: &Self::Grad,
        momentum: &mut Self::State,
        step: &SgdStep,
    ) -> OpResult<()>;
}
