//! The manifest reference, as Markdown, from the field table.

use std::fmt::Write as _;

use toml::Value;

use super::field::{Applies, Context, Fallback, Field};
use super::fields;
use super::settings::{ModelKind, OptimizerKind};
use crate::upstream::RECIPES;

/// The reference of all fields: a table a section.
pub fn markdown() -> String {
    let mut text = String::new();
    let mut section = None;
    let mut all: Vec<&Field> = fields::all().collect();
    // Sections in the order of their first field.
    let order: Vec<&str> = all.iter().map(|field| section_of(field)).collect();
    all.sort_by_key(|field| order.iter().position(|name| *name == section_of(field)));
    for field in all {
        if section != Some(section_of(field)) {
            section = Some(section_of(field));
            let title = match section_of(field) {
                "" => "Top level".to_owned(),
                name => format!("`[{name}]`"),
            };
            let space = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(
                text,
                "{space}## {title}\n\n| field | takes | left out | meaning |\n|---|---|---|---|"
            );
        }
        let unit = if field.unit.is_empty() { String::new() } else { format!(", {}", field.unit) };
        let scope = match field.applies {
            Applies::Always => String::new(),
            applies => format!(" Only with {}.", applies.text()),
        };
        let _ = writeln!(
            text,
            "| `{}` | {}{unit} | {} | {}{}{} |",
            field.path,
            escape(&field.kind.expected()),
            escape(&left_out(field)),
            escape(field.doc),
            escape(&super::tables::described(field.kind)),
            escape(&scope)
        );
    }
    text
}

fn section_of(field: &Field) -> &'static str {
    field.path.split_once('.').map_or("", |(section, _)| section)
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

/// What a field is when left out: one value, or one from each commit that changes it, and the small models'.
fn left_out(field: &Field) -> String {
    match field.default {
        Fallback::Required => "**required**".to_owned(),
        Fallback::Absent(meaning) => meaning.to_owned(),
        Fallback::Value(_) | Fallback::Maybe(_) => {
            let mut texts = Vec::new();
            let gpt = by_commit(field, ModelKind::Gpt, OptimizerKind::MuonAdamw);
            let adamw = by_commit(field, ModelKind::Gpt, OptimizerKind::Adamw);
            let small = by_commit(field, ModelKind::Microgpt, OptimizerKind::Adamw);
            let bigram = by_commit(field, ModelKind::Bigram, OptimizerKind::Adamw);
            let sgd = by_commit(field, ModelKind::Gpt, OptimizerKind::Sgd);
            for (label, value) in
                [("", gpt), ("adamw: ", adamw), ("microgpt: ", small), ("bigram: ", bigram), ("sgd: ", sgd)]
            {
                let Some(value) = value else { continue };
                if !texts.iter().any(|(_, known): &(&str, String)| *known == value) {
                    texts.push((label, value));
                }
            }
            texts.into_iter().map(|(label, value)| format!("{label}{value}")).collect::<Vec<_>>().join("; ")
        }
    }
}

fn by_commit(field: &Field, model: ModelKind, optimizer: OptimizerKind) -> Option<String> {
    if !field.applies.to(model, optimizer) {
        return None;
    }
    let mut changes: Vec<(&str, Option<Value>)> = Vec::new();
    for recipe in &RECIPES {
        let context = Context { recipe, model, optimizer };
        let value = match field.default {
            Fallback::Value(value) => Some(value(&context)),
            Fallback::Maybe(value) => value(&context),
            Fallback::Required | Fallback::Absent(_) => None,
        };
        if changes.last().is_none_or(|(_, last)| *last != value) {
            changes.push((recipe.short(), value));
        }
    }
    let show =
        |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), |value| format!("`{value}`"));
    match changes.as_slice() {
        [(_, None)] => None,
        [(_, value)] => Some(show(value)),
        changes => {
            let texts = changes.iter().map(|(commit, value)| format!("{} from {commit}", show(value)));
            Some(texts.collect::<Vec<_>>().join(", "))
        }
    }
}
