//! The environment classes of an experiment's runs, by backend: what is known of them, and what becomes of a process that
//! computes in another one.

use std::collections::BTreeMap;

use super::post::Post;
use super::{Experiment, HowToRun};
use crate::error::{Error, Result};
use crate::manifest::settings::ClusterClass;
use crate::plan::PlannedRun;
use crate::run::engine::environment_class;
use crate::run::state::{Standing, Status};
use crate::toml_text;

/// The classes in which an experiment computes, by backend.
const FILE: &str = "classes.toml";

/// Environment classes by backend, as `cpu in f32`.
pub type Classes = BTreeMap<String, String>;

impl Experiment {
    /// Has it expect these classes, as they were when it was submitted.
    pub fn expect_classes(&mut self, classes: Classes) {
        self.expected_classes = classes;
    }

    /// The classes that are known: those that the first workers decided where the manifest demands one, and those of what is
    /// finished. A backend whose results are of several is none's.
    ///
    /// # Errors
    /// A record that is damaged.
    pub fn known_classes(&self, standings: &[Option<Standing>]) -> Result<Classes> {
        let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
        for (run, standing) in self.plan.runs.iter().zip(standings) {
            let Some(Status::Finished(result)) = standing.as_ref().map(|standing| &standing.status) else {
                continue;
            };
            let own = &result.environment_class;
            let class = found.entry(backend_of(run)).or_insert_with(|| Some(own.clone()));
            if class.as_ref() != Some(own) {
                *class = None;
            }
        }
        let mut classes: Classes =
            found.into_iter().filter_map(|(backend, class)| Some((backend, class?))).collect();
        classes.extend(self.recorded_classes()?);
        Ok(classes)
    }

    fn recorded_classes(&self) -> Result<Classes> {
        let path = self.dir.file(FILE);
        let text = self.files.read_if_there(&path)?.unwrap_or_default();
        toml_text::from_slice(&text).map_err(|error| {
            let what = "the record of the environment classes is damaged";
            Error::run(what).file(&path).because(error).help("remove it: the next worker writes it anew")
        })
    }

    /// Where the manifest demands one class (`cluster.class = "same"`), the first process that trains decides it; elsewhere
    /// whoever is of another class than was expected is told that its hashes will be others.
    ///
    /// # Errors
    /// This process computes in another one than is demanded; class `Input`, as no other try on this machine helps.
    pub(super) fn require_class(
        &self,
        post: &Post,
        how: &HowToRun<'_>,
        threads: usize,
        pending: &[bool],
    ) -> Result<()> {
        // One run of each backend stands for all of it.
        let mut backends: BTreeMap<String, &PlannedRun> = BTreeMap::new();
        for (run, _) in self.plan.runs.iter().zip(pending).filter(|(_, pending)| **pending) {
            backends.entry(backend_of(run)).or_insert(run);
        }
        if self.manifest.head.cluster.class == ClusterClass::Any {
            for (backend, run) in backends {
                let Some(expected) = self.expected_classes.get(&backend) else { continue };
                let class = environment_class(&run.config.backend, threads)?;
                if class != *expected {
                    how.display.line(&format!(
                        "note: this machine computes in the class `{class}`; what was finished when this was submitted, in \
                         `{expected}`: values can be compared, hashes cannot (cluster.class = \"same\" refuses such machines)"
                    ));
                }
            }
            return Ok(());
        }
        let _turn = self.turn(&post.leases, how)?;
        let mut known = self.recorded_classes()?;
        let before = known.len();
        for (backend, run) in backends {
            let class = environment_class(&run.config.backend, threads)?;
            let first = match known.get(&backend) {
                Some(first) => first.clone(),
                None => self.first_class(&backend)?.unwrap_or_else(|| class.clone()),
            };
            if first != class {
                return Err(Error::input(format!("this machine computes in the class `{class}`"))
                    .key("cluster.class")
                    .file(self.dir.path())
                    .expected(format!(
                        "`{first}`, as the first worker had it: the manifest demands one class"
                    ))
                    .help("start workers on machines of that kind alone, or set cluster.class=\"any\""));
            }
            known.insert(backend, first);
        }
        if known.len() > before {
            let text = toml::to_string(&known)
                .map_err(|error| Error::internal("the classes cannot be written as TOML").because(error))?;
            self.files.write(&self.dir.file(FILE), text.as_bytes())?;
        }
        Ok(())
    }

    /// The class of a backend of which nothing is recorded: as it was submitted, else of what is finished.
    fn first_class(&self, backend: &str) -> Result<Option<String>> {
        if let Some(expected) = self.expected_classes.get(backend) {
            return Ok(Some(expected.clone()));
        }
        // Asked once: whoever comes after finds it recorded.
        for run in self.plan.runs.iter().filter(|run| !run.key.pending && backend_of(run) == backend) {
            if let Status::Finished(result) = self.standing(run)?.status {
                return Ok(Some(result.environment_class));
            }
        }
        Ok(None)
    }
}

/// What of a run's backend classes are told apart by here.
fn backend_of(run: &PlannedRun) -> String {
    let choice = &run.config.backend;
    format!("{:?} in {:?}", choice.kind, choice.precision).to_lowercase()
}
