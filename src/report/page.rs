//! A page as a whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::curves_data::curves_data;
use super::forest::Forest;
use super::markup::Markup;
use super::scaling::ScalingFigure;
use super::sections;
use super::subject::Subject;
use super::svg::Drawing;
use super::verdicts;
use super::view::{Plot, View};
use crate::hash::Digest;

/// The style of the page and of what is drawn in it.
const STYLE: &str =
    concat!(include_str!("vendor/uPlot.min.css"), include_str!("figures.css"), include_str!("page.css"));

/// uPlot with its licence, then what uses it.
const SCRIPT: &str = concat!(
    "/*\n",
    include_str!("vendor/uPlot.LICENSE"),
    "\n*/\n",
    include_str!("vendor/uPlot.iife.min.js"),
    "\n",
    include_str!("page.js")
);

/// Widths of drawings: where there is room, and on a phone.
pub(super) const WIDE: f64 = 900.0;
pub(super) const NARROW: f64 = 380.0;

/// Everything that is drawn of some experiments.
pub(super) struct Figures {
    pub(super) forests: Vec<Forest>,
    pub(super) scalings: Vec<ScalingFigure>,
    pub(super) curves: Vec<Plot>,
    pub(super) schedules: Vec<Plot>,
    pub(super) throughput: Option<Plot>,
}

impl Figures {
    fn of(view: &View<'_>) -> Self {
        Self {
            forests: verdicts::forests(view),
            scalings: view
                .subjects
                .iter()
                .filter_map(|subject| subject.scorecard.scaling.clone())
                .map(|scaling| ScalingFigure { scaling })
                .collect(),
            curves: view.curves(),
            schedules: view.schedules(),
            throughput: view.throughput(),
        }
    }

    fn plots(&self) -> Vec<&Plot> {
        self.curves.iter().chain(&self.schedules).chain(&self.throughput).collect()
    }
}

/// The page about these experiments, as one HTML file. The same results give the same bytes.
pub fn page(subjects: &[Subject]) -> String {
    let view = View::of(subjects);
    let figures = Figures::of(&view);
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
    let title = format!("{} \u{b7} nanorun", names.join(", "));
    let mut page = Markup::new();
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.open("meta", &[("http-equiv", "Content-Security-Policy"), ("content", &policy())]);
    page.raw("\n<meta name=\"color-scheme\" content=\"light dark\">\n");
    page.raw("<meta name=\"referrer\" content=\"no-referrer\">\n");
    page.with_text("title", &[], &title);
    page.raw("\n<style>").raw(STYLE).raw("</style>\n</head>\n<body>\n");
    sections::all(&mut page, &view, &figures);
    page.data("curves-data", &curves_data(&view, &figures.plots()));
    page.raw("\n<script>").raw(SCRIPT).raw("</script>\n</body>\n</html>\n");
    page.into_string()
}

/// The figures of these experiments: file names and SVG.
pub fn figures(subjects: &[Subject]) -> Vec<(String, String)> {
    let view = View::of(subjects);
    let figures = Figures::of(&view);
    let forests = figures.forests.iter().enumerate().map(|(at, forest)| {
        (
            if at == 0 { "differences".to_owned() } else { format!("differences-{}", at + 1) },
            forest.drawing(WIDE),
        )
    });
    let scalings = figures.scalings.iter().enumerate().map(|(at, figure)| {
        let name = if at == 0 { "scaling".to_owned() } else { format!("scaling-{}", at + 1) };
        (name, figure.drawing(WIDE))
    });
    let plots = figures.plots();
    let plots = plots.iter().map(|plot| (plot.chart.id.clone(), plot.chart.drawing(WIDE)));
    forests
        .chain(scalings)
        .chain(plots)
        .map(|(name, drawing)| (format!("{name}.svg"), Drawing::file(&drawing)))
        .collect()
}

/// Nothing from anywhere; the page's own style and script, told by their hashes.
fn policy() -> String {
    format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        source_hash(STYLE),
        source_hash(SCRIPT)
    )
}

fn source_hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Digest::of(text.as_bytes()).as_bytes()))
}
