//! How long tasks take that are handed out in their order, each to the thread that is free first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Tasks shared out among threads; in the unit of their sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Balance {
    /// How many tasks there are.
    pub(super) tasks: usize,
    /// What all take together.
    pub(super) total: u64,
    /// The largest task.
    pub(super) largest: u64,
    /// When the last thread is done.
    pub(super) longest: u64,
}

/// Hands tasks of these sizes to `threads` threads.
pub(super) fn shared_out(sizes: impl IntoIterator<Item = u64>, threads: usize) -> Balance {
    let mut free: BinaryHeap<Reverse<u64>> = (0..threads.max(1)).map(|_| Reverse(0)).collect();
    let mut balance = Balance { tasks: 0, total: 0, largest: 0, longest: 0 };
    for size in sizes {
        let start = free.pop().map_or(0, |Reverse(at)| at);
        free.push(Reverse(start + size));
        balance.tasks += 1;
        balance.total += size;
        balance.largest = balance.largest.max(size);
        balance.longest = balance.longest.max(start + size);
    }
    balance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_free_first_is_next() {
        let balance = shared_out([5, 3, 3, 1, 1], 2);
        assert_eq!(balance, Balance { tasks: 5, total: 13, largest: 5, longest: 7 });
        assert_eq!(shared_out([4; 6], 3).longest, 8);
        assert_eq!(shared_out([], 3).longest, 0);
    }
}
