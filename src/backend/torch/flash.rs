//! Flash attention: which heads it takes, and whether it works here.

/// Whether the kernel takes heads of this size; the others go through the blocks.
pub(super) fn takes(head_dim: usize) -> bool {
    head_dim.is_multiple_of(8) && head_dim <= 256
}

/// Tries it on this device against the blocks, on a small case with a window, two sequences and shared key heads.
///
/// # Errors
/// Why a libtorch or GPU is without it.
#[cfg(feature = "tch")]
pub(super) fn trial(device: tch::Device) -> super::fault::TchResult<()> {
    use tch::{Kind, Tensor};

    use super::attention::{backward, forward};
    use super::fault::{TchResult, shape_error};
    use super::linear::float;
    use crate::ops::{AttentionShape, SequenceShape};

    let sequence = SequenceShape { batch: 2, len: 160 };
    let shape = AttentionShape { sequence, n_head: 4, n_kv_head: 2, head_dim: 64, window: 40 };
    let wave = |cols: i64, frequency: f64| -> TchResult<Tensor> {
        Tensor::f_arange(320 * cols, (Kind::Float, device))?
            .f_mul_scalar(frequency)?
            .f_sin()?
            .f_view_([320, cols])?
            .f_to_dtype(Kind::BFloat16, false, false)
    };
    let (q, k, v, d_o) = (wave(256, 0.7)?, wave(128, 1.3)?, wave(128, 0.31)?, wave(256, 0.17)?);
    let gradients = |flash| {
        let (o, saved) = forward(&q, &k, &v, &shape, flash)?;
        let (dq, dk, dv) = backward(&q, &k, &v, &o, &saved, &shape, &d_o)?;
        Ok::<_, tch::TchError>([o, dq, dk, dv])
    };
    for (ours, theirs) in gradients(false)?.iter().zip(&gradients(true)?) {
        let largest = float(ours)?.f_abs()?.f_max()?.f_double_value(&[])?;
        let apart = float(ours)?.f_sub_(&float(theirs)?)?.f_abs()?.f_max()?.f_double_value(&[])?;
        if apart.is_nan() || apart > 0.03 * largest {
            return Err(shape_error(format!("a trial came out {apart} apart, of {largest}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_are_no_multiple_of_eight_or_too_large_are_not_taken() {
        assert_eq!(
            [8, 12, 24, 64, 128, 250, 256, 264].map(takes),
            [true, false, true, true, true, false, true, false]
        );
    }
}
