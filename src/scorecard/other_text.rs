//! How much a difference owes to the validation text that it was measured on, apart from what it owes to seeds.
//!
//! Intervals over seeds are about one validation text. Another one of the same size would move the difference, whatever the
//! seeds: by how much is told by the paired bootstrap over its documents. Arm and control are evaluated on the same
//! documents, so what makes a document hard for both cancels; what is left of each document, averaged over the seeds, is
//! drawn anew with replacement. It decides no verdict: which is right for this text is a question of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::answer::digits_of;
use super::finding::Finding;
use super::judge::Scorecard;
use super::verdict::{Verdict, VerdictKind};
use crate::error::Result;
use crate::plan::evaluation::{VAL_BPB, VAL_LOSS};
use crate::record::KeptDocuments;
use crate::stats::{resampled_deviation, t_quantile};
use crate::text::printable;
use crate::train::document_losses::{DocumentLosses, GroupLosses};

/// What another validation text would do to a difference.
#[derive(Debug, Clone, PartialEq)]
pub enum OtherText {
    /// It is known.
    Measured {
        /// Standard deviation of the difference between texts of this size, these runs given.
        deviation: f64,
        /// How far that reaches to either side, at the confidence of the verdict.
        reach: f64,
        /// Different documents that it is told by, about so many where some were read more than once.
        documents: u64,
        /// What would be found by an interval with both in it, where that is not what was found.
        otherwise: Option<Finding>,
    },
    /// It is not; why, in words.
    NotMeasured(String),
}

impl OtherText {
    /// Standard deviation of the difference between texts of this size.
    pub fn deviation(&self) -> Option<f64> {
        match self {
            Self::Measured { deviation, .. } => Some(*deviation),
            Self::NotMeasured(_) => None,
        }
    }

    /// How far another text would move the difference, to either side.
    pub fn reach(&self) -> Option<f64> {
        match self {
            Self::Measured { reach, .. } => Some(*reach),
            Self::NotMeasured(_) => None,
        }
    }

    /// Documents that it is told by.
    pub fn documents(&self) -> Option<u64> {
        match self {
            Self::Measured { documents, .. } => Some(*documents),
            Self::NotMeasured(_) => None,
        }
    }

    /// Whether the text moves the difference further than seeds do.
    fn exceeds_seeds(&self, verdict: &Verdict) -> bool {
        self.reach().zip(seeds_reach(verdict)).is_some_and(|(text, seeds)| text > seeds)
    }

    /// In words, of the verdict that it is about.
    pub(super) fn said(&self, verdict: &Verdict) -> String {
        match self {
            Self::NotMeasured(why) => format!("not measured: {why}"),
            Self::Measured { reach, documents, otherwise, .. } => {
                let mut said = format!(
                    "another validation text of this size ({documents} documents) would move it by {}",
                    shown(*reach)
                );
                if self.exceeds_seeds(verdict) {
                    said.push_str(", more than seeds do: more eval.tokens tell more than more seeds");
                }
                if let Some(finding) = otherwise {
                    let _ = write!(said, "; seeds and text together: {finding}");
                }
                said
            }
        }
    }
}

/// How far the interval over seeds reaches to either side, as if there were no other arm.
fn seeds_reach(verdict: &Verdict) -> Option<f64> {
    verdict.raw_interval.map(|(lower, upper)| 0.5 * (upper - lower))
}

/// With two figures.
fn shown(reach: f64) -> String {
    format!("\u{b1}{reach:.*}", digits_of(reach))
}

impl Scorecard {
    /// Tells of every quality verdict what another validation text would do to it. `of` gives what is kept of the run at a
    /// place of the scorecard.
    ///
    /// # Errors
    /// Those of `of`.
    pub fn tell_other_text(&mut self, of: &mut dyn FnMut(usize) -> Result<KeptDocuments>) -> Result<()> {
        // A control is that of many arms in a row.
        let mut controls: (String, BTreeMap<usize, KeptDocuments>) = Default::default();
        for at in 0..self.verdicts.len() {
            let Some(verdict) = self.verdicts.get(at) else { continue };
            let is_of_text = [VAL_BPB, VAL_LOSS].contains(&verdict.metric.as_str());
            let Some(control) = verdict.control.clone().filter(|_| {
                verdict.kind == VerdictKind::Quality && verdict.difference.is_some() && is_of_text
            }) else {
                continue;
            };
            if controls.0 != control {
                controls = (control.clone(), BTreeMap::new());
            }
            let mut sum = Sum::default();
            for &seed in &verdict.seeds {
                let place = |arm: &str| self.runs.iter().position(|run| run.arm == arm && run.seed == seed);
                let (Some(ours), Some(theirs)) = (place(&verdict.arm), place(&control)) else { continue };
                if let std::collections::btree_map::Entry::Vacant(entry) = controls.1.entry(theirs) {
                    entry.insert(of(theirs)?);
                }
                let Some(kept) = controls.1.get(&theirs) else { continue };
                sum.add((&verdict.arm, &of(ours)?), (&control, kept), seed);
            }
            let found = sum.found(verdict);
            if let Some(verdict) = self.verdicts.get_mut(at) {
                verdict.other_text = Some(found);
            }
        }
        Ok(())
    }

    /// What another validation text would do, beside what seeds do, in sentences; nothing where nobody has looked.
    pub fn other_text(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for metric in [VAL_BPB, VAL_LOSS] {
            let told: Vec<(&Verdict, &OtherText)> = self
                .verdicts
                .iter()
                .filter(|verdict| verdict.metric == metric)
                .filter_map(|verdict| Some((verdict, verdict.other_text.as_ref()?)))
                .collect();
            sentences.extend(measured(metric, &told));
            sentences.extend(not_measured(&told));
        }
        sentences
    }
}

/// Of verdicts by one metric: how far the text moves them, and what that means for some.
fn measured(metric: &str, told: &[(&Verdict, &OtherText)]) -> Vec<String> {
    let range = |values: Vec<f64>| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        match (shown(least), shown(most)) {
            _ if values.is_empty() => None,
            (least, most) if least == most => Some(most),
            (least, most) => Some(format!("{least} to {most}")),
        }
    };
    let Some(text) = range(told.iter().filter_map(|(_, text)| text.reach()).collect()) else {
        return Vec::new();
    };
    let seeds = range(
        told.iter()
            .filter(|(_, text)| text.reach().is_some())
            .filter_map(|(verdict, _)| seeds_reach(verdict))
            .filter(|reach| reach.is_finite())
            .collect(),
    );
    let documents = told.iter().filter_map(|(_, text)| text.documents()).min().unwrap_or_default();
    let percent = told.first().and_then(|(verdict, _)| verdict.confidence).unwrap_or_default() * 100.0;
    let many = told.iter().filter(|(_, text)| text.reach().is_some()).count() > 1;
    let differences = if many { "differences" } else { "difference" };
    let beside = seeds.map(|seeds| format!(", beside {seeds} over seeds")).unwrap_or_default();
    let mut sentences = vec![format!(
        "Another validation text of this size ({documents} documents) would move the {differences} in {metric} by {text} \
         ({percent} %){beside}."
    )];
    let names = |picks: &dyn Fn(&Verdict, &OtherText) -> bool| -> Vec<String> {
        let picked = told.iter().filter(|(verdict, text)| picks(verdict, text));
        picked.map(|(verdict, _)| name(&verdict.arm)).collect()
    };
    let of_text = names(&|verdict, text| text.exceeds_seeds(verdict));
    if !of_text.is_empty() {
        sentences.push(format!(
            "That is more than seeds do to {}: more eval.tokens, or more validation text, tell more there than more seeds.",
            of_text.join(", ")
        ));
    }
    for (verdict, text) in told {
        if let OtherText::Measured { otherwise: Some(finding), .. } = text {
            let found = verdict.finding.map(|finding| finding.to_string()).unwrap_or_default();
            sentences.push(format!(
                "Of {} it is said on this text: {found}; with the text's own scatter beside the seeds' it would be: {finding}.",
                name(&verdict.arm)
            ));
        }
    }
    sentences
}

/// Of which nothing is known, and why.
fn not_measured(told: &[(&Verdict, &OtherText)]) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for (verdict, text) in told {
        let OtherText::NotMeasured(why) = text else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == why.as_str()) {
            Some((_, arms)) => arms.push(name(&verdict.arm)),
            None => reasons.push((why.as_str(), vec![name(&verdict.arm)])),
        }
    }
    let all = reasons.len() == 1 && reasons.iter().all(|(_, arms)| arms.len() == told.len());
    let whose = |arms: &[String]| if all { String::new() } else { format!(" of {}", arms.join(", ")) };
    reasons
        .iter()
        .map(|(why, arms)| {
            format!(
                "How far another validation text would move the difference{} is not measured: {why}.",
                whose(arms)
            )
        })
        .collect()
}

fn name(arm: &str) -> String {
    if arm.is_empty() { "the arm".to_owned() } else { printable(arm).into_owned() }
}

/// Pairs of runs, document by document.
#[derive(Default)]
struct Sum {
    /// What all of them were evaluated on, by the control's run of the first pair.
    text: Option<DocumentLosses>,
    /// By group: sums over pairs of arm - control, of losses on text and of all losses, nats.
    differences: Vec<(f64, f64)>,
    pairs: u32,
    /// Why nothing can be told.
    none: Option<String>,
}

impl Sum {
    fn add(&mut self, ours: (&str, &KeptDocuments), theirs: (&str, &KeptDocuments), seed: u64) {
        let kept = |(arm, kept): (&str, &KeptDocuments)| {
            match kept {
            KeptDocuments::Kept(losses) => Ok(losses.clone()),
            KeptDocuments::Absent => Err(
                "some of these results are of a version that did not keep losses by document, or their documents.parquet is \
                 gone"
                    .to_owned(),
            ),
            KeptDocuments::Damaged(why) => Err(format!("of {} seed {seed}, {why}", name(arm))),
        }
        };
        let (ours, theirs) = match (kept(ours), kept(theirs)) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (Err(why), _) | (_, Err(why)) => {
                self.none.get_or_insert(why);
                return;
            }
        };
        let text = self.text.get_or_insert_with(|| theirs.clone());
        if !text.is_of_the_same_text(&ours) || !text.is_of_the_same_text(&theirs) {
            self.none.get_or_insert_with(|| "they were not evaluated on the same documents".to_owned());
            return;
        }
        let of = |sums: &GroupLosses| (sums.nats.0, sums.loss.0);
        let each = ours.groups().zip(theirs.groups()).map(|((_, ours), (_, theirs))| (of(ours), of(theirs)));
        if self.differences.is_empty() {
            self.differences = each.map(|(ours, theirs)| (ours.0 - theirs.0, ours.1 - theirs.1)).collect();
        } else {
            for (sum, (ours, theirs)) in self.differences.iter_mut().zip(each) {
                sum.0 += ours.0 - theirs.0;
                sum.1 += ours.1 - theirs.1;
            }
        }
        self.pairs += 1;
    }

    /// What it comes to, in the metric of the verdict.
    fn found(self, verdict: &Verdict) -> OtherText {
        let none = |why: &str| OtherText::NotMeasured(why.to_owned());
        if let Some(why) = self.none {
            return OtherText::NotMeasured(why);
        }
        let Some(text) = self.text else { return none("there are no pairs of runs") };
        let pairs = f64::from(self.pairs);
        let of_bytes = verdict.metric == VAL_BPB;
        let scale = if of_bytes { std::f64::consts::LN_2 * pairs } else { pairs };
        let values: Vec<f64> =
            self.differences.iter().map(|(nats, loss)| if of_bytes { nats } else { loss } / scale).collect();
        let weights: Vec<f64> = text
            .groups()
            .map(|(_, sums)| if of_bytes { sums.bytes as f64 } else { sums.targets as f64 })
            .collect();
        let documents = text.different_documents();
        let Some(deviation) = resampled_deviation(&values, &weights) else {
            let are = if documents == 1 { "document is" } else { "documents are" };
            return none(&format!("{documents} different {are} too few to tell"));
        };
        let confidence = verdict.confidence.unwrap_or(0.95);
        let dof = values.len().saturating_sub(1) as f64;
        let reach = t_quantile(f64::midpoint(1.0, confidence), dof) * deviation;
        OtherText::Measured { deviation, reach, documents, otherwise: otherwise(verdict, reach) }
    }
}

/// What an interval that has the text's part in it as well would find, where that is something else.
fn otherwise(verdict: &Verdict, reach: f64) -> Option<Finding> {
    let (lower, upper) = verdict.interval?;
    let (difference, found) = (verdict.difference?, verdict.finding?);
    // What is undecided already, or interim, is no surer with more in it.
    if found == Finding::Undecided {
        return None;
    }
    // The two are independent: one is about which text, the other about which seeds.
    let (below, above) = (difference - lower, upper - difference);
    let wide = |half: f64| (half * half + reach * reach).sqrt();
    let ends = (difference - wide(below), difference + wide(above));
    let (low, high) = if verdict.higher_is_better { (-ends.1, -ends.0) } else { ends };
    let finding = Finding::of(low, high, verdict.limit.unwrap_or_default());
    (finding != found).then_some(finding)
}
