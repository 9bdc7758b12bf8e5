//! What each field decides: the one place that says what another value of it makes of an experiment.

/// What a field decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The numbers of a run: it enters run keys, by itself or by what follows from it.
    Key,
    /// How a model is evaluated.
    Evaluation,
    /// How results are judged.
    Verdict,
    /// Where something is, or is computed. What that is may enter keys; which of several equal places it is does not.
    Place,
    /// Nothing that a result or a verdict says: names, threads, cadences, guards, checks, what a
    /// scheduler is asked for.
    Nothing,
}

impl Effect {
    /// Whether an experiment with another value is a variation of it, whose results go to a directory of its own.
    pub fn varies(self) -> bool {
        matches!(self, Self::Key | Self::Evaluation | Self::Verdict)
    }
}

/// What the field at `path` decides; none of a path that is no field or was forgotten here, which a test finds.
pub fn effect(path: &str) -> Option<Effect> {
    // Everything in these sections makes the model or its training.
    const TRAINING: [&str; 6] = ["upstream.", "budget.", "schedule.", "train.", "model.", "optimizer."];
    Some(match path {
        "run.device"
        | "model.init.file"
        | "data.shards"
        | "data.tokenizer.path"
        | "eval.core.bundle"
        | "scorecard.reproducibility.baseline" => Effect::Place,
        "run.seed"
        | "run.ranks"
        | "run.backend"
        | "run.precision"
        | "data.column"
        | "data.nulls"
        | "data.validation"
        | "data.tokenizer"
        | "data.tokenizer.vocab_size"
        | "data.document"
        | "data.seed"
        | "data.packing" => Effect::Key,
        "data.token_bytes" | "eval.tokens" | "eval.core.max_per_task" => Effect::Evaluation,
        "scorecard.quality.metric"
        | "scorecard.quality.margin"
        | "scorecard.quality.confidence"
        | "scorecard.quality.variance"
        | "scorecard.quality.sigma"
        | "scorecard.quality.looks"
        | "scorecard.quality.also"
        | "scorecard.target"
        | "analysis.scaling.x"
        | "analysis.scaling.groups"
        | "scorecard.across"
        | "scorecard.speed.min_ratio" => Effect::Verdict,
        // The vocabulary that is declared and the pins are compared with what is there, and decide nothing else.
        "name"
        | "question"
        | "hypothesis"
        | "run.threads"
        | "run.preflight"
        | "data.vocab_size"
        | "data.sha256"
        | "eval.every"
        | "eval.core.every"
        | "eval.max_drift_bytes"
        | "checkpoint.every"
        | "checkpoint.keep"
        | "checkpoint.final"
        | "checkpoint.minutes" => Effect::Nothing,
        path if path.starts_with("cluster.") => Effect::Nothing,
        path if TRAINING.iter().any(|section| path.starts_with(section)) => Effect::Key,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::*;

    /// A new field has to be classified before it can be added.
    #[test]
    fn every_field_is_classified() {
        let forgotten: Vec<&str> =
            fields::all().map(|field| field.path).filter(|path| effect(path).is_none()).collect();
        assert!(forgotten.is_empty(), "{forgotten:?}: say in manifest/effect.rs what they decide");
        assert_eq!(effect("run.nothing"), None);
    }

    /// What decides nothing may not be swept as if it did, but for cadences and devices, which people may measure.
    #[test]
    fn what_is_judged_by_is_not_swept() {
        for field in fields::all().filter(|field| effect(field.path) == Some(Effect::Verdict)) {
            assert!(!fields::is_sweepable(field.path), "{}", field.path);
        }
    }
}
