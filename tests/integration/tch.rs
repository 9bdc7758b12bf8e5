//! The tch backend from outside: the same hash again, the class refused, memory, and everything that may be missing.

use crate::support::{Ended, Place, TINY};

#[cfg(feature = "tch")]
const TCH: [&str; 2] = ["--set", "run.backend=\"tch\""];

/// One seed and one arm, on tch.
fn single() -> String {
    TINY.replace("\"schedule.warmdown\" = [\"linear\", \"sqrt\"]\n", "")
        .replace("\"run.seed\" = [1, 2]", "\"run.seed\" = [1]")
        .replace("control = { \"schedule.warmdown\" = \"linear\" }", "")
        .replace("backend = \"cpu\"", "backend = \"tch\"")
}

fn refused(place: &Place, sets: &[&str]) -> Ended {
    let mut arguments = vec!["run", "m.toml", "-q"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    place.run(&arguments)
}

#[test]
fn devices_and_precisions_that_nothing_has() {
    let place = Place::with(TINY);
    let ended = refused(&place, &["run.backend=\"tch\"", "run.device=\"gpu\""]).expect(2);
    assert!(ended.stderr.contains("run.device"), "{}", ended.stderr);
    let ended = refused(&place, &["run.backend=\"scalar\"", "run.precision=\"bf16\""]).expect(2);
    assert!(ended.stderr.contains("run.backend = \"scalar\" does not compute in bf16"), "{}", ended.stderr);
    let ended = refused(&place, &["train.device_batch_size=\"auto\""]).expect(2);
    assert!(ended.stderr.contains("only run.backend = \"tch\" searches"), "{}", ended.stderr);
    let ended = place.run(&["parity", "--backend", "scalar", "--precision", "bf16"]).expect(2);
    assert!(ended.stderr.contains("--precision"), "{}", ended.stderr);
}

#[cfg(not(feature = "tch"))]
#[test]
fn a_binary_without_the_backend_says_how_to_get_it() {
    let ended = Place::with(&single()).run(&["run", "m.toml", "-q"]).expect(3);
    assert!(ended.stderr.contains("scripts/setup_libtorch"), "{}", ended.stderr);
    assert!(ended.stderr.contains("--features tch"), "{}", ended.stderr);
}

/// The program of `nanorun[torch]` stands beside the one without libtorch, and takes over whatever asks for it.
#[cfg(all(unix, not(feature = "tch")))]
#[test]
fn what_asks_for_the_backend_is_handed_to_the_program_that_has_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::with(&single());
    let own = place.path("bin/nanorun");
    std::fs::create_dir(place.path("bin")).unwrap();
    std::fs::copy(assert_cmd::cargo::cargo_bin("nanorun"), &own).unwrap();
    let other = place.path("bin/nanorun-torch");
    std::fs::write(&other, "#!/bin/sh\necho \"handed over: $*\"\nexit 4\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    let quickstart = ["quickstart", "--set", "run.backend=tch", "--only", "run.seed=1", "-q"];
    for arguments in [&["run", "m.toml"][..], &["m.toml"], &["work", "m.toml", "--jobs", "1"], &quickstart] {
        let ended =
            std::process::Command::new(&own).args(arguments).current_dir(place.path("")).output().unwrap();
        let out = String::from_utf8(ended.stdout).unwrap();
        assert_eq!(out, format!("handed over: {}\n", arguments.join(" ")));
        assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(4), ""));
    }
}

/// What a build would be given is looked at before anything is built or downloaded.
#[test]
fn an_unusable_libtorch_is_refused_with_what_to_do() {
    let place = Place::with(TINY);
    let torch = place.path("torch");
    let refused = |expected: &[&str]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup_libtorch");
        let output = std::process::Command::new(script).env("LIBTORCH", &torch).output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|words| String::from_utf8(words).unwrap());
        assert_eq!(output.status.code(), Some(3), "{err}");
        // `eval "$(scripts/setup_libtorch)" && cargo build` must not go on to build.
        assert!(out.starts_with("false #"), "{out}");
        for part in expected.iter().chain(&[torch.to_str().unwrap(), "unset LIBTORCH"]) {
            assert!(err.contains(part), "{part}: {err}");
        }
    };
    refused(&["has no libtorch with headers"]);
    for file in ["include/ATen/Context.h", "lib/libtorch_cpu.so"] {
        std::fs::create_dir_all(torch.join(file).parent().unwrap()).unwrap();
        std::fs::write(torch.join(file), "").unwrap();
    }
    refused(&["libtorch of unknown version, not 2.11.0"]);
    std::fs::write(torch.join("version.py"), "__version__ = '2.9.1+cu128'\n").unwrap();
    refused(&["libtorch 2.9.1+cu128, not 2.11.0"]);
}

#[cfg(feature = "tch")]
mod built {
    use super::*;

    fn machine_has_cuda() -> bool {
        std::path::Path::new("/dev/nvidiactl").exists()
    }

    #[test]
    fn the_same_experiment_gives_the_same_hashes() {
        let hashes = |precision: &str, more: &[&str]| {
            let precision = format!("run.precision=\"{precision}\"");
            let sets: Vec<&str> = TCH.iter().copied().chain(["--set", &precision]).collect();
            let place = Place::with(TINY);
            let arguments: Vec<&str> =
                ["run", "m.toml", "-q", "--threads", "2"].iter().chain(&sets).chain(more).copied().collect();
            place.run(&arguments).expect(0);
            let found: Vec<_> = place.hashes_with(&sets);
            assert!(found.len() == 4 && found.iter().all(|(_, hash)| hash.is_some()), "{found:?}");
            found
        };
        let first = hashes("f32", &[]);
        // Asked for at the same time, runs still go one after another.
        assert_eq!(hashes("f32", &["--jobs", "4"]), first);
        let bf16 = hashes("bf16", &[]);
        assert_eq!(hashes("bf16", &[]), bf16);
        assert_ne!(bf16, first);
    }

    /// Threads decide bits on libtorch's CPU device: they are part of the class.
    #[test]
    fn another_class_does_not_carry_on() {
        let place =
            Place::with(&single().replace("steps = 8", "steps = 2000").replace("every = 4", "every = 0"));
        let mut child = place.command(&["run", "m.toml", "-q", "--threads", "2"]).spawn().unwrap();
        let begun = nanorun::internals::files::now();
        let checkpoint = || {
            let runs = std::fs::read_dir(place.path("results/tiny/runs")).into_iter().flatten().flatten();
            runs.map(|run| run.path().join("attempt/1/checkpoints/step_000000")).any(|path| path.exists())
        };
        while !checkpoint() && begun.elapsed() < std::time::Duration::from_secs(60) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let ended = place.run(&["run", "m.toml", "-q", "--threads", "1"]);
        assert!(matches!(ended.code, Some(2 | 3)), "{:?} {}", ended.code, ended.stderr);
        for part in ["2 threads", "1 threads"] {
            assert!(ended.stderr.contains(part), "{}", ended.stderr);
        }
    }

    #[test]
    fn a_gpu_that_is_not_there() {
        if machine_has_cuda() {
            return;
        }
        let place = Place::with(&single());
        let ended = refused(&place, &["run.device=\"cuda:0\""]).expect(3);
        for part in ["cuda:0 is not available", "libcuda.so.1", "nanorun doctor"] {
            assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
        }
        // Said once, before anything is trained, and not as the failure of each run.
        for command in ["run", "work"] {
            let ended = place.run(&[command, "m.toml", "--set", "run.device=cuda:0", "-q"]).expect(3);
            assert!(ended.stderr.starts_with("error: cuda:0 is not available"), "{}", ended.stderr);
        }
        assert_eq!(std::fs::read_dir(place.path("results/tiny/runs")).into_iter().flatten().count(), 0);
        place.run(&["doctor"]).expect(0);
        let plan = place.run(&["plan", "m.toml", "--set", "run.device=\"cuda:0\""]).expect(0);
        assert!(plan.stdout.contains("on cuda:0, which is not here"), "{}", plan.stdout);
    }

    /// The stand-ins are what the loader finds where libtorch is gone.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn a_libtorch_that_is_gone_is_said_so() {
        let Some(stand_ins) = option_env!("NANORUN_LIBTORCH_STAND_INS") else { return };
        let output =
            Place::with(TINY).command(&["--version"]).env("LD_LIBRARY_PATH", stand_ins).output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{words}");
        for part in
            ["error: libtorch is not at ", "libtorch 2.11.0", "scripts/setup_libtorch", "LD_LIBRARY_PATH"]
        {
            assert!(words.contains(part), "{words}");
        }
    }

    /// The library in use is known by the wheel it is in: another one's is refused before anything is computed.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_libtorch_of_another_version_is_refused() {
        let place = Place::with(&single());
        let doctor = place.run(&["doctor", "--json"]).expect(0).json();
        let library = std::path::Path::new(doctor["backends"]["tch"]["library"].as_str().unwrap());
        let wheel = library.ancestors().nth(2).unwrap();
        // The very libraries, among what else is installed there, in a wheel that says it is another.
        let lib = place.path("site/torch/lib");
        std::fs::create_dir_all(&lib).unwrap();
        for (from, to) in [(wheel.join("lib"), &lib), (wheel.parent().unwrap().into(), &place.path("site"))] {
            for file in std::fs::read_dir(from).unwrap() {
                let file = file.unwrap();
                if file.path() != wheel {
                    std::os::unix::fs::symlink(file.path(), to.join(file.file_name())).unwrap();
                }
            }
        }
        for (name, text) in [("version.py", "__version__ = '2.9.1+cpu'\n"), ("build-version", "2.10.0\n")] {
            std::fs::write(place.path("site/torch").join(name), text).unwrap();
            let with = |arguments: &[&str]| {
                let output = place.command(arguments).env("LD_LIBRARY_PATH", &lib).output().unwrap();
                let words = [output.stdout, output.stderr].map(|words| String::from_utf8(words).unwrap());
                (output.status.code(), words.concat())
            };
            let found = if name == "build-version" { "libtorch 2.10.0" } else { "libtorch 2.9.1+cpu" };
            for verb in ["run", "bench"] {
                let (code, words) = with(&[verb, "m.toml"]);
                assert_eq!(code, Some(3), "{words}");
                let expected = [found, lib.to_str().unwrap(), "libtorch 2.11.0", "scripts/setup_libtorch"];
                for part in expected {
                    assert!(words.contains(part), "{part}: {words}");
                }
            }
            let (code, words) = with(&["doctor"]);
            assert_eq!(code, Some(0), "{words}");
            assert!(words.contains(found) && words.contains("expected libtorch 2.11.0"), "{words}");
            std::fs::remove_file(place.path("site/torch").join(name)).unwrap();
        }
        let runs = std::fs::read_dir(place.path("results/tiny/runs")).into_iter().flatten().flatten();
        assert!(runs.into_iter().all(|run| !run.path().join("attempt").exists()), "nothing is trained");
    }

    /// Sizes between which the estimate must hold, widely apart in what dominates: parameters, activations, logits.
    #[test]
    fn the_plan_tells_the_memory_that_a_run_takes() {
        let shapes: [&[&str]; 3] = [
            &[
                "model.depth=4",
                "model.aspect_ratio=32",
                "model.sequence_len=512",
                "train.device_batch_size=8",
            ],
            &[
                "model.depth=2",
                "model.sequence_len=256",
                "data.tokenizer.vocab_size=4096",
                "train.device_batch_size=4",
            ],
            &["model.depth=4", "model.aspect_ratio=64", "model.head_dim=64", "model.sequence_len=256"],
        ];
        for precision in ["f32", "bf16"] {
            for shape in shapes {
                let size = |name: &str, or: usize| {
                    let set = shape.iter().find_map(|set| set.strip_prefix(name)?.strip_prefix('='));
                    set.map_or(or, |value| value.parse().unwrap())
                };
                let total = size("train.device_batch_size", 2) * size("model.sequence_len", 64);
                let sets = [
                    "budget.steps=2".to_owned(),
                    format!("run.precision=\"{precision}\""),
                    format!("train.total_batch_size={total}"),
                    format!("eval.tokens={total}"),
                ];
                let mut arguments = vec!["m.toml", "--json"];
                arguments.extend(
                    shape.iter().copied().chain(sets.iter().map(String::as_str)).flat_map(|s| ["--set", s]),
                );
                let place = Place::with(&single());
                let run = |verb| {
                    let mut all = vec![verb];
                    all.extend(&arguments);
                    place.run(&all).expect(0).json()
                };
                let needs = &run("plan")["memory"][0]["needs"];
                let part = |name: &str| needs[name].as_u64().unwrap();
                let estimate = part("parameters") + part("activations") + part("workspace");
                let measured = run("run")["runs"][0]["peak_device_bytes"].as_u64().unwrap();
                let ratio = estimate as f64 / measured as f64;
                assert!(
                    (0.95..1.05).contains(&ratio),
                    "{precision} {shape:?}: {estimate} estimated, {measured} taken, {ratio:.2}; {needs}"
                );
            }
        }
    }

    #[test]
    fn memory_is_reused_from_step_to_step() {
        let place = Place::with(&single());
        let bench =
            place.run(&["bench", "m.toml", "--json", "--steps", "4", "--threads", "2"]).expect(0).json();
        // A step asks for hundreds of tensors, of sizes that the data does not decide.
        assert_eq!(bench["allocations_after_first_step"], 0, "{bench}");
        assert!(bench["ops"].as_array().is_some_and(|ops| ops.len() > 10), "{bench}");
    }

    #[test]
    fn too_little_memory_names_the_batch_to_try() {
        let place = Place::with(&single());
        let sets = ["train.device_batch_size=64", "train.total_batch_size=4096", "eval.tokens=4096"];
        let arguments: Vec<&str> =
            ["run", "m.toml", "-q"].into_iter().chain(sets.iter().flat_map(|set| ["--set", *set])).collect();
        let output = place.command(&arguments).env("NANORUN_TCH_CPU_BYTES", "20000000").output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{words}");
        assert!(
            words.contains("does not fit into memory") && words.contains("device_batch_size=32 "),
            "{words}"
        );
    }

    /// Searched for once, kept, and used ever after, with more memory too.
    #[test]
    fn the_device_batch_size_is_found_and_kept() {
        let place = Place::with(
            &single()
                .replace("device_batch_size = 2", "device_batch_size = \"auto\"")
                .replace("total_batch_size = 128", "total_batch_size = 8192")
                .replace("tokens = 512", "tokens = 8192"),
        );
        let with = |bytes: &str, arguments: &[&str]| {
            let output = place.command(arguments).env("NANORUN_TCH_CPU_BYTES", bytes).output().unwrap();
            let words = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(0), "{words}");
            (String::from_utf8(output.stdout).unwrap(), words)
        };
        let (plan, _) = with("30000000", &["plan", "m.toml"]);
        assert!(plan.contains("device batch size: auto"), "{plan}");
        let (_, words) = with("30000000", &["run", "m.toml"]);
        let found =
            words.lines().find_map(|line| line.strip_prefix("device batch size: ")).unwrap().to_owned();
        let rows: u64 = found.split(' ').next().unwrap().parse().unwrap();
        assert!(rows.is_power_of_two() && (2..128).contains(&rows), "{words}");
        let hashes = place.hashes();
        assert!(hashes.iter().all(|(_, hash)| hash.is_some()), "{hashes:?}");
        // Four times the memory: the search is not made again, and nothing is trained again.
        let (plan, _) = with("120000000", &["plan", "m.toml", "--json"]);
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        assert_eq!(plan["runs"][0]["config"]["batch"]["device_batch_size"], rows);
        assert_eq!(plan["runs"][0]["status"], "done");
        let (_, words) = with("120000000", &["run", "m.toml"]);
        assert!(!words.contains("searching"), "{words}");
    }
}
