//! Every kernel against the definition written out, on what tells kernels apart.

use super::*;
use crate::simd::Level;

/// The kernels of this machine.
pub(in super::super) fn kernels() -> Vec<Kernel> {
    let mut all = vec![Kernel::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        all.extend((level() >= Level::Avx2).then_some(Kernel::Avx2));
        all.extend((level() >= Level::Avx512).then_some(Kernel::Avx512));
        all.extend(pair_instruction().then_some(Kernel::Instruction));
    }
    all
}

/// The exact value of `x y + c` rounded to nearest even with 24 bits and any exponent: with f64, of which the product is
/// exact and the sum has an exact rest.
fn exactly(x: f32, y: f32, c: f32) -> f32 {
    let (x, y, c) = (f64::from(x), f64::from(y), f64::from(c));
    let product = x * y;
    let sum = product + c;
    if !sum.is_finite() {
        return sum as f32;
    }
    let back = sum - product;
    let rest = (product - (sum - back)) + (c - back);
    // Round to odd: what is left out decides ties of the second rounding.
    let bits = sum.to_bits();
    let odd = if rest == 0.0 || bits & 1 == 1 {
        sum
    } else if (rest > 0.0) == (sum > 0.0) {
        f64::from_bits(bits + 1)
    } else {
        f64::from_bits(bits - 1)
    };
    // 24 bits with the exponent of f64: the low 29 go, to even.
    let bits = odd.to_bits();
    let rounded = f64::from_bits((bits + 0x0fff_ffff + (bits >> 29 & 1)) & !0x1fff_ffff);
    if rounded.abs() < f64::from(f32::MIN_POSITIVE) {
        0.0_f32.copysign(rounded as f32)
    } else {
        rounded as f32
    }
}

fn step(c: f32, x: u32, y: u32) -> f32 {
    let value = |bits: u32| {
        let x = f32::from_bits(bits << 16);
        if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
    };
    exactly(value(x & 0xffff), value(y & 0xffff), exactly(value(x >> 16), value(y >> 16), c))
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    /// A bfloat16 with this biased exponent.
    fn of_exponent(&mut self, exponent: i32) -> u32 {
        (exponent.clamp(0, 254) as u32) << 7 | self.next() & 0x807f
    }

    /// A pair of bfloat16 of a kind: any bits, products about as small as the smallest normal number, subnormal ones,
    /// or what is special.
    fn factors(&mut self, kind: usize) -> (u32, u32) {
        let special = TELLING.map(u32::from);
        let mut half = || match kind {
            0 => (self.next() & 0xffff, self.next() & 0xffff),
            1 => {
                let (first, both) = ((self.next() % 254) as i32, 127 + 1 + (self.next() % 60) as i32 - 40);
                (self.of_exponent(first), self.of_exponent(both - first))
            }
            2 => (self.next() & 0x80ff, self.next() & 0x3fff | 0x3f00),
            _ => (special[self.next() as usize % 16], special[self.next() as usize % 16]),
        };
        let (low, high) = (half(), half());
        (low.0 | high.0 << 16, low.1 | high.1 << 16)
    }
}

fn tile(kernel: Kernel, mr: usize, nr: usize, pairs: usize, a: &[u32], b: &[u32]) -> Vec<f32> {
    let mut c = vec![0.0; MR * NR];
    let (a, b, c_start) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let tile = Tile { nr, pairs, left: Left::rows(a, pairs), b, c: c_start, ldc: NR, store: Store::Set };
    // SAFETY: all in bounds.
    unsafe { run::<ANY>(kernel, mr, &tile) };
    c
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Chains of three pairs: what comes out of one begins the next, so that sums are large, small and special too.
#[test]
fn every_kernel_has_the_definition_s_bits() {
    const PAIRS: usize = 3;
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..200 {
        let mut a = [0; MR * PAIRS];
        let mut b = [0; NR * PAIRS];
        for (i, a) in a.iter_mut().enumerate() {
            *a = random.factors((round + i) % 4).0;
        }
        for (j, b) in b.iter_mut().enumerate() {
            *b = random.factors((round + j / 5) % 4).1;
        }
        let expected =
            |i: usize, j: usize| (0..PAIRS).fold(0.0, |c, p| step(c, a[i * PAIRS + p], b[p * NR + j]));
        for kernel in kernels() {
            let c = tile(kernel, MR, NR, PAIRS, &a, &b);
            for (i, j) in (0..MR).flat_map(|i| (0..NR).map(move |j| (i, j))) {
                let (found, wanted) = (c[i * NR + j], expected(i, j));
                assert!(same(found, wanted), "{kernel:?}, round {round}, {i} {j}: {found:e} for {wanted:e}");
            }
        }
    }
}

/// The smallest normal number, and products that change it by more and by less than half of what rounds to it.
#[test]
fn what_is_tiny_is_decided_after_rounding() {
    let smallest = f32::MIN_POSITIVE;
    // 2^-126 = 2^-100 2^-26, then -2^-e.
    let power = |e: i32| ((127 + e) as u32) << 7;
    for (e, kept) in [(-149, false), (-150, false), (-151, true), (-152, true), (-160, true), (-200, true)] {
        for sign in [0, 0x8000] {
            let first = (power(-100) << 16, (power(-26) | sign) << 16);
            let second = (power(-90) << 16, (power(e + 90) | sign ^ 0x8000) << 16);
            let a: Vec<u32> = (0..MR).flat_map(|_| [first.0, second.0]).collect();
            let b: Vec<u32> = [first.1, second.1].into_iter().flat_map(|x| [x; NR]).collect();
            let wanted = if kept { smallest } else { 0.0 };
            for kernel in kernels() {
                let c = tile(kernel, 1, NR, 2, &a, &b);
                // The even elements, 0 and 0, turn a zero of either sign to +0.
                let signed = if sign == 0 || !kept { wanted } else { -wanted };
                assert_eq!(c[5].to_bits(), signed.to_bits(), "{kernel:?}: 2^{e}");
            }
        }
    }
    // Tininess of the inner multiply-add: -2^-151 from the odd elements is flushed before the even ones are added.
    for kernel in kernels() {
        let (x, y) = (power(-100) | power(-90) << 16, power(-26) | (power(-61) | 0x8000) << 16);
        let c = tile(kernel, 1, NR, 1, &[x; MR], &[y; NR]);
        assert_eq!(c[0], smallest, "{kernel:?}");
    }
}

#[test]
fn tiles_of_every_size_store_what_they_should() {
    const LDC: usize = NR + 3;
    for pairs in [0, 5, CHAIN] {
        let mut random = Random(77);
        let mut pair = || (random.next() & 0x007f_007f | 0x3f80_3f80) ^ random.next() & 0x8000_8000;
        let a: Vec<u32> = (0..MR * pairs).map(|_| pair()).collect();
        let b: Vec<u32> = (0..NR * pairs).map(|_| pair()).collect();
        // By rows, and by columns.
        let columns: Vec<u32> =
            (0..pairs).flat_map(|p| (0..MR).map(move |i| (i, p))).map(|(i, p)| a[i * pairs + p]).collect();
        let chain =
            |i: usize, j: usize| (0..pairs).fold(0.0, |c, p| step(c, a[i * pairs + p], b[p * NR + j]));
        let chains: Vec<f32> = (0..MR * NR).map(|at| chain(at / NR, at % NR)).collect();
        for (kernel, mr) in kernels().into_iter().flat_map(|kernel| (1..=MR).map(move |mr| (kernel, mr))) {
            for (nr, store) in
                [1, 5, 15, 16, 17, 31, 32].into_iter().flat_map(|nr| [(nr, Store::Set), (nr, Store::Add)])
            {
                let mut c: [Vec<f32>; 4] = std::array::from_fn(|_| vec![0.25; MR * LDC]);
                let [by_rows, by_columns] =
                    [Left::rows(a.as_ptr(), pairs), Left::new(columns.as_ptr(), 1, MR)];
                let (mut room, b) = (Wide::new(), b.as_ptr());
                let to = c.each_mut().map(Vec::as_mut_ptr);
                let tile = |left, way: usize| Tile { nr, pairs, left, b, c: to[way], ldc: LDC, store };
                // SAFETY: all in bounds, and no more pairs than there is room for.
                unsafe {
                    run::<ANY>(kernel, mr, &tile(by_rows, 0));
                    run::<1>(kernel, mr, &tile(by_columns, 1));
                    // The same once more, widened before.
                    run::<ANY>(kernel, mr, &tile(by_rows.widened::<ANY>(kernel, mr, pairs, &mut room), 2));
                    run::<1>(kernel, mr, &tile(by_columns.widened::<1>(kernel, mr, pairs, &mut room), 3));
                }
                for (i, j) in (0..MR).flat_map(|i| (0..LDC).map(move |j| (i, j))) {
                    let before = if store == Store::Add { 0.25 } else { 0.0 };
                    let inside = i < mr && j < nr;
                    let wanted = if inside { before + chains[i * NR + j] } else { 0.25 };
                    for (way, c) in c.iter().enumerate() {
                        assert!(same(c[i * LDC + j], wanted), "{kernel:?} {pairs} {way} {mr} {nr} {i} {j}");
                    }
                }
            }
        }
    }
}

/// Longer ones than are widened at once, along rows, along columns, and neither.
#[test]
fn chains_of_any_length_are_one() {
    const PAIRS: usize = 2 * CHAIN + 3;
    let mut random = Random(91);
    let mut pair = || (random.next() & 0x007f_007f | 0x3f80_3f80) ^ random.next() & 0x8000_8000;
    let a: Vec<u32> = (0..MR * PAIRS).map(|_| pair()).collect();
    let b: Vec<u32> = (0..NR * PAIRS).map(|_| pair()).collect();
    let laid = |rs: usize, ks: usize| {
        let mut laid = vec![0; 2 * MR * PAIRS];
        (0..MR * PAIRS).for_each(|at| laid[at / PAIRS * rs + at % PAIRS * ks] = a[at]);
        laid
    };
    for kernel in kernels() {
        let by = |rs: usize, ks: usize| {
            let (a, mut c) = (laid(rs, ks), vec![0.0; MR * NR]);
            let (a, b, to) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
            let left = Left::new(a, rs, ks);
            let tile = Tile { nr: NR, pairs: PAIRS, left, b, c: to, ldc: NR, store: Store::Set };
            // SAFETY: all in bounds.
            unsafe { if rs == 1 { run::<1>(kernel, MR, &tile) } else { run::<ANY>(kernel, MR, &tile) } };
            c
        };
        let (rows, columns, apart) = (by(PAIRS, 1), by(1, MR), by(2, 2 * MR));
        for (i, j) in (0..MR).flat_map(|i| (0..NR).map(move |j| (i, j))) {
            let wanted = (0..PAIRS).fold(0.0, |c, p| step(c, a[i * PAIRS + p], b[p * NR + j]));
            for found in [&rows, &columns, &apart] {
                assert!(same(found[i * NR + j], wanted), "{kernel:?} {i} {j}");
            }
        }
    }
}

/// The trial at start passes where kernels agree, and takes no kernel that departs.
#[test]
fn the_trial_tells_kernels_apart() {
    for kernel in kernels() {
        assert!(agree(kernel, Kernel::Portable), "{kernel:?}");
    }
    assert!(!instruction_departs(), "this machine's instruction is the definition");
}

/// Sums of partial sums keep subnormal numbers, whichever kernel made them.
#[test]
fn additions_to_c_flush_nothing() {
    for (kernel, nr) in kernels().into_iter().flat_map(|kernel| [(kernel, 5), (kernel, NR)]) {
        let mut c = vec![f32::from_bits(1); MR * NR];
        let (a, b) = ([0_u32; MR], [0_u32; NR]);
        let left = Left::rows(a.as_ptr(), 1);
        let (b, to) = (b.as_ptr(), c.as_mut_ptr());
        let tile = Tile { nr, pairs: 1, left, b, c: to, ldc: NR, store: Store::Add };
        // SAFETY: all in bounds.
        unsafe { run::<ANY>(kernel, MR, &tile) };
        assert!(c.iter().all(|x| x.to_bits() == 1), "{kernel:?}");
        assert!(!crate::control_word::set(), "{kernel:?} leaves the control word as it was");
    }
}
