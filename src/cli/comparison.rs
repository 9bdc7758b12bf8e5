//! Results against a reference, for machines.

use serde_json::{Value, json};

use crate::gate::{Comparison, Difference, FieldDifference, RunOutcome};

/// Every cell with its outcome and, where it differs, in what first.
pub(super) fn json(comparison: &Comparison) -> Value {
    let runs: Vec<Value> = comparison
        .runs
        .iter()
        .map(|run| {
            let (outcome, difference) = match &run.outcome {
                RunOutcome::Equal => ("equal", None),
                RunOutcome::Differs(difference) => ("differs", Some(difference)),
                RunOutcome::Within(difference) => ("within tolerance", Some(difference)),
                RunOutcome::Outside(difference) => ("outside tolerance", Some(difference)),
                RunOutcome::Unfinished => ("unfinished", None),
                RunOutcome::NotNeeded => ("not needed", None),
                RunOutcome::Missing => ("missing", None),
                RunOutcome::New => ("new", None),
            };
            json!({
                "arm": run.arm,
                "seed": run.seed,
                "outcome": outcome,
                "passed": run.outcome.passed(),
                "difference": difference.map(|difference| difference_json(difference)),
            })
        })
        .collect();
    json!({
        "experiment": comparison.experiment,
        "reference": comparison.reference,
        "passed": comparison.passed(),
        "runs": runs,
        "notes": comparison.notes,
    })
}

fn difference_json(difference: &Difference) -> Value {
    let fields = |fields: &[FieldDifference]| fields.iter().map(field_json).collect::<Vec<_>>();
    let first = difference.first.as_ref();
    json!({
        "result_hash": { "found": difference.found.result_hash, "expected": difference.expected.result_hash },
        "first": first.map(|(step, found)| json!({ "step": step, "fields": fields(found) })),
        "metrics": fields(&difference.metrics),
        "defect": difference.defect,
        "notes": difference.notes,
    })
}

fn field_json(field: &FieldDifference) -> Value {
    json!({ "field": field.field, "found": field.found, "expected": field.expected })
}
