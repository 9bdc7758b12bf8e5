//! What a manifest field is: its path, what it takes, what it means, what it is when left out.

use toml::Value;

use super::settings::{ModelKind, OptimizerKind};
use crate::upstream::Recipe;

/// One field of the manifest.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key path.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Unit of a number, or empty.
    pub unit: &'static str,
    /// What it is when left out.
    pub default: Fallback,
    /// Which models and optimizers have it.
    pub applies: Applies,
    /// What it means.
    pub doc: &'static str,
}

/// What a field takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// An integer within bounds, both included.
    Int(i64, i64),
    /// An integer within bounds, or one of these words.
    IntOr(i64, i64, &'static str),
    /// A number within bounds, both included.
    Float(f64, f64),
    /// A number within bounds, or `false` to switch it off.
    FloatOrFalse(f64, f64),
    /// Integers of at least 0, or `false`.
    IntsOrFalse,
    /// Two numbers in [0, 1).
    Betas,
    /// Any text but the empty one.
    Text,
    /// One text or several.
    Texts,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Letters S and L.
    WindowPattern,
    /// 7 to 40 hex digits.
    Commit,
    /// `cpu` or `cuda:N`.
    Device,
    /// A file-name-like name.
    Name,
    /// What a scheduler calls something: text without spaces that no shell reads anything into.
    Plain,
    /// A time limit as schedulers write it.
    TimeLimit,
    /// Bytes as schedulers write them: a number with K, M, G or T.
    Memory,
    /// One option or several, each a line that begins with `--`.
    Options,
    /// A table of names and SHA-256 digests.
    Digests,
    /// A table of these parts, or a list of such tables.
    Tables(&'static [Part]),
}

/// A key of the tables that a field takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// The key.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// What it means.
    pub doc: &'static str,
}

/// What a field is when left out.
#[derive(Debug, Clone, Copy)]
pub enum Fallback {
    /// Leaving it out is an error.
    Required,
    /// It has no value; the text says what that means.
    Absent(&'static str),
    /// A value that may depend on the commit and the kind of model and optimizer.
    Value(fn(&Context) -> Value),
    /// A value for some contexts, else absent.
    Maybe(fn(&Context) -> Option<Value>),
}

/// What defaults depend on.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The pinned commit's recipe.
    pub recipe: &'static Recipe,
    /// `model.kind`.
    pub model: ModelKind,
    /// `optimizer.kind`.
    pub optimizer: OptimizerKind,
}

/// Which models and optimizers have a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// All.
    Always,
    /// `model.kind = "gpt"`.
    Gpt,
    /// `microgpt` and `bigram`.
    Small,
    /// `microgpt`.
    Microgpt,
    /// `gpt` and `microgpt`.
    Layered,
    /// `gpt` under `muon_adamw` or `adamw`.
    GptAdam,
    /// `gpt` under `muon_adamw`.
    Muon,
    /// `gpt` under `adamw`.
    GptAdamAlone,
    /// One learning rate for all: the small models, and SGD.
    OneRate,
    /// `adamw` for the small models.
    SmallAdam,
    /// Any AdamW.
    AnyAdam,
    /// `sgd`.
    Sgd,
}

impl Applies {
    /// Whether a field of this kind exists for that model and optimizer.
    pub fn to(self, model: ModelKind, optimizer: OptimizerKind) -> bool {
        let gpt = model == ModelKind::Gpt;
        let sgd = optimizer == OptimizerKind::Sgd;
        match self {
            Self::Always => true,
            Self::Gpt => gpt,
            Self::Small => !gpt,
            Self::Microgpt => model == ModelKind::Microgpt,
            Self::Layered => model != ModelKind::Bigram,
            Self::GptAdam => gpt && !sgd,
            Self::Muon => gpt && optimizer == OptimizerKind::MuonAdamw,
            Self::GptAdamAlone => gpt && optimizer == OptimizerKind::Adamw,
            Self::OneRate => !gpt || sgd,
            Self::SmallAdam => !gpt && !sgd,
            Self::AnyAdam => !sgd,
            Self::Sgd => sgd,
        }
    }

    /// In words, for errors and the reference.
    pub fn text(self) -> &'static str {
        match self {
            Self::Always => "everything",
            Self::Gpt => "model.kind = \"gpt\"",
            Self::Small => "model.kind = \"microgpt\" or \"bigram\"",
            Self::Microgpt => "model.kind = \"microgpt\"",
            Self::Layered => "model.kind = \"gpt\" or \"microgpt\"",
            Self::GptAdam => "model.kind = \"gpt\" with optimizer.kind = \"muon_adamw\" or \"adamw\"",
            Self::Muon => "model.kind = \"gpt\" with optimizer.kind = \"muon_adamw\"",
            Self::GptAdamAlone => "model.kind = \"gpt\" with optimizer.kind = \"adamw\"",
            Self::OneRate => {
                "model.kind = \"microgpt\" or \"bigram\", and any model with optimizer.kind = \"sgd\""
            }
            Self::SmallAdam => "model.kind = \"microgpt\" or \"bigram\" with optimizer.kind = \"adamw\"",
            Self::AnyAdam => "optimizer.kind = \"muon_adamw\" or \"adamw\"",
            Self::Sgd => "optimizer.kind = \"sgd\"",
        }
    }
}

impl Kind {
    /// What it takes, in words.
    pub fn expected(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Int(low, high) => integer(low, high),
            Self::IntOr(low, high, word) => format!("{} or \"{word}\"", integer(low, high)),
            Self::Float(low, high) => number(low, high),
            Self::FloatOrFalse(low, high) => format!("{} or false", number(low, high)),
            Self::IntsOrFalse => "a list of integers or false".to_owned(),
            Self::Betas => "two numbers of at least 0 and below 1".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Texts => "text or a list of texts".to_owned(),
            Self::Word(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                match quoted.split_last() {
                    Some((last, [])) => last.clone(),
                    Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
                    None => String::new(),
                }
            }
            Self::WindowPattern => "text of the letters S (short) and L (long)".to_owned(),
            Self::Commit => "7 to 40 hex digits of a pinned commit".to_owned(),
            Self::Digests => "a table of file names and their 64 hex digits of SHA-256".to_owned(),
            Self::Tables(_) => "a table or a list of tables".to_owned(),
            Self::Device => "\"cpu\" or \"cuda:N\"".to_owned(),
            Self::Name => "letters, digits, `_`, `-` and `.`, beginning with a letter or digit".to_owned(),
            Self::Plain => "letters, digits and `_-.,:+/=@`, beginning with a letter or digit".to_owned(),
            Self::TimeLimit => {
                "\"MM\", \"MM:SS\", \"HH:MM:SS\", \"D-HH\", \"D-HH:MM\" or \"D-HH:MM:SS\", such as \"12:00:00\"".to_owned()
            }
            Self::Memory => "a number with K, M, G or T, such as \"64G\"".to_owned(),
            Self::Options => "an option or a list of options, each beginning with `--`, on one line".to_owned(),
        }
    }

    /// The value as the field keeps it (integers become floats where floats are meant and `1e3` an integer where one is,
    /// patterns upper case), or nothing where it does not fit.
    pub fn accept(self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::Bool, Value::Boolean(_))
            | (Self::FloatOrFalse(..) | Self::IntsOrFalse, Value::Boolean(false)) => Some(value.clone()),
            (Self::IntsOrFalse, Value::Array(items)) => {
                let numbers: Vec<i64> = items.iter().map(as_integer).collect::<Option<_>>()?;
                let valid = !numbers.is_empty() && numbers.iter().all(|number| *number >= 0);
                valid.then(|| Value::Array(numbers.into_iter().map(Value::Integer).collect()))
            }
            (Self::Int(low, high) | Self::IntOr(low, high, _), Value::Integer(_) | Value::Float(_)) => {
                let number = as_integer(value)?;
                (low..=high).contains(&number).then_some(Value::Integer(number))
            }
            (Self::IntOr(_, _, word), Value::String(text)) => (text == word).then(|| value.clone()),
            (Self::Float(low, high) | Self::FloatOrFalse(low, high), _) => {
                let number = as_float(value)?;
                (low..=high).contains(&number).then_some(Value::Float(number))
            }
            (Self::Tables(parts), value) => super::tables::accept(parts, value),
            (Self::Betas, Value::Array(items)) => {
                let betas: Vec<f64> = items.iter().map(as_float).collect::<Option<_>>()?;
                let valid = betas.len() == 2 && betas.iter().all(|beta| (0.0..1.0).contains(beta));
                valid.then(|| Value::Array(betas.into_iter().map(Value::Float).collect()))
            }
            (Self::Texts, Value::Array(items)) => {
                let valid = !items.is_empty() && items.iter().all(|item| Self::Text.accept(item).is_some());
                valid.then(|| value.clone())
            }
            (Self::Options, Value::Array(items)) => {
                let valid = !items.is_empty() && items.iter().all(|item| self.accept_item(item));
                valid.then(|| value.clone())
            }
            (Self::Digests, Value::Table(table)) => {
                let digest = |value: &Value| {
                    value.as_str().is_some_and(|text| {
                        text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
                    })
                };
                table.values().all(digest).then(|| value.clone())
            }
            (_, Value::String(text)) => self.accept_text(text).map(Value::String),
            _ => None,
        }
    }

    /// Whether it takes this text as one of several.
    fn accept_item(self, item: &Value) -> bool {
        item.as_str().is_some_and(|text| self.accept_text(text).is_some())
    }

    fn accept_text(self, text: &str) -> Option<String> {
        let valid = match self {
            Self::Text | Self::Texts => !text.is_empty() && !text.contains('\0'),
            Self::Word(words) => words.contains(&text),
            Self::WindowPattern => {
                let pattern = text.to_ascii_uppercase();
                return (!pattern.is_empty() && pattern.bytes().all(|letter| matches!(letter, b'S' | b'L')))
                    .then_some(pattern);
            }
            Self::Commit => {
                (7..=40).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit())
            }
            Self::Device => {
                let ordinal =
                    text.strip_prefix("cuda:").map(|n| n.parse::<u8>().is_ok_and(|p| p.to_string() == n));
                text == "cpu" || ordinal == Some(true)
            }
            Self::Name => {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
                text.len() <= 100
                    && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
                    && text.bytes().all(allowed)
            }
            Self::Plain => {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.,:+/=@".contains(&byte);
                text.len() <= 200
                    && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
                    && text.bytes().all(allowed)
            }
            Self::TimeLimit => time_limit(text).is_some(),
            Self::Memory => {
                let (number, unit) = text.split_at(text.len().saturating_sub(1).min(text.len()));
                matches!(unit, "K" | "M" | "G" | "T") && whole(number).is_some_and(|number| number > 0)
            }
            Self::Options => {
                let name = text.strip_prefix("--").unwrap_or_default();
                name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
                    && !text.chars().any(char::is_control)
            }
            _ => false,
        };
        valid.then(|| text.to_owned())
    }

    /// Whether text is what it takes first of all, so that `--set name=12` means the text.
    pub(crate) fn is_text(self) -> bool {
        matches!(
            self,
            Self::Text
                | Self::Texts
                | Self::WindowPattern
                | Self::Commit
                | Self::Device
                | Self::Name
                | Self::Plain
                | Self::TimeLimit
                | Self::Memory
                | Self::Options
        )
    }
}

/// Digits and nothing else.
fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|digit| digit.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Seconds of a time limit as schedulers write it, at least one: `MM`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.
pub(crate) fn time_limit(text: &str) -> Option<u64> {
    let numbers = |text: &str| text.split(':').map(whole).collect::<Option<Vec<u64>>>();
    let seconds = match text.split_once('-') {
        Some((days, rest)) => {
            let days = whole(days)? * 86_400;
            match numbers(rest)?.as_slice() {
                [hours] => days + hours * 3600,
                [hours, minutes] => days + hours * 3600 + minutes * 60,
                [hours, minutes, seconds] => days + hours * 3600 + minutes * 60 + seconds,
                _ => return None,
            }
        }
        None => match numbers(text)?.as_slice() {
            [minutes] => minutes * 60,
            [minutes, seconds] => minutes * 60 + seconds,
            [hours, minutes, seconds] => hours * 3600 + minutes * 60 + seconds,
            _ => return None,
        },
    };
    (seconds > 0).then_some(seconds)
}

/// An integer, also one that is written as `1e3` or `4.0`: as far as floats are exact.
fn as_integer(value: &Value) -> Option<i64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    match value {
        Value::Integer(number) => Some(*number),
        Value::Float(number) => (number.fract() == 0.0 && number.abs() <= EXACT).then_some(*number as i64),
        _ => None,
    }
}

fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => number.is_finite().then_some(*number),
        _ => None,
    }
}

fn integer(low: i64, high: i64) -> String {
    if high == i64::MAX {
        format!("an integer of at least {low}")
    } else {
        format!("an integer from {low} to {high}")
    }
}

fn number(low: f64, high: f64) -> String {
    match (low == f64::MIN, high == f64::MAX) {
        (true, true) => "a number".to_owned(),
        (_, true) if low == f64::MIN_POSITIVE => "a number above 0".to_owned(),
        (_, true) => format!("a number of at least {low}"),
        _ if low == f64::MIN_POSITIVE => format!("a number above 0, at most {high}"),
        _ => format!("a number from {low} to {high}"),
    }
}
