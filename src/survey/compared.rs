//! Two runs side by side.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::one::One;
use super::sheet::shown;
use crate::plan::evaluation::{Departure, Evaluation, TRAIN_LOSS};
use crate::text::{Table, extent, sparkline_between};

/// Evaluations that are listed.
const LISTED: usize = 12;

/// Two runs, compared.
pub struct Compared<'a> {
    a: &'a One,
    b: &'a One,
}

/// Where two curves of losses part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Parting {
    /// One of them has no losses yet.
    NotKnown,
    /// As far as both go, these many steps, they are equal in every bit.
    Nowhere(u64),
    /// The first step whose losses differ.
    At(u64),
}

/// Where two curves of losses part, by their bits.
pub fn parting(a: &[f32], b: &[f32]) -> Parting {
    if a.is_empty() || b.is_empty() {
        return Parting::NotKnown;
    }
    match a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits()) {
        Some(step) => Parting::At(step as u64),
        None => Parting::Nowhere(a.len().min(b.len()) as u64),
    }
}

impl<'a> Compared<'a> {
    /// Of two runs.
    pub fn of(a: &'a One, b: &'a One) -> Self {
        Self { a, b }
    }

    /// Settings that differ: path, and what it is in each.
    fn settings(&self) -> Vec<(String, String, String)> {
        let (a, b) = (self.a.settings(), self.b.settings());
        let paths: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let of = |path: &&String| {
            let (ours, theirs) = (a.get(*path), b.get(*path));
            let text = |side: Option<&String>| side.cloned().unwrap_or_else(|| "-".to_owned());
            (ours != theirs).then(|| ((*path).clone(), text(ours), text(theirs)))
        };
        paths.iter().filter_map(of).collect()
    }

    /// In what they measure a metric differently; none where one of them was never begun.
    fn departures(&self, metric: &str) -> Option<Vec<Departure>> {
        let (a, b) = (self.a.config.as_ref()?, self.b.config.as_ref()?);
        Some(Evaluation::of(a).departures(&Evaluation::of(b), metric))
    }

    /// The metrics that either has, `val_bpb` first, then the loss of training.
    fn metrics(&self) -> Vec<String> {
        let mut metrics = self.a.curves.metrics();
        for metric in self.b.curves.metrics() {
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        metrics.push(TRAIN_LOSS.to_owned());
        metrics
    }

    fn last(one: &One, metric: &str) -> Option<(u64, f64)> {
        if metric == TRAIN_LOSS {
            let steps = one.curves.losses.len() as u64;
            return one.curves.losses.last().map(|loss| (steps, f64::from(*loss)));
        }
        one.curves.of_metric(metric).last().copied()
    }

    fn where_they_part(&self) -> String {
        match parting(&self.a.curves.losses, &self.b.curves.losses) {
            Parting::NotKnown => "one of them has no losses on disk yet".to_owned(),
            Parting::Nowhere(steps) => {
                let (ours, theirs) = (self.a.curves.losses.len() as u64, self.b.curves.losses.len() as u64);
                if ours == theirs {
                    format!("nowhere: the losses of all {steps} steps are equal in every bit")
                } else {
                    format!("nowhere as far as both go: the losses of {steps} steps are equal in every bit")
                }
            }
            Parting::At(0) => "at step 0: they start from other weights, rows or sizes".to_owned(),
            Parting::At(step) => {
                format!("at step {step}: the losses of the {step} steps before are equal in every bit")
            }
        }
    }

    /// For people.
    pub fn text(&self, width: usize) -> String {
        let mut text = String::new();
        for (name, one) in [("A", self.a), ("B", self.b)] {
            let row = &one.row;
            let steps = format!("{} of {} steps", row.steps_done, row.steps);
            let _ = writeln!(text, "{name}  {}  {}  {}, {steps}", one.name(), one.label(), row.status);
        }
        let _ = writeln!(text, "\nthey part {}", self.where_they_part());
        let settings = self.settings();
        if settings.is_empty() {
            let _ = writeln!(text, "\nno setting differs");
        } else {
            let mut table = Table::new(["setting", "A", "B"]);
            for (path, ours, theirs) in settings {
                let short = |value: &str| crate::text::shortened(value, 48).into_owned();
                table.push(vec![path, short(&ours), short(&theirs)]);
            }
            let _ = write!(text, "\n{table}");
        }
        let mut table = Table::new(["last value", ">A", ">B", ">B - A", "comparable"]);
        for metric in self.metrics() {
            let (ours, theirs) = (Self::last(self.a, &metric), Self::last(self.b, &metric));
            if ours.is_none() && theirs.is_none() {
                continue;
            }
            let value =
                |side: Option<(u64, f64)>| side.map_or_else(|| "-".to_owned(), |(_, value)| shown(value));
            let comparable = self.comparable(&metric);
            let difference = match (ours, theirs, &comparable) {
                (Some(ours), Some(theirs), Ok(())) => format!("{:+.5}", theirs.1 - ours.1),
                _ => "-".to_owned(),
            };
            table.push(vec![
                metric,
                value(ours),
                value(theirs),
                difference,
                comparable.map_or_else(|why| why, |()| "yes".to_owned()),
            ]);
        }
        let _ = write!(text, "\n{table}");
        text.push_str(&self.curves(width));
        text
    }

    /// Whether two values of a metric may be compared, else why not.
    fn comparable(&self, metric: &str) -> std::result::Result<(), String> {
        let Some(departures) = self.departures(metric) else {
            return Err("no: one of them was never begun".to_owned());
        };
        let other_contents = metric != "core" && {
            let content = |one: &One| one.config.as_ref().and_then(|config| config.data.content);
            content(self.a) != content(self.b)
        };
        if !departures.is_empty() {
            let words: Vec<String> =
                departures.iter().map(|d| format!("{} is {} and {}", d.field, d.ours, d.theirs)).collect();
            return Err(format!("no: {}", words.join(", ")));
        }
        if other_contents {
            return Err("no: the contents of their shards or tokenizers differ".to_owned());
        }
        Ok(())
    }

    fn curves(&self, width: usize) -> String {
        let room = width.saturating_sub(34).clamp(16, 72);
        let mut text = String::new();
        let of = |one: &One, metric: &str| -> Vec<f64> {
            if metric == TRAIN_LOSS {
                one.curves.losses()
            } else {
                one.curves.of_metric(metric).into_iter().map(|(_, value)| value).collect()
            }
        };
        for metric in self.metrics() {
            let (ours, theirs) = (of(self.a, &metric), of(self.b, &metric));
            if ours.is_empty() && theirs.is_empty() || self.comparable(&metric).is_err() {
                continue;
            }
            let both: Vec<f64> = ours.iter().chain(&theirs).copied().collect();
            let bounds = extent(&both);
            let (low, high) = bounds.unwrap_or_default();
            // Each as long as it went, on one scale.
            let most = ours.len().max(theirs.len()).max(1);
            let length = |values: &[f64]| (room.min(most) * values.len()).div_ceil(most);
            let _ = writeln!(text, "\n{metric}, {} to {}", shown(low), shown(high));
            for (name, values) in [("A", &ours), ("B", &theirs)] {
                let _ = writeln!(text, "  {name}  {}", sparkline_between(values, length(values), bounds));
            }
        }
        let metric = "val_bpb";
        let (ours, theirs) = (self.a.curves.of_metric(metric), self.b.curves.of_metric(metric));
        let common: Vec<(u64, f64, f64)> = ours
            .iter()
            .filter_map(|(step, value)| {
                let other = theirs.iter().find(|(other, _)| other == step)?;
                Some((*step, *value, other.1))
            })
            .collect();
        if !common.is_empty() && self.comparable(metric).is_ok() {
            let every = common.len().div_ceil(LISTED);
            let mut table = Table::new([">step", ">A val_bpb", ">B val_bpb", ">B - A"]);
            for (at, (step, ours, theirs)) in common.iter().enumerate() {
                if at % every == 0 || at + 1 == common.len() {
                    let number = |value: f64| format!("{value:.5}");
                    table.push(vec![
                        step.to_string(),
                        number(*ours),
                        number(*theirs),
                        format!("{:+.5}", theirs - ours),
                    ]);
                }
            }
            let _ = write!(text, "\n{table}");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let side = |one: &One| {
            let evaluations: Vec<Value> = one
                .curves
                .evaluations
                .iter()
                .map(|(step, values)| json!({ "step": step, "values": values }))
                .collect();
            json!({
                "run": one.name(),
                "label": one.label(),
                "status": one.row.status,
                "steps": one.row.steps,
                "steps_done": one.row.steps_done,
                "result_hash": one.row.result_hash,
                "losses": one.curves.losses,
                "evaluations": evaluations,
            })
        };
        let (first, equal) = match parting(&self.a.curves.losses, &self.b.curves.losses) {
            Parting::NotKnown => (None, None),
            Parting::Nowhere(steps) => (None, Some(steps)),
            Parting::At(step) => (Some(step), Some(step)),
        };
        let settings: Vec<Value> = self
            .settings()
            .into_iter()
            .map(|(path, a, b)| json!({ "setting": path, "a": a, "b": b }))
            .collect();
        let values: Vec<Value> = self
            .metrics()
            .into_iter()
            .filter_map(|metric| {
                let (ours, theirs) = (Self::last(self.a, &metric), Self::last(self.b, &metric));
                if ours.is_none() && theirs.is_none() {
                    return None;
                }
                let comparable = self.comparable(&metric);
                let difference =
                    ours.zip(theirs).filter(|_| comparable.is_ok()).map(|(ours, theirs)| theirs.1 - ours.1);
                Some(json!({
                    "metric": metric,
                    "a": ours.map(|(_, value)| value),
                    "b": theirs.map(|(_, value)| value),
                    "difference": difference,
                    "comparable": comparable.is_ok(),
                    "why_not": comparable.err(),
                }))
            })
            .collect();
        json!({
            "format": 1,
            "a": side(self.a),
            "b": side(self.b),
            "settings": settings,
            "first_step_that_differs": first,
            "equal_steps": equal,
            "values": values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_curves_part() {
        assert_eq!(parting(&[], &[1.0]), Parting::NotKnown);
        assert_eq!(parting(&[1.0, 2.0], &[1.0, 2.0, 3.0]), Parting::Nowhere(2));
        assert_eq!(parting(&[1.0, 2.0, 3.0], &[1.0, 2.5, 3.0]), Parting::At(1));
        // Bits, not values.
        assert_eq!(parting(&[0.0], &[-0.0]), Parting::At(0));
        assert_eq!(parting(&[f32::NAN], &[f32::NAN]), Parting::Nowhere(1));
    }
}
