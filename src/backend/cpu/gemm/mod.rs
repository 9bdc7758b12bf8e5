//! Matrix products: packed blocks of operands, a register-tiled micro-kernel, tiles of C shared out among threads.
//!
//! An element of C is a sum over blocks of [`KC`] values of k in ascending order, each block one chain of fused
//! multiply-adds from zero. Tiles, threads and instruction sets decide only who computes it, never what it is, so
//! results are equal for any number of rows done at once too: one decoded token has the bits of a whole batch.

mod few;
mod kernel;
pub(super) mod pack;
pub(super) mod prefetch;

pub(super) use kernel::{ANY, HALF, KC, MR, NR, Panel, ROW_STRIDE, Rows, Store, micro};

use prefetch::Ahead;

use std::marker::PhantomData;
use std::ops::Range;

use ndarray::ArrayView2;

use super::pool::{Buffer, Pool, Room};
use super::workers::{Shared, Workers, piece};
use crate::ops::OpResult;

/// The matrix of a row-major slice.
pub(super) fn matrix(data: &[f32], rows: usize, cols: usize) -> ArrayView2<'_, f32> {
    assert!(rows * cols <= data.len());
    // SAFETY: the values are there for as long as the view, by the assertion.
    unsafe { ArrayView2::from_shape_ptr((rows, cols), data.as_ptr()) }
}

/// Where element (row, col) is.
fn at(x: &ArrayView2<'_, f32>, row: usize, col: usize) -> *const f32 {
    debug_assert!(row < x.nrows() && col < x.ncols());
    // SAFETY: in bounds; the strides are those of a matrix in memory, so not negative.
    unsafe { x.as_ptr().add(row * stride(x, 0) + col * stride(x, 1)) }
}

/// Distance in memory between neighbours along an axis.
fn stride(x: &ArrayView2<'_, f32>, axis: usize) -> usize {
    x.strides()[axis].unsigned_abs()
}

/// Whether neighbours along one axis are neighbours in memory, and nothing runs backwards.
fn is_contiguous(x: &ArrayView2<'_, f32>) -> bool {
    let strides = x.strides();
    x.is_empty() || strides.iter().all(|&stride| stride >= 0) && strides.contains(&1)
}

/// A factor: a matrix, or what a function makes of its elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor<'a> {
    matrix: ArrayView2<'a, f32>,
    map: Option<fn(&mut [f32])>,
}

impl<'a> Factor<'a> {
    /// `map` applied to every element, while blocks of the matrix are packed. It is called on parts of them with some
    /// padding, any number of times for an element, so it must be elementwise; and it must not spawn.
    pub(super) fn mapped(matrix: ArrayView2<'a, f32>, map: fn(&mut [f32])) -> Self {
        Self { matrix, map: Some(map) }
    }

    fn map(&self, packed: &mut [f32]) {
        if let Some(map) = self.map {
            map(packed);
        }
    }
}

impl<'a> From<ArrayView2<'a, f32>> for Factor<'a> {
    fn from(matrix: ArrayView2<'a, f32>) -> Self {
        Self { matrix, map: None }
    }
}

/// The right factor of a product.
#[derive(Clone, Copy)]
enum Right<'a> {
    /// As it lies.
    Loose(Factor<'a>),
    /// The first `n` columns of what was packed before.
    Packed { of: &'a PackedB, n: usize },
}

impl Right<'_> {
    /// (k, n)
    fn dim(&self) -> (usize, usize) {
        match self {
            Self::Loose(factor) => factor.matrix.dim(),
            Self::Packed { of, n } => (of.k, *n),
        }
    }
}

/// What becomes of a part of a row of C when it is done, given the index of its first element. It must not spawn.
type Finish<'a> = &'a (dyn Fn(usize, &mut [f32]) + Sync);

/// One product `c = a b`, or `c += a b`. It is used up by being computed: two products into one C at the same time would
/// write to the same memory, so there is no copy of it.
pub(super) struct Job<'a> {
    a: Factor<'a>,
    b: Right<'a>,
    c: Shared<f32>,
    finish: Option<Finish<'a>>,
    /// Of C: nobody else has it as long as this is there.
    borrowed: PhantomData<&'a mut [f32]>,
}

impl<'a> Job<'a> {
    /// a (m, k), b (k, n), both contiguous over rows or columns; c (m, n) row-major.
    ///
    /// # Panics
    /// Sizes that do not fit, or factors that are not contiguous: the kernels read by pointers from here on.
    pub(super) fn new(a: impl Into<Factor<'a>>, b: impl Into<Factor<'a>>, c: &'a mut [f32]) -> Self {
        let b = b.into();
        assert!(is_contiguous(&b.matrix), "a factor is not contiguous");
        Self::of(a.into(), Right::Loose(b), c)
    }

    /// a (m, k), contiguous over rows or columns; the first n columns of a right side that is packed; c (m, n) row-major.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub(super) fn packed(a: impl Into<Factor<'a>>, b: &'a PackedB, n: usize, c: &'a mut [f32]) -> Self {
        assert!(n <= b.n, "sizes do not fit");
        Self::of(a.into(), Right::Packed { of: b, n }, c)
    }

    fn of(a: Factor<'a>, b: Right<'a>, c: &'a mut [f32]) -> Self {
        let room = c.len();
        let job = Self { a, b, c: Shared::new(c), finish: None, borrowed: PhantomData };
        let (m, n, k) = job.sizes();
        let fits = k == b.dim().0 && m.checked_mul(n).is_some_and(|len| len <= room);
        assert!(fits, "sizes do not fit");
        assert!(is_contiguous(&a.matrix), "a factor is not contiguous");
        job
    }

    /// Has parts of rows of C, all of which are wanted, go through `finish`.
    pub(super) fn finished_by(self, finish: Finish<'a>) -> Self {
        Self { finish: Some(finish), ..self }
    }

    /// The right factor, if it is not packed.
    fn loose(&self) -> Option<Factor<'a>> {
        match self.b {
            Right::Loose(factor) => Some(factor),
            Right::Packed { .. } => None,
        }
    }

    /// (m, n, k)
    fn sizes(&self) -> (usize, usize, usize) {
        (self.a.matrix.nrows(), self.b.dim().1, self.a.matrix.ncols())
    }
}

/// Which elements of C are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All.
    All,
    /// Those on and above the diagonal; tiles wholly below it are left alone.
    Upper,
}

/// Rows of C in a task, at most, where B is packed before the product starts.
const TASK_ROWS: usize = 96;
/// Columns of C in a task, at most.
pub(super) const TASK_COLS: usize = 512;
/// Rows of A so far apart (in values), or a multiple of that, compete for a few sets of the first-level cache: they are
/// copied before they are read.
pub(super) const CROWDED: usize = 512;
/// Rows of C in a task, at most, where every task packs its blocks of B itself.
pub(super) const TALL_ROWS: usize = 384;
/// Scratch for a block of A.
const A_SCRATCH: usize = TALL_ROWS * ROW_STRIDE;
/// Of a B with fewer values than that, one thread reads all before another has woken.
const FEW_VALUES: usize = 16 << 10;
/// Of a packed B with more values than that, little is left in the second-level cache when the next task begins.
const NEAR_VALUES: usize = 512 << 10;
/// The largest B (in values) that is packed before the product starts.
pub(super) const PREPACK_LIMIT: usize = 8 << 20;

const _: () = assert!(A_SCRATCH + KC * TASK_COLS <= super::workers::SCRATCH_LEN);
const _: () = assert!(TALL_ROWS / MR * pack::group_len(KC) <= A_SCRATCH);
// `share` gives whole tiles.
const _: () = assert!(TASK_ROWS <= TALL_ROWS);
const _: () =
    assert!(TASK_ROWS.is_multiple_of(MR) && TALL_ROWS.is_multiple_of(MR) && TASK_COLS.is_multiple_of(NR));

/// One product.
pub(crate) fn gemm(workers: &Workers, pool: &Pool, job: Job<'_>, store: Store) -> OpResult<()> {
    gemm_batch(workers, pool, vec![job], store, Part::All)
}

/// A right side (k, n) packed once for several products: block after block of k, panel after panel of [`NR`] columns.
#[derive(Debug)]
pub(crate) struct PackedB {
    values: Buffer,
    n: usize,
    k: usize,
}

impl PackedB {
    /// Packs `b`, whatever its size.
    pub(super) fn new(workers: &Workers, pool: &Pool, b: ArrayView2<'_, f32>) -> OpResult<Self> {
        let (k, n) = b.dim();
        let mut values = pool.take("gemm", packed_len(n, k))?;
        pack_b(workers, &mut values, &[b.into()]);
        Ok(Self { values, n, k })
    }

    /// The values it was made of, column after column: (n, k) row-major.
    pub(super) fn columns(&self) -> Vec<f32> {
        let (n, k) = (self.n, self.k);
        let mut columns = vec![0.0; n * k];
        for (j, column) in columns.chunks_exact_mut(k.max(1)).enumerate() {
            for (p, values) in column.chunks_mut(KC).enumerate() {
                let block = p * KC * n.next_multiple_of(NR) + j / NR * NR * values.len();
                for (q, value) in values.iter_mut().enumerate() {
                    *value = self.values[block + q * NR + j % NR];
                }
            }
        }
        columns
    }
}

/// Packs `b`, unless it is too large to be held twice.
pub(crate) fn prepack(workers: &Workers, pool: &Pool, b: ArrayView2<'_, f32>) -> OpResult<Option<PackedB>> {
    if b.len() > PREPACK_LIMIT {
        return Ok(None);
    }
    PackedB::new(workers, pool, b).map(Some)
}

/// What [`PackedB::new`] takes of a pool for a right side (k, n).
pub(super) fn packed_room<M: Room>(pool: &Pool<M>, n: usize, k: usize) -> OpResult<Buffer<M>> {
    pool.take("gemm", packed_len(n, k))
}

/// What [`prepack`] takes of a pool for a right side (k, n).
pub(super) fn prepack_room<M: Room>(pool: &Pool<M>, n: usize, k: usize) -> OpResult<Option<Buffer<M>>> {
    if n * k > PREPACK_LIMIT {
        return Ok(None);
    }
    packed_room(pool, n, k).map(Some)
}

/// Several products of one shape.
pub(crate) fn gemm_batch(
    workers: &Workers,
    pool: &Pool,
    jobs: Vec<Job<'_>>,
    store: Store,
    part: Part,
) -> OpResult<()> {
    let Some(first) = jobs.first() else { return Ok(()) };
    let (m, n, k) = first.sizes();
    if m == 0 || n == 0 {
        return Ok(());
    }
    assert!(part == Part::All || jobs.iter().all(|job| job.finish.is_none()));
    let plan = Plan::new(m, n, k, jobs.len(), workers.count());
    // Those that are packed already stay as they are.
    let loose: Vec<Factor<'_>> = jobs.iter().filter_map(Job::loose).collect();
    if loose.len() < jobs.len() {
        run(workers, &jobs, &plan, None, store, part);
        return Ok(());
    }
    let mut packed = packing_room(pool, (m, n, k), jobs.len(), &plan)?;
    if let Some(packed) = &mut packed {
        pack_b(workers, packed, &loose);
    }
    run(workers, &jobs, &plan, packed.as_deref(), store, part);
    Ok(())
}

/// What `jobs` products of sizes (m, n, k) by `plan` take of a pool.
fn packing_room<M: Room>(
    pool: &Pool<M>,
    (_, n, k): (usize, usize, usize),
    jobs: usize,
    plan: &Plan,
) -> OpResult<Option<Buffer<M>>> {
    if !plan.prepack {
        return Ok(None);
    }
    pool.spare("gemm", packed_len(n, k) * jobs).map(Some)
}

/// Takes of a pool, and gives back, what `jobs` products of sizes (m, n, k) on so many threads take meanwhile.
pub(super) fn claim<M: Room>(
    pool: &Pool<M>,
    sizes: (usize, usize, usize),
    jobs: usize,
    threads: usize,
) -> OpResult<()> {
    let (m, n, k) = sizes;
    if m == 0 || n == 0 || jobs == 0 {
        return Ok(());
    }
    packing_room(pool, sizes, jobs, &Plan::new(m, n, k, jobs, threads)).map(drop)
}

fn run(workers: &Workers, jobs: &[Job<'_>], plan: &Plan, packed: Option<&[f32]>, store: Store, part: Part) {
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
            Right::Packed { of, .. } => Some(Panels { values: &of.values, width: of.n.next_multiple_of(NR) }),
            Right::Loose(_) => packed.map(|all| Panels {
                values: &all[job * packed_len(n, k)..][..packed_len(n, k)],
                width: n.next_multiple_of(NR),
            }),
        };
        // SAFETY: tasks are disjoint in C, and `Job::new` checked the sizes.
        unsafe { tile(&jobs[job], packed, &rows, &cols, store, part, scratch) };
    });
}

/// Parts of rows of A for [`micro`] with [`ANY`]: where they are, or in `scratch` where they would compete for the cache,
/// as short parts of rows do that are half as far apart as [`CROWDED`] or a multiple of that.
///
/// # Safety
/// `a[i * stride + p]` is readable for i below `rows` and p below `k`, and stays so; `scratch` has room for
/// `rows * ROW_STRIDE`.
pub(super) unsafe fn rows_near(
    scratch: &mut [f32],
    a: *const f32,
    stride: usize,
    rows: usize,
    k: usize,
) -> Rows {
    if !stride.is_multiple_of(CROWDED / 2) {
        return Rows { a, stride };
    }
    // SAFETY: the caller's promise.
    unsafe { pack::rows(scratch, a, stride, rows, k) };
    Rows { a: scratch.as_ptr(), stride: ROW_STRIDE }
}

/// B as [`pack_b`] leaves it: block after block of k, each of panels that are `width` columns together.
#[derive(Clone, Copy)]
struct Panels<'a> {
    values: &'a [f32],
    width: usize,
}

/// How C is shared out. May depend on anything: no element's value does.
pub(super) struct Plan {
    pub(super) row_tasks: usize,
    pub(super) col_tasks: usize,
    pub(super) prepack: bool,
}

impl Plan {
    pub(super) fn new(m: usize, n: usize, k: usize, jobs: usize, threads: usize) -> Self {
        let col_tasks = n.div_ceil(TASK_COLS);
        let groups = m.div_ceil(MR);
        // A few rows, as decoding has: B is read once, which takes all the time there is, so all threads read.
        if groups == 1 && jobs == 1 {
            let parts = if n * k < FEW_VALUES { 1 } else { col_tasks.max(threads).next_multiple_of(threads) };
            return Self { row_tasks: 1, col_tasks: parts.min(n.div_ceil(NR)), prepack: false };
        }
        // A long product, as a weight gradient is: packed whole, the right side would go through memory twice more, and
        // each task of few rows would read all of it from there. So each task packs a part that it alone has, and as
        // much of the other side or less: of a square matrix, where there are two tasks, twice as much.
        let even = col_tasks.next_multiple_of(threads).min(n.div_ceil(NR));
        if m <= TALL_ROWS && m * even <= 2 * n && k >= 4 * KC && jobs == 1 {
            return Self { row_tasks: 1, col_tasks: even, prepack: false };
        }
        let tall = m.div_ceil(TALL_ROWS).next_multiple_of(threads).min(groups);
        if n <= TASK_COLS && n * tall <= m && n * k > NEAR_VALUES && jobs == 1 {
            return Self { row_tasks: tall, col_tasks: 1, prepack: false };
        }
        // More threads than there are rows for share columns, by whole panels.
        let least = (4 * threads).div_ceil(groups * jobs.max(1)).min(n.div_ceil(NR));
        let col_tasks = if threads > 2 { col_tasks.max(least) } else { col_tasks };
        let fits = n * k * jobs <= PREPACK_LIMIT;
        let rows = if fits { TASK_ROWS } else { TALL_ROWS };
        let fewest = m.div_ceil(rows).max((4 * threads).div_ceil(col_tasks * jobs)).min(groups);
        // As many tasks for each thread: with an odd one left over, the others would wait for it.
        let row_tasks = (fewest..fewest + threads)
            .find(|rows| (rows * col_tasks * jobs).is_multiple_of(threads))
            .unwrap_or(fewest)
            .min(groups);
        let prepack = row_tasks > 2 && fits;
        Self { row_tasks, col_tasks, prepack }
    }
}

/// Task `task` of `tasks` that share `0..len` evenly, in whole units.
pub(super) fn share(len: usize, unit: usize, tasks: usize, task: usize) -> Range<usize> {
    let units = len.div_ceil(unit);
    let at = |task: usize| (task * units / tasks * unit).min(len);
    at(task)..at(task + 1)
}

/// Length of B packed whole: block after block of k, panel after panel.
fn packed_len(n: usize, k: usize) -> usize {
    n.next_multiple_of(NR) * k
}

fn pack_b(workers: &Workers, packed: &mut [f32], sides: &[Factor<'_>]) {
    let (k, n) = sides.first().map_or((0, 0), |side| side.matrix.dim());
    let target = Shared::new(packed);
    let (blocks, strips) = (k.div_ceil(KC), n.div_ceil(8 * NR));
    workers.run(sides.len() * blocks * strips, |task| {
        let (side, task) = (task / (blocks * strips), task % (blocks * strips));
        let ks = piece(k, KC, task / strips);
        let cols = piece(n, 8 * NR, task % strips);
        let start = side * packed_len(n, k) + ks.start * n.next_multiple_of(NR) + cols.start * ks.len();
        let len = cols.len().next_multiple_of(NR) * ks.len();
        // SAFETY: every task has its own part.
        let dst = unsafe { target.slice_mut(start..start + len) };
        // SAFETY: inside B.
        unsafe { pack_b_block(dst, &sides[side], ks.start, cols.start, ks.len(), cols.len()) };
    });
}

unsafe fn pack_b_block(dst: &mut [f32], factor: &Factor<'_>, p: usize, j: usize, k: usize, cols: usize) {
    let b = &factor.matrix;
    let source = at(b, p, j);
    // SAFETY: the caller has the block inside `b`.
    unsafe {
        if stride(b, 1) == 1 {
            pack::panels(dst, source, stride(b, 0), cols, k);
        } else {
            pack::panels_transposed(dst, source, stride(b, 1), cols, k);
        }
    }
    factor.map(&mut dst[..cols.next_multiple_of(NR) * k]);
}

/// The block of A after the one of `rows` that starts at column `p`: of the same rows, or of those of the next task,
/// which the same thread most likely does next; after the last rows come the first, for other columns.
fn next_block(a: &ArrayView2<'_, f32>, rows: &Range<usize>, p: usize) -> Option<prefetch::Block> {
    let (start, p) = if p + KC < a.ncols() { (rows.start, p + KC) } else { (rows.end % a.nrows(), 0) };
    let (count, kc) = (rows.len().min(a.nrows() - start), KC.min(a.ncols() - p));
    if count == 0 {
        return None;
    }
    let source = at(a, start, p);
    Some(if stride(a, 1) == 1 {
        prefetch::Block::new(source, stride(a, 0), count, kc)
    } else {
        prefetch::Block::new(source, stride(a, 1), kc, count)
    })
}

/// Whether a product with so many rows of A reads B as it lies, by [`few`].
fn is_few(job: &Job<'_>, rows: usize) -> bool {
    let (_, n, k) = job.sizes();
    let Some(Factor { matrix: b, map }) = job.loose() else { return false };
    let lies = n > 1 && k > 1 && stride(&job.a.matrix, 1) == 1 && stride(&b, 0) == 1 && stride(&b, 1) == k;
    few::is_there() && rows <= MR && lies && map.is_none() && rows * few_stride(k) <= A_SCRATCH
}

/// Distance of the copied rows of A: none begins at the set of another.
fn few_stride(k: usize) -> usize {
    k.next_multiple_of(16) + 16
}

/// One task's tile of C, where [`is_few`].
unsafe fn few_rows(
    job: &Job<'_>,
    rows: &Range<usize>,
    cols: &Range<usize>,
    store: Store,
    scratch: &mut [f32],
) {
    let (_, n, k) = job.sizes();
    let stride_a = few_stride(k);
    for (i, row) in scratch.chunks_mut(stride_a).take(rows.len()).enumerate() {
        // SAFETY: a row of A, whose values are one after another.
        let source = unsafe { std::slice::from_raw_parts(at(&job.a.matrix, rows.start + i, 0), k) };
        row[..k].copy_from_slice(source);
        job.a.map(&mut row[..k]);
    }
    let Some(b) = job.loose() else { return };
    if rows.is_empty() || cols.is_empty() {
        return;
    }
    let a = few::Few { start: scratch.as_ptr(), stride: stride_a, count: rows.len() };
    let weights = few::Weights { start: at(&b.matrix, 0, cols.start), count: cols.len(), k };
    let c = job.c.reach(rows.start * n + cols.start, (rows.len() - 1) * n + cols.len());
    // SAFETY: `is_few` found the kernel; the operands are inside A and B, and C is this task's.
    unsafe { few::products(&a, &weights, c, n, store) };
}

/// One task's tile of C.
unsafe fn tile(
    job: &Job<'_>,
    packed: Option<Panels<'_>>,
    rows: &Range<usize>,
    cols: &Range<usize>,
    store: Store,
    part: Part,
    scratch: &mut [f32],
) {
    let a = &job.a.matrix;
    let (_, n, k) = job.sizes();
    let (by_rows, loose) = (stride(a, 1) == 1, job.loose());
    let (a_block, b_block) = scratch.split_at_mut(A_SCRATCH);
    let mut store = store;
    if k == 0 && store == Store::Set {
        for i in rows.clone() {
            // SAFETY: this task's part of C.
            unsafe { job.c.slice_mut(i * n + cols.start..i * n + cols.end) }.fill(0.0);
        }
    }
    let few = packed.is_none() && part == Part::All && is_few(job, rows.len());
    if few {
        // SAFETY: this task's part of C, inside the operands.
        unsafe { few_rows(job, rows, cols, store, a_block) };
    }
    let apart = stride(a, usize::from(!by_rows));
    let in_place = by_rows && !apart.is_multiple_of(CROWDED) && job.a.map.is_none();
    let calls = rows.len().div_ceil(MR) * cols.len().div_ceil(NR);
    // Every panel of B is read by one call alone: it need not outlive it, and stays in the first-level cache.
    let once = packed.is_none() && rows.len() <= MR;
    for p in (0..if few { 0 } else { k }).step_by(KC) {
        let kc = KC.min(k - p);
        let mut ahead = Ahead::new(next_block(a, rows, p), calls);
        // SAFETY: blocks of A and B inside them, the tile inside C.
        unsafe {
            if !by_rows {
                pack::columns(a_block, at(a, rows.start, p), apart, rows.len(), kc);
                job.a.map(&mut a_block[..rows.len().div_ceil(MR) * pack::group_len(kc)]);
            } else if !in_place {
                for (i, row) in a_block.chunks_mut(ROW_STRIDE).take(rows.len()).enumerate() {
                    pack::rows(row, at(a, rows.start + i, p), apart, 1, kc);
                    job.a.map(&mut row[..kc]);
                }
            }
            let panels = if let Some(packed) = packed {
                let start = p * packed.width + cols.start * kc;
                packed.values[start..][..cols.len().next_multiple_of(NR) * kc].as_ptr()
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
                    panels.add(j * kc)
                };
                for i in (0..rows.len()).step_by(MR) {
                    if part == Part::Upper && cols.start + j + nr <= rows.start + i {
                        continue;
                    }
                    let mr = MR.min(rows.len() - i);
                    // Of a panel that the diagonal crosses late, the first half is wholly below.
                    let below = part == Part::Upper && cols.start + j + HALF <= rows.start + i;
                    let skip = if below { HALF } else { 0 };
                    let (panel, nr) = (Panel::packed(panel.add(skip)), nr - skip);
                    let c = job.c.reach((rows.start + i) * n + cols.start + j + skip, (mr - 1) * n + nr);
                    for row in 0..mr {
                        prefetch::near(c.wrapping_add(row * n), nr);
                    }
                    ahead.step();
                    if in_place {
                        let a = Rows { a: at(a, rows.start + i, p), stride: apart };
                        micro::<ANY, 1>(mr, nr, kc, a, panel, c, n, store);
                    } else if by_rows {
                        let a = Rows::at(a_block.as_ptr().add(i * ROW_STRIDE));
                        micro::<ROW_STRIDE, 1>(mr, nr, kc, a, panel, c, n, store);
                    } else {
                        let a = Rows::at(a_block.as_ptr().add(i / MR * pack::group_len(kc)));
                        micro::<1, MR>(mr, nr, kc, a, panel, c, n, store);
                    }
                }
            }
        }
        store = Store::Add;
    }
    if let Some(finish) = job.finish {
        for i in rows.clone() {
            let at = i * n + cols.start;
            // SAFETY: this task's part of C.
            finish(at, unsafe { job.c.slice_mut(at..at + cols.len()) });
        }
    }
}

#[cfg(test)]
mod tests;
