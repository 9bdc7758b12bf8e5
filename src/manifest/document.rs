//! TOML as written: a tree of values, each with the line it stands on.

use toml::Value;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};
use crate::toml_text::{self, TomlError};

/// A value and its line (from 1).
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Line of its key, or of the value itself inside an array.
    pub(crate) line: usize,
    /// The value.
    pub(crate) kind: NodeKind,
}

/// What stands there.
#[derive(Debug, Clone)]
pub(crate) enum NodeKind {
    /// Keys in the order written.
    Table(Vec<(String, Node)>),
    /// Elements.
    Array(Vec<Node>),
    /// Anything else.
    Leaf(Value),
}

impl Node {
    /// The entries of a table; none for anything else.
    pub(crate) fn entries(&self) -> &[(String, Node)] {
        match &self.kind {
            NodeKind::Table(entries) => entries,
            _ => &[],
        }
    }

    /// A key of a table.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Whether it is a table.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.kind, NodeKind::Table(_))
    }

    /// The value without its lines.
    pub(crate) fn value(&self) -> Value {
        match &self.kind {
            NodeKind::Leaf(value) => value.clone(),
            NodeKind::Array(items) => Value::Array(items.iter().map(Node::value).collect()),
            NodeKind::Table(entries) => {
                Value::Table(entries.iter().map(|(key, node)| (key.clone(), node.value())).collect())
            }
        }
    }
}

/// Parses a document. `file` is what errors name.
pub(crate) fn parse(file: &std::path::Path, text: &str) -> Result<Node> {
    let lines = Lines::of(text);
    let table = toml_text::document(text).map_err(|error| match error {
        TomlError::Toml(error) => {
            let located = Error::input(format!("not valid TOML: {}", error.message())).file(file);
            let Some(span) = error.span() else { return located };
            let line = lines.at(span.start);
            let located = located.line(line);
            match text.lines().nth(line.saturating_sub(1)).and_then(as_toml_has_it) {
                Some(value) => located.help(format!("write {value}")),
                None => located,
            }
        }
        other => Error::input(other.to_string())
            .file(file)
            .expected("a manifest; tables can be written as [sections] and [[lists]] of them"),
    })?;
    Ok(Node { line: 1, kind: NodeKind::Table(entries(table.get_ref(), &lines, file)?) })
}

/// What the value on this line, `key = value`, is in TOML, if it is a number or truth value in another program's form.
fn as_toml_has_it(line: &str) -> Option<Value> {
    let (_, value) = line.split_once('=')?;
    let value = value.split_once('#').map_or(value, |(value, _)| value).trim();
    // What TOML does take is not what is wrong with the line.
    if toml_text::value(value).is_ok() { None } else { super::spelling::as_people_write(value) }
}

/// Parses a single value as it stands after `=` on a command line or in an environment variable: TOML where that
/// parses, otherwise the text itself.
pub(crate) fn parse_value(text: &str) -> Node {
    let lines = Lines::of("");
    let kind = toml_text::value(text)
        .ok()
        .and_then(|value| node_kind(value.get_ref(), &lines, std::path::Path::new("")).ok());
    Node { line: 1, kind: kind.unwrap_or_else(|| NodeKind::Leaf(Value::String(text.to_owned()))) }
}

fn entries(table: &DeTable<'_>, lines: &Lines, file: &std::path::Path) -> Result<Vec<(String, Node)>> {
    table
        .iter()
        .map(|(key, value)| {
            let line = lines.at(key.span().start);
            let kind = node_kind(value.get_ref(), lines, file).map_err(|error| error.line(line))?;
            Ok((key.get_ref().to_string(), Node { line, kind }))
        })
        .collect()
}

fn node_kind(value: &DeValue<'_>, lines: &Lines, file: &std::path::Path) -> Result<NodeKind> {
    let leaf = match value {
        DeValue::Table(table) => return Ok(NodeKind::Table(entries(table, lines, file)?)),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| {
                let kind = node_kind(item.get_ref(), lines, file)?;
                Ok(Node { line: lines.at(item.span().start), kind })
            });
            return Ok(NodeKind::Array(items.collect::<Result<_>>()?));
        }
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::Integer)
            .map_err(|_| Error::input(format!("{} does not fit 64 bits", number.as_str())).file(file))?,
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map(Value::Float)
            .map_err(|_| Error::input(format!("{} is no number", number.as_str())).file(file))?,
    };
    Ok(NodeKind::Leaf(leaf))
}

/// Byte offsets at which lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|&start| start <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_line() {
        let text = "a = 1\n[b]\nc = [1,\n 2]\n\"d.e\" = { f = -0x10 }\n";
        let text = text.replace("-0x10", "0x10");
        let root = parse("m.toml".as_ref(), &text).unwrap();
        let b = root.get("b").unwrap();
        assert_eq!(root.get("a").unwrap().line, 1);
        assert_eq!(b.get("c").unwrap().line, 3);
        let NodeKind::Array(items) = &b.get("c").unwrap().kind else { panic!() };
        assert_eq!(items[1].line, 4);
        let f = b.get("d.e").unwrap().get("f").unwrap();
        assert_eq!((f.line, f.value()), (5, Value::Integer(16)));
    }

    #[test]
    fn values_of_flags_are_toml_or_text() {
        assert_eq!(parse_value("12").value(), Value::Integer(12));
        assert_eq!(parse_value("false").value(), Value::Boolean(false));
        assert_eq!(parse_value("SSL").value(), Value::String("SSL".to_owned()));
        assert_eq!(parse_value("\"12\"").value(), Value::String("12".to_owned()));
        assert!(parse_value("{ path = \"a\" }").is_table());
        assert_eq!(parse_value("").value(), Value::String(String::new()));
    }
}
