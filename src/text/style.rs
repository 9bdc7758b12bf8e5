//! Colours, where they mean something.

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It went well.
    Good,
    /// It did not.
    Bad,
    /// It is to be looked at.
    Care,
    /// It is beside the point.
    Aside,
}

impl Tone {
    /// The text in its colour. The text is printable already: these are the only control characters that get out.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Good => "32",
            Self::Bad => "31;1",
            Self::Care => "33",
            Self::Aside => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// What the word of a state, an outcome or a kind of message says by its colour; none says nothing.
    pub(crate) fn of(word: &str) -> Option<Self> {
        match word {
            "finished" | "pass" | "better" => Some(Self::Good),
            "error" | "failed" | "diverged" | "damaged" | "FAIL" | "fail" | "worse" => Some(Self::Bad),
            "warning" | "interrupted" | "running" | "undecided" => Some(Self::Care),
            "planned" | "retired" | "not needed" | "note" | "not judged" => Some(Self::Aside),
            _ => None,
        }
    }
}
