//! Text to rows, on the embedded corpus: reading parquet, tokenizer training, encoding and packing, at the number of
//! threads in `RAYON_NUM_THREADS`.
//!
//! `cargo bench --bench data [FILTER]`; without `--bench` every benchmark runs once.
#![allow(missing_docs, clippy::unwrap_used)]

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use nanorun::internals::data::{
    Cache, Corpus, EncodePool, Packer, Packing, RankCursor, Split, SplitSource, TokenStream, Tokenizer,
    TokenizerChoice,
};

fn main() {
    divan::main();
}

const VOCABULARIES: [usize; 2] = [4096, 32768];

fn train_split() -> SplitSource {
    Corpus::embedded().unwrap().split(Split::Train)
}

#[divan::bench(sample_count = 20)]
fn read_parquet(bencher: Bencher<'_, '_>) {
    let source = train_split();
    let bytes: usize = source.documents().unwrap().iter().map(String::len).sum();
    bencher.counter(BytesCount::new(bytes)).bench(|| source.documents().unwrap());
}

/// Reading the shard is in it.
#[divan::bench(args = VOCABULARIES, sample_count = 5)]
fn train_tokenizer(bencher: Bencher<'_, '_>, vocab_size: usize) {
    let source = train_split();
    bencher.bench(|| Tokenizer::train(&source, vocab_size, &Cache::disabled()).unwrap());
}

#[divan::bench(args = VOCABULARIES, sample_count = 10)]
fn encode(bencher: Bencher<'_, '_>, vocab_size: usize) {
    let source = train_split();
    let tokenizer = Tokenizer::train(&source, vocab_size, &Cache::disabled()).unwrap();
    let documents = source.documents().unwrap();
    let bytes: usize = documents.iter().map(String::len).sum();
    bencher
        .counter(BytesCount::new(bytes))
        .bench(|| tokenizer.encode_documents(&documents, &mut EncodePool::default()).unwrap());
}

/// Rows from the start of the split: reading and encoding are in it. Rows, tokens of a row.
#[divan::bench(args = [(8, 512), (2, 2048), (1, 1024)], sample_count = 10)]
fn pack(bencher: Bencher<'_, '_>, (rows, len): (usize, usize)) {
    const BATCHES: usize = 16;
    let choice = TokenizerChoice::Train { vocab_size: 4096 };
    let tokenizer = Tokenizer::resolve(&choice, &Corpus::embedded().unwrap(), &Cache::disabled()).unwrap();
    let bos = tokenizer.bos();
    let packer = || {
        let cursor = RankCursor::start();
        let stream = TokenStream::new(train_split(), tokenizer.clone(), Cache::disabled(), cursor.next);
        Packer::new(stream, Packing::BestFitBos, rows, len, bos, cursor).unwrap()
    };
    bencher.counter(ItemsCount::new(BATCHES * rows * len)).with_inputs(packer).bench_values(|mut packer| {
        for _ in 0..BATCHES {
            packer.next_batch().unwrap();
        }
        packer
    });
}
