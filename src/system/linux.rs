//! What Linux has beyond other Unix systems: the kernel's texts, and large pages at a program's wish.

use std::fs;
use std::path::Path;

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

pub(super) fn kernel_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

pub(super) fn kernel_link(path: &Path) -> Option<String> {
    fs::read_link(path).ok().map(|link| link.to_string_lossy().into_owned())
}

pub(super) fn want_large_pages(start: *mut u8, len: usize) {
    let first = (start as usize).next_multiple_of(LARGE_PAGE);
    let end = (start as usize + len) / LARGE_PAGE * LARGE_PAGE;
    if first < end {
        // SAFETY: inside memory that this process holds; the advice changes none of its contents.
        unsafe { libc::madvise(start.add(first - start as usize).cast(), end - first, libc::MADV_HUGEPAGE) };
    }
}

pub(super) fn another_has_thread(thread: &str) -> bool {
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let name = process.file_name();
        let is_process = name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        is_process && *name != *own && has_thread(&process.path(), thread)
    })
}

pub(super) fn has_thread(process: &Path, thread: &str) -> bool {
    // Few processes are of this program: of the others the first look is the last.
    let name = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let program = fs::read_link(process.join("exe")).ok();
    let own = std::env::current_exe().ok();
    let is_alike = match (&program, &own) {
        (Some(program), Some(own)) => program.file_name() == own.file_name(),
        // Those of other users are not shown.
        _ => name(&process.join("comm")).starts_with("nanorun"),
    };
    is_alike
        && fs::read_dir(process.join("task")).is_ok_and(|mut tasks| {
            tasks.any(|task| task.is_ok_and(|task| name(&task.path().join("comm")).trim_end() == thread))
        })
}
