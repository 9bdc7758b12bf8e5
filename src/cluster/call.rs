//! Calling the programs of a scheduler. They talk to servers, which may be slow or gone: no call lasts for ever.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files::now;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// Whether it went well.
    pub(super) ok: bool,
    /// What it printed.
    pub(super) out: String,
    /// What it printed of what went wrong.
    pub(super) err: String,
}

impl Answer {
    /// What it said went wrong, on one line.
    pub(super) fn complaint(&self) -> String {
        let text = if self.err.trim().is_empty() { &self.out } else { &self.err };
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Whether a program of this name is at hand.
pub(super) fn is_at_hand(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Calls a program and waits for its answer.
///
/// # Errors
/// One that is not there, cannot be started, or does not answer.
pub(super) fn call(program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<Answer> {
    answered(program, Command::new(program).args(arguments))
}

/// The same, told to print times in UTC.
///
/// # Errors
/// As [`call`].
pub(super) fn call_in_utc(program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<Answer> {
    answered(program, Command::new(program).args(arguments).env("TZ", "UTC"))
}

fn answered(program: &str, command: &mut Command) -> Result<Answer> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::input(format!("there is no `{program}` here")),
        _ => Error::input(format!("`{program}` cannot be started")).because(error),
    })?;
    let reader = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What cannot be read any more was not said.
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = reader(child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let err = reader(child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let began = now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(match other {
                    Err(error) => Error::input(format!("nothing is known of `{program}`")).because(error),
                    _ => Error::input(format!("`{program}` did not answer for {} s", PATIENCE.as_secs()))
                        .help("ask whether the scheduler's server is up, and try again"),
                });
            }
        }
    };
    Ok(Answer {
        ok: status.success(),
        out: out.join().unwrap_or_default(),
        err: err.join().unwrap_or_default(),
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn answers_and_complaints() {
        let answer = call("sh", &["-c", "echo a; echo 'b\n  c' >&2; exit 3"]).unwrap();
        assert_eq!((answer.ok, answer.out.as_str(), answer.complaint().as_str()), (false, "a\n", "b c"));
        assert!(call("sh", &["-c", "exit 0"]).unwrap().ok);
        let missing = call("nanorun-has-no-such-program", &["x"]).unwrap_err();
        assert_eq!(missing.class().exit_code(), 2);
        assert!(is_at_hand("sh") && !is_at_hand("nanorun-has-no-such-program"));
    }
}
