//! A workplace of its own for each test: manifests, results and cache in one temporary directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assert_cmd::cargo::cargo_bin;

#[cfg(all(feature = "tch", target_os = "linux", target_env = "gnu"))]
mod libtorch;

pub(crate) const TINY: &str = include_str!("../fixtures/manifests/tiny.toml");

/// The same, where runs may be trained whole and alone: how fast this machine is at that moment decides nothing.
pub(crate) fn any_speed() -> String {
    TINY.replace("quality = {", "speed = { min_ratio = 0.000001 }\nquality = {")
}

/// A directory that goes when the test does.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    /// Whether programs are started with libtorch, where it is built in, also where they do not compute on it.
    #[cfg_attr(not(all(feature = "tch", target_os = "linux", target_env = "gnu")), expect(dead_code))]
    libtorch: bool,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// With `manifest` as `m.toml`.
    pub(crate) fn with(manifest: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), libtorch: false };
        std::fs::write(place.path("m.toml"), manifest).unwrap();
        place
    }

    /// The same for what is about the program as it was built, such as the memory that it takes.
    pub(crate) fn with_libtorch(self) -> Self {
        Self { libtorch: true, ..self }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin("nanorun"));
        command.current_dir(self.dir.path()).args(arguments).env("NO_COLOR", "1");
        // Tests run beside one another, and some are about speed that is measured alone.
        command.env("NANORUN_TEST_ALONE", "1");
        // One cache for all: its entries are content-addressed.
        command.env("NANORUN_CACHE", std::env::temp_dir().join("nanorun-test-cache"));
        #[cfg(all(feature = "tch", target_os = "linux", target_env = "gnu"))]
        if !self.libtorch && !libtorch::is_asked_for(arguments, &self.path("m.toml")) {
            command.env("LD_LIBRARY_PATH", libtorch::search_path());
        }
        heed_signals(&mut command);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&self.command(arguments).output().unwrap(), self.dir.path())
    }

    /// The results directory that the manifest has under these arguments, from the place itself.
    pub(crate) fn directory(&self, more: &[&str]) -> String {
        let arguments: Vec<&str> = ["plan", "m.toml", "--json"].iter().chain(more).copied().collect();
        self.run(&arguments).expect(0).json()["directory"].as_str().unwrap().to_owned()
    }

    /// Every run's result hash by label, from `report --json`.
    pub(crate) fn hashes(&self) -> Vec<(String, Option<String>)> {
        self.hashes_with(&[])
    }

    /// The same of the experiment under further arguments.
    pub(crate) fn hashes_with(&self, more: &[&str]) -> Vec<(String, Option<String>)> {
        let arguments: Vec<&str> = ["report", "m.toml", "--json"].iter().chain(more).copied().collect();
        let report = self.run(&arguments);
        let runs = report.json()["runs"].as_array().unwrap().clone();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        runs.iter().map(|run| (text(&run["label"]).unwrap(), text(&run["result_hash"]))).collect()
    }
}

/// Signals do what they do by default, also where whoever started the tests ignores some, as `nohup` and the background
/// of a script do: nanorun leaves alone what is ignored when it starts.
fn heed_signals(command: &mut Command) {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;

        let signals =
            [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGXCPU];
        // SAFETY: between fork and exec the closure makes system calls alone.
        unsafe {
            command.pre_exec(move || {
                for number in signals {
                    libc::signal(number, libc::SIG_DFL);
                }
                Ok(())
            });
        }
    }
}

impl Ended {
    pub(crate) fn of(output: &Output, place: &Path) -> Self {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).unwrap().replace(&place.display().to_string(), "[place]")
        };
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// A preloaded library that makes chosen calls fail (tests/fixtures/shims/fail.c).
#[cfg(target_os = "linux")]
pub(crate) fn fail_shim() -> &'static Path {
    static BUILT: std::sync::OnceLock<(tempfile::TempDir, PathBuf)> = std::sync::OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fail.so");
        build_shim("fail.c", &path, &["-ldl"]);
        (dir, path)
    });
    path
}

/// Builds a library of tests/fixtures/shims, with further arguments for the compiler.
#[cfg(target_os = "linux")]
pub(crate) fn build_shim(source: &str, to: &Path, more: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shims").join(source);
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(to).arg(source).args(more);
    assert!(cc.status().unwrap().success(), "scripts/test asks for a C compiler");
}

/// Says that a check was not made, and why; scripts/test counts these.
pub(crate) fn skip(why: &str) {
    use std::io::Write as _;
    eprintln!("skipped: {why}");
    if let Some(path) = std::env::var_os("NANORUN_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{why}").unwrap();
    }
}

/// What nanorun said of several cases, for one snapshot of them all: a message that is worded anew touches one file.
#[derive(Default)]
pub struct Told {
    pub text: String,
}

impl Told {
    /// Adds what was said of a case.
    pub fn add(&mut self, case: &str, said: &str) {
        self.text.extend(["== ", case, "\n", said.trim_end(), "\n\n"]);
    }
}
