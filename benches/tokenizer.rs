//! Tokenizer training and encoding on the embedded corpus, at the number of threads in `RAYON_NUM_THREADS`.

use divan::Bencher;
use divan::counter::BytesCount;
use nanorun::data::{Cache, Corpus, EncodePool, Split, Tokenizer};

fn main() {
    divan::main();
}

fn corpus() -> Corpus {
    Corpus::embedded().unwrap_or_else(|error| unreachable!("{error}"))
}

/// Reading the shard is in it.
#[divan::bench(args = [4096, 32768], sample_count = 5)]
fn train(bencher: Bencher<'_, '_>, vocab_size: usize) {
    let source = corpus().split(Split::Train);
    bencher.bench(|| Tokenizer::train(&source, vocab_size, &Cache::disabled()).map(|t| t.digest()));
}

#[divan::bench(args = [4096, 32768], sample_count = 10)]
fn encode(bencher: Bencher<'_, '_>, vocab_size: usize) {
    let source = corpus().split(Split::Train);
    let Ok(tokenizer) = Tokenizer::train(&source, vocab_size, &Cache::disabled()) else { return };
    let Ok(documents) = source.documents() else { return };
    let bytes: usize = documents.iter().map(String::len).sum();
    bencher
        .counter(BytesCount::new(bytes))
        .bench(|| tokenizer.encode_documents(&documents, &mut EncodePool::default()).map(|ids| ids.len()));
}
