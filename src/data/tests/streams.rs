//! Which documents of which split come when, over files, row groups and rounds; and from any position again.

use std::sync::Arc;

use crate::data::config::DocumentSplit;
use crate::data::{
    Cache, Corpus, Document, DocumentBatches, Position, Split, SplitSource, TokenStream, Tokenizer,
};

/// Documents of a text file's group, and of a batch.
const GROUP: usize = 1024;
const BATCH: usize = 128;

/// Batches of two rounds and where they stood, with the position after each.
fn two_rounds(
    source: &SplitSource,
    tokenizer: &Arc<Tokenizer>,
    from: Position,
) -> Vec<(Vec<Document>, Position, Position)> {
    let mut stream = TokenStream::new(source.clone(), Arc::clone(tokenizer), Cache::disabled(), from);
    let mut all = Vec::new();
    loop {
        let (documents, at) = stream.next_batch().unwrap();
        if at.epoch > 2 {
            return all;
        }
        all.push((documents, at, stream.position()));
    }
}

/// Opens files of so many one-line documents each, numbered through, and checks a split against the numbers it holds: a
/// list a row group, with its file and its number in the file.
fn check(files: &[usize], split: Split, groups: &[(usize, usize, std::ops::Range<usize>)]) {
    let directory = tempfile::tempdir().unwrap();
    let mut number = 0..;
    for (name, count) in files.iter().enumerate() {
        let lines: Vec<String> = number.by_ref().take(*count).map(|n| n.to_string()).collect();
        std::fs::write(directory.path().join(format!("{name}.txt")), lines.join("\n")).unwrap();
    }
    let patterns = [directory.path().join("*.txt").to_str().unwrap().to_owned()];
    let corpus = Corpus::open(&patterns, DocumentSplit::Line).unwrap();
    let source = corpus.split(split);
    let tokenizer = Arc::new(Tokenizer::characters(&corpus).unwrap());
    let mut expected = Vec::new();
    for epoch in 1..=2 {
        for (file, group, numbers) in groups {
            let numbers: Vec<usize> = numbers.clone().collect();
            for (batch, numbers) in numbers.chunks(BATCH).enumerate() {
                let ids = |number: &usize| {
                    let text = tokenizer.encode(&number.to_string()).unwrap();
                    [tokenizer.bos()].into_iter().chain(text).collect::<Document>()
                };
                let documents: Vec<Document> = numbers.iter().map(ids).collect();
                expected.push((documents, Position { epoch, file: *file, group: *group, batch }));
            }
        }
    }
    let all = two_rounds(&source, &tokenizer, Position::START);
    let found: Vec<_> = all.iter().map(|(documents, at, _)| (documents.clone(), *at)).collect();
    assert!(found == expected, "{:?}", found.iter().map(|(_, at)| at).collect::<Vec<_>>());
    for (done, (_, _, after)) in all.iter().enumerate() {
        assert!(two_rounds(&source, &tokenizer, *after) == all[done + 1..], "from {after:?}");
    }
}

#[test]
fn every_document_of_every_file_comes_once_a_round() {
    let files = [1300, 200, 130, 5];
    let train = [(0, 0, 0..GROUP), (0, 1, GROUP..1300), (1, 0, 1300..1500), (2, 0, 1500..1630)];
    check(&files, Split::Train, &train);
    check(&files, Split::Val, &[(0, 0, 1630..1635)]);
}

/// A tenth of a lone file is held out, wherever in a row group it begins.
#[test]
fn a_lone_file_is_cut_within_a_row_group() {
    check(&[2000], Split::Train, &[(0, 0, 0..GROUP), (0, 1, GROUP..1800)]);
    check(&[2000], Split::Val, &[(0, 1, 1800..2000)]);
}
