//! Losses that a device may still be computing.

use std::fmt;

use super::OpError;

/// Losses of the N tokens of a micro-batch. To read them is to wait for the device, so a step reads them last.
#[must_use = "a failed computation shows when the losses are read"]
pub struct Losses<E = OpError>(Kind<E>);

enum Kind<E> {
    Here(Vec<f32>),
    OnDevice(Box<dyn FnOnce() -> Result<Vec<f32>, E>>),
}

impl<E: 'static> Losses<E> {
    /// Losses that `read` fetches.
    pub fn on_device(read: impl FnOnce() -> Result<Vec<f32>, E> + 'static) -> Self {
        Self(Kind::OnDevice(Box::new(read)))
    }

    /// Waits for the losses.
    ///
    /// # Errors
    /// The backend's, where it failed on the way to them.
    pub fn read(self) -> Result<Vec<f32>, E> {
        match self.0 {
            Kind::Here(losses) => Ok(losses),
            Kind::OnDevice(read) => read(),
        }
    }

    /// The same with another error.
    pub fn map_err<F: 'static>(self, told: impl FnOnce(E) -> F + 'static) -> Losses<F> {
        match self.0 {
            Kind::Here(losses) => losses.into(),
            Kind::OnDevice(read) => Losses::on_device(|| read().map_err(told)),
        }
    }
}

impl<E> From<Vec<f32>> for Losses<E> {
    fn from(losses: Vec<f32>) -> Self {
        Self(Kind::Here(losses))
    }
}

impl<E> fmt::Debug for Losses<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Here(losses) => f.debug_tuple("Losses").field(losses).finish(),
            Kind::OnDevice(_) => f.write_str("Losses(on the device)"),
        }
    }
}
