//! Symmetric matrices of which only what is on and above the diagonal was computed.

use super::gemm::pack::transpose;
use super::workers::{Shared, Workers, piece};

/// Rows of a task, and the side of the blocks in which it goes through them.
const BLOCK: usize = 32;
/// The side of what is transposed at once.
const STRIP: usize = 8;

/// Completes n x n matrices, one after another in `data`. Before that `finish(at, values)` may change what every row
/// has on and above the diagonal: those values begin at element `at` of `data`.
pub(super) fn complete(
    workers: &Workers,
    data: &mut [f32],
    n: usize,
    finish: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    let count = data.len() / (n * n).max(1);
    assert_eq!(count * n * n, data.len());
    let blocks = n.div_ceil(BLOCK);
    let data = Shared::new(data);
    workers.run(count * blocks, |task| {
        let base = task / blocks * n * n;
        let rows = piece(n, BLOCK, task % blocks);
        for i in rows.clone() {
            let at = base + i * n + i;
            // SAFETY: this task alone touches these rows right of the diagonal.
            finish(at, unsafe { data.slice_mut(at..at + n - i) });
        }
        for right in (rows.start..n).step_by(BLOCK) {
            for i in rows.clone().step_by(STRIP) {
                for j in (right.max(i)..n.min(right + BLOCK)).step_by(STRIP) {
                    let (height, width) = (STRIP.min(rows.end - i), STRIP.min(n - j));
                    // SAFETY: this task alone touches these rows right of the diagonal, and these columns below it.
                    let above = data.reach(base + i * n + j, (height - 1) * n + width);
                    let below = data.reach(base + j * n + i, (width - 1) * n + height);
                    unsafe {
                        if i == j {
                            mirror(above, n, height);
                        } else {
                            transpose(below, n, above, n, height, width);
                        }
                    }
                }
            }
        }
    });
}

/// Copies what is above the diagonal of a block below it.
///
/// # Safety
/// `block[i * stride + j]` is in bounds for i and j below `n`, and nobody else touches it.
unsafe fn mirror(block: *mut f32, stride: usize, n: usize) {
    for i in 0..n {
        for j in i + 1..n {
            // SAFETY: the caller's promise.
            unsafe { *block.add(j * stride + i) = *block.add(i * stride + j) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::Pool;
    use super::*;

    #[test]
    fn what_is_above_the_diagonal_is_finished_and_copied_below() {
        let workers = Workers::new(3, &Pool::default()).unwrap();
        for n in [1, 7, 8, 31, 32, 33, 70, 100] {
            let value = |m: usize, i: usize, j: usize| (m * n * n + i.min(j) * n + i.max(j)) as f32;
            let elements = || (0..2).flat_map(|m| (0..n * n).map(move |e| (m, e / n, e % n)));
            let mut data: Vec<f32> =
                elements().map(|(m, i, j)| if i > j { f32::NAN } else { value(m, i, j) }).collect();
            complete(&workers, &mut data, n, |at, values| {
                for (offset, x) in values.iter_mut().enumerate() {
                    assert_eq!(*x, (at + offset) as f32);
                    *x *= 2.0;
                }
            });
            let expected: Vec<f32> = elements().map(|(m, i, j)| 2.0 * value(m, i, j)).collect();
            assert_eq!(data, expected, "{n}");
        }
    }
}
