//! What the workers of an encoder keep between calls, bounded over all of them.

use std::sync::Arc;

use super::bpe_encode::Scratch;
use super::loader_bytes::LoaderBytes;
use super::tokenizer::Tokenizer;
use crate::error::Result;

/// Bytes of all word caches of a pool together, whatever the number of workers.
pub(super) const WORD_CACHE_BYTES: usize = 32 << 20;

/// Ids that a worker's buffer keeps room for between calls.
const BUFFER_IDS: usize = 1 << 16;

/// Bytes of a worker's buffers between calls at most.
const WORKER_BYTES: usize = 4 * BUFFER_IDS + (4 << 10);

/// What the workers of [`Tokenizer::encode_documents`] keep between calls; decides speed alone.
///
/// Their word caches take at most 32 MiB in all, shared evenly, and their buffers 256 KiB each.
#[derive(Default)]
pub struct EncodePool {
    workers: Vec<Worker>,
}

/// One worker's part of a pool.
pub(super) struct Worker {
    scratch: Scratch,
    ids: Vec<u32>,
}

impl EncodePool {
    /// So many workers.
    pub(super) fn workers(&mut self, count: usize) -> &mut [Worker] {
        if self.workers.len() != count {
            self.workers.clear();
            let scratch = || Scratch::of_bytes(WORD_CACHE_BYTES / count.max(1));
            self.workers.resize_with(count, || Worker { scratch: scratch(), ids: Vec::new() });
        }
        &mut self.workers
    }

    /// What the workers hold between calls.
    pub(super) fn held(&self) -> LoaderBytes {
        let each = |worker: &Worker| worker.scratch.bytes() + 4 * worker.ids.capacity();
        let held = self.workers.iter().map(each).sum::<usize>() as u64;
        LoaderBytes { held, most: (WORD_CACHE_BYTES + self.workers.len() * WORKER_BYTES) as u64 }
    }
}

impl Worker {
    /// The ids of each document with BOS before them.
    pub(super) fn encode(
        &mut self,
        tokenizer: &Tokenizer,
        documents: &[impl AsRef<str>],
    ) -> Result<Vec<Arc<[u32]>>> {
        let Self { scratch, ids } = self;
        let encoded = documents.iter().map(|document| {
            crate::stop::check()?;
            ids.clear();
            // The room that one huge document took is given back before the next.
            ids.shrink_to(BUFFER_IDS);
            ids.push(tokenizer.bos());
            tokenizer.encode_into(document.as_ref(), scratch, ids)?;
            Ok(Arc::from(ids.as_slice()))
        });
        let encoded = encoded.collect();
        ids.clear();
        ids.shrink_to(BUFFER_IDS);
        encoded
    }
}

/// `documents` in `workers` runs of about as many bytes each, in order.
pub(super) fn shares<T: AsRef<str>>(documents: &[T], workers: usize) -> Vec<&[T]> {
    let total: usize = documents.iter().map(|document| document.as_ref().len()).sum();
    let (mut rest, mut taken) = (documents, 0);
    (1..=workers)
        .map(|worker| {
            let goal = if worker == workers { usize::MAX } else { total * worker / workers };
            let count = rest
                .iter()
                .take_while(|document| {
                    // By the middle of a document, so that a large one goes where most of it belongs.
                    let len = document.as_ref().len();
                    let within = taken + len / 2 < goal;
                    taken += if within { len } else { 0 };
                    within
                })
                .count();
            let (share, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = after;
            share
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Cache, Corpus, Split};

    #[test]
    fn shares_are_even_in_bytes_and_lose_nothing() {
        let documents: Vec<String> =
            (0..500_usize).map(|at| "x".repeat(if at % 100 == 7 { 5000 } else { at % 40 })).collect();
        for workers in [1, 2, 3, 16, 64, 1000] {
            let shares = shares(&documents, workers);
            assert_eq!(shares.len(), workers);
            assert_eq!(shares.concat(), documents, "{workers} workers");
            let bytes = |share: &&[String]| share.iter().map(String::len).sum::<usize>();
            let most = shares.iter().map(bytes).max().unwrap();
            let total: usize = documents.iter().map(String::len).sum();
            assert!(most <= total / workers + 5000, "{workers} workers: {most} of {total}");
        }
        assert_eq!(shares(&[""; 3], 2).concat().len(), 3);
        assert_eq!(shares::<&str>(&[], 2), [&[] as &[&str]; 2]);
    }

    /// New words keep coming: the caches fill, and hold no more than their bound over 1, 2, 16 or 64 workers.
    #[test]
    fn word_caches_are_bounded_over_all_workers() {
        let corpus = Corpus::embedded().unwrap();
        let tokenizer = Tokenizer::train(&corpus.split(Split::Train), 300, &Cache::disabled()).unwrap();
        for workers in [1, 2, 16, 64] {
            let mut pool = EncodePool::default();
            for (number, worker) in pool.workers(workers).iter_mut().enumerate() {
                for word in 0..600_000 / workers {
                    worker.encode(&tokenizer, &[format!(" {}q{number}", to_letters(word))]).unwrap();
                }
            }
            let LoaderBytes { held, most } = pool.held();
            assert!(held <= most, "{workers} workers hold {held} of {most} bytes");
            assert!(most <= (32 << 20) + workers as u64 * 300_000);
            assert!(held > WORD_CACHE_BYTES as u64 / 4, "{workers} workers hold {held}: too few words");
        }
    }

    fn to_letters(mut number: usize) -> String {
        let mut word = String::new();
        loop {
            word.push((b'a' + (number % 16) as u8) as char);
            number /= 16;
            if number == 0 {
                return word;
            }
        }
    }

    #[test]
    fn a_huge_document_leaves_no_huge_buffer() {
        let corpus = Corpus::embedded().unwrap();
        let tokenizer = Tokenizer::train(&corpus.split(Split::Train), 300, &Cache::disabled()).unwrap();
        let mut pool = EncodePool::default();
        let huge = "qz".repeat(1 << 20);
        let ids = tokenizer.encode_documents(&[huge.as_str(), "short"], &mut pool).unwrap();
        assert_eq!(tokenizer.decode(&ids[0][1..]), huge);
        let held = pool.held().held;
        assert!(held <= (pool.workers.len() * WORKER_BYTES + (1 << 16)) as u64, "{held}");
    }
}
