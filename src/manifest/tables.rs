//! Fields that take tables: one, or a list of them.

use toml::{Table, Value};

use super::field::{Kind, Part};
use super::layers::brief;
use super::spelling::{nearest, nearest_value};
use crate::error::{Error, Result};

/// The value as the field keeps it: a list of tables, each with the parts that were written.
///
/// # Errors
/// What is no table, a key that is none of the parts, one that is missing, a value that its part does not take.
pub(super) fn settle(path: &str, parts: &[Part], value: &Value) -> Result<Value> {
    let expected = || format!("a table or a list of tables of {}", names(parts));
    let wrong = |what: String| Error::input(what).key(path).expected(expected());
    let tables = match value {
        Value::Table(_) => std::slice::from_ref(value),
        Value::Array(tables) if !tables.is_empty() => tables,
        other => return Err(wrong(format!("{path} cannot be {}", brief(other)))),
    };
    let each = tables.iter().enumerate().map(|(at, table)| {
        let path = if tables.len() == 1 { path.to_owned() } else { format!("{path}[{at}]") };
        match table {
            Value::Table(table) => one(&path, parts, table).map(Value::Table),
            other => Err(wrong(format!("{path} cannot be {}", brief(other)))),
        }
    });
    each.collect::<Result<_>>().map(Value::Array)
}

fn one(path: &str, parts: &[Part], table: &Table) -> Result<Table> {
    let mut settled = Table::new();
    for (key, value) in table {
        let Some(part) = parts.iter().find(|part| part.name == key) else {
            let error = Error::input(format!("unknown key `{key}`")).key(format!("{path}.{key}"));
            let error = error.expected(names(parts));
            return Err(match nearest(key, parts.iter().map(|part| part.name)) {
                Some(meant) => error.help(format!("did you mean `{meant}`?")),
                None => error,
            });
        };
        let Some(accepted) = part.kind.accept(value) else {
            let error = Error::input(format!("{path}.{key} cannot be {}", brief(value)))
                .key(format!("{path}.{key}"))
                .expected(part.kind.expected());
            return Err(match nearest_value(part.kind, value) {
                Some(near) => error.help(near),
                None => error,
            });
        };
        settled.insert(key.clone(), accepted);
    }
    match parts.iter().find(|part| part.required && !settled.contains_key(part.name)) {
        None => Ok(settled),
        Some(part) => Err(Error::input(format!("{path} has no {}", part.name))
            .key(format!("{path}.{}", part.name))
            .expected(format!("{}: {}", part.name, part.kind.expected()))),
    }
}

fn names(parts: &[Part]) -> String {
    parts.iter().map(|part| part.name).collect::<Vec<_>>().join(", ")
}

/// Whether the field takes it.
pub(super) fn accept(parts: &[Part], value: &Value) -> Option<Value> {
    settle("", parts, value).ok()
}

/// The parts in words, for the reference.
pub(super) fn described(kind: Kind) -> String {
    let Kind::Tables(parts) = kind else { return String::new() };
    let each = parts.iter().map(|part| {
        let required = if part.required { ", required" } else { "" };
        format!(" `{}` ({}{required}): {}", part.name, part.kind.expected(), part.doc)
    });
    each.collect()
}
