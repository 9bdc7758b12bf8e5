//! How runs are watched: a bar each on a terminal, sober lines elsewhere.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::console::{self, Kind as Line};
use crate::files::now;
use crate::host::process_age_seconds;
use crate::plan::render::duration;
use crate::text::printable;
use crate::train::checkpoint::EvalPoint;
use crate::train::observer::{Event, Observer, Origin};

/// How often a line reports steps where there are no bars.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How often programs that watch are told of steps, at most.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// All the runs of an experiment, as they are shown.
#[derive(Clone)]
pub struct Display {
    kind: Kind,
    /// When the first optimizer step in this process was done, in seconds since the process began.
    first_step: Arc<OnceLock<Option<f64>>>,
}

#[derive(Clone)]
enum Kind {
    Bars(MultiProgress),
    Lines(Arc<Mutex<()>>),
    Json,
    Silent,
}

impl Display {
    /// Bars on a terminal.
    pub fn bars() -> Self {
        Self::of(Kind::Bars(MultiProgress::new()))
    }

    /// Lines on stderr.
    pub fn lines() -> Self {
        Self::of(Kind::Lines(Arc::default()))
    }

    /// JSON lines on stderr, for programs.
    pub fn json() -> Self {
        Self::of(Kind::Json)
    }

    /// Nothing.
    pub fn silent() -> Self {
        Self::of(Kind::Silent)
    }

    fn of(kind: Kind) -> Self {
        Self { kind, first_step: Arc::default() }
    }

    /// Seconds from the start of this process to the end of the first optimizer step in it; none before that, and
    /// where the system does not tell.
    pub fn first_step_seconds(&self) -> Option<f64> {
        self.first_step.get().copied().flatten()
    }

    /// A line above the bars.
    pub fn line(&self, text: &str) {
        match &self.kind {
            Kind::Bars(bars) => {
                let text = &*printable(text);
                console::log(text);
                let _ = bars.println(text);
            }
            Kind::Lines(lock) => {
                let _guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
                console::say(Line::Progress, text);
            }
            Kind::Json => console::say(Line::Note, text),
            Kind::Silent => {}
        }
    }

    /// Starts showing a run of `steps` steps.
    pub fn run(&self, label: &str, steps: u64) -> RunProgress {
        let bar = match &self.kind {
            Kind::Bars(bars) => {
                let bar = bars.add(ProgressBar::new(steps));
                // The bar takes what the numbers leave: on 80 columns none of them is cut off.
                let style = "{prefix:24!} {wide_bar} {pos}/{len} {msg}  eta {eta}";
                if let Ok(style) = ProgressStyle::with_template(style) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(printable(label).into_owned());
                bar.enable_steady_tick(Duration::from_millis(500));
                Some(bar)
            }
            _ => None,
        };
        RunProgress {
            display: self.clone(),
            label: label.to_owned(),
            steps,
            bar,
            last_line: now(),
            loss: None,
            val_bpb: None,
            rate: Rate::default(),
        }
    }
}

/// One run, as it is shown.
pub struct RunProgress {
    display: Display,
    label: String,
    steps: u64,
    bar: Option<ProgressBar>,
    last_line: Instant,
    loss: Option<f32>,
    val_bpb: Option<f64>,
    rate: Rate,
}

/// Exponential average of step times, for tok/s and the time left.
#[derive(Default)]
struct Rate {
    seconds: f64,
    weight: f64,
    tokens: u64,
}

impl Rate {
    fn add(&mut self, seconds: f64, tokens: u64) {
        self.seconds = 0.9 * self.seconds + 0.1 * seconds;
        self.weight = 0.9 * self.weight + 0.1;
        self.tokens = tokens;
    }

    fn seconds_per_step(&self) -> f64 {
        if self.weight > 0.0 { self.seconds / self.weight } else { 0.0 }
    }

    fn tokens_per_second(&self) -> f64 {
        let seconds = self.seconds_per_step();
        if seconds > 0.0 { self.tokens as f64 / seconds } else { 0.0 }
    }
}

impl RunProgress {
    fn is_json(&self) -> bool {
        matches!(self.display.kind, Kind::Json)
    }

    /// A line for programs about this run; what it is are the fields of `fields`.
    fn tell(&self, event: &str, fields: serde_json::Value) {
        let mut line = json!({ "run": self.label, "steps": self.steps });
        if let (Some(line), serde_json::Value::Object(fields)) = (line.as_object_mut(), fields) {
            line.extend(fields);
        }
        console::event(event, line);
    }

    /// What programs are told of.
    fn event_json(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { step, origin } => {
                let origin = match origin {
                    Origin::Scratch => "scratch",
                    Origin::Checkpoint => "checkpoint",
                    Origin::Prefix => "prefix",
                    Origin::Attempt => "attempt",
                };
                self.tell("run_started", json!({ "step": step, "from": origin }));
            }
            Event::Step(done) => {
                self.display.first_step.get_or_init(process_age_seconds);
                self.loss = Some(done.loss);
                self.rate.add(done.seconds, done.tokens);
                let last = done.step + 1 >= self.steps;
                if last || self.last_line.elapsed() >= EVENT_EVERY {
                    self.last_line = now();
                    let left = (self.steps - (done.step + 1).min(self.steps)) as f64;
                    let fields = json!({
                        "step": done.step + 1,
                        "loss": done.loss,
                        "lr_multiplier": done.lr_multiplier,
                        "seconds": done.seconds,
                        "tokens_per_second": self.rate.tokens_per_second(),
                        "eta_seconds": left * self.rate.seconds_per_step(),
                    });
                    self.tell("step", fields);
                }
            }
            Event::Evaluating { step } => self.tell("evaluating", json!({ "step": step })),
            Event::Evaluated(done, point) => {
                self.val_bpb = Some(done.val_bpb);
                let fields = json!({ "step": done.step, "values": plain(point), "seconds": done.seconds });
                self.tell("evaluated", fields);
            }
            Event::Measured { point, seconds } => {
                let fields = json!({ "step": point.step, "values": plain(point), "seconds": seconds });
                self.tell("evaluated", fields);
            }
            Event::Saved { step } => self.tell("saved", json!({ "step": step })),
            Event::Note(text) => self.tell("note", json!({ "text": text })),
            Event::Saving => {}
        }
    }

    fn numbers(&self) -> String {
        let loss = self.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}"));
        let bpb = self.val_bpb.map_or_else(|| "-".to_owned(), |bpb| format!("{bpb:.4}"));
        format!("loss {loss}  val bpb {bpb}  {} tok/s", grouped(self.rate.tokens_per_second()))
    }

    fn show(&self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(self.numbers());
        }
    }

    /// The run ended; `how` says how in a few words.
    pub fn finish(self, how: &str) {
        if self.is_json() {
            console::log(&format!("{}: {how}", self.label));
            self.tell("run_ended", json!({ "how": how, "loss": self.loss, "val_bpb": self.val_bpb }));
        } else if let Some(bar) = &self.bar {
            console::log(&printable(&format!("{}: {}  {how}", self.label, self.numbers())));
            // Nothing is left to wait for.
            if let Ok(style) = ProgressStyle::with_template("{prefix:24!} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar.set_message(format!("{}  {how}", self.numbers()));
            bar.abandon();
        } else {
            self.display.line(&format!("{}: {how}", self.label));
        }
    }
}

impl Observer for RunProgress {
    fn event(&mut self, event: &Event<'_>) {
        if self.is_json() {
            return self.event_json(event);
        }
        match event {
            Event::Started { step, origin } => {
                let from = match origin {
                    Origin::Scratch => String::new(),
                    Origin::Checkpoint => format!(", resumed after step {step}"),
                    Origin::Prefix => format!(", first {step} steps shared"),
                    Origin::Attempt => format!(", evaluated anew after step {step}"),
                };
                if self.bar.is_some() {
                    self.show(*step);
                } else {
                    self.display.line(&format!("{}: {} steps{from}", self.label, self.steps));
                }
            }
            Event::Step(done) => {
                self.display.first_step.get_or_init(process_age_seconds);
                self.loss = Some(done.loss);
                self.rate.add(done.seconds, done.tokens);
                self.show(done.step + 1);
                if self.bar.is_none() && self.last_line.elapsed() >= LINE_EVERY {
                    self.last_line = now();
                    let left = (self.steps - done.step.min(self.steps)) as f64 * self.rate.seconds_per_step();
                    self.display.line(&format!(
                        "{}: step {}/{}  {}  eta {}",
                        self.label,
                        done.step + 1,
                        self.steps,
                        self.numbers(),
                        duration(left)
                    ));
                }
            }
            Event::Evaluated(done, _) => {
                self.val_bpb = Some(done.val_bpb);
                self.show(done.step);
                if self.bar.is_none() {
                    self.display.line(&format!(
                        "{}: step {}/{}  val bpb {:.4}",
                        self.label, done.step, self.steps, done.val_bpb
                    ));
                }
            }
            Event::Measured { point, .. } => {
                for (metric, value) in &point.values {
                    let (step, steps) = (point.step, self.steps);
                    self.display
                        .line(&format!("{}: step {step}/{steps}  {metric} {:.4}", self.label, value.0));
                }
            }
            Event::Note(text) => self.display.line(&format!("{}: {text}", self.label)),
            Event::Evaluating { .. } | Event::Saving | Event::Saved { .. } => {}
        }
    }
}

/// Values of an evaluation as programs read numbers.
fn plain(point: &EvalPoint) -> serde_json::Map<String, serde_json::Value> {
    point.values.iter().map(|(name, value)| (name.clone(), json!(value.0))).collect()
}

/// A whole number with thousands separated.
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::observer::StepDone;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0.4), "0");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }

    #[test]
    fn the_first_step_of_a_process_counts_whichever_run_takes_it() {
        let display = Display::silent();
        let step = |step| {
            let (loss, lr_multiplier, seconds, update_seconds) = (2.5, 1.0, 0.5, 0.1);
            Event::Step(StepDone { step, loss, lr_multiplier, seconds, update_seconds, tokens: 8 })
        };
        let (mut first, mut second) = (display.run("a", 2), display.run("b", 2));
        assert_eq!(display.first_step_seconds(), None);
        second.event(&step(0));
        let told = display.first_step_seconds();
        first.event(&step(0));
        assert_eq!(display.first_step_seconds(), told);
        assert_eq!(told.is_some(), cfg!(target_os = "linux"));
    }

    #[test]
    fn the_rate_forgets() {
        let mut rate = Rate::default();
        for _ in 0..200 {
            rate.add(2.0, 100);
        }
        assert!((rate.tokens_per_second() - 50.0).abs() < 1e-6);
    }
}
