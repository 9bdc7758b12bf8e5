//! `nanorun submit`, `status`, `cancel` and `work --unit`, and the scripts that schedulers run, with programs in place of
//! Slurm's that write down what they are told. `scripts/slurm_test` does the same with a real one.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use saphyr_parser::{Event, Parser};

use crate::support::{Ended, Place, TINY};

/// A Slurm that takes everything, by numbers from 11 on. Files beside it say what it answers: `most` (MaxArraySize),
/// `queue` (squeue), `refuses` (the number of the call of sbatch that it refuses), `state` (of any job).
const SBATCH: &str = r#"#!/bin/bash
here=$(dirname "$0")
calls=$(cat "$here/calls" 2>/dev/null || echo 10)
calls=$((calls + 1)); echo "$calls" > "$here/calls"
if [ "$(cat "$here/refuses" 2>/dev/null)" = "$((calls - 10))" ]; then
    echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2; exit 1
fi
echo "sbatch $*" >> "$here/told"
echo "$calls"
"#;
const SCONTROL: &str = r#"#!/bin/bash
here=$(dirname "$0")
case "$1 $2" in
"show config") echo "MaxArraySize            = $(cat "$here/most" 2>/dev/null || echo 1001)" ;;
"show partition") printf 'PartitionName=low AllowGroups=ALL\nPartitionName=high AllowGroups=ALL\n' ;;
"show job") echo "JobId=12 JobState=$(cat "$here/state" 2>/dev/null || echo RUNNING) EndTime=Unknown Deadline=N/A" ;;
*) echo "scontrol $*" >> "$here/told" ;;
esac
"#;
const SQUEUE: &str = "#!/bin/bash\ncat \"$(dirname \"$0\")/queue\" 2>/dev/null\nexit 0\n";
const SCANCEL: &str = "#!/bin/bash\necho \"scancel $*\" >> \"$(dirname \"$0\")/told\"\n";

/// A place with such a Slurm.
pub(crate) struct Cluster(pub(crate) Place);

impl Cluster {
    pub(crate) fn with(manifest: &str) -> Self {
        let cluster = Self(Place::with(manifest));
        fs::create_dir(cluster.0.path("bin")).unwrap();
        for (name, text) in
            [("sbatch", SBATCH), ("scontrol", SCONTROL), ("squeue", SQUEUE), ("scancel", SCANCEL)]
        {
            cluster.program(name, text);
        }
        cluster
    }

    pub(crate) fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn path(&self) -> String {
        format!("{}:{}", self.0.path("bin").display(), std::env::var("PATH").unwrap())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = self.0.command(arguments);
        command.env("PATH", self.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SLURM_")) {
            command.env_remove(name);
        }
        Ended::of(
            &command.output().unwrap(),
            Path::new(self.0.path(".").to_str().unwrap().trim_end_matches("/.")),
        )
    }

    /// Says what Slurm answers.
    pub(crate) fn answer(&self, file: &str, text: &str) {
        fs::write(self.0.path("bin").join(file), text).unwrap();
    }

    /// What it was told.
    pub(crate) fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path("bin/told")).unwrap_or_default();
        let place = self.0.path(".");
        let place = place.to_str().unwrap().trim_end_matches("/.");
        text.lines().map(|line| line.replace(place, "[place]")).collect()
    }

    pub(crate) fn submit(&self, more: &[&str]) -> serde_json::Value {
        let arguments: Vec<&str> = ["submit", "m.toml", "--json"].iter().chain(more).copied().collect();
        self.run(&arguments).expect(0).json()
    }

    /// The directory of a submission, as `submit --json` names it.
    pub(crate) fn submission(&self, submitted: &serde_json::Value) -> PathBuf {
        PathBuf::from(
            submitted["submission"]
                .as_str()
                .unwrap()
                .replace("[place]", self.0.path(".").to_str().unwrap().trim_end_matches("/.")),
        )
    }

    pub(crate) fn submissions(&self) -> usize {
        fs::read_dir(self.0.path("results/tiny/submit")).map_or(0, Iterator::count)
    }

    /// Runs a job's script as Slurm would, with a worker that ends with this code.
    pub(crate) fn job(&self, submission: &Path, worker: &Path, first: &str, index: &str) -> Output {
        let script = fs::read_to_string(submission.join("job.sh")).unwrap();
        let line = script.lines().find(|line| line.starts_with("nanorun=")).unwrap();
        let script = script.replace(line, &format!("nanorun='{}'", worker.display()));
        let copy = self.0.path("slurm_script");
        fs::write(&copy, script).unwrap();
        Command::new("bash")
            .arg(&copy)
            .arg(first)
            .current_dir(self.0.path(""))
            .envs([("SLURM_ARRAY_JOB_ID", "12"), ("SLURM_ARRAY_TASK_ID", index), ("SLURM_JOB_ID", "13")])
            .env("SLURMD_NODENAME", "n1")
            .env("PATH", self.path())
            .output()
            .unwrap()
    }
}

pub(crate) fn with_cluster(lines: &str) -> String {
    format!("{TINY}\n[cluster]\n{lines}\n")
}

#[test]
fn an_experiment_is_submitted_as_an_array() {
    let text = with_cluster(
        "partition = \"low\"\ntime = \"2:00:00\"\ncpus = 4\nmemory = \"8G\"\narray_limit = 3\ngpus = 2\ngpu_type = \"h100\"\n\
         extra = [\"--constraint=a|b\"]\nsetup = [\"module load x\"]\ncache = \"$TMPDIR/c\"",
    );
    let cluster = Cluster::with(&text);
    let planned = cluster.run(&["plan", "m.toml", "--json"]).expect(0).json();
    // Two seeds, each of them a tree of two arms.
    assert_eq!(planned["cluster"]["units"].as_array().unwrap().len(), 2);
    let submitted = cluster.submit(&[]);
    let place = cluster.submission(&submitted);
    let name = place.file_name().unwrap().to_str().unwrap();
    let dir = format!("[place]/results/tiny/submit/{name}");
    assert_eq!(
        cluster.told(),
        [
            format!(
                "sbatch --parsable --array=0-1%3 --output={dir}/logs/%A_%a.log --chdir=[place] {dir}/job.sh 0"
            ),
            format!(
                "sbatch --parsable --dependency=afterany:11 --output={dir}/logs/report_%j.log --chdir=[place] \
                 {dir}/report.sh"
            ),
        ]
    );
    let script = fs::read_to_string(place.join("job.sh")).unwrap();
    for line in [
        "#SBATCH --job-name=nanorun-tiny",
        "#SBATCH --partition=low",
        "#SBATCH --time=2:00:00",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=8G",
        "#SBATCH --gres=gpu:h100:2",
        "#SBATCH --constraint=a|b",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=USR2@180",
        "module load x",
        "export NANORUN_CACHE=\"$TMPDIR/c\"",
        "requeue_limit=3",
    ] {
        assert!(script.lines().any(|found| found == line), "no {line} in\n{script}");
    }
    assert!(place.join("logs").is_dir());
    let frozen = fs::read_to_string(place.join("submission.toml")).unwrap();
    assert!(frozen.contains("[[unit]]") && frozen.contains("sha256 = "), "{frozen}");
    let status = cluster.run(&["status", "m.toml", "--json"]).expect(0).json();
    assert_eq!(status["units"].as_array().unwrap().len(), 2);
    assert_eq!(status["units"][0]["state"], "waiting");
    // Nothing that was asked for is part of a key or of a directory's name.
    assert_eq!(planned["directory"], "results/tiny");
    assert_eq!(
        planned["runs"][0]["key"],
        Place::with(TINY).run(&["plan", "m.toml", "--json"]).json()["runs"][0]["key"]
    );
}

#[test]
fn a_dry_run_writes_and_submits_nothing() {
    let cluster = Cluster::with(&with_cluster("partition = \"low\""));
    let shown = cluster.run(&["submit", "m.toml", "--dry-run"]).expect(0);
    assert!(shown.stdout.starts_with("#!/bin/bash\n#SBATCH "), "{}", shown.stdout);
    assert!(shown.stdout.contains("# sbatch --parsable --array=0-1 "), "{}", shown.stdout);
    assert!(shown.stdout.contains("--dependency=afterany:JOB0 "), "{}", shown.stdout);
    assert_eq!(cluster.told(), Vec::<String>::new());
    assert!(!cluster.0.path("results").exists());
    // Both scripts are shell.
    for dry in [vec!["--engine", "slurm"], vec!["--engine", "hyperqueue"]] {
        let arguments: Vec<&str> =
            ["submit", "m.toml", "--dry-run", "--json"].into_iter().chain(dry).collect();
        let json = cluster.run(&arguments).expect(0).json();
        for script in [&json["script"], &json["report"]].into_iter().filter_map(serde_json::Value::as_str) {
            let path = cluster.0.path("checked.sh");
            fs::write(&path, script).unwrap();
            assert!(Command::new("bash").arg("-n").arg(&path).status().unwrap().success(), "{script}");
        }
    }
}

#[test]
fn trees_are_split_and_long_arrays_are_cut() {
    let cluster = Cluster::with(&with_cluster("split = 2"));
    cluster.answer("most", "2");
    let submitted = cluster.submit(&[]);
    let units = submitted["units"].as_array().unwrap();
    let shown: Vec<(&str, Option<u64>)> =
        units.iter().map(|unit| (unit["kind"].as_str().unwrap(), unit["after"].as_u64())).collect();
    assert_eq!(shown, [("trunk", None), ("trunk", None), ("fork", Some(0)), ("fork", Some(1))]);
    let told = cluster.told();
    let has = |at: usize, what: &str| assert!(told[at].contains(what), "{}", told[at]);
    assert_eq!(told.len(), 4, "{told:?}");
    has(0, "--array=0-1 ");
    // A fork waits for its own trunk, not for all of the array.
    has(1, "--array=0-0 --dependency=afterany:11_0 ");
    has(2, "--array=0-0 --dependency=afterany:11_1 ");
    assert!(told[1].ends_with("job.sh 2") && told[2].ends_with("job.sh 3"), "{told:?}");
    has(3, "--dependency=afterany:11:12:13 ");
    // As many arrays as it takes.
    let seeds = Cluster::with(&TINY.replace("[1, 2]", "[1, 2, 3, 4, 5]"));
    seeds.answer("most", "2");
    seeds.submit(&[]);
    let told = seeds.told();
    assert_eq!(told.len(), 4);
    let firsts: Vec<&str> = told[..3].iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(firsts, ["0", "2", "4"]);
}

#[test]
fn what_cannot_be_submitted_is_refused_and_leaves_nothing() {
    let refused = |cluster: &Cluster, more: &[&str], words: &[&str]| {
        let arguments: Vec<&str> = ["submit", "m.toml"].iter().chain(more).copied().collect();
        let ended = cluster.run(&arguments).expect(2);
        for word in words {
            assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
        }
    };
    let cluster = Cluster::with(TINY);
    let nothing = |cluster: &Cluster| {
        assert_eq!(cluster.submissions(), 0);
        assert!(!cluster.told().iter().any(|line| line.starts_with("sbatch")), "{:?}", cluster.told());
    };
    let partition = ["--set", "cluster.partition=hgih"];
    refused(&cluster, &partition, &["there is no partition hgih", "one of low, high", "cluster.partition"]);
    cluster.answer("most", "1");
    refused(&cluster, &[], &["takes no job arrays"]);
    nothing(&cluster);
    fs::remove_file(cluster.0.path("bin/sbatch")).unwrap();
    let bare = cluster.0.command(&["submit", "m.toml"]).env("PATH", cluster.0.path("bin")).output().unwrap();
    let bare = Ended::of(&bare, &cluster.0.path("bin")).expect(2);
    assert!(
        bare.stderr.contains("there is no `sbatch` here") && bare.stderr.contains("--dry-run"),
        "{}",
        bare.stderr
    );
    refused(&Cluster::with(TINY), &["--engine", "hyperqueue"], &["there is no `hq` here"]);
    for (set, words) in [
        ("cluster.time=a while", "D-HH:MM:SS"),
        ("cluster.memory=64GB", "a number with K, M, G or T"),
        ("cluster.partition=a b", "letters, digits"),
        ("cluster.account=$(id)", "letters, digits"),
        ("cluster.extra=--array=0-9", "cluster.array_limit"),
        ("cluster.extra=rm -r", "beginning with `--`"),
        ("cluster.file=nowhere.toml", "there is no such manifest"),
    ] {
        refused(&Cluster::with(TINY), &["--set", set], &[words]);
    }
    // Of three arrays the second is refused: the first is taken back.
    let half = Cluster::with(&TINY.replace("[1, 2]", "[1, 2, 3]"));
    half.answer("most", "2");
    half.answer("refuses", "2");
    refused(&half, &[], &["QOS policy", "cluster.qos"]);
    assert_eq!(half.submissions(), 0);
    assert!(half.told().contains(&"scancel --quiet 11".to_owned()), "{:?}", half.told());
}

#[test]
fn a_site_may_keep_its_settings_in_a_file() {
    let cluster = Cluster::with(&with_cluster("file = \"site.toml\"\ntime = \"30\""));
    let site = |text: &str| fs::write(cluster.0.path("site.toml"), text).unwrap();
    site("partition = \"high\"\ntime = \"10\"\n");
    let script = cluster.run(&["submit", "m.toml", "--dry-run"]).expect(0).stdout;
    assert!(
        script.contains("#SBATCH --partition=high\n") && script.contains("#SBATCH --time=30\n"),
        "{script}"
    );
    site("[cluster]\npartition = \"low\"\n");
    assert!(cluster.run(&["submit", "m.toml", "--dry-run"]).expect(0).stdout.contains("--partition=low\n"));
    for (text, words) in [
        ("partitoin = \"low\"", "did you mean `partition`?"),
        ("class = \"same\"", "write cluster.class in the manifest"),
        ("time = \"soon\"", "site.toml:1"),
    ] {
        site(text);
        let ended = cluster.run(&["submit", "m.toml", "--dry-run"]).expect(2);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        // Whoever does not submit needs no such file.
        cluster.run(&["plan", "m.toml"]).expect(0);
    }
}

#[test]
fn the_same_units_are_not_submitted_twice() {
    let cluster = Cluster::with(TINY);
    cluster.submit(&[]);
    cluster.answer("queue", "11 0 RUNNING\n11 1 PENDING\n12 N/A PENDING\n");
    let again = cluster.run(&["submit", "m.toml"]).expect(2);
    assert!(again.stderr.contains("unit 0: 11_0 (running), unit 1: 11_1 (pending)"), "{}", again.stderr);
    assert!(again.stderr.contains("nanorun cancel"), "{}", again.stderr);
    assert_eq!(cluster.submissions(), 1);
    // Other runs are other units.
    cluster.answer("queue", "11 0 RUNNING\n");
    let other = cluster.submit(&["--only", "run.seed=2"]);
    assert_eq!(other["units"].as_array().unwrap().len(), 1);
    cluster.answer("queue", "");
    cluster.run(&["cancel", "m.toml"]).expect(0);
    assert!(
        cluster.told().iter().any(|line| line.starts_with("scancel --quiet 11 12")),
        "{:?}",
        cluster.told()
    );
    let status = cluster.run(&["status", "results/tiny", "--json"]).expect(0).json();
    assert!(status["units"].as_array().unwrap().iter().all(|unit| unit["state"] == "cancelled"), "{status}");
    let twice = cluster.run(&["cancel", "m.toml"]).expect(2);
    assert!(twice.stderr.contains("nothing of this experiment is submitted"), "{}", twice.stderr);
    // Cancelled units may be submitted again.
    cluster.submit(&[]);
}

#[test]
fn workers_do_what_was_frozen_and_nothing_else() {
    let cluster = Cluster::with(TINY);
    let alone = Place::with(TINY);
    alone.run(&["run", "m.toml", "--quiet"]).expect(0);
    let submitted = cluster.submit(&[]);
    let place = cluster.submission(&submitted);
    let work = |unit: &str| cluster.run(&["work", place.to_str().unwrap(), "--unit", unit, "--quiet"]);
    // What the manifest says by now is no matter.
    fs::write(cluster.0.path("m.toml"), TINY.replace("steps = 8", "steps = 9")).unwrap();
    work("1").expect(0);
    fs::write(cluster.0.path("m.toml"), TINY).unwrap();
    let finished = cluster.0.hashes().iter().filter(|(_, hash)| hash.is_some()).count();
    assert_eq!(finished, 2);
    assert!(work("2").expect(2).stderr.contains("a unit from 0 to 1"));
    let refused = |name: &str, words: &str| {
        let path = place.join(name);
        let was = fs::read(&path).unwrap();
        fs::write(&path, [was.as_slice(), b"\n"].concat()).unwrap();
        let ended = work("0").expect(2);
        assert!(
            ended.stderr.contains(words) && ended.stderr.contains("nanorun submit m.toml"),
            "{}",
            ended.stderr
        );
        fs::write(&path, was).unwrap();
    };
    refused("manifest.toml", "the manifest of this submission was changed");
    refused("job.sh", "a script of this submission was changed");
    let frozen = fs::read_to_string(place.join("submission.toml")).unwrap();
    let at = frozen.find("[binary]").unwrap();
    let digest = frozen[at..].split("sha256 = \"").nth(1).unwrap()[..64].to_owned();
    fs::write(place.join("submission.toml"), frozen.replace(&digest, &"0".repeat(64))).unwrap();
    let changed = work("0").expect(2);
    assert!(changed.stderr.contains("not the program that this was submitted with"), "{}", changed.stderr);
    fs::write(place.join("submission.toml"), frozen).unwrap();
    work("0").expect(0);
    work("0").expect(0);
    assert_eq!(cluster.0.hashes(), alone.hashes());
    let status = cluster.run(&["status", "m.toml", "--json"]).expect(0).json();
    assert!(status["units"].as_array().unwrap().iter().all(|unit| unit["state"] == "done"), "{status}");
    let nothing = cluster.run(&["submit", "m.toml"]).expect(2);
    assert!(nothing.stderr.contains("every run has ended"), "{}", nothing.stderr);
}

#[test]
fn any_scheduler_may_number_the_units_of_a_manifest() {
    let place = Place::with(TINY);
    for unit in ["0", "1"] {
        place.run(&["work", "m.toml", "--unit", unit, "--quiet"]).expect(0);
        // Done already, it is done.
        place.run(&["work", "m.toml", "--unit", unit, "--quiet"]).expect(0);
    }
    assert!(place.hashes().iter().all(|(_, hash)| hash.is_some()));
    let beyond = place.run(&["work", "m.toml", "--unit", "2"]).expect(2);
    assert!(beyond.stderr.contains("a unit from 0 to 1"), "{}", beyond.stderr);
}

/// What a job's script makes of how its worker ended.
#[test]
fn exit_codes_of_workers_decide_what_becomes_of_a_job() {
    let cluster = Cluster::with(&with_cluster("srun = false\nrequeue_limit = 2"));
    let submitted = cluster.submit(&[]);
    let place = cluster.submission(&submitted);
    let before = cluster.told().len();
    let new = || cluster.told()[before..].to_vec();
    let ends = |code: &str, index: &str| {
        let worker = cluster.program("worker", &format!("#!/bin/bash\n{code}\n"));
        let output = cluster.job(&place, &worker, "0", index);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let events = |unit: &str| fs::read_to_string(place.join("events").join(unit)).unwrap_or_default();

    let (code, log) = ends("exit 0", "0");
    assert_eq!((code, new().len()), (Some(0), 0));
    assert!(log.contains("job 12_0 (unit 0), restart 0, on n1"), "{log}");
    assert!(events("0").contains(" start job 12_0 on n1"), "{}", events("0"));
    let (code, _) = ends("exit 2", "0");
    assert_eq!((code, new().len()), (Some(2), 0), "never again");

    // The time limit: queued again by its own id, so often and no more.
    for time in 1..=2 {
        assert_eq!(ends("exit 130", "1").0, Some(130));
        assert_eq!(new(), vec!["scontrol requeue 12_1"; time]);
    }
    let (_, log) = ends("exit 130", "1");
    assert_eq!(new().len(), 2);
    assert!(log.contains("cluster.requeue_limit = 2 is reached"), "{log}");

    // Preempted or cancelled: Slurm knows what to do.
    let asked = "trap 'exit 130' TERM; kill -TERM $PPID; sleep 20 & wait";
    assert_eq!(ends(asked, "0").0, Some(130));
    cluster.answer("state", "CANCELLED");
    assert_eq!(ends("exit 130", "0").0, Some(130));
    cluster.answer("state", "RUNNING");
    assert_eq!(new().len(), 2, "{:?}", new());

    // A failure: once more on another node, and that is all.
    assert_eq!(ends("exit 3", "0").0, Some(3));
    let told = new();
    assert!(told[2].starts_with("sbatch --parsable --array=0 --exclude=n1 "), "{told:?}");
    // In a file of its own, so that it is cancelled with the others.
    let noted = fs::read_to_string(place.join("jobs/13")).unwrap();
    assert_eq!(noted, "13 0 retry\n");
    assert_eq!(ends("exit 3", "0").0, Some(3));
    assert_eq!(new().len(), 3);
    // One that would come to the same again.
    fs::write(place.join("events/1"), "2026-01-31T00:00:00Z final it diverged\n").unwrap();
    assert_eq!(ends("exit 3", "1").0, Some(3));
    assert_eq!(new().len(), 3);
    assert!(events("1").contains(" failed job 12_1 on n1"), "{}", events("1"));

    fs::write(place.join("cancelled"), "").unwrap();
    let (code, log) = ends("exit 3", "1");
    assert_eq!(code, Some(0));
    assert!(log.contains("cancelled"), "{log}");
    fs::remove_dir_all(&place).unwrap();
}

/// Paths of the keys of a YAML document, and its scalars by path.
fn yaml(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // The path so far; for a mapping, the key that waits for its value.
    let mut path: Vec<(bool, Option<String>)> = Vec::new();
    let shown = |path: &[(bool, Option<String>)]| {
        path.iter().filter_map(|(_, key)| key.clone()).collect::<Vec<_>>().join(".")
    };
    for event in Parser::new_from_str(text) {
        match event.unwrap().0 {
            Event::MappingStart(..) => path.push((true, None)),
            Event::SequenceStart(..) => path.push((false, None)),
            Event::MappingEnd | Event::SequenceEnd => {
                path.pop();
                if let Some((true, key)) = path.last_mut() {
                    *key = None;
                }
            }
            Event::Scalar(value, ..) => match path.last_mut() {
                Some((true, key @ None)) => *key = Some(value.to_string()),
                last => {
                    let is_value = matches!(last, Some((true, Some(_))));
                    found.push((shown(&path), value.to_string()));
                    if let (true, Some((_, key))) = (is_value, path.last_mut()) {
                        *key = None;
                    }
                }
            },
            _ => {}
        }
    }
    found
}

#[test]
fn templates_are_what_they_say() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster");
    let kubernetes = yaml(&fs::read_to_string(docs.join("kubernetes.yaml")).unwrap());
    let has = |path: &str, value: &str| {
        assert!(kubernetes.contains(&(path.to_owned(), value.to_owned())), "{path} {value}: {kubernetes:?}");
    };
    has("kind", "Job");
    has("spec.completionMode", "Indexed");
    has("spec.podFailurePolicy.rules.action", "FailIndex");
    let codes: Vec<&str> = kubernetes
        .iter()
        .filter(|(path, _)| path == "spec.podFailurePolicy.rules.onExitCodes.values")
        .map(|(_, code)| code.as_str())
        .collect();
    assert_eq!(codes, ["130", "2", "3"]);
    let args = "spec.template.spec.containers.args";
    let (_, command) = kubernetes.iter().find(|(path, _)| path == args).unwrap();
    let skypilot = yaml(&fs::read_to_string(docs.join("skypilot.yaml")).unwrap());
    let (_, run) = skypilot.iter().find(|(path, _)| path == "run").unwrap();
    let parallel = fs::read_to_string(docs.join("gnu_parallel.sh")).unwrap();
    let place = tempfile::tempdir().unwrap();
    for script in [command, run, &parallel] {
        let path = place.path().join("script.sh");
        fs::write(&path, script).unwrap();
        assert!(Command::new("bash").arg("-n").arg(&path).status().unwrap().success(), "{script}");
        assert!(script.contains("nanorun work "), "{script}");
    }
}
