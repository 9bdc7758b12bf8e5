//! How the backward of attention is shared out among threads.
//!
//! The gradient of a query is a sum over chunks of keys, those of a key and a value are sums over tiles of queries: each
//! in a fixed order, each part of a sum one chain. So keys may be parted anywhere where only their own gradients are
//! wanted, queries likewise, and chunks of keys where what each adds to the gradients of queries is added up later in their
//! order. All ways give the same bits, and the one that is done first is taken.

use std::ops::Range;

use super::balance;
use crate::ops::AttentionShape;

/// Keys of a chunk: a numerics constant.
pub(super) const KEYS: usize = super::gemm::KC;

/// Which gradients a task computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Those of queries, keys and values.
    All,
    /// Those of keys and values.
    Keys,
    /// Those of queries.
    Queries,
}

impl Wanted {
    pub(super) fn keys(self) -> bool {
        self != Self::Queries
    }

    pub(super) fn queries(self) -> bool {
        self != Self::Keys
    }
}

/// A way to share out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A task a sequence and key head.
    Heads,
    /// A task a chunk of keys. Each keeps what it adds to the gradients of queries apart.
    Chunks,
    /// Tasks of so many keys, whole panels that part a chunk, and tasks of so many queries, an even number. Each computes
    /// the scores it needs, so they are computed twice.
    Sides { keys: usize, queries: usize },
}

impl Way {
    /// Those that are chosen among: the later ones part more and cost more.
    const ALL: [Self; 4] = [
        Self::Heads,
        Self::Chunks,
        Self::Sides { keys: 128, queries: 192 },
        Self::Sides { keys: 64, queries: 96 },
    ];
}

/// What is alike for all sequences and key heads: these keys and queries.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    keys: Range<usize>,
    queries: Range<usize>,
    wanted: Wanted,
    /// Where what is kept apart begins, in rows.
    apart: Option<usize>,
}

/// A task: a part of one sequence and key head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) b: usize,
    pub(super) kv_head: usize,
    /// Whole chunks, but for the last, or a part of one chunk.
    pub(super) keys: Range<usize>,
    pub(super) queries: Range<usize>,
    pub(super) wanted: Wanted,
    /// The row of what is kept apart that the first query adds to; else gradients of queries are added to in place.
    pub(super) apart: Option<usize>,
}

/// The tasks of one backward.
#[derive(Debug)]
pub(super) struct Split {
    parts: Vec<Part>,
    batch: usize,
    n_kv_head: usize,
    len: usize,
    window: usize,
    /// By chunk, the queries that see some of it, and where their rows begin among those kept apart of a sequence.
    apart: Vec<(Range<usize>, usize)>,
    apart_rows: usize,
}

impl Split {
    /// The way that so many threads are done with first.
    pub(super) fn new(s: &AttentionShape, threads: usize) -> Self {
        let heads = Self::by(s, Way::Heads);
        // What divides evenly need not be parted, and of many heads the last few count for little.
        if heads.count().is_multiple_of(threads) || heads.count() >= 16 * threads {
            return heads;
        }
        Way::ALL[1..].iter().fold(heads, |best, &way| {
            let other = Self::by(s, way);
            if other.longest(threads) < best.longest(threads) { other } else { best }
        })
    }

    /// This way.
    pub(super) fn by(s: &AttentionShape, way: Way) -> Self {
        let (len, window) = (s.sequence.len, s.window);
        let mut split = Self {
            parts: Vec::new(),
            batch: s.sequence.batch,
            n_kv_head: s.n_kv_head,
            len,
            window,
            apart: Vec::new(),
            apart_rows: 0,
        };
        match way {
            Way::Heads => {
                split.parts = vec![Part { keys: 0..len, queries: 0..len, wanted: Wanted::All, apart: None }];
            }
            Way::Chunks => {
                for low in (0..len).step_by(KEYS) {
                    let keys = low..len.min(low + KEYS);
                    let queries = queries_of(&keys, window, len);
                    split.apart.push((queries.clone(), split.apart_rows));
                    let apart = Some(split.apart_rows);
                    split.apart_rows += queries.len();
                    split.parts.push(Part { keys, queries, wanted: Wanted::All, apart });
                }
            }
            Way::Sides { keys, queries } => {
                for low in (0..len).step_by(keys) {
                    let keys = low..len.min(low + keys);
                    let queries = queries_of(&keys, window, len);
                    split.parts.push(Part { keys, queries, wanted: Wanted::Keys, apart: None });
                }
                for start in (0..len).step_by(queries) {
                    let queries = start..len.min(start + queries);
                    let keys = start.saturating_sub(window) / KEYS * KEYS..queries.end;
                    split.parts.push(Part { keys, queries, wanted: Wanted::Queries, apart: None });
                }
            }
        }
        // The largest first: what is left for the end is small.
        split.parts.sort_by_key(|part| std::cmp::Reverse(part.cost(window)));
        split
    }

    /// How many tasks there are.
    pub(super) fn count(&self) -> usize {
        self.parts.len() * self.batch * self.n_kv_head
    }

    /// Task `index`: the same part of all heads, then the next part.
    pub(super) fn task(&self, index: usize) -> Task {
        let heads = self.batch * self.n_kv_head;
        let (part, head) = (&self.parts[index / heads], index % heads);
        let b = head / self.n_kv_head;
        Task {
            b,
            kv_head: head % self.n_kv_head,
            keys: part.keys.clone(),
            queries: part.queries.clone(),
            wanted: part.wanted,
            apart: part.apart.map(|row| b * self.apart_rows + row),
        }
    }

    /// Rows of gradients of queries that are kept apart, of all sequences.
    pub(super) fn apart_rows(&self) -> usize {
        self.batch * self.apart_rows
    }

    /// The rows kept apart that are what one query's gradient is the sum of, in their order.
    pub(super) fn rows_of(&self, b: usize, query: usize) -> impl Iterator<Item = usize> {
        let seen = self.apart.iter().filter(move |(queries, _)| queries.contains(&query));
        seen.map(move |(queries, row)| b * self.apart_rows + row + query - queries.start)
    }

    /// Whether gradients of queries are kept apart.
    pub(super) fn is_apart(&self) -> bool {
        !self.apart.is_empty()
    }

    /// What each task takes, in the order of tasks: of the products of a score, a hundredth of those of one way.
    pub(super) fn costs(&self) -> impl Iterator<Item = u64> {
        let heads = self.batch * self.n_kv_head;
        self.parts.iter().flat_map(move |part| std::iter::repeat_n(part.cost(self.window), heads))
    }

    /// When the last of so many threads is done.
    fn longest(&self, threads: usize) -> u64 {
        let apart = if self.is_apart() { self.len as u64 * ADDING } else { 0 };
        balance::shared_out(self.costs(), threads).longest + apart * self.batch as u64 / threads as u64
    }
}

/// What it takes to add up what is kept apart, for a query.
const ADDING: u64 = 100;

impl Part {
    fn cost(&self, window: usize) -> u64 {
        // Five products a score, of which two are computed twice where sides are parted, and packing then is shared by fewer.
        let each = match (self.wanted, self.apart) {
            (Wanted::All, None) => 100,
            (Wanted::All, Some(_)) => 103,
            (Wanted::Keys, _) => 88,
            (Wanted::Queries, _) => 68,
        };
        each * visible(&self.queries, &self.keys, window)
    }
}

/// The queries that see some of these keys.
fn queries_of(keys: &Range<usize>, window: usize, len: usize) -> Range<usize> {
    keys.start..len.min(keys.end.saturating_add(window))
}

/// Pairs of a query and a key that it sees.
fn visible(queries: &Range<usize>, keys: &Range<usize>, window: usize) -> u64 {
    // Pairs of a query below `queries` and a key below `keys` that is no later.
    let until = |queries: usize, keys: usize| {
        let (queries, both) = (queries as u64, queries.min(keys) as u64);
        both * queries - both * both.saturating_sub(1) / 2
    };
    // Queries that lie `back` further on see the same.
    let within = |back: usize| {
        let (first, end) = (queries.start.saturating_sub(back), queries.end.saturating_sub(back));
        (until(end, keys.end) + until(first, keys.start)) - (until(first, keys.end) + until(end, keys.start))
    };
    within(0) - within(window.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::SequenceShape;

    fn shape(batch: usize, len: usize, n_kv_head: usize, window: usize) -> AttentionShape {
        let sequence = SequenceShape { batch, len };
        AttentionShape { sequence, n_head: n_kv_head, n_kv_head, head_dim: 128, window }
    }

    #[test]
    fn what_is_seen_is_counted() {
        for window in [0, 1, 5, 30, usize::MAX] {
            for (queries, keys) in
                [(0..40, 0..40), (7..29, 3..11), (3..11, 7..29), (20..21, 0..40), (0..9, 9..12)]
            {
                let all = queries.clone().flat_map(|n| keys.clone().map(move |k| (n, k)));
                let seen = all.filter(|&(n, k)| k <= n && n - k <= window).count();
                assert_eq!(visible(&queries, &keys, window), seen as u64, "{queries:?} {keys:?} {window}");
            }
        }
    }

    /// Every pair of a query and a key is in one task that wants the key's gradient, and in one that wants the query's.
    #[test]
    fn every_way_has_all_of_it_once() {
        for (len, window) in [(1, 9), (300, 1000), (700, 130), (513, 0)] {
            let s = shape(2, len, 3, window);
            for way in Way::ALL.into_iter().chain([Way::Sides { keys: 32, queries: 12 }]) {
                let split = Split::by(&s, way);
                let all = visible(&(0..len), &(0..len), window);
                for wants in [Wanted::keys, Wanted::queries] {
                    let mut found = 0;
                    for task in (0..split.count()).map(|i| split.task(i)).filter(|task| wants(task.wanted)) {
                        found += visible(&task.queries, &task.keys, window);
                    }
                    assert_eq!(found, 6 * all, "{way:?} {len} {window}");
                }
                let rows: Vec<usize> = (0..2)
                    .flat_map(|b| (0..len).flat_map(move |n| [(b, n)]))
                    .flat_map(|(b, n)| split.rows_of(b, n))
                    .collect();
                let mut sorted = rows.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!((sorted.len(), rows.len()), (split.apart_rows(), split.apart_rows()), "{way:?}");
            }
        }
    }

    /// Sixteen threads and more have something to do, and none much more than another.
    #[test]
    fn many_threads_are_busy() {
        for (batch, len, heads) in
            [(1, 2048, 2), (2, 2048, 2), (8, 512, 2), (8, 512, 3), (1, 2048, 3), (1, 1024, 6), (4, 2048, 12)]
        {
            let s = shape(batch, len, heads, usize::MAX);
            let whole: u64 = Split::by(&s, Way::Heads).costs().sum();
            for (threads, bound) in [(2, 1.06), (8, 1.2), (16, 1.6), (32, 1.7), (64, 2.0)] {
                let split = Split::new(&s, threads);
                // How much longer than if all threads did an equal part of what one thread does.
                let over = split.longest(threads) as f64 * threads as f64 / whole as f64;
                assert!(over < bound, "{batch} {len} {heads}, {threads} threads: {over}");
            }
        }
    }

    #[test]
    fn what_divides_evenly_is_not_parted() {
        for (batch, len, heads) in [(8, 512, 2), (2, 2048, 2), (8, 512, 3)] {
            for threads in [1, 2] {
                let split = Split::new(&shape(batch, len, heads, usize::MAX), threads);
                assert_eq!(split.count(), batch * heads);
            }
        }
    }
}
