//! Upstream's `tokenizer.pkl`: a pickled tiktoken `Encoding`, read without executing it and written byte for byte
//! as Python does.

use super::split_pattern::SPLIT_PATTERN;
use super::tokenizer::Tokenizer;
use crate::pickle::{Node, Pickle, PickleError};

/// The one class such a pickle may name.
const ENCODING: (&str, &str) = ("tiktoken.core", "Encoding");

/// Longer tokens are taken for damage: every cut of a token is looked at when its merges are found.
const MAX_TOKEN_BYTES: usize = 1 << 16;

/// Python writes dictionaries in batches of this many items.
const DICT_BATCH: usize = 1000;

/// Python starts another frame once one is this long.
const FRAME_BYTES: usize = 64 * 1024;

/// Why a pickle is no tokenizer that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenizerPickleError {
    #[error(transparent)]
    Pickle(#[from] PickleError),
    #[error("it holds something other than a tiktoken Encoding with its merges")]
    NotAnEncoding,
    #[error("its field {0} is missing or of another type")]
    Field(&'static str),
    #[error("it splits text by another pattern, {0:?}")]
    Pattern(String),
    #[error("id {0} is given twice or leaves a gap in the vocabulary")]
    Ids(i64),
    #[error("token {0} is there twice, or longer than {MAX_TOKEN_BYTES} bytes")]
    Token(i64),
    #[error("{0}")]
    Vocabulary(String),
}

/// Reads a tokenizer from the bytes of a pickle.
pub(super) fn read(bytes: &[u8]) -> Result<Tokenizer, TokenizerPickleError> {
    use TokenizerPickleError as E;
    let pickle = Pickle::read(bytes, &[ENCODING])?;
    let Node::Call { state: Some(state), .. } = pickle.root() else { return Err(E::NotAnEncoding) };
    let state = pickle.node(*state);
    if !matches!(state, Node::Dict(_)) {
        return Err(E::NotAnEncoding);
    }
    match pickle.get(state, "pat_str") {
        Some(Node::Str(pattern)) if pattern == SPLIT_PATTERN => {}
        Some(Node::Str(pattern)) => return Err(E::Pattern(pattern.clone())),
        _ => return Err(E::Field("pat_str")),
    }
    let dict = |name| match pickle.get(state, name) {
        Some(Node::Dict(items)) => Ok(items.iter().map(|&(k, v)| (pickle.node(k), pickle.node(v)))),
        _ => Err(E::Field(name)),
    };

    let ranks = dict("mergeable_ranks")?;
    let mut tokens: Vec<Option<&[u8]>> = vec![None; ranks.len()];
    let mut seen = std::collections::BTreeSet::new();
    for item in ranks {
        let (Node::Bytes(token), Node::Int(id)) = item else { return Err(E::Field("mergeable_ranks")) };
        // Before it is copied: a pickle can name one long value any number of times.
        if token.len() > MAX_TOKEN_BYTES || !seen.insert(token) {
            return Err(E::Token(*id));
        }
        place(&mut tokens, 0, *id, token.as_slice())?;
    }
    let tokens: Vec<Vec<u8>> = tokens.into_iter().flatten().map(<[u8]>::to_vec).collect();

    let names = dict("special_tokens")?;
    let mut specials: Vec<Option<&str>> = vec![None; names.len()];
    let mut seen = std::collections::BTreeSet::new();
    for item in names {
        let (Node::Str(name), Node::Int(id)) = item else { return Err(E::Field("special_tokens")) };
        if name.len() > MAX_TOKEN_BYTES || !seen.insert(name) {
            return Err(E::Token(*id));
        }
        place(&mut specials, tokens.len(), *id, name.as_str())?;
    }
    let specials = specials.into_iter().flatten().map(str::to_owned).collect();
    Tokenizer::from_tokens(tokens, specials).map_err(E::Vocabulary)
}

/// Puts `value` at `id`, counted from `first`. As many values as slots, none twice, leave no gap.
fn place<T>(slots: &mut [Option<T>], first: usize, id: i64, value: T) -> Result<(), TokenizerPickleError> {
    let slot = usize::try_from(id).ok().and_then(|id| id.checked_sub(first)).and_then(|at| slots.get_mut(at));
    match slot {
        Some(slot @ None) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(TokenizerPickleError::Ids(id)),
    }
}

/// Writes ordinary tokens, by id, and the special ones after them as a pickle that upstream reads.
pub(super) fn write(tokens: &[Vec<u8>], specials: &[String]) -> Vec<u8> {
    let mut out = Writer { done: vec![0x80, 4], frame: Vec::new() };
    out.text(ENCODING.0);
    out.text(ENCODING.1);
    out.op(b"\x93\x94)\x81\x94}\x94("); // STACK_GLOBAL, EMPTY_TUPLE, NEWOBJ, EMPTY_DICT, MARK
    out.text("name");
    out.text("rustbpe");
    out.text("pat_str");
    out.text(SPLIT_PATTERN);
    out.text("mergeable_ranks");
    out.dict(tokens.iter().zip(0..), |out, token| out.bytes(token));
    out.text("special_tokens");
    out.dict(specials.iter().zip(tokens.len()..), |out, name| out.text(name));
    out.op(b"ub."); // SETITEMS, BUILD, STOP
    out.end_frame();
    out.done
}

/// Opcodes of protocol 4 in frames, with a memo entry after each value as Python's pickler writes them.
struct Writer {
    done: Vec<u8>,
    frame: Vec<u8>,
}

impl Writer {
    fn op(&mut self, bytes: &[u8]) {
        self.frame.extend_from_slice(bytes);
    }

    fn end_frame(&mut self) {
        if self.frame.len() >= 4 {
            self.done.push(0x95); // FRAME
            self.done.extend_from_slice(&(self.frame.len() as u64).to_le_bytes());
        }
        self.done.append(&mut self.frame);
    }

    /// Python looks at the frame's length before each value it writes.
    fn boundary(&mut self) {
        if self.frame.len() >= FRAME_BYTES {
            self.end_frame();
        }
    }

    fn sized(&mut self, short: u8, long: u8, bytes: &[u8]) {
        self.boundary();
        if let Ok(len) = u8::try_from(bytes.len()) {
            self.op(&[short, len]);
        } else {
            self.op(&[long]);
            self.op(&(bytes.len() as u32).to_le_bytes());
        }
        self.op(bytes);
        self.op(b"\x94"); // MEMOIZE
    }

    fn text(&mut self, text: &str) {
        self.sized(0x8c, b'X', text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.sized(b'C', b'B', bytes);
    }

    fn int(&mut self, value: usize) {
        self.boundary();
        if let Ok(value) = u8::try_from(value) {
            self.op(&[b'K', value]);
        } else if let Ok(value) = u16::try_from(value) {
            self.op(b"M");
            self.op(&value.to_le_bytes());
        } else {
            self.op(b"J");
            self.op(&(value as u32).to_le_bytes());
        }
    }

    fn dict<T>(&mut self, items: impl Iterator<Item = (T, usize)>, key: impl Fn(&mut Self, T)) {
        self.boundary();
        self.op(b"}\x94");
        let mut open = false;
        for (at, (item, value)) in items.enumerate() {
            if at % DICT_BATCH == 0 {
                self.op(if open { b"u(" } else { b"(" });
                open = true;
            }
            key(self, item);
            self.int(value);
        }
        if open {
            self.op(b"u");
        }
    }
}
