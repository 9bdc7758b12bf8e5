//! What was measured, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use super::StepTimes;
use super::data::DataSpeed;
use super::flops::Work;
use super::machine::Machine;
use super::profile::{OpTime, Phase};
use crate::precision::Precision;
use crate::text::Table;

/// Speed on a number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Threads.
    pub threads: usize,
    /// Tokens a second.
    pub tokens_per_second: f64,
}

/// Measurements of a run's steps. Times in seconds.
#[derive(Debug, Clone)]
pub struct Bench {
    /// Threads of the backend.
    pub threads: usize,
    /// Tokens a step.
    pub tokens_per_step: u64,
    /// Age of the process when the first step began, its data opened and its model made.
    pub first_step_at: Option<f64>,
    /// Time of the first step, which meets cold memory.
    pub first_step_seconds: f64,
    /// How often tensor memory was asked of the system after the first step.
    pub allocations_after_first_step: Option<u64>,
    /// The most memory the process held.
    pub peak_memory_bytes: Option<u64>,
    /// Of products.
    pub precision: Precision,
    /// FLOPs that a step needs.
    pub work: Option<Work>,
    /// What the rate beside each step is of.
    pub yardstick: &'static str,
    /// What CPU and memory can do at most, where that was measured.
    pub machine: Option<Machine>,
    /// Each measured step, with the rate of large products around it or the device's peak, FLOP/s.
    pub steps: Vec<(StepTimes, f64)>,
    /// Time of each op, a step.
    pub ops: Vec<OpTime>,
    /// Speed on one thread and on all.
    pub scaling: Vec<Scaling>,
    /// Speed of its data, where asked for.
    pub data: Option<DataSpeed>,
}

impl Bench {
    /// The median step.
    pub fn step_seconds(&self) -> f64 {
        median(self.steps.iter().map(|(times, _)| times.total()))
    }

    /// At the median step.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens_per_step as f64 / self.step_seconds()
    }

    /// Share of a step that a part of it takes, of all steps.
    fn share(&self, part: impl Fn(&StepTimes) -> f64) -> f64 {
        let total: f64 = self.steps.iter().map(|(times, _)| times.total()).sum();
        self.steps.iter().map(|(times, _)| part(times)).sum::<f64>() / total
    }

    /// FLOP/s of the median step.
    fn rate(&self) -> Option<f64> {
        Some(self.work?.total() as f64 / self.step_seconds())
    }

    /// Each step's rate over that of the products around it, at the median.
    fn share_of_peak(&self) -> Option<f64> {
        let work = self.work?.total() as f64;
        let shares = self.steps.iter().map(|(times, peak)| work / times.total() / peak);
        Some(median(shares)).filter(|share| share.is_finite())
    }

    /// Seconds of each phase, a step.
    fn phase_seconds(&self, phase: Phase) -> f64 {
        self.ops.iter().filter(|op| op.phase == phase).map(|op| op.seconds).sum()
    }

    /// Seconds that no op took, a step: data, losses on the host, handing over.
    fn outside(&self) -> f64 {
        let all: f64 =
            self.steps.iter().map(|(times, _)| times.total()).sum::<f64>() / self.steps.len() as f64;
        (all - self.ops.iter().map(|op| op.seconds).sum::<f64>()).max(0.0)
    }

    /// A step, by the sum of its parts.
    fn seconds_of_all(&self) -> f64 {
        self.ops.iter().map(|op| op.seconds).sum::<f64>() + self.outside()
    }

    /// FLOP/s of an op. The products of a phase are counted together, so all have their common rate.
    fn op_rate(&self, op: &OpTime) -> Option<f64> {
        let work = self.work?;
        let is_product = |op: &OpTime| op.op.contains("linear");
        let products = match op.phase {
            Phase::Forward if is_product(op) => work.linear,
            Phase::Backward if is_product(op) => work.linear_backward,
            _ => return Some(work.of_op(op.op)? as f64 / op.seconds),
        };
        let all = self.ops.iter().filter(|other| other.phase == op.phase && is_product(other));
        Some(products as f64 / all.map(|op| op.seconds).sum::<f64>())
    }

    /// Of the ops whose bytes are known, as their time is that of reading and writing: seconds and bytes a step.
    fn moving(&self) -> (f64, f64) {
        let ops = self.ops.iter().filter(|op| op.bytes > 0.0);
        ops.fold((0.0, 0.0), |(seconds, bytes), op| (seconds + op.seconds, bytes + op.bytes))
    }

    /// As a JSON document.
    pub fn json(&self) -> Value {
        let giga = |rate: Option<f64>| rate.map(|rate| rate / 1e9);
        let ops = self.ops.iter().map(|op| {
            json!({
                "phase": op.phase.name(), "op": op.op, "calls": op.calls, "seconds": op.seconds,
                "gflops_per_second": giga(self.op_rate(op)),
                "gbytes_per_second": giga(byte_rate(op.bytes, op.seconds)),
            })
        });
        let (moving, moved) = self.moving();
        let phases: serde_json::Map<String, Value> = Phase::ALL
            .iter()
            .map(|phase| (phase.name().to_owned(), json!(self.phase_seconds(*phase))))
            .collect();
        let scaling = self
            .scaling
            .iter()
            .map(|at| json!({ "threads": at.threads, "tokens_per_second": at.tokens_per_second }));
        json!({
            "threads": self.threads,
            "precision": self.precision,
            "steps": self.steps.len(),
            "tokens_per_step": self.tokens_per_step,
            "step_seconds": self.step_seconds(),
            "steps_per_second": 1.0 / self.step_seconds(),
            "tokens_per_second": self.tokens_per_second(),
            "gflop_per_step": self.work.map(|work| work.total() as f64 / 1e9),
            "gflops_per_second": giga(self.rate()),
            "yardstick": self.yardstick,
            "sgemm_gflops_per_second": median(self.steps.iter().map(|(_, peak)| peak / 1e9)),
            "share_of_sgemm": self.share_of_peak(),
            "fma_gflops_per_second": giga(self.machine.and_then(|machine| machine.fma)),
            "bf16_pairs_gflops_per_second": giga(self.machine.and_then(|machine| machine.pairs)),
            "copied_gbytes_per_second": giga(self.machine.and_then(|machine| machine.copied)),
            "moving_seconds": moving,
            "moved_gbytes_per_second": giga(byte_rate(moved, moving)),
            "optimizer_share": self.share(|times| times.update),
            "data_share": self.share(|times| times.data),
            "optimizer_seconds": median(self.steps.iter().map(|(times, _)| times.update)),
            "data_wait_seconds": median(self.steps.iter().map(|(times, _)| times.data)),
            "peak_memory_bytes": self.peak_memory_bytes,
            "allocations_after_first_step": self.allocations_after_first_step,
            "process_start_to_first_step_seconds": self.first_step_at,
            "first_step_seconds": self.first_step_seconds,
            "phase_seconds": phases,
            "outside_ops_seconds": self.outside(),
            "ops": ops.collect::<Vec<_>>(),
            "scaling": scaling.collect::<Vec<_>>(),
            "data": self.data.map(|data| data.json()),
        })
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.step_seconds();
        writeln!(
            f,
            "{:.3} steps/s, {:.0} tok/s on {} threads",
            1.0 / step,
            self.tokens_per_second(),
            self.threads
        )?;
        if let (Some(work), Some(rate), Some(share)) = (self.work, self.rate(), self.share_of_peak()) {
            let (work, rate, share) = (work.total() as f64 / 1e9, rate / 1e9, share * 100.0);
            writeln!(f, "{work:.1} GFLOP a step, {rate:.1} GFLOP/s: {share:.0} % of {}", self.yardstick)?;
        }
        let (moving, moved) = self.moving();
        if let Some(Machine { fma, pairs, copied }) = self.machine {
            // What products in bf16 are made of is the faster of both: a CPU may have pairs that are no gain.
            let by_pairs = self.precision == Precision::Bf16 && pairs > fma;
            let limits = [
                (fma, "GFLOP/s of fused multiply-adds", self.rate().filter(|_| !by_pairs)),
                (pairs, "of bf16 pairs", self.rate().filter(|_| by_pairs)),
                (copied, "GB/s of memory copied", byte_rate(moved, moving)),
            ];
            let limits = limits.into_iter().filter_map(|(limit, of, reached)| {
                let limit = limit?;
                let share =
                    reached.map_or_else(String::new, |rate| format!(" ({:.0} %)", rate / limit * 100.0));
                Some(format!("{:.1} {of}{share}", limit / 1e9))
            });
            let limits: Vec<String> = limits.collect();
            if !limits.is_empty() {
                writeln!(f, "at most {}", limits.join(", "))?;
            }
        }
        if let Some(rate) = byte_rate(moved, moving) {
            let (share, rate) = (moving / self.seconds_of_all() * 100.0, rate / 1e9);
            writeln!(f, "ops that move memory and multiply little: {share:.1} % of a step, {rate:.1} GB/s")?;
        }
        let (update, data) = (self.share(|t| t.update) * 100.0, self.share(|t| t.data) * 100.0);
        writeln!(f, "optimizer {update:.1} % of a step, waiting for data {data:.2} %")?;
        if let Some(bytes) = self.peak_memory_bytes {
            let allocations = self.allocations_after_first_step.map_or_else(String::new, |count| {
                format!(", {count} tensor allocations after the first step")
            });
            writeln!(f, "{:.0} MB at the peak{allocations}", bytes as f64 / 1e6)?;
        }
        if let Some(at) = self.first_step_at {
            writeln!(
                f,
                "first step {at:.2} s after the start of the process; it took {:.2} s",
                self.first_step_seconds
            )?;
        }
        for pair in self.scaling.windows(2) {
            let (few, many) = (pair[0], pair[1]);
            let factor = many.tokens_per_second / few.tokens_per_second;
            let (a, b) = (few.threads, many.threads);
            writeln!(
                f,
                "{factor:.2} times as fast on {b} threads as on {a} ({:.0} tok/s)",
                few.tokens_per_second
            )?;
        }
        if let Some(data) = self.data {
            f.write_str(&data.human())?;
        }
        if !self.ops.is_empty() {
            f.write_str(&self.table())?;
        }
        Ok(())
    }
}

impl Bench {
    fn table(&self) -> String {
        let total = self.seconds_of_all();
        let mut table = Table::new(["phase", "op", ">calls", ">ms", ">%", ">GFLOP/s", ">GB/s"]);
        let mut row = |phase: &str, op: &str, calls: &str, seconds: f64, rates: [Option<f64>; 2]| {
            let (ms, share) = (format!("{:.2}", seconds * 1e3), format!("{:.1}", seconds / total * 100.0));
            let words = [phase, op, calls].map(str::to_owned);
            let rates = rates.map(|rate| rate.map_or_else(String::new, |rate| format!("{:.1}", rate / 1e9)));
            table.push(words.into_iter().chain([ms, share]).chain(rates).collect());
        };
        for phase in Phase::ALL {
            for op in self.ops.iter().filter(|op| op.phase == phase) {
                let rates = [self.op_rate(op), byte_rate(op.bytes, op.seconds)];
                row(phase.name(), op.op, &format!("{:.0}", op.calls), op.seconds, rates);
            }
            row(phase.name(), "all", "", self.phase_seconds(phase), [None; 2]);
        }
        row("", "outside ops", "", self.outside(), [None; 2]);
        format!("\n{table}")
    }
}

/// Bytes a second, where bytes are counted.
fn byte_rate(bytes: f64, seconds: f64) -> Option<f64> {
    (bytes > 0.0).then(|| bytes / seconds)
}

/// The middle value; 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.get(values.len().saturating_sub(1) / 2), values.get(values.len() / 2)) {
        (Some(a), Some(b)) => f64::midpoint(*a, *b),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Bench {
        let step = |seconds: f64, peak| {
            (StepTimes { data: 0.0, gradients: seconds * 0.75, update: seconds * 0.25 }, peak)
        };
        let op = |phase, op, seconds| OpTime { phase, op, calls: 1.0, seconds, bytes: 0.0 };
        Bench {
            threads: 2,
            tokens_per_step: 4096,
            first_step_at: Some(0.25),
            first_step_seconds: 2.0,
            allocations_after_first_step: Some(0),
            peak_memory_bytes: Some(500_000_000),
            yardstick: "large matrix products",
            precision: Precision::F32,
            machine: Some(Machine { fma: Some(200e9), pairs: Some(390e9), copied: Some(20e9) }),
            work: Some(Work {
                linear: 10_000_000_000,
                linear_backward: 20_000_000_000,
                attention: 1_000_000_000,
                attention_backward: 2_000_000_000,
                lm_head: 27_000_000_000,
                muon: 20_000_000_000,
            }),
            steps: vec![step(1.0, 160e9), step(4.0, 20e9), step(1.0, 100e9)],
            ops: vec![
                op(Phase::Forward, "linear", 0.15),
                op(Phase::Forward, "linear_add", 0.05),
                op(Phase::Loss, "cross_entropy_train", 0.3),
                op(Phase::Backward, "linear_backward", 0.75),
                op(Phase::Backward, "relu_squared_linear_backward", 0.25),
                OpTime { bytes: 1.5e9, ..op(Phase::Backward, "rms_norm_backward", 0.125) },
                op(Phase::Optimizer, "muon", 0.25),
            ],
            scaling: vec![
                Scaling { threads: 1, tokens_per_second: 2048.0 },
                Scaling { threads: 2, tokens_per_second: 4096.0 },
            ],
            data: Some(DataSpeed {
                threads: 2,
                bytes: 4_000_000,
                tokens: 1_000_000,
                train_seconds: Some(0.5),
                encode_seconds: 0.125,
                packed_tokens_per_second: 2.5e6,
            }),
        }
    }

    #[test]
    fn a_slow_moment_of_the_machine_changes_no_share() {
        let json = sample().json();
        assert_eq!(json["tokens_per_second"], 4096.0);
        assert_eq!(json["gflops_per_second"], 80.0);
        // 80 of 160, 20 of 20, 80 of 100.
        assert_eq!(json["share_of_sgemm"], 0.8);
        assert_eq!(json["optimizer_share"], 0.25);
        // Products of a phase have one rate.
        for (op, rate) in [(0, 50.0), (1, 50.0), (3, 20.0), (4, 20.0)] {
            assert_eq!(json["ops"][op]["gflops_per_second"], rate);
        }
        assert_eq!(json["ops"][5]["gbytes_per_second"], 12.0);
        assert_eq!(json["outside_ops_seconds"], 0.125);
    }

    #[test]
    fn arithmetic_is_held_against_what_products_are_made_of() {
        let limits = |precision, pairs| {
            let mut bench = Bench { precision, ..sample() };
            bench.machine = Some(Machine { fma: Some(200e9), pairs, copied: None });
            bench.to_string().lines().find(|line| line.starts_with("at most")).unwrap_or_default().to_owned()
        };
        let fma = "at most 200.0 GFLOP/s of fused multiply-adds";
        assert_eq!(limits(Precision::F32, Some(400e9)), format!("{fma} (40 %), 400.0 of bf16 pairs"));
        assert_eq!(limits(Precision::Bf16, Some(400e9)), format!("{fma}, 400.0 of bf16 pairs (20 %)"));
        assert_eq!(limits(Precision::Bf16, Some(100e9)), format!("{fma} (40 %), 100.0 of bf16 pairs"));
        assert_eq!(limits(Precision::Bf16, None), format!("{fma} (40 %)"));
    }

    #[test]
    fn people_read_a_table() {
        insta::assert_snapshot!(sample().to_string());
    }
}
