//! Token ids, and the order in which what belongs to equal tokens is summed.

use std::cell::OnceCell;

use tch::Tensor;

use super::backend::TorchBackend;
use super::fault::TchResult;

/// Token ids on host and device.
#[derive(Debug)]
pub struct Tokens {
    pub(super) host: Vec<i32>,
    /// (N) int64.
    pub(super) ids: Tensor,
    /// Made by the first gradient that needs it, used by all tables.
    plan: OnceCell<SegmentPlan>,
}

/// Rows summed in one go; more rows of one token are summed in pieces of this length first.
const PIECE: usize = 64;

/// The order in which gradients of equal tokens are summed. It depends on the tokens alone: rows sorted by token (in
/// row order within one), cut into pieces of [`PIECE`], then the pieces of each token.
///
/// How many pieces and tokens there are is the data's, but sizes of tensors are not: there are as many of each as rows,
/// the last of them empty, so that every micro-batch asks for memory of the same sizes.
#[derive(Debug)]
pub(super) struct SegmentPlan {
    /// Rows sorted by token, (N) int64.
    pub(super) order: Tensor,
    /// Where each piece starts in `order`, and the end of the last, (N + 1).
    pub(super) pieces: Tensor,
    /// Where each token's pieces start, and the end of the last, (N + 1); none where every token has one piece.
    pub(super) tokens: Option<Tensor>,
    /// The tokens, ascending: a view of as many as there are.
    pub(super) unique: Tensor,
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
    pub(super) fn new(ids: &[i32], backend: &TorchBackend) -> TchResult<Self> {
        Ok(Self { host: ids.to_vec(), ids: backend.upload_ids(ids)?, plan: OnceCell::new() })
    }

    /// The plan, made once a micro-batch.
    pub(super) fn plan(&self, backend: &TorchBackend) -> TchResult<&SegmentPlan> {
        if let Some(plan) = self.plan.get() {
            return Ok(plan);
        }
        let plan = SegmentPlan::new(&self.host, backend)?;
        Ok(self.plan.get_or_init(|| plan))
    }
}
