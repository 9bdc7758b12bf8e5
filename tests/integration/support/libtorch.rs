//! Programs that compute without libtorch are started with a stand-in for it, which is loaded at once: libtorch itself takes
//! a third of a second to register its operators, whether they are used or not.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::iter::once;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use assert_cmd::cargo::cargo_bin;

use super::build_shim;

/// The libraries of libtorch that the program names.
const NAMES: [&str; 2] = ["libtorch_cpu.so", "libc10.so"];

/// Commands that look at which devices there are.
const LOOK: [&str; 2] = ["doctor", "new"];

/// Whether a command computes on libtorch or tells of it: it names the backend, its manifest does, or it looks at what is
/// here. Where this is wrong the stand-in ends the program with a message.
pub(super) fn is_asked_for(arguments: &[&str], manifest: &Path) -> bool {
    let version = |name: &&str| ["--version", "-V"].contains(name);
    let names_it =
        |argument: &&str| argument.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "tch");
    arguments.iter().any(|argument| names_it(argument) || LOOK.contains(argument))
        || (arguments.iter().any(version) && arguments.contains(&"--json"))
        || std::fs::read_to_string(manifest).is_ok_and(|text| text.contains("\"tch\""))
}

/// `LD_LIBRARY_PATH` with the stand-ins before what is there.
pub(super) fn search_path() -> OsString {
    let there = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    // An empty part would be the working directory.
    let there = std::env::split_paths(&there).filter(|part| !part.as_os_str().is_empty());
    std::env::join_paths(once(stand_ins().to_owned()).chain(there)).unwrap()
}

/// A directory with the stand-ins (tests/fixtures/shims/libtorch.c), built once.
fn stand_ins() -> &'static Path {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let symbols = dir.path().join("symbols.h");
        std::fs::write(&symbols, wanted()).unwrap();
        for name in NAMES {
            let symbols = format!("-DSYMBOLS=\"{}\"", symbols.display());
            build_shim("libtorch.c", &dir.path().join(name), &[&symbols]);
        }
        dir
    });
    dir.path()
}

/// What the program wants of libtorch: those of its undefined symbols that have no version, which glibc's and the C++
/// library's have, and that it cannot do without.
fn wanted() -> String {
    let listed = Command::new("nm").args(["-D", "-u"]).arg(cargo_bin("nanorun")).output();
    let listed = listed.unwrap_or_else(|error| panic!("nm, of binutils: {error}"));
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let mut symbols = String::new();
    for line in String::from_utf8(listed.stdout).unwrap().lines() {
        if let Some(name) = line.trim_start().strip_prefix("U ").filter(|name| !name.contains('@')) {
            writeln!(symbols, "SYMBOL({name})").unwrap();
        }
    }
    assert!(symbols.contains("_ZN2at"), "the program wants nothing of libtorch: {symbols}");
    symbols
}
