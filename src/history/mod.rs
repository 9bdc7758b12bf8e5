//! A run's lives, folded from the journals of its attempts: the only source of what a result says of shared steps,
//! resumes, times and the circumstances in which it was trained.
//!
//! A process that works on a run is one of its *lives*. The first begins at step 0, or after steps that it takes over
//! from another run; each later one goes on from a checkpoint, and what the life before did beyond that checkpoint is
//! done again: only the steps up to there are kept. What a journal of an older version does not say is unknown, and
//! whatever stands on it is not judged.

use std::collections::BTreeSet;

use crate::files::{FileResult, Files};
use crate::record::{AttemptDir, Conditions, Entry, Event, Journal, RunDir};

/// How a life began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// At step 0.
    Started,
    /// With steps that another run had trained.
    Forked,
    /// With all steps of an earlier attempt at the same run.
    TakenUp,
    /// From a checkpoint of the life before.
    Resumed,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With a result.
    Finished,
    /// With a number that was not finite.
    Diverged,
    /// By a signal, orderly.
    Interrupted,
    /// With an error.
    Failed,
    /// Nobody wrote it down: killed, or still alive.
    Unknown,
}

/// One process's work on a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// How it began.
    pub beginning: Beginning,
    /// Steps done before it.
    pub from: u64,
    /// One past the last of its steps that are kept; none where nothing bounds them yet.
    pub kept_to: Option<u64>,
    /// When it began, UTC, by its host's clock.
    pub since: String,
    /// When its last event was written down.
    pub until: String,
    /// Its host, where that is known.
    pub host: Option<String>,
    /// Its circumstances, where they are known.
    pub conditions: Option<Conditions>,
    /// Wall seconds in its evaluations, as far as they are known.
    pub eval_seconds: f64,
    /// Wall seconds in writing checkpoints, as far as they are known.
    pub checkpoint_seconds: f64,
    /// How it ended.
    pub ended: Ended,
}

impl Life {
    /// Whether any step of it is in the run as it stands.
    pub fn counts(&self) -> bool {
        self.kept_to.is_none_or(|to| to > self.from)
    }
}

/// The lives that lead to where an attempt stands, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// They. The first one started, forked or took up; all others resumed.
    pub lives: Vec<Life>,
    /// When the first process began on it, also where nothing of that one is left; none where nothing is known of any.
    pub begun: Option<String>,
    /// Whether lines of a journal are damaged, so that lives may be missing.
    pub damaged: bool,
}

impl History {
    /// Of an attempt, with the attempts whose steps it took up before it.
    ///
    /// # Errors
    /// A journal that is there and cannot be read.
    pub fn read(files: &Files, run: &RunDir, attempt: &AttemptDir) -> FileResult<Self> {
        let text = Journal::new(files.clone(), attempt.journal()).read()?;
        let mut history = Self { damaged: !text.damaged.is_empty(), ..Self::fold(&text.entries) };
        let earlier = text.entries.iter().rev().find_map(|entry| match entry.event {
            Event::TakenUp { attempt, .. } => Some(attempt),
            _ => None,
        });
        // Only ever an earlier one: a journal that says otherwise is damaged, and must not lead round in a circle.
        if let Some(number) = earlier.filter(|number| *number < attempt.number()) {
            let mut before = Self::read(files, run, &run.attempt(number))?;
            let from = history.lives.first().map(|life| life.from);
            before.lives.iter_mut().for_each(|life| life.kept_to = earliest(life.kept_to, from));
            before.lives.append(&mut history.lives);
            before.begun = before.begun.or(history.begun);
            before.damaged |= history.damaged;
            return Ok(before);
        }
        Ok(history)
    }

    /// Of the entries of one journal.
    pub fn fold(entries: &[Entry]) -> Self {
        let mut lives: Vec<Life> = Vec::new();
        let mut begun_at: Option<String> = None;
        for Entry { at, event } in entries {
            let begins = |beginning, from, host: Option<&String>, conditions: &Option<Conditions>| Life {
                beginning,
                from,
                kept_to: None,
                since: at.clone(),
                until: at.clone(),
                host: host.cloned(),
                conditions: conditions.clone(),
                eval_seconds: 0.0,
                checkpoint_seconds: 0.0,
                ended: Ended::Unknown,
            };
            // In layout 1 another attempt went on in the journal of the finished one.
            let starts_over = matches!(event, Event::Started { .. } | Event::Forked { .. });
            if starts_over && lives.last().is_some_and(|life| life.ended == Ended::Finished) {
                begun_at = None;
            }
            // What starts over has nothing of the lives before.
            let begun = match event {
                Event::Started { host, conditions, .. } => {
                    lives.clear();
                    begins(Beginning::Started, 0, Some(host), conditions)
                }
                Event::Forked { step, host, conditions, .. } => {
                    lives.clear();
                    begins(Beginning::Forked, *step, host.as_ref(), conditions)
                }
                Event::TakenUp { step, host, conditions, .. } => {
                    lives.clear();
                    begins(Beginning::TakenUp, *step, Some(host), conditions)
                }
                Event::Resumed { step, host, conditions } => {
                    begins(Beginning::Resumed, *step, Some(host), conditions)
                }
                event => {
                    if let Some(life) = lives.last_mut() {
                        life.take(event);
                        life.until.clone_from(at);
                    }
                    continue;
                }
            };
            for life in &mut lives {
                life.kept_to = earliest(life.kept_to, Some(begun.from));
            }
            begun_at.get_or_insert_with(|| at.clone());
            lives.push(begun);
        }
        Self { lives, begun: begun_at, damaged: false }
    }

    /// The same of a run that has come to `steps`: what a life did beyond is no step of it, such as an evaluation alone.
    #[must_use]
    pub fn until(mut self, steps: u64) -> Self {
        self.lives.iter_mut().for_each(|life| life.kept_to = earliest(life.kept_to, Some(steps)));
        self
    }

    /// Steps that were trained as part of another run.
    pub fn shared_steps(&self) -> u64 {
        self.lives.first().filter(|life| life.beginning == Beginning::Forked).map_or(0, |life| life.from)
    }

    /// How often it was resumed.
    pub fn resumes(&self) -> u64 {
        self.lives.iter().filter(|life| life.beginning == Beginning::Resumed).count() as u64
    }

    /// Wall seconds in evaluations, as far as they are known.
    pub fn eval_seconds(&self) -> f64 {
        self.lives.iter().map(|life| life.eval_seconds).sum()
    }

    /// Wall seconds in writing checkpoints, as far as they are known.
    pub fn checkpoint_seconds(&self) -> f64 {
        self.lives.iter().map(|life| life.checkpoint_seconds).sum()
    }

    /// Whether every step that is kept is known to have been trained with nothing beside it.
    pub fn alone(&self) -> bool {
        let known = |life: &Life| life.conditions.as_ref().is_some_and(|conditions| conditions.alone);
        !self.damaged && !self.lives.is_empty() && self.lives.iter().filter(|life| life.counts()).all(known)
    }

    /// CPU or accelerator and threads of every life of which steps are kept, each once, in their order as text.
    pub fn machines(&self) -> Vec<String> {
        let counted = self.lives.iter().filter(|life| life.counts());
        let machines: BTreeSet<String> = counted
            .filter_map(|life| life.conditions.as_ref())
            .map(|conditions| format!("{}, {} threads", conditions.machine, conditions.threads))
            .collect();
        machines.into_iter().collect()
    }
}

impl Life {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Evaluated { seconds, .. } => self.eval_seconds += seconds.unwrap_or(0.0),
            Event::Checkpoint { seconds, .. } => self.checkpoint_seconds += seconds.unwrap_or(0.0),
            Event::Interrupted { .. } => self.ended = Ended::Interrupted,
            Event::Failed { .. } => self.ended = Ended::Failed,
            Event::Diverged { .. } => self.ended = Ended::Diverged,
            Event::Finished { .. } => self.ended = Ended::Finished,
            _ => {}
        }
    }
}

fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Digest;

    fn taken(alone: bool, threads: usize) -> Conditions {
        let (environment_class, machine) = ("cpu".to_owned(), "Some CPU".to_owned());
        Conditions { environment_class, machine, threads, alone, generation: None }
    }

    fn fold(events: Vec<Event>) -> History {
        let at = |number| format!("2026-01-31T00:00:0{number}Z");
        let entries: Vec<Entry> =
            events.into_iter().enumerate().map(|(number, event)| Entry { at: at(number), event }).collect();
        History::fold(&entries)
    }

    fn started(conditions: Option<Conditions>) -> Event {
        let (run_key, environment_class) = (Digest::of(b"key"), "cpu".to_owned());
        let (host, nanorun) = ("here".to_owned(), "0.1.0".to_owned());
        Event::Started { run_key, environment_class, host, nanorun, conditions }
    }

    fn forked(step: u64) -> Event {
        Event::Forked { from: Digest::of(b"other"), step, host: None, conditions: Some(taken(true, 2)) }
    }

    fn resumed(step: u64, conditions: Option<Conditions>) -> Event {
        Event::Resumed { step, host: "there".to_owned(), conditions }
    }

    #[test]
    fn a_life_in_company_counts_as_far_as_its_steps_are_kept() {
        let company = || started(Some(taken(false, 1)));
        let history = fold(vec![company(), resumed(4, Some(taken(true, 2)))]);
        assert_eq!(history.lives.iter().map(|life| life.kept_to).collect::<Vec<_>>(), [Some(4), None]);
        assert!(!history.alone());
        assert_eq!(history.machines(), ["Some CPU, 1 threads", "Some CPU, 2 threads"]);
        // Killed before its first step was on disk: nothing of it is left.
        let history = fold(vec![company(), resumed(0, Some(taken(true, 2)))]);
        assert!(history.alone());
        assert_eq!((history.machines(), history.resumes()), (vec!["Some CPU, 2 threads".to_owned()], 1));
        // Gone back beyond a life, as where its checkpoints were damaged.
        let lives = vec![
            started(Some(taken(true, 2))),
            resumed(5, Some(taken(false, 2))),
            resumed(3, Some(taken(true, 2))),
        ];
        let history = fold(lives);
        assert_eq!(history.lives.iter().map(Life::counts).collect::<Vec<_>>(), [true, false, true]);
        assert!(history.alone());
    }

    #[test]
    fn what_starts_over_has_nothing_of_the_lives_before() {
        let seconds = Some(2.0);
        let before = vec![
            forked(3),
            Event::Checkpoint { step: 5, seconds },
            resumed(5, Some(taken(false, 2))),
            Event::Finished { result_hash: Digest::of(b"result") },
        ];
        let history = fold(before.clone());
        assert_eq!((history.shared_steps(), history.resumes(), history.checkpoint_seconds()), (3, 1, 2.0));
        assert_eq!(history.lives.last().map(|life| life.ended), Some(Ended::Finished));
        let history = fold([before, vec![started(Some(taken(true, 2)))]].concat());
        assert_eq!((history.shared_steps(), history.resumes(), history.checkpoint_seconds()), (0, 0, 0.0));
        assert_eq!(history.begun.as_deref(), Some("2026-01-31T00:00:04Z"));
        // A start of which nothing is left was the attempt's beginning all the same.
        let twice = fold(vec![started(None), started(None)]);
        assert_eq!((twice.lives.len(), twice.begun.as_deref()), (1, Some("2026-01-31T00:00:00Z")));
        assert!(history.alone());
    }

    #[test]
    fn what_a_journal_does_not_say_is_not_known() {
        let history = fold(vec![started(None), resumed(4, Some(taken(true, 2)))]);
        assert!(!history.alone());
        assert_eq!(history.machines(), ["Some CPU, 2 threads"]);
        // Of steps that are done again nothing needs to be known.
        assert!(fold(vec![started(None), resumed(0, Some(taken(true, 2)))]).alone());
        let damaged = History { damaged: true, ..fold(vec![started(Some(taken(true, 2)))]) };
        assert!(!damaged.alone());
    }

    #[test]
    fn an_attempt_that_takes_another_up_has_its_lives() {
        let place = tempfile::tempdir().unwrap();
        let run = RunDir::at(place.path());
        let files = Files::new();
        for number in [1, 2] {
            let attempt = run.attempt(number);
            run.make(&files, &attempt).unwrap();
            let journal = Journal::new(files.clone(), attempt.journal());
            if number == 1 {
                journal.add(started(Some(taken(false, 2)))).unwrap();
                journal.add(resumed(4, Some(taken(true, 2)))).unwrap();
            } else {
                let host = "here".to_owned();
                journal
                    .add(Event::TakenUp { attempt: 1, step: 8, host, conditions: Some(taken(true, 2)) })
                    .unwrap();
            }
        }
        let history = History::read(&files, &run, &run.attempt(2)).unwrap();
        assert_eq!(
            history.lives.iter().map(|life| (life.beginning, life.from, life.kept_to)).collect::<Vec<_>>(),
            [
                (Beginning::Started, 0, Some(4)),
                (Beginning::Resumed, 4, Some(8)),
                (Beginning::TakenUp, 8, None)
            ]
        );
        assert!(!history.alone());
        // It trained nothing itself: where and with whom it evaluated is no matter of speed.
        assert!(!history.until(8).lives[2].counts());
        assert!(!History::default().alone(), "without a journal nothing is known");
    }
}
