//! A backend with a stopwatch on every op, which is waited for.

use std::borrow::Cow;
use std::sync::Arc;

use super::profile::Profile;
use crate::ops::{
    AdamWStep, AttentionShape, Backend, ForwardOps, Hardware, HeadShape, MuonParam, MuonStep, OpResult,
    SequenceShape, SgdStep, TrainOps,
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

macro_rules! timed {
    ($(fn $op:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $op(&self, $($argument: $type),*) -> $result {
            self.profile.time(stringify!($op), || {
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
        fn copy(x: &Self::Tensor) -> OpResult<Self::Tensor>;
        fn rows(x: &Self::Tensor, start: usize, count: usize) -> OpResult<Self::Tensor>;
        fn gather(x: &Self::Tensor, rows: &[usize]) -> OpResult<Self::Tensor>;
        fn rotary(len: usize, head_dim: usize, base: f64, precision: Precision) -> OpResult<Self::Rotary>;
        fn embedding(table: &Self::Weight, tokens: &Self::Tokens) -> OpResult<Self::Tensor>;
        fn rms_norm(x: &Self::Tensor, eps: f32) -> OpResult<(Self::Tensor, Self::NormSaved)>;
        fn linear(x: &Self::Tensor, w: &Self::Weight) -> OpResult<Self::Tensor>;
        fn linear_add(residual: Self::Tensor, x: &Self::Tensor, w: &Self::Weight) -> OpResult<Self::Tensor>;
        fn add(x: Self::Tensor, y: &Self::Tensor) -> OpResult<Self::Tensor>;
        fn relu_squared(x: &Self::Tensor) -> OpResult<Self::Tensor>;
        fn relu_squared_linear_add(residual: Self::Tensor, u: &Self::Tensor, w: &Self::Weight) -> OpResult<Self::Tensor>;
        fn residual_mix(x: &Self::Tensor, x0: &Self::Tensor, resid: &Self::Weight, x0_lambdas: &Self::Weight, layer: usize) -> OpResult<Self::Tensor>;
        fn smear(x: &Self::Tensor, gate: &Self::Weight, lambda: &Self::Weight, sequence: SequenceShape, previous: Option<&Self::Tensor>) -> OpResult<(Self::Tensor, Self::SmearSaved)>;
        fn value_embedding(v: Self::Tensor, h: &Self::Tensor, table: &Self::Weight, tokens: &Self::Tokens, gate: &Self::Weight, scale: f32) -> OpResult<(Self::Tensor, Self::ValueSaved)>;
        fn rotary_norm(x: Self::Tensor, rotary: &Self::Rotary, start: usize, sequence: SequenceShape, head_dim: usize, scale: f32, eps: f32) -> OpResult<(Self::Tensor, Self::RotarySaved)>;
        fn attention(q: &Self::Tensor, k: &Self::Tensor, v: &Self::Tensor, shape: &AttentionShape) -> OpResult<(Self::Tensor, Self::AttentionSaved)>;
        fn backout(x: Self::Tensor, kept: &Self::Tensor, lambda: &Self::Weight) -> OpResult<Self::Tensor>;
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
        fn zero_grad(grad: &mut Self::Grad) -> OpResult<()>;
        fn state(shape: &[usize], values: &[f32]) -> OpResult<Self::State>;
        fn table_state(shape: &[usize], values: &[f32]) -> OpResult<Self::State>;
        fn embedding_backward(tokens: &Self::Tokens, dy: &Self::Tensor, dtable: &mut Self::Grad) -> OpResult<()>;
        fn rms_norm_backward(y: &Self::Tensor, saved: &Self::NormSaved, dy: &Self::Tensor, dresidual: Option<Self::Tensor>) -> OpResult<Self::Tensor>;
        fn linear_backward(x: &Self::Tensor, w: &Self::Weight, dy: &Self::Tensor, dw: &mut Self::Grad, dx: Option<Self::Tensor>) -> OpResult<Self::Tensor>;
        fn relu_squared_backward(x: &Self::Tensor, dy: Self::Tensor) -> OpResult<Self::Tensor>;
        fn relu_squared_linear_backward(u: &Self::Tensor, w: &Self::Weight, dy: &Self::Tensor, dw: &mut Self::Grad) -> OpResult<Self::Tensor>;
        fn residual_mix_backward(x: &Self::Tensor, x0: &Self::Tensor, resid: &Self::Weight, x0_lambdas: &Self::Weight, layer: usize, dy: Self::Tensor, dx0: &mut Self::Tensor, dresid: &mut Self::Grad, dx0_lambdas: &mut Self::Grad) -> OpResult<Self::Tensor>;
        fn smear_backward(x: &Self::Tensor, gate: &Self::Weight, lambda: &Self::Weight, sequence: SequenceShape, saved: &Self::SmearSaved, dy: &Self::Tensor, dgate: &mut Self::Grad, dlambda: &mut Self::Grad) -> OpResult<Self::Tensor>;
        fn value_embedding_backward(h: &Self::Tensor, table: &Self::Weight, tokens: &Self::Tokens, gate: &Self::Weight, scale: f32, saved: &Self::ValueSaved, dv: &Self::Tensor, dtable: &mut Self::Grad, dgate: &mut Self::Grad, dh: &mut Self::Tensor) -> OpResult<()>;
        fn rotary_norm_backward(y: &Self::Tensor, rotary: &Self::Rotary, sequence: SequenceShape, head_dim: usize, scale: f32, saved: &Self::RotarySaved, dy: Self::Tensor) -> OpResult<Self::Tensor>;
        fn attention_backward(q: &Self::Tensor, k: &Self::Tensor, v: &Self::Tensor, o: &Self::Tensor, saved: &Self::AttentionSaved, shape: &AttentionShape, d_o: &Self::Tensor) -> OpResult<(Self::Tensor, Self::Tensor, Self::Tensor)>;
        fn backout_backward(kept: &Self::Tensor, lambda: &Self::Weight, dy: &Self::Tensor, dlambda: &mut Self::Grad) -> OpResult<Self::Tensor>;
        fn cross_entropy_train(x: &Self::Tensor, lm_head: &Self::Weight, targets: &Self::Tokens, head: &HeadShape, grad_scale: f32, dlm_head: &mut Self::Grad) -> OpResult<(Vec<f32>, Self::Tensor)>;
        fn adamw(weight: &mut Self::Weight, grad: &Self::Grad, exp_avg: &mut Self::State, exp_avg_sq: &mut Self::State, step: &AdamWStep) -> OpResult<()>;
        fn muon(params: &mut [MuonParam<'_, Self::Weight, Self::Grad, Self::State>], step: &MuonStep) -> OpResult<()>;
        fn sgd(weight: &mut Self::Weight, grad: &Self::Grad, momentum: &mut Self::State, step: &SgdStep) -> OpResult<()>;
    }
}

impl<B: Backend> Backend for Timed<B> {
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
