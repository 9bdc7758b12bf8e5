//! Which task a worker takes next: what this process knows of all of them, those that others train included.

use std::time::{Duration, Instant};

/// Whether a run may be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Others have to end before.
    Waits,
    /// Not in this start, nor later: nobody needs it.
    Never,
}

/// What a task is to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It has ended, or is no matter of this start's.
    None,
    /// To be trained, by this process or another one.
    Take,
    /// Another process's, whose end may open a gate or is waited for.
    Watch,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Try to take a task.
    Take(usize),
    /// See whether a task has ended that others train.
    Look(usize),
    /// See whether another process's run has come to a step that a task starts from.
    AskDonor {
        /// The task.
        task: usize,
        /// The run it starts from.
        donor: usize,
        /// The step.
        steps: u64,
    },
    /// Nothing, until something changes, or for so long; for ever where only this process can change anything.
    Wait(Option<Duration>),
    /// There is nothing left.
    Over,
}

/// How soon somebody looks again at what others have, the first time.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// What the workers of a process tell each other.
pub(super) struct Board<'s> {
    tasks: Vec<State>,
    /// Newest checkpoint of each task that is being trained.
    reached: Vec<u64>,
    /// Tasks that are being trained here, or whose end is being told.
    running: usize,
    /// For each task the run it takes steps over from, and how many.
    starts: &'s [Option<(usize, u64)>],
    /// Where the search begins: at the first task, or at a trunk of this process's own where others work on these too.
    offset: usize,
    /// The longest between two looks at what others have.
    cap: Duration,
    /// Whether to wait for what others train.
    stay: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nobody of this process has it.
    Waiting {
        theirs: Theirs,
        again: Again,
    },
    Running,
    /// Another process's from the start; since when nobody works on it, where somebody here asked.
    Watched {
        again: Again,
        nobodys: Option<Instant>,
    },
    Ended,
}

/// Whether another process has a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theirs {
    /// Not that anybody knows.
    No,
    /// One had its lease, of which nothing has been heard yet: its machine may be gone.
    Unheard,
    /// One works on it.
    Yes,
}

/// When to look again.
#[derive(Debug, Clone, Copy, Default)]
struct Again {
    at: Option<Instant>,
    looks: u32,
}

impl Again {
    fn is_due(self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// Later, and later still the more often it was looked at.
    fn later(self, now: Instant, cap: Duration) -> Self {
        let pause = FIRST_LOOK.saturating_mul(1 << self.looks.min(16)).min(cap);
        Self { at: Some(now + pause), looks: self.looks + 1 }
    }
}

impl<'s> Board<'s> {
    /// `starts` has for each task the run it takes steps over from and how many. `spread` is a number of this process's own
    /// where others are at work already; none where the search begins at the first task.
    pub(super) fn new(
        parts: &[Part],
        starts: &'s [Option<(usize, u64)>],
        stay: bool,
        cap: Duration,
        spread: Option<usize>,
    ) -> Self {
        let state = |part: &Part| match part {
            Part::None => State::Ended,
            Part::Take => State::Waiting { theirs: Theirs::No, again: Again::default() },
            Part::Watch => State::Watched { again: Again::default(), nobodys: None },
        };
        let mut board = Self {
            tasks: parts.iter().map(state).collect(),
            reached: vec![0; parts.len()],
            running: 0,
            starts,
            offset: 0,
            cap,
            stay,
        };
        if let Some(spread) = spread {
            board.begin_at_own(spread);
        }
        board
    }

    /// Has the search begin at a trunk of this process's own: hundreds that start together would all ask for the same runs,
    /// and whoever began among forks that still wait would go on to the plan's beginning and ask there for what hundreds of
    /// others have.
    fn begin_at_own(&mut self, spread: usize) {
        let is_trunk =
            |&task: &usize| matches!(self.tasks[task], State::Waiting { .. }) && self.starts[task].is_none();
        let mut trunks: Vec<usize> = (0..self.tasks.len()).filter(is_trunk).collect();
        if let Some(at) = spread.checked_rem(trunks.len()) {
            self.offset = trunks.swap_remove(at);
        }
    }

    /// What to do next: what is free, before anybody is asked about what others have. Were it the other way round, a worker
    /// of a thousand would look at a thousand leases before each of its runs.
    pub(super) fn next(&self, gate: impl Fn(usize) -> Gate, now: Instant) -> Next {
        let count = self.tasks.len();
        let each = || (0..count).map(|index| (index + self.offset) % count);
        let (mut open, mut blocked, mut theirs, mut unheard) = (false, false, false, false);
        let mut wake: Option<Instant> = None;
        let mut ask: Option<Next> = None;
        for index in each() {
            let State::Waiting { theirs: is_theirs, again } = self.tasks[index] else { continue };
            match gate(index) {
                Gate::Never => continue,
                Gate::Waits => {
                    (open, blocked) = (true, true);
                    continue;
                }
                Gate::Open => open = true,
            }
            theirs |= is_theirs != Theirs::No;
            unheard |= is_theirs == Theirs::Unheard;
            let donor = self.starts[index].filter(|&(donor, steps)| !self.has_reached(donor, steps));
            blocked |= donor.is_some();
            // What waits for nothing is taken at once, however often somebody looked for what it waited for.
            let waits = is_theirs != Theirs::No || donor.is_some();
            if waits && !again.is_due(now) {
                wake = earliest(wake, again.at);
                continue;
            }
            match donor {
                None if is_theirs == Theirs::No => return Next::Take(index),
                None => ask = ask.or(Some(Next::Take(index))),
                Some((donor, steps)) if self.is_elsewhere(donor) => {
                    ask = ask.or(Some(Next::AskDonor { task: index, donor, steps }));
                }
                Some(_) => {}
            }
        }
        if let Some(ask) = ask {
            return ask;
        }
        // What others have from the start matters to who stays for it, or waits for it.
        let watched = |&index: &usize| matches!(self.tasks[index], State::Watched { .. });
        let watches = (self.stay || blocked) && each().any(|index| watched(&index));
        if watches {
            for index in each() {
                let State::Watched { again, .. } = self.tasks[index] else { continue };
                if again.is_due(now) {
                    return Next::Look(index);
                }
                wake = earliest(wake, again.at);
            }
        }
        let pause = wake.map(|wake| wake.saturating_duration_since(now));
        if self.running > 0 && (open || watches) {
            return Next::Wait(pause);
        }
        // Of what nobody trains any more nobody waits for the end. Who need not stay leaves what others have to them, once it
        // is known that they live: else nobody may be left to take over what the dead of another machine had.
        let changes = theirs || watches;
        if changes && (self.stay || blocked || unheard) { Next::Wait(pause) } else { Next::Over }
    }

    fn has_reached(&self, donor: usize, steps: u64) -> bool {
        matches!(self.tasks[donor], State::Ended) || self.reached[donor] >= steps
    }

    fn is_elsewhere(&self, task: usize) -> bool {
        match self.tasks[task] {
            State::Waiting { theirs, .. } => theirs != Theirs::No,
            State::Watched { .. } => true,
            State::Running | State::Ended => false,
        }
    }

    /// This process is about to take it.
    pub(super) fn take(&mut self, task: usize) {
        self.tasks[task] = State::Running;
        self.running += 1;
    }

    /// Another process turned out to have it. `spread` is where to search from now on, so that many processes that
    /// start at once do not all ask for the same ones. -> whether that is news
    pub(super) fn is_theirs(
        &mut self,
        task: usize,
        known: Known,
        heard: bool,
        now: Instant,
        spread: usize,
    ) -> bool {
        self.running -= 1;
        if !known.0 && self.offset == 0 {
            self.begin_at_own(spread);
        }
        let again = Again { at: None, looks: known.1 }.later(now, self.cap);
        let theirs = if heard { Theirs::Yes } else { Theirs::Unheard };
        self.tasks[task] = State::Waiting { theirs, again };
        !known.0
    }

    /// What is known of a task before it is taken, for [`Self::is_theirs`].
    pub(super) fn known(&self, task: usize) -> Known {
        match self.tasks[task] {
            State::Waiting { theirs, again } => Known(theirs != Theirs::No, again.looks),
            _ => Known(false, 0),
        }
    }

    /// Whoever looked at it found nothing new.
    pub(super) fn later(&mut self, task: usize, now: Instant) {
        match &mut self.tasks[task] {
            State::Waiting { again, .. } | State::Watched { again, .. } => {
                *again = again.later(now, self.cap);
            }
            State::Running | State::Ended => {}
        }
    }

    /// What it waited for has come.
    pub(super) fn is_due(&mut self, task: usize) {
        if let State::Waiting { again, .. } = &mut self.tasks[task] {
            *again = Again::default();
        }
    }

    /// Nobody works on a task of others, though something here waits for it. Once that has been so for `patience`, it is
    /// this process's as well: whoever it was left to may never come.
    pub(super) fn is_nobodys(&mut self, task: usize, now: Instant, patience: Duration) {
        let State::Watched { nobodys, .. } = &mut self.tasks[task] else { return };
        let since = *nobodys.get_or_insert(now);
        if now.saturating_duration_since(since) >= patience {
            self.tasks[task] = State::Waiting { theirs: Theirs::No, again: Again::default() };
        }
    }

    /// Somebody works on a task of others.
    pub(super) fn is_somebodys(&mut self, task: usize) {
        if let State::Watched { nobodys, .. } = &mut self.tasks[task] {
            *nobodys = None;
        }
    }

    /// A run has a checkpoint of this step.
    pub(super) fn reaches(&mut self, task: usize, step: u64) {
        self.reached[task] = self.reached[task].max(step);
    }

    /// It has ended, here or elsewhere.
    pub(super) fn ends(&mut self, task: usize) {
        self.tasks[task] = State::Ended;
    }

    /// The end of a task that was taken here has been told.
    pub(super) fn is_told(&mut self) {
        self.running -= 1;
    }
}

/// Whether a task was known to be another process's, and how often that was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known(bool, u32);

impl Known {
    /// Whether it was known to be another process's.
    pub(super) fn is_theirs(self) -> bool {
        self.0
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::now;

    const CAP: Duration = Duration::from_secs(10);

    fn open(_: usize) -> Gate {
        Gate::Open
    }

    /// Takes a task and finds that it is another process's.
    fn theirs(board: &mut Board<'_>, task: usize, at: Instant) {
        let known = board.known(task);
        board.take(task);
        board.is_theirs(task, known, true, at, 0);
    }

    #[test]
    fn tasks_are_taken_in_their_order_and_forks_after_their_trunk() {
        let starts = [None, Some((0, 5)), None];
        let mut board = Board::new(&[Part::Take; 3], &starts, true, CAP, None);
        let at = now();
        assert_eq!(board.next(open, at), Next::Take(0));
        board.take(0);
        assert_eq!(board.next(open, at), Next::Take(2));
        board.take(2);
        assert_eq!(board.next(open, at), Next::Wait(None));
        board.reaches(0, 5);
        assert_eq!(board.next(open, at), Next::Take(1));
        board.take(1);
        for task in 0..3 {
            board.ends(task);
            board.is_told();
        }
        assert_eq!(board.next(open, at), Next::Over);
    }

    #[test]
    fn what_others_have_is_left_to_them_or_waited_for() {
        for stay in [false, true] {
            let starts = [None, None];
            let mut board = Board::new(&[Part::Take, Part::Take], &starts, stay, CAP, None);
            let at = now();
            theirs(&mut board, 0, at);
            // Another is free: nobody waits.
            assert_eq!(board.next(open, at), Next::Take(1));
            theirs(&mut board, 1, at);
            let next = board.next(open, at);
            let expected = if stay { Next::Wait(Some(FIRST_LOOK)) } else { Next::Over };
            assert_eq!(next, expected);
        }
    }

    #[test]
    fn a_fork_waits_for_the_trunk_that_another_process_trains() {
        let starts = [None, Some((0, 5))];
        let mut board = Board::new(&[Part::Take, Part::Take], &starts, false, CAP, None);
        let at = now();
        theirs(&mut board, 0, at);
        assert_eq!(board.next(open, at), Next::AskDonor { task: 1, donor: 0, steps: 5 });
        board.later(1, at);
        assert_eq!(board.next(open, at), Next::Wait(Some(FIRST_LOOK)));
        board.reaches(0, 5);
        // It is free now. Only then somebody looks what has become of the trunk.
        assert_eq!(board.next(open, at + CAP), Next::Take(1));
        board.take(1);
        assert_eq!(board.next(open, at + CAP), Next::Take(0));
    }

    #[test]
    fn nobody_asks_about_what_others_have_while_something_is_free() {
        let starts = [None, None, Some((0, 5)), None, None, None];
        let mut board = Board::new(&[Part::Take; 6], &starts, false, CAP, None);
        // The third waits for the first, which another process has, as it has the fifth.
        let at = now();
        theirs(&mut board, 0, at);
        theirs(&mut board, 4, at);
        // All that others have is due again each time.
        let mut later = at;
        for free in [1, 3, 5] {
            later += CAP;
            assert_eq!(board.next(open, later), Next::Take(free));
            board.take(free);
            board.ends(free);
            board.is_told();
        }
        assert_eq!(board.next(open, later), Next::AskDonor { task: 2, donor: 0, steps: 5 });
    }

    #[test]
    fn a_fork_of_a_unit_waits_for_a_trunk_of_another_unit() {
        let starts = [None, Some((0, 5)), None];
        let mut board = Board::new(&[Part::Watch, Part::Take, Part::Watch], &starts, false, CAP, None);
        let at = now();
        assert_eq!(board.next(open, at), Next::AskDonor { task: 1, donor: 0, steps: 5 });
        board.later(1, at);
        // The trunk may also have ended without the step.
        assert_eq!(board.next(open, at), Next::Look(0));
        board.ends(0);
        assert_eq!(board.next(open, at), Next::Take(1));
        board.take(1);
        board.ends(1);
        board.is_told();
        // What is left is other units' matter.
        assert_eq!(board.next(open, at + CAP), Next::Over);
    }

    #[test]
    fn what_nobody_trains_is_not_waited_for() {
        let mut board = Board::new(&[Part::Take, Part::Take], &[None, None], true, CAP, None);
        let gate = |index: usize| if index == 1 { Gate::Waits } else { Gate::Open };
        let at = now();
        assert_eq!(board.next(gate, at), Next::Take(0));
        board.take(0);
        assert_eq!(board.next(gate, at), Next::Wait(None));
        board.ends(0);
        board.is_told();
        assert_eq!(board.next(gate, at), Next::Over);
        assert_eq!(board.next(|_| Gate::Never, at), Next::Over);
    }

    #[test]
    fn who_begins_in_the_middle_comes_to_everything_and_to_trunks_before_their_forks() {
        // Two trees of a trunk and a fork each, and a run that nothing shares with.
        let starts = [None, Some((0, 5)), None, Some((2, 5)), None];
        let mut board = Board::new(&[Part::Take; 5], &starts, false, CAP, Some(3 * 7 + 1));
        let at = now();
        let mut taken = Vec::new();
        while let Next::Take(task) = board.next(open, at) {
            taken.push(task);
            board.take(task);
            board.ends(task);
            board.is_told();
        }
        assert_eq!(taken, [2, 3, 4, 0, 1]);
        assert_eq!(board.next(open, at), Next::Over);
    }

    #[test]
    fn who_comes_among_forks_of_others_begins_at_a_trunk_that_is_free() {
        // Trunks with two forks each; of the forks each waits for its trunk.
        let starts: Vec<_> = (0..300).map(|task| (task % 3 != 0).then_some((task / 3 * 3, 5))).collect();
        let parts = vec![Part::Take; 300];
        for spread in 0..400 {
            let board = Board::new(&parts, &starts, false, CAP, Some(spread));
            assert_eq!(board.next(open, now()), Next::Take(spread % 100 * 3));
        }
        // Once others turn out to be at work, too.
        let mut board = Board::new(&parts, &starts, false, CAP, None);
        board.take(0);
        board.is_theirs(0, Known(false, 0), true, now(), 7);
        assert_eq!(board.next(open, now()), Next::Take(24));
    }

    #[test]
    fn nobody_leaves_before_it_is_known_that_others_live() {
        let mut board = Board::new(&[Part::Take], &[None], false, CAP, None);
        let at = now();
        let known = board.known(0);
        board.take(0);
        board.is_theirs(0, known, false, at, 0);
        assert_eq!(board.next(open, at), Next::Wait(Some(FIRST_LOOK)));
        let later = at + CAP;
        assert_eq!(board.next(open, later), Next::Take(0));
        theirs(&mut board, 0, later);
        assert_eq!(board.next(open, later), Next::Over);
    }

    #[test]
    fn a_trunk_of_another_unit_that_nobody_trains_is_taken_by_who_waits_for_it() {
        let starts = [None, Some((0, 5))];
        let mut board = Board::new(&[Part::Watch, Part::Take], &starts, false, CAP, None);
        let at = now();
        let patience = Duration::from_secs(90);
        board.is_nobodys(0, at, patience);
        board.is_nobodys(0, at + Duration::from_secs(60), patience);
        assert_eq!(board.next(open, at), Next::AskDonor { task: 1, donor: 0, steps: 5 });
        // Somebody came, and went again.
        board.is_somebodys(0);
        board.is_nobodys(0, at + Duration::from_secs(100), patience);
        assert_eq!(board.next(open, at), Next::AskDonor { task: 1, donor: 0, steps: 5 });
        board.is_nobodys(0, at + Duration::from_secs(200), patience);
        assert_eq!(board.next(open, at), Next::Take(0));
    }

    #[test]
    fn looks_at_what_others_have_become_rare() {
        let mut board = Board::new(&[Part::Take], &[None], true, Duration::from_secs(5), None);
        let mut at = now();
        let mut waited = Duration::ZERO;
        let mut looks = 0;
        while waited < Duration::from_secs(3600) {
            theirs(&mut board, 0, at);
            let Next::Wait(Some(pause)) = board.next(open, at) else { panic!("it waits") };
            at += pause;
            waited += pause;
            looks += 1;
        }
        assert!(looks < 730, "{looks}");
    }
}
