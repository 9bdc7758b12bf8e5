//! The nearest right spelling of a key path.

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
        .chain(["checkpoint", "scorecard", "matrix", "profile"]);
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

#[cfg(test)]
mod tests {
    use super::*;

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
