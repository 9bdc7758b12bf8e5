//! Products against the chains by which they are defined, and the independence of their bits from everything else.

use super::super::convert::{near, wide};
use super::super::dot::tests::kernels;
use super::*;
use crate::backend::cpu::testing::values;

fn half(seed: u64, len: usize) -> Vec<u16> {
    values(seed, len).into_iter().map(near).collect()
}

/// Row by row of a k x n matrix, as n x k.
fn turned<T: Copy>(x: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..cols).flat_map(|j| (0..rows).map(move |i| (i, j))).map(|(i, j)| x[i * cols + j]).collect()
}

/// The partial sums of an element, by the definition: exact here, where nothing is subnormal.
fn blocks(x: impl Fn(usize) -> f32, y: impl Fn(usize) -> f32, k: usize) -> Vec<f32> {
    let at = |f: &dyn Fn(usize) -> f32, p: usize| if p < k { f(p) } else { 0.0 };
    (0..k)
        .step_by(KC)
        .map(|start| {
            (start..k.min(start + KC)).step_by(2).fold(0.0_f32, |c, p| {
                let inner = at(&x, p + 1).mul_add(at(&y, p + 1), c);
                at(&x, p).mul_add(at(&y, p), inner)
            })
        })
        .collect()
}

#[test]
fn products_are_the_chains_of_the_definition_in_every_layout() {
    assert!(!kernels().is_empty());
    for (m, n, k) in [
        (1, 1, 1),
        (12, 32, 8),
        (13, 33, 9),
        (5, 70, 301),
        (100, 40, 257),
        (97, 130, 16),
        (50, 600, 1031),
        (3, 5, 0),
        (7, 64, 2048),
    ] {
        let (a, b) = (half(1, m * k), values(2, k * n));
        let (a_t, b_t) = (turned(&a, m, k), turned(&b, k, n));
        let b_half: Vec<u16> = b.iter().copied().map(near).collect();
        let b_half_t = turned(&b_half, k, n);
        let before = values(3, m * n);
        let sums: Vec<Vec<f32>> = (0..m * n)
            .map(|at| blocks(|p| wide(a[at / n * k + p]), |p| wide(b_half[p * n + at % n]), k))
            .collect();
        let set: Vec<u16> =
            sums.iter().map(|s| near(s.iter().copied().reduce(|x, y| x + y).unwrap_or(0.0))).collect();
        let added: Vec<u32> =
            sums.iter().zip(&before).map(|(s, c)| s.iter().fold(*c, |c, x| c + x).to_bits()).collect();
        for threads in [1, 3] {
            let pool = Pool::default();
            let workers = Workers::new(threads, &pool).unwrap();
            for layout in 0..8 {
                let left = if layout & 1 == 0 {
                    Factor::along(&a[..], m, k)
                } else {
                    Factor::across(&a_t[..], m, k)
                };
                let right = match layout >> 1 {
                    0 => Factor::across(&b[..], n, k),
                    1 => Factor::along(&b_t[..], n, k),
                    2 => Factor::across(&b_half[..], n, k),
                    _ => Factor::along(&b_half_t[..], n, k),
                };
                let mut c = vec![0x1234_u16; m * n];
                gemm(&workers, &pool, Job::setting(left, right, &mut c, &rounded)).unwrap();
                assert_eq!(c, set, "{m} {n} {k}, layout {layout}, {threads} threads");
                let mut c = before.clone();
                gemm(&workers, &pool, Job::adding(left, right, &mut c)).unwrap();
                let c: Vec<u32> = c.iter().map(|x| x.to_bits()).collect();
                assert_eq!(c, added, "{m} {n} {k}, layout {layout}, {threads} threads");
                if let Some(packed) = prepack(&workers, &pool, right).unwrap() {
                    let mut c = vec![0_u16; m * n];
                    gemm(&workers, &pool, Job::setting(left, packed.first(n), &mut c, &rounded)).unwrap();
                    assert_eq!(c, set, "{m} {n} {k}, layout {layout}, packed");
                }
            }
        }
    }
}

#[test]
fn a_packed_side_gives_the_bits_of_a_loose_one() {
    let pool = Pool::default();
    let workers = Workers::new(3, &pool).unwrap();
    for (n, k) in [(1, 1), (32, 256), (70, 301), (600, 1030), (33, 5)] {
        let weights = values(2, n * k);
        let packed = PackedB::new(&workers, &pool, Factor::along(&weights[..], n, k)).unwrap();
        let near: Vec<f32> = weights.iter().map(|&x| wide(near(x))).collect();
        assert_eq!(packed.columns(), near, "{n} {k}");
        for m in [1, 2, 8, 12, 13, 100] {
            let a = half(1, m * k);
            // All columns, or those of a vocabulary without its padding.
            for n in [n, n - n / 3] {
                let a = Factor::along(&a[..], m, k);
                let (mut loose, mut found) = (vec![0_u16; m * n], vec![0_u16; m * n]);
                let b = Factor::along(&weights[..n * k], n, k);
                gemm(&workers, &pool, Job::setting(a, b, &mut loose, &rounded)).unwrap();
                gemm(&workers, &pool, Job::setting(a, packed.first(n), &mut found, &rounded)).unwrap();
                assert_eq!(found, loose, "{m} {n} {k}");
            }
        }
    }
}

#[test]
fn symmetric_products_are_computed_on_one_side_and_copied_to_the_other() {
    for (n, k) in [(150, 70), (13, 8), (200, 300), (1, 4), (600, 33)] {
        let a = half(1, n * k);
        let pool = Pool::default();
        let workers = Workers::new(2, &pool).unwrap();
        let side = Factor::along(&a[..], n, k);
        let (mut whole, mut half) = (vec![0_u16; n * n], vec![0_u16; n * n]);
        gemm(&workers, &pool, Job::setting(side, side, &mut whole, &rounded)).unwrap();
        gemm_batch(&workers, &pool, &[Job::setting(side, side, &mut half, &rounded)], Part::Upper).unwrap();
        assert!(whole == half, "{n} {k}");
    }
}
