//! How to get the same hashes.

use super::super::markup::Markup;
use super::super::view::View;
use super::{distinct, heading, whose};

/// Bytes of a manifest that stand in a page.
const MANIFEST: usize = 60_000;

pub(super) fn again(page: &mut Markup, view: &View<'_>) {
    heading(page, "again", "Do it again");
    for (place, subject) in view.subjects.iter().enumerate() {
        whose(page, view, place);
        page.with_text("pre", &[("class", "command"), ("tabindex", "0")], &subject.command).raw("\n");
        let ended = || subject.runs.iter().filter(|run| run.is_planned() && run.is_finished());
        let classes = distinct(ended().map(|run| {
            format!("{} (numerics version {})", run.row.environment_class, run.row.numerics_version)
        }));
        let mut text = format!(
            "With nanorun {} and the manifest below this trains every run again, to the result hashes above",
            subject.nanorun
        );
        if !classes.is_empty() {
            text = format!("{text}, on any machine of the environment class {}", classes.join(" or "));
        }
        text.push_str(
            ": on any number of threads, interrupted and resumed anywhere. Shards and tokenizer have to be those whose \
             hash stands under Data.",
        );
        page.with_text("p", &[], &text).raw("\n");
        page.raw("<details>").with_text("summary", &[], "The manifest").raw("\n");
        if subject.manifest.len() <= MANIFEST {
            page.with_text("pre", &[("class", "wide"), ("tabindex", "0")], &subject.manifest);
        } else {
            page.with_text("p", &[], "It is too long for this page: manifest.toml in the results is it.");
        }
        page.raw("</details>\n");
    }
}
