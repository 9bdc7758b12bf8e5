//! How the arms compare: the forest plot and the table behind it.

use super::super::markup::Markup;
use super::super::page::Figures;
use super::super::scale::{decimals, fixed, grouped, signed};
use super::super::table::{Cell, leave_out_unknown, numbers, table, words};
use super::super::verdicts;
use super::super::view::{View, shown};
use super::{drawings, heading};
use crate::scorecard::{OtherText, VerdictKind};

pub(super) fn differences(page: &mut Markup, figures: &Figures) {
    heading(page, "differences", "Differences from the control");
    if figures.forests.is_empty() {
        page.with_text("p", &[], "There is no control arm, so there are no differences.").raw("\n");
    }
    for forest in &figures.forests {
        page.raw("<figure>\n");
        drawings(page, &|width| forest.drawing(width));
        let margin = forest.margin.map_or(String::new(), |margin| {
            format!(" The shaded band is the margin of \u{b1}{margin}: differences that count as none.")
        });
        let together = if forest.rows.iter().any(|row| row.alone.is_some()) {
            "its interval, wide enough for all arms together (the thick part is the interval of this arm alone)"
        } else {
            "its interval"
        };
        let caption = format!(
            "A diamond is an arm's mean difference from its control over the seeds that both have, the line through it \
             {together}, and a ring below one seed.{margin}"
        );
        page.with_text("figcaption", &[], &caption).raw("\n</figure>\n");
    }
}

pub(super) fn arms(page: &mut Markup, view: &View<'_>) {
    heading(page, "arms", "Arms");
    let metrics = metrics(view);
    let mut headings = vec![words("arm"), numbers("runs")];
    headings.extend(metrics.iter().map(|metric| numbers(metric)));
    headings.push(numbers("tokens/s"));
    let mut rows = Vec::new();
    for (place, subject) in view.subjects.iter().enumerate() {
        for arm in &subject.scorecard.arms {
            let look = view.look(place, &arm.name);
            let name = view.arm(place, &arm.name).map_or(shown(&arm.name), |arm| &arm.name);
            let name = if arm.control { format!("{name} (control)") } else { name.to_owned() };
            let runs = if arm.finished == arm.runs {
                arm.runs.to_string()
            } else {
                format!("{} of {}", arm.finished, arm.runs)
            };
            let mut row = vec![Cell::Arm(name, look), Cell::Count(runs)];
            row.extend(metrics.iter().map(|metric| match arm.metrics.get(metric) {
                Some((mean, deviation)) => Cell::Spread(
                    (fixed(*mean, 5), *mean),
                    deviation.map(|deviation| (fixed(deviation, 5), deviation)),
                ),
                None => Cell::Nothing,
            }));
            row.push(
                arm.tokens_per_second
                    .map_or(Cell::Nothing, |speed| Cell::Number(grouped(speed.round() as u64), speed)),
            );
            rows.push(row);
        }
    }
    let caption = "Means over the finished runs of each arm, \u{b1} the standard deviation between seeds";
    table(page, "arms-table", caption, &headings, &rows);
    judged(page, view);
    looks(page, view);
}

/// Every verdict with what it rests on.
fn judged(page: &mut Markup, view: &View<'_>) {
    // Sentences, which have no room beside so many numbers.
    let mut reasons: Vec<(String, String)> = Vec::new();
    let mut rows = Vec::new();
    for (place, subject) in view.subjects.iter().enumerate() {
        for verdict in &subject.scorecard.verdicts {
            let arm = if verdict.arm.is_empty() { "all" } else { shown(&verdict.arm) };
            let known = view.arm(place, &verdict.arm);
            let whose = match known {
                Some(arm) => arm.name.clone(),
                None if view.is_comparison() => format!("{}: {arm}", subject.name),
                None => arm.to_owned(),
            };
            let quality = matches!(verdict.kind, VerdictKind::Quality | VerdictKind::Target);
            let size = verdict.interval.map_or(0.0, |(lower, upper)| upper - lower);
            let digits = if quality && size > 0.0 { decimals(size / 20.0).clamp(3, 8) } else { 3 };
            let shown = |value: f64| if quality { signed(value, digits) } else { fixed(value, digits) };
            let range = |ends: Option<(f64, f64)>| match ends {
                Some((lower, upper)) => Cell::Range((shown(lower), lower), (shown(upper), upper)),
                None => Cell::Nothing,
            };
            let measured =
                |value: Option<f64>| value.map_or(Cell::Nothing, |value| Cell::Number(shown(value), value));
            let alone = verdict.raw_interval.filter(|_| verdict.arms_together > 1);
            let judged = match verdict.kind {
                VerdictKind::Quality => verdict.metric.clone(),
                VerdictKind::Target => format!("target, {}", verdict.metric),
                kind => kind.to_string(),
            };
            if verdict.detail != verdicts::outcome(verdict) {
                reasons.push((whose.clone(), format!(", {judged}: {}", verdict.detail)));
            }
            rows.push(vec![
                known.map_or_else(|| Cell::Text(whose.clone()), |arm| Cell::Arm(whose.clone(), arm.look)),
                Cell::Text(judged),
                Cell::Word(verdicts::outcome(verdict), verdicts::tone(verdict).word()),
                verdict.difference.map_or(Cell::Nothing, |value| Cell::Number(shown(value), value)),
                range(verdict.interval),
                range(alone),
                match verdict.other_text.as_ref().and_then(OtherText::reach) {
                    Some(reach) => Cell::Number(format!("\u{b1}{}", fixed(reach, digits)), reach),
                    None => Cell::Nothing,
                },
                if quality { Cell::Count(verdict.pairs.to_string()) } else { Cell::Nothing },
                verdict.p_adjusted.map_or(Cell::Nothing, |p| Cell::Number(brief(p), p)),
                verdict.seeds_needed.map_or(Cell::Nothing, |seeds| Cell::Count(format!("about {seeds}"))),
                measured(verdict.matched.and_then(|matched| matched.per_token)),
                measured(verdict.matched.and_then(|matched| matched.per_second)),
                verdict
                    .worth
                    .map_or(Cell::Nothing, |worth| Cell::Number(signed(worth.steps, 1), worth.steps)),
            ]);
        }
    }
    if rows.is_empty() {
        return;
    }
    let mut headings = vec![
        words("arm"),
        words("judged"),
        words("outcome"),
        numbers("difference"),
        numbers("interval"),
        numbers("of this arm alone"),
        numbers("other text"),
        numbers("seeds"),
        numbers("p"),
        numbers("would tell"),
        numbers("at equal tokens"),
        numbers("at equal time"),
        numbers("worth, steps"),
    ];
    leave_out_unknown(&mut headings, &mut rows);
    table(page, "verdicts-table", "Verdicts, with the interval that decides each", &headings, &rows);
    if !reasons.is_empty() {
        page.open("ul", &[("id", "verdicts-why")]);
        for (whose, why) in &reasons {
            page.open("li", &[]).name(whose).text(why).close("li");
        }
        page.close("ul");
    }
    page.with_text(
        "p",
        &[("class", "quiet")],
        "Differences are arm less control or target, speeds ratios. p is that of no difference, for all arms and metrics \
         together. Other text is how far another validation text of the same size would move the difference, whatever the seeds. \
         What a difference is at equal tokens and time, and how many steps it is worth, is by the slope at the \
         end of the arm's own curve.",
    );
}

/// A p in two digits.
fn brief(p: f64) -> String {
    if p < 1e-3 { format!("{p:.1e}") } else { fixed(p, 4) }
}

/// What each look at the seeds so far said.
fn looks(page: &mut Markup, view: &View<'_>) {
    let mut rows = Vec::new();
    for (place, subject) in view.subjects.iter().enumerate() {
        let looks = subject.scorecard.sequence.iter().flat_map(|sequence| &sequence.taken);
        for (look, verdict) in looks.flat_map(|look| look.verdicts.iter().map(move |verdict| (look, verdict)))
        {
            let name = match view.arm(place, &verdict.arm) {
                Some(arm) => Cell::Arm(arm.name.clone(), arm.look),
                None => Cell::Text(shown(&verdict.arm).to_owned()),
            };
            let size = verdict.interval.map_or(0.0, |(lower, upper)| upper - lower);
            let digits = if size > 0.0 && size.is_finite() { decimals(size / 20.0).clamp(3, 8) } else { 3 };
            let shown = |value: f64| signed(value, digits);
            rows.push(vec![
                name,
                Cell::Text(verdict.metric.clone()),
                Cell::Count(format!("{} of {}", look.of.look, look.of.looks)),
                Cell::Count(format!("{} of {}", look.of.seeds, look.of.of_seeds)),
                Cell::Number(format!("{:.1e}", look.of.level), look.of.level),
                verdict.difference.map_or(Cell::Nothing, |value| Cell::Number(shown(value), value)),
                match verdict.interval {
                    Some((lower, upper)) => Cell::Range((shown(lower), lower), (shown(upper), upper)),
                    None => Cell::Nothing,
                },
                Cell::Word(verdicts::outcome(verdict), verdicts::tone(verdict).word()),
            ]);
        }
    }
    if rows.is_empty() {
        return;
    }
    let headings = [
        words("arm"),
        words("judged"),
        numbers("look"),
        numbers("seeds"),
        numbers("level"),
        numbers("difference"),
        numbers("interval"),
        words("said"),
    ];
    table(
        page,
        "looks-table",
        "Looks at the seeds so far: what each said at its own level; the first that decides every arm is the last",
        &headings,
        &rows,
    );
}

/// Metrics of arms: the one that is judged by first.
fn metrics(view: &View<'_>) -> Vec<String> {
    let mut metrics: Vec<String> = view.subjects.iter().map(|subject| subject.metric.clone()).collect();
    metrics.extend(["val_bpb".to_owned(), "train_loss".to_owned()]);
    for subject in view.subjects {
        metrics.extend(subject.scorecard.arms.iter().flat_map(|arm| arm.metrics.keys().cloned()));
    }
    let mut metrics = super::distinct(metrics);
    let is_known = |metric: &String| {
        view.subjects.iter().any(|s| s.scorecard.arms.iter().any(|arm| arm.metrics.contains_key(metric)))
    };
    metrics.retain(is_known);
    metrics
}
