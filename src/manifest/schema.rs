//! The manifest as a JSON schema, from the field table: editors complete and check manifests by it.

use serde_json::{Map, Value, json};

use super::field::{Applies, Fallback, Field, Kind};
use super::fields;

/// The schema (draft 2020-12). It knows every key and what each takes; what keys need of each other is for
/// `nanorun plan` to say.
pub fn json_schema() -> Value {
    let mut root = Map::new();
    for field in fields::all() {
        insert(&mut root, &field.path.split('.').collect::<Vec<_>>(), described(field));
    }
    let any_table = json!({ "type": "object" });
    if let Some(scorecard) = root.get_mut("scorecard").and_then(properties) {
        scorecard.insert(
            "control".to_owned(),
            json!({
                "type": "object",
                "description": "Values of matrix axes, by their paths: an arm is compared with the one that has these \
                                and is like it otherwise.",
            }),
        );
    }
    let fields = Value::Object(root.clone());
    root.insert(
        "matrix".to_owned(),
        json!({
            "type": "object",
            "description": "Axes: the path of a field and its values. `zip` is a list of axes of several keys, `exclude` \
                            of cells that are cut, `include` of cells that are added.",
            "properties": {
                "zip": { "type": "array", "items": any_table },
                "exclude": { "type": "array", "items": any_table },
                "include": { "type": "array", "items": any_table },
            },
            "additionalProperties": true,
        }),
    );
    root.insert(
        "profile".to_owned(),
        json!({
            "type": "object",
            "description": "Fields that `--profile NAME` lays over the rest.",
            "additionalProperties": {
                "type": "object",
                "properties": { "matrix": any_table },
                "allOf": [{ "$ref": "#/$defs/fields" }],
            },
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nanorun manifest",
        "type": "object",
        "properties": root,
        "additionalProperties": false,
        "required": ["name", "upstream", "run", "budget", "schedule"],
        "$defs": { "fields": { "type": "object", "properties": fields } },
    })
}

/// Puts a field where its path says. A path may be both a value and a table: `data.tokenizer`.
fn insert(table: &mut Map<String, Value>, path: &[&str], schema: Value) {
    let Some((&key, rest)) = path.split_first() else { return };
    let known = table.remove(key);
    let schema = if rest.is_empty() {
        match known {
            Some(section) => either(&schema, &section),
            None => schema,
        }
    } else {
        let mut entry = known.unwrap_or_else(|| json!({}));
        if properties(&mut entry).is_none() {
            let section = json!({ "type": "object", "properties": {}, "additionalProperties": false });
            entry =
                if entry.as_object().is_some_and(Map::is_empty) { section } else { either(&entry, &section) };
        }
        if let Some(section) = properties(&mut entry) {
            insert(section, rest, schema);
        }
        entry
    };
    table.insert(key.to_owned(), schema);
}

/// A value or a table.
fn either(value: &Value, section: &Value) -> Value {
    json!({ "anyOf": [value, section] })
}

/// The keys of a table, which may be one of two alternatives.
fn properties(schema: &mut Value) -> Option<&mut Map<String, Value>> {
    if schema.get("properties").is_some() {
        return schema.get_mut("properties")?.as_object_mut();
    }
    schema.get_mut("anyOf")?.as_array_mut()?.iter_mut().find_map(properties)
}

/// What a field takes, and what it means.
fn described(field: &Field) -> Value {
    let mut schema = takes(field.kind);
    let mut text = field.doc.to_owned();
    if !field.unit.is_empty() {
        text = format!("{text} Unit: {}.", field.unit);
    }
    if field.applies != Applies::Always {
        text = format!("{text} Only with {}.", field.applies.text());
    }
    match field.default {
        Fallback::Required => text += " Required.",
        Fallback::Absent(meaning) => text = format!("{text} Left out: {meaning}."),
        Fallback::Value(_) | Fallback::Maybe(_) => {}
    }
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), text.into());
    }
    schema
}

fn takes(kind: Kind) -> Value {
    let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int(low, high) => integer(low, high),
        Kind::IntOr(low, high, word) => json!({ "anyOf": [integer(low, high), { "const": word }] }),
        Kind::Float(low, high) => number(low, high),
        Kind::FloatOrFalse(low, high) => json!({ "anyOf": [number(low, high), { "const": false }] }),
        Kind::IntsOrFalse => {
            let items = json!({ "type": "integer", "minimum": 0 });
            json!({ "anyOf": [{ "type": "array", "items": items, "minItems": 1 }, { "const": false }] })
        }
        Kind::Betas => {
            let beta = json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 });
            json!({ "type": "array", "items": beta, "minItems": 2, "maxItems": 2 })
        }
        Kind::Text => json!({ "type": "string", "minLength": 1 }),
        Kind::Texts => {
            let one = json!({ "type": "string", "minLength": 1 });
            json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
        }
        Kind::Tables(parts) => {
            let properties: Map<String, Value> = parts
                .iter()
                .map(|part| {
                    let mut schema = takes(part.kind);
                    schema["description"] = part.doc.into();
                    (part.name.to_owned(), schema)
                })
                .collect();
            let required: Vec<&str> =
                parts.iter().filter(|part| part.required).map(|part| part.name).collect();
            let one = json!({
                "type": "object",
                "properties": properties,
                "additionalProperties": false,
                "required": required,
            });
            json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
        }
        Kind::Word(words) => json!({ "enum": words }),
        Kind::WindowPattern => text("^[SsLl]+$"),
        Kind::Commit => text("^[0-9a-fA-F]{7,40}$"),
        Kind::Device => text("^(cpu|cuda:[0-9]{1,3})$"),
        Kind::Name => text("^[A-Za-z0-9][A-Za-z0-9_.-]*$"),
        Kind::Plain => text("^[A-Za-z0-9][A-Za-z0-9_.,:+/=@-]*$"),
        Kind::TimeLimit => text("^([0-9]+-[0-9]+(:[0-9]+){0,2}|[0-9]+(:[0-9]+){0,2})$"),
        Kind::Memory => text("^[0-9]+[KMGT]$"),
        Kind::Options => {
            let one = text("^--[A-Za-z]");
            json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
        }
        Kind::Digests => {
            json!({ "type": "object", "additionalProperties": { "type": "string", "pattern": "^[0-9a-fA-F]{64}$" } })
        }
    }
}

fn integer(low: i64, high: i64) -> Value {
    let mut schema = json!({ "type": "integer", "minimum": low });
    if high != i64::MAX {
        schema["maximum"] = high.into();
    }
    schema
}

fn number(low: f64, high: f64) -> Value {
    let mut schema = json!({ "type": "number" });
    if low == f64::MIN_POSITIVE {
        schema["exclusiveMinimum"] = 0.into();
    } else if low != f64::MIN {
        schema["minimum"] = low.into();
    }
    if high != f64::MAX {
        schema["maximum"] = high.into();
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema of the value at a path.
    fn at(path: &str) -> Value {
        let mut schema = json_schema();
        for key in path.split('.') {
            schema = properties(&mut schema).unwrap_or_else(|| panic!("{path}")).remove(key).unwrap();
        }
        schema
    }

    /// Editors read the one in the repository: `docs/manifest.schema.json`, written by `nanorun fields --schema`.
    #[test]
    fn the_one_in_the_repository_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manifest.schema.json");
        let here = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
        if std::env::var_os("NANORUN_WRITE_SCHEMA").is_some() {
            std::fs::write(path, &here).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == here,
            "write it anew: nanorun fields --schema > {path}"
        );
    }

    #[test]
    fn every_field_is_where_its_path_says() {
        for field in fields::all() {
            let schema = at(field.path).to_string();
            let doc = json!(field.doc).to_string();
            assert!(schema.contains(doc.trim_matches('"')), "{}: {schema}", field.path);
        }
        assert_eq!(at("schedule.warmdown")["enum"][1], "sqrt");
        let tokenizer = at("data.tokenizer");
        assert!(tokenizer.to_string().contains("vocab_size") && tokenizer["anyOf"].is_array(), "{tokenizer}");
    }
}
