//! Values that take long to compute and are asked for again and again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Values kept, at most: beyond that all are forgotten.
const MOST: usize = 4096;

/// A function's values so far, by the bits of its arguments.
pub(super) struct Memo(Mutex<BTreeMap<[u64; 3], f64>>);

impl Memo {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The value at `arguments`, which `compute` gives if it is not known.
    pub(super) fn get(&self, arguments: [f64; 3], compute: impl FnOnce() -> f64) -> f64 {
        let key = arguments.map(f64::to_bits);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known().get(&key) {
            return *value;
        }
        // Not under the lock: another thread may compute it too, and finds the same.
        let value = compute();
        let mut known = known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, value);
        value
    }
}
