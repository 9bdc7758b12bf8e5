//! The optimizer of a whole model: which update each parameter gets, and its state.

use crate::error::{Error, Result};
use crate::model::param::{ParamSpec, Params};
use crate::ops::{AdamWStep, MuonParam, MuonStep, OpError, OpResult, SgdStep, TrainOps};
use crate::tensors::SingleTensor;

use super::config::{AdamWConfig, GroupConfig, MuonConfig, OptimizerConfig, SgdConfig, StepValues};

/// State of the optimizer for one parameter.
enum Slot<S> {
    Adamw { exp_avg: S, exp_avg_sq: S },
    Muon { momentum: S, second_moment: S },
    Sgd { momentum: S },
}

/// Optimizer and state of every parameter of a model.
pub struct Optimizer<B: TrainOps> {
    /// In the model's order.
    params: Vec<Param>,
    /// Matrices updated by one call: equal shape and constants. Indices into `params`.
    muon_groups: Vec<Vec<usize>>,
    slots: Vec<Slot<B::State>>,
    /// Steps taken.
    steps: u64,
}

/// A parameter as its updates see it.
struct Param {
    name: String,
    shape: Vec<usize>,
    config: GroupConfig,
    /// Whether it is an embedding table updated by AdamW, whose moments may be stored as the table is.
    table: bool,
}

impl Param {
    fn state<B: TrainOps>(&self, ops: &B, shape: &[usize], values: &[f32]) -> OpResult<B::State> {
        if self.table { ops.table_state(shape, values) } else { ops.state(shape, values) }
    }
}

/// Names and shapes of the state of one parameter.
fn slot_shapes(config: &GroupConfig, shape: &[usize]) -> Vec<(&'static str, Vec<usize>)> {
    match config {
        GroupConfig::Adamw(_) => vec![("exp_avg", shape.to_vec()), ("exp_avg_sq", shape.to_vec())],
        GroupConfig::Muon(_) => {
            let (rows, cols) = matrix_shape(shape);
            // NorMuon keeps one value a row of a tall matrix, one a column of a wide one.
            let factored = if rows >= cols { vec![rows, 1] } else { vec![1, cols] };
            vec![("momentum_buffer", shape.to_vec()), ("second_momentum_buffer", factored)]
        }
        GroupConfig::Sgd(_) => vec![("momentum_buffer", shape.to_vec())],
    }
}

/// Values of the optimizer's state of a parameter.
///
/// # Errors
/// A parameter whose group `config` does not mention.
pub fn state_elements(config: &OptimizerConfig, spec: &ParamSpec) -> Result<u64> {
    let (_, config) = config.groups.iter().find(|(group, _)| *group == spec.group).ok_or_else(|| {
        Error::internal(format!("no optimizer for group {:?} of `{}`", spec.group, spec.name))
    })?;
    let len = |shape: Vec<usize>| shape.into_iter().fold(1_u64, |len, size| len.saturating_mul(size as u64));
    Ok(slot_shapes(config, &spec.shape).into_iter().map(|(_, shape)| len(shape)).fold(0, u64::saturating_add))
}

fn matrix_shape(shape: &[usize]) -> (usize, usize) {
    match shape {
        [rows, cols] => (*rows, *cols),
        _ => (shape.iter().product(), 1),
    }
}

impl<B: TrainOps> Optimizer<B> {
    /// An optimizer with zeroed state.
    ///
    /// # Errors
    /// A parameter whose group `config` does not mention; memory that cannot be had.
    pub fn new(ops: &B, specs: &[ParamSpec], config: &OptimizerConfig) -> Result<Self> {
        let params = specs
            .iter()
            .map(|spec| {
                let group =
                    config.groups.iter().find(|(group, _)| *group == spec.group).ok_or_else(|| {
                        Error::internal(format!("no optimizer for group {:?} of `{}`", spec.group, spec.name))
                    })?;
                let config = group.1.clone();
                let table = spec.group.is_table() && matches!(config, GroupConfig::Adamw(_));
                Ok(Param { name: spec.name.clone(), shape: spec.shape.clone(), config, table })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut muon_groups: Vec<Vec<usize>> = Vec::new();
        for (index, param) in params.iter().enumerate() {
            if !matches!(param.config, GroupConfig::Muon(_)) {
                continue;
            }
            let alike = |other: &Param| other.shape == param.shape && other.config == param.config;
            let same = |group: &&mut Vec<usize>| group.first().is_some_and(|&i| alike(&params[i]));
            match muon_groups.iter_mut().find(same) {
                Some(group) => group.push(index),
                None => muon_groups.push(vec![index]),
            }
        }
        let slots = params
            .iter()
            .map(|param| {
                let mut states = slot_shapes(&param.config, &param.shape)
                    .into_iter()
                    .map(|(_, shape)| ops.zero_state(&shape, param.table));
                slot(&param.config, &mut states)
            })
            .collect::<OpResult<Vec<_>>>()
            .map_err(|e| Error::run("the optimizer's state cannot be made").because(e))?;
        Ok(Self { params, muon_groups, slots, steps: 0 })
    }
    /// One update of every weight. Gradients may be used as scratch.
    pub fn step(
        &mut self,
        ops: &B,
        weights: &mut Params<B::Weight>,
        grads: &mut Params<B::Grad>,
        values: &StepValues,
    ) -> OpResult<()> {
        self.steps += 1;
        for (index, Param { config, .. }) in self.params.iter().enumerate() {
            let (weight, grad) = (&mut weights.0[index], &grads.0[index]);
            match (config, &mut self.slots[index]) {
                (GroupConfig::Adamw(config), Slot::Adamw { exp_avg, exp_avg_sq }) => {
                    ops.adamw(weight, grad, exp_avg, exp_avg_sq, &adamw_step(config, values, self.steps))?;
                }
                (GroupConfig::Sgd(config), Slot::Sgd { momentum }) => {
                    ops.sgd(weight, grad, momentum, &sgd_step(config, values))?;
                }
                _ => {}
            }
        }
        for group in &self.muon_groups {
            let Some(&first) = group.first() else { continue };
            let Param { shape, config: GroupConfig::Muon(config), .. } = &self.params[first] else {
                continue;
            };
            let step = muon_step(config, values, shape);
            let mut batch = Vec::with_capacity(group.len());
            let each = weights.0.iter_mut().zip(&mut grads.0).zip(&mut self.slots).enumerate();
            for (index, ((weight, grad), slot)) in each {
                if let (true, Slot::Muon { momentum, second_moment }) = (group.contains(&index), slot) {
                    batch.push(MuonParam { weight, grad, momentum, second_moment });
                }
            }
            ops.muon(&mut batch, &step)?;
        }
        Ok(())
    }

    /// Its state, for a checkpoint.
    // Named `parameter name` + `.` + `exp_avg`, `exp_avg_sq`, `momentum_buffer` or `second_momentum_buffer`.
    pub fn export(&self, ops: &B) -> OpResult<Vec<SingleTensor<'_>>> {
        let mut all = Vec::new();
        for (Param { name, shape, config, .. }, slot) in self.params.iter().zip(&self.slots) {
            let states = match slot {
                Slot::Adamw { exp_avg, exp_avg_sq } => vec![exp_avg, exp_avg_sq],
                Slot::Muon { momentum, second_moment } => vec![momentum, second_moment],
                Slot::Sgd { momentum } => vec![momentum],
            };
            for ((slot, shape), state) in slot_shapes(config, shape).into_iter().zip(states) {
                all.push(SingleTensor {
                    name: format!("{name}.{slot}"),
                    shape,
                    values: ops.state_values(state)?,
                });
            }
        }
        Ok(all)
    }

    /// Takes up exported state after `steps` steps.
    ///
    /// # Errors
    /// State that is missing or of another shape, by name.
    pub fn import(&mut self, ops: &B, steps: u64, states: &[SingleTensor<'_>]) -> Result<()> {
        for (param, target) in self.params.iter().zip(&mut self.slots) {
            let Param { name, shape, config, .. } = param;
            let mut found = Vec::new();
            for (slot, shape) in slot_shapes(config, shape) {
                let full = format!("{name}.{slot}");
                let state = states.iter().find(|state| state.name == full).ok_or_else(|| {
                    Error::input(format!("the checkpoint lacks the optimizer state `{full}`"))
                })?;
                if state.shape != shape {
                    return Err(Error::input(format!(
                        "optimizer state `{full}` has shape {:?} in the checkpoint",
                        state.shape
                    ))
                    .expected(format!("{shape:?}")));
                }
                found.push(state);
            }
            let mut states =
                found.into_iter().map(|state| param.state(ops, &state.shape, &state.values.wide()));
            *target = slot(config, &mut states)
                .map_err(|e| Error::run("the optimizer's state cannot be restored").because(e))?;
        }
        self.steps = steps;
        Ok(())
    }
}

/// The slot of a parameter from its states in the order of [`slot_shapes`].
fn slot<S>(config: &GroupConfig, states: &mut dyn Iterator<Item = OpResult<S>>) -> OpResult<Slot<S>> {
    let mut next = || {
        states.next().unwrap_or(Err(OpError::Backend { op: "state", message: "too few states".to_owned() }))
    };
    Ok(match config {
        GroupConfig::Adamw(_) => Slot::Adamw { exp_avg: next()?, exp_avg_sq: next()? },
        GroupConfig::Muon(_) => Slot::Muon { momentum: next()?, second_moment: next()? },
        GroupConfig::Sgd(_) => Slot::Sgd { momentum: next()? },
    })
}

/// Upstream holds these scalars in float32 tensors, so powers and differences are taken in float32 too.
pub fn adamw_step(config: &AdamWConfig, values: &StepValues, step: u64) -> AdamWStep {
    let (beta1, beta2) = (config.beta1 as f32, config.beta2 as f32);
    AdamWStep {
        lr: (config.lr * values.lr_multiplier) as f32,
        beta1,
        beta2,
        bias1: 1.0 - libm::powf(beta1, step as f32),
        bias2: 1.0 - libm::powf(beta2, step as f32),
        eps: config.eps as f32,
        weight_decay: config.weight_decay as f32,
    }
}

/// The scalars of a Muon update of matrices of this shape.
pub fn muon_step(config: &MuonConfig, values: &StepValues, shape: &[usize]) -> MuonStep {
    let (rows, cols) = matrix_shape(shape);
    let tall = (rows as f64 / cols as f64).max(1.0).sqrt();
    MuonStep {
        lr: (config.lr * values.lr_multiplier * tall) as f32,
        momentum: values.muon_momentum as f32,
        weight_decay: values.muon_weight_decay as f32,
        beta2: config.beta2 as f32,
        norm_factor: config.norm_factor as f32,
        ns_steps: config.ns_steps,
        row_equilibration: config.row_equilibration,
        renormalize: config.renormalize,
        polar_precision: config.polar_precision,
        update_precision: config.update_precision,
    }
}

/// The scalars of an SGD update.
pub fn sgd_step(config: &SgdConfig, values: &StepValues) -> SgdStep {
    SgdStep {
        lr: (config.lr * values.lr_multiplier) as f32,
        momentum: config.momentum as f32,
        weight_decay: config.weight_decay as f32,
    }
}
