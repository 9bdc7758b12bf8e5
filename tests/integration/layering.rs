//! Data flows one way: a module uses only what stands above it in `src/lib.rs`.

use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a line of code names, in its imports and in paths.
fn used(line: &str) -> Vec<String> {
    if line.trim_start().starts_with("//") {
        return Vec::new();
    }
    let first = |name: &str| -> String {
        name.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    let paths = line.match_indices("crate::").map(|(at, path)| &line[at + path.len()..]);
    let names = paths.flat_map(|path| match path.strip_prefix('{') {
        Some(list) => list.trim_end_matches(['}', ';']).split(',').map(first).collect(),
        None => vec![first(path)],
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// A file up to the tests that stand in it.
fn code(text: &str) -> &str {
    let begins = |at: &usize| {
        let mut rest = text[*at..].lines().skip_while(|line| line.starts_with("#["));
        rest.next().is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    };
    let tests = ["#[cfg(test)]\n", "#[cfg(all(test"];
    let at = tests.iter().flat_map(|begin| text.match_indices(begin).map(|(at, _)| at)).filter(begins).min();
    at.map_or(text, |at| &text[..at])
}

#[test]
fn modules_use_only_what_stands_above_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = std::fs::read_to_string(src.join("lib.rs")).unwrap();
    let order: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
    let at = |name: &str| order.iter().position(|module| *module == name);
    let (mut files, mut wrong, mut seen) = (Vec::new(), Vec::new(), 0);
    sources(&src, &mut files);
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        // Tests may look down: they check a module through what is built on it.
        let test = relative.iter().any(|part| {
            let part = part.to_str().unwrap();
            part == "tests" || part == "tests.rs" || part.starts_with("conformance") || part == "testing.rs"
        });
        let Some(place) = at(module).filter(|_| !test) else { continue };
        let text = std::fs::read_to_string(&file).unwrap();
        for name in code(&text).lines().flat_map(used) {
            let Some(target) = at(&name) else { continue };
            seen += 1;
            if target > place {
                wrong.push(format!("{} uses {name}", relative.display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} uses were seen");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is one system's or one machine's stands behind a seam that has an answer on every other.
#[test]
fn only_the_seams_ask_which_system_and_which_machine_this_is() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut files, mut wrong, mut seen) = (Vec::new(), Vec::new(), 0);
    sources(&src, &mut files);
    let system =
        ["cfg(unix)", "cfg(not(unix))", "cfg(windows)", "target_os", "std::os::", "libc::", "signal_hook"];
    let machine = ["target_arch", "target_feature", "std::arch::"];
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let code = code(&text);
        let is_test = name.contains("tests") || name.ends_with("power.rs");
        let line_of = |words: &[&str]| {
            code.lines()
                .enumerate()
                .filter(|(_, line)| !line.trim_start().starts_with("//"))
                .find(|(_, line)| words.iter().any(|word| line.contains(word)))
                .map(|(at, line)| format!("src/{name}:{}: {}", at + 1, line.trim()))
        };
        let told = [
            (line_of(&system), name.starts_with("system")),
            // Kernels, the word that controls floating point, how fast the machine is, and what the facts say of it.
            (
                line_of(&machine),
                ["simd/", "control_word.rs", "backend/cpu/", "bench/machine.rs", "host/mod.rs"]
                    .iter()
                    .any(|allowed| name.starts_with(allowed)),
            ),
        ];
        for (line, allowed) in told {
            let Some(line) = line.filter(|_| !is_test) else { continue };
            seen += 1;
            if !allowed {
                wrong.push(line);
            }
        }
    }
    assert!(seen > 10, "only {seen} were seen");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Two hooks would each think of the other as the program's own.
#[test]
fn one_module_has_a_panic_hook() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    files.retain(|file| std::fs::read_to_string(file).unwrap().contains("set_hook"));
    assert_eq!(files, [src.join("caught_panics.rs")]);
}
