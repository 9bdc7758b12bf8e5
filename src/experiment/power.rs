//! What an experiment's verdicts can find out, told before it is run.

use super::Experiment;
use crate::record::{ScorecardRow, read_table};
use crate::stats::{detectable, seeds_for, t_quantile};
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
    /// In words.
    pub words: String,
}

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
        let mut power = Power {
            seeds,
            deviation,
            assumed: assumed.is_some(),
            detectable: find(seeds),
            detectable_with_one_more: find(seeds + 1),
            seeds_for_margin: deviation.and_then(|known| seeds_for(quality.margin, known, confidence)),
            words: String::new(),
        };
        power.words = power.said(&word(&quality.metric), quality.margin, confidence);
        Some(power)
    }

    /// The largest deviation that a card in the experiment's directory has; a card that cannot be read has none.
    fn known_deviation(&self) -> Option<f64> {
        let rows: Vec<ScorecardRow> = read_table(&self.files, &self.dir.file("scorecard.parquet")).ok()?;
        let known = rows.iter().filter_map(|row| row.deviation).filter(|deviation| *deviation > 0.0);
        known.max_by(f64::total_cmp)
    }
}

impl Power {
    fn said(&self, metric: &str, margin: f64, confidence: f64) -> String {
        let plural = |seeds: u32| if seeds == 1 { "1 seed".to_owned() } else { format!("{seeds} seeds") };
        let reach = |seeds: u32| {
            let dof = f64::from(seeds.saturating_sub(1).max(1));
            t_quantile(f64::midpoint(1.0, confidence), dof) / f64::from(seeds).sqrt()
        };
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
        format!("{effect}; {margin} (differences scatter by {deviation:.2e}, {source})")
    }
}
