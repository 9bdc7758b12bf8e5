//! Arms: cells without their seeds, and which of them is whose control.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::Value;

use crate::error::{Error, Result};
use crate::manifest::{Manifest, fields};

/// A cell without its seed, with the runs of all seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arm {
    /// Short name, such as `warmdown=sqrt`.
    pub label: String,
    /// What the matrix sets, without the seed.
    pub values: BTreeMap<String, Value>,
    /// Its runs, by index.
    pub runs: Vec<usize>,
    /// The arm it is compared with; none for the control itself, or without a control.
    pub control: Option<usize>,
}

/// The arms in the order of their first cells. The control of an arm is the arm that has exactly the values of
/// `[scorecard.control]`, or where there is none such, the arm that differs in those keys alone.
pub(super) fn arms(manifest: &Manifest) -> Result<Vec<Arm>> {
    let mut arms: Vec<Arm> = Vec::new();
    for (index, cell) in manifest.cells.iter().enumerate() {
        let values = cell.arm();
        if let Some(arm) = arms.iter_mut().find(|arm| arm.values == values) {
            arm.runs.push(index);
            continue;
        }
        let given = manifest.labels.iter().find(|given| given.values == values);
        let label = given.map_or_else(|| label(&values), |given| given.name.clone());
        arms.push(Arm { label, values, runs: vec![index], control: None });
    }
    check_labels(manifest, &arms)?;
    let Some(control) = &manifest.control else { return Ok(arms) };
    let exact = arms.iter().position(|arm| arm.values == *control);
    let controls: Vec<Option<usize>> = arms
        .iter()
        .map(|arm| {
            exact.or_else(|| {
                let mut wanted = arm.values.clone();
                wanted.extend(control.iter().map(|(path, value)| (path.clone(), value.clone())));
                arms.iter().position(|other| other.values == wanted)
            })
        })
        .collect();
    if arms.len() > 1 && controls.iter().all(Option::is_none) {
        let known: Vec<&str> = arms.iter().map(|arm| arm.label.as_str()).collect();
        let error = Error::input(format!("no arm is the control {}", label(control))).file(&manifest.file);
        return Err(error
            .key("scorecard.control")
            .expected(format!("the values of an arm: {}", known.join("; "))));
    }
    for (index, (arm, control)) in arms.iter_mut().zip(controls).enumerate() {
        arm.control = control.filter(|&control| control != index);
    }
    Ok(arms)
}

/// Tables and scorecard know an arm by its label, so no two may have the same.
fn check_labels(manifest: &Manifest, arms: &[Arm]) -> Result<()> {
    for (index, arm) in arms.iter().enumerate() {
        let Some(other) = arms.iter().take(index).find(|other| other.label == arm.label) else { continue };
        let error = Error::input(format!("two arms are called {:?}", arm.label))
            .expected("a name of its own for every arm")
            .help("that is what the values of the other arm are called: label this one otherwise");
        let given = |arm: &Arm| manifest.labels.iter().find(|given| given.values == arm.values);
        return Err(match given(arm).or_else(|| given(other)) {
            Some(given) => given.locate(error),
            None => error.file(&manifest.file).key("matrix"),
        });
    }
    Ok(())
}

/// A short name: `key=value`, keys by their last part where no other field has the same.
pub(crate) fn label(values: &BTreeMap<String, Value>) -> String {
    if values.is_empty() {
        return "base".to_owned();
    }
    let texts = values.iter().map(|(path, value)| {
        let last = path.rsplit('.').next().unwrap_or(path);
        let same = fields::all().filter(|field| field.path.rsplit('.').next() == Some(last)).count();
        let name = if same == 1 { last } else { path };
        match value {
            Value::String(text) => format!("{name}={text}"),
            value => format!("{name}={value}"),
        }
    });
    texts.collect::<Vec<_>>().join(" ")
}
