//! One environment class for all runs, where the manifest demands it: whose bits may differ trains none of them.

use std::collections::BTreeMap;

use super::post::Post;
use super::{Experiment, HowToRun};
use crate::error::{Error, Result};
use crate::manifest::settings::ClusterClass;
use crate::plan::PlannedRun;
use crate::run::engine::environment_class;
use crate::run::state::Status;
use crate::toml_text;

/// The classes in which an experiment computes, by backend.
const FILE: &str = "classes.toml";

impl Experiment {
    /// Where the manifest demands one class (`cluster.class = "same"`): the first process that trains decides it.
    ///
    /// # Errors
    /// This process computes in another one; class `Input`, as no other try on this machine helps.
    pub(super) fn require_class(
        &self,
        post: &Post,
        how: &HowToRun<'_>,
        threads: usize,
        pending: &[bool],
    ) -> Result<()> {
        if self.manifest.head.cluster.class == ClusterClass::Any {
            return Ok(());
        }
        let _turn = self.turn(&post.leases, how)?;
        let path = self.dir.file(FILE);
        let text = self.files.read_if_there(&path)?.unwrap_or_default();
        let mut known: BTreeMap<String, String> = toml_text::from_slice(&text).map_err(|error| {
            let what = "the record of the environment classes is damaged";
            Error::run(what).file(&path).because(error).help("remove it: the next worker writes it anew")
        })?;
        let before = known.len();
        for run in self.plan.runs.iter().filter(|run| !run.key.pending) {
            if let Status::Finished(result) = self.standing(run)?.status {
                known.entry(backend_of(run)).or_insert(result.environment_class);
            }
        }
        for (run, _) in self.plan.runs.iter().zip(pending).filter(|(_, pending)| **pending) {
            let backend = backend_of(run);
            let class = environment_class(&run.config.backend, threads)?;
            let first = known.entry(backend).or_insert_with(|| class.clone());
            if *first != class {
                return Err(Error::input(format!("this machine computes in the class `{class}`"))
                    .key("cluster.class")
                    .file(self.dir.path())
                    .expected(format!(
                        "`{first}`, as the first worker had it: the manifest demands one class"
                    ))
                    .help("start workers on machines of that kind alone, or set cluster.class=\"any\""));
            }
        }
        if known.len() > before {
            let text = toml::to_string(&known)
                .map_err(|error| Error::internal("the classes cannot be written as TOML").because(error))?;
            self.files.write(&path, text.as_bytes())?;
        }
        Ok(())
    }
}

/// What of a run's backend classes are told apart by here.
fn backend_of(run: &PlannedRun) -> String {
    let choice = &run.config.backend;
    format!("{:?} in {:?}", choice.kind, choice.precision).to_lowercase()
}
