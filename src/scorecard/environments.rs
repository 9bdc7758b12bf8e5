//! Where the runs of a pair were made.

use super::judge::RunSummary;

/// The environment classes that pairs of runs were made in. Within one class equal runs are equal bit by bit; between
/// two, a difference is also one of machines, which no margin speaks of.
#[derive(Default)]
pub(super) struct Environments {
    /// Seeds whose two runs were made in different classes, with those.
    pub(super) mixed: Vec<(u64, String, String)>,
    /// Classes of the pairs that are compared, each once.
    compared: Vec<String>,
    /// Backends that the manifest compares, where it gives the arms different ones.
    backends: Option<(String, String)>,
}

impl Environments {
    /// Whether two runs are compared: in one class, or in two because the manifest asks for two backends.
    pub(super) fn are_one(&mut self, run: &RunSummary, partner: &RunSummary) -> bool {
        let (ours, theirs) = (&run.environment_class, &partner.environment_class);
        if run.backend != partner.backend {
            self.backends = Some((run.backend.clone(), partner.backend.clone()));
        } else if ours != theirs {
            self.mixed.push((run.seed, ours.clone(), theirs.clone()));
            return false;
        }
        if !self.compared.contains(ours) {
            self.compared.push(ours.clone());
        }
        true
    }

    /// Why nothing is compared; none where that has another reason.
    pub(super) fn why_none(&self) -> Option<String> {
        let (_, ours, theirs) = self.mixed.first()?;
        Some(format!(
            "every seed was trained in two environment classes, {ours} and {theirs}: train all of it in one, into \
             other results (--results DIR)"
        ))
    }

    pub(super) fn said(&self) -> String {
        let mixed = self.mixed.first().map(|(seed, ours, theirs)| {
            let more = match self.mixed.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("; seed {seed}{more} left out, trained in two environment classes, {ours} and {theirs}")
        });
        let strata = match self.compared.len() {
            0 | 1 => None,
            classes => Some(format!("; seeds of {classes} environment classes, each within one")),
        };
        let across = self.backends.as_ref();
        let across = across.map(|(ours, theirs)| format!("; across run.backend, {ours} against {theirs}"));
        [mixed, strata, across].into_iter().flatten().collect()
    }
}
