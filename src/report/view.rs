//! What a page makes of its experiments: their arms in one row, and the curves of each.

use super::curve::Curve;
use super::lines::{Chart, Line};
use super::palette::Look;
use super::subject::{Definition, Evaluated, Run, Subject};

/// The most points of a curve in a page; all of them are in the tables beside it.
pub(super) const POINTS: usize = 2000;

/// Experiments side by side.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) subjects: &'a [Subject],
    /// The arms of all of them.
    pub(super) arms: Vec<ArmView<'a>>,
}

/// An arm and the runs of it.
#[derive(Debug)]
pub(super) struct ArmView<'a> {
    /// Whose it is, by place.
    pub(super) subject: usize,
    /// What its experiment calls it.
    pub(super) arm: &'a str,
    /// What the page calls it: with several experiments, their name too.
    pub(super) name: String,
    /// How it is drawn.
    pub(super) look: Look,
    /// Its runs of the plan.
    pub(super) runs: Vec<&'a Run>,
}

/// A curve of a single run.
#[derive(Debug, Clone)]
pub(super) struct RunLine {
    pub(super) arm: usize,
    pub(super) seed: u64,
    pub(super) curve: Curve,
}

/// A chart with what only scripts show of it.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    pub(super) chart: Chart,
    /// What the values are and where they are from, in a sentence or two.
    pub(super) caption: String,
    /// Tokens trained on at step s are (s + offset) times the batch.
    pub(super) offset: u64,
    /// Whether values scatter from step to step, so that smoothing helps.
    pub(super) smooth: bool,
    /// Each run for itself.
    pub(super) runs: Vec<RunLine>,
}

/// An experiment without a matrix has one arm, which has no name.
pub(super) fn shown(arm: &str) -> &str {
    if arm.is_empty() { "(all)" } else { arm }
}

impl<'a> View<'a> {
    /// Of these experiments.
    pub(super) fn of(subjects: &'a [Subject]) -> Self {
        let several = subjects.len() > 1;
        let mut arms: Vec<ArmView<'a>> = Vec::new();
        for (place, subject) in subjects.iter().enumerate() {
            for run in subject.runs.iter().filter(|run| run.is_planned()) {
                let known = arms.iter_mut().find(|arm| arm.subject == place && arm.arm == run.row.arm);
                if let Some(arm) = known {
                    arm.runs.push(run);
                } else {
                    let name = shown(&run.row.arm);
                    let name = if several { format!("{}: {name}", subject.name) } else { name.to_owned() };
                    let look = Look::of(arms.len());
                    arms.push(ArmView { subject: place, arm: &run.row.arm, name, look, runs: vec![run] });
                }
            }
        }
        Self { subjects, arms }
    }

    /// Whether it is about several experiments.
    pub(super) fn is_comparison(&self) -> bool {
        self.subjects.len() > 1
    }

    /// The arm of that name in the experiment at that place.
    pub(super) fn arm(&self, subject: usize, name: &str) -> Option<&ArmView<'a>> {
        self.arms.iter().find(|arm| arm.subject == subject && arm.arm == name)
    }

    /// How the arm of that name is drawn.
    pub(super) fn look(&self, subject: usize, name: &str) -> Look {
        self.arm(subject, name).map_or(Look::of(0), |arm| arm.look)
    }

    /// Loss and evaluations.
    pub(super) fn curves(&self) -> Vec<Plot> {
        let caption = "Mean loss of each step, before its update.";
        let mut plots =
            self.by_definition("loss", "train_loss", "Training loss", "nats/token", caption, 1, &|run| {
                let points = run.losses.iter().enumerate();
                Curve::plain(points.map(|(step, loss)| (step as u64, f64::from(*loss))))
            });
        for plot in &mut plots {
            plot.smooth = true;
        }
        plots.extend(self.evaluations());
        plots
    }

    fn evaluations(&self) -> Vec<Plot> {
        let mut metrics = vec!["val_bpb".to_owned()];
        for subject in self.subjects {
            if !metrics.contains(&subject.metric) {
                metrics.push(subject.metric.clone());
            }
        }
        let mut plots = Vec::new();
        for (at, metric) in metrics.iter().enumerate() {
            let is_bpb = metric == "val_bpb";
            let unit = if is_bpb { "bits/byte" } else { metric.as_str() };
            let title = if is_bpb { "Validation, bits a byte" } else { metric.as_str() };
            let id = if at == 0 { "eval".to_owned() } else { format!("eval-of-{at}") };
            let caption = "Each evaluation, after so many steps.";
            let of = |run: &Run| {
                let value = |one: &Evaluated| Some((one.step, *one.values.get(metric)?));
                Curve::plain(run.evaluations.iter().filter_map(value))
            };
            let mut found = self.by_definition(&id, metric, title, unit, caption, 0, &of);
            for plot in &mut found {
                plot.chart.marks = true;
            }
            plots.append(&mut found);
        }
        plots
    }

    /// A chart for each definition of the metric: what is measured differently is not drawn on one axis.
    fn by_definition(
        &self,
        id: &str,
        metric: &str,
        title: &str,
        unit: &str,
        caption: &str,
        offset: u64,
        of: &dyn Fn(&Run) -> Curve,
    ) -> Vec<Plot> {
        let mut definitions: Vec<Option<&Definition>> = Vec::new();
        for run in self.arms.iter().flat_map(|arm| &arm.runs) {
            let measured = run.data.measured.get(metric);
            if !definitions.contains(&measured) {
                definitions.push(measured);
            }
        }
        let mut plots = Vec::new();
        for definition in &definitions {
            let of = |run: &Run| {
                if run.data.measured.get(metric) == *definition { of(run) } else { Curve::default() }
            };
            let mut caption = caption.to_owned();
            if definitions.len() > 1 {
                let own = definition.map(Vec::as_slice).unwrap_or_default();
                // Only what is not the same in all of them.
                let differs = |field: &str, value: &str| {
                    definitions
                        .iter()
                        .flatten()
                        .any(|other| !other.iter().any(|(f, v)| *f == field && v == value))
                };
                let words: Vec<String> = own
                    .iter()
                    .filter(|(field, value)| differs(field, value))
                    .map(|(field, value)| format!("{field} {value}"))
                    .collect();
                caption = format!(
                    "{caption} What is measured differently is not drawn together; here: {}.",
                    words.join(", ")
                );
            }
            let id = if plots.is_empty() { id.to_owned() } else { format!("{id}-{}", plots.len() + 1) };
            let plot = self.plot(&id, title, unit, &caption, offset, &of);
            if !plot.chart.lines.is_empty() {
                plots.push(plot);
            }
        }
        plots
    }

    /// What steps consumed; arms that share a schedule are one line.
    pub(super) fn schedules(&self) -> Vec<Plot> {
        let each = [
            ("lr", "Learning rate", "multiplier of every base rate", 0),
            ("momentum", "Muon's momentum", "momentum", 1),
            ("decay", "Muon's weight decay", "weight decay", 2),
        ];
        let mut plots = Vec::new();
        for (id, title, unit, which) in each {
            let mut lines: Vec<Line> = Vec::new();
            for (place, arm) in self.arms.iter().enumerate() {
                let schedule = arm.runs.iter().map(|run| &run.schedule).find(|steps| !steps.is_empty());
                let points = schedule.into_iter().flatten().enumerate();
                let value = |(step, values): (usize, &[f64; 3])| Some((step as u64, *values.get(which)?));
                let curve = Curve::plain(points.filter_map(value));
                if curve.extent().is_none() {
                    continue;
                }
                let curve = curve.corners();
                match lines.iter_mut().find(|line| line.curve == curve) {
                    Some(same) => same.name = format!("{}, {}", same.name, arm.name),
                    None => lines.push(Line { arm: place, name: arm.name.clone(), look: arm.look, curve }),
                }
            }
            if let [line] = lines.as_mut_slice()
                && self.arms.len() > 1
            {
                "all arms".clone_into(&mut line.name);
            }
            let says_nothing = lines.iter().all(|line| line.curve.values.iter().all(|value| *value == 0.0));
            if !lines.is_empty() && !says_nothing {
                let chart = Chart {
                    id: id.to_owned(),
                    title: title.to_owned(),
                    unit: unit.to_owned(),
                    lines,
                    marks: false,
                };
                plots.push(Plot {
                    chart,
                    caption: String::new(),
                    offset: 1,
                    smooth: false,
                    runs: Vec::new(),
                });
            }
        }
        plots
    }

    /// Tokens a second.
    pub(super) fn throughput(&self) -> Option<Plot> {
        let of = |run: &Run| {
            // The first step allocates.
            let steps = run.seconds.iter().enumerate().skip(1);
            let speed = |(step, seconds): (usize, &f32)| {
                (*seconds > 0.0).then(|| (step as u64, run.batch as f64 / f64::from(*seconds)))
            };
            Curve::plain(steps.filter_map(speed)).medians(120)
        };
        let caption = "Tokens over wall time of each step, the median of every stretch of steps; the first step is left \
            out. Where runs trained at the same time, or on different machines, this tells of the machine and not of the \
            arm. Steps that were shared have the time of the run that trained them.";
        let plot = self.plot("throughput", "Throughput", "tokens/s", caption, 1, &of);
        (!plot.chart.lines.is_empty()).then_some(plot)
    }

    /// The chart of what `of` gives for each run: means over the finished runs of every arm, else over those that ended.
    fn plot(
        &self,
        id: &str,
        title: &str,
        unit: &str,
        caption: &str,
        offset: u64,
        of: &dyn Fn(&Run) -> Curve,
    ) -> Plot {
        let (mut lines, mut runs) = (Vec::new(), Vec::new());
        let mut bands = false;
        for (place, arm) in self.arms.iter().enumerate() {
            let own: Vec<(&Run, Curve)> = arm
                .runs
                .iter()
                .map(|run| (*run, of(run)))
                .filter(|(_, curve)| !curve.steps.is_empty())
                .collect();
            let some_finished = own.iter().any(|(run, _)| run.is_finished());
            let counted: Vec<&Curve> = own
                .iter()
                .filter(|(run, _)| run.is_finished() || !some_finished)
                .map(|(_, curve)| curve)
                .collect();
            // Whole curves are there for one arm at a time.
            let curve = Curve::mean(&counted).thinned(POINTS);
            bands |= curve.band.is_some();
            if !curve.steps.is_empty() {
                lines.push(Line { arm: place, name: arm.name.clone(), look: arm.look, curve });
            }
            let thinned = |(run, curve): (&Run, Curve)| RunLine {
                arm: place,
                seed: run.row.seed,
                curve: curve.thinned(POINTS),
            };
            runs.extend(own.into_iter().map(thinned));
        }
        // With one seed an arm, the runs are the lines.
        if runs.len() == lines.len() {
            runs.clear();
        }
        let mut caption = caption.to_owned();
        if bands {
            caption +=
                " Lines are means over the seeds of an arm, bands reach from its lowest seed to its highest.";
        }
        let chart =
            Chart { id: id.to_owned(), title: title.to_owned(), unit: unit.to_owned(), lines, marks: false };
        Plot { chart, caption, offset, smooth: false, runs }
    }
}

impl ArmView<'_> {
    /// Seconds of training after so many steps, the mean over the runs that count; none before any was trained.
    pub(super) fn elapsed(&self) -> Vec<f64> {
        let some_finished = self.runs.iter().any(|run| run.is_finished());
        let counted: Vec<&&Run> = self
            .runs
            .iter()
            .filter(|run| (run.is_finished() || !some_finished) && !run.seconds.is_empty())
            .collect();
        let steps = counted.iter().map(|run| run.seconds.len()).min().unwrap_or(0);
        let mut elapsed = vec![0.0; steps + 1];
        for run in &counted {
            let mut sum = 0.0;
            for (step, seconds) in run.seconds.iter().take(steps).enumerate() {
                sum += f64::from(*seconds);
                elapsed[step + 1] += sum / counted.len() as f64;
            }
        }
        elapsed
    }
}
