//! Line charts: curves over steps, as drawings. They serve where no script runs, on paper and as files.

use super::curve::{Curve, extent};
use super::markup::Markup;
use super::palette::Look;
use super::scale::Scale;
use super::svg::{CHARACTER, Drawing, dot, line, number, text, text_width};
use crate::text::shortened;

/// What is drawn.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    /// What it is called on the page and as a file.
    pub(super) id: String,
    /// Its heading.
    pub(super) title: String,
    /// What its values are, with their unit.
    pub(super) unit: String,
    /// Its curves, one an arm.
    pub(super) lines: Vec<Line>,
    /// Whether every point is a measurement of its own, few enough to be marked.
    pub(super) marks: bool,
}

/// One curve.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// The arm, by its place on the page.
    pub(super) arm: usize,
    /// The arm's name.
    pub(super) name: String,
    /// How it is drawn.
    pub(super) look: Look,
    /// Its points.
    pub(super) curve: Curve,
}

/// Points of a curve in a drawing: more than the eye tells apart at its width.
const POINTS: usize = 360;

impl Chart {
    /// The drawing, `width` wide.
    pub(super) fn drawing(&self, width: f64) -> Drawing {
        let mut body = Markup::new();
        let right = width - 10.0;
        let top = self.legend(&mut body, width) + 16.0;
        let values = self.lines.iter().filter_map(|line| line.curve.extent());
        let values = extent(values.flat_map(|(low, high)| [low, high])).unwrap_or((0.0, 1.0));
        let bottom = top + if width < 560.0 { 200.0 } else { 260.0 };
        let y = Scale::nice(values, (bottom, top), 5);
        let y_ticks = y.ticks(5);
        let left = 14.0 + y_ticks.iter().map(|(_, label)| text_width(label)).fold(0.0, f64::max);
        let last = self.lines.iter().filter_map(|line| line.curve.steps.last()).max().copied();
        let x = Scale::new((0.0, last.unwrap_or(1).max(1) as f64), (left, right));

        for (value, label) in &y_ticks {
            line(&mut body, "grid", (left, y.at(*value)), (right, y.at(*value)));
            text(&mut body, "tick", (left - 8.0, y.at(*value) + 4.5), "end", label);
        }
        for (value, label) in x.ticks(if width < 560.0 { 4 } else { 7 }) {
            // A label that would reach out of the drawing is left to the grid.
            let place = x.at(value).min(width - text_width(&label) / 2.0);
            line(&mut body, "axis", (x.at(value), bottom), (x.at(value), bottom + 4.0));
            text(&mut body, "tick", (place, bottom + 18.0), "middle", &label);
        }
        line(&mut body, "axis", (left, bottom), (right, bottom));
        text(&mut body, "label", (f64::midpoint(left, right), bottom + 38.0), "middle", "steps");

        let lines: Vec<_> = self.lines.iter().map(|line| (line, line.curve.thinned(POINTS))).collect();
        for (line, curve) in &lines {
            if let Some((low, high)) = &curve.band {
                let path = band(&x, &y, &curve.steps, low, high);
                body.empty("path", &[("class", &format!("band {}", line.look.class())), ("d", &path)]);
            }
        }
        for (line, curve) in &lines {
            let class = format!("line {}", line.look.class());
            let path = path(&x, &y, curve);
            let mut attributes = vec![("class", class.as_str()), ("d", path.as_str())];
            if line.look.dash() != "none" {
                attributes.push(("stroke-dasharray", line.look.dash()));
            }
            body.open("path", &attributes).with_text("title", &[], &line.name).close("path");
            if self.marks && curve.steps.len() <= 60 {
                for (step, value) in curve.steps.iter().zip(&curve.values).filter(|(_, v)| v.is_finite()) {
                    let tip = format!("{}, step {step}: {value}", line.name);
                    let class = format!("point {}", line.look.class());
                    dot(&mut body, &class, (x.at(*step as f64), y.at(*value)), 2.6, &tip);
                }
            }
        }
        Drawing {
            title: format!("{}, {}", self.title, self.unit),
            description: self.description(),
            width,
            height: bottom + 48.0,
            body,
        }
    }

    /// Names with their colours, in as many rows as they take; gives the height.
    fn legend(&self, body: &mut Markup, width: f64) -> f64 {
        let (mut x, mut y) = (0.0, 14.0);
        text(body, "unit", (x, y), "start", &self.unit);
        x += text_width(&self.unit) + 22.0;
        for entry in &self.lines {
            let name = shortened(&entry.name, ((width - 40.0) / CHARACTER) as usize);
            let room = 30.0 + text_width(&name) + 16.0;
            if x > 0.0 && x + room > width {
                (x, y) = (0.0, y + 20.0);
            }
            let class = format!("line {}", entry.look.class());
            let path = format!("M{} {}h22", number(x), number(y - 4.5));
            body.empty(
                "path",
                &[("class", class.as_str()), ("d", &path), ("stroke-dasharray", entry.look.dash())],
            );
            text(body, "name", (x + 30.0, y), "start", &name);
            x += room;
        }
        y
    }

    fn description(&self) -> String {
        let each = self.lines.iter().filter_map(|line| {
            let (first, last) = (line.curve.values.first()?, line.curve.values.last()?);
            let steps = line.curve.steps.last()?;
            Some(format!("{}: from {first:.4} to {last:.4} at step {steps}.", line.name))
        });
        each.collect::<Vec<_>>().join(" ")
    }
}

/// A path through the points; what is not finite interrupts it.
fn path(x: &Scale, y: &Scale, curve: &Curve) -> String {
    let mut path = String::new();
    let mut pen_is_down = false;
    for (step, value) in curve.steps.iter().zip(&curve.values) {
        if !value.is_finite() {
            pen_is_down = false;
            continue;
        }
        path.push(if pen_is_down { 'L' } else { 'M' });
        pen_is_down = true;
        point(&mut path, x.at(*step as f64), y.at(*value));
    }
    path
}

/// The area between two bounds, over the points where both are finite.
fn band(x: &Scale, y: &Scale, steps: &[u64], low: &[f64], high: &[f64]) -> String {
    let points: Vec<(f64, f64, f64)> = steps
        .iter()
        .zip(low.iter().zip(high))
        .filter(|(_, (low, high))| low.is_finite() && high.is_finite())
        .map(|(step, (low, high))| (x.at(*step as f64), y.at(*low), y.at(*high)))
        .collect();
    let mut path = String::new();
    let around = points.iter().map(|(x, _, high)| (x, high));
    for (at, (x, y)) in around.chain(points.iter().rev().map(|(x, low, _)| (x, low))).enumerate() {
        path.push(if at == 0 { 'M' } else { 'L' });
        point(&mut path, *x, *y);
    }
    if !path.is_empty() {
        path.push('Z');
    }
    path
}

fn point(path: &mut String, x: f64, y: f64) {
    path.push_str(&number(x));
    path.push(' ');
    path.push_str(&number(y));
}
