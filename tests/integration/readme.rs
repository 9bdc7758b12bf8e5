//! The README says what the program says.

use std::path::Path;

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let after = text.split_once(begin).unwrap().1;
    after.split_once(end).unwrap().0.trim()
}

#[test]
fn the_manifest_reference_is_up_to_date() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let written = between(&readme, "<!-- fields:begin -->", "<!-- fields:end -->");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nanorun")).arg("fields").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(written == printed.trim(), "write the output of `nanorun fields` between README.md's markers");
}
