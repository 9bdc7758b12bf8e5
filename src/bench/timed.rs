//! A backend with a stopwatch on every op, which is waited for.
//!
//! Beside ops whose time is that of reading and writing, not of products, stands what they move: each operand that they read
//! and each that they write, once. Rows of tables count as far as they are used; what has a value a row or a few in all does not.

use std::borrow::Cow;
use std::sync::Arc;

use super::profile::Profile;
use crate::ops::{
    AdamWStep, AttentionShape, Backend, ForwardOps, Hardware, HeadShape, MuonParam, MuonStep, OpResult,
    Operand, SequenceShape, SgdStep, TrainOps,
};
use crate::precision::Precision;
use crate::tensors::Single;

/// Passes every op on and counts its time, up to when the device has done it.
pub(super) struct Timed<B> {
    ops: B,
    profile: Arc<Profile>,
}

impl<B> Timed<B> {
    pub(super) fn new(ops: B, profile: Arc<Profile>) -> Self {
        Self { ops, profile }
    }
}

/// Bytes of operands.
struct Bytes<'a, B>(&'a B);

impl<B: Backend> Bytes<'_, B> {
    fn tensor(&self, x: &B::Tensor) -> u64 {
        self.0.stored_bytes(Operand::Tensor(x))
    }

    fn weight(&self, w: &B::Weight) -> u64 {
        self.0.stored_bytes(Operand::Weight(w))
    }

    fn grad(&self, g: &B::Grad) -> u64 {
        self.0.stored_bytes(Operand::Grad(g))
    }

    fn state(&self, s: &B::State) -> u64 {
        self.0.stored_bytes(Operand::State(s))
    }
}

macro_rules! timed {
    ($(fn $op:ident($($argument:ident: $type:ty),*) -> $result:ty $(, moves |$bytes:ident| $moved:expr)?;)*) => {
        $(fn $op(&self, $($argument: $type),*) -> $result {
            // Asked before the op, which may take what it is given.
            let moved = 0 $(+ { let $bytes = Bytes(&self.ops); $moved })?;
            self.profile.time(stringify!($op), moved, || {
                let result = self.ops.$op($($argument),*);
                self.ops.synchronize();
                result
            })
        })*
    };
}

impl<B: Backend> ForwardOps for Timed<B> {
    type Tensor = B::Tensor;
    type Weight = B::Weight;
    type Tokens = B::Tokens;
    type Rotary = B::Rotary;
    type KvCache = B::KvCache;
    type NormSaved = B::NormSaved;
    type SmearSaved = B::SmearSaved;
    type ValueSaved = B::ValueSaved;
    type RotarySaved = B::RotarySaved;
    type AttentionSaved = B::AttentionSaved;

    fn weight_values<'a>(&self, weight: &'a Self::Weight) -> OpResult<Single<'a>> {
        self.ops.weight_values(weight)
    }

    fn rows_stand_alone(&self) -> bool {
        self.ops.rows_stand_alone()
    }

    timed! {
        fn weight(shape: &[usize], values: &[f32]) -> OpResult<Self::Weight>;
        fn table(shape: &[usize], values: &[f32]) -> OpResult<Self::Weight>;
        fn factor(shape: &[usize], values: &[f32]) -> OpResult<Self::Weight>;
        fn tokens(ids: &[i32]) -> OpResult<Self::Tokens>;
        fn tensor_values(tensor: &Self::Tensor) -> OpResult<Vec<f32>>;
        fn tensor(rows: usize, cols: usize, values: &[f32]) -> OpResult<Self::Tensor>;
        fn zeros(rows: usize, cols: usize) -> OpResult<Self::Tensor>;
        fn copy(x: &Self::Tensor) -> OpResult<Self::Tensor>, moves |of| 2 * of.tensor(x);
        fn rows(x: &Self::Tensor, start: usize, count: usize) -> OpResult<Self::Tensor>;
        fn gather(x: &Self::Tensor, rows: &[usize]) -> OpResult<Self::Tensor>;
        fn rotary(len: usize, head_dim: usize, base: f64, precision: Precision) -> OpResult<Self::Rotary>;
        fn embedding(table: &Self::Weight, tokens: &Self::Tokens) -> OpResult<Self::Tensor>;
        fn rms_norm(x: &Self::Tensor, eps: f32) -> OpResult<(Self::Tensor, Self::NormSaved)>, moves |of| 2 * of.tensor(x);
        fn linear(x: &Self::Tensor, w: &Self::Weight) -> OpResult<Self::Tensor>;
        fn linear_add(residual: Self::Tensor, x: &Self::Tensor, w: &Self::Weight) -> OpResult<Self::Tensor>;
        fn add(x: Self::Tensor, y: &Self::Tensor) -> OpResult<Self::Tensor>, moves |of| 2 * of.tensor(&x) + of.tensor(y);
        fn relu_squared(x: &Self::Tensor) -> OpResult<Self::Tensor>, moves |of| 2 * of.tensor(x);
        fn relu_squared_linear_add(residual: Self::Tensor, u: &Self::Tensor, w: &Self::Weight) -> OpResult<Self::Tensor>;
        fn residual_mix(x: &Self::Tensor, x0: &Self::Tensor, resid: &Self::Weight, x0_lambdas: &Self::Weight, layer: usize) -> OpResult<Self::Tensor>, moves |of| 2 * of.tensor(x) + of.tensor(x0);
        fn smear(x: &Self::Tensor, gate: &Self::Weight, lambda: &Self::Weight, sequence: SequenceShape, previous: Option<&Self::Tensor>) -> OpResult<(Self::Tensor, Self::SmearSaved)>, moves |of| 2 * of.tensor(x);
        fn value_embedding(v: Self::Tensor, h: &Self::Tensor, table: &Self::Weight, tokens: &Self::Tokens, gate: &Self::Weight, scale: f32) -> OpResult<(Self::Tensor, Self::ValueSaved)>, moves |of| 3 * of.tensor(&v);
        fn rotary_norm(x: Self::Tensor, rotary: &Self::Rotary, start: usize, sequence: SequenceShape, head_dim: usize, scale: f32, eps: f32) -> OpResult<(Self::Tensor, Self::RotarySaved)>, moves |of| 2 * of.tensor(&x);
        fn attention(q: &Self::Tensor, k: &Self::Tensor, v: &Self::Tensor, shape: &AttentionShape) -> OpResult<(Self::Tensor, Self::AttentionSaved)>;
        fn backout(x: Self::Tensor, kept: &Self::Tensor, lambda: &Self::Weight) -> OpResult<Self::Tensor>, moves |of| 2 * of.tensor(&x) + of.tensor(kept);
        fn cross_entropy(x: &Self::Tensor, lm_head: &Self::Weight, targets: &Self::Tokens, head: &HeadShape) -> OpResult<Vec<f32>>;
        fn logits(x: &Self::Tensor, lm_head: &Self::Weight, head: &HeadShape) -> OpResult<Self::Tensor>;
        fn kv_cache(capacity: usize, cols: usize) -> OpResult<Self::KvCache>;
        fn kv_append(cache: &mut Self::KvCache, k: &Self::Tensor, v: &Self::Tensor) -> OpResult<()>;
        fn kv_begin(cache: &mut Self::KvCache, k: &Self::Tensor, v: &Self::Tensor, positions: usize, kept: usize) -> OpResult<()>;
        fn kv_select(cache: &Self::KvCache, sequences: &[usize], positions: usize) -> OpResult<Self::KvCache>;
        fn attention_cached(q: &Self::Tensor, cache: &Self::KvCache, shape: &AttentionShape) -> OpResult<Self::Tensor>;
    }
}

impl<B: Backend> TrainOps for Timed<B> {
    type Grad = B::Grad;
    type State = B::State;

    fn grad_values<'a>(&self, grad: &'a Self::Grad) -> OpResult<Cow<'a, [f32]>> {
        self.ops.grad_values(grad)
    }

    fn state_values<'a>(&self, state: &'a Self::State) -> OpResult<Single<'a>> {
        self.ops.state_values(state)
    }

    timed! {
        fn grad(shape: &[usize]) -> OpResult<Self::Grad>;
        fn table_grad(shape: &[usize]) -> OpResult<Self::Grad>;
        fn zero_grad(grad: &mut Self::Grad) -> OpResult<()>, moves |of| of.grad(grad);
        fn state(shape: &[usize], values: &[f32]) -> OpResult<Self::State>;
        fn table_state(shape: &[usize], values: &[f32]) -> OpResult<Self::State>;
        fn embedding_backward(tokens: &Self::Tokens, dy: &Self::Tensor, dtable: &mut Self::Grad) -> OpResult<()>, moves |of| 3 * of.tensor(dy);
        fn rms_norm_backward(y: &Self::Tensor, saved: &Self::NormSaved, dy: &Self::Tensor, dresidual: Option<Self::Tensor>) -> OpResult<Self::Tensor>, moves |of| of.tensor(y) + 2 * of.tensor(dy) + dresidual.as_ref().map_or(0, |dx| of.tensor(dx));
        fn linear_backward(x: &Self::Tensor, w: &Self::Weight, dy: &Self::Tensor, dw: &mut Self::Grad, dx: Option<Self::Tensor>) -> OpResult<Self::Tensor>;
        fn relu_squared_backward(x: &Self::Tensor, dy: Self::Tensor) -> OpResult<Self::Tensor>, moves |of| of.tensor(x) + 2 * of.tensor(&dy);
        fn relu_squared_linear_backward(u: &Self::Tensor, w: &Self::Weight, dy: &Self::Tensor, dw: &mut Self::Grad) -> OpResult<Self::Tensor>;
        fn residual_mix_backward(x: &Self::Tensor, x0: &Self::Tensor, resid: &Self::Weight, x0_lambdas: &Self::Weight, layer: usize, dy: Self::Tensor, dx0: &mut Self::Tensor, dresid: &mut Self::Grad, dx0_lambdas: &mut Self::Grad) -> OpResult<Self::Tensor>, moves |of| of.tensor(x) + of.tensor(x0) + 2 * of.tensor(&dy) + 2 * of.tensor(dx0);
        fn smear_backward(x: &Self::Tensor, gate: &Self::Weight, lambda: &Self::Weight, sequence: SequenceShape, saved: &Self::SmearSaved, dy: &Self::Tensor, dgate: &mut Self::Grad, dlambda: &mut Self::Grad) -> OpResult<Self::Tensor>, moves |of| of.tensor(x) + 2 * of.tensor(dy);
        fn value_embedding_backward(h: &Self::Tensor, table: &Self::Weight, tokens: &Self::Tokens, gate: &Self::Weight, scale: f32, saved: &Self::ValueSaved, dv: &Self::Tensor, dtable: &mut Self::Grad, dgate: &mut Self::Grad, dh: &mut Self::Tensor) -> OpResult<()>, moves |of| 4 * of.tensor(dv);
        fn rotary_norm_backward(y: &Self::Tensor, rotary: &Self::Rotary, sequence: SequenceShape, head_dim: usize, scale: f32, saved: &Self::RotarySaved, dy: Self::Tensor) -> OpResult<Self::Tensor>, moves |of| of.tensor(y) + 2 * of.tensor(&dy);
        fn attention_backward(q: &Self::Tensor, k: &Self::Tensor, v: &Self::Tensor, o: &Self::Tensor, saved: &Self::AttentionSaved, shape: &AttentionShape, d_o: &Self::Tensor) -> OpResult<(Self::Tensor, Self::Tensor, Self::Tensor)>;
        fn backout_backward(kept: &Self::Tensor, lambda: &Self::Weight, dy: &Self::Tensor, dlambda: &mut Self::Grad) -> OpResult<Self::Tensor>, moves |of| of.tensor(kept) + 2 * of.tensor(dy);
        fn cross_entropy_train(x: &Self::Tensor, lm_head: &Self::Weight, targets: &Self::Tokens, head: &HeadShape, grad_scale: f32, dlm_head: &mut Self::Grad) -> OpResult<(Vec<f32>, Self::Tensor)>;
        fn adamw(weight: &mut Self::Weight, grad: &Self::Grad, exp_avg: &mut Self::State, exp_avg_sq: &mut Self::State, step: &AdamWStep) -> OpResult<()>, moves |of| 2 * of.weight(weight) + of.grad(grad) + 2 * of.state(exp_avg) + 2 * of.state(exp_avg_sq);
        fn muon(params: &mut [MuonParam<'_, Self::Weight, Self::Grad, Self::State>], step: &MuonStep) -> OpResult<()>;
        fn sgd(weight: &mut Self::Weight, grad: &Self::Grad, momentum: &mut Self::State, step: &SgdStep) -> OpResult<()>, moves |of| 2 * of.weight(weight) + of.grad(grad) + 2 * of.state(momentum);
    }
}

impl<B: Backend> Backend for Timed<B> {
    fn stored_bytes(&self, of: Operand<'_, Self>) -> u64 {
        let bytes = Bytes(&self.ops);
        match of {
            Operand::Tensor(x) => bytes.tensor(x),
            Operand::Weight(w) => bytes.weight(w),
            Operand::Grad(g) => bytes.grad(g),
            Operand::State(s) => bytes.state(s),
        }
    }

    fn live_bytes(&self) -> u64 {
        self.ops.live_bytes()
    }

    fn peak_bytes(&self) -> Option<u64> {
        self.ops.peak_bytes()
    }

    fn allocations(&self) -> Option<u64> {
        self.ops.allocations()
    }

    unsafe fn closely<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: the caller's promise.
        unsafe { self.ops.closely(f) }
    }

    fn synchronize(&self) {
        self.ops.synchronize();
    }

    fn hardware(&self) -> Hardware {
        self.ops.hardware()
    }

    fn environment_class(&self) -> String {
        self.ops.environment_class()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::{Bf16Backend, CpuBackend};

    /// Bytes that the profile has of a norm of 24 values, a sum of two such, and a moment's update of eight weights.
    fn moved(ops: impl Backend) -> Vec<(&'static str, f64)> {
        let profile = Arc::new(Profile::default());
        let timed = Timed::new(ops, Arc::clone(&profile));
        let x = timed.tensor(3, 8, &[1.0; 24]).unwrap();
        let (y, _) = timed.rms_norm(&x, 1e-6).unwrap();
        timed.add(x, &y).unwrap();
        let mut weight = timed.weight(&[8], &[1.0; 8]).unwrap();
        let grad = timed.grad(&[8]).unwrap();
        let state = || timed.state(&[8], &[0.0; 8]).unwrap();
        let (mut first, mut second) = (state(), state());
        let step = AdamWStep {
            bias1: 0.1,
            bias2: 0.01,
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.0,
        };
        timed.adamw(&mut weight, &grad, &mut first, &mut second, &step).unwrap();
        let mut ops: Vec<_> = profile.take(1.0).iter().map(|op| (op.op, op.bytes)).collect();
        ops.retain(|(_, bytes)| *bytes > 0.0);
        ops.sort_by_key(|(op, _)| *op);
        ops
    }

    #[test]
    fn what_an_op_moves_is_what_its_operands_take() {
        let single = [("adamw", 7.0 * 32.0), ("add", 3.0 * 96.0), ("rms_norm", 2.0 * 96.0)];
        assert_eq!(moved(CpuBackend::new(1).unwrap()), single);
        // Weights and their state stay in float32.
        let half = [("adamw", 7.0 * 32.0), ("add", 3.0 * 48.0), ("rms_norm", 2.0 * 48.0)];
        assert_eq!(moved(Bf16Backend::new(1).unwrap()), half);
    }
}
