//! Against numbers drawn by torch (`tests/fixtures/generate/rng.py`).

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    seed: u64,
    draws: Vec<Draw>,
}

#[derive(Deserialize)]
struct Draw {
    kind: String,
    args: Vec<f64>,
    bits: Vec<u32>,
}

#[test]
fn draws_equal_torch_bit_for_bit() {
    let fixture: Fixture =
        serde_json::from_str(include_str!("../../tests/fixtures/rng/torch_cpu.json")).unwrap();
    for case in fixture.cases {
        let mut generator = TorchGenerator::new(case.seed);
        for (index, draw) in case.draws.iter().enumerate() {
            let mut values = vec![0.0; draw.bits.len()];
            match (draw.kind.as_str(), draw.args.as_slice()) {
                ("uniform", &[low, high]) => generator.uniform(&mut values, low, high),
                ("normal", &[std]) => generator.normal(&mut values, std),
                other => panic!("unknown draw {other:?}"),
            }
            let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, draw.bits, "seed {} draw {index}", case.seed);
        }
    }
}

/// Enough values for several tasks: who makes a block does not show.
#[test]
fn draws_do_not_depend_on_threads() {
    let draw = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut values = [(); 2].map(|()| vec![0.0; 3 * BLOCKS_PER_TASK * BLOCK + 5]);
        let [normal, uniform] = &mut values;
        pool.install(|| {
            let mut generator = TorchGenerator::new(42);
            generator.normal(normal, 1.0);
            generator.uniform(uniform, -2.0, 3.0);
        });
        values
    };
    assert_eq!(draw(1), draw(3));
}

proptest! {
    #[test]
    fn uniform_stays_in_range(seed: u64, low in -10.0_f64..10.0, width in 0.001_f64..10.0) {
        let mut values = vec![0.0; 100];
        TorchGenerator::new(seed).uniform(&mut values, low, low + width);
        for value in values {
            prop_assert!(value >= low as f32 && value <= (low + width) as f32);
        }
    }
}
