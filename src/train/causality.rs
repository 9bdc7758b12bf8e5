//! The causality check: what comes later must not change what was predicted before.
//!
//! Losses of a batch are computed again with every token from some position on replaced. Up to that position they must
//! be the same bits. It runs before the first evaluation, on the model and backend that are about to be trained.

use crate::error::{Error, Result};

use super::engine::{Engine, MicroBatch};

/// Checks a model on the inputs of a batch, at the first, the middle and the last position.
///
/// # Errors
/// An earlier loss that changed: which one, and from what to what; class `Run`. Errors of the engine.
pub fn check_causality(engine: &mut dyn Engine, batch: &MicroBatch<'_>, vocab_size: usize) -> Result<()> {
    let (len, vocab) = (batch.sequence.len, vocab_size as i32);
    if len < 2 || vocab < 2 {
        return Ok(());
    }
    // Every position needs a target, and none may depend on what is replaced.
    let targets: Vec<i32> = (0..batch.inputs.len()).map(|n| (n % vocab_size) as i32).collect();
    let before = engine.losses(&MicroBatch { targets: &targets, ..*batch })?;
    let mut positions = vec![1, len / 2, len - 1];
    positions.dedup();
    for position in positions {
        let replace = |(n, id): (usize, &i32)| if n % len < position { *id } else { (*id + 1) % vocab };
        let inputs: Vec<i32> = batch.inputs.iter().enumerate().map(replace).collect();
        let after = engine.losses(&MicroBatch { inputs: &inputs, targets: &targets, ..*batch })?;
        let changed = before.iter().zip(&after).enumerate().find(|(n, (before, after))| {
            n % len < position && before != after && before.to_bits() != after.to_bits()
        });
        if let Some((n, (before, after))) = changed {
            let (sequence, earlier) = (n / len, n % len);
            return Err(Error::run(format!(
                "the model is not causal: replacing the tokens from position {position} on changed the loss at \
                 position {earlier} of sequence {sequence} from {before} to {after}"
            ))
            .expected("the same bits: a position sees itself and earlier ones only")
            .help("training would learn to read its own targets; this is a defect of the model or the backend"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::param::ParamSpec;
    use crate::ops::{Losses, SequenceShape};
    use crate::optim::config::StepValues;
    use crate::stop::StopFlag;
    use crate::train::engine::NamedTensor;

    /// The loss at a position is the sum of the inputs up to `last` positions after it.
    struct Window {
        last: usize,
    }

    impl Engine for Window {
        fn stop_on(&mut self, _: &StopFlag) {}
        fn drop_gradients(&mut self) -> Result<()> {
            Ok(())
        }
        fn losses(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
            let rows = batch.inputs.chunks(batch.sequence.len);
            let loss = |row: &[i32], t: usize| row[..row.len().min(t + 1 + self.last)].iter().sum::<i32>();
            Ok(rows.flat_map(|row| (0..row.len()).map(move |t| loss(row, t) as f32)).collect())
        }
        fn specs(&self) -> &[ParamSpec] {
            &[]
        }
        fn accumulate(&mut self, batch: &MicroBatch<'_>, _: f32) -> Result<Losses<Error>> {
            self.losses(batch).map(Losses::from)
        }
        fn update(&mut self, _: &StepValues) -> Result<()> {
            Ok(())
        }
        fn logits(&mut self, batch: &MicroBatch<'_>) -> Result<Vec<f32>> {
            self.losses(batch)
        }
        fn gradients(&self) -> Result<Vec<NamedTensor<'_>>> {
            Ok(Vec::new())
        }
        fn parameters(&self) -> Result<Vec<NamedTensor<'_>>> {
            Ok(Vec::new())
        }
        fn optimizer_state(&self) -> Result<Vec<NamedTensor<'_>>> {
            Ok(Vec::new())
        }
        fn restore(&mut self, _: u64, _: &[NamedTensor<'_>], _: &[NamedTensor<'_>]) -> Result<()> {
            Ok(())
        }
        fn start_decoding(&mut self, _: usize) -> Result<()> {
            Ok(())
        }
        fn decode_last(&mut self, _: &[i32], _last: usize) -> Result<Vec<f32>> {
            Ok(Vec::new())
        }
        fn live_bytes(&self) -> u64 {
            0
        }
        fn environment_class(&self) -> String {
            String::new()
        }
    }

    fn check(last: usize, batch: usize, len: usize) -> Result<()> {
        let inputs: Vec<i32> = (0..(batch * len) as i32).map(|n| n * 7 % 5).collect();
        let sequence = SequenceShape { batch, len };
        check_causality(&mut Window { last }, &MicroBatch { inputs: &inputs, targets: &inputs, sequence }, 5)
    }

    #[test]
    fn a_causal_model_passes() {
        for len in [1, 2, 3, 8] {
            check(0, 3, len).unwrap();
        }
    }

    #[test]
    fn one_position_of_foresight_is_found() {
        for len in [2, 3, 8] {
            let error = check(1, 2, len).unwrap_err();
            assert_eq!(error.class().exit_code(), 3);
            assert!(error.what().starts_with("the model is not causal"), "{error}");
        }
    }
}
