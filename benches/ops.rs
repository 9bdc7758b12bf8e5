//! Every op of the CPU backend at the shapes of depths 4, 6 and 12; "Gitem/s" is GFLOP/s, of needed operations, where
//! an op is made of products, and 1e9 values/s elsewhere.
//!
//! `cargo bench --bench ops [FILTER]`; `BENCH_THREADS` sets the threads (2).
#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_imports)]

use std::sync::OnceLock;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use nanorun::internals::backend::cpu::{CpuBackend, Param, Tensor};
use nanorun::internals::ops::{
    AdamWStep, AttentionShape, ForwardOps, HeadShape, MuonParam, MuonStep, SequenceShape, TrainOps,
};
use nanorun::internals::precision::Precision;

fn main() {
    divan::main();
}

fn cpu() -> &'static CpuBackend {
    static CPU: OnceLock<CpuBackend> = OnceLock::new();
    CPU.get_or_init(|| {
        let threads = std::env::var("BENCH_THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(2);
        CpuBackend::new(threads).unwrap()
    })
}

/// Numbers that are neither equal nor extreme.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0).collect()
}

fn tensor(rows: usize, cols: usize) -> Tensor {
    cpu().tensor(rows, cols, &values(rows * cols)).unwrap()
}

fn param(rows: usize, cols: usize) -> Param {
    cpu().weight(&[rows, cols], &values(rows * cols)).unwrap()
}

/// Rows, inputs, outputs.
const LINEAR: [(usize, usize, usize); 8] = [
    (4096, 256, 256),
    (4096, 256, 1024),
    (4096, 1024, 256),
    (4096, 384, 384),
    (4096, 384, 1536),
    (4096, 1536, 384),
    (1024, 768, 768),
    (1024, 768, 3072),
];

/// Those that take squares.
const SQUARED: [(usize, usize, usize); 3] = [(4096, 1024, 256), (4096, 1536, 384), (1024, 3072, 768)];

#[divan::bench_group]
mod linear {
    use super::*;

    #[divan::bench(args = LINEAR)]
    fn forward(bencher: Bencher<'_, '_>, (n, inputs, out): (usize, usize, usize)) {
        let (x, w) = (tensor(n, inputs), param(out, inputs));
        bencher
            .counter(ItemsCount::new(2 * n * inputs * out))
            .bench_local(|| cpu().linear(black_box(&x), &w).unwrap());
    }

    #[divan::bench(args = LINEAR)]
    fn backward(bencher: Bencher<'_, '_>, (n, inputs, out): (usize, usize, usize)) {
        let (x, w, dy) = (tensor(n, inputs), param(out, inputs), tensor(n, out));
        let mut dw = cpu().grad(&[out, inputs]).unwrap();
        bencher
            .counter(ItemsCount::new(4 * n * inputs * out))
            .bench_local(|| cpu().linear_backward(black_box(&x), &w, &dy, &mut dw, None).unwrap());
    }

    #[divan::bench(args = SQUARED)]
    fn relu_squared_forward(bencher: Bencher<'_, '_>, (n, inputs, out): (usize, usize, usize)) {
        let (u, w) = (tensor(n, inputs), param(out, inputs));
        bencher
            .counter(ItemsCount::new(2 * n * inputs * out))
            .with_inputs(|| tensor(n, out))
            .bench_local_values(|x| cpu().relu_squared_linear_add(x, black_box(&u), &w).unwrap());
    }

    #[divan::bench(args = SQUARED)]
    fn relu_squared_backward(bencher: Bencher<'_, '_>, (n, inputs, out): (usize, usize, usize)) {
        let (u, w, dy) = (tensor(n, inputs), param(out, inputs), tensor(n, out));
        let mut dw = cpu().grad(&[out, inputs]).unwrap();
        bencher
            .counter(ItemsCount::new(4 * n * inputs * out))
            .bench_local(|| cpu().relu_squared_linear_backward(black_box(&u), &w, &dy, &mut dw).unwrap());
    }

    /// The product of `forward` by the `matrixmultiply` crate, which has one thread here: compare with
    /// `BENCH_THREADS=1`.
    #[divan::bench(args = LINEAR)]
    fn forward_matrixmultiply(bencher: Bencher<'_, '_>, (n, inputs, out): (usize, usize, usize)) {
        let (x, w, mut y) = (values(n * inputs), values(out * inputs), values(n * out));
        let (row, out_row) = (inputs as isize, out as isize);
        bencher.counter(ItemsCount::new(2 * n * inputs * out)).bench_local(|| {
            // SAFETY: the three matrices have the sizes and strides given.
            unsafe {
                let (x, w, y) = (x.as_ptr(), w.as_ptr(), y.as_mut_ptr());
                matrixmultiply::sgemm(n, inputs, out, 1.0, x, row, 1, w, 1, row, 0.0, y, out_row, 1);
            }
        });
    }
}

/// B, T, H, D, window.
const ATTENTION: [(usize, usize, usize, usize, usize); 6] = [
    (8, 512, 4, 64, 128),
    (8, 512, 4, 64, 512),
    (2, 2048, 4, 64, 512),
    (2, 2048, 4, 64, 2048),
    (8, 512, 6, 64, 512),
    (1, 1024, 6, 128, 1024),
];

#[divan::bench_group]
mod attention {
    use super::*;

    fn shape((batch, len, heads, head_dim, window): (usize, usize, usize, usize, usize)) -> AttentionShape {
        let sequence = SequenceShape { batch, len };
        AttentionShape { sequence, n_head: heads, n_kv_head: heads, head_dim, window }
    }

    /// Of one product: 2 D for every visible pair.
    fn flops(s: &AttentionShape) -> usize {
        let pairs: usize = (0..s.sequence.len).map(|i| i.min(s.window) + 1).sum();
        2 * s.sequence.batch * s.n_head * s.head_dim * pairs
    }

    #[divan::bench(args = ATTENTION)]
    fn forward(bencher: Bencher<'_, '_>, args: (usize, usize, usize, usize, usize)) {
        let s = shape(args);
        let (n, c) = (s.sequence.rows(), s.n_head * s.head_dim);
        let (q, k, v) = (tensor(n, c), tensor(n, c), tensor(n, c));
        bencher
            .counter(ItemsCount::new(2 * flops(&s)))
            .bench_local(|| cpu().attention(black_box(&q), &k, &v, &s).unwrap());
    }

    #[divan::bench(args = ATTENTION)]
    fn backward(bencher: Bencher<'_, '_>, args: (usize, usize, usize, usize, usize)) {
        let s = shape(args);
        let (n, c) = (s.sequence.rows(), s.n_head * s.head_dim);
        let (q, k, v, d_o) = (tensor(n, c), tensor(n, c), tensor(n, c), tensor(n, c));
        let (o, saved) = cpu().attention(&q, &k, &v, &s).unwrap();
        bencher
            .counter(ItemsCount::new(5 * flops(&s)))
            .bench_local(|| cpu().attention_backward(black_box(&q), &k, &v, &o, &saved, &s, &d_o).unwrap());
    }
}

#[divan::bench_group]
mod cross_entropy {
    use super::*;

    #[divan::bench(args = [(4096, 256, 4096), (4096, 384, 4096), (1024, 768, 4096), (1024, 768, 32768)])]
    fn train(bencher: Bencher<'_, '_>, (n, c, vocab): (usize, usize, usize)) {
        let (x, w) = (tensor(n, c), param(vocab, c));
        let mut dw = cpu().grad(&[vocab, c]).unwrap();
        let ids: Vec<i32> = (0..n as i32).map(|i| i * 31 % vocab as i32).collect();
        let targets = cpu().tokens(&ids).unwrap();
        let head = HeadShape { vocab_size: vocab, softcap: Some(15.0) };
        bencher.counter(ItemsCount::new(6 * n * c * vocab)).bench_local(|| {
            cpu().cross_entropy_train(black_box(&x), &w, &targets, &head, 1e-3, &mut dw).unwrap()
        });
    }
}

#[divan::bench_group]
mod optimizer {
    use super::*;

    /// Matrices, rows, columns.
    #[divan::bench(args = [(16, 256, 256), (4, 1024, 256), (4, 256, 1024), (6, 1536, 384), (4, 768, 768), (2, 3072, 768)])]
    fn muon(bencher: Bencher<'_, '_>, (count, rows, cols): (usize, usize, usize)) {
        let step = MuonStep {
            lr: 0.02,
            momentum: 0.9,
            weight_decay: 0.1,
            beta2: 0.9,
            norm_factor: 1.01,
            ns_steps: 5,
            row_equilibration: true,
            renormalize: true,
            polar_precision: Precision::F32,
            update_precision: Precision::F32,
        };
        let mut state: Vec<[Param; 4]> = (0..count)
            .map(|_| {
                let second = cpu().grad(&[rows.max(cols)]).unwrap();
                [param(rows, cols), param(rows, cols), param(rows, cols), second]
            })
            .collect();
        let n = rows.min(cols);
        // Symmetric products count half.
        let flops = 5 * (rows * cols * n + n * n * n + 2 * rows * cols * n);
        bencher.counter(ItemsCount::new(count * flops)).bench_local(|| {
            let mut params: Vec<_> = state
                .iter_mut()
                .map(|[weight, grad, momentum, second_moment]| MuonParam {
                    weight,
                    grad,
                    momentum,
                    second_moment,
                })
                .collect();
            cpu().muon(&mut params, &step).unwrap();
        });
    }

    #[divan::bench]
    fn adamw(bencher: Bencher<'_, '_>) {
        let (mut w, g, mut m, mut v) =
            (param(4096, 256), param(4096, 256), param(4096, 256), param(4096, 256));
        let step = AdamWStep {
            lr: 0.01,
            beta1: 0.8,
            beta2: 0.95,
            bias1: 0.2,
            bias2: 0.05,
            eps: 1e-10,
            weight_decay: 0.01,
        };
        bencher
            .counter(ItemsCount::new(4096_usize * 256))
            .bench_local(|| cpu().adamw(&mut w, &g, &mut m, &mut v, &step).unwrap());
    }
}

#[divan::bench_group]
mod elementwise {
    use super::*;

    const N: usize = 4096;
    const C: usize = 256;

    #[divan::bench]
    fn rms_norm(bencher: Bencher<'_, '_>) {
        let x = tensor(N, C);
        bencher.counter(ItemsCount::new(N * C)).bench_local(|| cpu().rms_norm(black_box(&x), 1e-7).unwrap());
    }

    #[divan::bench]
    fn rms_norm_backward(bencher: Bencher<'_, '_>) {
        let dy = tensor(N, C);
        let (y, saved) = cpu().rms_norm(&tensor(N, C), 1e-7).unwrap();
        bencher
            .counter(ItemsCount::new(N * C))
            .bench_local(|| cpu().rms_norm_backward(black_box(&y), &saved, &dy, None).unwrap());
    }

    #[divan::bench]
    fn rotary_norm(bencher: Bencher<'_, '_>) {
        let table = cpu().rotary(512, 64, 1e5, Precision::F32).unwrap();
        let s = SequenceShape { batch: 8, len: 512 };
        bencher
            .counter(ItemsCount::new(N * C))
            .with_inputs(|| tensor(N, C))
            .bench_local_values(|x| cpu().rotary_norm(x, &table, 0, s, 64, 1.2, 1e-7).unwrap());
    }

    #[divan::bench]
    fn residual_mix_backward(bencher: Bencher<'_, '_>) {
        let (x, x0) = (tensor(N, C), tensor(N, C));
        let (r, z) = (param(1, 4), param(1, 4));
        let (mut dx0, mut dr, mut dz) = (tensor(N, C), cpu().grad(&[4]).unwrap(), cpu().grad(&[4]).unwrap());
        bencher.counter(ItemsCount::new(N * C)).with_inputs(|| tensor(N, C)).bench_local_values(|dy| {
            cpu().residual_mix_backward(&x, &x0, &r, &z, 1, dy, &mut dx0, &mut dr, &mut dz).unwrap()
        });
    }

    #[divan::bench]
    fn embedding_backward(bencher: Bencher<'_, '_>) {
        let dy = tensor(N, C);
        let ids: Vec<i32> = (0..N as i32).map(|i| i * 31 % 4096).collect();
        let tokens = cpu().tokens(&ids).unwrap();
        let mut dtable = cpu().grad(&[4096, C]).unwrap();
        bencher
            .counter(ItemsCount::new(N * C))
            .bench_local(|| cpu().embedding_backward(&tokens, black_box(&dy), &mut dtable).unwrap());
    }
}
