//! Lambdas without effect: what upstream's numbers say of them is rounding.
//!
//! Their gradient is zero in exact arithmetic. What float32 leaves of it Adam's first step divides by itself: a step of
//! up to one learning rate, in a direction that depends on the order of sums. Such numbers are not compared; that the
//! gradient is rounding and the step no longer than that is.

use crate::model::param::{ParamGroup, ParamSpec};

/// The lambdas without effect, as indices of `specs`.
///
/// While every projection is zero, the residual, x0 and backout lambdas only scale one vector that a norm follows. In a
/// model of one or two layers backout takes the last block's output from itself: again a scale before a norm.
pub(super) fn idle_lambdas(specs: &[ParamSpec], values: &[Vec<f32>], n_layer: usize) -> Vec<usize> {
    let mut projections = specs.iter().zip(values).filter(|(spec, _)| spec.name.ends_with("c_proj.weight"));
    let blocks_add_nothing = projections.all(|(_, values)| values.iter().all(|value| *value == 0.0));
    let idle = |spec: &ParamSpec| match spec.group {
        ParamGroup::Resid | ParamGroup::X0 => blocks_add_nothing,
        _ => spec.name == "backout_lambda" && (blocks_add_nothing || n_layer <= 2),
    };
    specs.iter().enumerate().filter(|(_, spec)| idle(spec)).map(|(index, _)| index).collect()
}

/// `values` without those at `indices`.
pub(super) fn without<T: Clone>(values: &[T], indices: &[usize]) -> Vec<T> {
    let kept = values.iter().enumerate().filter(|(index, _)| !indices.contains(index));
    kept.map(|(_, value)| value.clone()).collect()
}
