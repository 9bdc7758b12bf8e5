//! The backward of attention has one set of bits, however it is shared out.

use super::super::attention_split::{Split, Way};
use super::super::testing::values;
use super::super::{CpuBackend, Tensor, attention_backward};
use crate::ops::{AttentionShape, ForwardOps, SequenceShape};

/// Ways to share out, the first as one thread does.
pub(in super::super) const WAYS: [Way; 6] = [
    Way::Heads,
    Way::Chunks,
    Way::Sides { keys: 128, queries: 192 },
    Way::Sides { keys: 64, queries: 96 },
    Way::Sides { keys: 32, queries: 2 },
    Way::Sides { keys: 256, queries: 250 },
];

/// Lengths, heads, key heads, their size, and windows.
pub(in super::super) const SHAPES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 1, 1, 8, 5),
    (255, 2, 1, 20, 1000),
    (301, 4, 2, 20, 77),
    (600, 2, 2, 33, 1000),
    (700, 2, 1, 48, 300),
    (613, 1, 1, 32, 0),
    (1030, 1, 1, 16, 256),
];

#[test]
fn the_way_it_is_shared_out_changes_nothing() {
    for (len, n_head, n_kv_head, head_dim, window) in SHAPES {
        let sequence = SequenceShape { batch: 2, len };
        let s = AttentionShape { sequence, n_head, n_kv_head, head_dim, window };
        let (c, kv) = (n_head * head_dim, n_kv_head * head_dim);
        let bits = |threads: usize, way: Way| {
            let cpu = CpuBackend::new(threads).unwrap();
            let tensor = |seed, cols: usize| -> Tensor {
                cpu.tensor(2 * len, cols, &values(seed, 2 * len * cols)).unwrap()
            };
            let (q, k, v, d_o) = (tensor(1, c), tensor(2, kv), tensor(3, kv), tensor(4, c));
            let (o, saved) = cpu.attention(&q, &k, &v, &s).unwrap();
            let split = Split::by(&s, way);
            let (dq, dk, dv) =
                attention_backward::backward_by(&cpu, &q, &k, &v, &o, &saved, &s, &d_o, &split).unwrap();
            [dq, dk, dv].map(|x| x.values().iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        };
        let first = bits(1, Way::Heads);
        for way in WAYS {
            for threads in [1, 3] {
                assert!(bits(threads, way) == first, "{way:?} on {threads} threads: {s:?}");
            }
        }
    }
}
