//! The scheduler's jobs of a submission, and which of them still wait or run.

use super::submission::SubmissionDir;
use crate::files::{FileResult, Files};

/// Where a submission's jobs are noted, a file each, named by the scheduler's number. The scripts write there too.
pub(super) const PLACE: &str = "jobs";

/// Jobs that were submitted together: an array, or one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The scheduler's number.
    pub id: String,
    /// The unit that its index 0 stands for; none of the job that reports.
    pub first: Option<usize>,
}

/// All of a submission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jobs(pub Vec<Job>);

impl Jobs {
    /// Those that were noted, by whoever submitted them, in the order of their numbers. What is torn is nobody's.
    pub fn of(dir: &SubmissionDir) -> Self {
        let place = dir.file(PLACE);
        let Ok(entries) = std::fs::read_dir(&place) else {
            // Once there was one file for all of them, a line each.
            let text = std::fs::read_to_string(place).unwrap_or_default();
            return Self(text.lines().filter_map(Job::parse).collect());
        };
        let noted = |entry: std::fs::DirEntry| {
            let job = Job::parse(std::fs::read_to_string(entry.path()).ok()?.trim_end())?;
            // A temporary name is none yet.
            (entry.file_name().to_str() == Some(&job.id)).then_some(job)
        };
        let mut jobs: Vec<Job> = entries.flatten().filter_map(noted).collect();
        jobs.sort_by_key(|job| (job.id.len(), job.id.clone()));
        Self(jobs)
    }

    /// Their numbers.
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|job| job.id.clone()).collect()
    }
}

impl Job {
    /// Notes it in a file of its own: however many note theirs at the same time, on whichever machines, none is lost.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn note(&self, files: &Files, dir: &SubmissionDir) -> FileResult<()> {
        files.write(&dir.file(PLACE).join(&self.id), format!("{}\n", self.line()).as_bytes())
    }

    /// As it stands in its file: `1234 0 units`, `1240 - report`, `1250 3 retry`.
    fn line(&self) -> String {
        match self.first {
            Some(first) => format!("{} {first} units", self.id),
            None => format!("{} - report", self.id),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let &[id, first, "units" | "retry" | "report"] = words.as_slice() else { return None };
        let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        let first = match first {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        is_id.then(|| Self { id: id.to_owned(), first })
    }
}

/// A job that waits or runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The scheduler's number, that of the array where it is one.
    pub id: String,
    /// Its index in the array.
    pub index: Option<usize>,
    /// The scheduler's word for how it stands.
    pub state: String,
}

/// The units of a submission that are still waiting or running, with the jobs that have them.
pub fn still_there(jobs: &Jobs, live: &[Live]) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = live
        .iter()
        .filter_map(|live| {
            let job = jobs.0.iter().find(|job| job.id == live.id)?;
            let unit = job.first? + live.index.unwrap_or(0);
            let name = match live.index {
                Some(index) => format!("{}_{index}", live.id),
                None => live.id.clone(),
            };
            Some((unit, format!("{name} ({})", live.state.to_lowercase())))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str, first: Option<usize>) -> Job {
        Job { id: id.to_owned(), first }
    }

    #[test]
    fn jobs_are_noted_and_read() {
        let place = tempfile::tempdir().unwrap();
        let dir = SubmissionDir::at(place.path());
        assert_eq!(Jobs::of(&dir), Jobs::default());
        std::fs::create_dir(dir.file(PLACE)).unwrap();
        assert_eq!(Jobs::of(&dir), Jobs::default());
        let jobs = [job("9", Some(0)), job("13", Some(1000)), job("14", None)];
        // Whatever is noted at the same moment is there.
        let at = &dir;
        std::thread::scope(|scope| {
            for job in jobs.iter().rev() {
                scope.spawn(move || job.note(&Files::new(), at).unwrap());
            }
        });
        let by_script =
            [("15", "15 3 retry\n"), (".16", "16 4 retry\n"), ("17", "1"), ("18", "; scancel 1 units\n")];
        for (name, text) in by_script {
            std::fs::write(dir.file(PLACE).join(name), text).unwrap();
        }
        let found = Jobs::of(&dir);
        assert_eq!(found.0[..3], jobs);
        assert_eq!(found.ids(), ["9", "13", "14", "15"]);
        let live = |id: &str, index| Live { id: id.to_owned(), index, state: "PENDING".to_owned() };
        let there = still_there(
            &found,
            &[live("13", Some(2)), live("9", Some(1)), live("14", None), live("99", Some(0))],
        );
        assert_eq!(there, [(1, "9_1 (pending)".to_owned()), (1002, "13_2 (pending)".to_owned())]);
    }

    #[test]
    fn the_one_file_of_earlier_versions_is_read() {
        let place = tempfile::tempdir().unwrap();
        let dir = SubmissionDir::at(place.path());
        let text = "12 0 units\n14 - report\n15 3 retry\n; scancel 1 units\n$(x) 0 units\n16 0";
        std::fs::write(dir.file(PLACE), text).unwrap();
        assert_eq!(Jobs::of(&dir).0, [job("12", Some(0)), job("14", None), job("15", Some(3))]);
    }
}
