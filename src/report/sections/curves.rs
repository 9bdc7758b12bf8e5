//! Loss, evaluations, schedules and throughput, each as a drawing that scripts make live, and as numbers.

use super::super::markup::Markup;
use super::super::page::Figures;
use super::super::scale::{fixed, grouped};
use super::super::table::{Cell, numbers, table};
use super::super::view::{Plot, View};
use super::{drawings, heading};

pub(super) fn curves(page: &mut Markup, view: &View<'_>, figures: &Figures) {
    heading(page, "curves", "Curves");
    if figures.curves.is_empty() {
        page.with_text("p", &[], "No run has ended yet.").raw("\n");
    } else {
        toolbar(page, figures);
    }
    for plot in &figures.curves {
        page.with_text("h3", &[], &plot.chart.title).raw("\n");
        chart(page, view, plot);
    }
    heading(page, "schedules", "Schedules");
    if figures.schedules.is_empty() {
        page.with_text("p", &[], "No run has ended yet.").raw("\n");
    }
    for plot in &figures.schedules {
        page.with_text("h3", &[], &plot.chart.title).raw("\n");
        chart(page, view, plot);
    }
    heading(page, "throughput", "Throughput");
    match &figures.throughput {
        Some(plot) => chart(page, view, plot),
        None => {
            page.with_text("p", &[], "No step was timed.").raw("\n");
        }
    }
}

/// What the curves can be asked; shown where a script answers.
fn toolbar(page: &mut Markup, figures: &Figures) {
    page.raw("<form class=\"toolbar\" hidden>\n<fieldset><legend>Against</legend>");
    let axes = [("steps", "steps"), ("tokens", "tokens"), ("flops", "FLOPs"), ("time", "training time")];
    for (at, (value, name)) in axes.into_iter().enumerate() {
        page.raw("<label>");
        let mut attributes = vec![("type", "radio"), ("name", "x"), ("value", value)];
        if at == 0 {
            attributes.push(("checked", ""));
        }
        page.empty("input", &attributes).text(name).raw("</label>");
    }
    page.raw("</fieldset>\n");
    if figures.curves.iter().any(|plot| !plot.runs.is_empty()) {
        page.raw("<label><input type=\"checkbox\" name=\"each\"/>every seed</label>\n");
    }
    page.raw(
        "<label>smooth the loss <input type=\"range\" name=\"smooth\" min=\"0\" max=\"0.98\" step=\"0.02\" \
         value=\"0\"/></label>\n</form>\n\
         <p class=\"toolbar quiet\" hidden>Drag across a chart to zoom in; the charts follow each other.</p>\n",
    );
}

fn chart(page: &mut Markup, view: &View<'_>, plot: &Plot) {
    let chart = &plot.chart;
    page.open("figure", &[("data-chart", &chart.id)]);
    page.raw("<div class=\"live\" hidden></div>\n<div class=\"still\">\n");
    drawings(page, &|width| chart.drawing(width));
    page.raw("</div>\n");
    if !plot.caption.is_empty() {
        page.with_text("figcaption", &[], &plot.caption).raw("\n");
    }
    page.raw("</figure>\n");
    values(page, view, plot);
}

/// Rows of the table of a chart's values.
const ROWS: usize = 20;

/// The chart as numbers, at about as many steps as one reads.
fn values(page: &mut Markup, view: &View<'_>, plot: &Plot) {
    let lines = &plot.chart.lines;
    let mut steps: Vec<u64> = lines.iter().flat_map(|line| line.curve.steps.iter().copied()).collect();
    steps.sort_unstable();
    steps.dedup();
    if steps.len() > ROWS {
        let last = steps.len() - 1;
        steps = (0..ROWS).filter_map(|row| steps.get(row * last / (ROWS - 1)).copied()).collect();
    }
    let mut headings = vec![numbers("step")];
    headings.extend(lines.iter().map(|line| numbers(&line.name)));
    let rows: Vec<Vec<Cell>> = steps
        .iter()
        .map(|step| {
            let cell = |line: &super::super::lines::Line| {
                let at = line.curve.steps.binary_search(step).ok()?;
                let value = *line.curve.values.get(at)?;
                let shown =
                    if value.abs() >= 1000.0 { grouped(value.round() as u64) } else { fixed(value, 5) };
                let band =
                    line.curve.band.as_ref().and_then(|(low, high)| Some((*low.get(at)?, *high.get(at)?)));
                let half = band.map(|(low, high)| (high - low) / 2.0).filter(|half| half.is_finite());
                let half = half.filter(|_| value.abs() < 1000.0).map(|half| (fixed(half, 5), half));
                Some(Cell::Spread((shown, value), half))
            };
            let mut row = vec![Cell::Count(grouped(*step))];
            row.extend(lines.iter().map(|line| cell(line).unwrap_or(Cell::Nothing)));
            row
        })
        .collect();
    let caption = format!("{}, {}", plot.chart.title, plot.chart.unit);
    let caption = if lines.iter().any(|line| line.curve.band.is_some()) {
        format!("{caption}; \u{b1} half of what the seeds span")
    } else {
        caption
    };
    page.raw("<details>").with_text("summary", &[], "The same in numbers").raw("\n");
    table(page, table_id(&plot.chart.id), &caption, &headings, &rows);
    let places: Vec<&str> = view.subjects.iter().map(|subject| subject.name.as_str()).collect();
    let note = format!("All points are in steps.parquet and evals.parquet of {}.", places.join(", "));
    page.with_text("p", &[("class", "quiet")], &note).raw("</details>\n");
}

/// Ids of tables that something may look for.
fn table_id(chart: &str) -> &'static str {
    match chart {
        "loss" => "loss-table",
        "eval" => "eval-table",
        "lr" => "lr-table",
        "momentum" => "momentum-table",
        "decay" => "decay-table",
        "throughput" => "throughput-table",
        _ => "",
    }
}
