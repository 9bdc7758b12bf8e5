//! The forest plot: for each arm its mean difference from the control with the interval around it, a dot a seed, and
//! the margin as a band.

use super::markup::Markup;
use super::palette::Look;
use super::scale::{Scale, decimals, signed};
use super::svg::{CHARACTER, Drawing, dot, line, number, text, text_width};
use crate::text::shortened;

/// What is drawn.
#[derive(Debug, Clone)]
pub(super) struct Forest {
    /// The metric, with its unit.
    pub(super) metric: String,
    /// How far from the control counts as nothing, in the metric's unit; none where nothing says.
    pub(super) margin: Option<f64>,
    /// Whether less of it is better.
    pub(super) lower_is_better: bool,
    /// The arms that are compared.
    pub(super) rows: Vec<Row>,
}

/// One arm.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// What it is called.
    pub(super) name: String,
    /// What it is compared with.
    pub(super) control: String,
    /// How it is drawn.
    pub(super) look: Look,
    /// The mean difference; none where nothing can be compared.
    pub(super) mean: Option<f64>,
    /// The interval that decides, wide enough for all arms together.
    pub(super) interval: Option<(f64, f64)>,
    /// The interval as if there were no other arm, where there are others.
    pub(super) alone: Option<(f64, f64)>,
    /// The difference of every seed.
    pub(super) seeds: Vec<(u64, f64)>,
    /// How it came out, in a word or two.
    pub(super) outcome: String,
}

/// The height of a row.
const ROW: f64 = 46.0;

impl Forest {
    /// The drawing, `width` wide. Where that is narrow, names stand above their rows.
    pub(super) fn drawing(&self, width: f64) -> Drawing {
        let narrow = width < 560.0;
        let names = self.rows.iter().map(|row| text_width(&row.name)).fold(60.0, f64::max).min(width * 0.3);
        let (left, right) = if narrow { (12.0, width - 12.0) } else { (names + 20.0, width - 226.0) };
        let (top, row_height) = (34.0, if narrow { ROW + 22.0 } else { ROW });
        let bottom = top + row_height * self.rows.len() as f64;
        let scale = Scale::nice(self.extent(), (left, right), 5);
        let ticks = scale.ticks(if narrow { 3 } else { 5 });
        let mut body = Markup::new();

        if let Some(margin) = self.margin.filter(|margin| *margin > 0.0) {
            let (from, to) = (scale.within(-margin), scale.within(margin));
            body.open(
                "rect",
                &[
                    ("class", "margin"),
                    ("x", &number(from)),
                    ("y", &number(top)),
                    ("width", &number(to - from)),
                    ("height", &number(bottom - top)),
                ],
            );
            body.with_text("title", &[], &format!("within the margin of \u{b1}{margin}")).close("rect");
        }
        for (value, label) in &ticks {
            let x = scale.at(*value);
            line(&mut body, "grid", (x, top), (x, bottom));
            text(&mut body, "tick", (x, bottom + 18.0), "middle", label);
        }
        line(&mut body, "zero", (scale.at(0.0), top), (scale.at(0.0), bottom));
        let (less, more) = if self.lower_is_better { ("better", "worse") } else { ("worse", "better") };
        text(&mut body, "hint", (scale.at(0.0) - 8.0, top - 10.0), "end", &format!("\u{2190} {less}"));
        text(&mut body, "hint", (scale.at(0.0) + 8.0, top - 10.0), "start", &format!("{more} \u{2192}"));

        for (at, row) in self.rows.iter().enumerate() {
            let from = top + row_height * at as f64;
            let middle = if narrow { from + 42.0 } else { from + row_height / 2.0 };
            draw_row(&mut body, row, &scale, middle);
            let numbers = row.numbers();
            if narrow {
                let room = (width - text_width(&row.outcome) - 40.0).max(40.0);
                text(&mut body, "name", (left, from + 16.0), "start", &fitting(&row.name, room));
                text(&mut body, "outcome", (right, from + 16.0), "end", &row.outcome);
            } else {
                text(&mut body, "name", (left - 16.0, middle + 4.5), "end", &fitting(&row.name, names));
                text(&mut body, "outcome", (right + 18.0, middle - 3.0), "start", &row.outcome);
                text(&mut body, "numbers", (right + 18.0, middle + 13.0), "start", &numbers);
            }
        }
        line(&mut body, "axis", (left, bottom), (right, bottom));
        let caption = format!("difference in {} from the control", self.metric);
        text(&mut body, "label", (f64::midpoint(left, right), bottom + 40.0), "middle", &caption);
        Drawing {
            title: format!("Differences in {} from the control, with their intervals", self.metric),
            description: self.description(),
            width,
            height: bottom + 50.0,
            body,
        }
    }

    /// What the axis has to reach: everything that is drawn, and 0. A margin far wider than that is cut.
    fn extent(&self) -> (f64, f64) {
        let values = self.rows.iter().flat_map(|row| {
            let ends = row.interval.into_iter().flat_map(|(lower, upper)| [lower, upper]);
            ends.chain(row.mean).chain(row.seeds.iter().map(|(_, difference)| *difference))
        });
        let (low, high) = super::curve::extent(values.chain([0.0])).unwrap_or((0.0, 0.0));
        let reach = low.abs().max(high.abs());
        let Some(margin) = self.margin.filter(|margin| *margin > 0.0) else { return (low, high) };
        if reach == 0.0 || margin <= 4.0 * reach {
            (low.min(-margin * 1.1), high.max(margin * 1.1))
        } else {
            (low.min(-reach), high.max(reach))
        }
    }

    fn description(&self) -> String {
        let rows = self
            .rows
            .iter()
            .map(|row| format!("{} against {}: {} ({}).", row.name, row.control, row.numbers(), row.outcome));
        rows.collect::<Vec<_>>().join(" ")
    }
}

/// A row of the plot.
fn draw_row(body: &mut Markup, row: &Row, scale: &Scale, middle: f64) {
    let class = row.look.class();
    if let Some((lower, upper)) = row.alone {
        let (from, to) = (scale.at(lower), scale.at(upper));
        line(body, &format!("alone {class}"), (from, middle), (to, middle));
    }
    if let Some((lower, upper)) = row.interval {
        let (from, to) = (scale.at(lower), scale.at(upper));
        line(body, &format!("interval {class}"), (from, middle), (to, middle));
        for end in [from, to] {
            line(body, &format!("interval {class}"), (end, middle - 5.0), (end, middle + 5.0));
        }
    }
    for (seed, difference) in row.seeds.iter().filter(|(_, difference)| difference.is_finite()) {
        let tip = format!("seed {seed}: {}", signed(*difference, row.digits() + 1));
        dot(body, &format!("seed {class}"), (scale.at(*difference), middle + 13.0), 3.2, &tip);
    }
    if let Some(mean) = row.mean.filter(|mean| mean.is_finite()) {
        let tip = format!("{}: {}", row.name, row.numbers());
        // A diamond, as meta-analyses have it.
        let (x, r) = (scale.at(mean), 6.5);
        let points = format!(
            "{},{} {},{} {},{} {},{}",
            number(x - r),
            number(middle),
            number(x),
            number(middle - r),
            number(x + r),
            number(middle),
            number(x),
            number(middle + r),
        );
        body.open("polygon", &[("class", &format!("mean {class}")), ("points", &points)]);
        body.with_text("title", &[], &tip).close("polygon");
    }
}

impl Row {
    /// Digits behind the point that tell the ends of the interval apart.
    fn digits(&self) -> usize {
        let size = self.interval.map(|(lower, upper)| upper - lower).or(self.mean.map(f64::abs));
        decimals(size.unwrap_or(1.0) / 20.0).clamp(2, 8)
    }

    /// `+0.068 [+0.060, +0.075]`.
    fn numbers(&self) -> String {
        let Some(mean) = self.mean else { return "not compared".to_owned() };
        let digits = self.digits();
        let mean = signed(mean, digits);
        match self.interval {
            Some((lower, upper)) => format!("{mean} [{}, {}]", signed(lower, digits), signed(upper, digits)),
            None => mean,
        }
    }
}

/// The name cut to that much room.
fn fitting(name: &str, room: f64) -> String {
    shortened(name, (room / CHARACTER) as usize).into_owned()
}
