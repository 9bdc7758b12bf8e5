//! Gathering rows of a table, and the sum of gradients over the rows of each token.

use tch::Tensor;

use super::backend::TorchBackend;
use super::fault::{TchResult, shape_error};
use super::linear::float;
use super::tokens::Tokens;

/// Rows of `table` by token.
pub(super) fn gather(table: &Tensor, tokens: &Tokens) -> TchResult<Tensor> {
    let rows = table.size()[0];
    if let Some(id) = tokens.host.iter().find(|&&id| id < 0 || i64::from(id) >= rows) {
        return Err(shape_error(format!("token {id} in a table of {rows} rows")));
    }
    table.f_index_select(0, &tokens.ids)
}

/// `dtable[token] += dy[row]` over the rows of each token, float32.
pub(super) fn scatter(
    backend: &TorchBackend,
    tokens: &Tokens,
    dy: &Tensor,
    dtable: &mut Tensor,
) -> TchResult<()> {
    let plan = tokens.plan(backend)?;
    let distinct = plan.unique.size()[0];
    if distinct == 0 {
        return Ok(());
    }
    let sum = |rows: &Tensor, offsets: &Tensor| {
        let none = None::<&Tensor>;
        // `unsafe` skips a check of the offsets that would wait for the device.
        Tensor::f_segment_reduce(rows, "sum", none, none, Some(offsets), 0, true, 0.0)
    };
    let mut sums = sum(&float(&dy.f_index_select(0, &plan.order)?)?, &plan.pieces)?;
    if let Some(offsets) = &plan.tokens {
        sums = sum(&sums, offsets)?;
    }
    // Each token once: nothing collides.
    let _ = dtable.f_index_add_(0, &plan.unique, &sums.f_narrow(0, 0, distinct)?)?;
    Ok(())
}
