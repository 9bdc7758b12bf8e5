//! What is on disk of an experiment, read without training anything.

use std::path::Path;

use super::ends::Ends;
use super::report::Report;
use super::retired::Retired;
use super::{Experiment, judge};
use crate::error::Result;
use crate::gate::{Blessed, Comparison, bless, read_results};
use crate::plan::DataUse;
use crate::report::Subject;
use crate::scorecard::Scorecard;

impl Experiment {
    /// The report of what is on disk; trains nothing.
    ///
    /// # Errors
    /// What keeps the experiment from being read at all. A run whose result is damaged is in the report.
    pub fn read(&self) -> Result<Report> {
        let (ends, scorecard) = self.read_ends(&self.retired())?;
        Ok(ends.report(false, scorecard, None))
    }

    /// The same, and what a page shows of it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_for_page(&self) -> Result<(Report, Subject)> {
        let retired = self.retired();
        let (ends, scorecard) = self.read_ends(&retired)?;
        let subject = self.subject(&ends.runs, &retired, &scorecard, false);
        Ok((ends.report(false, scorecard, None), subject))
    }

    fn read_ends(&self, retired: &[Retired]) -> Result<(Ends, Scorecard)> {
        let standings = self.standings()?;
        // Of runs that were never planned with their data, nothing can be there.
        if standings.iter().all(Option::is_none) {
            self.require_data()?;
        }
        let mut ends = Ends::default();
        for (index, (run, standing)) in self.plan.runs.iter().zip(standings).enumerate() {
            match standing {
                // What is wrong with runs that nobody asks about, whoever asks about them is told.
                Some(standing) if !self.is_selected(index) => ends.push_pending(&self.label(run), standing),
                standing => ends.push(&self.label(run), standing),
            }
        }
        ends.note(self.other_owner().map(|other| other.note()));
        ends.note(self.plan.runs.iter().filter_map(|run| run.data.as_ref()).flat_map(DataUse::warnings));
        let scorecard = self.judge(&ends.runs, retired)?;
        self.mark_not_needed(&mut ends.runs, scorecard.sequence.as_ref());
        let scorecard = self.view(&scorecard)?;
        Ok((ends, scorecard))
    }

    /// Results against a baseline.
    pub fn compare(&self, baseline: &Path) -> Result<Comparison> {
        let mut comparison = judge::compare(&self.files, &self.dir, baseline)?;
        self.keep_selected(&mut comparison);
        Ok(comparison)
    }

    /// Makes the results the baseline.
    pub fn bless(&self, baseline: &Path) -> Result<Blessed> {
        let results = read_results(&self.files, &self.dir)?;
        Ok(bless(&self.files, baseline, &results.experiment, &results.candidates)?)
    }
}
