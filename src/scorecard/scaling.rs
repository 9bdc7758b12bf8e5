//! How a metric goes with size and budget: the best size of each budget, and power laws.
//!
//! As upstream's scaling-law scripts have it: of runs of one budget a parabola of the metric in the logarithm of the
//! model's parameters, whose lowest point is the best size; over budgets straight lines of logarithms. What was not tried
//! is not told: an optimum beyond the sizes of its budget is none.

use std::fmt;

use serde::Serialize;

use crate::record::ScalingRow;
use crate::rng::SplitMix64;
use crate::stats::{Parabola, PowerLaw, mean, standard_deviation, t_quantile};
use crate::text::Table;

/// What things scale with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// FLOPs of the whole run.
    Flops,
    /// Parameters that scaling laws count: upstream's matrices of the blocks and the unembedding.
    Params,
    /// Tokens of the whole run.
    Tokens,
    /// Layers.
    Depth,
}

impl Axis {
    /// It in words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Flops => "FLOPs",
            Self::Params => "params",
            Self::Tokens => "tokens",
            Self::Depth => "depth",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingAsked {
    /// The metric.
    pub metric: String,
    /// Whether more of it is better.
    pub higher_is_better: bool,
    /// What power laws are in.
    pub x: Axis,
    /// Whether each budget has an optimum of its own first.
    pub by_budget: bool,
    /// Confidence of intervals.
    pub confidence: f64,
}

/// A run of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingRun {
    /// Its arm.
    pub arm: String,
    /// Its seed.
    pub seed: u64,
    /// Its budget, in words.
    pub budget: String,
    /// Its place on each axis: FLOPs, params, tokens, depth.
    pub at: [f64; 4],
    /// The metric; none of a run without a result.
    pub value: Option<f64>,
}

/// An arm, over its seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScalingPoint {
    /// Its name.
    pub arm: String,
    /// FLOPs of a run.
    pub flops: f64,
    /// Parameters that scaling laws count.
    pub params: f64,
    /// Tokens of a run.
    pub tokens: f64,
    /// Layers.
    pub depth: f64,
    /// Mean of the metric.
    pub value: f64,
    /// Seeds that it is over.
    pub seeds: usize,
}

/// The arms of one budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Budgeted {
    /// The budget, in words.
    pub budget: String,
    /// Its arms by rising parameters.
    pub points: Vec<ScalingPoint>,
    /// The best size; none where the arms do not tell.
    pub optimum: Option<Optimum>,
    /// Why there is none.
    pub why_none: Option<String>,
}

/// The best size of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Optimum {
    /// Parameters.
    pub params: f64,
    /// Tokens that go with them, between those of the arms.
    pub tokens: f64,
    /// FLOPs of the budget.
    pub flops: f64,
    /// The metric there.
    pub value: f64,
    /// The parabola's curvature in the natural logarithm of the parameters.
    pub curvature: f64,
    /// Ends of the interval of the parameters.
    pub params_lower: Option<f64>,
    /// The same.
    pub params_upper: Option<f64>,
}

/// `quantity = coefficient * x^exponent`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Law {
    /// What follows it.
    pub quantity: String,
    /// Factor.
    pub coefficient: f64,
    /// Exponent.
    pub exponent: f64,
    /// Ends of the interval of the exponent.
    pub lower: Option<f64>,
    /// The same.
    pub upper: Option<f64>,
    /// Points that it goes through.
    pub points: usize,
    /// The largest ratio by which a point is off it.
    pub off_by: f64,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scaling {
    /// The metric.
    pub metric: String,
    /// What power laws are in.
    pub x: Axis,
    /// Whether each budget has an optimum of its own.
    pub by_budget: bool,
    /// Confidence of intervals.
    pub confidence: f64,
    /// The budgets by rising x; one for all arms where they are not grouped.
    pub groups: Vec<Budgeted>,
    /// The laws that could be fitted.
    pub laws: Vec<Law>,
    /// Where intervals are from, and what could not be told, a sentence each.
    pub notes: Vec<String>,
}

/// Budgets or arms below which a power law says nothing that could be wrong.
const FEWEST: usize = 3;

/// Seeds below which a bootstrap over them covers too little.
const BOOTSTRAP: usize = 10;

/// Resamplings.
const DRAWS: usize = 2000;

/// Fits what is asked.
pub fn scaling(asked: &ScalingAsked, runs: &[ScalingRun]) -> Scaling {
    let mut seeds: Vec<u64> = Vec::new();
    for run in runs {
        if !seeds.contains(&run.seed) {
            seeds.push(run.seed);
        }
    }
    let mut found = fit(asked, runs, &seeds);
    let open = runs.iter().filter(|run| run.value.is_none()).count();
    if open > 0 {
        found.notes.push(format!("interim: {open} of {} runs have no result", runs.len()));
    }
    intervals(asked, runs, &seeds, &mut found);
    found
}

/// The fits over the runs of these seeds, each counted as often as it is named.
fn fit(asked: &ScalingAsked, runs: &[ScalingRun], seeds: &[u64]) -> Scaling {
    let mut groups: Vec<Budgeted> = Vec::new();
    for points in grouped(asked, runs, seeds) {
        let (optimum, why_none) = if asked.by_budget {
            match optimum(asked, &points.1) {
                Ok(optimum) => (Some(optimum), None),
                Err(why) => (None, Some(why)),
            }
        } else {
            (None, None)
        };
        groups.push(Budgeted { budget: points.0, points: points.1, optimum, why_none });
    }
    let flops = |group: &Budgeted| mean(&group.points.iter().map(|point| point.flops).collect::<Vec<_>>());
    groups.sort_by(|a, b| flops(a).unwrap_or_default().total_cmp(&flops(b).unwrap_or_default()));
    let (laws, notes) = laws(asked, &groups);
    Scaling {
        metric: asked.metric.clone(),
        x: asked.x,
        by_budget: asked.by_budget,
        confidence: asked.confidence,
        groups,
        laws,
        notes,
    }
}

/// The arms of each budget, or all of them.
fn grouped(asked: &ScalingAsked, runs: &[ScalingRun], seeds: &[u64]) -> Vec<(String, Vec<ScalingPoint>)> {
    let mut arms: Vec<(&ScalingRun, Vec<f64>)> = Vec::new();
    for run in runs {
        let times = seeds.iter().filter(|seed| **seed == run.seed).count();
        let values = run.value.iter().flat_map(|value| std::iter::repeat_n(*value, times));
        match arms.iter_mut().find(|(first, _)| first.arm == run.arm) {
            Some((_, known)) => known.extend(values),
            None => arms.push((run, values.collect())),
        }
    }
    let mut groups: Vec<(String, Vec<ScalingPoint>)> = Vec::new();
    for (run, values) in arms {
        let Some(value) = mean(&values) else { continue };
        let [flops, params, tokens, depth] = run.at;
        let point =
            ScalingPoint { arm: run.arm.clone(), flops, params, tokens, depth, value, seeds: values.len() };
        let budget = if asked.by_budget { run.budget.as_str() } else { "all" };
        match groups.iter_mut().find(|(known, _)| known == budget) {
            Some((_, points)) => points.push(point),
            None => groups.push((budget.to_owned(), vec![point])),
        }
    }
    for (_, points) in &mut groups {
        points.sort_by(|a, b| a.params.total_cmp(&b.params));
    }
    groups
}

/// The best size among arms of one budget.
fn optimum(asked: &ScalingAsked, points: &[ScalingPoint]) -> Result<Optimum, String> {
    let logs: Vec<(f64, f64)> = points.iter().map(|point| (libm::log(point.params), point.value)).collect();
    let mut sizes: Vec<f64> = points.iter().map(|point| point.params).collect();
    sizes.dedup();
    if sizes.len() < FEWEST {
        return Err(format!("a parabola takes three sizes, there are {}", sizes.len()));
    }
    let parabola = Parabola::through(&logs).ok_or("the sizes lie on a straight line")?;
    let opens = if asked.higher_is_better { -parabola.curvature } else { parabola.curvature };
    let (smallest, largest) = (sizes[0], sizes[sizes.len() - 1]);
    let best = libm::exp(parabola.at);
    if opens <= 0.0 || opens.is_nan() {
        return Err("the fit has no best size: it is not convex".to_owned());
    }
    if best < smallest || best > largest {
        let (side, end) = if best < smallest { ("smaller", smallest) } else { ("larger", largest) };
        return Err(format!("the best size is {side} than any tried ({})", quantity(end)));
    }
    // Tokens between those of the arms beside it, by logarithms.
    let above = points.iter().find(|point| point.params >= best);
    let below = points.iter().rev().find(|point| point.params <= best);
    let (Some(above), Some(below)) = (above, below) else {
        return Err("no size is beside the best".to_owned());
    };
    let share = if above.params > below.params {
        (libm::log(best) - libm::log(below.params)) / (libm::log(above.params) - libm::log(below.params))
    } else {
        0.0
    };
    let between = |of: &dyn Fn(&ScalingPoint) -> f64| {
        libm::exp((1.0 - share) * libm::log(of(below)) + share * libm::log(of(above)))
    };
    Ok(Optimum {
        params: best,
        tokens: between(&|point| point.tokens),
        flops: between(&|point| point.flops),
        value: parabola.value,
        curvature: parabola.curvature,
        params_lower: None,
        params_upper: None,
    })
}

/// The laws over the optima, or over the arms.
fn laws(asked: &ScalingAsked, groups: &[Budgeted]) -> (Vec<Law>, Vec<String>) {
    let mut quantities: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    let mut add = |quantity: &str, points: Vec<(f64, f64)>| quantities.push((quantity.to_owned(), points));
    let what = if asked.by_budget {
        let optima: Vec<Optimum> = groups.iter().filter_map(|group| group.optimum).collect();
        let x = |optimum: &Optimum| match asked.x {
            Axis::Flops | Axis::Depth => optimum.flops,
            Axis::Params => optimum.params,
            Axis::Tokens => optimum.tokens,
        };
        let each = |of: &dyn Fn(&Optimum) -> f64| optima.iter().map(|o| (x(o), of(o))).collect::<Vec<_>>();
        if asked.x != Axis::Params {
            add("best params", each(&|optimum| optimum.params));
        }
        if asked.x != Axis::Tokens {
            add("tokens at best", each(&|optimum| optimum.tokens));
        }
        add(&format!("{} at best", asked.metric), each(&|optimum| optimum.value));
        "budgets with a best size"
    } else {
        let x = |point: &ScalingPoint| match asked.x {
            Axis::Flops => point.flops,
            Axis::Params => point.params,
            Axis::Tokens => point.tokens,
            Axis::Depth => point.depth,
        };
        let points = groups.iter().flat_map(|group| &group.points);
        add(&asked.metric, points.map(|point| (x(point), point.value)).collect());
        "arms"
    };
    let (mut laws, mut notes) = (Vec::new(), Vec::new());
    for (quantity, points) in quantities {
        let mut places: Vec<f64> = points.iter().map(|(x, _)| *x).collect();
        places.sort_by(f64::total_cmp);
        places.dedup_by(|a, b| (*a - *b).abs() <= 1e-9 * b.abs());
        if places.len() < FEWEST {
            let why = format!(
                "no power law: it takes {FEWEST} {what} at different {}, there are {}",
                asked.x.word(),
                places.len()
            );
            if !notes.contains(&why) {
                notes.push(why);
            }
            continue;
        }
        let Some(law) = PowerLaw::through(&points) else {
            notes.push(format!("no power law of {quantity}: some of it is not above 0"));
            continue;
        };
        let off = points.iter().map(|(x, y)| (y / law.y(*x)).max(law.y(*x) / y)).fold(1.0, f64::max);
        laws.push(Law {
            quantity,
            coefficient: law.coefficient,
            exponent: law.exponent,
            lower: None,
            upper: None,
            points: points.len(),
            off_by: off,
        });
    }
    (laws, notes)
}

/// Gives exponents and best sizes their intervals: by a bootstrap over seeds where there are enough of them, else by t
/// over the fits of each seed alone, which takes three.
fn intervals(asked: &ScalingAsked, runs: &[ScalingRun], seeds: &[u64], found: &mut Scaling) {
    let percent = asked.confidence * 100.0;
    if seeds.len() < 3 {
        found.notes.push(format!("no intervals: they take three seeds, there are {}", seeds.len()));
        return;
    }
    let bootstraps = seeds.len() >= BOOTSTRAP;
    let fits: Vec<Scaling> = if bootstraps {
        let mut rng = SplitMix64::new(20_260_101);
        let mut draw = || {
            let at = (rng.next_f64() * seeds.len() as f64) as usize;
            seeds.get(at).copied().unwrap_or_default()
        };
        (0..DRAWS).map(|_| fit(asked, runs, &seeds.iter().map(|_| draw()).collect::<Vec<_>>())).collect()
    } else {
        seeds.iter().map(|seed| fit(asked, runs, &[*seed])).collect()
    };
    let interval = |values: Vec<f64>| -> Option<(f64, f64)> {
        // What only some of the fits have is no more certain than those that have it not.
        if values.len() * 20 < fits.len() * 19 {
            return None;
        }
        if bootstraps {
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            let tail = (1.0 - asked.confidence) / 2.0;
            let at = |share: f64| sorted.get((share * (sorted.len() - 1) as f64).round() as usize).copied();
            return Some((at(tail)?, at(1.0 - tail)?));
        }
        let half = t_quantile(f64::midpoint(1.0, asked.confidence), values.len() as f64 - 1.0)
            * standard_deviation(&values)?
            / (values.len() as f64).sqrt();
        let middle = mean(&values)?;
        Some((middle - half, middle + half))
    };
    let mut without = 0;
    for law in &mut found.laws {
        let exponents = fits.iter().filter_map(|fit| {
            fit.laws.iter().find(|other| other.quantity == law.quantity).map(|other| other.exponent)
        });
        match interval(exponents.collect()) {
            Some((lower, upper)) => (law.lower, law.upper) = (Some(lower), Some(upper)),
            None => without += 1,
        }
    }
    for group in &mut found.groups {
        let Some(optimum) = &mut group.optimum else { continue };
        let params = fits.iter().filter_map(|fit| {
            let same = fit.groups.iter().find(|other| other.budget == group.budget)?;
            Some(libm::log(same.optimum?.params))
        });
        match interval(params.collect()) {
            Some((lower, upper)) => {
                (optimum.params_lower, optimum.params_upper) =
                    (Some(libm::exp(lower)), Some(libm::exp(upper)));
            }
            None => without += 1,
        }
    }
    let method = if bootstraps {
        format!("{DRAWS} resamplings of the {} seeds", seeds.len())
    } else {
        format!("t over the fits of each of {} seeds; a bootstrap takes {BOOTSTRAP}", seeds.len())
    };
    found.notes.push(format!("intervals: {percent} %, by {method}"));
    if without > 0 {
        found.notes.push(format!("{without} of them left out: too many of those fits have nothing there"));
    }
}

impl Scaling {
    /// The rows of `scaling.parquet`: arms, then best sizes, then laws.
    pub fn rows(&self) -> Vec<ScalingRow> {
        let empty = |kind: &str| ScalingRow {
            kind: kind.to_owned(),
            metric: self.metric.clone(),
            x: self.x.word().to_lowercase(),
            budget: None,
            arm: None,
            seeds: None,
            params: None,
            tokens: None,
            flops: None,
            depth: None,
            value: None,
            quantity: None,
            coefficient: None,
            exponent: None,
            lower: None,
            upper: None,
            detail: String::new(),
        };
        let points = self.groups.iter().flat_map(|group| {
            group.points.iter().map(|point| ScalingRow {
                budget: Some(group.budget.clone()),
                arm: Some(point.arm.clone()),
                seeds: Some(point.seeds as u64),
                params: Some(point.params),
                tokens: Some(point.tokens),
                flops: Some(point.flops),
                depth: Some(point.depth),
                value: Some(point.value),
                ..empty("arm")
            })
        });
        let optima = self.groups.iter().filter(|_| self.by_budget).map(|group| ScalingRow {
            budget: Some(group.budget.clone()),
            params: group.optimum.map(|optimum| optimum.params),
            tokens: group.optimum.map(|optimum| optimum.tokens),
            flops: group.optimum.map(|optimum| optimum.flops),
            value: group.optimum.map(|optimum| optimum.value),
            lower: group.optimum.and_then(|optimum| optimum.params_lower),
            upper: group.optimum.and_then(|optimum| optimum.params_upper),
            detail: group.why_none.clone().unwrap_or_default(),
            ..empty("best")
        });
        let laws = self.laws.iter().map(|law| ScalingRow {
            quantity: Some(law.quantity.clone()),
            coefficient: Some(law.coefficient),
            exponent: Some(law.exponent),
            lower: law.lower,
            upper: law.upper,
            detail: format!("over {} points, off by a factor of at most {:.4}", law.points, law.off_by),
            ..empty("law")
        });
        let notes = self.notes.iter().map(|note| ScalingRow { detail: note.clone(), ..empty("note") });
        points.chain(optima).chain(laws).chain(notes).collect()
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by_budget {
            let mut table = Table::new([
                "budget",
                ">arms",
                ">best params",
                "interval",
                ">tokens",
                &format!(">{}", self.metric),
                "",
            ]);
            for group in &self.groups {
                let of = |of: fn(&Optimum) -> String| group.optimum.as_ref().map(of).unwrap_or_default();
                let interval = |optimum: &Optimum| match (optimum.params_lower, optimum.params_upper) {
                    (Some(lower), Some(upper)) => format!("{} to {}", quantity(lower), quantity(upper)),
                    _ => String::new(),
                };
                table.push(vec![
                    group.budget.clone(),
                    group.points.len().to_string(),
                    of(|optimum| quantity(optimum.params)),
                    of(interval),
                    of(|optimum| quantity(optimum.tokens)),
                    of(|optimum| format!("{:.5}", optimum.value)),
                    group.why_none.clone().unwrap_or_default(),
                ]);
            }
            write!(f, "{table}")?;
        }
        for law in &self.laws {
            writeln!(f, "{}", self.said(law))?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

impl Scaling {
    /// A law in words: `best params = 0.12 FLOPs^0.51 (0.48 to 0.54), over 3 points, off by at most 1.2 %`.
    pub fn said(&self, law: &Law) -> String {
        let interval = match (law.lower, law.upper) {
            (Some(lower), Some(upper)) => format!(" ({lower:.4} to {upper:.4})"),
            _ => String::new(),
        };
        format!(
            "{} = {:.4} {}^{:.4}{interval}, over {} points, off by at most {:.2} %",
            law.quantity,
            Short(law.coefficient),
            self.x.word(),
            law.exponent,
            law.points,
            (law.off_by - 1.0) * 100.0
        )
    }
}

/// A factor of any size.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (1e-3..1e5).contains(&self.0.abs()) {
            write!(f, "{:.4}", self.0)
        } else {
            write!(f, "{:.4e}", self.0)
        }
    }
}

/// `1.25M`.
pub(super) fn quantity(value: f64) -> String {
    for (limit, unit) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= limit && value < 1e15 {
            return format!("{:.2}{unit}", value / limit);
        }
    }
    if value >= 1e15 { format!("{value:.2e}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs whose optima are N = 0.1 C^0.5 exactly, at losses of 10 C^-0.05.
    fn runs(seeds: u64, noise: f64) -> Vec<ScalingRun> {
        let mut runs = Vec::new();
        let mut rng = SplitMix64::new(5);
        for flops in [1e12, 1e13, 1e14_f64] {
            let best = 0.1 * flops.sqrt();
            for size in [0.25, 0.5, 1.0, 2.0, 4.0] {
                for seed in 0..seeds {
                    let params = best * size;
                    let log = libm::log(size);
                    let value = 10.0 * libm::pow(flops, -0.05) + 0.1 * log * log;
                    let value = value + noise * (rng.next_f64() - 0.5);
                    runs.push(ScalingRun {
                        arm: format!("{flops:e} {size}"),
                        seed,
                        budget: format!("{flops:e} FLOPs"),
                        at: [flops, params, flops / (6.0 * params), 1.0],
                        value: Some(value),
                    });
                }
            }
        }
        runs
    }

    fn asked(by_budget: bool) -> ScalingAsked {
        ScalingAsked {
            metric: "val_bpb".to_owned(),
            higher_is_better: false,
            x: Axis::Flops,
            by_budget,
            confidence: 0.95,
        }
    }

    #[test]
    fn what_was_put_in_comes_out() {
        let found = scaling(&asked(true), &runs(1, 0.0));
        let exponent =
            |quantity: &str| found.laws.iter().find(|law| law.quantity == quantity).unwrap().exponent;
        assert!((exponent("best params") - 0.5).abs() < 1e-6, "{found:?}");
        assert!((exponent("tokens at best") - 0.5).abs() < 1e-6);
        assert!((exponent("val_bpb at best") + 0.05).abs() < 1e-6);
        assert!(found.laws.iter().all(|law| law.lower.is_none()));
        assert_eq!(found.notes, ["no intervals: they take three seeds, there are 1"]);
    }

    #[test]
    fn intervals_hold_the_truth_and_shrink() {
        let width = |seeds| {
            let found = scaling(&asked(true), &runs(seeds, 0.05));
            let law = &found.laws[0];
            let (lower, upper) = (law.lower.unwrap(), law.upper.unwrap());
            assert!(lower < 0.5 && 0.5 < upper, "{seeds}: {law:?}");
            let optimum = found.groups[0].optimum.unwrap();
            assert!(
                optimum.params_lower.unwrap() < 1e5 && 1e5 < optimum.params_upper.unwrap(),
                "{optimum:?}"
            );
            (upper - lower, found.notes[0].clone())
        };
        let ((few, t), (many, bootstrap)) = (width(3), width(12));
        assert!(many < few, "{many} {few}");
        assert!(t.contains("t over the fits of each of 3 seeds") && bootstrap.contains("2000 resamplings"));
    }

    #[test]
    fn what_the_arms_do_not_tell_is_said() {
        let why = |change: &dyn Fn(&mut ScalingRun)| {
            let mut runs = runs(1, 0.0);
            runs.iter_mut().for_each(change);
            let found = scaling(&asked(true), &runs);
            let why = found.groups[0].why_none.clone();
            [why.unwrap_or_default(), found.notes.join("; "), found.laws.len().to_string()].join("\n")
        };
        let all = [
            why(&|run| run.value = run.value.map(|value| -value)),
            // Ever larger is ever better.
            why(&|run| run.value = Some(5.0 - libm::log(run.at[1]) + 0.001 * libm::log(run.at[1]).powi(2))),
            why(&|run| run.value = Some(1.0 + libm::log(run.at[1]).powi(2))),
            why(&|run| run.at[1] = if run.at[1] > 0.1 * run.at[0].sqrt() { 2e6 } else { 1e6 }),
            why(&|run| run.value = run.value.filter(|_| run.at[0] < 5e13)),
        ];
        insta::assert_snapshot!(all.join("\n---\n"));
    }

    #[test]
    fn without_groups_a_law_goes_through_all_arms() {
        let mut runs = runs(1, 0.0);
        runs.retain(|run| run.arm.ends_with(" 1"));
        let found = scaling(&asked(false), &runs);
        assert_eq!((found.groups.len(), found.laws.len(), found.laws[0].points), (1, 1, 3));
        assert!((found.laws[0].exponent + 0.05).abs() < 1e-9);
        runs.truncate(2);
        assert_eq!(scaling(&asked(false), &runs).laws, []);
    }
}
