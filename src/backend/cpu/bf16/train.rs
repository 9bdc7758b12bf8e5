//! [`TrainOps`] in bfloat16.

use std::borrow::Cow;

use super::super::attention::AttentionSaved;
use super::super::elementwise;
use super::super::norm::NormSaved;
use super::super::rotary::{Rotary, RotarySaved};
use super::super::smear::SmearSaved;
use super::super::tensor::{Tokens, check};
use super::super::value_embedding::ValueSaved;
use super::gemm::{Factor, Job, added, gemm, rounded};
use super::loss::{accumulate, source};
use super::rows::{self, uninit};
use super::storage::{Half, Stored, Table, Tensor, check_shape};
use super::{Bf16Backend, attention_backward, convert, loss, muon, optimizer, tables};
use crate::ops::{
    AdamWStep, AttentionShape, HeadShape, MuonParam, MuonStep, OpResult, SequenceShape, SgdStep, TrainOps,
};
use crate::tensors::Single;

/// Sizes of a product whose factors and gradients fit: rows, outputs, inputs.
fn check_linear_backward(
    op: &'static str,
    x: &Tensor,
    w: &Stored,
    dy: &Tensor,
    dw: &Stored,
) -> OpResult<(usize, usize, usize)> {
    let (out, inputs) = w.matrix();
    check_shape(op, "x", x, dy.rows, inputs)?;
    check_shape(op, "dy", dy, x.rows, out)?;
    check(op, dw.len() == w.len(), || format!("w is {:?}, dw {:?}", w.shape(), dw.shape()))?;
    Ok((x.rows, out, inputs))
}

impl TrainOps for Bf16Backend {
    type Grad = Stored;
    type State = Stored;

    fn grad(&self, shape: &[usize]) -> OpResult<Stored> {
        self.0.grad(shape).map(Stored::Single)
    }

    fn table_grad(&self, shape: &[usize]) -> OpResult<Stored> {
        let data = Half::zeroed(&self.0.pool, "grad", shape.iter().product())?;
        Ok(Stored::Table(Table { shape: shape.to_vec(), data, packed: None }))
    }

    fn zero_grad(&self, grad: &mut Stored) -> OpResult<()> {
        match grad {
            Stored::Single(param) => elementwise::fill(&self.0, &mut param.data, 0.0),
            Stored::Table(table) => table.data.fill(0),
        }
        Ok(())
    }

    fn grad_values<'a>(&self, grad: &'a Stored) -> OpResult<Cow<'a, [f32]>> {
        Ok(grad.values().into_wide())
    }

    fn state(&self, shape: &[usize], values: &[f32]) -> OpResult<Stored> {
        self.0.state(shape, values).map(Stored::Single)
    }

    fn table_state(&self, shape: &[usize], values: &[f32]) -> OpResult<Stored> {
        self.rounded_table("state", shape, values)
    }

    fn zero_state(&self, shape: &[usize], table: bool) -> OpResult<Stored> {
        if table { self.table_grad(shape) } else { self.grad(shape) }
    }

    fn state_values<'a>(&self, state: &'a Stored) -> OpResult<Single<'a>> {
        Ok(state.values())
    }

    fn embedding_backward(&self, tokens: &Tokens, dy: &Tensor, dtable: &mut Stored) -> OpResult<()> {
        tables::embedding_backward(&self.0, tokens, dy, dtable)
    }

    fn rms_norm_backward(
        &self,
        y: &Tensor,
        saved: &NormSaved,
        dy: &Tensor,
        dresidual: Option<Tensor>,
    ) -> OpResult<Tensor> {
        rows::rms_norm_backward(&self.0, y, saved, dy, dresidual)
    }

    fn linear_backward(
        &self,
        x: &Tensor,
        w: &Stored,
        dy: &Tensor,
        dw: &mut Stored,
        dx: Option<Tensor>,
    ) -> OpResult<Tensor> {
        let op = "linear_backward";
        let (n, out, inputs) = check_linear_backward(op, x, w, dy, dw)?;
        let dy = dy.values(op)?;
        accumulate(&self.0, Factor::across(dy, out, n), Factor::across(x.values(op)?, inputs, n), dw)?;
        let (a, b) = (Factor::along(dy, n, out), Factor::across(source(w), inputs, out));
        let (workers, pool) = (&self.0.workers, &self.0.pool);
        if let Some(mut dx) = dx {
            check_shape(op, "dx", &dx, n, inputs)?;
            gemm(workers, pool, Job::setting(a, b, dx.values_mut(op)?, &added))?;
            return Ok(dx);
        }
        let mut dx = uninit(&self.0, op, n, inputs)?;
        gemm(workers, pool, Job::setting(a, b, dx.values_mut(op)?, &rounded))?;
        Ok(dx)
    }

    fn relu_squared_backward(&self, x: &Tensor, dy: Tensor) -> OpResult<Tensor> {
        rows::relu_squared_backward(&self.0, x, dy)
    }

    fn relu_squared_linear_backward(
        &self,
        u: &Tensor,
        w: &Stored,
        dy: &Tensor,
        dw: &mut Stored,
    ) -> OpResult<Tensor> {
        let op = "relu_squared_linear_backward";
        let (n, out, inputs) = check_linear_backward(op, u, w, dy, dw)?;
        let (dy, u) = (dy.values(op)?, u.values(op)?);
        let a = Factor::across(u, inputs, n).mapped(convert::relu_squared);
        accumulate(&self.0, Factor::across(dy, out, n), a, dw)?;
        let mut du = uninit(&self.0, op, n, inputs)?;
        let finish = |at: usize, da: &[f32], du: &mut [u16]| {
            convert::relu_squared_backward(da, &u[at..at + da.len()], du);
        };
        let (a, b) = (Factor::along(dy, n, out), Factor::across(source(w), inputs, out));
        gemm(&self.0.workers, &self.0.pool, Job::setting(a, b, du.values_mut(op)?, &finish))?;
        Ok(du)
    }

    fn residual_mix_backward(
        &self,
        x: &Tensor,
        x0: &Tensor,
        resid: &Stored,
        x0_lambdas: &Stored,
        layer: usize,
        dy: Tensor,
        dx0: &mut Tensor,
        dresid: &mut Stored,
        dx0_lambdas: &mut Stored,
    ) -> OpResult<Tensor> {
        let op = "residual_mix_backward";
        let (resid, lambdas) = (resid.single(op)?, x0_lambdas.single(op)?);
        let (dresid, dlambdas) = (dresid.single_mut(op)?, dx0_lambdas.single_mut(op)?);
        rows::residual_mix_backward(&self.0, x, x0, resid, lambdas, layer, dy, dx0, dresid, dlambdas)
    }

    fn smear_backward(
        &self,
        x: &Tensor,
        gate: &Stored,
        lambda: &Stored,
        sequence: SequenceShape,
        saved: &SmearSaved,
        dy: &Tensor,
        dgate: &mut Stored,
        dlambda: &mut Stored,
    ) -> OpResult<Tensor> {
        let op = "smear_backward";
        let (gate, lambda) = (gate.single(op)?, lambda.single(op)?);
        let (dgate, dlambda) = (dgate.single_mut(op)?, dlambda.single_mut(op)?);
        rows::smear_backward(&self.0, x, gate, lambda, sequence, saved, dy, dgate, dlambda)
    }

    fn value_embedding_backward(
        &self,
        h: &Tensor,
        table: &Stored,
        tokens: &Tokens,
        gate: &Stored,
        scale: f32,
        saved: &ValueSaved,
        dv: &Tensor,
        dtable: &mut Stored,
        dgate: &mut Stored,
        dh: &mut Tensor,
    ) -> OpResult<()> {
        let op = "value_embedding_backward";
        let (gate, dgate) = (gate.single(op)?, dgate.single_mut(op)?);
        tables::value_embedding_backward(&self.0, h, table, tokens, gate, scale, saved, dv, dtable, dgate, dh)
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
        rows::rotary_norm_backward(&self.0, y, rotary, sequence, head_dim, scale, saved, dy)
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
        attention_backward::backward(&self.0, q, k, v, o, saved, shape, d_o)
    }

    fn backout_backward(
        &self,
        kept: &Tensor,
        lambda: &Stored,
        dy: &Tensor,
        dlambda: &mut Stored,
    ) -> OpResult<Tensor> {
        let op = "backout_backward";
        rows::backout_backward(&self.0, kept, lambda.single(op)?, dy, dlambda.single_mut(op)?)
    }

    fn cross_entropy_train(
        &self,
        x: &Tensor,
        lm_head: &Stored,
        targets: &Tokens,
        head: &HeadShape,
        grad_scale: f32,
        dlm_head: &mut Stored,
    ) -> OpResult<(Vec<f32>, Tensor)> {
        loss::train(&self.0, x, lm_head, targets, head, grad_scale, dlm_head)
    }

    fn adamw(
        &self,
        weight: &mut Stored,
        grad: &Stored,
        exp_avg: &mut Stored,
        exp_avg_sq: &mut Stored,
        step: &AdamWStep,
    ) -> OpResult<()> {
        optimizer::adamw(&self.0, weight, grad, exp_avg, exp_avg_sq, step)
    }

    fn muon(&self, params: &mut [MuonParam<'_, Stored, Stored, Stored>], step: &MuonStep) -> OpResult<()> {
        muon::update(&self.0, params, step)
    }

    fn sgd(&self, weight: &mut Stored, grad: &Stored, momentum: &mut Stored, step: &SgdStep) -> OpResult<()> {
        optimizer::sgd(&self.0, weight, grad, momentum, step)
    }
}
