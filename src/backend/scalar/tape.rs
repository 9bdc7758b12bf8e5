//! The tape: one entry an arithmetic operation, with its parents and the local partial derivatives.
//!
//! Entries lie in flat arrays in the order of the computation, so the reverse of that order is a valid order for the
//! chain rule and one sweep gives every gradient. The tape knows scalars and weights; it knows nothing of the ops.

use std::collections::BTreeMap;

use super::weight::{Weight, WeightId};

/// Node of a scalar that no weight reaches, or that was computed while nothing was recorded.
const CONSTANT: u32 = u32::MAX;

/// A value and its place on the tape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalar {
    value: f64,
    node: u32,
}

impl Scalar {
    /// A value with no derivative.
    pub(super) fn constant(value: f64) -> Self {
        Self { value, node: CONSTANT }
    }

    /// Its value.
    pub(super) fn value(self) -> f64 {
        self.value
    }
}

/// A weight as the ops read it: its values, on the tape if the tape is recording.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaves<'a> {
    values: &'a [f64],
    first: Option<u32>,
}

impl<'a> Leaves<'a> {
    /// Entry `index`; the ops check sizes before they come here.
    pub(super) fn get(self, index: usize) -> Scalar {
        let node = self.first.map_or(CONSTANT, |first| first + index as u32);
        Scalar { value: self.values[index], node }
    }

    /// Entries `start .. start + count`.
    pub(super) fn range(self, start: usize, count: usize) -> impl Iterator<Item = Scalar> + Clone + 'a {
        (start..start + count).map(move |index| self.get(index))
    }
}

/// What the tape of one computation took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapeCost {
    /// Entries, those of the weights included.
    pub nodes: usize,
    /// Parents of all entries together.
    pub edges: usize,
    /// Bytes of both.
    pub bytes: usize,
}

/// The recorded operations since the last [`Tape::clear`].
#[derive(Debug)]
pub(super) struct Tape {
    recording: bool,
    /// End of each node's run in `parents` and `partials`; it starts where the node before ends.
    ends: Vec<usize>,
    parents: Vec<u32>,
    partials: Vec<f64>,
    /// First node of every weight that was read.
    weights: BTreeMap<WeightId, (u32, usize)>,
    max_bytes: usize,
    full: bool,
}

impl Tape {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            recording: false,
            ends: Vec::new(),
            parents: Vec::new(),
            partials: Vec::new(),
            weights: BTreeMap::new(),
            max_bytes,
            full: false,
        }
    }

    /// Forgets everything recorded, keeps the memory for the next step, and starts or stops recording.
    pub(super) fn clear(&mut self, recording: bool) {
        self.recording = recording;
        self.ends.clear();
        self.parents.clear();
        self.partials.clear();
        self.weights.clear();
        self.full = false;
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recording
    }

    /// Whether something had to be left out because it would not have fitted.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(super) fn cost(&self) -> TapeCost {
        TapeCost { nodes: self.ends.len(), edges: self.parents.len(), bytes: self.bytes() }
    }

    fn bytes(&self) -> usize {
        self.ends.len() * size_of::<usize>() + self.parents.len() * (size_of::<u32>() + size_of::<f64>())
    }

    /// A weight joins the tape when it is first read.
    pub(super) fn leaves<'a>(&mut self, weight: &'a Weight) -> Leaves<'a> {
        let values = weight.values();
        if !self.recording {
            return Leaves { values, first: None };
        }
        if let Some((first, _)) = self.weights.get(&weight.id()) {
            return Leaves { values, first: Some(*first) };
        }
        let first = self.ends.len();
        if first + values.len() >= CONSTANT as usize {
            self.full = true;
            return Leaves { values, first: None };
        }
        self.ends.resize(first + values.len(), self.parents.len());
        self.weights.insert(weight.id(), (first as u32, values.len()));
        Leaves { values, first: Some(first as u32) }
    }

    /// A new scalar with its parents and the partial derivatives with respect to them.
    fn push(&mut self, value: f64, edges: impl IntoIterator<Item = (Scalar, f64)>) -> Scalar {
        if !self.recording || self.full {
            return Scalar::constant(value);
        }
        let start = self.parents.len();
        for (parent, partial) in edges {
            if parent.node != CONSTANT {
                self.parents.push(parent.node);
                self.partials.push(partial);
            }
        }
        let node = self.ends.len();
        if self.parents.len() == start {
            return Scalar::constant(value);
        }
        self.full = node + 1 >= CONSTANT as usize || self.bytes() > self.max_bytes;
        self.ends.push(self.parents.len());
        Scalar { value, node: node as u32 }
    }

    pub(super) fn add(&mut self, a: Scalar, b: Scalar) -> Scalar {
        self.push(a.value + b.value, [(a, 1.0), (b, 1.0)])
    }

    pub(super) fn sub(&mut self, a: Scalar, b: Scalar) -> Scalar {
        self.push(a.value - b.value, [(a, 1.0), (b, -1.0)])
    }

    pub(super) fn mul(&mut self, a: Scalar, b: Scalar) -> Scalar {
        self.push(a.value * b.value, [(a, b.value), (b, a.value)])
    }

    pub(super) fn div(&mut self, a: Scalar, b: Scalar) -> Scalar {
        let quotient = a.value / b.value;
        self.push(quotient, [(a, 1.0 / b.value), (b, -quotient / b.value)])
    }

    /// `factor * a`.
    pub(super) fn scale(&mut self, a: Scalar, factor: f64) -> Scalar {
        self.mul(a, Scalar::constant(factor))
    }

    /// `a + offset`.
    pub(super) fn shift(&mut self, a: Scalar, offset: f64) -> Scalar {
        self.add(a, Scalar::constant(offset))
    }

    pub(super) fn exp(&mut self, a: Scalar) -> Scalar {
        let value = libm::exp(a.value);
        self.push(value, [(a, value)])
    }

    pub(super) fn log(&mut self, a: Scalar) -> Scalar {
        self.push(libm::log(a.value), [(a, 1.0 / a.value)])
    }

    pub(super) fn tanh(&mut self, a: Scalar) -> Scalar {
        let value = libm::tanh(a.value);
        self.push(value, [(a, 1.0 - value * value)])
    }

    pub(super) fn sqrt(&mut self, a: Scalar) -> Scalar {
        let value = a.value.sqrt();
        self.push(value, [(a, 0.5 / value)])
    }

    /// `max(a, 0)`; the derivative at 0 is 0.
    pub(super) fn relu(&mut self, a: Scalar) -> Scalar {
        let slope = f64::from(u8::from(a.value > 0.0));
        self.push(a.value.max(0.0), [(a, slope)])
    }

    /// `1 / (1 + exp(-a))`.
    pub(super) fn sigmoid(&mut self, a: Scalar) -> Scalar {
        let negative = self.scale(a, -1.0);
        let exponential = self.exp(negative);
        let denominator = self.shift(exponential, 1.0);
        self.div(Scalar::constant(1.0), denominator)
    }

    pub(super) fn sum(&mut self, terms: impl Iterator<Item = Scalar> + Clone) -> Scalar {
        let value = terms.clone().map(Scalar::value).sum();
        self.push(value, terms.map(|term| (term, 1.0)))
    }

    /// The sum of the products of the pairs.
    pub(super) fn dot(&mut self, pairs: impl Iterator<Item = (Scalar, Scalar)> + Clone) -> Scalar {
        let value = pairs.clone().map(|(a, b)| a.value * b.value).sum();
        self.push(value, pairs.flat_map(|(a, b)| [(a, b.value), (b, a.value)]))
    }

    /// `exp(x_i) / sum_j exp(x_j)`. The largest value is subtracted first, as a constant: the result does not depend
    /// on it.
    pub(super) fn softmax(&mut self, scores: &[Scalar]) -> Vec<Scalar> {
        let largest = largest(scores);
        let exponentials: Vec<Scalar> = scores
            .iter()
            .map(|score| {
                let shifted = self.shift(*score, -largest);
                self.exp(shifted)
            })
            .collect();
        let total = self.sum(exponentials.iter().copied());
        exponentials.iter().map(|exponential| self.div(*exponential, total)).collect()
    }

    /// `log sum_j exp(x_j)`.
    pub(super) fn log_sum_exp(&mut self, scores: &[Scalar]) -> Scalar {
        let largest = largest(scores);
        let exponentials: Vec<Scalar> = scores
            .iter()
            .map(|score| {
                let shifted = self.shift(*score, -largest);
                self.exp(shifted)
            })
            .collect();
        let total = self.sum(exponentials.iter().copied());
        let log = self.log(total);
        self.shift(log, largest)
    }

    /// Gradients of `result` with respect to every weight on the tape: one sweep from the last entry to the first.
    pub(super) fn backward(&self, result: Scalar) -> BTreeMap<WeightId, Vec<f64>> {
        let mut gradients = vec![0.0; self.ends.len()];
        if result.node != CONSTANT {
            gradients[result.node as usize] = 1.0;
            for node in (0..=result.node as usize).rev() {
                let gradient = gradients[node];
                let start = if node == 0 { 0 } else { self.ends[node - 1] };
                let edges = start..self.ends[node];
                for (parent, partial) in self.parents[edges.clone()].iter().zip(&self.partials[edges]) {
                    gradients[*parent as usize] += gradient * partial;
                }
            }
        }
        let of_weight = |(first, count): (u32, usize)| gradients[first as usize..][..count].to_vec();
        self.weights.iter().map(|(id, nodes)| (*id, of_weight(*nodes))).collect()
    }
}

fn largest(scores: &[Scalar]) -> f64 {
    scores.iter().map(|score| score.value).fold(f64::NEG_INFINITY, f64::max)
}
