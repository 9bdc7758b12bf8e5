//! `nanorun data check`: shards against their `SHA256SUMS`.

use serde_json::json;

use super::CheckArgs;
use crate::cli::all_threads;
use crate::cli::output::Output;
use crate::error::{Class, Error, Result};
use crate::fetch::{self, Checked, Found, SUMS};
use crate::files::Files;
use crate::stop::{self, StopFlag};

/// Reads every file; other bytes than once came are bad input.
pub(super) fn check(args: &CheckArgs) -> Result<Option<Class>> {
    let output = Output::new(args.quiet);
    stop::watch()?;
    let stop = StopFlag::default();
    let each = |one: &Checked| {
        if !args.json {
            output.result(&line(one));
        }
    };
    let checked = fetch::check(&args.directory, &Files::new(), all_threads(), &each, &|| stop.is_raised())?;
    let wrong: Vec<&Checked> = checked.iter().filter(|one| one.is_wrong()).collect();
    if args.json {
        output.result(
            &json!({ "directory": args.directory, "files": checked, "wrong": wrong.len() }).to_string(),
        );
    }
    for one in checked.iter().filter(|one| one.found == Found::Unlisted) {
        output.note(&format!("{}: not in {SUMS}; `nanorun data get` takes it up", one.name));
    }
    let Some(first) = wrong.first() else { return Ok(None) };
    Err(Error::input(format!("{} of {} files are not what came here first", wrong.len(), checked.len()))
        .file(args.directory.join(&first.name))
        .help("move such files away: `nanorun data get` brings them again"))
}

fn line(one: &Checked) -> String {
    let name = &one.name;
    match &one.found {
        Found::Same => format!("{name}: OK"),
        Found::Differs(found) => format!("{name}: DIFFERS, its SHA-256 is {found}"),
        Found::Missing => format!("{name}: MISSING"),
        Found::Bad(why) => format!("{name}: BAD, {why}"),
        Found::Unlisted => format!("{name}: not in {SUMS}"),
    }
}
