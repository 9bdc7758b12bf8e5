//! What operations hand to threads, of models of usual sizes and of more threads than this machine has: all tasks with
//! their multiply-adds, from the code that hands them out.

use super::super::balance::shared_out;
use super::super::simulated::{Phase, Simulated};
use super::super::{Bf16Backend, CpuBackend};
use crate::ops::{AttentionShape, HeadShape, MuonParam, MuonStep, SequenceShape, TrainOps};
use crate::precision::Precision;

/// A model and its micro-batch.
struct Model {
    name: &'static str,
    depth: usize,
    batch: usize,
    len: usize,
    width: usize,
    vocab: usize,
}

const MODELS: [Model; 4] = [
    Model { name: "d4 T512", depth: 4, batch: 8, len: 512, width: 256, vocab: 4096 },
    Model { name: "d4 T2048", depth: 4, batch: 2, len: 2048, width: 256, vocab: 4096 },
    Model { name: "d6 T512", depth: 6, batch: 8, len: 512, width: 384, vocab: 4096 },
    Model { name: "d12 T1024", depth: 12, batch: 1, len: 1024, width: 768, vocab: 32768 },
];

const HEAD_DIM: usize = 128;

/// What an operation hands out, and how often a step has it.
struct Op {
    name: &'static str,
    times: u64,
    phases: Vec<Phase>,
}

/// The operations of a step that have products.
fn step<B: TrainOps>(ops: &B, m: &Model, simulated: &Simulated) -> Vec<Op> {
    let (sequence, c) = (SequenceShape { batch: m.batch, len: m.len }, m.width);
    let n = sequence.rows();
    let zeros = |cols: usize| ops.zeros(n, cols).unwrap();
    let weight = |rows: usize, cols: usize| ops.weight(&[rows, cols], &vec![0.0; rows * cols]).unwrap();
    let grad = |rows: usize, cols: usize| ops.grad(&[rows, cols]).unwrap();
    let mut all = Vec::new();
    simulated.take();
    let mut note = |name: &'static str, times: u64| all.push(Op { name, times, phases: simulated.take() });
    let depth = m.depth as u64;
    for (name, back, inputs, outputs, each) in [
        ("linear C to C", "linear C to C backward", c, c, 4),
        ("linear C to 4C", "linear C to 4C backward", c, 4 * c, 1),
        ("linear 4C to C", "linear 4C to C backward", 4 * c, c, 1),
    ] {
        let (x, w, mut dw) = (zeros(inputs), weight(outputs, inputs), grad(outputs, inputs));
        simulated.take();
        let y = ops.linear(&x, &w).unwrap();
        note(name, each * depth);
        ops.linear_backward(&x, &w, &y, &mut dw, None).unwrap();
        note(back, each * depth);
    }
    let [q, k, v, d_o] = [(); 4].map(|()| zeros(c));
    let heads = c / HEAD_DIM;
    let shape =
        AttentionShape { sequence, n_head: heads, n_kv_head: heads, head_dim: HEAD_DIM, window: m.len };
    simulated.take();
    let (o, saved) = ops.attention(&q, &k, &v, &shape).unwrap();
    note("attention", depth);
    ops.attention_backward(&q, &k, &v, &o, &saved, &shape, &d_o).unwrap();
    note("attention backward", depth);
    let (lm_head, mut dlm_head) = (weight(m.vocab, c), grad(m.vocab, c));
    let targets = ops.tokens(&vec![0; n]).unwrap();
    let head = HeadShape { vocab_size: m.vocab, softcap: Some(15.0) };
    simulated.take();
    ops.cross_entropy_train(&q, &lm_head, &targets, &head, 1.0, &mut dlm_head).unwrap();
    note("loss", 1);
    let muon = MuonStep {
        lr: 0.02,
        momentum: 0.9,
        weight_decay: 0.3,
        beta2: 0.9,
        norm_factor: 1.01,
        ns_steps: 5,
        row_equilibration: false,
        renormalize: false,
        polar_precision: Precision::Bf16,
        update_precision: Precision::Bf16,
    };
    for (name, rows, cols, count) in
        [("Muon C x C", c, c, 16), ("Muon 4C x C", 4 * c, c, 4), ("Muon C x 4C", c, 4 * c, 4)]
    {
        let state = |shape: &[usize]| ops.zero_state(shape, false).unwrap();
        let mut of: Vec<_> = (0..count)
            .map(|_| {
                let second = if rows >= cols { [rows, 1] } else { [1, cols] };
                (weight(rows, cols), grad(rows, cols), state(&[rows, cols]), state(&second))
            })
            .collect();
        let mut params: Vec<_> = of
            .iter_mut()
            .map(|(weight, grad, momentum, second_moment)| MuonParam {
                weight,
                grad,
                momentum,
                second_moment,
            })
            .collect();
        simulated.take();
        ops.muon(&mut params, &muon).unwrap();
        note(name, depth.div_ceil(4));
    }
    all
}

fn steps(m: &Model, threads: usize, precision: Precision) -> Vec<Op> {
    let simulated = Simulated::new(threads);
    match precision {
        Precision::F32 => {
            let mut ops = CpuBackend::new(1).unwrap();
            ops.workers.simulated = Some(simulated.clone());
            step(&ops, m, &simulated)
        }
        Precision::Bf16 => step(&Bf16Backend::simulated(simulated.clone()), m, &simulated),
    }
}

/// Of all phases with products: how much longer the longest thread has than the mean, the largest tasks one after another in
/// hundredths of all work, and how many tasks there are.
fn balance(ops: &[&Op], threads: usize) -> (f64, f64, usize) {
    let (mut total, mut longest, mut path, mut tasks) = (0, 0, 0, 0);
    for op in ops {
        for phase in op.phases.iter().filter(|phase| phase.sizes.iter().any(|size| *size > 0)) {
            let balance = shared_out(phase.sizes.iter().copied(), threads);
            total += balance.total * op.times;
            longest += balance.longest * op.times;
            path += balance.largest * op.times;
            tasks += balance.tasks * op.times as usize;
        }
    }
    (longest as f64 * threads as f64 / total as f64, path as f64 * 100.0 / total as f64, tasks)
}

/// Bounds of a step and of its worst operation, by threads.
const BOUNDS: [(usize, f64, f64); 5] =
    [(2, 1.05, 1.1), (8, 1.15, 1.3), (16, 1.2, 1.5), (32, 1.4, 1.8), (64, 1.6, 2.5)];

/// Prints the table of docs/speed.md, which `--nocapture` shows.
#[allow(clippy::print_stdout)]
fn holds(precision: Precision) {
    let mut wrong = Vec::new();
    for m in &MODELS {
        for (threads, of_all, of_each) in BOUNDS {
            let ops = steps(m, threads, precision);
            let (over, path, tasks) = balance(&ops.iter().collect::<Vec<_>>(), threads);
            println!("| {} | {threads} | {tasks} | {path:.2} % | {over:.2} |", m.name);
            if over > of_all {
                wrong.push(format!("{} on {threads} threads: {over:.3}", m.name));
            }
            for op in &ops {
                let (over, path, tasks) = balance(&[op], threads);
                println!("    {:26} {tasks:6} tasks {path:6.2} % {over:.3}", op.name);
                if over > of_each {
                    wrong.push(format!("{}, {} on {threads} threads: {over:.3}", m.name, op.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn threads_have_about_equal_work() {
    holds(Precision::F32);
}

#[test]
fn threads_have_about_equal_work_in_bf16() {
    holds(Precision::Bf16);
}
