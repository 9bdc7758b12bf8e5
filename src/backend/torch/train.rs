//! [`TrainOps`] on libtorch.

use std::borrow::Cow;

use tch::{Kind, Tensor};

use super::attention::Saved;
use super::backend::TorchBackend;
use super::fault::{caught, named};
use super::forward::{dims, fits, values};
use super::rotary::Rotary;
use super::tokens::Tokens;
use super::weight::{Grad, State, Weight};
use super::{attention, embedding, gate, linear, loss, norm, optimizer, residual, rotary};
use crate::ops::{
    AdamWStep, AttentionShape, HeadShape, Losses, MuonParam, MuonStep, OpResult, SequenceShape, SgdStep,
    TrainOps,
};
use crate::tensors::Single;

impl TrainOps for TorchBackend {
    type Grad = Grad;
    type State = State;

    fn grad(&self, shape: &[usize]) -> OpResult<Grad> {
        self.run("grad", || Tensor::f_zeros(dims(shape), (Kind::Float, self.tch_device())).map(Grad))
    }

    fn zero_grad(&self, grad: &mut Grad) -> OpResult<()> {
        self.run("zero_grad", || grad.0.f_zero_().map(drop))
    }

    fn grad_values<'a>(&self, grad: &'a Grad) -> OpResult<Cow<'a, [f32]>> {
        self.run("grad_values", || values(&grad.0)).map(Cow::Owned)
    }

    fn state(&self, shape: &[usize], values: &[f32]) -> OpResult<State> {
        self.run("state", || {
            fits(shape, values.len())?;
            self.upload(values, &dims(shape), Kind::Float).map(State)
        })
    }

    fn table_state(&self, shape: &[usize], values: &[f32]) -> OpResult<State> {
        self.run("table_state", || {
            fits(shape, values.len())?;
            self.upload(values, &dims(shape), self.kind()).map(State)
        })
    }

    fn state_values<'a>(&self, state: &'a State) -> OpResult<Single<'a>> {
        self.run("state_values", || values(&state.0)).map(Single::from)
    }

    fn embedding_backward(&self, tokens: &Tokens, dy: &Tensor, dtable: &mut Grad) -> OpResult<()> {
        self.run("embedding_backward", || embedding::scatter(self, tokens, dy, &mut dtable.0))
    }

    fn rms_norm_backward(
        &self,
        y: &Tensor,
        saved: &Tensor,
        dy: &Tensor,
        dresidual: Option<Tensor>,
    ) -> OpResult<Tensor> {
        self.run("rms_norm_backward", || norm::rms_norm_backward(y, saved, dy, dresidual))
    }

    fn linear_backward(
        &self,
        x: &Tensor,
        w: &Weight,
        dy: &Tensor,
        dw: &mut Grad,
        dx: Option<Tensor>,
    ) -> OpResult<Tensor> {
        self.run("linear_backward", || {
            linear::accumulate(&mut dw.0, dy, x, self.mixed_addmm)?;
            linear::input_gradient(dy, w.compute(), dx)
        })
    }

    fn relu_squared_backward(&self, x: &Tensor, mut dy: Tensor) -> OpResult<Tensor> {
        self.run("relu_squared_backward", || dy.f_mul_(&x.f_relu()?)?.f_mul_scalar_(2.0))
    }

    fn residual_mix_backward(
        &self,
        x: &Tensor,
        x0: &Tensor,
        resid: &Weight,
        x0_lambdas: &Weight,
        layer: usize,
        dy: Tensor,
        dx0: &mut Tensor,
        dresid: &mut Grad,
        dx0_lambdas: &mut Grad,
    ) -> OpResult<Tensor> {
        self.run("residual_mix_backward", || {
            let (a, b) =
                (residual::entry(&resid.master, layer)?, residual::entry(&x0_lambdas.master, layer)?);
            let _ = residual::entry(&dresid.0, layer)?.f_add_(&residual::dot(x, &dy)?)?;
            let _ = residual::entry(&dx0_lambdas.0, layer)?.f_add_(&residual::dot(x0, &dy)?)?;
            let _ = dx0.f_addcmul_(&dy, &b)?;
            residual::scale(dy, &a)
        })
    }

    fn smear_backward(
        &self,
        x: &Tensor,
        gate: &Weight,
        lambda: &Weight,
        sequence: SequenceShape,
        saved: &Tensor,
        dy: &Tensor,
        dgate: &mut Grad,
        dlambda: &mut Grad,
    ) -> OpResult<Tensor> {
        self.run("smear_backward", || {
            let (gate, lambda) = (&gate.master, &lambda.master);
            gate::smear_backward(x, gate, lambda, sequence, saved, dy, &mut dgate.0, &mut dlambda.0)
        })
    }

    fn value_embedding_backward(
        &self,
        h: &Tensor,
        table: &Weight,
        tokens: &Tokens,
        gate: &Weight,
        scale: f32,
        saved: &Tensor,
        dv: &Tensor,
        dtable: &mut Grad,
        dgate: &mut Grad,
        dh: &mut Tensor,
    ) -> OpResult<()> {
        self.run("value_embedding_backward", || {
            let (table, gate, dtable, dgate) = (table.compute(), &gate.master, &mut dtable.0, &mut dgate.0);
            gate::value_embedding_backward(self, h, table, tokens, gate, scale, saved, dv, dtable, dgate, dh)
        })
    }

    fn rotary_norm_backward(
        &self,
        y: &Tensor,
        rotary: &Rotary,
        sequence: SequenceShape,
        head_dim: usize,
        scale: f32,
        saved: &Tensor,
        dy: Tensor,
    ) -> OpResult<Tensor> {
        self.run("rotary_norm_backward", || {
            rotary::rotary_norm_backward(y, rotary, sequence, head_dim, scale, saved, &dy)
        })
    }

    fn attention_backward(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        o: &Tensor,
        saved: &Saved,
        shape: &AttentionShape,
        d_o: &Tensor,
    ) -> OpResult<(Tensor, Tensor, Tensor)> {
        self.run("attention_backward", || attention::backward(q, k, v, o, saved, shape, d_o))
    }

    fn backout_backward(
        &self,
        kept: &Tensor,
        lambda: &Weight,
        dy: &Tensor,
        dlambda: &mut Grad,
    ) -> OpResult<Tensor> {
        self.run("backout_backward", || {
            let _ = dlambda.0.f_sub_(&residual::dot(kept, dy)?)?;
            residual::scale(super::forward::copy(dy)?, &lambda.master.f_neg()?)
        })
    }

    fn cross_entropy_train(
        &self,
        x: &Tensor,
        lm_head: &Weight,
        targets: &Tokens,
        head: &HeadShape,
        grad_scale: f32,
        dlm_head: &mut Grad,
    ) -> OpResult<(Vec<f32>, Tensor)> {
        let (losses, dx) =
            self.cross_entropy_train_unread(x, lm_head, targets, head, grad_scale, dlm_head)?;
        Ok((losses.read()?, dx))
    }

    fn cross_entropy_train_unread(
        &self,
        x: &Tensor,
        lm_head: &Weight,
        targets: &Tokens,
        head: &HeadShape,
        grad_scale: f32,
        dlm_head: &mut Grad,
    ) -> OpResult<(Losses, Tensor)> {
        const OP: &str = "cross_entropy";
        self.run(OP, || {
            let backward = loss::Backward {
                scale: grad_scale,
                dlm_head: &mut dlm_head.0,
                mixed_addmm: self.mixed_addmm,
            };
            let (losses, dx) = loss::cross_entropy(x, lm_head.compute(), targets, head, Some(backward))?;
            let dx = match dx {
                Some(dx) => dx,
                None => x.f_zeros_like()?,
            };
            Ok((Losses::on_device(move || named(OP, caught(|| values(&losses)))), dx))
        })
    }

    fn adamw(
        &self,
        weight: &mut Weight,
        grad: &Grad,
        exp_avg: &mut State,
        exp_avg_sq: &mut State,
        step: &AdamWStep,
    ) -> OpResult<()> {
        self.run("adamw", || optimizer::adamw(weight, grad, exp_avg, exp_avg_sq, step))
    }

    fn muon(&self, params: &mut [MuonParam<'_, Weight, Grad, State>], step: &MuonStep) -> OpResult<()> {
        self.run("muon", || optimizer::muon(params, step))
    }

    fn sgd(&self, weight: &mut Weight, grad: &Grad, momentum: &mut State, step: &SgdStep) -> OpResult<()> {
        self.run("sgd", || optimizer::sgd(weight, grad, momentum, step))
    }
}
