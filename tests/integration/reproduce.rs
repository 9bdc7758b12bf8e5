//! One result, whatever happens: any number of threads, any company, shared or not, killed and carried on.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nanorun::internals::files::Files;
use nanorun::internals::record::{EvalRow, Row, RunResult, RunRow, StepRow, read_table};

use crate::support::{Place, TINY};

/// Long enough for work to be divided: several rows, blocks of every kernel, a long and a short window.
const THREADED: &str = r#"
name = "threaded"
upstream.commit = "92d63d4"
run = { seed = 1, backend = "cpu" }
budget.steps = 3
schedule = { warmdown = "linear", warmup_steps = 1, warmdown_ratio = 0.5 }
model = { depth = 2, aspect_ratio = 32, head_dim = 32, n_kv_head = 1, sequence_len = 192 }
train = { device_batch_size = 3, total_batch_size = 1152 }
data.tokenizer = { vocab_size = 300 }
eval = { every = 2, tokens = 2304 }

[matrix]
"run.seed" = [1, 2]

[[matrix.include]]
label = "adamw"
run.seed = 1
optimizer.kind = "adamw"
"#;

/// Four shapes that train their first steps together, on short documents.
pub(crate) fn shapes() -> String {
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/data/names.txt");
    let data =
        format!("shards = {:?}\ndocument = \"line\"\ntokenizer = \"char\"", names.display().to_string());
    let shapes = "\"schedule.warmdown\" = [\"linear\", \"sqrt\", \"cosine\", \"constant\"]";
    TINY.replace("\"schedule.warmdown\" = [\"linear\", \"sqrt\"]", shapes)
        .replace("[1, 2]", "[1]")
        .replace("tokenizer = { vocab_size = 300 }", &data)
        // Nothing is judged: how fast arms are is no matter here.
        .replace("control = { \"schedule.warmdown\" = \"linear\" }", "")
}

/// Every column of the tables that is no timing, as text.
pub(crate) fn exact_tables(experiment: &Path) -> String {
    fn table<R: Row>(experiment: &Path) -> String {
        let rows: Vec<R> = read_table(&Files::new(), &experiment.join(R::FILE)).unwrap();
        let exact: Vec<&str> = R::COLUMNS.iter().filter(|c| !c.measured).map(|c| c.name).collect();
        assert!(exact.len() >= 7);
        let frame = R::to_frame(&rows).unwrap().select(exact).unwrap();
        let mut text = String::new();
        for column in frame.columns() {
            // Whole values: a frame's own display rounds and leaves out.
            let values: Vec<String> =
                column.as_materialized_series().iter().map(|v| format!("{v:?}")).collect();
            text.extend([column.name().as_str(), ": ", &values.join(" "), "\n"]);
        }
        text
    }
    [table::<RunRow>(experiment), table::<StepRow>(experiment), table::<EvalRow>(experiment)].join("\n")
}

/// Keeps a core busy while it lives.
struct Busy(&'static AtomicBool, Option<std::thread::JoinHandle<()>>);

impl Busy {
    fn start() -> Self {
        let stop: &'static AtomicBool = Box::leak(Box::default());
        let spin = move || {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        Self(stop, Some(std::thread::spawn(spin)))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().map(std::thread::JoinHandle::join);
    }
}

/// As on a system of which nothing is known but what Rust's library tells: the same bits, also after a kill, and every
/// command that asks the system has an answer.
#[test]
fn a_system_that_tells_nothing_changes_no_bit() {
    let place = Place::with(THREADED);
    let tables = |results: &str| exact_tables(&place.path(results).join("threaded"));
    let portable = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env("NANORUN_SYSTEM", "portable");
        command
    };
    place.run(&["run", "m.toml", "-q", "--results", "here"]).expect(0);
    let run = ["run", "m.toml", "-q", "--results", "elsewhere", "--threads", "2"];
    let mut child = portable(&run).spawn().unwrap();
    let begun =
        || std::fs::read_dir(place.path("elsewhere/threaded/runs")).is_ok_and(|runs| runs.count() > 0);
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for arguments in [&run[..], &["doctor"], &["plan", "m.toml"], &["cache"]] {
        let output = portable(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
    }
    assert_eq!(tables("elsewhere"), tables("here"));
}

#[test]
fn threads_load_and_company_change_no_bit() {
    let place = Place::with(THREADED);
    let run = |results: &str, arguments: &[&str]| {
        place.run(&[&["run", "m.toml", "-q", "--results", results], arguments].concat()).expect(0);
        exact_tables(&place.path(results).join("threaded"))
    };
    let alone = run("alone", &["--threads", "1", "--jobs", "1"]);
    assert_eq!(alone.matches("finished").count(), 3, "{alone}");
    for threads in ["2", "3", "5", "8"] {
        assert_eq!(run(threads, &["--threads", threads, "--jobs", "1"]), alone, "{threads} threads");
    }
    // All three runs in one process, on one thread each and on more.
    for threads in ["3", "8"] {
        let company = format!("{threads}_company");
        assert_eq!(run(&company, &["--threads", threads, "--jobs", "3"]), alone, "{company}");
    }
    let _busy = [Busy::start(), Busy::start()];
    for threads in ["1", "3"] {
        let busy = format!("{threads}_busy");
        assert_eq!(run(&busy, &["--threads", threads, "--jobs", "1"]), alone, "{busy}");
    }
}

#[test]
fn shared_steps_change_nothing_but_the_time() {
    let place = Place::with(&shapes());
    place.run(&["run", "m.toml", "-q", "--no-share", "--results", "apart"]).expect(0);
    let apart = exact_tables(&place.path("apart/tiny"));
    for jobs in ["1", "4"] {
        let results = format!("shared_{jobs}");
        place.run(&["run", "m.toml", "-q", "--jobs", jobs, "--results", &results]).expect(0);
        let experiment = place.path(&results).join("tiny");
        assert_eq!(exact_tables(&experiment), apart, "{jobs} jobs");
        let runs: Vec<RunRow> = read_table(&Files::new(), &experiment.join("runs.parquet")).unwrap();
        let shared: Vec<u64> = runs.iter().map(|run| run.shared_steps).collect();
        assert_eq!(shared[0], 0, "{shared:?}");
        assert!(shared[1..].iter().all(|steps| (1..8).contains(steps)), "{shared:?}");
        // Nothing stays for forks that nobody will make any more.
        for run in std::fs::read_dir(experiment.join("runs")).unwrap() {
            let checkpoints = std::fs::read_dir(run.unwrap().path().join("attempt/1/checkpoints")).unwrap();
            let steps = checkpoints.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
            assert_eq!(steps, 1);
        }
    }
}

#[test]
fn a_kill_in_the_trunk_at_a_fork_or_in_a_branch_changes_nothing() {
    let place = Place::with(&shapes());
    place.run(&["run", "m.toml", "-q", "--no-share", "--results", "apart"]).expect(0);
    let apart = exact_tables(&place.path("apart/tiny"));
    let (mut trunk, mut branches, mut later, mut at) = (0, 0, 0, 3);
    loop {
        let results = format!("killed_{at}");
        let arguments = ["run", "m.toml", "-q", "--jobs", "1", "--results", &results];
        let killed = place.command(&arguments).env("WRITE_FAULT", format!("kill@{at}")).output().unwrap();
        if killed.status.success() {
            break;
        }
        assert_eq!(killed.status.code(), None, "{}", String::from_utf8_lossy(&killed.stderr));
        let journals: Vec<String> = std::fs::read_dir(place.path(&results).join("tiny/runs"))
            .into_iter()
            .flatten()
            .map(|run| {
                std::fs::read_to_string(run.unwrap().path().join("attempt/1/journal.jsonl"))
                    .unwrap_or_default()
            })
            .collect();
        let forks = journals.iter().filter(|journal| journal.contains("\"forked\"")).count();
        match forks {
            0 => trunk += 1,
            1 => branches += 1,
            _ => later += 1,
        }
        place.run(&arguments).expect(0);
        assert_eq!(exact_tables(&place.path(&results).join("tiny")), apart, "killed at step {at} of writing");
        std::fs::remove_dir_all(place.path(&results)).unwrap();
        at += 17;
    }
    assert!(trunk >= 3 && branches >= 3 && later >= 3, "{trunk} {branches} {later}");
}

#[test]
fn one_run_with_two_results_is_reported_as_a_defect() {
    let manifest = TINY.replace("[\"linear\", \"sqrt\"]", "[\"linear\"]").replace("[1, 2]", "[1]");
    let place = Place::with(&manifest);
    place.run(&["run", "m.toml", "-q"]).expect(0);
    place.run(&["run", "m.toml", "-q", "--results", "other"]).expect(0);
    let [run] = &std::fs::read_dir(place.path("results/tiny/runs")).unwrap().collect::<Vec<_>>()[..] else {
        panic!("one run")
    };
    let run = run.as_ref().unwrap().path();
    // As if the same run had come out otherwise before, on another machine.
    let files = Files::new();
    let result = RunResult::read(&files, &run.join("attempt/1/result.json")).unwrap().unwrap();
    let mut evals = result.evals.clone();
    evals.last_mut().unwrap().values.values_mut().for_each(|value| value.0 += 1e-9);
    let mut host = result.host.clone();
    (host.host, host.cpu_model) = ("elsewhere".to_owned(), "Another CPU".to_owned());
    let forged = RunResult::new(
        result.run_key,
        result.environment_class.clone(),
        result.numerics_version,
        result.train_hash,
        result.step_losses.clone(),
        evals,
        result.timings.clone(),
        host,
    );
    let forged = forged.unwrap();
    assert!(forged.contradicts(&result));
    forged.write(&files, &run.join("attempt/1/result.json")).unwrap();

    let diff = place.run(&["diff", "results/tiny", "other/tiny"]).expect(4);
    assert!(diff.stdout.contains("defect"), "{}", diff.stdout);
    assert!(
        diff.stdout.contains("Another CPU") && diff.stdout.contains(&result.host.cpu_model),
        "{}",
        diff.stdout
    );

    let rerun = place.run(&["run", "m.toml", "-q", "--rerun"]).expect(4);
    assert!(rerun.stderr.contains("has two results in one class"), "{}", rerun.stderr);
    for told in [
        "elsewhere (Another CPU)",
        &result.host.cpu_model,
        &forged.result_hash.short(),
        &result.result_hash.short(),
    ] {
        assert!(rerun.stderr.contains(told), "{told}: {}", rerun.stderr);
    }
    // Neither is lost.
    assert_eq!(RunResult::read(&files, &run.join("attempt/1/result.json")).unwrap(), Some(forged));
    let now = RunResult::read(&files, &run.join("attempt/2/result.json")).unwrap().unwrap();
    assert_eq!(now.result_hash, result.result_hash);
}
