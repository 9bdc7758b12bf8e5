//! Text for people: aligned tables and strings that are safe to print, whatever a manifest or a file put into them.

mod printable;
mod size;
mod spark;
mod style;
mod table;
mod wrap;

pub(crate) use printable::{printable, shortened};
pub(crate) use size::size;
pub(crate) use spark::{extent, sparkline, sparkline_between};
pub(crate) use style::Tone;
pub(crate) use table::Table;
pub(crate) use wrap::wrapped;

/// How manifests and records spell one of several words, such as `best_fit_bos`; empty for what is no word.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    let spelled = serde_json::to_value(value).ok();
    spelled.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}
