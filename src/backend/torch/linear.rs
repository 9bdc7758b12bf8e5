//! Products with weights and their backwards.

use tch::{Device, Kind, Tensor};

use super::fault::{TchResult, shape_error};

/// `x w^T`.
pub(super) fn linear(x: &Tensor, w: &Tensor) -> TchResult<Tensor> {
    x.f_mm(&w.f_transpose(0, 1)?)
}

/// `dw += dy^T x` in float32.
pub(super) fn accumulate(dw: &mut Tensor, dy: &Tensor, x: &Tensor, mixed_addmm: bool) -> TchResult<()> {
    let dy = dy.f_transpose(0, 1)?;
    if x.f_kind()? == Kind::Float {
        let _ = dw.f_addmm_(&dy, x)?;
    } else if mixed_addmm {
        let _ = dw.f_addmm_dtype_out(dw, &dy, x, Kind::Float)?;
    } else {
        // Products of bfloat16 are exact in float32, so this differs from the fused call only in summation order.
        let _ = dw.f_addmm_(&float(&dy)?, &float(x)?)?;
    }
    Ok(())
}

/// `dy w`, added to `dx` if given.
pub(super) fn input_gradient(dy: &Tensor, w: &Tensor, dx: Option<Tensor>) -> TchResult<Tensor> {
    match dx {
        Some(mut dx) => dx.f_addmm_(dy, w),
        None => dy.f_mm(w),
    }
}

/// The values as float32; no copy where they are.
pub(super) fn float(x: &Tensor) -> TchResult<Tensor> {
    x.f_to_dtype(Kind::Float, true, false)
}

/// Tries the call that adds bfloat16 products to float32, on a product whose value is known.
///
/// # Errors
/// Why the device is without it.
pub(super) fn trial(device: Device) -> TchResult<()> {
    let mut sum = Tensor::f_ones([16, 16], (Kind::Float, device))?;
    let a = Tensor::f_ones([16, 16], (Kind::BFloat16, device))?;
    let _ = sum.f_addmm_dtype_out(&sum, &a, &a, Kind::Float)?;
    let _ = sum.f_sub_(&Tensor::f_full([16, 16], 17.0, (Kind::Float, device))?)?;
    let apart = sum.f_abs()?.f_max()?.f_double_value(&[])?;
    if apart == 0.0 { Ok(()) } else { Err(shape_error(format!("a trial came out {apart} apart, of 17"))) }
}
