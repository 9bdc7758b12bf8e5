//! The backend traits: the operations of the field, documented, without an implementation.
//!
//! [`ForwardOps`] is enough to evaluate and sample a model; [`TrainOps`] adds hand-written backwards and fused
//! optimizer updates. `model` composes them once for every backend. Shapes are written with these letters:
//!
//! | letter | meaning |
//! |---|---|
//! | B, T | sequences in a batch, positions in a sequence |
//! | N | tokens, `B * T`, row `b * T + t` |
//! | C | channels of the residual stream (`n_embd`) |
//! | H, K, D | query heads, key/value heads, head size |
//! | V | vocabulary; tables and `lm_head` have at least V rows |
//!
//! All activations are row-major matrices. Weights have torch's `nn.Linear` layout, `(out, in)`.
//! An op that takes a tensor by value may reuse its memory for its result.

mod backend;
mod forward;
mod losses;
mod train;
mod types;

pub use backend::{Backend, Hardware, Operand};
pub use forward::ForwardOps;
pub use losses::Losses;
pub use train::TrainOps;
pub use types::{
    AdamWStep, AttentionShape, HeadShape, MuonParam, MuonStep, OpError, OpResult, SequenceShape, SgdStep,
};
