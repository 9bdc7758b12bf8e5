//! Layers of a manifest: flattened to key paths, checked field by field, laid over each other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use figment::Figment;
use figment::providers::Serialized;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::document::Node;
use super::field::{Context, Fallback, Field, Kind};
use super::fields::{self, GROUPS, Group};
use super::spelling::nearest_field;
use crate::error::{Error, Result};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// On a line of the manifest.
    File(PathBuf, usize),
    /// In an environment variable.
    Env(String),
    /// In a `--set` argument.
    Set(String),
    /// In an `--only` argument.
    Only(String),
}

impl Origin {
    /// Adds the place to an error.
    pub(crate) fn locate(&self, error: Error) -> Error {
        match self {
            Self::File(file, line) => error.file(file).line(*line),
            Self::Env(name) => error.file(format!("environment variable {name}")),
            Self::Set(argument) => error.file(format!("--set {argument}")),
            Self::Only(argument) => error.file(format!("--only {argument}")),
        }
    }

    /// The same source, on another line where it has lines.
    fn on(&self, line: usize) -> Self {
        match self {
            Self::File(file, _) => Self::File(file.clone(), line),
            other => other.clone(),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As its field keeps it.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
}

/// Fields by key path.
pub(crate) type Layer = BTreeMap<String, Entry>;

/// Collects the fields under `node` into `layer`, checking each against its field. Keys in `skip` at the top are
/// left to others.
pub(crate) fn flatten(
    node: &Node,
    prefix: &str,
    origin: &Origin,
    skip: &[&str],
    layer: &mut Layer,
) -> Result<()> {
    for (key, child) in node.entries() {
        if prefix.is_empty() && skip.contains(&key.as_str()) {
            continue;
        }
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let origin = origin.on(child.line);
        if path == "scorecard.control" {
            continue;
        }
        if child.is_table() && fields::is_section(&path) {
            flatten(child, &path, &origin, &[], layer)?;
        } else {
            let value = check(&path, &child.value(), &origin)?;
            if layer.insert(path.clone(), Entry { value, origin: origin.clone() }).is_some() {
                return Err(origin.locate(Error::input(format!("{path} is set twice")).key(path)));
            }
        }
    }
    Ok(())
}

/// The value as the field at `path` keeps it, or an error that says what was expected.
pub(crate) fn check(path: &str, value: &Value, origin: &Origin) -> Result<Value> {
    let Some(field) = fields::find(path) else {
        return Err(origin.locate(unknown_key(path, value)));
    };
    if let Kind::Tables(parts) = field.kind {
        return super::tables::settle(path, parts, value).map_err(|error| origin.locate(error));
    }
    field.kind.accept(value).ok_or_else(|| origin.locate(mismatch(field, value)))
}

/// An error for a key that names no field.
pub(crate) fn unknown_key(path: &str, value: &Value) -> Error {
    if fields::is_section(path) {
        let what = format!("{path} is a table, but {value} stands there");
        return Error::input(what).key(path).expected(format!("fields of [{path}]"));
    }
    let error = Error::input(format!("unknown key `{path}`")).key(path);
    match nearest_field(path) {
        Some(meant) => error.help(format!("did you mean `{meant}`?")),
        None => error.help("`nanorun fields` lists all of them"),
    }
}

fn mismatch(field: &Field, value: &Value) -> Error {
    let error = Error::input(format!("{} cannot be {}", field.path, brief(value)));
    let error = error.key(field.path).expected(field.kind.expected());
    match super::spelling::nearest_value(field.kind, value) {
        Some(near) => error.help(near),
        None => error,
    }
}

/// A value as an error shows it: on one line, not too long.
pub(crate) fn brief(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    if text.chars().count() > 60 { format!("{}...", text.chars().take(57).collect::<String>()) } else { text }
}

/// At most one member of each exclusive group in one layer.
pub(crate) fn check_groups(layer: &Layer) -> Result<()> {
    for group in GROUPS {
        let mut set = group.members.iter().filter_map(|path| layer.get_key_value(*path));
        if let (Some((first, _)), Some((second, entry))) = (set.next(), set.next()) {
            let what = format!("{first} and {second} exclude each other");
            let error = Error::input(what).key(second.as_str());
            return Err(entry.origin.locate(
                error
                    .expected(format!("one {}", group.name))
                    .help(format!("keep {first} or {second} and remove the other")),
            ));
        }
    }
    Ok(())
}

/// Lays `stronger` over `weaker`: a member of an exclusive group clears the others of it, and what goes with them.
pub(crate) fn lay_over(weaker: &mut Layer, stronger: &Layer) {
    for group in GROUPS {
        if group.members.iter().any(|path| stronger.contains_key(*path)) {
            clear(weaker, group);
        }
    }
    weaker.extend(stronger.iter().map(|(path, entry)| (path.clone(), entry.clone())));
}

fn clear(layer: &mut Layer, group: &Group) {
    for path in group.members.iter().chain(group.companions) {
        layer.remove(*path);
    }
    if let Some(pin) = group.pin
        && let Some(Value::Table(pins)) = layer.get_mut("data.sha256").map(|entry| &mut entry.value)
    {
        pins.remove(pin);
    }
}

/// What the recipe and the defaults of `context` say, where `set` does not.
pub(crate) fn defaults(context: &Context, set: &Layer) -> BTreeMap<&'static str, Value> {
    fields::all()
        .filter(|field| {
            fields::group_of(field.path)
                .is_none_or(|group| !group.members.iter().any(|path| set.contains_key(*path)))
        })
        .filter_map(|field| {
            let value = match field.default {
                Fallback::Required | Fallback::Absent(_) => None,
                Fallback::Value(value) => Some(value(context)),
                Fallback::Maybe(value) => value(context),
            };
            value.map(|value| (field.path, value))
        })
        .collect()
}

/// Merges layers of key paths, weakest first, into a typed value.
pub(crate) fn extract<T: DeserializeOwned>(layers: &[BTreeMap<&str, Value>]) -> Result<T> {
    let merged = layers.iter().fold(Figment::new(), |figment, layer| {
        figment.merge(Serialized::defaults(nest(layer.iter().map(|(path, value)| (*path, value)))))
    });
    // Every value was checked against its field, so this is a hole in the field table.
    merged.extract().map_err(|error| Error::internal(format!("the manifest does not settle: {error}")))
}

/// Key paths as nested tables.
fn nest<'a>(values: impl Iterator<Item = (&'a str, &'a Value)>) -> Table {
    let mut root = Table::new();
    for (path, value) in values {
        let (sections, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut root;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            let slot = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if !slot.is_table() {
                *slot = Value::Table(Table::new());
            }
            let Value::Table(inner) = slot else { return root };
            table = inner;
        }
        table.insert(last.to_owned(), value.clone());
    }
    root
}

/// The environment's layer: `NANORUN_A__B_C` is `a.b_c`. Variables without `__` are not the manifest's.
pub(crate) fn from_env(variables: &[(String, String)]) -> Result<Layer> {
    let mut layer = Layer::new();
    let mut variables: Vec<_> = variables.iter().filter(|(name, _)| name.starts_with("NANORUN_")).collect();
    variables.sort();
    for (name, text) in variables {
        if let Some(path) = env_path(name) {
            assign(&path, text, &Origin::Env(name.clone()), &mut layer)?;
        }
    }
    check_groups(&layer)?;
    Ok(layer)
}

/// The field that an environment variable sets, if it is one of the manifest's.
fn env_path(name: &str) -> Option<String> {
    let path = name.strip_prefix("NANORUN_")?.to_ascii_lowercase().replace("__", ".");
    (path.contains('.') || fields::find(&path).is_some()).then_some(path)
}

/// The variables among `variables` that set manifest fields.
pub(crate) fn env_fields(variables: &[(String, String)]) -> BTreeMap<String, String> {
    variables.iter().filter(|(name, _)| env_path(name).is_some()).cloned().collect()
}

/// The layer of `--set path=value` arguments; of two for one path the later wins.
pub(crate) fn from_sets(arguments: &[String]) -> Result<Layer> {
    let mut layer = Layer::new();
    for argument in arguments {
        let origin = Origin::Set(argument.clone());
        let Some((path, text)) = argument.split_once('=') else {
            return Err(origin.locate(Error::input("an argument of --set has no `=`").expected("PATH=VALUE")));
        };
        let mut single = Layer::new();
        assign(path.trim(), text.trim(), &origin, &mut single)?;
        layer.extend(single);
    }
    check_groups(&layer)?;
    Ok(layer)
}

/// The fields that an `--only path=value` argument asks for.
pub(crate) fn from_only(argument: &str) -> Result<Layer> {
    let origin = Origin::Only(argument.to_owned());
    let Some((path, text)) = argument.split_once('=') else {
        return Err(origin.locate(Error::input("an argument of --only has no `=`").expected("PATH=VALUE")));
    };
    let mut layer = Layer::new();
    assign(path.trim(), text.trim(), &origin, &mut layer)?;
    if let Some(path) = layer.keys().find(|path| !fields::is_sweepable(path)) {
        let error = Error::input(format!("{path} tells no cells apart")).key(path.as_str());
        return Err(origin.locate(error.expected("a field that decides something about a run")));
    }
    Ok(layer)
}

/// Sets one path, or the fields of a table there, from the text of a value.
fn assign(path: &str, text: &str, origin: &Origin, layer: &mut Layer) -> Result<()> {
    let node = super::document::parse_value(text);
    if node.is_table() && fields::is_section(path) {
        return flatten(&node, path, origin, &[], layer);
    }
    // `--set name=12` means the text.
    let is_text = fields::find(path).is_some_and(|field| field.kind.is_text());
    let value = match node.value() {
        Value::String(text) if !is_text => {
            super::spelling::as_people_write(&text).unwrap_or(Value::String(text))
        }
        value @ (Value::Array(_) | Value::String(_)) => value,
        _ if is_text => Value::String(text.to_owned()),
        value => value,
    };
    let value = check(path, &value, origin)?;
    layer.insert(path.to_owned(), Entry { value, origin: origin.clone() });
    Ok(())
}
