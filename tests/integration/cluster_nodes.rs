//! What the jobs of a submission make of the node they are on: whether results are there and can be written, whether the
//! data are those that were frozen, whether it computes as the others; and the job that reports.
#![cfg(unix)]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, UNIX_EPOCH};

use crate::cluster::{Cluster, with_cluster};
use crate::support::{Ended, TINY, skip};

/// A cluster whose experiment reads two files of text.
fn with_shards(lines: &str) -> Cluster {
    let text = TINY.replace(
        "tokenizer = { vocab_size = 300 }",
        "shards = \"text\"\ndocument = \"line\"\ntokenizer = \"char\"",
    );
    let cluster = Cluster::with(&format!("{text}\n[cluster]\n{lines}\n"));
    fs::create_dir(cluster.0.path("text")).unwrap();
    for name in ["a.txt", "b.txt"] {
        shard(&cluster, name, &words(300), 1_000_000_000);
    }
    cluster
}

fn words(lines: usize) -> String {
    let lines: Vec<String> = (0..lines).map(|line| format!("the {line} times {}", line * 7 % 97)).collect();
    lines.join("\n") + "\n"
}

fn shard(cluster: &Cluster, name: &str, text: &str, seconds: u64) {
    let path = cluster.0.path("text").join(name);
    fs::write(&path, text).unwrap();
    let at = UNIX_EPOCH + Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

fn work(cluster: &Cluster, submission: &Path, unit: &str) -> Ended {
    cluster.run(&["work", submission.to_str().unwrap(), "--unit", unit])
}

#[test]
fn shards_are_frozen_and_others_are_refused_by_name() {
    let cluster = with_shards("");
    let place = cluster.submission(&cluster.submit(&[]));
    let frozen = fs::read_to_string(place.join("submission.toml")).unwrap();
    assert_eq!(frozen.matches("[[shard]]").count(), 2, "{frozen}");
    assert!(frozen.contains("modified = [1000000000, 0]"), "{frozen}");
    let refused = |words: &[&str]| {
        let ended = work(&cluster, &place, "0").expect(2);
        for word in words {
            assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
        }
    };
    let other = words(300).replacen("the 0", "The 0", 1);
    shard(&cluster, "a.txt", &other, 1_000_000_001);
    refused(&["other data", "text/a.txt", "SHA-256", "nanorun cancel"]);
    shard(&cluster, "a.txt", &words(301), 1_000_000_000);
    refused(&["other data", "text/a.txt", "bytes"]);
    shard(&cluster, "a.txt", &words(300), 1_000_000_002);
    shard(&cluster, "c.txt", &words(300), 1_000_000_000);
    refused(&["other data: this shard was not there", "text/c.txt"]);
    fs::remove_file(cluster.0.path("text/c.txt")).unwrap();
    fs::rename(cluster.0.path("text/b.txt"), cluster.0.path("b.txt")).unwrap();
    refused(&["b.txt"]);
    fs::rename(cluster.0.path("b.txt"), cluster.0.path("text/b.txt")).unwrap();
    // The same bytes at another time are the same data.
    work(&cluster, &place, "0").expect(0);
    // What an earlier version froze says nothing of them.
    let at = frozen.find("[[shard]]").unwrap();
    let end = frozen.find("[[unit]]").unwrap();
    fs::write(place.join("submission.toml"), format!("{}{}", &frozen[..at], &frozen[end..])).unwrap();
    work(&cluster, &place, "1").expect(0);
    assert!(cluster.0.hashes().iter().all(|(_, hash)| hash.is_some()));
}

#[test]
fn what_was_frozen_is_not_read_to_be_hashed() {
    let cluster = with_shards("");
    let place = cluster.submission(&cluster.submit(&[]));
    // Of the same size and time: nobody who trusts those reads it. What is trained on are the tokens that were made of the
    // file that was frozen, which the cache has by its digest.
    cluster.run(&["work", place.to_str().unwrap(), "--unit", "0"]).expect(0);
    let other = words(300).replacen("the 0", "the 1", 1);
    shard(&cluster, "a.txt", &other, 1_000_000_000);
    work(&cluster, &place, "1").expect(0);
    // Without a submission it is hashed: its times have moved.
    let planned = cluster.run(&["plan", "m.toml", "--json"]).expect(0).json();
    assert!(planned["runs"].as_array().unwrap().iter().all(|run| run["status"] != "done"), "{planned}");
}

#[test]
fn a_node_of_another_class_tells_or_refuses() {
    for (demands, code) in [("any", 0), ("same", 2)] {
        let cluster = Cluster::with(&with_cluster(&format!("class = \"{demands}\"")));
        cluster.run(&["work", "m.toml", "--only", "run.seed=1", "--quiet"]).expect(0);
        let place = cluster.submission(&cluster.submit(&[]));
        let path = place.join("submission.toml");
        let frozen = fs::read_to_string(&path).unwrap();
        let line = frozen.lines().find(|line| line.starts_with("\"cpu in f32\" = ")).unwrap();
        let class = line.split('"').nth(3).unwrap();
        let status = cluster.run(&["status", "m.toml"]).expect(0).stdout;
        assert!(status.contains(&format!("environment class: {class}\n")), "{status}");
        let json = cluster.run(&["status", "m.toml", "--json"]).expect(0).json();
        assert_eq!(json["classes"][class], 2, "{json}");
        assert_eq!(json["expected_classes"]["cpu in f32"], class, "{json}");
        fs::write(&path, frozen.replace(line, "\"cpu in f32\" = \"another\"")).unwrap();
        // Where the manifest demands one, the first worker's is recorded beside.
        let _ = fs::remove_file(cluster.0.path("results/tiny/classes.toml"));
        let told = work(&cluster, &place, "0").expect(code).stderr;
        assert!(told.contains("`another`") && told.contains("cluster.class"), "{told}");
        let status = cluster.run(&["status", "m.toml"]).expect(0).stdout;
        assert!(status.contains("when it was submitted, of cpu in f32: another"), "{status}");
    }
}

/// Runs a job's script whose worker is nanorun itself.
fn job(cluster: &Cluster, submission: &Path) -> Output {
    cluster.job(submission, &assert_cmd::cargo::cargo_bin("nanorun"), "0", "0")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_node_that_does_not_share_the_results_says_so_and_is_never_tried_again() {
    let cluster = Cluster::with(TINY);
    let place = cluster.submission(&cluster.submit(&[]));
    let before = cluster.told().len();
    // A file server may be late: it is waited for, which takes no time here.
    cluster.program("sleep", "#!/bin/bash\necho \"slept $1\" >> \"$(dirname \"$0\")/slept\"\n");
    let script = fs::read_to_string(place.join("job.sh")).unwrap();
    let away = cluster.0.path("results/tiny/elsewhere");
    fs::rename(&place, &away).unwrap();
    let copy = cluster.0.path("slurm_script");
    fs::write(&copy, script).unwrap();
    let ended = Command::new("bash")
        .arg(&copy)
        .current_dir(cluster.0.path(""))
        .envs([("SLURM_JOB_ID", "12"), ("SLURMD_NODENAME", "n1")])
        .env("PATH", cluster.path())
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
    assert!(said(&ended).contains("error: n1 has no "), "{}", said(&ended));
    assert!(said(&ended).contains("a file system that every node shares"), "{}", said(&ended));
    let slept = fs::read_to_string(cluster.0.path("bin/slept")).unwrap();
    assert!(slept.ends_with("slept 30\n"), "{slept}");
    // Nothing was asked of the scheduler, and nothing was made in place of what is missing.
    assert_eq!(cluster.told().len(), before);
    assert!(!place.exists());
    // The same of a worker without a script.
    assert_eq!(work(&cluster, &place, "0").code, Some(2));
}

#[test]
fn a_node_that_cannot_write_the_results_says_so_and_is_never_tried_again() {
    let cluster = Cluster::with(&with_cluster("srun = false"));
    let place = cluster.submission(&cluster.submit(&[]));
    let before = cluster.told().len();
    // In a namespace of mounts of its own the results are what they are on a node that has them read only.
    let results = cluster.0.path("results");
    let read_only = |command: &str| {
        let here = results.display();
        let script = format!(
            "mount --bind '{here}' '{here}' && mount -o remount,bind,ro '{here}' || exit 99\n{command}"
        );
        let mut call = Command::new("unshare");
        call.args(["-rm", "bash", "-c", &script]).current_dir(cluster.0.path("")).env("PATH", cluster.path());
        call.env("NANORUN_CACHE", cluster.0.path("cache"));
        call.envs([("SLURM_ARRAY_JOB_ID", "12"), ("SLURM_ARRAY_TASK_ID", "0"), ("SLURM_JOB_ID", "13")]);
        call.env("SLURMD_NODENAME", "n1").output().ok()
    };
    let as_a_job = format!("exec bash '{}' 0", place.join("job.sh").display());
    let Some(ended) = read_only(&as_a_job)
        .filter(|ended| ended.status.code() != Some(99) && ended.status.code() != Some(1))
    else {
        return skip(
            "results that are read only on a node: a namespace of mounts takes root, or user namespaces",
        );
    };
    assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
    assert!(said(&ended).contains("cannot be written from n1"), "{}", said(&ended));
    assert_eq!(cluster.told().len(), before);
    // A worker without a script looks for itself.
    let program = assert_cmd::cargo::cargo_bin("nanorun");
    let direct = format!("exec '{}' work '{}' --unit 0", program.display(), place.display());
    let ended = read_only(&direct).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
    assert!(said(&ended).contains("the results cannot be written from "), "{}", said(&ended));
    assert!(said(&ended).contains("every node shares and may write to"), "{}", said(&ended));
    // Where it can be written all is well.
    assert_eq!(job(&cluster, &place).status.code(), Some(0));
}

#[test]
fn the_job_that_reports_waits_for_what_is_tried_again() {
    let cluster = Cluster::with(TINY);
    let place = cluster.submission(&cluster.submit(&[]));
    let before = cluster.told().len();
    let reporter =
        cluster.program("reporter", "#!/bin/bash\necho \"nanorun $1\" >> \"$(dirname \"$0\")/told\"\n");
    let script = fs::read_to_string(place.join("report.sh")).unwrap();
    let line = script.lines().find(|line| line.starts_with("nanorun=")).unwrap();
    let copy = cluster.0.path("slurm_script");
    fs::write(&copy, script.replace(line, &format!("nanorun='{}'", reporter.display()))).unwrap();
    let report = || {
        let mut call = Command::new("bash");
        call.arg(&copy).current_dir(cluster.0.path("")).env("PATH", cluster.path());
        let ended = call.output().unwrap();
        assert!(ended.status.success(), "{}", said(&ended));
        cluster.told()[before..].to_vec()
    };
    let noted =
        |id: &str, what: &str| fs::write(place.join("jobs").join(id), format!("{id} {what}\n")).unwrap();
    noted("21", "0 retry");
    noted("22", "1 retry");
    cluster.answer("queue", "22 1 RUNNING\n22 1 RUNNING\n");
    let name = place.file_name().unwrap().to_str().unwrap();
    let dir = format!("[place]/results/tiny/submit/{name}");
    let told = report();
    assert_eq!(
        told,
        [format!(
            "sbatch --parsable --dependency=afterany:22 --chdir=[place] --output={dir}/logs/report_%j.log [place]/slurm_script"
        )]
    );
    // It is one of the submission's jobs, which `nanorun cancel` ends.
    assert_eq!(fs::read_to_string(place.join("jobs/13")).unwrap(), "13 - report\n");
    cluster.answer("queue", "");
    assert_eq!(report()[1..], ["nanorun status", "nanorun report"]);
    cluster.answer("queue", "11 0 RUNNING\n13 N/A PENDING\n");
    cluster.run(&["cancel", "m.toml"]).expect(0);
    let last = cluster.told().pop().unwrap();
    assert_eq!(last, "scancel --quiet 11 12 13 21 22");
}

/// A HyperQueue that takes everything, by numbers from 1 on, and writes down the words of every `submit`.
const HQ: &str = r#"#!/bin/bash
here=$(dirname "$0")
case "$*" in
*"worker list") cat "$here/hq_workers" 2>/dev/null; exit 0 ;;
*" submit "*) ;;
*) exit 0 ;;
esac
calls=$(($(cat "$here/hq_calls" 2>/dev/null || echo 0) + 1)); echo "$calls" > "$here/hq_calls"
printf '%s\0' "$@" > "$here/hq_words_$calls"
echo "$calls"
"#;

/// The words of a submit, what `bash` is called with from where it begins.
fn words_of(cluster: &Cluster, call: usize) -> (Vec<String>, Vec<String>) {
    let bytes = fs::read(cluster.0.path("bin").join(format!("hq_words_{call}"))).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let words: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
    let at = words.iter().position(|word| word == "--").unwrap();
    (words[..at].to_vec(), words[at + 1..].to_vec())
}

fn calls(cluster: &Cluster) -> usize {
    fs::read_to_string(cluster.0.path("bin/hq_calls")).map_or(0, |text| text.trim().parse().unwrap())
}

#[test]
fn hyperqueue_runs_what_was_submitted_and_tries_failures_once_more() {
    let cluster = Cluster::with(&with_cluster("cpus = 2\nsetup = ['[ -z \"$WORKER\" ] || nanorun=$WORKER']"));
    cluster.program("hq", HQ);
    let place = cluster.submission(&cluster.submit(&["--engine", "hyperqueue"]));
    let (options, command) = words_of(&cluster, 1);
    assert!(
        options.contains(&"--array=0-1".to_owned()) && options.contains(&"--cpus=2".to_owned()),
        "{options:?}"
    );
    let task = |command: &[String], unit: &str, worker: &str| {
        let stub = cluster.program("worker", &format!("#!/bin/bash\n{worker}\n"));
        let mut call = Command::new(&command[0]);
        call.args(&command[1..]).current_dir(cluster.0.path("")).env("PATH", cluster.path());
        call.env("HQ_JOB_ID", "1").env("HQ_TASK_ID", unit);
        if !worker.is_empty() {
            call.env("WORKER", stub);
        }
        call.output().unwrap()
    };
    let jobs = || {
        let mut jobs: Vec<String> = fs::read_dir(place.join("jobs"))
            .unwrap()
            .map(|job| fs::read_to_string(job.unwrap().path()).unwrap().trim_end().to_owned())
            .collect();
        jobs.sort();
        jobs
    };
    // Nothing is called but what was submitted.
    let script = place.join("job.sh");
    let was = fs::read_to_string(&script).unwrap();
    fs::write(&script, was.replace("number=", "echo changed\nnumber=")).unwrap();
    let changed = task(&command, "0", "");
    assert_eq!(changed.status.code(), Some(2), "{}", said(&changed));
    assert!(said(&changed).contains("is not what was submitted") && !said(&changed).contains("\nchanged"));
    fs::write(&script, was).unwrap();
    // A failure is tried by another job, once.
    let failed = task(&command, "0", "exit 3");
    assert_eq!((failed.status.code(), calls(&cluster)), (Some(3), 2), "{}", said(&failed));
    let (options, again) = words_of(&cluster, 2);
    assert!(
        options.contains(&"--array=0".to_owned()) && options.contains(&"--cpus=2".to_owned()),
        "{options:?}"
    );
    assert_eq!(again, command);
    assert_eq!(jobs(), ["1 0 units", "2 0 retry"]);
    // On the same node it hands itself on while there are others; where there are none it is done.
    cluster.program("sleep", "#!/bin/bash\n");
    cluster.answer("hq_workers", "[{\"configuration\":{\"hostname\":\"n7\"}}]");
    let passed = task(&again, "0", "exit 3");
    assert_eq!((passed.status.code(), calls(&cluster)), (Some(0), 3), "{}", said(&passed));
    cluster.answer("hq_workers", "[]");
    let failed = task(&again, "0", "exit 3");
    assert_eq!((failed.status.code(), calls(&cluster)), (Some(3), 3), "{}", said(&failed));
    let events = fs::read_to_string(place.join("events/0")).unwrap();
    assert!(
        events.contains(" passed job ") && events.lines().last().unwrap().contains(" failed job "),
        "{events}"
    );
    // The last to end has it reported.
    let done = task(&command, "1", "");
    assert_eq!((done.status.code(), calls(&cluster)), (Some(0), 4), "{}", said(&done));
    let (_, report) = words_of(&cluster, 4);
    assert_eq!(report[4], place.join("report.sh").display().to_string());
    assert_eq!(jobs(), ["1 0 units", "2 0 retry", "3 0 retry", "4 - report"]);
    let told = task(&report, "0", "");
    assert!(said(&told).contains("2 of 4 runs are finished"), "{}", said(&told));
}
