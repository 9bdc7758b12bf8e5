//! Scores examples and tasks.

use serde::{Deserialize, Serialize};

use super::bundle::{Bundle, Task};
use super::example::{Example, TaskKind};
use super::prompts::prompts;
use super::sequences::{Sequence, sequences, shared};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::train::engine::Engine;

/// Tokens whose logits are held at once.
const AT_ONCE: usize = 16;

/// How many examples of a task were right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Right.
    pub correct: u64,
    /// Of so many.
    pub examples: u64,
}

/// A task's result.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// Its name.
    pub label: String,
    /// What it asks for.
    pub kind: TaskKind,
    /// Solved examples before the one that is asked.
    pub shots: usize,
    /// How many were right.
    pub score: Score,
    /// Part of the examples that were right, in single precision as upstream's mean is.
    pub accuracy: f64,
    /// Percent that guessing gets right.
    pub random_baseline: f64,
    /// 0 where it is as good as guessing, 1 where all is right.
    pub centered: f64,
}

/// A bundle's result.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreResult {
    /// Every task's, in the bundle's order.
    pub tasks: Vec<TaskResult>,
    /// Mean of the centred accuracies: the CORE metric.
    pub core: f64,
}

impl CoreResult {
    /// From the score of every task of a bundle.
    pub fn of(bundle: &Bundle, scores: &[Score]) -> Self {
        let result = |(task, score): (&Task, &Score)| {
            let accuracy = f64::from(score.correct as f32 / score.examples.max(1) as f32);
            // Upstream's order of operations, so that the bits are its.
            let guessed = 0.01 * task.random_baseline;
            TaskResult {
                label: task.label.clone(),
                kind: task.kind,
                shots: task.shots,
                score: *score,
                accuracy,
                random_baseline: task.random_baseline,
                centered: (accuracy - guessed) / (1.0 - guessed),
            }
        };
        let tasks: Vec<TaskResult> = bundle.tasks.iter().zip(scores).map(result).collect();
        let core = tasks.iter().map(|task| task.centered).sum::<f64>() / tasks.len().max(1) as f64;
        Self { tasks, core }
    }
}

/// A model whose answers are scored.
pub struct Subject<'a> {
    /// The model.
    pub engine: &'a mut dyn Engine,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Tokens that it can be fed at most.
    pub context: usize,
}

impl Subject<'_> {
    /// Scores a task. `each` hears how many examples are done, after each of them; its errors end it.
    ///
    /// # Errors
    /// Examples that do not fit the tokenizer or the context, with file and line (class `Input`); logits that are no
    /// numbers (class `Run`); what `each` says; a stop.
    pub fn score(
        &mut self,
        task: &Task,
        each: &mut dyn FnMut(&dyn Engine, u64) -> Result<()>,
    ) -> Result<Score> {
        let mut score = Score { correct: 0, examples: 0 };
        for index in 0..task.examples() {
            crate::stop::check()?;
            let right = self.is_right(task, index);
            // Keys and values of one example are nothing to the next, and nobody's memory in between.
            self.engine.end_decoding();
            score.correct += u64::from(right?);
            score.examples += 1;
            each(self.engine, score.examples)?;
        }
        Ok(score)
    }

    fn is_right(&mut self, task: &Task, index: usize) -> Result<bool> {
        let example = task.example(index)?;
        let prompts = prompts(&example, &task.shots_of(index)?, &task.delimiter)?;
        let sequences = sequences(&prompts, task.kind, self.tokenizer, self.context)
            .map_err(|error| task.locate(index, error))?;
        match example {
            Example::MultipleChoice { gold, .. } | Example::Schema { gold, .. } => {
                Ok(self.most_probable(&sequences)? == gold)
            }
            Example::LanguageModeling { .. } => match sequences.as_slice() {
                [sequence] => self.is_greedy(sequence),
                _ => Err(Error::internal("language modelling has one sequence")),
            },
        }
    }

    /// The sequence with the lowest mean loss a scored token; the first of equals.
    fn most_probable(&mut self, sequences: &[Sequence]) -> Result<usize> {
        let shared = shared(sequences);
        let mut last = Vec::new();
        if shared > 0 {
            let longest = sequences.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(0);
            self.engine.start_decoding(longest)?;
            last = self.engine.decode(prefix(&sequences[0], shared))?;
            self.engine.mark_decoding()?;
        }
        let (mut best, mut least) = (0, f64::NAN);
        for (at, sequence) in sequences.iter().enumerate() {
            if shared == 0 {
                self.engine.start_decoding(sequence.tokens.len())?;
            } else if at > 0 {
                self.engine.rewind_decoding(1)?;
            }
            let (mut sum, mut count) = (0.0, 0_u64);
            self.after(sequence, shared, &last, &mut |logits, token| {
                sum += loss(logits, token)?;
                count += 1;
                Ok(true)
            })?;
            // Of no tokens there is no mean: as in Python's `min`, it is the least where it comes first, and never else.
            let mean = sum / count as f64;
            if at == 0 || mean < least {
                (best, least) = (at, mean);
            }
        }
        Ok(best)
    }

    /// Whether every scored token is the most probable one, the lowest of equals.
    fn is_greedy(&mut self, sequence: &Sequence) -> Result<bool> {
        self.engine.start_decoding(sequence.tokens.len())?;
        let last = self.engine.decode(prefix(sequence, sequence.start))?;
        let mut greedy = true;
        self.after(sequence, sequence.start, &last, &mut |logits, token| {
            check(logits)?;
            let first = logits.first().copied().unwrap_or(f32::NEG_INFINITY);
            let largest = logits.iter().enumerate().fold((0, first), |(best, most), (id, &logit)| {
                if logit > most { (id, logit) } else { (best, most) }
            });
            greedy = largest.0 == token;
            Ok(greedy)
        })?;
        Ok(greedy)
    }

    /// Shows `each` the logits before every scored token, and the token, until it answers false. The engine has been fed
    /// `fed` tokens, after which its logits are `last`.
    fn after(
        &mut self,
        Sequence { tokens, start }: &Sequence,
        fed: usize,
        last: &[f32],
        each: &mut dyn FnMut(&[f32], usize) -> Result<bool>,
    ) -> Result<()> {
        let scored = tokens.get(*start..).unwrap_or_default();
        // Of a sequence that is scored from its very beginning nothing stands before.
        let (Some((first, _)), true) = (scored.split_first(), *start > 0) else { return Ok(()) };
        let between = tokens.get(fed..*start).unwrap_or_default();
        let now = if between.is_empty() { None } else { Some(self.engine.decode(between)?) };
        if !each(now.as_deref().unwrap_or(last), *first as usize)? {
            return Ok(());
        }
        let mut later = scored;
        // After the last one nothing is scored: it is not fed.
        while later.len() > 1 {
            let count = AT_ONCE.min(later.len() - 1);
            let logits = self.engine.decode_last(later.get(..count).unwrap_or_default(), count)?;
            let width = logits.len() / count;
            for (logits, &token) in logits.chunks(width.max(1)).zip(later.iter().skip(1)) {
                if !each(logits, token as usize)? {
                    return Ok(());
                }
            }
            later = later.get(count..).unwrap_or_default();
        }
        Ok(())
    }
}

fn prefix(sequence: &Sequence, len: usize) -> &[i32] {
    sequence.tokens.get(..len).unwrap_or_default()
}

/// `-log softmax(logits)[token]` in nats.
fn loss(logits: &[f32], token: usize) -> Result<f64> {
    check(logits)?;
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| libm::exp(f64::from(logit) - largest)).sum();
    let own = logits.get(token).ok_or_else(|| Error::internal(format!("token {token} has no logit")))?;
    Ok(libm::log(sum) + largest - f64::from(*own))
}

fn check(logits: &[f32]) -> Result<()> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err(Error::run("a logit is not a number")
            .help("the weights have diverged: evaluate an earlier checkpoint"));
    }
    Ok(())
}
