//! Selecting and varying: what `--only`, `--set` and the environment make of a manifest's experiment.
//!
//! An experiment's directory is the experiment's. What only picks cells of the manifest ([`Condition`]) is a view on it.
//! What departs from the manifest in something that enters a key or a verdict ([`Variation`]) goes to a directory of its
//! own, `<name>~<8 hex>`, named by the departures themselves: the same ones give the same directory, in whatever order
//! and by whatever means they are said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use toml::Value;

use super::effect::{Effect, effect};
use super::field::Context;
use super::fields;
use super::layers::{self, Layer, Origin};
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::upstream;

/// What `data.shards` calls the texts that come with nanorun.
const EMBEDDED: &str = "embedded";

/// What fields are in a cell, by path.
pub(super) type Values = BTreeMap<String, Value>;

/// In what an experiment departs from its manifest, by field; none is a value that the manifest has and this has not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variation(BTreeMap<String, Option<Value>>);

impl Variation {
    /// Of what lies over the manifest, given the cells as they are with it and what the fields are `with` and `without`
    /// it in each. `axes` are the paths that the manifest's matrix sets.
    pub(super) fn of(over: &Layer, axes: &BTreeSet<String>, cells: &[(Values, Values)]) -> Self {
        let mut departures = BTreeMap::new();
        for path in over.keys() {
            let group = fields::group_of(path).map_or(&[][..], |group| group.members);
            let decides_an_axis = axes.contains(path) || group.iter().any(|path| axes.contains(*path));
            let mut entering: Vec<(&str, Option<Value>)> = Vec::new();
            for (without, with) in cells {
                // A member of a group takes the place of the others.
                for path in std::iter::once(path.as_str()).chain(group.iter().copied()) {
                    let (before, now) = (entering_value(path, without), entering_value(path, with));
                    if before != now && !entering.iter().any(|(known, _)| *known == path) {
                        entering.push((path, now));
                    }
                }
            }
            if decides_an_axis && entering.is_empty() {
                // It takes cells away, whatever it decides.
                entering.push((path, over.get(path).map(|entry| entry.value.clone())));
            }
            departures.extend(entering.into_iter().map(|(path, value)| (path.to_owned(), value)));
        }
        Self(departures)
    }

    /// Whether the experiment is the manifest's own.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Eight hex digits that name it; they depend on the departures alone.
    pub fn hex(&self) -> String {
        let mut text = "nanorun variation 1\n".to_owned();
        for (path, value) in &self.0 {
            text.push_str(path);
            match value {
                Some(value) => {
                    text.push_str(" = ");
                    canonical(value, &mut text);
                }
                None => text.push_str(" is left out"),
            }
            text.push('\n');
        }
        let mut hex = Digest::of(text.as_bytes()).to_string();
        hex.truncate(8);
        hex
    }

    /// The departures, as people write them.
    pub fn departures(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(path, value)| match value {
                Some(value) => format!("{path} = {}", layers::brief(value)),
                None => format!("{path} left out"),
            })
            .collect()
    }
}

/// The value that enters a key or a verdict; none where there is none.
fn entering_value(path: &str, values: &Values) -> Option<Value> {
    let value = values.get(path)?;
    match effect(path)? {
        effect if effect.varies() => Some(value.clone()),
        // The embedded corpus is no place: it says which texts they are.
        Effect::Place if path == "data.shards" => {
            let texts = match value {
                Value::Array(texts) => texts.as_slice(),
                value => std::slice::from_ref(value),
            };
            let embedded = texts.iter().any(|text| text.as_str() == Some(EMBEDDED));
            Some(Value::String(if embedded { EMBEDDED } else { "files" }.to_owned()))
        }
        // A GPU and a CPU compute other bits; one GPU stands for another, and only tch has a choice.
        Effect::Place if path == "run.device" => {
            let backend = values.get("run.backend").and_then(Value::as_str);
            let kind = value.as_str()?.split(':').next().unwrap_or_default();
            Some(Value::String(if backend == Some("tch") { kind } else { "cpu" }.to_owned()))
        }
        _ => None,
    }
}

/// A value in the one form that directories are named by. It is part of what results are found by, so it stays.
fn canonical(value: &Value, text: &mut String) {
    let each = |items: &mut dyn Iterator<Item = (Option<&String>, &Value)>, text: &mut String| {
        for (at, (name, item)) in items.enumerate() {
            if at > 0 {
                text.push(',');
            }
            if let Some(name) = name {
                let _ = write!(text, "{}:", serde_json::Value::from(name.as_str()));
            }
            canonical(item, text);
        }
    };
    match value {
        Value::String(string) => {
            let _ = write!(text, "{}", serde_json::Value::from(string.as_str()));
        }
        Value::Integer(number) => {
            let _ = write!(text, "{number}");
        }
        Value::Float(number) => {
            let _ = write!(text, "{number:?}");
        }
        Value::Boolean(flag) => {
            let _ = write!(text, "{flag}");
        }
        Value::Datetime(time) => {
            let _ = write!(text, "{time}");
        }
        Value::Array(items) => {
            text.push('[');
            each(&mut items.iter().map(|item| (None, item)), text);
            text.push(']');
        }
        Value::Table(table) => {
            let sorted: BTreeMap<&String, &Value> = table.iter().collect();
            text.push('{');
            each(&mut sorted.into_iter().map(|(name, item)| (Some(name), item)), text);
            text.push('}');
        }
    }
}

/// What picks cells: a field and the values of which a cell must have one.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The field.
    pub path: String,
    /// Any of these.
    pub values: Vec<Value>,
    origin: Origin,
}

impl Condition {
    /// Those of `--only` arguments: several values of one field are alternatives, several fields are asked for together.
    ///
    /// # Errors
    /// What is no field and value.
    pub fn of(only: &[String]) -> Result<Vec<Self>> {
        conditions(only, Layer::new())
    }

    /// Whether a cell with this value of the field is picked.
    pub fn picks(&self, value: Option<&Value>) -> bool {
        value.is_some_and(|value| self.values.iter().any(|one| same(&self.path, one, value)))
    }

    /// As people write it.
    pub fn text(&self) -> String {
        let values: Vec<String> = self.values.iter().map(layers::brief).collect();
        format!("{} = {}", self.path, values.join(" or "))
    }

    /// The error of conditions that leave no cell; `there` are the values that cells have.
    pub fn picks_nothing(&self, there: &[Value]) -> Error {
        let error =
            Error::input(format!("no cell of the matrix has {}", self.text())).key(self.path.as_str());
        let there: Vec<String> = there.iter().map(layers::brief).collect();
        self.origin.locate(match there.as_slice() {
            [] => error.expected("a field that the cells have"),
            there => error.expected(format!("what a cell has: {}", there.join(", "))),
        })
    }
}

/// Whether two values of a field are one; commits may be written with fewer digits.
pub(super) fn same(path: &str, a: &Value, b: &Value) -> bool {
    let commit = |value: &Value| upstream::find(value.as_str()?).ok().map(|recipe| recipe.commit);
    a == b || path == "upstream.commit" && commit(a).is_some() && commit(a) == commit(b)
}

/// The conditions of `--only` arguments and of what `--set` and the environment say of axes (`views`): several values of
/// one field are alternatives, several fields are asked for together.
pub(super) fn conditions(only: &[String], views: Layer) -> Result<Vec<Condition>> {
    let mut conditions: Vec<Condition> = Vec::new();
    for argument in only {
        for (path, entry) in layers::from_only(argument)? {
            match conditions.iter_mut().find(|known| known.path == path) {
                Some(known) => known.values.push(entry.value),
                None => conditions.push(Condition { path, values: vec![entry.value], origin: entry.origin }),
            }
        }
    }
    // These are asked for beside the others, also where they are of one field.
    conditions.extend(views.into_iter().map(|(path, entry)| Condition {
        path,
        values: vec![entry.value],
        origin: entry.origin,
    }));
    Ok(conditions)
}

/// What the fields of `asked` are in a cell: written, else by its recipe. Nothing is checked: of what does not settle,
/// the values that can be told.
pub(super) fn values(base: &Layer, overrides: &Layer, asked: &BTreeSet<&str>) -> Values {
    let mut set = base.clone();
    layers::lay_over(&mut set, overrides);
    let word = |path: &str| set.get(path).and_then(|entry| entry.value.as_str());
    let (model, optimizer) = super::kinds(word("model.kind"), word("optimizer.kind"));
    let recipe = word("upstream.commit").and_then(|commit| upstream::find(commit).ok());
    let context = Context { recipe: recipe.unwrap_or_else(upstream::newest), model, optimizer };
    let written = set.iter().map(|(path, entry)| (path.as_str(), entry.value.clone()));
    // A field that this model or optimizer does not have is nothing in it.
    let has = |path: &str| fields::find(path).is_none_or(|field| field.applies.to(model, optimizer));
    let mut values: Values = layers::defaults(&context, &set)
        .into_iter()
        .filter(|(path, _)| asked.contains(path) && has(path))
        .chain(written)
        .filter(|(path, _)| asked.contains(path))
        .map(|(path, value)| (path.to_owned(), value))
        .collect();
    if let (Some(recipe), Some(commit)) = (recipe, values.get_mut("upstream.commit")) {
        *commit = Value::String(recipe.commit.to_owned());
    }
    values
}

/// The fields whose values say whether `over` varies an experiment.
pub(super) fn concerned(over: &Layer) -> BTreeSet<&str> {
    let group = |path: &str| fields::group_of(path).map_or(&[][..], |group| group.members);
    // What a device is depends on the backend.
    let backend = over.contains_key("run.device").then_some("run.backend");
    let paths =
        over.keys().flat_map(|path| std::iter::once(path.as_str()).chain(group(path).iter().copied()));
    paths.chain(backend).collect()
}
