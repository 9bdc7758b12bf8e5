//! The error type every command reports, and the process exit codes.
//!
//! Modules whose callers match on a failure have an enum of their own and convert it into an [`Error`] here,
//! which carries what a person needs: what was wrong, where, what was expected, and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it was; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A defect in nanorun itself. Exit 1.
    Internal,
    /// A bad manifest, argument or input file. Exit 2.
    Input,
    /// A run failed: NaN loss, out of memory, a backend or device that is missing. Exit 3.
    Run,
    /// A result hash differs from the one expected. Exit 4.
    HashMismatch,
    /// A quality, speed or target verdict failed, or a tolerance was exceeded. Exit 5.
    Verdict,
    /// Stopped by a signal; the same command carries on from there. Exit 130.
    Interrupted,
}

impl Class {
    /// The process exit code of this class.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Input => 2,
            Self::Run => 3,
            Self::HashMismatch => 4,
            Self::Verdict => 5,
            Self::Interrupted => 130,
        }
    }

    /// The class that a process of nanorun's ended with; none of one that was well, or that is none of nanorun's codes.
    pub fn of_exit_code(code: i32) -> Option<Self> {
        use Class::{HashMismatch, Input, Internal, Interrupted, Run, Verdict};

        let all = [Internal, Input, Run, HashMismatch, Verdict, Interrupted];
        all.into_iter().find(|class| i32::from(class.exit_code()) == code)
    }

    /// Of several failures, the one to report: 1, 130, 3, 4, 5 in that order, 2 before them all (nothing ran).
    pub fn severity(self) -> u8 {
        match self {
            Self::Input => 6,
            Self::Internal => 5,
            Self::Interrupted => 4,
            Self::Run => 3,
            Self::HashMismatch => 2,
            Self::Verdict => 1,
        }
    }
}

/// A failure as a person reads it. Built up with [`Error::input`] and friends:
///
/// ```
/// use nanorun::Error;
/// let error = Error::input("unknown key `model.dpth`")
///     .file("experiments/a.toml").line(12).key("model.dpth")
///     .expected("a field of [model]").help("did you mean `model.depth`?");
/// assert_eq!(error.class().exit_code(), 2);
/// ```
#[derive(Debug)]
pub struct Error(Box<Details>);

#[derive(Debug)]
struct Details {
    class: Class,
    what: String,
    file: Option<PathBuf>,
    line: Option<usize>,
    key: Option<String>,
    expected: Option<String>,
    help: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of the given class; `what` is a lowercase sentence fragment without a full stop.
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Self(Box::new(Details {
            class,
            what: what.into(),
            file: None,
            line: None,
            key: None,
            expected: None,
            help: None,
            source: None,
        }))
    }

    /// A bad manifest, argument or input file.
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(Class::Input, what)
    }

    /// A failed run.
    pub fn run(what: impl Into<String>) -> Self {
        Self::new(Class::Run, what)
    }

    /// A defect in nanorun.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Class::Internal, what)
    }

    /// The same of another class.
    #[must_use]
    pub fn of_class(mut self, class: Class) -> Self {
        self.0.class = class;
        self
    }

    /// Names the file it is about.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.file = Some(path.into());
        self
    }

    /// Names the line (from 1) of that file.
    #[must_use]
    pub fn line(mut self, line: usize) -> Self {
        self.0.line = Some(line);
        self
    }

    /// Names the key path of the manifest field it is about.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.key = Some(key.into());
        self
    }

    /// Says what would have been right.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.0.expected = Some(expected.into());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Keeps the error underneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Whether it says which file it is about.
    pub fn names_a_file(&self) -> bool {
        self.0.file.is_some()
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// What was wrong, without the place or the advice.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The key path it is about, if it is about one.
    pub fn key_path(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// What would have been right, if that was said.
    pub fn expected_text(&self) -> Option<&str> {
        self.0.expected.as_deref()
    }

    /// What to do about it, if anything is known.
    pub fn help_text(&self) -> Option<&str> {
        self.0.help.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &*self.0;
        f.write_str(&details.what)?;
        let mut source = details.source.as_ref().map(|s| &**s as &dyn StdError);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        match (&details.file, details.line) {
            (Some(file), Some(line)) => write!(f, "\n  in {}:{line}", file.display())?,
            (Some(file), None) => write!(f, "\n  in {}", file.display())?,
            _ => {}
        }
        if let Some(key) = &details.key {
            write!(f, "\n  at {key}")?;
        }
        if let Some(expected) = &details.expected {
            write!(f, "\n  expected {expected}")?;
        }
        if let Some(help) = &details.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl StdError for Error {}
