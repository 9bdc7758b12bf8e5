//! The arithmetic that a training step needs.

use crate::model::config::{GptConfig, ModelConfig};
use crate::model::param::ParamGroup;
use crate::model::specs::specs;
use crate::optim::config::GroupConfig;
use crate::plan::run_config::RunConfig;

/// FLOPs that a step needs, by what needs them. An addition and a multiplication are two.
///
/// With N tokens a step, for each weight matrix (R, K) in a product: `2 N R K` forward and twice that backward. For
/// each layer, with P the (query, key) pairs that mask and window leave: `4 P H D` forward (`q k^T` and `p v`) and
/// twice that backward (scores computed again are not needed, so not counted). For each matrix of Muon and each polar
/// iteration, with r the smaller and k the larger side: `r (r + 1) k` for `X X^T` and `r (r + 1) r` for its square,
/// both symmetric, so half of each, and `2 r r k` for the product with X. Nothing elementwise counts, and no gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Products with the blocks' weights, forward.
    pub linear: u64,
    /// Their backward.
    pub linear_backward: u64,
    /// Attention, forward.
    pub attention: u64,
    /// Its backward.
    pub attention_backward: u64,
    /// Products with `lm_head`, forward and backward.
    pub lm_head: u64,
    /// Muon's polar iterations.
    pub muon: u64,
}

impl Work {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.linear
            + self.linear_backward
            + self.attention
            + self.attention_backward
            + self.lm_head
            + self.muon
    }

    /// What all calls of an op need, where it is made of products and has them to itself.
    pub fn of_op(&self, op: &str) -> Option<u64> {
        match op {
            "attention" => Some(self.attention),
            "attention_backward" => Some(self.attention_backward),
            "cross_entropy_train" => Some(self.lm_head),
            "muon" => Some(self.muon),
            _ => None,
        }
    }
}

/// What a step of the run needs; none for models that nobody trains for speed.
pub fn step_work(config: &RunConfig) -> Option<Work> {
    let ModelConfig::Gpt(model) = &config.model else { return None };
    let rows = config.batch.device_batch_size as u64 * config.batch.grad_accum_steps as u64;
    let tokens = rows * model.sequence_len as u64;
    let channels = model.n_embd as u64;
    let weights = model.n_layer as u64 * channels * (10 * channels + 2 * model.kv_dim() as u64);
    let linear = 2 * tokens * weights;
    let pairs: u64 = model.windows.iter().map(|&window| pairs(model.sequence_len, window)).sum();
    let attention = 4 * rows * pairs * (model.n_head * model.head_dim()) as u64;
    Some(Work {
        linear,
        linear_backward: 2 * linear,
        attention,
        attention_backward: 2 * attention,
        lm_head: 6 * tokens * channels * model.vocab_size as u64,
        muon: muon(model, config),
    })
}

/// Pairs of a query and a key it sees, in one sequence.
fn pairs(len: usize, window: usize) -> u64 {
    (0..len).map(|position| position.min(window) as u64 + 1).sum()
}

fn muon(model: &GptConfig, config: &RunConfig) -> u64 {
    let group = config.optimizer.groups.iter().find(|(group, _)| *group == ParamGroup::Matrix);
    let Some((_, GroupConfig::Muon(muon))) = group else { return 0 };
    let all = specs(&ModelConfig::Gpt(model.clone()));
    let matrices = all.iter().filter(|spec| spec.group == ParamGroup::Matrix);
    let iteration: u64 = matrices
        .filter_map(|spec| match spec.shape[..] {
            [rows, cols] => {
                let (small, large) = (rows.min(cols) as u64, rows.max(cols) as u64);
                Some(small * (small + 1) * (large + small) + 2 * small * small * large)
            }
            _ => None,
        })
        .sum();
    iteration * muon.ns_steps as u64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::{Manifest, Options};
    use crate::plan::{NoData, plan};

    #[test]
    fn pairs_within_mask_and_window() {
        let counted = |len: usize, window: usize| {
            (0..len)
                .flat_map(|i| (0..len).map(move |j| (i, j)))
                .filter(|(i, j)| j <= i && i - j <= window)
                .count()
        };
        for (len, window) in [(1, 0), (8, 0), (8, 3), (8, 7), (8, 100), (192, 128)] {
            assert_eq!(pairs(len, window), counted(len, window) as u64, "{len} {window}");
        }
    }
    /// Depth 4, 256 wide, 4 heads of 64, T 512 in 8 rows, windows of 128 on three layers, V 4096: worked out by hand.
    #[test]
    fn work_of_depth_4() {
        let text = include_str!("../../experiments/bench_d4_t512.toml");
        let manifest = Manifest::parse(Path::new("bench.toml"), text, &Options::default()).unwrap();
        let plan = plan(&manifest, &NoData).unwrap();
        let expected = Work {
            linear: 25_769_803_776,
            linear_backward: 51_539_607_552,
            attention: 4 * 8 * 256 * (3 * 57_792 + 131_328),
            attention_backward: 8 * 8 * 256 * (3 * 57_792 + 131_328),
            lm_head: 25_769_803_776,
            // 16 matrices of 256 x 256, 8 of 256 x 1024, 2 gates of 4 x 12; 5 iterations.
            muon: 5 * (16 * 67_239_936 + 8 * 218_431_488 + 2 * 704),
        };
        assert_eq!(step_work(&plan.runs[0].config), Some(expected));
        assert_eq!(expected.total(), 124_684_082_048);
    }
}
