//! The parts of a page, in the order in which a reader asks: what was asked, what was found and how sure that is, how
//! it went, what each run is, what was read, how to get it again, and what it does not say.

mod arms;
mod curves;
mod data;
mod head;
mod limits;
mod runs;
mod samples;
mod scaling;
mod again;

use super::markup::Markup;
use super::page::{Figures, NARROW, WIDE};
use super::svg::Drawing;
use super::view::View;

/// Adds all of them.
pub(super) fn all(page: &mut Markup, view: &View<'_>, figures: &Figures) {
    head::head(page, view);
    page.raw("<main>\n");
    arms::differences(page, figures);
    arms::arms(page, view);
    scaling::scaling(page, figures);
    curves::curves(page, view, figures);
    runs::runs(page, view);
    samples::samples(page, view);
    data::data(page, view);
    again::again(page, view);
    limits::limits(page, view);
    page.raw("</main>\n");
}

/// A section's heading.
fn heading(page: &mut Markup, id: &str, title: &str) {
    page.with_text("h2", &[("id", id)], title).raw("\n");
}

/// A drawing for wide screens and paper, and one for phones.
fn drawings(page: &mut Markup, of: &dyn Fn(f64) -> Drawing) {
    for (class, width) in [("for-wide", WIDE), ("for-narrow", NARROW)] {
        page.open("div", &[("class", class)]).append(&of(width).inline()).raw("</div>\n");
    }
}

/// The name of an experiment where there are several.
fn whose(page: &mut Markup, view: &View<'_>, subject: usize) {
    if view.is_comparison()
        && let Some(subject) = view.subjects.get(subject)
    {
        page.raw("<h3>").name(&subject.name).raw("</h3>\n");
    }
}

/// A count with its noun.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Values that runs share, each once and in their order.
fn distinct<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}
