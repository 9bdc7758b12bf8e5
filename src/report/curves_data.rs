//! The curves as scripts read them: few enough points, few enough digits.

use serde_json::{Value, json};

use super::curve::Curve;
use super::scale::rounded;
use super::view::{POINTS, Plot, View};
use crate::text::printable;

/// The most values in a page, whatever number of curves they are of: about six bytes each.
const VALUES: usize = 90_000;
/// Significant digits: a screen has fewer.
const DIGITS: usize = 5;

/// Everything that scripts draw.
pub(super) fn curves_data(view: &View<'_>, plots: &[&Plot]) -> Value {
    // A line has values, two bounds and times; a run's values and, seldom its own, steps.
    let columns = |curve: &Curve| if curve.band.is_some() { 5 } else { 3 };
    let wanted: usize = plots
        .iter()
        .flat_map(|plot| {
            let lines = plot.chart.lines.iter().map(|line| &line.curve);
            lines.chain(plot.runs.iter().map(|run| &run.curve))
        })
        .map(|curve| columns(curve) * curve.steps.len().min(POINTS))
        .sum();
    let points = if wanted <= VALUES { POINTS } else { (POINTS * VALUES / wanted).max(40) };
    let mut steps = Steps::default();
    let elapsed: Vec<Vec<f64>> = view.arms.iter().map(super::view::ArmView::elapsed).collect();
    let charts: Vec<Value> = plots
        .iter()
        .map(|plot| {
            let mut one = |arm: usize, curve: &Curve| {
                let curve = curve.thinned(points);
                let time = elapsed.get(arm).map(Vec::as_slice).unwrap_or_default();
                let time = |step: &u64| {
                    let at = usize::try_from(step + plot.offset).ok()?;
                    // A run that went further than those that count has times of its own, which nobody needs.
                    time.get(at).or(time.last().filter(|_| at == time.len())).map(|t| rounded(*t, DIGITS))
                };
                let mut value = json!({
                    "arm": arm,
                    "x": steps.place(&curve.steps),
                    "y": numbers(&curve.values),
                });
                let times: Vec<Value> = curve.steps.iter().map(|step| json!(time(step))).collect();
                // Where no step took time that was measured, there is no such axis.
                if times.iter().any(|time| time.as_f64().is_some_and(|time| time > 0.0)) {
                    value["t"] = json!(times);
                }
                if let Some((low, high)) = &curve.band {
                    value["lo"] = numbers(low);
                    value["hi"] = numbers(high);
                }
                value
            };
            let lines: Vec<Value> = plot
                .chart
                .lines
                .iter()
                .map(|line| {
                    let mut value = one(line.arm, &line.curve);
                    value["name"] = json!(printable(&line.name));
                    value
                })
                .collect();
            let runs: Vec<Value> = plot
                .runs
                .iter()
                .map(|run| {
                    let mut value = one(run.arm, &run.curve);
                    value["seed"] = json!(run.seed);
                    value
                })
                .collect();
            json!({
                "id": plot.chart.id,
                "unit": plot.chart.unit,
                "offset": plot.offset,
                "marks": plot.chart.marks,
                "smooth": plot.smooth,
                "lines": lines,
                "runs": runs,
            })
        })
        .collect();
    let arms: Vec<Value> = view
        .arms
        .iter()
        .map(|arm| {
            let first = arm.runs.first();
            json!({
                "name": printable(&arm.name),
                "c": arm.look.colour(),
                "d": arm.look.dash_number(),
                "batch": first.map(|run| run.batch),
                "flops": first.map(|run| run.row.flops_per_token),
            })
        })
        .collect();
    json!({ "arms": arms, "xs": steps.0, "charts": charts })
}

/// What is not finite is a gap.
fn numbers(values: &[f64]) -> Value {
    let number = |value: &f64| value.is_finite().then(|| rounded(*value, DIGITS));
    // Whole numbers without their `.0`.
    let short = |value: f64| {
        if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
    };
    values.iter().map(|value| number(value).map_or(Value::Null, short)).collect()
}

/// Lists of steps, each once; that of all steps from 0 is its length.
#[derive(Default)]
struct Steps(Vec<Value>);

impl Steps {
    fn place(&mut self, steps: &[u64]) -> usize {
        let is_all = steps.iter().enumerate().all(|(place, step)| place as u64 == *step);
        let value = if is_all { json!(steps.len()) } else { json!(steps) };
        self.0.iter().position(|known| *known == value).unwrap_or_else(|| {
            self.0.push(value);
            self.0.len() - 1
        })
    }
}
