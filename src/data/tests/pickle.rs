//! Pickles made to harm: nothing is executed, nothing recurses, nothing is reserved by a length alone.

use std::path::Path;

use crate::data::Tokenizer;
use crate::pickle::{Node, Pickle, PickleError};

const ALLOWED: [(&str, &str); 1] = [("tiktoken.core", "Encoding")];

fn read(bytes: &[u8]) -> Result<Pickle, PickleError> {
    Pickle::read(bytes, &ALLOWED)
}

#[test]
fn calls_of_other_functions_are_refused_by_name() {
    let named = |module: &str, name: &str| PickleError::Global { module: module.into(), name: name.into() };
    // `os.system("true")` in protocols 0, 2 and 4, `eval`, and one behind the allowed class.
    let cases: [(&[u8], _); 5] = [
        (b"cos\nsystem\n(X\x04\0\0\0truetR.", named("os", "system")),
        (b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.", named("posix", "system")),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", named("posix", "system")),
        (b"cbuiltins\neval\n(X\x01\0\0\x001tR.", named("builtins", "eval")),
        (b"ctiktoken.core\nEncoding\n)\x81cbuiltins\ngetattr\nb.", named("builtins", "getattr")),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(bytes).unwrap_err(), expected);
    }
    // INST, OBJ, EXT1, PERSID and `__reduce__` of a value that is no class are no plain data.
    for bytes in [&b"(ios\nsystem\n."[..], b"(ctiktoken.core\nEncoding\no.", b"\x82\x01.", b"P1\n.", b"N)R."]
    {
        assert!(read(bytes).is_err(), "{bytes:?}");
    }
    // A dotted name does not reach through an allowed one.
    assert!(matches!(read(b"ctiktoken.core\nEncoding.__init__\n."), Err(PickleError::Global { .. })));
}

#[test]
fn deep_nesting_is_no_recursion() {
    const DEEP: usize = 1_000_000;
    let lists = [vec![b']'; DEEP], vec![b'a'; DEEP - 1], vec![b'.']].concat();
    let tuples = [vec![b')'], vec![0x85; DEEP], vec![b'.']].concat();
    let marks = [vec![b'('; DEEP], vec![b't'; DEEP], vec![b'.']].concat();
    for bytes in [lists, tuples, marks] {
        let pickle = read(&bytes).unwrap();
        let (mut node, mut depth) = (pickle.root(), 0);
        while let Node::List(items) | Node::Tuple(items) = node {
            let Some(&first) = items.first() else { break };
            (node, depth) = (pickle.node(first), depth + 1);
        }
        assert!(depth >= DEEP - 1, "{depth}");
        drop(pickle.clone());
    }
    // A list that holds itself.
    let pickle = read(b"]\x94h\0a.").unwrap();
    assert!(matches!(pickle.root(), Node::List(items) if items.len() == 1));
}

#[test]
fn lengths_and_memo_places_are_not_believed() {
    let cases: [&[u8]; 6] = [
        b"]r\xff\xff\xff\x7f.",
        b"j\xff\xff\xff\x7f.",
        b"B\xff\xff\xff\xff.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffa.",
        b"X\xff\xff\xff\x7f.",
    ];
    for bytes in cases {
        assert!(read(bytes).is_err(), "{bytes:?}");
    }
}

/// Two bytes of pickle can name a token of any length again: it is refused before it is copied.
#[test]
fn one_token_under_many_ids_is_refused() {
    let mut bytes = b"ctiktoken.core\nEncoding\n)\x81}(X\x07\0\0\0pat_str".to_vec();
    let pattern = crate::data::SPLIT_PATTERN.as_bytes();
    bytes.push(b'X');
    bytes.extend((pattern.len() as u32).to_le_bytes());
    bytes.extend(pattern);
    bytes.extend(b"X\x0f\0\0\0mergeable_ranks}(B");
    bytes.extend(50_000_u32.to_le_bytes());
    bytes.extend(vec![b'x'; 50_000]);
    bytes.extend(b"q\0K\0");
    for id in 1..20_000_u16 {
        bytes.extend(b"h\0M");
        bytes.extend(id.to_le_bytes());
    }
    bytes.extend(b"uX\x0e\0\0\0special_tokens}ub.");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.pkl");
    std::fs::write(&path, bytes).unwrap();
    let error = Tokenizer::load(Path::new(&path)).err().unwrap().to_string();
    assert!(error.contains("token 1 is there twice"), "{error}");
}
