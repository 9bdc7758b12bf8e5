//! The ops in bfloat16: against the references that every backend meets, and their bits over threads and kernels.

use sha2::{Digest, Sha256};

use super::super::attention_split::{Split, Way};
use super::super::tests::ways::{SHAPES, WAYS};
use super::storage::{Stored, Tensor};
use super::{Bf16Backend, attention_backward};
use crate::backend::cpu::testing::values;
use crate::ops::{
    AdamWStep, AttentionShape, ForwardOps, HeadShape, MuonParam, MuonStep, SequenceShape, TrainOps,
};
use crate::precision::Precision;

fn backend() -> Bf16Backend {
    Bf16Backend::new(2).unwrap()
}

mod ops {
    use super::backend;
    // bfloat16 rounds to 2^-9 of a value; inputs of a backward are rounded outputs of a forward.
    crate::backend::conformance::conformance_tests!(backend(), 1.2e-2);
}

/// Runs every op on shapes that fill no tile evenly, -> everything computed.
fn everything(threads: usize) -> Vec<(&'static str, Vec<f32>)> {
    let cpu = Bf16Backend::new(threads).unwrap();
    let (batch, len, heads, kv_heads, d, vocab) = (2, 301, 4, 2, 20, 333);
    let s = SequenceShape { batch, len };
    let (n, c, kv) = (s.rows(), heads * d, kv_heads * d);
    let tensor = |seed, cols: usize| -> Tensor { cpu.tensor(n, cols, &values(seed, n * cols)).unwrap() };
    let weight =
        |seed, rows: usize, cols: usize| cpu.weight(&[rows, cols], &values(seed, rows * cols)).unwrap();
    let table =
        |seed, rows: usize, cols: usize| cpu.table(&[rows, cols], &values(seed, rows * cols)).unwrap();
    let grad = |rows: usize, cols: usize| cpu.grad(&[rows, cols]).unwrap();
    let of = |x: &Tensor| cpu.tensor_values(x).unwrap();
    let stored = |x: &Stored| x.values().into_wide().into_owned();
    let mut all: Vec<(&'static str, Vec<f32>)> = Vec::new();
    let ids: Vec<i32> = (0..n as i32).map(|i| (i * i * 31 + i) % vocab as i32).collect();
    let tokens = cpu.tokens(&ids).unwrap();
    let eps = 1.1920929e-7;

    let wte = table(1, vocab, c);
    let x = cpu.embedding(&wte, &tokens).unwrap();
    let mut dtable = cpu.table_grad(&[vocab, c]).unwrap();
    for seed in [2, 102] {
        cpu.embedding_backward(&tokens, &tensor(seed, c), &mut dtable).unwrap();
    }
    all.push(("embedding_backward", stored(&dtable)));

    let (y, saved) = cpu.rms_norm(&x, eps).unwrap();
    let dx = cpu.rms_norm_backward(&y, &saved, &tensor(3, c), Some(tensor(4, c))).unwrap();
    all.extend([("rms_norm", of(&y)), ("rms_norm_backward", of(&dx))]);

    let w = weight(5, 3 * c, c);
    let up = cpu.linear(&y, &w).unwrap();
    let mut dw = grad(3 * c, c);
    let dx = cpu.linear_backward(&y, &w, &tensor(6, 3 * c), &mut dw, Some(tensor(7, c))).unwrap();
    all.extend([("linear", of(&up)), ("linear_backward", of(&dx)), ("dw", stored(&dw))]);
    let down = cpu.relu_squared_linear_add(tensor(9, c), &up, &weight(10, c, 3 * c)).unwrap();
    all.push(("relu_squared_linear_add", of(&down)));

    let (resid, z) = (weight(11, 1, 4), weight(12, 1, 4));
    let mixed = cpu.residual_mix(&x, &y, &resid, &z, 2).unwrap();
    let (mut dx0, mut dr, mut dz) = (tensor(13, c), grad(1, 4), grad(1, 4));
    let dx =
        cpu.residual_mix_backward(&x, &y, &resid, &z, 2, tensor(14, c), &mut dx0, &mut dr, &mut dz).unwrap();
    all.extend([
        ("mixed", of(&mixed)),
        ("dx", of(&dx)),
        ("dx0", of(&dx0)),
        ("dr", stored(&dr)),
        ("dz", stored(&dz)),
    ]);
    let (mu, mut dmu) = (weight(15, 1, 1), grad(1, 1));
    let dkept = cpu.backout_backward(&y, &mu, &tensor(16, c), &mut dmu).unwrap();
    let out = cpu.backout(tensor(17, c), &y, &mu).unwrap();
    all.extend([("backout", of(&out)), ("dkept", of(&dkept)), ("dmu", stored(&dmu))]);

    let (gate, lambda) = (weight(18, 1, 24), weight(19, 1, 1));
    let (smeared, saved) = cpu.smear(&x, &gate, &lambda, s, None).unwrap();
    let (mut dg, mut dl) = (grad(1, 24), grad(1, 1));
    let dx = cpu.smear_backward(&x, &gate, &lambda, s, &saved, &tensor(20, c), &mut dg, &mut dl).unwrap();
    all.extend([
        ("smear", of(&smeared)),
        ("dsmear", of(&dx)),
        ("dgate", stored(&dg)),
        ("dlambda", stored(&dl)),
    ]);

    let (ve, gate) = (table(21, vocab, kv), weight(22, kv_heads, 12));
    let (v, saved) = cpu.value_embedding(tensor(23, kv), &y, &ve, &tokens, &gate, 3.0).unwrap();
    let (mut dve, mut dg, mut dh) =
        (cpu.table_grad(&[vocab, kv]).unwrap(), grad(kv_heads, 12), tensor(24, c));
    let dv = tensor(25, kv);
    cpu.value_embedding_backward(&y, &ve, &tokens, &gate, 3.0, &saved, &dv, &mut dve, &mut dg, &mut dh)
        .unwrap();
    all.extend([("value_embedding", of(&v)), ("dve", stored(&dve)), ("dgate", stored(&dg)), ("dh", of(&dh))]);

    let rotary = cpu.rotary(len, d, 100_000.0, Precision::Bf16).unwrap();
    let (q, saved) = cpu.rotary_norm(tensor(26, c), &rotary, 0, s, d, 1.2, eps).unwrap();
    let (k, _) = cpu.rotary_norm(tensor(27, kv), &rotary, 0, s, d, 1.2, eps).unwrap();
    let dq = cpu.rotary_norm_backward(&q, &rotary, s, d, 1.2, &saved, tensor(28, c)).unwrap();
    all.extend([("rotary_norm", of(&q)), ("rotary_norm_backward", of(&dq))]);

    for window in [1000, 77] {
        let shape = AttentionShape { sequence: s, n_head: heads, n_kv_head: kv_heads, head_dim: d, window };
        let (o, saved) = cpu.attention(&q, &k, &v, &shape).unwrap();
        let (dq, dk, dv) = cpu.attention_backward(&q, &k, &v, &o, &saved, &shape, &tensor(29, c)).unwrap();
        all.extend([("attention", of(&o)), ("dq", of(&dq)), ("dk", of(&dk)), ("dv", of(&dv))]);
    }

    let head = HeadShape { vocab_size: vocab - 4, softcap: Some(15.0) };
    let targets: Vec<i32> = ids.iter().map(|id| id % (vocab as i32 - 4) - 1).collect();
    let (mut dlm, targets) = (grad(vocab, c), cpu.tokens(&targets).unwrap());
    let lm_head = weight(34, vocab, c);
    let (losses, dx) = cpu.cross_entropy_train(&y, &lm_head, &targets, &head, 0.01, &mut dlm).unwrap();
    all.extend([("losses", losses), ("dx", of(&dx)), ("dlm_head", stored(&dlm))]);
    let mut tied = cpu.table_grad(&[vocab, c]).unwrap();
    cpu.cross_entropy_train(&y, &wte, &targets, &head, 0.01, &mut tied).unwrap();
    all.push(("tied", stored(&tied)));

    let adam = AdamWStep {
        lr: 0.1,
        beta1: 0.8,
        beta2: 0.95,
        bias1: 0.2,
        bias2: 0.05,
        eps: 1e-10,
        weight_decay: 0.1,
    };
    let zero = |table| cpu.zero_state(&[vocab, c], table).unwrap();
    let (mut w, mut m, mut v) = (weight(30, vocab, c), zero(false), zero(false));
    cpu.adamw(&mut w, &dlm, &mut m, &mut v, &adam).unwrap();
    let (mut t, mut tm, mut tv) = (table(30, vocab, c), zero(true), zero(true));
    cpu.adamw(&mut t, &dtable, &mut tm, &mut tv, &adam).unwrap();
    for x in [&w, &m, &v, &t, &tm, &tv] {
        all.push(("adamw", stored(x)));
    }

    for (rows, cols, polar, update) in [
        (100, 70, Precision::F32, Precision::F32),
        (70, 101, Precision::Bf16, Precision::F32),
        (40, 70, Precision::Bf16, Precision::Bf16),
        (301, 40, Precision::Bf16, Precision::Bf16),
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
            polar_precision: polar,
            update_precision: update,
        };
        let (mut w, mut g, mut m) = (weight(31, rows, cols), weight(32, rows, cols), weight(33, rows, cols));
        let mut second = cpu.grad(&[rows.max(cols)]).unwrap();
        let mut params =
            [MuonParam { weight: &mut w, grad: &mut g, momentum: &mut m, second_moment: &mut second }];
        cpu.muon(&mut params, &step).unwrap();
        for x in [&w, &m, &second] {
            all.push(("muon", stored(x)));
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
    let all = everything(2);
    let infinite = all.iter().filter(|(_, x)| x.iter().any(|x| !x.is_finite()));
    assert_eq!(infinite.map(|(op, _)| *op).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(hash(&all), "5c3d1efe5508e5f8");
}

#[test]
fn instruction_set_changes_nothing() {
    let this = std::env::current_exe().unwrap();
    let tests = [
        "backend::cpu::bf16::tests::bits_are_those_of_this_numerics_version",
        "backend::cpu::bf16::gemm::tests::products_are_the_chains_of_the_definition_in_every_layout",
    ];
    for (simd, name) in
        ["portable", "avx2", "avx512"].into_iter().flat_map(|simd| tests.map(|name| (simd, name)))
    {
        if crate::simd::named_is_there(simd) {
            let output = std::process::Command::new(&this)
                .args(["--exact", name])
                .env("NANORUN_CPU_KERNELS", simd)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{name}, {simd}: {text}");
        }
    }
}

#[test]
fn fused_products_have_the_bits_of_their_parts() {
    for threads in [1, 2, 3, 5, 8] {
        crate::backend::conformance::relu_squared_linear(&Bf16Backend::new(threads).unwrap(), 0.0);
    }
}

#[test]
fn masters_and_their_state_are_f32_and_tables_and_theirs_bf16() {
    let ops = backend();
    let fine = [1.000_123_f32, -0.5];
    let rounded = [1.0_f32, -0.5];
    assert_eq!(*ops.weight_values(&ops.weight(&[1, 2], &fine).unwrap()).unwrap().wide(), fine);
    let table = ops.table(&[1, 2], &fine).unwrap();
    assert_eq!(*ops.weight_values(&table).unwrap().wide(), rounded);
    // A checkpoint of copies in four bytes would take more memory than the plan has for the run.
    assert!(matches!(ops.weight_values(&table), Ok(crate::tensors::Single::Half(_))));
    assert_eq!(*ops.state_values(&ops.state(&[1, 2], &fine).unwrap()).unwrap().wide(), fine);
    assert_eq!(*ops.state_values(&ops.table_state(&[1, 2], &fine).unwrap()).unwrap().wide(), rounded);
}

#[test]
fn the_way_the_backward_of_attention_is_shared_out_changes_nothing() {
    for (len, n_head, n_kv_head, head_dim, window) in SHAPES {
        let sequence = SequenceShape { batch: 2, len };
        let s = AttentionShape { sequence, n_head, n_kv_head, head_dim, window };
        let (c, kv) = (n_head * head_dim, n_kv_head * head_dim);
        let bits = |threads: usize, way: Way| {
            let cpu = Bf16Backend::new(threads).unwrap();
            let tensor =
                |seed, cols: usize| cpu.tensor(2 * len, cols, &values(seed, 2 * len * cols)).unwrap();
            let (q, k, v, d_o) = (tensor(1, c), tensor(2, kv), tensor(3, kv), tensor(4, c));
            let (o, saved) = cpu.attention(&q, &k, &v, &s).unwrap();
            let split = Split::by(&s, way);
            let (dq, dk, dv) =
                attention_backward::backward_by(&cpu.0, &q, &k, &v, &o, &saved, &s, &d_o, &split).unwrap();
            [dq, dk, dv].map(|x| x.values("test").unwrap().to_vec())
        };
        let first = bits(1, Way::Heads);
        for way in WAYS {
            for threads in [1, 3] {
                assert!(bits(threads, way) == first, "{way:?} on {threads} threads: {s:?}");
            }
        }
    }
}

/// What is packed once gives the bits of what is rounded for each product: of few rows, as decoding has, and of many.
#[test]
fn weights_that_never_change_give_the_bits_of_those_that_do() {
    let (inputs, vocab) = (70, 333);
    let w = values(1, vocab * inputs);
    for threads in [1, 3] {
        let cpu = Bf16Backend::new(threads).unwrap();
        let weights = [cpu.weight(&[vocab, inputs], &w).unwrap(), cpu.factor(&[vocab, inputs], &w).unwrap()];
        let rounded = cpu.table(&[vocab, inputs], &w).unwrap();
        assert_eq!(
            cpu.weight_values(&weights[1]).unwrap().wide(),
            cpu.weight_values(&rounded).unwrap().wide()
        );
        for rows in [1, 5, 12, 40, 600] {
            let of = |seed, cols: usize| cpu.tensor(rows, cols, &values(seed, rows * cols)).unwrap();
            let x = of(2, inputs);
            let head = HeadShape { vocab_size: vocab - 3, softcap: Some(15.0) };
            let targets = cpu.tokens(&(0..rows as i32).map(|n| n * 7 % 330).collect::<Vec<_>>()).unwrap();
            let [one, other] = weights.each_ref().map(|w| {
                let results = [
                    cpu.linear(&x, w).unwrap(),
                    cpu.linear_add(of(3, vocab), &x, w).unwrap(),
                    cpu.relu_squared_linear_add(of(4, vocab), &x, w).unwrap(),
                    cpu.logits(&x, w, &head).unwrap(),
                ];
                let results = results.map(|y| cpu.tensor_values(&y).unwrap());
                (results, cpu.cross_entropy(&x, w, &targets, &head).unwrap())
            });
            assert!(one == other, "{rows} rows on {threads} threads");
        }
    }
}

/// Decoding token by token, and from a cache whose beginning was let go of, has the bits of a pass over all at once.
#[test]
fn cached_attention_has_the_bits_of_a_whole_pass() {
    let cpu = backend();
    let (len, heads, kv_heads, d) = (700, 2, 1, 16);
    // Position by position from the first on, or from a beginning of which a window is kept.
    for (window, begun) in [(1000, 0), (130, 0), (130, 301), (1000, 301)] {
        let tensor = |seed, cols: usize| values(seed, len * cols);
        let (q, k, v) = (tensor(1, heads * d), tensor(2, kv_heads * d), tensor(3, kv_heads * d));
        let all = |x: &[f32], cols| cpu.tensor(len, cols, x).unwrap();
        let shape = |len| {
            let sequence = SequenceShape { batch: 1, len };
            AttentionShape { sequence, n_head: heads, n_kv_head: kv_heads, head_dim: d, window }
        };
        let (o, _) = cpu
            .attention(&all(&q, heads * d), &all(&k, kv_heads * d), &all(&v, kv_heads * d), &shape(len))
            .unwrap();
        let whole = cpu.tensor_values(&o).unwrap();
        let mut cache = cpu.kv_cache(len, kv_heads * d).unwrap();
        let (mut at, mut held) = (begun, window.min(begun));
        if begun > 0 {
            let part = |x: &[f32]| cpu.tensor(begun, kv_heads * d, &x[..begun * kv_heads * d]).unwrap();
            cpu.kv_begin(&mut cache, &part(&k), &part(&v), begun, held).unwrap();
            let again = cpu.kv_begin(&mut cache, &part(&k), &part(&v), begun, held);
            assert!(again.is_err(), "it has begun");
        }
        for step in (0..).map(|i| [1, 7, 1, 30, 1, 1][i % 6]) {
            let count = step.min(len - at);
            if count == 0 {
                break;
            }
            if held > window + 61 {
                // An odd number of positions goes each time.
                cache = cpu.kv_select(&cache, &[0], window).unwrap();
                held = window;
            }
            let part =
                |x: &[f32], cols: usize| cpu.tensor(count, cols, &x[at * cols..(at + count) * cols]).unwrap();
            cpu.kv_append(&mut cache, &part(&k, kv_heads * d), &part(&v, kv_heads * d)).unwrap();
            held += count;
            let o = cpu.attention_cached(&part(&q, heads * d), &cache, &shape(count)).unwrap();
            let cols = heads * d;
            assert_eq!(
                cpu.tensor_values(&o).unwrap(),
                whole[at * cols..(at + count) * cols],
                "{window}, {at}"
            );
            at += count;
        }
    }
}

#[test]
fn no_memory_is_asked_for_after_the_first_step() {
    let cpu = Bf16Backend::new(3).unwrap();
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
    let count = cpu.allocations();
    for _ in 0..5 {
        step();
    }
    assert_eq!(cpu.allocations(), count);
}
