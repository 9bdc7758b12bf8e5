//! `nanorun tokenizer encode`, `decode` and `compare`.

use std::io::Read as _;

use serde_json::json;

use super::{CompareArgs, DecodeArgs, EncodeArgs};
use crate::cli::naming::shards;
use crate::cli::output::Output;
use crate::cli::waiting::show_waiting;
use crate::data::{Corpus, DocumentSplit, Split, Tokenizer, for_each_group};
use crate::error::{Class, Error, Result};
use crate::interop::tokenizers::load;
use crate::stop;

/// Characters around the first difference that are shown.
const AROUND: usize = 24;

/// What is given, else the standard input.
fn text(given: Option<&str>) -> Result<String> {
    if let Some(text) = given {
        return Ok(text.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Error::input("the standard input is no text").because(error).expected("UTF-8"))?;
    Ok(text)
}

/// Prints the ids of a text.
pub(super) fn encode(args: &EncodeArgs) -> Result<Option<Class>> {
    let tokenizer = load(&args.tokenizer)?;
    let text = text(args.text.as_deref())?;
    let mut ids = if args.bos { vec![tokenizer.bos()] } else { Vec::new() };
    ids.extend(tokenizer.encode(&text)?);
    let output = Output::new(false);
    if args.json {
        let pieces: Vec<String> = ids.iter().map(|&id| piece(&tokenizer, id)).collect();
        output.result(&json!({ "ids": ids, "tokens": pieces }).to_string());
    } else {
        output.result(&ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    }
    Ok(None)
}

fn piece(tokenizer: &Tokenizer, id: u32) -> String {
    String::from_utf8_lossy(&tokenizer.token(id).unwrap_or_default()).into_owned()
}

/// Prints the text of ids.
pub(super) fn decode(args: &DecodeArgs) -> Result<Option<Class>> {
    let tokenizer = load(&args.tokenizer)?;
    let given = if args.ids.is_empty() { text(None)? } else { args.ids.join(" ") };
    let mut ids = Vec::new();
    for word in given.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let id = word.parse::<u32>().ok().filter(|&id| (id as usize) < tokenizer.vocab_size());
        ids.push(id.ok_or_else(|| {
            Error::input(format!("{word} is no token of this tokenizer"))
                .expected(format!("ids from 0 to {}", tokenizer.vocab_size().saturating_sub(1)))
        })?);
    }
    Output::new(false).result(&tokenizer.decode(&ids));
    Ok(None)
}

/// Says whether two tokenizers give the same ids, and where not.
pub(super) fn compare(args: &CompareArgs) -> Result<Option<Class>> {
    stop::watch()?;
    show_waiting(false);
    let (a, b) = (load(&args.a)?, load(&args.b)?);
    let mut compared = Compared { a: &a, b: &b, documents: 0, differ: 0, tokens: [0; 2], first: None };
    if let Some(text) = &args.text {
        compared.document(text)?;
    } else {
        let named = args.shards.iter().map(|path| Ok(shards(path)?.to_string_lossy().into_owned()));
        let mut named = named.collect::<Result<Vec<_>>>()?;
        if named.is_empty() {
            named.push(crate::data::EMBEDDED.to_owned());
        }
        let corpus = Corpus::open(&named, DocumentSplit::Block)?;
        for split in [Split::Train, Split::Val] {
            for_each_group(&corpus.split(split), |documents| {
                documents.iter().try_for_each(|text| compared.document(text))?;
                Ok(true)
            })?;
        }
    }
    let Compared { documents, differ, tokens, first, .. } = compared;
    let alike = a.digest() == b.digest();
    let output = Output::new(false);
    if args.json {
        let first = first.as_ref().map(|first| {
            json!({ "document": first.document, "byte": first.byte, "text": first.text, "a": first.ids[0], "b": first.ids[1] })
        });
        output.result(
            &json!({
                "same_vocabulary": alike,
                "documents": documents,
                "differ": differ,
                "tokens": tokens,
                "first": first,
            })
            .to_string(),
        );
        return Ok(None);
    }
    output.result(if alike { "the vocabularies are the same" } else { "the vocabularies differ" });
    output.result(&format!(
        "{differ} of {documents} texts are encoded otherwise; {} and {} tokens",
        tokens[0], tokens[1]
    ));
    if let Some(First { document, byte, text, ids: [of_a, of_b] }) = first {
        output.result(&format!("the first is text {document}, from byte {byte} on: {text:?}"));
        for (name, ids, tokenizer) in [("a", &of_a, &a), ("b", &of_b, &b)] {
            let pieces: Vec<String> =
                ids.iter().map(|&id| format!("{id} {:?}", piece(tokenizer, id))).collect();
            output.result(&format!("  {name}: {}", pieces.join(", ")));
        }
    }
    Ok(None)
}

/// Where two tokenizers part.
struct First {
    document: usize,
    byte: usize,
    text: String,
    /// The next few ids of each.
    ids: [Vec<u32>; 2],
}

struct Compared<'t> {
    a: &'t Tokenizer,
    b: &'t Tokenizer,
    documents: usize,
    differ: usize,
    tokens: [usize; 2],
    first: Option<First>,
}

impl Compared<'_> {
    fn document(&mut self, text: &str) -> Result<()> {
        let (a, b) = (self.a.encode(text)?, self.b.encode(text)?);
        self.documents += 1;
        self.tokens[0] += a.len();
        self.tokens[1] += b.len();
        // By the bytes of each token: equal vocabularies may number them otherwise.
        let same = a.len() == b.len()
            && a.iter().zip(&b).all(|(&a, &b)| a == b && self.a.token(a) == self.b.token(b));
        if same {
            return Ok(());
        }
        self.differ += 1;
        if self.first.is_some() {
            return Ok(());
        }
        let equal = |(a, b): &(&u32, &u32)| a == b && self.a.token(**a) == self.b.token(**b);
        let before = a.iter().zip(&b).take_while(equal).count();
        let byte: usize =
            a.iter().take(before).filter_map(|&id| self.a.token(id)).map(|token| token.len()).sum();
        let rest = String::from_utf8_lossy(text.as_bytes().get(byte..).unwrap_or_default()).into_owned();
        let next = |ids: &[u32]| ids.iter().skip(before).take(6).copied().collect();
        self.first = Some(First {
            document: self.documents,
            byte,
            text: rest.chars().take(AROUND).collect(),
            ids: [next(&a), next(&b)],
        });
        Ok(())
    }
}
