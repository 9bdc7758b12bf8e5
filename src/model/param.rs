//! Parameters: their names, shapes, groups and initial values, and containers indexed by them.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

/// Which of upstream's optimizer groups a parameter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamGroup {
    /// Unembedding.
    LmHead,
    /// Token embedding.
    Wte,
    /// Value embeddings.
    ValueEmbeds,
    /// Residual lambdas.
    Resid,
    /// x0 lambdas.
    X0,
    /// Smear gate, smear lambda, backout lambda.
    Smear,
    /// Everything inside the blocks.
    Matrix,
}

impl ParamGroup {
    /// Whether its parameters are embedding tables: gathered from, or multiplied as a tied `lm_head`.
    pub fn is_table(self) -> bool {
        matches!(self, Self::Wte | Self::ValueEmbeds)
    }
}

/// How a parameter starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform.
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// Given values, without a draw.
    Values(Vec<f32>),
    /// One value everywhere, without a draw.
    Constant(f32),
}

/// A parameter before it has a value.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Its name in upstream's state dict.
    pub name: String,
    /// Its shape, at most two dimensions.
    pub shape: Vec<usize>,
    /// Its optimizer group.
    pub group: ParamGroup,
    /// How it starts.
    pub init: Init,
    /// Its place in the order in which upstream draws initial values.
    pub draw_order: usize,
}

impl ParamSpec {
    /// Whether the forward only multiplies activations with it: all matrices but the gates of value embeddings, which
    /// are read value by value, and tables.
    pub fn is_factor(&self) -> bool {
        match self.group {
            ParamGroup::LmHead => true,
            ParamGroup::Matrix => self.shape.len() == 2 && !self.name.ends_with("ve_gate.weight"),
            _ => false,
        }
    }

    /// How many values it has.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Index of a parameter in its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub usize);

/// One `T` a parameter, in the order of the model's specs: weights, gradients, optimizer state.
#[derive(Debug, Clone, Default)]
pub struct Params<T>(pub Vec<T>);

impl<T> Params<T> {
    /// Two of them at once, mutably; `a` and `b` differ.
    pub fn pair_mut(&mut self, a: ParamId, b: ParamId) -> Option<(&mut T, &mut T)> {
        self.0.get_disjoint_mut([a.0, b.0]).ok().map(|[x, y]| (x, y))
    }
}

impl<T> Index<ParamId> for Params<T> {
    type Output = T;

    fn index(&self, id: ParamId) -> &T {
        &self.0[id.0]
    }
}

impl<T> IndexMut<ParamId> for Params<T> {
    fn index_mut(&mut self, id: ParamId) -> &mut T {
        &mut self.0[id.0]
    }
}
