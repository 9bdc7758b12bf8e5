//! What was asked, what was found, and the facts that anybody asks next.

use super::super::markup::Markup;
use super::super::scale::{duration, grouped, short};
use super::super::subject::{Run, Subject};
use super::super::verdicts::answers;
use super::super::view::View;
use super::distinct;

/// Where the page leads; a part that is not there is not in it.
const PLACES: [(&str, &str); 9] = [
    ("#differences", "Differences"),
    ("#arms", "Arms"),
    ("#scaling", "Scaling"),
    ("#curves", "Curves"),
    ("#runs", "Runs"),
    ("#samples", "Samples"),
    ("#data", "Data"),
    ("#again", "Do it again"),
    ("#limits", "What this does not say"),
];

pub(super) fn head(page: &mut Markup, view: &View<'_>) {
    page.raw("<header>\n");
    if view.is_comparison() {
        page.raw("<p class=\"eyebrow\">nanorun report</p>\n<h1>");
        let names = view.subjects.iter().map(|subject| subject.name.as_str()).collect::<Vec<_>>().join(", ");
        page.text("Comparison of ").name(&names).raw("</h1>\n");
        comparable(page, view);
    }
    for (place, subject) in view.subjects.iter().enumerate() {
        let question = subject.scorecard.question.as_deref();
        if view.is_comparison() {
            page.raw("<h2>").name(&subject.name).raw("</h2>\n");
            if let Some(question) = question {
                page.with_text("p", &[], question).raw("\n");
            }
        } else {
            page.raw("<p class=\"eyebrow\">nanorun report \u{b7} ").name(&subject.name).raw("</p>\n<h1>");
            page.name(question.unwrap_or(&subject.name)).raw("</h1>\n");
        }
        found(page, view, place, subject);
        facts(page, subject);
    }
    page.raw("<nav aria-label=\"Contents\"><ul>");
    let has_scaling = view.subjects.iter().any(|subject| subject.scorecard.scaling.is_some());
    for (target, name) in PLACES.into_iter().filter(|(target, _)| *target != "#scaling" || has_scaling) {
        page.raw("<li>").with_text("a", &[("href", target)], name).raw("</li>");
    }
    page.raw("</ul></nav>\n</header>\n");
}

/// The answer, and in what the page departs from the whole of a manifest.
fn found(page: &mut Markup, view: &View<'_>, place: usize, subject: &Subject) {
    for answer in answers(view, place) {
        page.with_text("p", &[("class", answer.tone.class())], &answer.text).raw("\n");
    }
    for note in subject.varied.iter().map(|what| format!("Departs from its manifest: {what}.")) {
        page.with_text("p", &[("class", "quiet")], &note).raw("\n");
    }
    if let Some(selection) = &subject.selection {
        let note = format!("{selection}. Means and verdicts are those over all runs of an arm.");
        page.with_text("p", &[("class", "quiet")], &note).raw("\n");
    }
}

fn facts(page: &mut Markup, subject: &Subject) {
    let planned: Vec<&Run> = subject.runs.iter().filter(|run| run.is_planned()).collect();
    let finished = planned.iter().filter(|run| run.is_finished()).count();
    let needless = planned.iter().filter(|run| run.is_needless()).count();
    let finished_of = match needless {
        0 => format!("{finished} of {}", planned.len()),
        needless => format!("{finished} of {}, {needless} not needed", planned.len()),
    };
    let needed = planned.iter().filter(|run| !run.is_needless());
    let seeds = distinct(needed.map(|run| run.row.seed)).len();
    let range =
        |values: Vec<u64>, show: &dyn Fn(u64) -> String| match (values.iter().min(), values.iter().max()) {
            (Some(least), Some(most)) if least != most => format!("{} to {}", show(*least), show(*most)),
            (Some(one), _) => show(*one),
            _ => "\u{2013}".to_owned(),
        };
    let of = |value: fn(&Run) -> u64| planned.iter().map(|run| value(run)).collect::<Vec<_>>();
    let words = |value: fn(&Run) -> String| distinct(planned.iter().map(|run| value(run))).join(", ");
    // A step that runs share was paid for once; who reads this asks what it cost.
    let seconds: f64 = planned.iter().map(|run| run.row.train_seconds + run.row.eval_seconds).sum();
    let facts = [
        ("runs finished", finished_of),
        ("seeds", seeds.to_string()),
        ("steps", range(of(|run| run.row.steps), &grouped)),
        ("tokens a run", range(of(|run| run.row.steps * run.batch), &|tokens| short(tokens as f64))),
        ("parameters", range(of(|run| run.row.parameters), &|count| short(count as f64))),
        ("recipe", words(|run| run.row.commit.chars().take(7).collect())),
        ("computed on", words(computed_on)),
        ("time in runs", if seconds > 0.0 { duration(seconds) } else { "\u{2013}".to_owned() }),
    ];
    page.raw("<dl class=\"facts\">\n");
    for (name, value) in facts {
        page.raw("<div>").with_text("dt", &[], name).with_text("dd", &[], &value).raw("</div>\n");
    }
    page.raw("</dl>\n");
}

fn computed_on(run: &Run) -> String {
    let row = &run.row;
    let device = if row.backend == "tch" { format!(" ({})", row.device) } else { String::new() };
    format!("{}{device}, {}", row.backend, row.precision)
}

/// Whether numbers of these experiments may be held against each other.
fn comparable(page: &mut Markup, view: &View<'_>) {
    let metrics = distinct(view.subjects.iter().map(|subject| subject.metric.as_str()));
    let definitions = distinct(
        view.arms
            .iter()
            .filter_map(|arm| arm.runs.first())
            .map(|run| (&run.data.measured, &run.data.content)),
    );
    let text = if metrics.len() > 1 {
        format!("These experiments are judged by different metrics: {}.", metrics.join(", "))
    } else if definitions.len() > 1 {
        "These experiments are not all measured in the same way, so their values are not drawn on one axis where they \
         are not; under Data stands how each is measured."
            .to_owned()
    } else {
        "All of them are measured in the same way, on the same text.".to_owned()
    };
    page.with_text("p", &[("class", "quiet")], &text).raw("\n");
    let note = "Verdicts are each experiment's own: nothing is judged from one experiment to another.";
    page.with_text("p", &[("class", "quiet")], note).raw("\n");
}
