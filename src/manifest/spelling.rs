//! The nearest right spelling of a key path, and the nearest right value.

use toml::Value;

use super::field::Kind;
use super::fields;

/// Upstream's flags whose fields are called otherwise here.
const ALIASES: &[(&str, &str)] = &[
    ("max_seq_len", "model.sequence_len"),
    ("n_layer", "model.depth"),
    ("num_iterations", "budget.steps"),
    ("target_flops", "budget.flops"),
    ("target_param_data_ratio", "budget.param_data_ratio"),
    ("eval_every", "eval.every"),
    ("eval_tokens", "eval.tokens"),
    ("save_every", "checkpoint.every"),
    ("adam_beta1", "optimizer.embedding_betas"),
    ("adam_beta2", "optimizer.embedding_betas"),
    ("lr_schedule", "schedule.warmdown"),
];

/// What the writer of an unknown path probably meant: a field or a section.
pub(crate) fn nearest_field(path: &str) -> Option<&'static str> {
    let (section, last) = path.rsplit_once('.').unwrap_or(("", path));
    let same_name = fields::all().find(|field| field.path.rsplit('.').next() == Some(last));
    if let Some(field) = same_name {
        return Some(field.path);
    }
    if let Some((_, target)) = ALIASES.iter().find(|(alias, _)| *alias == last) {
        return Some(target);
    }
    let close_name = fields::all()
        .filter(|field| field.path.rsplit_once('.').map_or("", |(section, _)| section) == section)
        .map(|field| field.path);
    let sections = ["upstream", "run", "budget", "schedule", "train", "model", "optimizer", "data", "eval"]
        .into_iter()
        .chain(["checkpoint", "scorecard", "analysis", "cluster", "matrix", "profile"]);
    nearest(path, close_name)
        .or_else(|| nearest(path, fields::all().map(|field| field.path)))
        .or_else(|| nearest(path, sections))
}

/// Of `candidates`, the one nearest to `word`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// What the writer of a value that a field does not take probably meant, as advice.
pub(crate) fn nearest_value(kind: Kind, value: &Value) -> Option<String> {
    match (kind, value) {
        (Kind::Word(words), Value::String(text)) => {
            nearest(text, words.iter().copied()).map(|word| format!("did you mean \"{word}\"?"))
        }
        (Kind::WindowPattern, Value::String(text)) => {
            let mut letters = text.to_uppercase();
            letters.retain(|letter| matches!(letter, 'S' | 'L'));
            (!letters.is_empty()).then(|| format!("did you mean \"{letters}\"?"))
        }
        (Kind::Int(low, high) | Kind::IntOr(low, high, _), Value::Integer(number)) => {
            Some(format!("the nearest is {}", number.clamp(&low, &high)))
        }
        (Kind::Int(low, high) | Kind::IntOr(low, high, _), Value::Float(number)) => {
            let nearest = number.round().clamp(low as f64, high as f64);
            number.is_finite().then(|| format!("the nearest is {nearest:.0}"))
        }
        (
            Kind::Int(..) | Kind::IntOr(..) | Kind::Float(..) | Kind::FloatOrFalse(..) | Kind::Bool,
            Value::String(text),
        ) => {
            // What would be right without its quotes.
            let bare = super::document::parse_value(text).value();
            if !bare.is_str() && kind.accept(&bare).is_some() {
                return Some(format!("write it without quotes: {text}"));
            }
            // A comma may separate thousands or be the decimal one: whichever gives a value that is taken.
            let meant = [as_people_write(text), with_a_unit(text), as_people_write(&text.replace(',', "."))];
            let value = meant.iter().flatten().find_map(|value| kind.accept(value))?;
            Some(format!("write {value}"))
        }
        _ => None,
    }
}

/// A number or a truth value in a form that TOML does not take and other programs do: `.02`, `2.`, `1E3`, `+5`, `True`;
/// lists of them too.
pub(crate) fn as_people_write(text: &str) -> Option<Value> {
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inner.split(',').map(|item| scalar(item.trim())).collect::<Option<_>>().map(Value::Array);
    }
    scalar(text)
}

fn scalar(text: &str) -> Option<Value> {
    match text.to_ascii_lowercase().as_str() {
        "true" => return Some(Value::Boolean(true)),
        "false" => return Some(Value::Boolean(false)),
        _ => {}
    }
    // `inf` and `nan` are numbers to Rust and none that a field takes; an underscore separates thousands as in TOML.
    if !text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE_".contains(&byte)) {
        return None;
    }
    let digits = text.replace('_', "");
    digits.parse().map(Value::Integer).or_else(|_| digits.parse().map(Value::Float)).ok()
}

/// A number with thousands' commas or a unit, `1,000` or `40M`. These are only suggested: a comma may be a decimal one,
/// and an `M` a million or 2^20.
fn with_a_unit(text: &str) -> Option<Value> {
    let last = text.chars().last()?;
    let (digits, unit) = match last.to_ascii_lowercase() {
        'k' => (text.strip_suffix(last)?, 1e3),
        'm' => (text.strip_suffix(last)?, 1e6),
        'g' | 'b' => (text.strip_suffix(last)?, 1e9),
        't' => (text.strip_suffix(last)?, 1e12),
        _ => (text, 1.0),
    };
    let number: f64 = digits.trim().replace(',', "").parse().ok()?;
    number.is_finite().then_some(Value::Float(number * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let near = |kind, value: Value| nearest_value(kind, &value);
        let depth = Kind::Int(1, 1000);
        assert_eq!(near(depth, 0.into()).as_deref(), Some("the nearest is 1"));
        assert_eq!(near(depth, 4.5.into()).as_deref(), Some("the nearest is 5"));
        assert_eq!(near(depth, 1e9.into()).as_deref(), Some("the nearest is 1000"));
        assert_eq!(near(depth, f64::NAN.into()), None);
        assert_eq!(near(depth, "1,000".into()).as_deref(), Some("write 1000"));
        assert_eq!(near(Kind::Int(1, 1 << 40), "40M".into()).as_deref(), Some("write 40000000"));
        assert_eq!(near(Kind::Bool, "True".into()).as_deref(), Some("write true"));
        assert_eq!(near(depth, "8".into()).as_deref(), Some("write it without quotes: 8"));
        assert_eq!(near(depth, "eight".into()), None);
        assert_eq!(near(Kind::Bool, "true".into()).as_deref(), Some("write it without quotes: true"));
        assert_eq!(near(Kind::WindowPattern, "sxl".into()).as_deref(), Some("did you mean \"SL\"?"));
        assert_eq!(near(Kind::WindowPattern, "x".into()), None);
    }

    #[test]
    fn spellings() {
        for (written, meant) in [
            ("model.dpth", Some("model.depth")),
            ("modle.depth", Some("model.depth")),
            ("model.warmdown", Some("schedule.warmdown")),
            ("model.max_seq_len", Some("model.sequence_len")),
            ("budget.target_param_data_ratio", Some("budget.param_data_ratio")),
            ("shedule", Some("schedule")),
            ("optimizer.matrix_rl", Some("optimizer.matrix_lr")),
            ("frobnicate.everything", None),
        ] {
            assert_eq!(nearest_field(written), meant, "{written}");
        }
    }
}
