//! [`TrainOps`] on the CPU: each op is a module.

use std::borrow::Cow;

use super::attention::AttentionSaved;
use super::backend::CpuBackend;
use super::gemm::{Factor, Job, Store, gemm};
use super::norm::NormSaved;
use super::rotary::{Rotary, RotarySaved};
use super::smear::SmearSaved;
use super::tensor::{Param, Tensor, Tokens, check, check_shape};
use super::value_embedding::ValueSaved;
use super::{
    adamw, attention_backward, cross_entropy, elementwise, embedding, muon, norm, residual, rotary, sgd,
    smear, value_embedding,
};
use crate::ops::{
    AdamWStep, AttentionShape, HeadShape, MuonParam, MuonStep, OpResult, SequenceShape, SgdStep, TrainOps,
};
use crate::tensors::Single;

/// Inputs of a product whose factors and gradients fit.
fn check_linear_backward(
    op: &'static str,
    x: &Tensor,
    w: &Param,
    dy: &Tensor,
    dw: &Param,
) -> OpResult<usize> {
    let (out, inputs) = w.matrix();
    check_shape(op, "x", x, dy.rows, inputs)?;
    check_shape(op, "dy", dy, x.rows, out)?;
    check(op, dw.data.len() == w.data.len(), || format!("w is {:?}, dw {:?}", w.shape, dw.shape))?;
    Ok(inputs)
}

impl TrainOps for CpuBackend {
    type Grad = Param;
    type State = Param;

    fn grad(&self, shape: &[usize]) -> OpResult<Param> {
        let len = shape.iter().product();
        let data = self.pool.zeroed_by("grad", len, |values| elementwise::fill(self, values, 0.0))?;
        Ok(Param { shape: shape.to_vec(), data, packed: None })
    }

    fn zero_grad(&self, grad: &mut Param) -> OpResult<()> {
        elementwise::fill(self, &mut grad.data, 0.0);
        Ok(())
    }

    fn grad_values<'a>(&self, grad: &'a Param) -> OpResult<Cow<'a, [f32]>> {
        Ok(Cow::Borrowed(grad.values()))
    }

    fn state(&self, shape: &[usize], values: &[f32]) -> OpResult<Param> {
        self.param("state", shape, values)
    }

    fn zero_state(&self, shape: &[usize], _: bool) -> OpResult<Param> {
        self.grad(shape)
    }

    fn state_values<'a>(&self, state: &'a Param) -> OpResult<Single<'a>> {
        Ok(state.values().into())
    }

    fn embedding_backward(&self, tokens: &Tokens, dy: &Tensor, dtable: &mut Param) -> OpResult<()> {
        embedding::backward(self, tokens, dy, dtable)
    }

    fn rms_norm_backward(
        &self,
        y: &Tensor,
        saved: &NormSaved,
        dy: &Tensor,
        dresidual: Option<Tensor>,
    ) -> OpResult<Tensor> {
        norm::backward(self, y, saved, dy, dresidual)
    }

    fn linear_backward(
        &self,
        x: &Tensor,
        w: &Param,
        dy: &Tensor,
        dw: &mut Param,
        dx: Option<Tensor>,
    ) -> OpResult<Tensor> {
        let op = "linear_backward";
        let inputs = check_linear_backward(op, x, w, dy, dw)?;
        let dy = dy.view();
        let dw_job = Job::new(dy.reversed_axes(), x.view(), &mut dw.data);
        gemm(&self.workers, &self.pool, dw_job, Store::Add)?;
        let (mut dx, store) = match dx {
            Some(dx) => {
                check_shape(op, "dx", &dx, x.rows, inputs)?;
                (dx, Store::Add)
            }
            None => (self.tensor_uninit(op, x.rows, inputs)?, Store::Set),
        };
        gemm(&self.workers, &self.pool, Job::new(dy, w.view(), &mut dx.data), store)?;
        Ok(dx)
    }

    fn relu_squared_backward(&self, x: &Tensor, dy: Tensor) -> OpResult<Tensor> {
        elementwise::relu_squared_backward(self, x, dy)
    }

    fn relu_squared_linear_backward(
        &self,
        u: &Tensor,
        w: &Param,
        dy: &Tensor,
        dw: &mut Param,
    ) -> OpResult<Tensor> {
        let op = "relu_squared_linear_backward";
        check_linear_backward(op, u, w, dy, dw)?;
        let a = Factor::mapped(u.view(), elementwise::relu_squared_in_place);
        let dw_job = Job::new(dy.view().reversed_axes(), a, &mut dw.data);
        gemm(&self.workers, &self.pool, dw_job, Store::Add)?;
        let mut du = self.tensor_uninit(op, u.rows, u.cols)?;
        let finish = |at: usize, da: &mut [f32]| {
            elementwise::relu_squared_backward_chunk(da, &u.data[at..at + da.len()]);
        };
        let du_job = Job::new(dy.view(), w.view(), &mut du.data).finished_by(&finish);
        gemm(&self.workers, &self.pool, du_job, Store::Set)?;
        Ok(du)
    }

    fn residual_mix_backward(
        &self,
        x: &Tensor,
        x0: &Tensor,
        resid: &Param,
        x0_lambdas: &Param,
        layer: usize,
        dy: Tensor,
        dx0: &mut Tensor,
        dresid: &mut Param,
        dx0_lambdas: &mut Param,
    ) -> OpResult<Tensor> {
        residual::mix_backward(self, x, x0, resid, x0_lambdas, layer, dy, dx0, dresid, dx0_lambdas)
    }

    fn smear_backward(
        &self,
        x: &Tensor,
        gate: &Param,
        lambda: &Param,
        sequence: SequenceShape,
        saved: &SmearSaved,
        dy: &Tensor,
        dgate: &mut Param,
        dlambda: &mut Param,
    ) -> OpResult<Tensor> {
        smear::backward(self, x, gate, lambda, sequence, saved, dy, dgate, dlambda)
    }

    fn value_embedding_backward(
        &self,
        h: &Tensor,
        table: &Param,
        tokens: &Tokens,
        gate: &Param,
        scale: f32,
        saved: &ValueSaved,
        dv: &Tensor,
        dtable: &mut Param,
        dgate: &mut Param,
        dh: &mut Tensor,
    ) -> OpResult<()> {
        value_embedding::backward(self, h, table, tokens, gate, scale, saved, dv, dtable, dgate, dh)
    }

    fn rotary_norm_backward(
        &self,
        y: &Tensor,
        rotary: &Rotary,
        sequence: SequenceShape,
        head_dim: usize,
        scale: f32,
        saved: &RotarySaved,
        dy: Tensor,
    ) -> OpResult<Tensor> {
        rotary::backward(self, y, rotary, sequence, head_dim, scale, saved, dy)
    }

    fn attention_backward(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        o: &Tensor,
        saved: &AttentionSaved,
        shape: &AttentionShape,
        d_o: &Tensor,
    ) -> OpResult<(Tensor, Tensor, Tensor)> {
        attention_backward::backward(self, q, k, v, o, saved, shape, d_o)
    }

    fn backout_backward(
        &self,
        kept: &Tensor,
        lambda: &Param,
        dy: &Tensor,
        dlambda: &mut Param,
    ) -> OpResult<Tensor> {
        residual::backout_backward(self, kept, lambda, dy, dlambda)
    }

    fn cross_entropy_train(
        &self,
        x: &Tensor,
        lm_head: &Param,
        targets: &Tokens,
        head: &HeadShape,
        grad_scale: f32,
        dlm_head: &mut Param,
    ) -> OpResult<(Vec<f32>, Tensor)> {
        cross_entropy::train(self, x, lm_head, targets, head, grad_scale, dlm_head)
    }

    fn adamw(
        &self,
        weight: &mut Param,
        grad: &Param,
        exp_avg: &mut Param,
        exp_avg_sq: &mut Param,
        step: &AdamWStep,
    ) -> OpResult<()> {
        adamw::update(self, weight, grad, exp_avg, exp_avg_sq, step)
    }

    fn muon(&self, params: &mut [MuonParam<'_, Param, Param, Param>], step: &MuonStep) -> OpResult<()> {
        muon::update(self, params, step)
    }

    fn sgd(&self, weight: &mut Param, grad: &Param, momentum: &mut Param, step: &SgdStep) -> OpResult<()> {
        sgd::update(self, weight, grad, momentum, step)
    }
}
