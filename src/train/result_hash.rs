//! What a run's result hash is made of.
//!
//! - *Train hash*: every step's mean loss and the parameters after the last of them.
//! - *Eval hash*: the train hash at that step, the evaluation's settings, its results.
//! - *Result hash*: the train hash and the final evaluation's hash.
//!
//! All over exact bits. How often was evaluated or saved, timings and host facts do not enter.

use crate::files::ExactF64;
use crate::hash::{Canonical, Digest};
use crate::tensors::Single;
use crate::train::checkpoint::{NamedTensor, Values};

/// Hash over the mean losses of steps 0, 1, .. and the parameters after the last of them, in any order: they are
/// hashed by their names' order.
pub fn train_hash(step_losses: impl ExactSizeIterator<Item = f32>, params: &[NamedTensor<'_>]) -> Digest {
    let mut hash = Canonical::new("nanorun.train/1");
    hash.u64("steps", step_losses.len() as u64);
    for loss in step_losses {
        hash.f32("loss", loss);
    }
    let mut params: Vec<_> = params.iter().collect();
    params.sort_by(|a, b| a.name.cmp(&b.name));
    hash.u64("params", params.len() as u64);
    for param in params {
        hash.str("name", &param.name);
        for &size in &param.shape {
            hash.u64("size", size as u64);
        }
        match &param.values {
            Values::F32(values) => hash.f32s("values", values),
            Values::Half(values) => hash.f32s("values", &Single::Half(values).wide()),
            Values::F64(values) => hash.f64s("values", values),
            Values::I32(values) => {
                hash.bytes("values", &values.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>())
            }
        };
    }
    hash.finish()
}

/// Hash over one evaluation: the train hash at its step, the digest of its settings, and its values by name.
pub fn eval_hash<'a>(
    train_hash: &Digest,
    settings: &Digest,
    values: impl ExactSizeIterator<Item = (&'a str, ExactF64)>,
) -> Digest {
    let mut values: Vec<_> = values.collect();
    values.sort_by(|a, b| a.0.cmp(b.0));
    let mut hash = Canonical::new("nanorun.eval/1");
    hash.digest("train", train_hash).digest("settings", settings).u64("values", values.len() as u64);
    for (name, value) in values {
        hash.str("name", name).f64("value", value.0);
    }
    hash.finish()
}

/// Hash over a whole run.
pub fn result_hash(train_hash: &Digest, final_eval_hash: &Digest) -> Digest {
    Canonical::new("nanorun.result/1").digest("train", train_hash).digest("eval", final_eval_hash).finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(values: &[f32]) -> [NamedTensor<'static>; 2] {
        [
            NamedTensor::f32("b", &[values.len()], values.to_vec()),
            NamedTensor::f32("a", &[1, 2], vec![1.0, -0.0]),
        ]
    }

    proptest! {
        #[test]
        fn one_bit_anywhere_changes_the_train_hash(
            losses in prop::collection::vec(any::<u32>(), 1..20),
            values in prop::collection::vec(any::<u32>(), 1..20),
            at: prop::sample::Index,
            bit in 0..32,
        ) {
            let floats = |bits: &[u32]| bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>();
            let (losses_f, values_f) = (floats(&losses), floats(&values));
            let hash = train_hash(losses_f.iter().copied(), &params(&values_f));
            let mut reversed = params(&values_f);
            reversed.reverse();
            prop_assert_eq!(hash, train_hash(losses_f.iter().copied(), &reversed));
            let mut other = losses.clone();
            *at.get_mut(&mut other) ^= 1_u32 << bit;
            prop_assert_ne!(hash, train_hash(floats(&other).into_iter(), &params(&values_f)));
            let mut other = values;
            *at.get_mut(&mut other) ^= 1_u32 << bit;
            prop_assert_ne!(hash, train_hash(losses_f.into_iter(), &params(&floats(&other))));
        }
    }

    #[test]
    fn shapes_names_and_settings_enter() {
        let tensor = |name: &str, shape: &[usize]| [NamedTensor::f32(name, shape, vec![0.5; 6])];
        let hashes = [tensor("a", &[2, 3]), tensor("a", &[3, 2]), tensor("a", &[6]), tensor("b", &[6])]
            .map(|params| train_hash([1.0].into_iter(), &params));
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes[..i].iter().all(|b| a != b));
        }
        let [a, b, ..] = hashes;
        let value = |x| [("val_bpb", ExactF64(x))].into_iter();
        let eval = eval_hash(&a, &b, value(1.0));
        assert_ne!(eval, eval_hash(&b, &a, value(1.0)));
        assert_ne!(eval, eval_hash(&a, &b, value(-1.0)));
        assert_ne!(result_hash(&a, &eval), result_hash(&eval, &a));
    }

    /// What is held in two bytes is hashed as the four that it stands for.
    #[test]
    fn what_values_are_held_in_does_not_enter() {
        let halves = [0x3f80_u16, 0x8000, 0x0001, 0x7fc1];
        let wide = Single::Half(&halves).wide().into_owned();
        let shape = vec![2, 2];
        let half = NamedTensor { name: "a".to_owned(), shape, values: Values::Half(&halves) };
        let hash = |params: &[NamedTensor<'_>]| train_hash([1.0].into_iter(), params);
        assert_eq!(hash(&[half]), hash(&[NamedTensor::f32("a", &[2, 2], wide)]));
    }

    /// These digests are promises to users: a change here is a change of the hash format and needs a new version
    /// in the domain strings above.
    #[test]
    fn known_digests() {
        let train = train_hash([2.5, 1.25].into_iter(), &params(&[3.0]));
        let eval = eval_hash(&train, &Digest::of(b"settings"), [("val_bpb", ExactF64(1.5))].into_iter());
        insta::assert_snapshot!(format!(
            "train  {train}\neval   {eval}\nresult {}",
            result_hash(&train, &eval)
        ));
    }
}
