//! Slurm: the scripts it runs, and the programs that it is told and asked by.

use std::fmt::Write as _;
use std::path::Path;

use super::call::{call, is_at_hand};
use super::jobs::{Job, Live};
use super::submission::{Submission, SubmissionDir};
use super::units::Batch;
use crate::error::{Error, Result};
use crate::experiment::quoted;
use crate::manifest::ClusterSettings;
use crate::manifest::settings::OneOrMany;

const START: &str = include_str!("scripts/slurm_start.sh");
const WORK: &str = include_str!("scripts/slurm_work.sh");
const REPORT: &str = include_str!("scripts/report.sh");

/// Jobs of an array where Slurm does not say how many may be: its own default.
pub const USUAL_ARRAY: usize = 1001;

/// Slurm, as far as its programs are at hand.
#[derive(Debug, Clone, Copy)]
pub struct Slurm(());

// A value of it says that its programs are there.
#[allow(clippy::unused_self, reason = "only who has made sure of the programs may call them")]
impl Slurm {
    /// Makes sure of its programs.
    ///
    /// # Errors
    /// There are none here; class `Input`.
    pub fn at_hand() -> Result<Self> {
        match ["sbatch", "scontrol", "squeue", "scancel"].into_iter().find(|program| !is_at_hand(program)) {
            None => Ok(Self(())),
            Some(missing) => Err(Error::input(format!("there is no `{missing}` here"))
                .expected("Slurm's programs on the PATH")
                .help(
                    "submit from a login node of the cluster; --dry-run prints what would be submitted, and `nanorun work \
                     MANIFEST` is a worker for any other scheduler",
                )),
        }
    }

    /// Jobs that an array may have.
    ///
    /// # Errors
    /// A server that does not answer.
    pub fn most_of_an_array(self) -> Result<usize> {
        let config = asked("scontrol", &["show", "config"])?;
        let line = config.lines().find_map(|line| line.trim().strip_prefix("MaxArraySize"));
        let most = line.and_then(|line| line.trim_start_matches([' ', '=']).trim().parse::<usize>().ok());
        match most {
            // Indices are below it.
            Some(most) if most > 1 => Ok(most),
            Some(_) => Err(Error::input("this Slurm takes no job arrays (MaxArraySize)")
                .expected("a MaxArraySize of at least 2")
                .help("run `nanorun work MANIFEST` in as many jobs of your own as you like")),
            None => Ok(USUAL_ARRAY),
        }
    }

    /// Refuses partitions that are not there.
    ///
    /// # Errors
    /// One that is not, with those that are; a server that does not answer.
    pub fn check_partition(self, cluster: &ClusterSettings) -> Result<()> {
        let Some(asked_for) = &cluster.partition else { return Ok(()) };
        let found = asked("scontrol", &["show", "partition", "-o"])?;
        let name = |line: &str| Some(line.strip_prefix("PartitionName=")?.split(' ').next()?.to_owned());
        let there: Vec<String> = found.lines().filter_map(name).collect();
        match asked_for.split(',').find(|one| !there.iter().any(|name| name == one)) {
            None => Ok(()),
            Some(missing) => {
                let error = Error::input(format!("there is no partition {missing}")).key("cluster.partition");
                Err(error.expected(format!("one of {}", there.join(", "))))
            }
        }
    }

    /// Submits a batch of units. `after` are the jobs that it waits for.
    ///
    /// # Errors
    /// What Slurm says against it.
    pub fn submit(
        self,
        submission: &Submission,
        dir: &SubmissionDir,
        batch: &Batch,
        after: &[String],
    ) -> Result<Job> {
        let id = parsed(&asked("sbatch", &array_arguments(submission, dir, batch, after))?)?;
        Ok(Job { id, first: Some(batch.first) })
    }

    /// Submits the job that reports once all of `jobs` have ended, however they ended.
    ///
    /// # Errors
    /// What Slurm says against it.
    pub fn submit_report(self, submission: &Submission, dir: &SubmissionDir, jobs: &[Job]) -> Result<Job> {
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        let id = parsed(&asked("sbatch", &report_arguments(submission, dir, &ids))?)?;
        Ok(Job { id, first: None })
    }

    /// Which of these jobs still wait or run.
    ///
    /// # Errors
    /// A server that does not answer.
    pub fn live(self, ids: &[String]) -> Result<Vec<Live>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let answer = call("squeue", &["-h", "-r", "-o", "%F %K %T", "-j", &ids.join(",")])?;
        if !answer.ok {
            // What it calls a job that it has forgotten: one that ended long ago.
            return if answer.err.contains("Invalid job id") {
                Ok(Vec::new())
            } else {
                Err(refused("squeue", &answer.complaint()))
            };
        }
        Ok(answer.out.lines().filter_map(live).collect())
    }

    /// Cancels these jobs; those that have ended are no error.
    ///
    /// # Errors
    /// What Slurm says against it.
    pub fn cancel(self, ids: &[String]) -> Result<()> {
        let answer = call("scancel", &[&[String::from("--quiet")], ids].concat())?;
        if answer.ok || answer.err.contains("Invalid job id") {
            Ok(())
        } else {
            Err(refused("scancel", &answer.complaint()))
        }
    }
}

/// The script of the units' jobs.
pub fn job_script(submission: &Submission, dir: &SubmissionDir, threads_are_written: bool) -> String {
    let cluster = &submission.cluster;
    let mut script = head(submission, "", cluster.gpus, cluster.cpus);
    let mut line = |text: String| {
        let _ = writeln!(script, "#SBATCH {text}");
    };
    line("--open-mode=append".to_owned());
    line("--requeue".to_owned());
    if cluster.signal_seconds > 0 {
        // Without `B:` steps alone get it.
        let whom = if cluster.srun { "" } else { "B:" };
        line(format!("--signal={whom}USR2@{}", cluster.signal_seconds));
    }
    if let Some(time) = &cluster.time {
        line(format!("--time={time}"));
    }
    if let Some(memory) = &cluster.memory {
        line(format!("--mem={memory}"));
    }
    for extra in cluster.extra.iter().flat_map(OneOrMany::as_slice) {
        line(extra.clone());
    }
    script.push_str(&frozen(submission, dir));
    let _ = writeln!(script, "log={}", quoted(&pattern(&dir.file("logs").join("%A_%a.log"))));
    let _ = writeln!(script, "requeue_limit={}", cluster.requeue_limit);
    let _ = writeln!(script, "use_srun={}", cluster.srun);
    if threads_are_written {
        script.push_str("options=()\n");
    } else {
        script.push_str("options=(--threads \"${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}\")\n");
    }
    script.push_str(super::NOTE_JOB);
    script.push_str(START);
    script.push_str(&super::freeze::setup(cluster));
    script.push_str(WORK);
    script
}

/// The script of the job that reports.
pub fn report_script(submission: &Submission, dir: &SubmissionDir) -> String {
    let mut script = head(submission, "-report", None, None);
    script.push_str(&frozen(submission, dir));
    let _ = writeln!(script, "log={}", quoted(&report_log(dir)));
    script.push_str(super::NOTE_JOB);
    script.push_str(&super::freeze::setup(&submission.cluster));
    script.push_str(REPORT);
    script
}

/// How a batch is submitted, in words of a shell.
pub fn array_command(
    submission: &Submission,
    dir: &SubmissionDir,
    batch: &Batch,
    after: &[String],
) -> String {
    in_a_shell("sbatch", &array_arguments(submission, dir, batch, after))
}

/// How the report is submitted, in words of a shell.
pub fn report_command(submission: &Submission, dir: &SubmissionDir, ids: &[&str]) -> String {
    in_a_shell("sbatch", &report_arguments(submission, dir, ids))
}

/// The first lines: what both scripts ask Slurm for. Every value is one of a field that takes nothing which Slurm or a shell
/// would read something into.
fn head(submission: &Submission, suffix: &str, gpus: Option<u32>, cpus: Option<u32>) -> String {
    let cluster = &submission.cluster;
    let mut text = "#!/bin/bash\n".to_owned();
    let mut line = |option: &str, value: &str| {
        let _ = writeln!(text, "#SBATCH --{option}={value}");
    };
    let name = submission.results.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "_-.@~".contains(letter) { letter } else { '_' };
    let name: String = name.chars().map(plain).collect();
    line("job-name", &format!("nanorun-{name}{suffix}"));
    line("ntasks", "1");
    for (option, value) in
        [("partition", &cluster.partition), ("account", &cluster.account), ("qos", &cluster.qos)]
    {
        if let Some(value) = value {
            line(option, value);
        }
    }
    if let Some(cpus) = cpus {
        line("cpus-per-task", &cpus.to_string());
    }
    if let Some(gpus) = gpus.filter(|gpus| *gpus > 0) {
        let kind = cluster.gpu_type.as_ref().map_or_else(String::new, |kind| format!("{kind}:"));
        line("gres", &format!("gpu:{kind}{gpus}"));
    }
    text
}

/// What both scripts know.
fn frozen(submission: &Submission, dir: &SubmissionDir) -> String {
    let path = |path: &Path| quoted(&path.display().to_string());
    format!(
        "\n# Frozen by nanorun {} at {}. Do not edit it: workers refuse what is not what was submitted.\nsubmission={}\n\
         results={}\nnanorun={}\n",
        submission.nanorun,
        submission.created,
        path(dir.path()),
        path(&submission.results),
        path(&submission.binary.path),
    )
}

fn array_arguments(
    submission: &Submission,
    dir: &SubmissionDir,
    batch: &Batch,
    after: &[String],
) -> Vec<String> {
    let limit = submission.cluster.array_limit.map_or_else(String::new, |limit| format!("%{limit}"));
    let last = batch.count.saturating_sub(1);
    let mut arguments = vec!["--parsable".to_owned(), format!("--array=0-{last}{limit}")];
    if !after.is_empty() {
        arguments.push(format!("--dependency=afterany:{}", after.join(":")));
    }
    arguments.push(format!("--output={}", pattern(&dir.file("logs").join("%A_%a.log"))));
    arguments.push(format!("--chdir={}", submission.directory.display()));
    arguments.push(dir.file("job.sh").display().to_string());
    arguments.push(batch.first.to_string());
    arguments
}

fn report_arguments(submission: &Submission, dir: &SubmissionDir, ids: &[&str]) -> Vec<String> {
    vec![
        "--parsable".to_owned(),
        format!("--dependency=afterany:{}", ids.join(":")),
        format!("--output={}", report_log(dir)),
        format!("--chdir={}", submission.directory.display()),
        dir.file("report.sh").display().to_string(),
    ]
}

/// Where the job that reports prints to.
fn report_log(dir: &SubmissionDir) -> String {
    pattern(&dir.file("logs").join("report_%j.log"))
}

/// A path whose last part is a pattern of Slurm's, which reads `%` as the beginning of one wherever it stands.
fn pattern(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let place = path.parent().map(|place| place.display().to_string().replace('%', "%%")).unwrap_or_default();
    format!("{place}/{name}")
}

fn in_a_shell(program: &str, arguments: &[String]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    format!("{program} {}", words.join(" "))
}

/// What a program printed.
fn asked(program: &str, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Result<String> {
    let answer = call(program, arguments)?;
    if answer.ok { Ok(answer.out) } else { Err(refused(program, &answer.complaint())) }
}

fn refused(program: &str, complaint: &str) -> Error {
    let error = Error::input(format!("{program} refused: {complaint}"));
    // By what Slurm's own messages say; `[cluster]` is where people can change it.
    let key = [
        ("Invalid account", "cluster.account"),
        ("artition", "cluster.partition"),
        ("qos", "cluster.qos"),
        ("QOS", "cluster.qos"),
        ("time limit", "cluster.time"),
        ("emory", "cluster.memory"),
        ("generic resource", "cluster.gpus"),
        ("CPU count", "cluster.cpus"),
    ];
    match key.into_iter().find(|(word, _)| complaint.contains(word)) {
        Some((_, key)) => error.key(key).expected("what this cluster has"),
        None => error,
    }
}

/// The number in what `sbatch --parsable` prints: `1234` or `1234;cluster`.
fn parsed(out: &str) -> Result<String> {
    let id = out.trim().lines().last().unwrap_or_default().split(';').next().unwrap_or_default();
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(id.to_owned())
    } else {
        Err(Error::input(format!("sbatch printed {out:?}")).expected("the number of a job"))
    }
}

/// A line of `squeue -o "%F %K %T"`.
fn live(line: &str) -> Option<Live> {
    let mut words = line.split(' ');
    let (id, index, state) = (words.next()?, words.next()?, words.next()?);
    Some(Live { id: id.to_owned(), index: index.parse().ok(), state: state.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_slurm_prints_is_understood() {
        assert_eq!(parsed("1234\n").unwrap(), "1234");
        assert_eq!(parsed("1234;north\n").unwrap(), "1234");
        for nothing in ["", "sbatch: error\n", "12x"] {
            assert!(parsed(nothing).is_err(), "{nothing:?}");
        }
        let of = |id: &str, index, state: &str| Live { id: id.to_owned(), index, state: state.to_owned() };
        assert_eq!(live("12 7 RUNNING"), Some(of("12", Some(7), "RUNNING")));
        assert_eq!(live("12 N/A PENDING"), Some(of("12", None, "PENDING")));
        assert_eq!(live(""), None);
    }

    #[test]
    fn a_path_is_no_pattern() {
        assert_eq!(pattern(Path::new("/a %A/b/%A_%a.log")), "/a %%A/b/%A_%a.log");
    }

    #[test]
    fn refusals_name_their_field() {
        let key = |complaint| refused("sbatch", complaint).key_path().map(str::to_owned);
        let said = "sbatch: error: Batch job submission failed: Invalid partition name specified";
        assert_eq!(key(said).as_deref(), Some("cluster.partition"));
        assert_eq!(key("Invalid qos specification").as_deref(), Some("cluster.qos"));
        assert_eq!(
            key("Invalid account or account/partition combination").as_deref(),
            Some("cluster.account")
        );
        assert_eq!(key("Requested node configuration is not available"), None);
    }
}
