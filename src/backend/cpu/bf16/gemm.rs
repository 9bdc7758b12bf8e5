//! Products of bfloat16 matrices with sums in f32.
//!
//! An element is a sum over blocks of 256 values of k in ascending order, each block one chain of [`super::dot`], so that
//! tiles, threads and instruction sets decide only who computes it. It is added to f32 (gradients of weights), or rounded
//! once, after whatever is done with it in f32.

mod mirror;
mod packed;

pub(super) use packed::PackedB;

use mirror::mirror;

use std::marker::PhantomData;
use std::ops::Range;

use super::super::gemm::pack::group_len;
use super::super::gemm::prefetch::{Ahead, Block, near as prefetch_near};
use super::super::gemm::{CROWDED, KC, PREPACK_LIMIT, Part, Plan, TALL_ROWS, TASK_COLS, share};
use super::super::pool::{Buffer, Pool, Room};
use super::super::workers::{Shared, Workers, piece};
use super::dot::{ANY, HALF, Left, MR, NR, Store, Tile, WIDE_LEN, Wide, micro};
use super::pack::{self, From, ROW_STRIDE};
use super::storage::{pairs, pairs_mut};
use crate::ops::OpResult;

/// The values of a factor: bfloat16, or f32 that is rounded while it is packed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Half(&'a [u16]),
    Single(&'a [f32]),
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Half(values) => values.len(),
            Self::Single(values) => values.len(),
        }
    }

    fn start(&self) -> From {
        match self {
            Self::Half(values) => From::Half(values.as_ptr()),
            Self::Single(values) => From::Single(values.as_ptr()),
        }
    }
}

impl<'a> std::convert::From<&'a [u16]> for Source<'a> {
    fn from(values: &'a [u16]) -> Self {
        Self::Half(values)
    }
}

impl<'a> std::convert::From<&'a [f32]> for Source<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::Single(values)
    }
}

/// A factor of `outer` rows (at the left) or columns (at the right) and `k` products.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor<'a> {
    source: Source<'a>,
    outer: usize,
    k: usize,
    /// Whether neighbours along k are neighbours in memory; else those along the other axis are.
    along: bool,
    map: Option<fn(&mut [u16])>,
}

impl<'a> Factor<'a> {
    /// The matrix (outer, k), row-major.
    pub(super) fn along(source: impl Into<Source<'a>>, outer: usize, k: usize) -> Self {
        Self::new(source.into(), outer, k, true)
    }

    /// The matrix (k, outer), row-major.
    pub(super) fn across(source: impl Into<Source<'a>>, outer: usize, k: usize) -> Self {
        Self::new(source.into(), outer, k, false)
    }

    /// # Panics
    /// Too few values: the kernels read by pointers from here on.
    fn new(source: Source<'a>, outer: usize, k: usize, along: bool) -> Self {
        assert!(outer.checked_mul(k).is_some_and(|len| len <= source.len()), "sizes do not fit");
        Self { source, outer, k, along, map: None }
    }

    /// `map` applied to every element, while blocks of the matrix are packed: elementwise, and 0 to 0.
    pub(super) fn mapped(self, map: fn(&mut [u16])) -> Self {
        Self { map: Some(map), ..self }
    }

    /// Distance in memory of neighbours along the other axis.
    fn stride(&self) -> usize {
        if self.along { self.k } else { self.outer }
    }

    /// Where element (outer, p) is.
    fn at(&self, outer: usize, p: usize) -> From {
        let offset = if self.along { outer * self.k + p } else { p * self.outer + outer };
        self.source.start().add(offset)
    }

    /// Whether rows can be read as pairs where they are, and where: all but those that would compete for one cache set.
    fn in_place(&self) -> Option<*const u16> {
        let (From::Half(start), true, None) = (self.source.start(), self.along, self.map) else {
            return None;
        };
        (self.k.is_multiple_of(2) && !self.k.is_multiple_of(2 * CROWDED)).then_some(start)
    }
}

/// The right factor of a product.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    /// As it lies.
    Loose(Factor<'a>),
    /// The first `n` columns of what was packed before.
    Packed { of: &'a PackedB, n: usize },
}

impl Right<'_> {
    /// (k, n)
    fn dim(&self) -> (usize, usize) {
        match self {
            Self::Loose(factor) => (factor.k, factor.outer),
            Self::Packed { of, n } => (of.k, *n),
        }
    }
}

impl<'a> std::convert::From<Factor<'a>> for Right<'a> {
    fn from(factor: Factor<'a>) -> Self {
        Self::Loose(factor)
    }
}

/// What becomes of a part of a row of sums, given the index of its first element and where it goes. It must not spawn.
pub(super) type Finish<'a> = &'a (dyn Fn(usize, &[f32], &mut [u16]) + Sync);

/// Where a product goes.
enum Target<'a> {
    /// Its blocks are added to these, one after another.
    Sums(Shared<f32>),
    /// Its sums are finished, then kept.
    Values(Shared<u16>, Finish<'a>),
}

/// One product of a (m, k) and b (k, n).
pub(super) struct Job<'a> {
    a: Factor<'a>,
    b: Right<'a>,
    target: Target<'a>,
    /// Of the target: nobody else has it as long as this is there.
    borrowed: PhantomData<&'a mut [f32]>,
}

impl<'a> Job<'a> {
    /// `c += a b`, c (m, n) row-major.
    pub(super) fn adding(a: Factor<'a>, b: Factor<'a>, c: &'a mut [f32]) -> Self {
        let room = c.len();
        Self { a, b: b.into(), target: Target::Sums(Shared::new(c)), borrowed: PhantomData }.checked(room)
    }

    /// `finish(a b)`, c (m, n) row-major.
    pub(super) fn setting(
        a: Factor<'a>,
        b: impl Into<Right<'a>>,
        c: &'a mut [u16],
        finish: Finish<'a>,
    ) -> Self {
        let room = c.len();
        Self { a, b: b.into(), target: Target::Values(Shared::new(c), finish), borrowed: PhantomData }
            .checked(room)
    }

    /// # Panics
    /// Sizes that do not fit.
    fn checked(self, room: usize) -> Self {
        let (m, n, k) = self.sizes();
        assert!(k == self.b.dim().0 && m.checked_mul(n).is_some_and(|len| len <= room), "sizes do not fit");
        self
    }

    /// (m, n, k)
    fn sizes(&self) -> (usize, usize, usize) {
        (self.a.outer, self.b.dim().1, self.a.k)
    }

    /// The right factor, if it is not packed.
    fn loose(&self) -> Option<Factor<'a>> {
        match self.b {
            Right::Loose(factor) => Some(factor),
            Right::Packed { .. } => None,
        }
    }
}

/// Rounds.
pub(super) fn rounded(_: usize, sums: &[f32], to: &mut [u16]) {
    super::convert::narrow(sums, to);
}

/// Adds to what is there, and rounds.
pub(super) fn added(_: usize, sums: &[f32], to: &mut [u16]) {
    super::convert::narrow_sum(sums, to);
}

/// Pairs of a block of k.
const PAIRS: usize = KC / 2;
/// Scratch for a block of A.
const A_SCRATCH: usize = TALL_ROWS * ROW_STRIDE;
/// Scratch for a block of B.
const B_SCRATCH: usize = PAIRS * TASK_COLS;
/// Distance of rows of sums: no multiple of 4096 bytes.
const SUM_STRIDE: usize = TASK_COLS + 16;

/// Where what a task needs ends in a thread's scratch; widened rows come after it.
const SUMS_END: usize = A_SCRATCH + B_SCRATCH + TALL_ROWS * SUM_STRIDE;

const _: () = assert!(TALL_ROWS / MR * group_len(PAIRS) <= A_SCRATCH);
// The rows of the tallest task are widened for all of its panels.
const _: () = assert!(SUMS_END + TALL_ROWS / MR * WIDE_LEN <= super::super::workers::SCRATCH_LEN);

/// Packs `b`, unless it is too large to be held twice.
pub(super) fn prepack(workers: &Workers, pool: &Pool, b: Factor<'_>) -> OpResult<Option<PackedB>> {
    if b.outer * b.k > PREPACK_LIMIT {
        return Ok(None);
    }
    PackedB::new(workers, pool, b).map(Some)
}

/// What [`PackedB::new`] takes of a pool for a right side (k, n).
pub(in super::super) fn packed_room<M: Room>(pool: &Pool<M>, n: usize, k: usize) -> OpResult<Buffer<M>> {
    pool.take("gemm", packed_len(n, k))
}

/// What [`prepack`] takes of a pool for a right side (k, n).
pub(in super::super) fn prepack_room<M: Room>(
    pool: &Pool<M>,
    n: usize,
    k: usize,
) -> OpResult<Option<Buffer<M>>> {
    if n * k > PREPACK_LIMIT {
        return Ok(None);
    }
    packed_room(pool, n, k).map(Some)
}

/// One product.
pub(super) fn gemm(workers: &Workers, pool: &Pool, job: Job<'_>) -> OpResult<()> {
    gemm_batch(workers, pool, &[job], Part::All)
}

/// Several products of one shape; of symmetric ones [`Part::Upper`] is computed, and if values are set the rest is copied.
pub(super) fn gemm_batch(workers: &Workers, pool: &Pool, jobs: &[Job<'_>], part: Part) -> OpResult<()> {
    let Some(first) = jobs.first() else { return Ok(()) };
    let (m, n, k) = first.sizes();
    if m == 0 || n == 0 {
        return Ok(());
    }
    assert!(jobs.iter().all(|job| job.sizes() == (m, n, k)));
    let plan = Plan::new(m, n, k, jobs.len(), workers.count());
    // Those that are packed already stay as they are.
    let loose: Vec<Factor<'_>> = jobs.iter().filter_map(Job::loose).collect();
    if loose.len() < jobs.len() {
        run(workers, jobs, &plan, None, part);
        return Ok(());
    }
    let mut packed = packing_room(pool, (n, k), jobs.len(), &plan)?;
    if let Some(packed) = &mut packed {
        pack_b(workers, packed, &loose);
    }
    run(workers, jobs, &plan, packed.as_deref(), part);
    Ok(())
}

/// What `jobs` products by `plan` take of a pool.
fn packing_room<M: Room>(
    pool: &Pool<M>,
    (n, k): (usize, usize),
    jobs: usize,
    plan: &Plan,
) -> OpResult<Option<Buffer<M>>> {
    if !plan.prepack {
        return Ok(None);
    }
    pool.spare("gemm", packed_len(n, k) * jobs).map(Some)
}

/// Takes of a pool, and gives back, what `jobs` products of sizes (m, n, k) on so many threads take meanwhile.
pub(in super::super) fn claim<M: Room>(
    pool: &Pool<M>,
    (m, n, k): (usize, usize, usize),
    jobs: usize,
    threads: usize,
) -> OpResult<()> {
    if m == 0 || n == 0 || jobs == 0 {
        return Ok(());
    }
    packing_room(pool, (n, k), jobs, &Plan::new(m, n, k, jobs, threads)).map(drop)
}

/// Pairs of B packed whole: block after block of k, panel after panel.
fn packed_len(n: usize, k: usize) -> usize {
    n.next_multiple_of(NR) * k.div_ceil(2)
}

fn pack_b(workers: &Workers, packed: &mut [f32], sides: &[Factor<'_>]) {
    let (k, n) = sides.first().map_or((0, 0), |side| (side.k, side.outer));
    let target = Shared::new(pairs_mut(packed));
    let (blocks, strips) = (k.div_ceil(KC), n.div_ceil(8 * NR));
    workers.run(sides.len() * blocks * strips, |task| {
        let (side, task) = (task / (blocks * strips), task % (blocks * strips));
        let ks = piece(k, KC, task / strips);
        let cols = piece(n, 8 * NR, task % strips);
        let block = ks.len().div_ceil(2);
        let start = side * packed_len(n, k) + ks.start / 2 * n.next_multiple_of(NR) + cols.start * block;
        let len = cols.len().next_multiple_of(NR) * block;
        // SAFETY: every task has its own part.
        let dst = unsafe { target.slice_mut(start..start + len) };
        // SAFETY: inside B.
        unsafe { pack_b_block(dst, &sides[side], ks.start, cols.start, ks.len(), cols.len()) };
    });
}

/// # Safety
/// The block is inside `b`.
unsafe fn pack_b_block(dst: &mut [u32], b: &Factor<'_>, p: usize, j: usize, k: usize, cols: usize) {
    let source = b.at(j, p);
    // SAFETY: the caller's promise.
    unsafe {
        if b.along {
            pack::panels_transposed(dst, source, b.stride(), cols, k);
        } else {
            pack::panels(dst, source, b.stride(), cols, k);
        }
    }
    if let Some(map) = b.map {
        map(pack::halves(&mut dst[..cols.next_multiple_of(NR) * k.div_ceil(2)]));
    }
}

fn run(workers: &Workers, jobs: &[Job<'_>], plan: &Plan, packed: Option<&[f32]>, part: Part) {
    let Some(first) = jobs.first() else { return };
    let (m, n, k) = first.sizes();
    let tasks = plan.row_tasks * plan.col_tasks;
    workers.run_with_scratch(tasks * jobs.len(), |task, scratch| {
        let (job, task) = (task / tasks, task % tasks);
        let rows = share(m, MR, plan.row_tasks, task % plan.row_tasks);
        let cols = share(n, NR, plan.col_tasks, task / plan.row_tasks);
        if part == Part::Upper && cols.end <= rows.start {
            return;
        }
        let packed = match jobs[job].b {
            Right::Packed { of, .. } => {
                Some(Panels { pairs: pairs(&of.values), width: of.n.next_multiple_of(NR) })
            }
            Right::Loose(_) => packed.map(|all| Panels {
                pairs: &pairs(all)[job * packed_len(n, k)..][..packed_len(n, k)],
                width: n.next_multiple_of(NR),
            }),
        };
        // SAFETY: tasks are disjoint in C, and `Job::checked` checked the sizes.
        unsafe { tile(&jobs[job], packed, &rows, &cols, part, scratch) };
    });
}

/// B as [`pack_b`] leaves it: block after block of k, each of panels that are `width` columns together.
#[derive(Clone, Copy)]
struct Panels<'a> {
    pairs: &'a [u32],
    width: usize,
}

/// The block of A after the one of `rows` that starts at `p`: of the same rows, or of those of the next task, which the
/// same thread most likely does next; after the last rows come the first, for other columns.
fn next_block(a: &Factor<'_>, rows: &Range<usize>, p: usize) -> Option<Block> {
    let (start, p) = if p + KC < a.k { (rows.start, p + KC) } else { (rows.end % a.outer, 0) };
    let (count, kc) = (rows.len().min(a.outer - start), KC.min(a.k - p));
    let (lines, len) = if a.along { (count, kc) } else { (kc, count) };
    (count > 0).then(|| a.at(start, p).block(a.stride(), lines, len))
}

/// One task's tile of C.
unsafe fn tile(
    job: &Job<'_>,
    packed: Option<Panels<'_>>,
    rows: &Range<usize>,
    cols: &Range<usize>,
    part: Part,
    scratch: &mut [f32],
) {
    let a = &job.a;
    let (_, n, k) = job.sizes();
    let (a_block, rest) = scratch.split_at_mut(A_SCRATCH);
    let (b_block, rest) = rest.split_at_mut(B_SCRATCH);
    let (sums, rest) = rest.split_at_mut(TALL_ROWS * SUM_STRIDE);
    // Rows that meet several panels are widened for all of them, where the kernel does that.
    let groups = rows.len().div_ceil(MR);
    let mut wides = (cols.len() > NR).then(|| &mut Wide::in_scratch(rest)[..groups]);
    let (a_block, b_block) = (pairs_mut(a_block), pairs_mut(b_block));
    let (in_place, loose) = (a.in_place(), job.loose());
    // Every panel of B is read by one call alone: it need not outlive it, and stays in the first-level cache.
    let once = packed.is_none() && rows.len() <= MR;
    let (c, ldc, mut store) = match &job.target {
        Target::Sums(_) => (None, n, Store::Add),
        Target::Values(..) => (Some(Shared::new(sums)), SUM_STRIDE, Store::Set),
    };
    let calls = groups * cols.len().div_ceil(NR);
    for p in (0..k).step_by(KC) {
        let kc = KC.min(k - p);
        let block = kc.div_ceil(2);
        let mut ahead = Ahead::new(next_block(a, rows, p), calls);
        // SAFETY: blocks of A and B inside them, the tile inside C.
        unsafe {
            if !a.along {
                pack::columns(a_block, a.at(rows.start, p), a.stride(), rows.len(), kc);
                if let Some(map) = a.map {
                    map(pack::halves(&mut a_block[..groups * group_len(block)]));
                }
            } else if in_place.is_none() {
                pack::rows(a_block, a.at(rows.start, p), a.stride(), rows.len(), kc, a.map);
            }
            let left = |i: usize| match in_place {
                Some(start) => Left::rows(start.add((rows.start + i) * k + p).cast(), k / 2),
                None if a.along => Left::rows(a_block.as_ptr().add(i * ROW_STRIDE), ROW_STRIDE),
                None => Left::new(a_block.as_ptr().add(i / MR * group_len(block)), 1, MR),
            };
            if let Some(wides) = &mut wides {
                for (wide, i) in wides.iter_mut().zip((0..rows.len()).step_by(MR)) {
                    let mr = MR.min(rows.len() - i);
                    if a.along {
                        left(i).shared::<ANY>(mr, block, wide);
                    } else {
                        left(i).shared::<1>(mr, block, wide);
                    }
                }
            }
            let panels = if let Some(packed) = packed {
                let start = p / 2 * packed.width + cols.start * block;
                packed.pairs[start..][..cols.len().next_multiple_of(NR) * block].as_ptr()
            } else {
                if let (false, Some(b)) = (once, &loose) {
                    pack_b_block(b_block, b, p, cols.start, kc, cols.len());
                }
                b_block.as_ptr()
            };
            for j in (0..cols.len()).step_by(NR) {
                let nr = NR.min(cols.len() - j);
                let panel = if let (true, Some(b)) = (once, &loose) {
                    pack_b_block(b_block, b, p, cols.start + j, kc, nr);
                    panels
                } else {
                    panels.add(j * block)
                };
                for i in (0..rows.len()).step_by(MR) {
                    if part == Part::Upper && cols.start + j + nr <= rows.start + i {
                        continue;
                    }
                    let mr = MR.min(rows.len() - i);
                    // Of a panel that the diagonal crosses late, the first half is wholly below.
                    let below = part == Part::Upper && cols.start + j + HALF <= rows.start + i;
                    let skip = if below { HALF } else { 0 };
                    let (panel, nr) = (panel.add(skip), nr - skip);
                    let len = (mr - 1) * ldc + nr;
                    let c = match (&c, &job.target) {
                        (Some(sums), _) => sums.reach(i * ldc + j + skip, len),
                        (None, Target::Sums(c)) => c.reach((rows.start + i) * n + cols.start + j + skip, len),
                        (None, Target::Values(..)) => continue,
                    };
                    for row in 0..mr {
                        prefetch_near(c.wrapping_add(row * ldc), NR);
                    }
                    ahead.step();
                    let own = left(i);
                    let left = match &wides {
                        Some(wides) => own.shared_in(&wides[i / MR]),
                        None => own,
                    };
                    let tile = Tile { nr, pairs: block, left, b: panel, c, ldc, store };
                    if a.along {
                        micro::<ANY>(mr, &tile);
                    } else {
                        micro::<1>(mr, &tile);
                    }
                }
            }
        }
        store = Store::Add;
    }
    if let Target::Values(values, finish) = &job.target {
        for i in rows.clone() {
            // Parts of rows below the diagonal are not wanted, those of its own tile are.
            let first = if part == Part::Upper { cols.start.max(i).min(cols.end) } else { cols.start };
            let sums = &mut sums[(i - rows.start) * SUM_STRIDE..][first - cols.start..cols.len()];
            if k == 0 {
                sums.fill(0.0);
            }
            // SAFETY: this task's part of C.
            finish(i * n + first, sums, unsafe { values.slice_mut(i * n + first..i * n + cols.end) });
        }
        if part == Part::Upper {
            // SAFETY: what is below the diagonal is written by this task alone, as what it mirrors was.
            unsafe { mirror(*values, n, rows, cols) };
        }
    }
}

#[cfg(test)]
mod tests;
