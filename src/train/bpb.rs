//! Bits per byte: upstream's tokenizer-independent validation metric.

use serde::{Deserialize, Serialize};

use crate::files::ExactF64;

/// Running sums of a validation. `bpb = sum of nats / (ln 2 * sum of bytes)` over targets that have bytes: special
/// tokens have none and drop out, as do ignored targets. Sums are over the whole evaluation, in token order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BitsPerByte {
    nats: ExactF64,
    bytes: u64,
    /// Sum and count over every counted target, for the mean loss.
    loss: ExactF64,
    targets: u64,
}

impl BitsPerByte {
    /// Adds the losses of some tokens; `token_bytes` is indexed by target id.
    pub fn add(&mut self, losses: &[f32], targets: &[i32], token_bytes: &[u32]) {
        for (&loss, &target) in losses.iter().zip(targets) {
            let Ok(id) = usize::try_from(target) else { continue };
            self.loss.0 += f64::from(loss);
            self.targets += 1;
            let bytes = token_bytes.get(id).copied().unwrap_or(0);
            if bytes > 0 {
                self.nats.0 += f64::from(loss);
                self.bytes += u64::from(bytes);
            }
        }
    }

    /// Bits per byte; none where no target had bytes.
    pub fn value(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.nats.0 / (std::f64::consts::LN_2 * self.bytes as f64))
    }

    /// Mean loss in nats a target; none without targets.
    pub fn mean_loss(&self) -> Option<f64> {
        (self.targets > 0).then(|| self.loss.0 / self.targets as f64)
    }

    /// Bytes counted so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_and_ignored_targets_drop_out() {
        let mut bpb = BitsPerByte::default();
        let ln2 = std::f32::consts::LN_2;
        bpb.add(&[ln2, 3.0 * ln2, 100.0, 7.0], &[0, 1, 2, -1], &[1, 3, 0]);
        assert!((bpb.value().unwrap() - 1.0).abs() < 1e-7);
        assert_eq!(bpb.bytes(), 4);
        assert!((bpb.mean_loss().unwrap() - f64::from((4.0 * ln2 + 100.0) / 3.0)).abs() < 1e-5);
    }

    #[test]
    fn nothing_counted_is_none() {
        assert_eq!(BitsPerByte::default().value(), None);
    }
}
