//! What an experiment's verdicts can find out, told before it is run.

use super::Experiment;
use crate::manifest::settings::QualityVariance;
use crate::record::{ScorecardRow, read_table};
use crate::stats::{detectable, detectable_together, dunnett_quantile, look_levels, seeds_for, t_quantile};
use crate::text::word;

/// What the seeds of an experiment can decide.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Power {
    /// Seeds that the arm with the fewest has in common with its control.
    pub seeds: u32,
    /// Standard deviation of a difference between seeds, of the metric; none where nothing is known of it.
    pub deviation: Option<f64>,
    /// Whether that was assumed by the manifest; else it is from the results here.
    pub assumed: bool,
    /// The smallest effect that four of five such experiments find.
    pub detectable: Option<f64>,
    /// The same with one more seed.
    pub detectable_with_one_more: Option<f64>,
    /// Seeds with which an interval is no wider than the margin to either side.
    pub seeds_for_margin: Option<u32>,
    /// How far another validation text of the same size would move a difference, by the results here, at their confidence;
    /// none where that is not known.
    pub text_reach: Option<f64>,
    /// How far an interval over these seeds reaches, of one arm; none where nothing is known of the spread.
    pub seeds_reach: Option<f64>,
    /// What each look before the end can decide, and the last one; none where quality is judged once.
    pub looks: Vec<LookPower>,
    /// In words.
    pub words: String,
}

/// What a look can decide.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LookPower {
    /// Seeds that it is over.
    pub seeds: u32,
    /// Its nominal two-sided level, of all arms that share a control.
    pub level: f64,
    /// Arms that share a control, of which the largest family.
    pub arms: u32,
    /// Degrees of freedom with which their spread is known; none where it is assumed.
    pub dof: Option<f64>,
    /// Standard errors that an interval reaches to either side; none beyond all measure.
    pub quantile: Option<f64>,
    /// How far that is, in standard deviations of a difference.
    pub reach: Option<f64>,
    /// The smallest effect that four of five such looks find, of the metric; none where nothing is known of the spread.
    pub detectable: Option<f64>,
    /// In words.
    pub words: String,
}

/// A look that reaches so many times as far as the last one decides almost nothing.
const ALMOST_NOTHING: f64 = 5.0;

impl Experiment {
    /// What the seeds can decide, for one arm against its control; none where nothing is compared. What several arms
    /// cost and a pooled spread gains is not in it.
    pub fn power(&self) -> Option<Power> {
        let quality = &self.manifest.head.scorecard.quality;
        let runs_of = |arm: usize| self.plan.runs.iter().filter(move |run| run.arm == arm);
        let pairs = self.plan.arms.iter().enumerate().filter_map(|(index, arm)| {
            let control = arm.control?;
            let both = runs_of(index)
                .filter(|run| runs_of(control).any(|other| other.config.seed == run.config.seed));
            u32::try_from(both.count()).ok()
        });
        let seeds = pairs.min()?;
        let assumed = quality.sigma.value().map(|sigma| std::f64::consts::SQRT_2 * sigma);
        let deviation = assumed.or_else(|| self.known_deviation());
        let confidence = quality.confidence;
        let find = |seeds| detectable(deviation?, seeds, confidence);
        let metric = word(&quality.metric);
        let mut power = Power {
            seeds,
            deviation,
            assumed: assumed.is_some(),
            detectable: find(seeds),
            detectable_with_one_more: find(seeds + 1),
            seeds_for_margin: deviation.and_then(|known| seeds_for(quality.margin, known, confidence)),
            text_reach: self.known_text_reach(&metric),
            seeds_reach: deviation.zip(reach(seeds, confidence)).map(|(deviation, reach)| reach * deviation),
            looks: Vec::new(),
            words: String::new(),
        };
        power.looks = self.look_powers(deviation);
        power.words = power.said(&metric, quality.margin, confidence);
        Some(power)
    }

    /// What the looks can decide, for an arm of the largest family of arms that share a control.
    fn look_powers(&self, deviation: Option<f64>) -> Vec<LookPower> {
        let Some(looks) = &self.plan.looks else { return Vec::new() };
        let quality = &self.manifest.head.scorecard.quality;
        let controls: Vec<usize> = self.plan.arms.iter().filter_map(|arm| arm.control).collect();
        let sizes = controls.iter().map(|control| controls.iter().filter(|other| *other == control).count());
        let arms = u32::try_from(sizes.max().unwrap_or(1)).unwrap_or(u32::MAX);
        let mut distinct = controls.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let families = (distinct.len() * (1 + quality.also.len())).max(1);
        let levels = look_levels((1.0 - quality.confidence) / families as f64, &looks.information());
        let pooled = quality.variance == QualityVariance::Pooled && arms > 1;
        let assumed = quality.sigma.value().is_some();
        let metric = word(&quality.metric);
        let mut powers: Vec<LookPower> = looks
            .after
            .iter()
            .zip(levels)
            .map(|(&seeds, level)| {
                let seeds = u32::try_from(seeds).unwrap_or(u32::MAX);
                let own = f64::from(seeds.saturating_sub(1));
                let dof = if pooled { f64::from(arms) * own } else { own };
                let dof = if assumed { f64::INFINITY } else { dof };
                // What each alone knows of its spread is no common one: an even share then.
                let (level_of, count) =
                    if pooled || assumed { (level, arms) } else { (level / f64::from(arms), 1) };
                let quantile = Some(dunnett_quantile(1.0 - level_of, count, dof)).filter(|q| *q < 1e9);
                let reach = quantile.map(|quantile| quantile / f64::from(seeds).sqrt());
                let find = |deviation: f64| detectable_together(deviation, seeds, level_of, count, dof);
                LookPower {
                    seeds,
                    level,
                    arms,
                    dof: Some(dof).filter(|dof| dof.is_finite()),
                    quantile,
                    reach,
                    detectable: deviation.map(find).filter(|_| quantile.is_some()),
                    words: String::new(),
                }
            })
            .collect();
        let last = powers.last().and_then(|look| look.reach);
        let all = looks.seeds.len();
        for look in &mut powers {
            look.words = look.said(all, &metric, last);
        }
        powers
    }

    /// The largest deviation that a card in the experiment's directory has; a card that cannot be read has none.
    fn known_deviation(&self) -> Option<f64> {
        let rows = self.card()?;
        let known = rows.iter().filter_map(|row| row.deviation).filter(|deviation| *deviation > 0.0);
        known.max_by(f64::total_cmp)
    }

    /// The furthest that another validation text moves a difference in `metric` by that card.
    fn known_text_reach(&self, metric: &str) -> Option<f64> {
        let rows = self.card()?;
        let known = rows.iter().filter(|row| row.metric == metric).filter_map(|row| row.text_reach);
        known.max_by(f64::total_cmp)
    }

    fn card(&self) -> Option<Vec<ScorecardRow>> {
        read_table(&self.files, &self.dir.file("scorecard.parquet")).ok()
    }
}

/// How far an interval over so many seeds reaches to either side, in standard deviations of a difference; none of one.
fn reach(seeds: u32, confidence: f64) -> Option<f64> {
    let dof = f64::from(seeds.checked_sub(1).filter(|dof| *dof > 0)?);
    Some(t_quantile(f64::midpoint(1.0, confidence), dof) / f64::from(seeds).sqrt())
}

impl LookPower {
    /// `last` is how far the last look's interval reaches.
    fn said(&self, all: usize, metric: &str, last: Option<f64>) -> String {
        let level =
            if self.level < 1e-3 { format!("{:.1e}", self.level) } else { format!("{:.4}", self.level) };
        let head = format!("after {} of {all} seeds, p < {level}", self.seeds);
        let (Some(quantile), Some(reach)) = (self.quantile, self.reach) else {
            return format!("{head}: decides nothing");
        };
        let effect = match self.detectable {
            Some(effect) => format!(", four of five find an effect of {effect:.2e} {metric}"),
            None => String::new(),
        };
        let little = match last {
            Some(last) if reach > ALMOST_NOTHING * last => "; decides almost nothing",
            _ => "",
        };
        format!(
            "{head}: beyond {quantile:.2} standard errors, {reach:.2} standard deviations of a difference{effect}{little}"
        )
    }
}

impl Power {
    fn said(&self, metric: &str, margin: f64, confidence: f64) -> String {
        let plural = |seeds: u32| if seeds == 1 { "1 seed".to_owned() } else { format!("{seeds} seeds") };
        let reach = |seeds: u32| reach(seeds.max(2), confidence).unwrap_or_default();
        let Some(deviation) = self.deviation else {
            let more = self.seeds.max(1) + 1;
            let here = match self.seeds {
                0 | 1 => format!("{} decides nothing", plural(self.seeds)),
                seeds => format!(
                    "with {} an interval reaches {:.1} standard deviations of a difference to either side",
                    plural(seeds),
                    reach(seeds)
                ),
            };
            return format!(
                "{here}, with {more} {:.1}; how much seeds scatter is not known yet",
                reach(more)
            );
        };
        let source = if self.assumed { "as the manifest assumes" } else { "as in the results here" };
        let effect = match (self.detectable, self.detectable_with_one_more) {
            (Some(now), Some(more)) => format!(
                "with {} four of five experiments find an effect of {now:.2e} {metric}, with {} one of {more:.2e}",
                plural(self.seeds),
                self.seeds + 1
            ),
            (_, Some(more)) => format!(
                "{} decides nothing, with {} four of five experiments find an effect of {more:.2e} {metric}",
                plural(self.seeds),
                self.seeds + 1
            ),
            _ => format!("{} decides nothing", plural(self.seeds)),
        };
        let margin = match self.seeds_for_margin {
            Some(seeds) => format!("the margin of {margin} takes {seeds}"),
            None => format!("the margin of {margin} takes more than anybody has"),
        };
        let text = match (self.text_reach, self.seeds_reach) {
            (Some(text), Some(seeds)) if text > seeds => format!(
                "; another validation text of the same size would move a difference by \u{b1}{text:.2e}, more than these seeds \
                 leave (\u{b1}{seeds:.2e}): more eval.tokens tell more than more seeds"
            ),
            (Some(text), _) => format!(
                "; another validation text of the same size would move a difference by \u{b1}{text:.2e}, whatever the seeds"
            ),
            (None, _) => String::new(),
        };
        format!("{effect}; {margin} (differences scatter by {deviation:.2e}, {source}){text}")
    }
}
