//! README and documentation say what the program says, and lead where they say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let after = text.split_once(begin).unwrap().1;
    after.split_once(end).unwrap().0.trim()
}

/// README, changelog and the pages of the book.
fn pages() -> Vec<PathBuf> {
    let in_dir = |dir| fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = in_dir("docs")
        .chain(in_dir("docs/code"))
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    pages.extend([root().join("README.md"), root().join("CHANGELOG.md")]);
    pages.sort();
    pages
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let mut inside = false;
    let lines = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where the links of a page lead.
fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in page.match_indices("](") {
        if let Some((to, _)) = page[at + 2..].split_once(')') {
            found.push(to.to_owned());
        }
    }
    found
}

/// The names by which the headings of a page can be linked to, as GitHub and mdBook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        title
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
            .map(|letter| if letter == ' ' { '-' } else { letter })
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn the_manifest_reference_is_up_to_date() {
    let page = read("docs/reference.md");
    let written = between(&page, "<!-- fields:begin -->", "<!-- fields:end -->");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nanorun")).arg("fields").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        written == printed.trim(),
        "write the output of `nanorun fields` between the markers of docs/reference.md"
    );
}

#[allow(clippy::redundant_closure_for_method_calls, reason = "the method's type is not public")]
#[test]
fn every_known_commit_is_in_the_manual() {
    let page = read("docs/manifest.md");
    let (_, listed) = page.split_once("Known commits: ").unwrap();
    let listed: Vec<&str> = listed
        .lines()
        .next()
        .unwrap()
        .trim_end_matches('.')
        .split(' ')
        .map(|one| one.trim_matches('`'))
        .collect();
    let known: Vec<&str> =
        nanorun::internals::upstream::RECIPES.iter().map(|recipe| recipe.short()).collect();
    assert_eq!(listed, known, "docs/manifest.md");
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    let docs = root().join("docs").canonicalize().unwrap();
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for link in links(&prose(&page)) {
            // What lies outside of the book is linked to where the repository is shown.
            if let Some(file) = link.strip_prefix("https://github.com/nanorun/nanorun/blob/main/") {
                if !root().join(file).exists() {
                    broken.push(format!("{}: {link}", path.display()));
                }
                continue;
            }
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) =
                link.split_once('#').map_or((&*link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let leaves_the_book = path.canonicalize().unwrap().starts_with(&docs)
                && target.canonicalize().is_ok_and(|target| !target.starts_with(&docs));
            let there = match anchor {
                _ if leaves_the_book => false,
                None => target.exists(),
                Some(anchor) => {
                    fs::read_to_string(&target).is_ok_and(|page| anchors(&prose(&page)).contains(anchor))
                }
            };
            if !there {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_book() {
    let summary: BTreeSet<String> = links(&read("docs/SUMMARY.md")).into_iter().collect();
    let docs = root().join("docs");
    let pages: BTreeSet<String> = pages()
        .into_iter()
        .filter(|path| path.starts_with(&docs) && !path.ends_with("SUMMARY.md"))
        .map(|path| path.strip_prefix(&docs).unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(summary, pages);
}

/// What the quickstart ends in stands in the README to the digits that it shows.
#[test]
fn the_quickstart_is_told_as_it_comes_out() {
    let readme = read("README.md");
    let golden = read("tests/fixtures/golden/quickstart.results.txt");
    let hashes: Vec<&str> = golden.lines().filter_map(|line| line.trim().strip_prefix("result ")).collect();
    assert_eq!(hashes.len(), 6);
    for hash in hashes {
        assert!(readme.contains(&hash[..12]), "a run ends in {hash}, which README.md does not have");
    }
}

/// `cargo binstall` looks for the archive that `scripts/archive` packs, and in it for the program.
#[test]
fn binstall_finds_what_is_released() {
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    let package = &cargo["package"];
    let archive = &package["metadata"]["binstall"]["overrides"]["x86_64-unknown-linux-gnu"];
    let filled = |key: &str| {
        let version = package["version"].as_str().unwrap();
        let text = archive[key].as_str().unwrap().replace("{ version }", version);
        text.replace("{ repo }", package["repository"].as_str().unwrap()).replace("{ bin }", "nanorun")
    };
    let script = read("scripts/archive");
    let name = script.lines().find_map(|line| line.strip_prefix("name=")).unwrap();
    let name = name.replace("$version", env!("CARGO_PKG_VERSION"));
    assert!(
        script.contains("\"$dir/$name.tar.gz\"") && script.contains("\"$place/$name\""),
        "scripts/archive"
    );
    let address =
        format!("https://github.com/nanorun/nanorun/releases/download/v{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(filled("pkg-url"), format!("{address}/{name}.tar.gz"));
    assert_eq!(filled("bin-dir"), format!("{name}/nanorun"));
    assert!(read(".github/workflows/release.yml").contains("tags: [\"v*\"]"));
    let pinned = format!("nanorun-torch=={};", env!("CARGO_PKG_VERSION"));
    assert!(read("pyproject.toml").contains(&pinned), "pyproject.toml: expected {pinned}");
}

/// The worked examples of docs/code.md are patches (scripts/check_examples builds them): they apply to these sources, and
/// what the page shows of them is what they say.
#[test]
fn the_worked_examples_apply_and_are_shown_as_they_are() {
    let mut patches = String::new();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("docs/examples")).unwrap() {
        let path = entry.unwrap().path();
        let output = std::process::Command::new("git")
            .arg("apply")
            .arg("--check")
            .arg(&path)
            .current_dir(root())
            .output();
        match output {
            Ok(output) => {
                let told = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{} does not apply any more: {told}", path.display());
            }
            Err(_) => crate::support::skip("worked examples: there is no git"),
        }
        let text = std::fs::read_to_string(&path).unwrap();
        patches.extend(text.lines().filter(|line| !line.starts_with("@@")).flat_map(|line| [line, "\n"]));
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    let page = read("docs/code.md");
    let shown: Vec<&str> = page
        .split("```diff\n")
        .skip(1)
        .filter_map(|block| block.split_once("```").map(|(block, _)| block))
        .collect();
    assert!(shown.len() >= 6, "{} parts are shown", shown.len());
    for block in shown {
        assert!(patches.contains(block), "docs/code.md shows what is in no patch:\n{block}");
    }
    for name in names {
        assert!(page.contains(&format!("(examples/{name})")), "docs/code.md does not lead to {name}");
    }
}

/// Every command that the README has people type is one.
#[test]
fn the_commands_of_the_readme_are_there() {
    let readme = read("README.md");
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_nanorun")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let known: BTreeSet<&str> = help
        .lines()
        .filter(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let typed =
        readme.split("```sh\n").skip(1).filter_map(|block| block.split_once("```").map(|(block, _)| block));
    let mut seen = 0;
    for line in typed.flat_map(str::lines) {
        for command in line.split(" && ").filter_map(|part| part.trim().strip_prefix("nanorun ")) {
            let word = command.split_whitespace().next().unwrap();
            let is_manifest = Path::new(word).extension().is_some_and(|end| end == "toml");
            assert!(is_manifest || known.contains(word), "README.md has people type `nanorun {word}`");
            seen += 1;
        }
    }
    assert!(seen > 6, "{seen}");
}
