//! What was sampled from the runs.

use super::super::markup::Markup;
use super::super::view::View;
use super::heading;

/// Bytes of one run's samples, and of all of them, in a page.
const OF_A_RUN: usize = 6_000;
const OF_A_PAGE: usize = 120_000;

pub(super) fn samples(page: &mut Markup, view: &View<'_>) {
    heading(page, "samples", "Samples");
    let mut room = OF_A_PAGE;
    let (mut shown, mut left_out) = (0, 0);
    // The first seed of every arm first: with many runs, each arm is heard.
    for seed in 0..view.arms.iter().map(|arm| arm.runs.len()).max().unwrap_or(0) {
        for arm in &view.arms {
            let Some(run) = arm.runs.get(seed) else { continue };
            let Some(text) = run.samples.as_deref().filter(|text| !text.trim().is_empty()) else { continue };
            let text = cut(text.trim_end(), OF_A_RUN);
            if text.len() > room {
                left_out += 1;
                continue;
            }
            room -= text.len();
            shown += 1;
            let open = seed == 0 && shown <= 2;
            page.open("details", if open { &[("open", "")] } else { &[] });
            page.raw("<summary>")
                .name(&arm.name)
                .text(&format!(", seed {}", run.row.seed))
                .raw("</summary>\n");
            page.with_text("pre", &[("class", "wide"), ("dir", "auto"), ("tabindex", "0")], text)
                .raw("</details>\n");
        }
    }
    if shown == 0 {
        page.with_text("p", &[], "No run has samples.").raw("\n");
    } else {
        let note = "Sampled by the program at the end of each run, from fixed prompts: equal weights give equal samples.";
        page.with_text("p", &[("class", "quiet")], note).raw("\n");
    }
    if left_out > 0 {
        let note = format!("Samples of {left_out} further runs are in samples.txt of each.");
        page.with_text("p", &[("class", "quiet")], &note).raw("\n");
    }
}

/// At most so many bytes, and no part of a character.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}
