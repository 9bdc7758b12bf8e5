//! Vectors of sixteen, and what goes through them faster by an instruction of the machine's than by what the compiler makes
//! of a loop. The bits are those of the loop.

use crate::math::{exp, tanh_by_exp};

/// Lanes of a vector, and of the reductions of a fixed shape.
pub(crate) const LANES: usize = 16;

/// How vectors go through functions that are much of the work.
pub(crate) trait Lanes: Copy {
    /// e^x of each.
    fn exp(self, x: [f32; LANES]) -> [f32; LANES];

    /// tanh x of each.
    #[inline(always)]
    fn tanh(self, mut x: [f32; LANES]) -> [f32; LANES] {
        let mut exps = x;
        for exp in &mut exps {
            *exp = 2.0 * exp.abs();
        }
        let exps = self.exp(exps);
        for (x, exp) in x.iter_mut().zip(exps) {
            *x = tanh_by_exp(*x, exp);
        }
        x
    }

    /// [`tree_sum`] of every row.
    fn tree_sums(self, rows: &[[f32; LANES]; LANES]) -> [f32; LANES];

    /// [`tree_max`] of every row.
    fn tree_maxima(self, rows: &[[f32; LANES]; LANES]) -> [f32; LANES];
}

/// The sum of the lanes, as a balanced tree.
#[inline(always)]
pub(crate) fn tree_sum(lanes: [f32; LANES]) -> f32 {
    let mut v = lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            v[i] += v[i + half];
        }
    }
    v[0]
}

/// The larger, the second where `x` is NaN.
#[inline(always)]
pub(crate) fn larger(x: f32, y: f32) -> f32 {
    if x > y { x } else { y }
}

/// The largest lane.
#[inline(always)]
pub(super) fn tree_max(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = larger(lanes[i + half], lanes[i]);
        }
    }
    lanes[0]
}

/// By the functions themselves, in loops that the compiler turns into vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OneByOne;

// No `map`: its closure would be compiled for the baseline, where a fused multiply-add is a call.
impl Lanes for OneByOne {
    #[inline(always)]
    fn exp(self, mut x: [f32; LANES]) -> [f32; LANES] {
        for x in &mut x {
            *x = exp(*x);
        }
        x
    }

    #[inline(always)]
    fn tree_sums(self, rows: &[[f32; LANES]; LANES]) -> [f32; LANES] {
        let mut sums = [0.0; LANES];
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = tree_sum(*row);
        }
        sums
    }

    #[inline(always)]
    fn tree_maxima(self, rows: &[[f32; LANES]; LANES]) -> [f32; LANES] {
        let mut maxima = [0.0; LANES];
        for (max, row) in maxima.iter_mut().zip(rows) {
            *max = tree_max(*row);
        }
        maxima
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Avx512;

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)]
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{LANES, Lanes};
    use crate::math::MAGIC;

    /// By AVX-512.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx512(());

    impl Avx512 {
        /// # Safety
        /// The machine has AVX-512 F.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Self(())
        }
    }

    // SAFETY of what follows: a vector is sixteen floats, and who made `self` found AVX-512 F.
    impl Lanes for Avx512 {
        #[inline(always)]
        fn exp(self, x: [f32; LANES]) -> [f32; LANES] {
            // SAFETY: as above.
            unsafe { transmute::<__m512, [f32; LANES]>(exp(transmute::<[f32; LANES], __m512>(x))) }
        }

        #[inline(always)]
        fn tree_sums(self, rows: &[[f32; LANES]; LANES]) -> [f32; LANES] {
            // SAFETY: as above.
            unsafe { transmute::<__m512, [f32; LANES]>(tree::<false>(rows)) }
        }

        #[inline(always)]
        fn tree_maxima(self, rows: &[[f32; LANES]; LANES]) -> [f32; LANES] {
            // SAFETY: as above.
            unsafe { transmute::<__m512, [f32; LANES]>(tree::<true>(rows)) }
        }
    }

    /// [`crate::math::exp()`], operation by operation, but for the product with 2^n: nine instructions there, one here,
    /// which rounds once as the second of the two factors does there.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn exp(x: __m512) -> __m512 {
        let all = |x: f32| _mm512_set1_ps(x);
        // All but what is 0, NaN among them.
        let some = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(x, all(-104.0));
        // The second is taken where either is NaN.
        let x = _mm512_min_ps(all(89.0), x);
        let n = _mm512_sub_ps(_mm512_fmadd_ps(x, all(std::f32::consts::LOG2_E), all(MAGIC)), all(MAGIC));
        let r = _mm512_fmadd_ps(n, all(-std::f32::consts::LN_2), x);
        let r = _mm512_fmadd_ps(n, all(1.904_654_3e-9), r);
        let p = all(1.393_373_3e-3);
        let p = _mm512_fmadd_ps(p, r, all(8.363_235e-3));
        let p = _mm512_fmadd_ps(p, r, all(4.166_646_4e-2));
        let p = _mm512_fmadd_ps(p, r, all(1.666_657_7e-1));
        let p = _mm512_fmadd_ps(p, r, all(0.5));
        let p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), all(1.0));
        _mm512_maskz_scalef_ps(some, p, n)
    }

    /// The trees of all rows at once: each step halves the lanes of two rows' vectors, which fit in one then. Lane i is
    /// that of row i.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn tree<const MAX: bool>(rows: &[[f32; LANES]; LANES]) -> __m512 {
        let both = |low, high| if MAX { _mm512_max_ps(high, low) } else { _mm512_add_ps(low, high) };
        // SAFETY: a row is a vector.
        let row = |i: usize| unsafe { _mm512_loadu_ps(rows[i].as_ptr()) };
        let eights = |i: usize, j: usize| {
            let (x, y) = (row(i), row(j));
            both(_mm512_shuffle_f32x4::<0x44>(x, y), _mm512_shuffle_f32x4::<0xEE>(x, y))
        };
        let fours = |i: usize| {
            let (x, y) = (eights(i, i + 4), eights(i + 8, i + 12));
            both(_mm512_shuffle_f32x4::<0x88>(x, y), _mm512_shuffle_f32x4::<0xDD>(x, y))
        };
        let twos = |i: usize| {
            let (x, y) = (fours(i), fours(i + 1));
            both(_mm512_shuffle_ps::<0x44>(x, y), _mm512_shuffle_ps::<0xEE>(x, y))
        };
        let (x, y) = (twos(0), twos(2));
        both(_mm512_shuffle_ps::<0x88>(x, y), _mm512_shuffle_ps::<0xDD>(x, y))
    }
}
