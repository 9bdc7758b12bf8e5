use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::power::{Left, PowerCut};
use super::*;

/// Everything under `dir`, by relative name.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

/// What a directory holds before `change` and after an undisturbed one through `files`.
fn old_and_new(
    files: &Files,
    prepare: impl Fn(&Path),
    change: impl Fn(&Files, &Path) -> FileResult<()>,
) -> [BTreeMap<String, Vec<u8>>; 2] {
    let [old, new] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    prepare(old.path());
    prepare(new.path());
    change(files, new.path()).unwrap();
    let [old, new] = [contents(old.path()), contents(new.path())];
    assert_ne!(old, new);
    [old, new]
}

/// Runs `change` once under every fault at every step: afterwards (and after recovery) the directory holds
/// exactly what it held before, or exactly what an undisturbed change leaves.
fn old_or_new(prepare: impl Fn(&Path), change: impl Fn(&Files, &Path) -> FileResult<()>) {
    let count = Arc::new(FaultAt::once(usize::MAX, Fault::Fail(ErrorKind::Other)));
    let [old, new] = old_and_new(&Files::with_faults(count.clone()), &prepare, &change);
    assert!(count.seen() >= 3, "{} steps", count.seen());
    let (mut olds, mut news) = (0, 0);
    for at in 0..count.seen() {
        let faults = [
            FaultAt::once(at, Fault::Fail(ErrorKind::StorageFull)),
            FaultAt::once(at, Fault::Fail(ErrorKind::Other)),
            FaultAt::once(at, Fault::Short(3, ErrorKind::StorageFull)),
            FaultAt::kill(at, 0),
            FaultAt::kill(at, 3),
        ];
        for fault in faults {
            let what = format!("{fault:?}");
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            let outcome = change(&Files::with_faults(Arc::new(fault)), dir.path());
            Files::new().recover(dir.path()).unwrap();
            let left = contents(dir.path());
            assert!(left == old || left == new, "{what} left {:?}", left.keys());
            olds += usize::from(left == old);
            news += usize::from(left == new);
            if outcome.is_ok() {
                assert_eq!(left, new, "{what} reported success");
            }
            // Whatever was left, the same change now succeeds.
            change(&Files::new(), dir.path()).unwrap();
        }
    }
    assert!(olds > 0 && news > 0);
}

#[test]
fn a_replaced_file_is_old_or_new_under_every_fault() {
    old_or_new(
        |dir| fs::write(dir.join("a.json"), "old text").unwrap(),
        |files, dir| files.write(&dir.join("a.json"), b"the new text"),
    );
}

#[test]
fn a_streamed_file_is_old_or_new_under_every_fault() {
    old_or_new(
        |dir| fs::write(dir.join("a.bin"), [1; 10]).unwrap(),
        |files, dir| {
            let path = dir.join("a.bin");
            let mut file = files.create(&path)?;
            for block in 0..3 {
                file.write_all(&vec![block; 1 << 20]).map_err(|e| FileError::new("write", &path, e))?;
            }
            file.commit()
        },
    );
}

#[test]
fn a_replaced_directory_is_old_or_new_under_every_fault() {
    old_or_new(
        |dir| {
            fs::create_dir(dir.join("step_000001")).unwrap();
            fs::write(dir.join("step_000001/a"), "old a").unwrap();
            fs::write(dir.join("step_000001/only_old"), "x").unwrap();
        },
        |files, dir| {
            let staged = files.stage_dir(&dir.join("step_000001"))?;
            staged.write("a", b"new a")?;
            staged.write("b", b"new b")?;
            staged.commit()
        },
    );
}

#[test]
fn a_removed_directory_is_whole_or_gone_under_every_fault() {
    old_or_new(
        |dir| {
            fs::create_dir_all(dir.join("step_000001")).unwrap();
            fs::write(dir.join("step_000001/a"), "a").unwrap();
            fs::write(dir.join("step_000001/b"), "b").unwrap();
        },
        |files, dir| files.remove_dir(&dir.join("step_000001")),
    );
}

/// Runs `change` with the power going at every step, and shows `look` every state the disk may then be in, recovered,
/// with what `change` reported.
fn after_every_power_cut<T>(
    prepare: impl Fn(&Path),
    change: impl Fn(&Files, &Path) -> T,
    mut look: impl FnMut(&T, &Path, &str),
) {
    for at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let power = Arc::new(PowerCut::at(dir.path(), at));
        let reported = change(&Files::with_faults(power.clone()), dir.path());
        for left in Left::all() {
            let place = tempfile::tempdir().unwrap();
            power.leave(left, place.path());
            Files::new().recover(place.path()).unwrap();
            look(&reported, place.path(), &format!("cut at {at}, {left:?}"));
        }
        if at > power.seen() {
            assert!(at > 3, "{at} steps");
            break;
        }
    }
}

/// After every power cut it holds what it held before or what it was to hold, and the latter once the change was
/// reported done.
fn old_or_new_after_a_power_cut(prepare: impl Fn(&Path), change: impl Fn(&Files, &Path) -> FileResult<()>) {
    let [old, new] = old_and_new(&Files::new(), &prepare, &change);
    let mut lost = 0;
    after_every_power_cut(prepare, change, |done, left, what| {
        let found = contents(left);
        assert!(found == new || (found == old && done.is_err()), "{what}: {:?}", found.keys());
        lost += usize::from(found == old);
    });
    assert!(lost > 0);
}

#[test]
fn a_power_cut_leaves_a_file_old_or_new() {
    old_or_new_after_a_power_cut(
        |dir| fs::write(dir.join("a.json"), "old text").unwrap(),
        |files, dir| files.write(&dir.join("a.json"), b"the new text"),
    );
}

#[test]
fn a_power_cut_leaves_a_directory_old_or_new() {
    old_or_new_after_a_power_cut(
        |dir| {
            fs::create_dir(dir.join("step_000001")).unwrap();
            fs::write(dir.join("step_000001/a"), "old a").unwrap();
            fs::write(dir.join("step_000001/only_old"), "x").unwrap();
        },
        |files, dir| {
            let staged = files.stage_dir(&dir.join("step_000001"))?;
            staged.write("a", b"new a")?;
            staged.write("b", b"new b")?;
            staged.commit()
        },
    );
}

#[test]
fn a_power_cut_leaves_a_removed_directory_whole_or_gone() {
    old_or_new_after_a_power_cut(
        |dir| {
            fs::create_dir(dir.join("step_000001")).unwrap();
            fs::write(dir.join("step_000001/a"), "a").unwrap();
        },
        |files, dir| files.remove_dir(&dir.join("step_000001")),
    );
}

#[test]
fn a_power_cut_takes_no_new_directory_and_no_line_that_was_reported() {
    let journal = |dir: &Path| dir.join("results/a/runs/journal.jsonl");
    let change = |files: &Files, dir: &Path| {
        let made = files.create_dir_all(&dir.join("results/a/runs")).is_ok();
        let lines = ["first", "second"];
        (made, lines.iter().take_while(|line| files.append_line(&journal(dir), line).is_ok()).count())
    };
    let mut all = 0;
    after_every_power_cut(
        |_| {},
        change,
        |&(made, lines), left, what| {
            assert!(!made || journal(left).parent().unwrap().is_dir(), "{what}");
            let text = fs::read_to_string(journal(left)).unwrap_or_default();
            let reported = &"first\nsecond\n"[..[0, 6, 13][lines]];
            assert!(text.starts_with(reported), "{what}: {text:?}");
            all += usize::from(lines == 2);
        },
    );
    assert!(all > 0);
}

#[test]
fn faults_can_be_asked_for_in_words() {
    for text in ["full@0", "io@12", "short@3", "kill@17"] {
        assert!(FaultAt::parse(text).is_some(), "{text}");
    }
    for text in ["", "full", "full@", "full@x", "burn@3", "full@-1"] {
        assert!(FaultAt::parse(text).is_none(), "{text}");
    }
}

#[test]
fn appended_lines_stay_whole_after_a_torn_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    Files::new().append_line(&path, "first").unwrap();
    for at in 0..3 {
        let killed = Files::with_faults(Arc::new(FaultAt::kill(at, 4)));
        killed.append_line(&path, "never whole").unwrap_err();
        assert!(fs::read_to_string(&path).unwrap().starts_with("first\n"));
    }
    Files::new().append_line(&path, &"second".repeat(2000)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text.lines().filter(|line| line.starts_with("first") || line.starts_with("second")).count(),
        2
    );
    assert_eq!(text.lines().last().unwrap().len(), 12_000);
    fs::write(&path, format!("first\n{}", "torn".repeat(3000))).unwrap();
    Files::new().append_line(&path, "last").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "first\nlast\n");
}

#[test]
fn recovery_leaves_other_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in [".gitignore", ".a.tmp", "a.1-2.tmp", ".a.1-x.tmp", ".lock"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    fs::create_dir_all(dir.path().join("runs/abc")).unwrap();
    fs::write(dir.path().join("runs/abc/.result.json.7-3.tmp"), "x").unwrap();
    let found = Files::new().recover(dir.path()).unwrap();
    assert_eq!(found, [dir.path().join("runs/abc/.result.json.7-3.tmp")]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6);
}

/// Locks of a network file system may be one machine's alone: who comes to the directory at the same moment from another one
/// keeps what it is about to write.
#[test]
fn who_has_the_lock_leaves_alone_what_elsewhere_wrote_just_now() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in [".a.7-3.tmp", ".b.7-4.tmp", ".c.7-5.old"] {
        fs::write(path(name), "x").unwrap();
    }
    for name in [".b.7-4.tmp", ".c.7-5.old"] {
        let file = fs::File::options().write(true).open(path(name)).unwrap();
        file.set_modified(system_now() - Duration::from_secs(1000)).unwrap();
    }
    let lock = DirLock::acquire(dir.path(), &LockHolder::this_process("here")).unwrap();
    assert_eq!(lock.recover(&Files::new(), dir.path()).unwrap(), [path(".b.7-4.tmp"), path(".c.7-5.old")]);
    assert!(path(".a.7-3.tmp").exists() && path("c").exists());
}

#[test]
fn a_file_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("results"), "x").unwrap();
    for place in ["results", "results/inner"] {
        let error = Files::new().check_writable(&dir.path().join(place)).unwrap_err();
        let error = crate::error::Error::from(error);
        assert_eq!(error.class().exit_code(), 2, "{error}");
        assert!(error.what().contains("a file stands where a directory is needed"), "{error}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let error = |kind: ErrorKind| {
        let error = FileError::new("write", Path::new("results/a/result.json"), kind.into());
        let error = crate::error::Error::from(error);
        format!("exit {}: {error}", error.class().exit_code())
    };
    insta::assert_snapshot!(
        [
            ErrorKind::PermissionDenied,
            ErrorKind::StorageFull,
            ErrorKind::NotFound,
            ErrorKind::ReadOnlyFilesystem,
            ErrorKind::QuotaExceeded,
            ErrorKind::InvalidFilename,
            ErrorKind::FileTooLarge,
            ErrorKind::StaleNetworkFileHandle
        ]
        .map(error)
        .join("\n")
    );
}

#[test]
fn nothing_stays_behind_after_a_check() {
    let dir = tempfile::tempdir().unwrap();
    Files::new().check_writable(&dir.path().join("new/dir")).unwrap();
    assert!(contents(dir.path()).is_empty());
}

#[test]
fn the_second_runner_learns_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = LockHolder {
        pid: 17,
        host: "crunch".into(),
        since: "2026-01-31T23:59:59Z".into(),
        command: "nanorun a.toml".into(),
        process: None,
    };
    let lock = DirLock::acquire(dir.path(), &first).unwrap();
    let refused = DirLock::acquire(dir.path(), &LockHolder::this_process("here")).unwrap_err();
    let LockError::Held { holder, .. } = &refused else { panic!("{refused}") };
    assert_eq!(holder.as_deref(), Some(&first));
    assert_eq!(
        refused.to_string(),
        format!(
            "another nanorun works in `{}`: process 17 on crunch since 2026-01-31T23:59:59Z (`nanorun a.toml`)",
            dir.path().display()
        )
    );
    let mut asked = 0;
    DirLock::acquire_waiting(dir.path(), &first, Duration::ZERO, |_| {
        asked += 1;
        asked < 3
    })
    .unwrap_err();
    assert_eq!(asked, 3);
    drop(lock);
    DirLock::acquire_waiting(dir.path(), &first, Duration::ZERO, |_| false).unwrap();
}

#[test]
fn a_stale_lock_locks_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    for stale in
        ["", "{\"pid\": 1", "{\"pid\":1,\"host\":\"a\",\"since\":\"2099-01-01T00:00:00Z\",\"command\":\"x\"}"]
    {
        fs::write(dir.path().join(".lock"), stale).unwrap();
        DirLock::acquire(dir.path(), &LockHolder::this_process("here")).unwrap();
    }
}
