//! What training keeps of a parameter: its values, its gradient, its optimizer's state.

use tch::{Kind, Tensor};

use super::fault::TchResult;

/// A parameter.
#[derive(Debug)]
pub struct Weight {
    /// What the optimizer updates: float32, or bfloat16 for an embedding table of a bfloat16 run.
    pub(super) master: Tensor,
    /// Copy that products read, where the run is bfloat16 and the master is not.
    compute: Option<Tensor>,
}

impl Weight {
    /// A parameter whose products are computed in `kind`.
    pub(super) fn new(master: Tensor, kind: Kind) -> TchResult<Self> {
        let compute =
            if master.f_kind()? == kind { None } else { Some(master.f_to_dtype(kind, true, true)?) };
        Ok(Self { master, compute })
    }

    /// In the kind of activations.
    pub(super) fn compute(&self) -> &Tensor {
        self.compute.as_ref().unwrap_or(&self.master)
    }

    /// After an update of the master.
    pub(super) fn refresh(&mut self) -> TchResult<()> {
        match &mut self.compute {
            Some(copy) => copy.f_copy_(&self.master),
            None => Ok(()),
        }
    }
}

/// A weight gradient, float32.
#[derive(Debug)]
pub struct Grad(pub(super) Tensor);

/// Optimizer state: float32, or bfloat16 beside a bfloat16 table.
#[derive(Debug)]
pub struct State(pub(super) Tensor);
