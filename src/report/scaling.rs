//! The figure of a scaling fit: the metric over size on a logarithmic axis, arms as dots, the parabola of each budget and
//! its best size; or where arms are not grouped, the power law through them.

// Not the system's, whose last bits differ: the same results draw the same page everywhere.
use libm::{log, log10, pow};

use super::markup::Markup;
use super::palette::Look;
use super::scale::{Scale, decimals, fixed, short};
use super::svg::{Drawing, dot, line, number, text, text_width};
use crate::scorecard::{Axis, Budgeted, Scaling, ScalingPoint};
use crate::stats::{Parabola, PowerLaw};

/// What is drawn.
#[derive(Debug, Clone)]
pub(super) struct ScalingFigure {
    pub(super) scaling: Scaling,
}

/// Points of a curve.
const CURVE: u32 = 60;

impl ScalingFigure {
    /// Where an arm lies on the axis.
    fn x(&self, point: &ScalingPoint) -> f64 {
        match self.axis() {
            Axis::Flops => point.flops,
            Axis::Params => point.params,
            Axis::Tokens => point.tokens,
            Axis::Depth => point.depth,
        }
    }

    /// Budgets are compared by size, arms that are not grouped by what was asked for.
    fn axis(&self) -> Axis {
        if self.scaling.by_budget { Axis::Params } else { self.scaling.x }
    }

    /// The drawing, `width` wide.
    pub(super) fn drawing(&self, width: f64) -> Drawing {
        let points = || self.scaling.groups.iter().flat_map(|group| &group.points);
        let (left, right, top, height) = (64.0, width - 16.0, 16.0, 300.0);
        let bottom = top + height;
        let extent =
            |of: &dyn Fn(&ScalingPoint) -> f64| super::curve::extent(points().map(of)).unwrap_or((0.0, 1.0));
        let logs = extent(&|point| log10(self.x(point)));
        let pad = ((logs.1 - logs.0) * 0.05).max(0.02);
        let xs = Scale::new((logs.0 - pad, logs.1 + pad), (left, right));
        let ys = Scale::nice(extent(&|point| point.value), (bottom, top), 5);
        let mut body = Markup::new();
        for (value, label) in ys.ticks(5) {
            let y = ys.at(value);
            line(&mut body, "grid", (left, y), (right, y));
            text(&mut body, "tick", (left - 8.0, y + 4.0), "end", &label);
        }
        // A tick where arms are: sizes are few, and no round numbers.
        let mut places: Vec<f64> = points().map(|point| self.x(point)).collect();
        places.sort_by(f64::total_cmp);
        let mut free = f64::NEG_INFINITY;
        for place in places {
            let (x, label) = (xs.at(log10(place)), short(place));
            let half = text_width(&label) / 2.0;
            if x - half > free {
                line(&mut body, "grid", (x, top), (x, bottom));
                text(&mut body, "tick", (x, bottom + 18.0), "middle", &label);
                free = x + half + 10.0;
            }
        }
        for (at, group) in self.scaling.groups.iter().enumerate() {
            let class = Look::of(at).class();
            self.curve(&mut body, group, class, &xs, &ys);
            for point in &group.points {
                let tip = format!(
                    "{}: {} at {} {}",
                    point.arm,
                    fixed(point.value, 5),
                    short(self.x(point)),
                    self.axis().word()
                );
                dot(
                    &mut body,
                    &format!("point {class}"),
                    (xs.at(log10(self.x(point))), ys.within(point.value)),
                    4.0,
                    &tip,
                );
            }
            if let Some(optimum) = &group.optimum {
                let (x, y) = (xs.at(log10(optimum.params)), ys.within(optimum.value));
                if let (Some(lower), Some(upper)) = (optimum.params_lower, optimum.params_upper) {
                    let ends = (xs.within(log10(lower)), xs.within(log10(upper)));
                    line(&mut body, &format!("interval {class}"), (ends.0, y), (ends.1, y));
                }
                let tip = format!(
                    "best at {}: {} params, {}",
                    group.budget,
                    short(optimum.params),
                    fixed(optimum.value, 5)
                );
                dot(&mut body, &format!("seed {class}"), (x, y), 7.0, &tip);
            }
        }
        line(&mut body, "axis", (left, bottom), (right, bottom));
        let label = match self.axis() {
            Axis::Params => "params that scaling laws count".to_owned(),
            axis => axis.word().to_owned(),
        };
        text(&mut body, "label", (f64::midpoint(left, right), bottom + 40.0), "middle", &label);
        let mut y = bottom + 62.0;
        if self.scaling.by_budget {
            for (at, group) in self.scaling.groups.iter().enumerate() {
                dot(
                    &mut body,
                    &format!("point {}", Look::of(at).class()),
                    (left + 4.0, y - 4.0),
                    4.0,
                    &group.budget,
                );
                let best = match (&group.optimum, &group.why_none) {
                    (Some(optimum), _) => format!("best at {} params", short(optimum.params)),
                    (None, Some(why)) => why.clone(),
                    (None, None) => String::new(),
                };
                text(&mut body, "name", (left + 16.0, y), "start", &format!("{}: {best}", group.budget));
                y += 20.0;
            }
        }
        Drawing {
            title: format!("{} over {}", self.scaling.metric, self.axis().word()),
            description: self.scaling.to_string(),
            width,
            height: y + 4.0,
            body,
        }
    }

    /// The fit through the arms of a budget, or through all of them.
    fn curve(&self, body: &mut Markup, group: &Budgeted, class: &str, xs: &Scale, ys: &Scale) {
        let fit: Box<dyn Fn(f64) -> f64> = if self.scaling.by_budget {
            let logs: Vec<(f64, f64)> = group.points.iter().map(|p| (log(p.params), p.value)).collect();
            let Some(parabola) = Parabola::through(&logs) else { return };
            Box::new(move |x| parabola.y(log(x)))
        } else {
            let Some(law) = self.scaling.laws.first() else { return };
            let law = PowerLaw { coefficient: law.coefficient, exponent: law.exponent };
            Box::new(move |x| law.y(x))
        };
        let places = || group.points.iter().map(|point| self.x(point));
        let (low, high) = (places().fold(f64::INFINITY, f64::min), places().fold(0.0, f64::max));
        if low <= 0.0 || low >= high {
            return;
        }
        let path: Vec<String> = (0..=CURVE)
            .map(|step| low * pow(high / low, f64::from(step) / f64::from(CURVE)))
            .map(|x| (xs.at(log10(x)), ys.within(fit(x))))
            .enumerate()
            .map(|(at, (x, y))| format!("{}{} {}", if at == 0 { "M" } else { "L" }, number(x), number(y)))
            .collect();
        body.empty("path", &[("class", &format!("line {class}")), ("d", &path.join(" "))]);
    }

    /// Digits that tell the values apart.
    pub(super) fn digits(&self) -> usize {
        let values = self.scaling.groups.iter().flat_map(|group| &group.points).map(|point| point.value);
        let (low, high) = super::curve::extent(values).unwrap_or((0.0, 1.0));
        decimals((high - low) / 100.0).clamp(3, 8)
    }
}
