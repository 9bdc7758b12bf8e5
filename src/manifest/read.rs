//! The manifest's text from its file, or why there is none.

use std::io::ErrorKind;
use std::path::Path;

use super::spelling::nearest;
use crate::error::{Error, Result};

/// Reads the file as UTF-8.
pub(crate) fn read(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).map_err(|cause| unreadable(file, cause))?;
    String::from_utf8(bytes).map_err(|error| not_utf8(file, &error))
}

fn unreadable(file: &Path, cause: std::io::Error) -> Error {
    if file.is_dir() {
        let error = Error::input("the manifest is a directory").file(file).expected("a TOML file");
        return match manifests(file).as_slice() {
            [] => error.help("no .toml file is in it: name the manifest itself"),
            found => error.help(format!("it holds {}", found.join(", "))),
        };
    }
    if cause.kind() != ErrorKind::NotFound {
        return Error::input("cannot read the manifest").file(file).because(cause);
    }
    let error = Error::input("there is no such manifest").file(file).expected("a TOML file");
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = manifests(dir);
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let meant = nearest(&name, found.iter().map(String::as_str));
    match (meant, found.as_slice()) {
        (Some(meant), _) => error.help(format!("did you mean `{}`?", file.with_file_name(meant).display())),
        (None, []) => error.help(format!("no .toml file is in `{}`", dir.display())),
        (None, found) => error.help(format!("`{}` holds {}", dir.display(), found.join(", "))),
    }
}

/// The TOML files of a directory, in the order of their names; the first of many.
fn manifests(dir: &Path) -> Vec<String> {
    const SHOWN: usize = 12;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let toml = entries.filter(|entry| entry.path().extension().is_some_and(|found| found == "toml"));
    let mut found: Vec<String> = toml.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    found.sort();
    found.truncate(SHOWN);
    found
}

fn not_utf8(file: &Path, error: &std::string::FromUtf8Error) -> Error {
    let bytes = error.as_bytes();
    let at = error.utf8_error().valid_up_to();
    let before = bytes.get(..at).unwrap_or_default();
    let line = before.split(|&byte| byte == b'\n').count();
    let byte = bytes.get(at).copied().unwrap_or_default();
    let wide = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let help = if wide {
        "it begins like UTF-16: save it as UTF-8"
    } else {
        "save it as UTF-8 in your editor, or write that character anew"
    };
    Error::input(format!("the manifest is not UTF-8: byte {byte:#04x} at offset {at}"))
        .file(file)
        .line(line)
        .expected("UTF-8 text, as TOML is")
        .help(help)
}
