//! The scheduler's jobs of a submission, and which of them still wait or run.

use super::submission::SubmissionDir;

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
    /// Those that were noted, by whoever submitted them. A line that is torn is nobody's.
    pub fn of(dir: &SubmissionDir) -> Self {
        let text = std::fs::read_to_string(dir.file("jobs")).unwrap_or_default();
        Self(text.lines().filter_map(Job::parse).collect())
    }

    /// Their numbers.
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|job| job.id.clone()).collect()
    }
}

impl Job {
    /// As it stands in the file: `1234 0 units`, `1240 - report`, `1250 3 retry`.
    pub fn line(&self) -> String {
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

    #[test]
    fn jobs_are_noted_and_read() {
        let place = tempfile::tempdir().unwrap();
        let dir = SubmissionDir::at(place.path());
        assert_eq!(Jobs::of(&dir), Jobs::default());
        let jobs = [("12", Some(0)), ("13", Some(1000)), ("14", None)];
        let jobs: Vec<Job> =
            jobs.iter().map(|(id, first)| Job { id: (*id).to_owned(), first: *first }).collect();
        let mut text: String = jobs.iter().map(|job| job.line() + "\n").collect();
        text.push_str("15 3 retry\n; scancel 1 units\n$(x) 0 units\n16 0");
        std::fs::write(dir.file("jobs"), text).unwrap();
        let found = Jobs::of(&dir);
        assert_eq!(found.0[..3], jobs);
        assert_eq!(found.ids(), ["12", "13", "14", "15"]);
        let live = |id: &str, index| Live { id: id.to_owned(), index, state: "PENDING".to_owned() };
        let there = still_there(
            &found,
            &[live("13", Some(2)), live("12", Some(1)), live("14", None), live("99", Some(0))],
        );
        assert_eq!(there, [(1, "12_1 (pending)".to_owned()), (1002, "13_2 (pending)".to_owned())]);
    }
}
