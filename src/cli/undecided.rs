//! `--undecided`: what an undecided verdict is to a gate.

use clap::{Args, ValueEnum};

use crate::error::Class;
use crate::scorecard::{Outcome, Scorecard};

/// What an undecided verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Undecided {
    // Without descriptions: the help of one option would take the form of a page.
    Pass,
    Fail,
}

/// The option.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct UndecidedArgs {
    /// What undecided and interim verdicts exit as: 0 as those that pass (the default), 5 as those that fail
    #[arg(long, value_name = "AS", value_enum)]
    pub(super) undecided: Option<Undecided>,
}

impl UndecidedArgs {
    /// The failure that undecided verdicts of a card are; none where they are none, or there are none.
    pub(super) fn failure(self, card: &Scorecard) -> Option<Class> {
        let undecided = || card.verdicts.iter().any(|verdict| verdict.outcome == Outcome::Undecided);
        (self.undecided == Some(Undecided::Fail) && undecided()).then_some(Class::Verdict)
    }

    /// The gravest of what happened anyway and of that.
    pub(super) fn gravest(self, otherwise: Option<Class>, card: &Scorecard) -> Option<Class> {
        otherwise.into_iter().chain(self.failure(card)).max_by_key(|class| class.severity())
    }
}
