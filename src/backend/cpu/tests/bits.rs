//! One set of bits, whatever the threads and the instructions.

use sha2::{Digest, Sha256};

use super::super::testing::values;
use super::super::{CpuBackend, Tensor};
use crate::ops::{
    AdamWStep, AttentionShape, ForwardOps, HeadShape, MuonParam, MuonStep, SequenceShape, TrainOps,
};
use crate::precision::Precision;

/// Runs every op on shapes that fill no tile evenly, -> everything computed.
fn everything(threads: usize) -> Vec<(&'static str, Vec<f32>)> {
    let cpu = CpuBackend::new(threads).unwrap();
    let (batch, len, heads, kv_heads, d, vocab) = (2, 301, 4, 2, 20, 333);
    let s = SequenceShape { batch, len };
    let (n, c, kv) = (s.rows(), heads * d, kv_heads * d);
    let tensor = |seed, cols: usize| -> Tensor { cpu.tensor(n, cols, &values(seed, n * cols)).unwrap() };
    let weight =
        |seed, rows: usize, cols: usize| cpu.weight(&[rows, cols], &values(seed, rows * cols)).unwrap();
    let grad = |rows: usize, cols: usize| cpu.grad(&[rows, cols]).unwrap();
    let mut all: Vec<(&'static str, Vec<f32>)> = Vec::new();
    let ids: Vec<i32> = (0..n as i32).map(|i| (i * i * 31 + i) % vocab as i32).collect();
    let tokens = cpu.tokens(&ids).unwrap();
    let eps = 1.1920929e-7;

    let table = weight(1, vocab, c);
    let x = cpu.embedding(&table, &tokens).unwrap();
    let mut dtable = grad(vocab, c);
    cpu.embedding_backward(&tokens, &tensor(2, c), &mut dtable).unwrap();
    all.push(("embedding_backward", dtable.values().to_vec()));

    let (y, saved) = cpu.rms_norm(&x, eps).unwrap();
    let dx = cpu.rms_norm_backward(&y, &saved, &tensor(3, c), Some(tensor(4, c))).unwrap();
    all.extend([("rms_norm", y.values().to_vec()), ("rms_norm_backward", dx.values().to_vec())]);

    let w = weight(5, 3 * c, c);
    let up = cpu.linear(&y, &w).unwrap();
    let mut dw = grad(3 * c, c);
    let dx = cpu.linear_backward(&y, &w, &tensor(6, 3 * c), &mut dw, Some(tensor(7, c))).unwrap();
    all.extend([
        ("linear", up.values().to_vec()),
        ("linear_backward", dx.values().to_vec()),
        ("dw", dw.values().to_vec()),
    ]);
    let active = cpu.relu_squared(&up).unwrap();
    let dup = cpu.relu_squared_backward(&up, tensor(8, 3 * c)).unwrap();
    all.extend([
        ("relu_squared", active.values().to_vec()),
        ("relu_squared_backward", dup.values().to_vec()),
    ]);
    let down = cpu.linear_add(tensor(9, c), &active, &weight(10, c, 3 * c)).unwrap();
    all.push(("linear_add", down.values().to_vec()));

    let (resid, z) = (weight(11, 1, 4), weight(12, 1, 4));
    let mixed = cpu.residual_mix(&x, &y, &resid, &z, 2).unwrap();
    let (mut dx0, mut dr, mut dz) = (tensor(13, c), grad(1, 4), grad(1, 4));
    let dx =
        cpu.residual_mix_backward(&x, &y, &resid, &z, 2, tensor(14, c), &mut dx0, &mut dr, &mut dz).unwrap();
    for v in [mixed.values(), dx.values(), dx0.values(), dr.values(), dz.values()] {
        all.push(("residual_mix", v.to_vec()));
    }
    let (mu, mut dmu) = (weight(15, 1, 1), grad(1, 1));
    let dkept = cpu.backout_backward(&y, &mu, &tensor(16, c), &mut dmu).unwrap();
    let out = cpu.backout(tensor(17, c), &y, &mu).unwrap();
    for v in [out.values(), dkept.values(), dmu.values()] {
        all.push(("backout", v.to_vec()));
    }

    let (gate, lambda) = (weight(18, 1, 24), weight(19, 1, 1));
    let (smeared, saved) = cpu.smear(&x, &gate, &lambda, s, None).unwrap();
    let (mut dg, mut dl) = (grad(1, 24), grad(1, 1));
    let dx = cpu.smear_backward(&x, &gate, &lambda, s, &saved, &tensor(20, c), &mut dg, &mut dl).unwrap();
    for v in [smeared.values(), dx.values(), dg.values(), dl.values()] {
        all.push(("smear", v.to_vec()));
    }

    let (ve, gate) = (weight(21, vocab, kv), weight(22, kv_heads, 12));
    let (v, saved) = cpu.value_embedding(tensor(23, kv), &y, &ve, &tokens, &gate, 3.0).unwrap();
    let (mut dve, mut dg, mut dh) = (grad(vocab, kv), grad(kv_heads, 12), tensor(24, c));
    let dv = tensor(25, kv);
    cpu.value_embedding_backward(&y, &ve, &tokens, &gate, 3.0, &saved, &dv, &mut dve, &mut dg, &mut dh)
        .unwrap();
    for v in [v.values(), dve.values(), dg.values(), dh.values()] {
        all.push(("value_embedding", v.to_vec()));
    }

    let rotary = cpu.rotary(len, d, 100_000.0, Precision::F32).unwrap();
    let (q, saved) = cpu.rotary_norm(tensor(26, c), &rotary, 0, s, d, 1.2, eps).unwrap();
    let (k, _) = cpu.rotary_norm(tensor(27, kv), &rotary, 0, s, d, 1.2, eps).unwrap();
    let dq = cpu.rotary_norm_backward(&q, &rotary, s, d, 1.2, &saved, tensor(28, c)).unwrap();
    all.extend([("rotary_norm", q.values().to_vec()), ("rotary_norm_backward", dq.values().to_vec())]);

    for window in [1000, 77] {
        let shape = AttentionShape { sequence: s, n_head: heads, n_kv_head: kv_heads, head_dim: d, window };
        let (o, saved) = cpu.attention(&q, &k, &v, &shape).unwrap();
        let (dq, dk, dv) = cpu.attention_backward(&q, &k, &v, &o, &saved, &shape, &tensor(29, c)).unwrap();
        for v in [o.values(), dq.values(), dk.values(), dv.values()] {
            all.push(("attention", v.to_vec()));
        }
    }

    let head = HeadShape { vocab_size: vocab - 3, softcap: Some(15.0) };
    let targets: Vec<i32> = ids.iter().map(|id| id % (vocab as i32 - 3) - 1).collect();
    let mut dlm = grad(vocab, c);
    let targets = cpu.tokens(&targets).unwrap();
    let (losses, dx) = cpu.cross_entropy_train(&y, &table, &targets, &head, 0.01, &mut dlm).unwrap();
    all.extend([("losses", losses), ("dx", dx.values().to_vec()), ("dlm_head", dlm.values().to_vec())]);

    let adam = AdamWStep {
        lr: 0.1,
        beta1: 0.8,
        beta2: 0.95,
        bias1: 0.2,
        bias2: 0.05,
        eps: 1e-10,
        weight_decay: 0.1,
    };
    let (mut w, mut m, mut v) = (weight(30, vocab, c), grad(vocab, c), grad(vocab, c));
    cpu.adamw(&mut w, &dlm, &mut m, &mut v, &adam).unwrap();
    all.push(("adamw", w.values().to_vec()));

    for (rows, cols, precision) in [
        (100, 70, Precision::F32),
        (70, 100, Precision::F32),
        (40, 70, Precision::Bf16),
        (300, 40, Precision::Bf16),
    ] {
        let step = MuonStep {
            lr: 0.02,
            momentum: 0.9,
            weight_decay: 0.3,
            beta2: 0.9,
            norm_factor: 1.01,
            ns_steps: 5,
            row_equilibration: true,
            renormalize: true,
            polar_precision: precision,
            update_precision: precision,
        };
        let (mut w, mut g, mut m) = (weight(31, rows, cols), weight(32, rows, cols), weight(33, rows, cols));
        let mut second = cpu.grad(&[rows.max(cols)]).unwrap();
        let mut params =
            [MuonParam { weight: &mut w, grad: &mut g, momentum: &mut m, second_moment: &mut second }];
        cpu.muon(&mut params, &step).unwrap();
        for v in [w.values(), m.values(), second.values()] {
            all.push(("muon", v.to_vec()));
        }
    }
    all
}

fn hash(all: &[(&'static str, Vec<f32>)]) -> String {
    let mut hasher = Sha256::new();
    for x in all.iter().flat_map(|(_, values)| values) {
        hasher.update(x.to_bits().to_le_bytes());
    }
    let digest = hasher.finalize();
    format!("{:016x}", digest.iter().take(8).fold(0_u64, |all, byte| all << 8 | u64::from(*byte)))
}

#[test]
fn thread_count_changes_nothing() {
    let one = everything(1);
    for threads in [2, 3, 5, 8] {
        for ((op, a), (_, b)) in one.iter().zip(everything(threads)) {
            let different = a.iter().zip(&b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            assert_eq!(different, 0, "{op} on {threads} threads: of {} values", a.len());
        }
    }
}

/// Other machines and instruction sets must reproduce this; a change of numerics changes it, and with it
/// `numerics_version`.
#[test]
fn bits_are_those_of_this_numerics_version() {
    assert_eq!(hash(&everything(2)), "40133db45f2532fe");
}

#[test]
fn instruction_set_changes_nothing() {
    let this = std::env::current_exe().unwrap();
    let tests = [
        "backend::cpu::tests::bits::bits_are_those_of_this_numerics_version",
        "backend::cpu::tests::bits::fused_products_have_the_bits_of_their_parts",
        "backend::cpu::gemm::tests::every_instruction_set_has_the_definition_s_bits",
        "rng::torch::tests::draws_equal_torch_bit_for_bit",
    ];
    for (simd, name) in ["portable", "avx2"].into_iter().flat_map(|simd| tests.map(|name| (simd, name))) {
        let output = std::process::Command::new(&this)
            .args(["--exact", name])
            .env("NANORUN_CPU_KERNELS", simd)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{name}, {simd}: {text}");
    }
}

#[test]
fn fused_products_have_the_bits_of_their_parts() {
    for threads in [1, 2, 3, 5, 8] {
        crate::backend::conformance::relu_squared_linear(&CpuBackend::new(threads).unwrap(), 0.0);
    }
}

/// Heads whose rows lie 512 apart are copied before they are read; those 384 apart are read where they are.
#[test]
fn where_heads_lie_changes_nothing() {
    let cpu = CpuBackend::new(2).unwrap();
    let (len, d) = (70, 128);
    let sequence = SequenceShape { batch: 1, len };
    // The heads of a tensor of three, then of the same with one more.
    let outputs = [3, 4].map(|heads| {
        let row = |seed| move |n: usize| values(seed + n as u64, 4 * d)[..heads * d].to_vec();
        let tensor =
            |seed| cpu.tensor(len, heads * d, &(0..len).flat_map(row(seed)).collect::<Vec<_>>()).unwrap();
        let [q, k, v, d_o] = [1000, 2000, 3000, 4000].map(tensor);
        let s = AttentionShape { sequence, n_head: heads, n_kv_head: heads, head_dim: d, window: 17 };
        let (o, saved) = cpu.attention(&q, &k, &v, &s).unwrap();
        let (dq, dk, dv) = cpu.attention_backward(&q, &k, &v, &o, &saved, &s, &d_o).unwrap();
        [o, dq, dk, dv].map(|x| -> Vec<u32> {
            let rows = x.values().chunks_exact(heads * d);
            rows.flat_map(|row| row[..3 * d].iter().map(|x| x.to_bits())).collect()
        })
    });
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn no_memory_is_asked_for_after_the_first_step() {
    let cpu = CpuBackend::new(3).unwrap();
    let step = || {
        let x = cpu.tensor(600, 64, &values(1, 600 * 64)).unwrap();
        let w = cpu.weight(&[192, 64], &values(2, 192 * 64)).unwrap();
        let mut dw = cpu.grad(&[192, 64]).unwrap();
        let y = cpu.linear(&x, &w).unwrap();
        let dx = cpu.linear_backward(&x, &w, &y, &mut dw, None).unwrap();
        let (h, saved) = cpu.rms_norm(&dx, 1e-6).unwrap();
        cpu.rms_norm_backward(&h, &saved, &dx, None).unwrap();
    };
    step();
    let (count, bytes) = (cpu.allocations(), cpu.allocated_bytes());
    for _ in 0..5 {
        step();
    }
    assert_eq!((cpu.allocations(), cpu.allocated_bytes()), (count, bytes));
}
