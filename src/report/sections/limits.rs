//! What was not run, and what the intervals do not cover.

use super::super::markup::Markup;
use super::super::scale::grouped;
use super::super::subject::{Run, Subject};
use super::super::view::{View, shown};
use super::{counted, distinct, heading, whose};

pub(super) fn limits(page: &mut Markup, view: &View<'_>) {
    heading(page, "limits", "What this does not say");
    for (place, subject) in view.subjects.iter().enumerate() {
        whose(page, view, place);
        page.raw("<ul>\n");
        for limit in of(subject) {
            page.with_text("li", &[], &limit).raw("\n");
        }
        page.raw("</ul>\n");
    }
}

fn of(subject: &Subject) -> Vec<String> {
    let planned: Vec<&Run> = subject.runs.iter().filter(|run| run.is_planned()).collect();
    let seeds = distinct(planned.iter().map(|run| run.row.seed)).len();
    let mut limits = Vec::new();
    let needless = planned.iter().filter(|run| run.is_needless()).count();
    let open: Vec<&&Run> = planned.iter().filter(|run| !run.is_finished() && !run.is_needless()).collect();
    if let Some(sequence) = subject.scorecard.sequence.as_ref().filter(|_| needless > 0) {
        limits.push(format!(
            "{} not trained, because {}. The intervals are those of that look, wide enough for all looks that could have \
             been taken.",
            if needless == 1 { "1 run was".to_owned() } else { format!("{needless} runs were") },
            sequence.why_not_needed()
        ));
    }
    if open.is_empty() && needless == 0 {
        limits.push("Every run of the plan is finished; nothing was left out.".to_owned());
    } else if !open.is_empty() {
        let names: Vec<String> = open
            .iter()
            .take(12)
            .map(|run| format!("{} seed {} ({})", shown(&run.row.arm), run.row.seed, run.row.status))
            .collect();
        let more = if open.len() > 12 { format!(", and {} more", open.len() - 12) } else { String::new() };
        limits.push(format!("Not finished: {}{more}.", names.join(", ")));
    }
    let retired = subject.runs.len() - planned.len();
    if retired > 0 {
        limits.push(format!("{} of earlier plans are listed and not judged.", counted(retired, "run")));
    }
    limits.push(if seeds > 1 {
        subject.scorecard.not_covered().to_owned()
    } else {
        "There is one seed, so nothing here tells how results scatter from seed to seed, or with the order of the data."
            .to_owned()
    });
    limits.extend(subject.scorecard.other_text());
    let classes = distinct(
        planned.iter().map(|run| run.row.environment_class.as_str()).filter(|class| !class.is_empty()),
    );
    if let [class] = classes.as_slice() {
        limits.push(format!(
            "All runs are of the environment class {class}: in another class the last digits are others, and differences \
             as small as those mean nothing."
        ));
    } else if !classes.is_empty() {
        limits.push(format!("The runs are of several environment classes: {}.", classes.join(", ")));
    }
    let steps = distinct(planned.iter().map(|run| run.row.steps));
    if let [steps] = steps.as_slice() {
        limits.push(format!(
            "They are about this budget, {} steps, and these sizes: a difference may grow, vanish or turn with more of \
             either.",
            grouped(*steps)
        ));
    }
    if planned.iter().any(|run| run.row.train_epochs.is_some_and(|epochs| epochs > 1.0)) {
        limits.push("The training text is read more than once, so that memorising it helps.".to_owned());
    }
    if planned.iter().any(|run| !run.row.alone && run.is_finished()) {
        limits.push(
            "Some steps were trained beside other runs or as part of them: their speeds are no measurement of an arm."
                .to_owned(),
        );
    }
    limits
}
