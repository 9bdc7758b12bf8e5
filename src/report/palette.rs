//! The look of an arm: a colour of the style sheet and a dash. The style sheet has two values a colour, for light and
//! dark; what is drawn refers to it by class, so that one drawing serves both.

/// Colours that the style sheet has for arms: `.c0` to `.c7`.
pub(super) const COLOURS: usize = 8;

/// Classes by colour.
const CLASSES: [&str; COLOURS] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];

/// Dashes of one round of colours after the other.
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];

/// How an arm is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look(usize);

impl Look {
    /// Of the arm at that place. The first, which is the control in most experiments, is grey.
    pub(super) fn of(arm: usize) -> Self {
        Self(arm)
    }

    /// The class of its colour.
    pub(super) fn class(self) -> &'static str {
        CLASSES[self.0 % COLOURS]
    }

    /// The number of its colour.
    pub(super) fn colour(self) -> usize {
        self.0 % COLOURS
    }

    /// Its dash, as SVG has it.
    pub(super) fn dash(self) -> &'static str {
        DASHES[self.dash_number()]
    }

    /// The number of its dash.
    pub(super) fn dash_number(self) -> usize {
        self.0 / COLOURS % DASHES.len()
    }
}
