//! Gathering rows of a table, and the sum of gradients over the rows of each token.

use tch::Tensor;

use super::backend::{Tokens, TorchBackend};
use super::fault::{TchResult, shape_error};
use super::linear::float;

/// Rows summed in one go; more rows of one token are summed in pieces of this length first.
const PIECE: usize = 64;

/// The order in which gradients of equal tokens are summed. It depends on the tokens alone: rows sorted by token (in
/// row order within one), cut into pieces of [`PIECE`], then the pieces of each token.
///
/// How many pieces and tokens there are is the data's, but sizes of tensors are not: there are as many of each as rows, the
/// last of them empty, so that every micro-batch asks for memory of the same sizes.
#[derive(Debug)]
pub(super) struct SegmentPlan {
    /// Rows sorted by token, (N) int64.
    order: Tensor,
    /// Where each piece starts in `order`, and the end of the last, (N + 1).
    pieces: Tensor,
    /// Where each token's pieces start, and the end of the last, (N + 1); none where every token has one piece.
    tokens: Option<Tensor>,
    /// The tokens, ascending: a view of as many as there are.
    unique: Tensor,
}

impl SegmentPlan {
    fn new(ids: &[i32], backend: &TorchBackend) -> TchResult<Self> {
        let mut order: Vec<i64> = (0..ids.len()).filter(|&row| ids[row] >= 0).map(|row| row as i64).collect();
        order.sort_by_key(|&row| ids[row as usize]);
        let (mut pieces, mut tokens, mut unique) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for group in order.chunk_by(|&a, &b| ids[a as usize] == ids[b as usize]) {
            unique.push(i64::from(ids[group[0] as usize]));
            tokens.push(pieces.len() as i64);
            pieces.extend((0..group.len()).step_by(PIECE).map(|offset| (start + offset) as i64));
            start += group.len();
        }
        let several = pieces.len() > unique.len();
        let (rows, distinct) = (order.len(), unique.len() as i64);
        tokens.resize(rows + 1, pieces.len() as i64);
        pieces.resize(rows + 1, start as i64);
        unique.resize(rows, 0);
        let upload = |values: &[i64]| backend.upload_ids(values);
        Ok(Self {
            order: upload(&order)?,
            pieces: upload(&pieces)?,
            tokens: if several { Some(upload(&tokens)?) } else { None },
            unique: upload(&unique)?.f_narrow(0, 0, distinct)?,
        })
    }
}

impl Tokens {
    /// The plan, made once a micro-batch.
    fn plan(&self, backend: &TorchBackend) -> TchResult<&SegmentPlan> {
        if let Some(plan) = self.plan.get() {
            return Ok(plan);
        }
        let plan = SegmentPlan::new(&self.host, backend)?;
        Ok(self.plan.get_or_init(|| plan))
    }
}

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
