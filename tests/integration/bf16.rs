//! bf16 on the cpu backend: one result, whatever happens, and what is refused.

use crate::reproduce::exact_tables;
use crate::support::{Place, TINY};

/// Grouped-query attention, short and long windows, chains of more than one block, two micro-batches, tables, an arm of
/// AdamW alone; prefixes are shared.
const MANIFEST: &str = r#"
name = "half"
upstream.commit = "92d63d4"
run = { seed = 1, backend = "cpu", precision = "bf16" }
budget.steps = 4
schedule = { warmdown = "linear", warmup_steps = 1, warmdown_ratio = 0.5 }
model = { depth = 2, aspect_ratio = 32, head_dim = 32, n_kv_head = 1, sequence_len = 264 }
train = { device_batch_size = 2, total_batch_size = 1056 }
data.tokenizer = { vocab_size = 300 }
eval = { every = 2, tokens = 2112 }
checkpoint = { every = 1, keep = 2 }

[matrix]
"schedule.warmdown" = ["linear", "sqrt"]

[[matrix.include]]
label = "adamw"
run.seed = 1
optimizer.kind = "adamw"
"#;

const RUN: [&str; 4] = ["run", "m.toml", "-q", "--results"];

#[test]
fn threads_forks_stops_and_kernels_change_no_bit() {
    let place = Place::with(MANIFEST);
    let tables = |results: &str| exact_tables(&place.path(results).join("half"));
    let run = |results: &str, arguments: &[&str]| {
        place.run(&[&RUN[..], &[results], arguments].concat()).expect(0);
        tables(results)
    };
    let alone = run("alone", &["--threads", "1", "--jobs", "1", "--no-share"]);
    assert_eq!(alone.matches("finished").count(), 3, "{alone}");
    assert!(alone.contains("cpu-bf16-pairs-v1"), "{alone}");
    for threads in ["2", "3", "8"] {
        // Steps that two runs share are trained once.
        assert_eq!(run(threads, &["--threads", threads, "--jobs", "1"]), alone, "{threads} threads");
    }
    assert_eq!(run("company", &["--threads", "3", "--jobs", "3"]), alone, "company");
    for kernels in ["portable", "avx2", "avx512", "avx512bf16"] {
        let held = |arguments: &[&str]| {
            place.command(arguments).env("NANORUN_CPU_KERNELS", kernels).output().unwrap()
        };
        // A machine without them refuses.
        if held(&["plan", "m.toml"]).status.success() {
            let output = held(&[&RUN[..], &[kernels, "--threads", "2"]].concat());
            assert!(output.status.success(), "{kernels}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(tables(kernels), alone, "{kernels}");
        }
    }
}

/// Killed without a word wherever it is, again and again.
#[cfg(unix)]
#[test]
fn kills_change_no_bit() {
    let place = Place::with(MANIFEST);
    let tables = |results: &str| exact_tables(&place.path(results).join("half"));
    place.run(&[&RUN[..], &["whole"]].concat()).expect(0);
    let steps = |results: &str| {
        let runs = std::fs::read_dir(place.path(results).join("half/runs")).into_iter().flatten().flatten();
        let checkpoints = runs.map(|run| run.path().join("attempt/1/checkpoints"));
        checkpoints.flat_map(|at| std::fs::read_dir(at).into_iter().flatten()).count()
    };
    for stage in 1..4 {
        let mut child = place.command(&[&RUN[..], &["killed", "--threads", "2"]].concat()).spawn().unwrap();
        while steps("killed") < stage && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.run(&[&RUN[..], &["killed", "--threads", "3"]].concat()).expect(0);
    assert_eq!(tables("killed"), tables("whole"));
}

#[test]
fn other_precisions_are_refused_by_name() {
    let place = Place::with(TINY);
    let bf16 = ["--set", "run.precision=\"bf16\""];
    let ended =
        place.run(&["run", "m.toml", "-q", "--set", "run.backend=\"scalar\"", bf16[0], bf16[1]]).expect(2);
    assert!(ended.stderr.contains("run.backend = \"scalar\" does not compute in bf16"), "{}", ended.stderr);
    let ended = place.run(&["parity", "--backend", "scalar", "--precision", "bf16"]).expect(2);
    assert!(ended.stderr.contains("--precision"), "{}", ended.stderr);

    place.run(&["verify", "m.toml", "-q", "--baseline", "f32.toml", "--bless"]).expect(0);
    let verify = ["verify", "m.toml", "-q", "--baseline", "f32.toml", bf16[0], bf16[1]];
    let ended = place.run(&verify).expect(2);
    assert!(
        ended.stderr.contains("the baseline was made in f32, the runs compute in bf16"),
        "{}",
        ended.stderr
    );
    // What the help advises works.
    let own = ["verify", "m.toml", "-q", "--baseline", "bf16.toml", bf16[0], bf16[1]];
    place.run(&[&own[..], &["--bless"]].concat()).expect(0);
    place.run(&own).expect(0);
}

/// A bf16 run's weights start one in f32, and the other way round.
#[test]
fn weights_start_a_run_in_another_precision() {
    let single = TINY
        .replace("\"schedule.warmdown\" = [\"linear\", \"sqrt\"]\n", "")
        .replace("\"run.seed\" = [1, 2]", "\"run.seed\" = [1]")
        .replace("control = { \"schedule.warmdown\" = \"linear\" }", "");
    let place = Place::with(&single);
    for (from, to) in [("bf16", "f32"), ("f32", "bf16")] {
        let set = |precision: &str| format!("run.precision=\"{precision}\"");
        place.run(&["run", "m.toml", "-q", "--results", from, "--set", &set(from)]).expect(0);
        let directory = |results: &str| {
            // A ledger lies beside the experiment.
            let mut experiments =
                std::fs::read_dir(place.path(results)).unwrap().flatten().map(|entry| entry.path());
            let experiment = experiments.find(|path| path.is_dir()).unwrap();
            let run = std::fs::read_dir(experiment.join("runs")).unwrap().flatten().next().unwrap().path();
            let mut all: Vec<_> = std::fs::read_dir(run.join("attempt/1/checkpoints"))
                .unwrap()
                .flatten()
                .map(|e| e.path())
                .collect();
            all.retain(|path| path.is_dir());
            all.sort();
            all.pop().unwrap()
        };
        let init = format!("model.init={{checkpoint={:?}}}", directory(from).display().to_string());
        let results = format!("{from}_{to}");
        place
            .run(&["run", "m.toml", "-q", "--results", &results, "--set", &set(to), "--set", &init])
            .expect(0);
    }
}

/// Decoding from a bf16 run's weights gives the same text with every kernel, and the plan counts less memory than in f32.
#[test]
fn a_run_is_sampled_from_and_planned() {
    let place = Place::with(MANIFEST);
    let needs = |precision: &str| {
        let set = format!("run.precision=\"{precision}\"");
        let plan = place.run(&["plan", "m.toml", "--json", "--set", &set]).expect(0).json();
        plan["memory"][0]["needs"]["activations"].as_u64().unwrap()
    };
    assert!(needs("bf16") < needs("f32"));
    place.run(&[&RUN[..], &["results"]].concat()).expect(0);
    let run =
        std::fs::read_dir(place.path("results/half/runs")).unwrap().flatten().next().unwrap().file_name();
    let name = format!("half/{}", run.to_string_lossy());
    let sample = |kernels: &str| {
        let arguments = ["sample", &name, "--prompt", "the", "--max-tokens", "12", "--temperature", "0"];
        let output = place.command(&arguments).env("NANORUN_CPU_KERNELS", kernels).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(sample(""), sample("portable"));
}
