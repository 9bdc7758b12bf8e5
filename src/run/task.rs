//! One run of an experiment as the executor sees it.

use crate::hash::Digest;
use crate::plan::key::KeyChain;
use crate::plan::run_config::RunConfig;

/// A run to carry out. Cells with equal run keys are one task.
#[derive(Debug, Clone)]
pub struct Task {
    /// What people call it: its cell.
    pub label: String,
    /// Everything that decides its numbers.
    pub config: RunConfig,
    /// `k[0]` to `k[N]`.
    pub keys: Vec<Digest>,
    /// The run key, which names its directory.
    pub run_key: Digest,
}

impl Task {
    /// The task of a planned run, whose key the plan has computed.
    pub fn new(label: String, config: RunConfig, run_key: Digest) -> Self {
        let keys = KeyChain::new(&config).links().collect();
        Self { label, config, keys, run_key }
    }

    /// N.
    pub fn steps(&self) -> u64 {
        self.config.schedule.num_iterations
    }

    /// The most steps whose result `self` and `other` share: equal keys, and equal evaluations on the way.
    pub fn shared_steps(&self, other: &Self) -> u64 {
        let (a, b) = (&self.config.eval, &other.config.eval);
        if a.every != b.every || a.tokens != b.tokens {
            return 0;
        }
        // Each key contains the one before it, so equality is a prefix.
        let equal = |i: &usize| self.keys[*i] == other.keys[*i];
        let both = self.keys.len().min(other.keys.len());
        (0..both).take_while(equal).last().unwrap_or(0) as u64
    }
}
