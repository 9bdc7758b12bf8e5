//! `[cluster]`, settled: what no run and no verdict depends on, and the file that a site may keep of it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::document::{self, Node};
use super::field::Context;
use super::fields;
use super::layers::{self, Entry, Layer, Origin};
use super::settings::{ClusterClass, ModelKind, OneOrMany, OptimizerKind};
use crate::error::{Error, Result};
use crate::upstream;

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Seconds between two beats of who trains a run.
    pub beat_seconds: f64,
    /// What is demanded of the environment classes of runs.
    pub class: ClusterClass,
    /// The file of a site.
    #[serde(default)]
    pub file: Option<String>,
    /// Partitions.
    #[serde(default)]
    pub partition: Option<String>,
    /// Who is charged.
    #[serde(default)]
    pub account: Option<String>,
    /// Quality of service.
    #[serde(default)]
    pub qos: Option<String>,
    /// Time limit of a job, as schedulers write it.
    #[serde(default)]
    pub time: Option<String>,
    /// GPUs of a job.
    #[serde(default)]
    pub gpus: Option<u32>,
    /// Their kind.
    #[serde(default)]
    pub gpu_type: Option<String>,
    /// CPUs of a job.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Memory of a job, as schedulers write it.
    #[serde(default)]
    pub memory: Option<String>,
    /// Jobs of an array at the same time.
    #[serde(default)]
    pub array_limit: Option<u32>,
    /// How often the time limit may queue a job again.
    pub requeue_limit: u32,
    /// Seconds before the end of the allocation at which a job is asked to stop.
    pub signal_seconds: u32,
    /// Whether the worker is a step.
    pub srun: bool,
    /// Further options.
    #[serde(default)]
    pub extra: Option<OneOrMany>,
    /// Shell before the worker.
    #[serde(default)]
    pub setup: Option<OneOrMany>,
    /// The token cache's directory on the node.
    #[serde(default)]
    pub cache: Option<String>,
    /// Runs of a tree from which on it is split.
    pub split: u32,
}

/// Options of `sbatch` that nanorun gives itself, and the field that decides them where one does.
const OWN_OPTIONS: &[(&str, &str)] = &[
    ("array", "cluster.array_limit"),
    ("output", ""),
    ("error", ""),
    ("open-mode", ""),
    ("dependency", ""),
    ("requeue", ""),
    ("no-requeue", ""),
    ("wrap", ""),
    ("parsable", ""),
    ("chdir", ""),
    ("job-name", ""),
    ("ntasks", ""),
    ("partition", "cluster.partition"),
    ("account", "cluster.account"),
    ("qos", "cluster.qos"),
    ("time", "cluster.time"),
    ("cpus-per-task", "cluster.cpus"),
    ("mem", "cluster.memory"),
    ("signal", "cluster.signal_seconds"),
];

/// Checks that nothing is asked for twice.
pub(super) fn check_extra(layer: &Layer) -> Result<()> {
    let Some(entry) = layer.get("cluster.extra") else { return Ok(()) };
    let lines = match &entry.value {
        Value::Array(lines) => lines.as_slice(),
        one => std::slice::from_ref(one),
    };
    for line in lines.iter().filter_map(Value::as_str) {
        let name = line.trim_start_matches('-').split(['=', ' ']).next().unwrap_or_default();
        if let Some((_, field)) = OWN_OPTIONS.iter().find(|(own, _)| *own == name) {
            let error = Error::input(format!("--{name} is an option that nanorun gives itself"));
            let error = error.key("cluster.extra").expected("options that no other field decides");
            let error = if field.is_empty() { error } else { error.help(format!("say it in {field}")) };
            return Err(entry.origin.locate(error));
        }
    }
    Ok(())
}

/// Fields that `cluster.file` cannot hold: they are for workers, which do not read it, or name it.
const NOT_IN_A_FILE: [&str; 4] = ["cluster.beat_seconds", "cluster.class", "cluster.file", "cluster.split"];

/// What of `base` is `[cluster]`'s.
pub(super) fn written(base: &Layer) -> Layer {
    base.iter()
        .filter(|(path, _)| path.starts_with("cluster."))
        .map(|(p, e)| (p.clone(), e.clone()))
        .collect()
}

/// The settings of what is written, over what the site's file says.
pub(super) fn with_file(written: &Layer, file: Option<&Path>) -> Result<ClusterSettings> {
    #[derive(Deserialize)]
    struct Root {
        cluster: ClusterSettings,
    }
    let mut all = written.clone();
    if let Some(file) = file {
        under(&mut all, file)?;
    }
    let context =
        Context { recipe: upstream::newest(), model: ModelKind::Gpt, optimizer: OptimizerKind::MuonAdamw };
    let defaults = layers::defaults(&context, &all);
    let defaults = defaults.into_iter().filter(|(path, _)| path.starts_with("cluster.")).collect();
    let all = all.iter().map(|(path, entry)| (path.as_str(), entry.value.clone())).collect();
    layers::extract::<Root>(&[defaults, all]).map(|root| root.cluster)
}

/// Lays what the site's file says under what is written.
fn under(written: &mut Layer, file: &Path) -> Result<()> {
    let text = super::read::read(file)?;
    let root = document::parse(file, &text)?;
    let node = match root.get("cluster") {
        Some(section) if section.is_table() => {
            if let Some((key, other)) = root.entries().iter().find(|(key, _)| key != "cluster") {
                return Err(not_of_cluster(file, key, other));
            }
            section
        }
        _ => &root,
    };
    let origin = |node: &Node| Origin::File(file.to_owned(), node.line);
    let mut layer = Layer::new();
    for (key, child) in node.entries() {
        let path = format!("cluster.{key}");
        if fields::find(&path).is_none() || NOT_IN_A_FILE.contains(&path.as_str()) {
            return Err(not_of_cluster(file, key, child));
        }
        let value = layers::check(&path, &child.value(), &origin(child))?;
        layer.insert(path, Entry { value, origin: origin(child) });
    }
    check_extra(&layer)?;
    for (path, entry) in layer {
        written.entry(path).or_insert(entry);
    }
    Ok(())
}

fn not_of_cluster(file: &Path, key: &str, node: &Node) -> Error {
    let known = fields::all().filter_map(|field| {
        field.path.strip_prefix("cluster.").filter(|_| !NOT_IN_A_FILE.contains(&field.path))
    });
    let error =
        Error::input(format!("`{key}` is nothing that a cluster file holds")).file(file).line(node.line);
    let error = error.key(key).expected("fields of [cluster] that `nanorun submit` reads");
    match super::nearest(key, known) {
        Some(meant) => error.help(format!("did you mean `{meant}`?")),
        None if NOT_IN_A_FILE.contains(&format!("cluster.{key}").as_str()) => {
            error.help(format!("write cluster.{key} in the manifest: every worker reads it there"))
        }
        None => error.help("`nanorun fields` lists all of them under [cluster]"),
    }
}
