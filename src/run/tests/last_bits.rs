//! Runs in threads whose arithmetic somebody else changed.

use crate::control_word;
use crate::run::tests::{Attempt, Lab, assert_same, small};
use crate::train::checkpoint::CheckpointStore;

/// How many of the numbers that a run ended with are subnormal, and all of them by their bits.
fn numbers(store: &CheckpointStore, step: u64) -> (usize, Vec<u32>) {
    let checkpoint = store.load(step).unwrap();
    let tensors = checkpoint.params.iter().chain(&checkpoint.optimizer);
    let values: Vec<f32> = tensors.flat_map(|tensor| tensor.as_f32().unwrap().to_vec()).collect();
    let subnormal = values.iter().filter(|value| value.is_subnormal()).count();
    (subnormal, values.iter().map(|value| value.to_bits()).collect())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[test]
fn subnormal_numbers_give_the_same_bits_in_a_thread_that_flushes_them() {
    let lab = Lab::new();
    let bigram = small("bigram");
    let weights = ["model.init_std=1e-38", "model.input_rmsnorm=false", "optimizer.kind=\"sgd\""];
    // Of a character that does not come up, the first moment halves with every step.
    let moments = ["optimizer.betas=[0.5, 0.9]", "budget.steps=150", "eval.every=0"];
    for (what, sets) in [("weights", &weights[..]), ("moments", &moments)] {
        for backend in ["cpu", "scalar"] {
            let backend = format!("run.backend=\"{backend}\"");
            // The moments are looked at after the end, when usually the weights alone stay.
            let task = lab.task(&bigram, &[sets, &[backend.as_str(), "checkpoint.final=\"all\""]].concat());
            let what = format!("{what}, {backend}");
            let place = tempfile::tempdir().unwrap();
            let [plain, flushed] = ["plain", "flushed"].map(|name| Attempt::at(&place.path().join(name)));
            let (expected, _) = lab.finish(&task, &plain);
            let (subnormal, bits) = numbers(&plain.store(), task.steps());
            assert!(subnormal > 0 || backend.contains("scalar"), "{what}: none is subnormal");
            std::thread::scope(|scope| {
                let run = || {
                    control_word::disturb();
                    lab.finish(&task, &flushed).0
                };
                assert_same(&scope.spawn(run).join().unwrap(), &expected, &what);
            });
            assert!(numbers(&flushed.store(), task.steps()).1 == bits, "{what}");
        }
    }
}
