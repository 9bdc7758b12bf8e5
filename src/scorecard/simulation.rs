//! Errors of verdicts, found by simulation: none is made more often than the confidence says.

use super::*;
use crate::data::{Batch, DocumentStart, Position, RankCursor};
use crate::hash::Digest;
use crate::plan::looks::Looks;
use crate::record::KeptDocuments;
use crate::rng::SplitMix64;
use crate::train::document_losses::DocumentLosses;

/// Experiments that are drawn.
fn draws() -> u32 {
    if std::env::var_os("NANORUN_TEST_LONG").is_some() { 20_000 } else { 2_000 }
}

/// What an experiment is like.
#[derive(Clone)]
struct World {
    /// How much worse each arm truly is than the control, in standard deviations of a run.
    effects: Vec<f64>,
    /// Standard deviation of each arm's runs.
    deviations: Vec<f64>,
    seeds: u64,
    /// Seeds that the last arm lacks.
    missing: u64,
    variance: Variance,
    margin: f64,
    looks: Option<Looks>,
}

impl World {
    fn of(arms: usize, seeds: u64, variance: Variance) -> Self {
        let (effects, deviations) = (vec![0.0; arms], vec![1.0; arms]);
        Self { effects, deviations, seeds, missing: 0, variance, margin: 0.5, looks: None }
    }

    fn looking(self, after: &[usize]) -> Self {
        let seeds: Vec<u64> = (0..self.seeds).collect();
        Self { looks: Some(Looks { seeds, after: after.to_vec() }), ..self }
    }

    fn draw(&self, rng: &mut SplitMix64) -> Vec<Verdict> {
        let arm = |at: usize| if at == 0 { "control".to_owned() } else { format!("arm {at}") };
        let mut runs = Vec::new();
        // What a seed does to all arms is large, and must not count.
        let blocks: Vec<f64> = (0..self.seeds).map(|_| 10.0 * normal(rng)).collect();
        for at in 0..=self.effects.len() {
            let (effect, deviation) = match at.checked_sub(1) {
                None => (0.0, 1.0),
                Some(arm) => (self.effects[arm], self.deviations[arm]),
            };
            let lacks = if at == self.effects.len() { self.missing } else { 0 };
            for seed in 0..self.seeds - lacks {
                let value = 100.0 + blocks[seed as usize] + effect + deviation * normal(rng);
                runs.push(RunSummary {
                    arm: arm(at),
                    seed,
                    metrics: [("val_bpb".to_owned(), value)].into(),
                    ended: true,
                    result_hash: Some(Digest::of(&value.to_bits().to_le_bytes())),
                    ..RunSummary::default()
                });
            }
        }
        let criteria = Criteria {
            controls: (1..=self.effects.len()).map(|at| (arm(at), arm(0))).collect(),
            quality: Some(Quality {
                variance: self.variance,
                looks: self.looks.clone(),
                with_p: false,
                ..Quality::by("val_bpb", self.margin)
            }),
            speed: None,
            targets: Vec::new(),
            baseline: None,
        };
        judge("simulated", None, &criteria, runs).verdicts
    }

    /// The share of experiments in which any arm's interval misses its true effect, and in which any verdict is false.
    fn errors(&self) -> (f64, f64) {
        let mut rng = SplitMix64::new(20_260_101);
        let (mut missed, mut false_verdicts) = (0, 0);
        for _ in 0..draws() {
            let verdicts = self.draw(&mut rng);
            let of = |at: usize| (&verdicts[at], self.effects[at]);
            missed += u32::from((0..verdicts.len()).map(of).any(|(verdict, effect)| {
                let (lower, upper) = verdict.interval.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
                effect < lower || effect > upper
            }));
            false_verdicts +=
                u32::from((0..verdicts.len()).map(of).any(
                    |(verdict, effect)| match verdict.finding.unwrap() {
                        Finding::Better => effect >= 0.0,
                        Finding::Equivalent => effect.abs() > self.margin,
                        Finding::NoWorse => effect > self.margin,
                        Finding::WorseWithinMargin => effect <= 0.0 || effect > self.margin,
                        Finding::Worse => effect <= self.margin,
                        Finding::Undecided => false,
                    },
                ));
        }
        let share = |count: u32| f64::from(count) / f64::from(draws());
        (share(missed), share(false_verdicts))
    }
}

/// A normal deviate, by Box and Muller.
fn normal(rng: &mut SplitMix64) -> f64 {
    let (u, v) = (1.0 - rng.next_f64(), rng.next_f64());
    (-2.0 * libm::log(u)).sqrt() * libm::cos(2.0 * std::f64::consts::PI * v)
}

/// Three standard errors of a share of 5 %.
fn slack() -> f64 {
    3.0 * (0.05 * 0.95 / f64::from(draws())).sqrt()
}

#[expect(clippy::print_stdout, reason = "the figures of the record, shown with --nocapture")]
#[test]
fn errors_are_at_most_what_the_confidence_leaves() {
    let at_the_margin = |mut world: World| {
        // Where a false verdict is most likely: truly at the margin, or at 0.
        world.effects.fill(world.margin);
        world
    };
    for (name, world) in [
        ("one arm, three seeds", World::of(1, 3, Variance::Pair)),
        ("one arm, ten seeds", World::of(1, 10, Variance::Pair)),
        ("one arm at the margin", at_the_margin(World::of(1, 5, Variance::Pair))),
        ("three arms, pooled", World::of(3, 3, Variance::Pooled)),
        ("six arms, pooled", World::of(6, 3, Variance::Pooled)),
        ("three arms at the margin", at_the_margin(World::of(3, 5, Variance::Pooled))),
        ("three arms, each alone", World::of(3, 4, Variance::Pair)),
        ("three arms, spread known", World::of(3, 3, Variance::Assumed(1.0))),
        (
            "unlike arms, each alone",
            World { deviations: vec![1.0, 3.0, 0.3], ..World::of(3, 4, Variance::Pair) },
        ),
        ("looks, one arm", World::of(1, 10, Variance::PooledAsPlanned).looking(&[3, 6, 10])),
        ("looks, three arms", World::of(3, 10, Variance::PooledAsPlanned).looking(&[3, 6, 10])),
        (
            "looks, three arms at the margin",
            at_the_margin(World::of(3, 10, Variance::PooledAsPlanned)).looking(&[3, 6, 10]),
        ),
        ("looks after every seed", World::of(1, 8, Variance::Pair).looking(&[2, 3, 4, 5, 6, 7, 8])),
        ("looks, spread known", World::of(3, 10, Variance::Assumed(1.0)).looking(&[3, 6, 10])),
        (
            "looks, unlike arms, each alone",
            World { deviations: vec![1.0, 3.0, 0.3], ..World::of(3, 10, Variance::Pair) }
                .looking(&[4, 7, 10]),
        ),
        ("seeds missing", World { missing: 2, ..World::of(3, 6, Variance::Pooled) }),
    ] {
        let (missed, wrong) = world.errors();
        println!("{name}: intervals miss {missed:.4}, verdicts are false {wrong:.4}");
        assert!(missed <= 0.05 + slack(), "{name}: {missed}");
        assert!(wrong <= 0.05 + slack(), "{name}: {wrong}");
    }
}

/// Intervals are no wider than they need be: what they leave is used up, where it can be computed exactly.
#[test]
fn intervals_use_what_the_confidence_leaves() {
    for world in [World::of(1, 3, Variance::Pair), World::of(3, 3, Variance::Assumed(1.0))] {
        let (missed, _) = world.errors();
        assert!(missed >= 0.05 - slack(), "{missed}");
    }
}

/// Effects that matter are found, and pooling finds more of them.
#[test]
fn effects_are_found() {
    let found = |variance| {
        let world = World { effects: vec![-3.0, 0.0, 3.0], ..World::of(3, 3, variance) };
        let mut rng = SplitMix64::new(7);
        let mut found = 0;
        for _ in 0..500 {
            let verdicts = world.draw(&mut rng);
            found += u32::from(verdicts[0].finding == Some(Finding::Better));
            found += u32::from(verdicts[2].finding == Some(Finding::Worse));
        }
        f64::from(found) / 1000.0
    };
    let (alone, pooled) = (found(Variance::Pair), found(Variance::Pooled));
    assert!(pooled > 0.4 && pooled > 2.0 * alone, "alone {alone}, pooled {pooled}");
}

/// A validation text: documents of various lengths on which an arm differs from its control by 0.01 bits a byte and by
/// something of each document's own, and what a pair of runs keeps of it.
fn text(documents: u64, times: usize, rng: &mut SplitMix64) -> (f64, KeptDocuments, KeptDocuments) {
    let mut batches = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut nats, mut bytes) = (0.0, 0.0);
    for _ in 0..documents {
        // One token a document, of 1 to 64 bytes: what is added up is the same.
        let length = 1 + (rng.next_f64() * rng.next_f64() * 63.0) as usize;
        let hard = 60.0 + 8.0 * normal(rng);
        // Heavier tails than a normal's.
        let own = 0.4 * normal(rng) * (1.0 + 2.0 * f64::from(rng.next_f64() < 0.05));
        let difference = 0.01 * std::f64::consts::LN_2 * length as f64 + own * (length as f64).sqrt();
        batches.0.push(DocumentStart { at: batches.0.len(), document: rng.next_u64() });
        batches.1.push(length as i32);
        batches.2.push((hard + difference) as f32);
        batches.3.push(hard as f32);
        nats += f64::from((hard + difference) as f32) - f64::from(hard as f32);
        bytes += length as f64;
    }
    let (documents, targets, ours, theirs) = batches;
    let token_bytes: Vec<u32> = (0..65).collect();
    let len = targets.len();
    let (state, cursor_after) = (Position::START, RankCursor::start().into());
    let batch = Batch { inputs: vec![0; len], targets, rows: 1, len, documents, state, cursor_after };
    let kept = |losses: &[f32]| {
        let mut found = DocumentLosses::default();
        (0..times).for_each(|_| found.add(&batch, losses, &token_bytes));
        KeptDocuments::Kept(found)
    };
    (nats / (std::f64::consts::LN_2 * bytes), kept(&ours), kept(&theirs))
}

/// What a card says of the text of one pair of runs. -> the difference, its deviation, its reach at 95 %
fn told((difference, ours, theirs): (f64, KeptDocuments, KeptDocuments)) -> (f64, f64, f64) {
    let run = |arm: &str, value: f64| RunSummary {
        arm: arm.to_owned(),
        metrics: [("val_bpb".to_owned(), value)].into(),
        ended: true,
        result_hash: Some(Digest::of(&value.to_bits().to_le_bytes())),
        ..RunSummary::default()
    };
    let criteria = Criteria {
        controls: [("arm".to_owned(), "control".to_owned())].into(),
        quality: Some(Quality::by("val_bpb", 0.5)),
        ..Criteria::default()
    };
    let mut card =
        judge("simulated", None, &criteria, vec![run("control", 1.0), run("arm", 1.0 + difference)]);
    card.tell_other_text(&mut |at| Ok(if at == 0 { theirs.clone() } else { ours.clone() })).unwrap();
    let row = card.verdicts[0].row();
    (difference, row.text_deviation.unwrap(), row.text_reach.unwrap())
}

/// Texts drawn again and again: the deviation that one text tells of is that of the differences from text to text, of a few
/// documents with a group each and of so many that they share groups; what it reaches covers the truth as often as it says;
/// and a text that is read twice tells no more than once.
#[expect(clippy::print_stdout, reason = "the figures of the record, shown with --nocapture")]
#[test]
fn the_scatter_between_texts_is_told_by_one_of_them() {
    let mut rng = SplitMix64::new(20_261_129);
    let long = std::env::var_os("NANORUN_TEST_LONG").is_some();
    for (documents, texts) in [(60, 500), (400, 300), (12_000, 60)] {
        let texts = if long { 20 * texts } else { texts };
        let found: Vec<(f64, f64, f64)> = (0..texts).map(|_| told(text(documents, 1, &mut rng))).collect();
        let differences: Vec<f64> = found.iter().map(|(difference, ..)| *difference).collect();
        let truly = crate::stats::standard_deviation(&differences).unwrap();
        let squares: f64 = found.iter().map(|(_, deviation, _)| deviation * deviation).sum();
        let told_of = (squares / found.len() as f64).sqrt();
        let missed = found.iter().filter(|(difference, _, reach)| (difference - 0.01).abs() > *reach).count();
        let missed = missed as f64 / found.len() as f64;
        println!(
            "{documents} documents, {texts} texts: scatter {truly:.3e}, told {told_of:.3e}, missed {missed:.4}"
        );
        // Four standard errors of a standard deviation, and of a share of 5 %; small samples of long tails miss a bit more.
        let count = found.len() as f64;
        assert!(
            (told_of / truly - 1.0).abs() < 4.0 / (2.0 * count).sqrt() + 0.01,
            "{told_of} against {truly}"
        );
        assert!(missed < 0.06 + 4.0 * (0.05 * 0.95 / count).sqrt(), "{missed}");
    }
    let again = |times: usize| {
        let (_, deviation, reach) = told(text(300, times, &mut SplitMix64::new(1)));
        (deviation, reach)
    };
    let (once, twice) = (again(1), again(2));
    assert!(
        (once.0 / twice.0 - 1.0).abs() < 1e-9 && (once.1 / twice.1 - 1.0).abs() < 1e-9,
        "{once:?} {twice:?}"
    );
}
