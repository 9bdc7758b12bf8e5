//! Products against f64, and the independence of their bits from everything but the operands.

use ndarray::ArrayView2;

use super::super::symmetric::complete;
use super::*;
use crate::backend::cpu::testing::values;

fn product(
    threads: usize,
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    c: &[f32],
    store: Store,
) -> Vec<f32> {
    let pool = Pool::default();
    let workers = Workers::new(threads, &pool).unwrap();
    let mut c = c.to_vec();
    gemm(&workers, &pool, Job::new(a, b, &mut c), store).unwrap();
    c
}

#[test]
fn products_match_f64_in_every_layout() {
    for (m, n, k) in
        // The last but one is shared out by columns alone.
        [
            (1, 1, 1),
            (12, 32, 8),
            (13, 33, 9),
            (5, 70, 300),
            (100, 40, 257),
            (97, 600, 16),
            (50, 600, 1030),
            (3, 5, 0),
        ]
    {
        let (a, b, c) = (values(1, m * k), values(2, k * n), values(3, m * n));
        for layout in 0..4 {
            let a_view = if layout & 1 == 0 { matrix(&a, m, k) } else { matrix(&a, k, m).reversed_axes() };
            let b_view = if layout & 2 == 0 { matrix(&b, k, n) } else { matrix(&b, n, k).reversed_axes() };
            for store in [Store::Set, Store::Add] {
                let got = product(2, a_view, b_view, &c, store);
                for i in 0..m {
                    for j in 0..n {
                        let at = |p: usize| {
                            let x = if layout & 1 == 0 { a[i * k + p] } else { a[p * m + i] };
                            let y = if layout & 2 == 0 { b[p * n + j] } else { b[j * k + p] };
                            f64::from(x) * f64::from(y)
                        };
                        let start = if store == Store::Add { f64::from(c[i * n + j]) } else { 0.0 };
                        let exact = start + (0..k).map(at).sum::<f64>();
                        let error = (f64::from(got[i * n + j]) - exact).abs();
                        assert!(error < 1e-5 * (1.0 + k as f64).sqrt(), "{m} {n} {k} {layout} {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_on_other_rows() {
    // The second is shared out by columns alone where threads are few, by rows too where they are many.
    for (m, n, k) in [(301, 130, 600), (300, 700, 1100)] {
        let (a, b) = (values(1, m * k), values(2, k * n));
        let c = vec![0.0; m * n];
        for a_view in [matrix(&a, m, k), matrix(&a, k, m).reversed_axes()] {
            let one = product(1, a_view, matrix(&b, k, n), &c, Store::Set);
            for threads in [2, 3, 5, 8] {
                assert_eq!(one, product(threads, a_view, matrix(&b, k, n), &c, Store::Set));
            }
        }
        let one = product(1, matrix(&a, m, k), matrix(&b, k, n), &c, Store::Set);
        let row = 77;
        let alone = product(1, matrix(&a[row * k..][..k], 1, k), matrix(&b, k, n), &c[..n], Store::Set);
        assert_eq!(alone, one[row * n..][..n]);
    }
}

/// A few rows, whose other factor is read as it lies, have the bits of the chains by which elements are defined.
#[test]
fn few_rows_have_the_bits_of_the_definition() {
    for (n, k) in
        [(1, 40), (15, 1), (16, 16), (17, 15), (33, 17), (100, 256), (47, 257), (600, 600), (70, 1030)]
    {
        for m in 1..=13 {
            let (a, b, c) = (values(1, m * k), values(2, n * k), values(3, m * n));
            for store in [Store::Set, Store::Add] {
                let element = |i: usize, j: usize| {
                    let blocks = (0..k).step_by(KC).map(|p| {
                        (p..k.min(p + KC)).fold(0.0_f32, |sum, p| a[i * k + p].mul_add(b[j * k + p], sum))
                    });
                    let start = (store == Store::Add).then_some(c[i * n + j]);
                    start.into_iter().chain(blocks).reduce(|sum, block| sum + block).unwrap()
                };
                let expected: Vec<f32> = (0..m * n).map(|at| element(at / n, at % n)).collect();
                for threads in [1, 3] {
                    let b = matrix(&b, n, k).reversed_axes();
                    let found = product(threads, matrix(&a, m, k), b, &c, store);
                    assert_eq!(found, expected, "{m} {n} {k} {store:?}, {threads} threads");
                }
            }
        }
    }
}

/// A factor that is mapped, and a product that is finished, have the bits of doing so before and after.
#[test]
fn maps_and_finishes_are_those_of_whole_matrices() {
    fn map(x: &mut [f32]) {
        for x in x {
            *x = *x * *x + 0.5;
        }
    }
    let pool = Pool::default();
    let workers = Workers::new(2, &pool).unwrap();
    for (m, n, k) in [(13, 33, 9), (100, 40, 257), (300, 1200, 1030), (30, 70, 0)] {
        let (a, b, c) = (values(1, m * k), values(2, k * n), values(3, m * n));
        let (mut mapped_a, mut mapped_b) = (a.clone(), b.clone());
        map(&mut mapped_a);
        map(&mut mapped_b);
        let finish = |at: usize, row: &mut [f32]| {
            row.iter_mut().zip(&c[at..]).for_each(|(x, c)| *x = *x * 2.0 - c);
        };
        for layout in 0..4 {
            let view_a = |a| if layout & 1 == 0 { matrix(a, m, k) } else { matrix(a, k, m).reversed_axes() };
            let view_b = |b| if layout & 2 == 0 { matrix(b, k, n) } else { matrix(b, n, k).reversed_axes() };
            for store in [Store::Set, Store::Add] {
                let mut expected = product(2, view_a(&mapped_a), view_b(&mapped_b), &c, store);
                finish(0, &mut expected);
                let mut found = c.clone();
                let (a, b) = (Factor::mapped(view_a(&a), map), Factor::mapped(view_b(&b), map));
                gemm(&workers, &pool, Job::new(a, b, &mut found).finished_by(&finish), store).unwrap();
                assert_eq!(found, expected, "{m} {n} {k} {layout} {store:?}");
            }
        }
    }
}

#[test]
fn symmetric_products_need_one_triangle() {
    let (n, k) = (150, 70);
    let a = values(1, n * k);
    let pool = Pool::default();
    let workers = Workers::new(2, &pool).unwrap();
    let view = matrix(&a, n, k);
    let whole = product(2, view, view.reversed_axes(), &vec![0.0; n * n], Store::Set);
    let mut half = vec![0.0; n * n];
    gemm_batch(
        &workers,
        &pool,
        vec![Job::new(view, view.reversed_axes(), &mut half)],
        Store::Set,
        Part::Upper,
    )
    .unwrap();
    complete(&workers, &mut half, n, |_, _| {});
    assert_eq!(whole, half);
}

#[test]
fn every_instruction_set_has_the_definition_s_bits() {
    // `micro` takes the best level of this machine; the chain written out is the definition.
    let k = 100;
    let a = values(1, MR * ROW_STRIDE);
    // The last two start at lane 16: the second half of a panel alone.
    let whole =
        [(12, 32), (7, 32), (1, 32), (12, 1), (5, 17), (12, 31), (12, 16), (3, 15)].map(|(m, n)| (m, n, 0));
    let parts = whole.into_iter().chain([(12, 16, 16), (3, 5, 16)]);
    // A packed panel, and one whose rows lie further apart.
    for ((mr, nr, lane), stride) in parts.flat_map(|part| [(part, NR), (part, NR + 16)]) {
        let b = values(2, k * stride);
        let mut c = vec![0.5_f32; MR * NR];
        // SAFETY: all in bounds.
        unsafe {
            micro::<ROW_STRIDE, 1>(
                mr,
                nr,
                k,
                Rows::at(a.as_ptr()),
                Panel { b: b[lane..].as_ptr(), stride },
                c.as_mut_ptr(),
                NR,
                Store::Add,
            );
        }
        for i in 0..MR {
            for j in 0..NR {
                let terms = (0..k).map(|p| (a[i * ROW_STRIDE + p], b.get(p * stride + j + lane).copied()));
                let chain = terms.fold(0.0_f32, |s, (a, b)| a.mul_add(b.unwrap_or(0.0), s));
                let expected = if i < mr && j < nr { 0.5 + chain } else { 0.5 };
                assert_eq!(c[i * NR + j].to_bits(), expected.to_bits(), "{mr} {nr} {stride} {i} {j}");
            }
        }
    }
}

/// What the kernels rely on is checked before they start.
#[test]
fn factors_that_are_not_contiguous_are_refused() {
    let data = [0.0; 64];
    let square = matrix(&data, 8, 8);
    let refused = |a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, len: usize| {
        let mut c = vec![0.0; len];
        let mut made = || Job::new(a, b, &mut c).sizes();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut made)).is_err()
    };
    assert!(!refused(square, square, 64) && !refused(square.reversed_axes(), square, 64));
    let every_other = square.slice(ndarray::s![..;2, ..;2]);
    assert!(refused(every_other, matrix(&data, 4, 4), 16));
    assert!(refused(matrix(&data, 4, 4), every_other.reversed_axes(), 16));
    let backwards = square.slice(ndarray::s![..;-1, ..]);
    assert!(refused(backwards, square, 64));
    assert!(refused(square, matrix(&data, 4, 8), 64), "k differs");
    assert!(refused(square, square, 63), "C is too short");
}

#[test]
fn a_packed_side_gives_the_bits_of_a_loose_one() {
    let pool = Pool::default();
    let workers = Workers::new(3, &pool).unwrap();
    for (n, k) in [(1, 1), (32, 256), (70, 300), (600, 1030), (33, 5)] {
        let weights = values(2, n * k);
        let packed = PackedB::new(&workers, &pool, matrix(&weights, n, k).reversed_axes()).unwrap();
        assert_eq!(packed.columns(), weights, "{n} {k}");
        for m in [1, 2, 8, 12, 13, 100, 300] {
            let a = values(1, m * k);
            // All columns, or those of a vocabulary without its padding.
            for n in [n, n - n / 3] {
                let c = values(3, m * n);
                for store in [Store::Set, Store::Add] {
                    let b = matrix(&weights[..n * k], n, k).reversed_axes();
                    let loose = product(2, matrix(&a, m, k), b, &c, store);
                    let mut found = c.clone();
                    let job = Job::packed(matrix(&a, m, k), &packed, n, &mut found);
                    gemm(&workers, &pool, job, store).unwrap();
                    assert_eq!(found, loose, "{m} {n} {k} {store:?}");
                }
            }
        }
    }
}

#[test]
fn a_long_product_is_packed_by_whoever_reads_it_unless_that_is_done_too_often() {
    let plan = |m, n, threads| {
        let plan = Plan::new(m, n, 4096, 1, threads);
        (plan.row_tasks, plan.col_tasks, plan.prepack)
    };
    // Gradients of weights of depth 4: square, wide and tall.
    assert_eq!(plan(256, 256, 2), (1, 2, false));
    assert_eq!(plan(256, 1024, 2), (1, 2, false));
    assert_eq!(plan(1024, 256, 2), (4, 1, false));
    // Each of many tasks would pack all of one side.
    for (m, n) in [(256, 256), (1024, 256)] {
        let (row_tasks, col_tasks, prepack) = plan(m, n, 16);
        assert!(prepack && row_tasks * col_tasks >= 16, "{m} {n}");
    }
}
