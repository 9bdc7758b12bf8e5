//! What the tape of the scalar backend takes for each token of a small GPT: entries, edges and bytes beside the
//! weights'.
//!
//! `cargo bench --bench tape`. It counts and does not time: the numbers are the same on every machine.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use nanorun::internals::model::config::MicrogptConfig;
use nanorun::internals::model::microgpt::Microgpt;
use nanorun::internals::model::network::Network;
use nanorun::internals::model::param::ParamGroup;
use nanorun::internals::ops::SequenceShape;
use nanorun::internals::optim::config::{GroupConfig, OptimizerConfig, SgdConfig};
use nanorun::internals::train::engine::{Engine, MicroBatch};
use nanorun::internals::train::scalar_engine::ScalarEngine;

fn main() {
    println!("{:>10}  {:>4}  {:>8}  {:>8}  {:>9}", "parameters", "T", "nodes", "edges", "bytes");
    for (n_embd, sequence_len) in [(16, 16), (32, 32), (64, 64)] {
        let network = Microgpt::new(MicrogptConfig {
            sequence_len,
            vocab_size: 32,
            n_layer: 2,
            n_head: 4,
            n_embd,
            norm_eps: 1e-5,
            tie_lm_head: false,
            input_rmsnorm: true,
            init_std: 0.3,
        })
        .unwrap();
        let values: Vec<Vec<f32>> = network.specs().iter().map(|spec| vec![0.1; spec.numel()]).collect();
        let parameters: usize = values.iter().map(Vec::len).sum();
        // What updates the weights plays no part.
        let sgd = GroupConfig::Sgd(SgdConfig { lr: 0.1, momentum: 0.0, weight_decay: 0.0 });
        let groups = [ParamGroup::Wte, ParamGroup::LmHead, ParamGroup::Matrix];
        let optimizer = OptimizerConfig { groups: groups.map(|group| (group, sgd.clone())).to_vec() };
        let mut engine = ScalarEngine::new(network, &optimizer, &values).unwrap();
        let tokens: Vec<i32> = (0..=sequence_len as i32).map(|id| id % 32).collect();
        let sequence = SequenceShape { batch: 1, len: sequence_len };
        let (inputs, targets) = (&tokens[..sequence_len], &tokens[1..]);
        let batch = MicroBatch { inputs, targets, sequence };
        engine.accumulate(&batch, 1.0 / sequence_len as f32).unwrap().read().unwrap();
        let cost = engine.tape_cost();
        let [nodes, edges, bytes] =
            [cost.nodes - parameters, cost.edges, cost.bytes].map(|total| total / sequence_len);
        println!("{parameters:>10}  {sequence_len:>4}  {nodes:>8}  {edges:>8}  {bytes:>9}");
    }
}
