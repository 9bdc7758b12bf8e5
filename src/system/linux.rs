//! What Linux has beyond other Unix systems: the kernel's texts, and large pages at a program's wish.

use std::fs;
use std::path::Path;
use std::ptr::NonNull;

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;
/// A multiple of a page's bytes on every machine.
const SMALL_PAGE: usize = 64 << 10;

pub(super) fn kernel_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

pub(super) fn kernel_link(path: &Path) -> Option<String> {
    fs::read_link(path).ok().map(|link| link.to_string_lossy().into_owned())
}

pub(super) fn map_large(len: usize) -> Option<NonNull<u8>> {
    if len < LARGE_PAGE {
        return None;
    }
    // The kernel chooses where: what is before the first large page, and as much behind, is given back.
    let len = len.checked_next_multiple_of(SMALL_PAGE)?;
    let around = len.checked_add(LARGE_PAGE)?;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which overlaps nothing.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), around, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let before = (start as usize).next_multiple_of(LARGE_PAGE) - start as usize;
    let behind = LARGE_PAGE - before;
    // SAFETY: parts of that mapping, and the advice changes none of its contents.
    unsafe {
        let first = start.byte_add(before);
        for (start, len) in [(start, before), (first.byte_add(len), behind)] {
            if len > 0 {
                libc::munmap(start, len);
            }
        }
        libc::madvise(first, len / LARGE_PAGE * LARGE_PAGE, libc::MADV_HUGEPAGE);
        NonNull::new(first.cast())
    }
}

/// # Safety
/// What [`map_large`] made for this length, and nobody uses any more.
pub(super) unsafe fn unmap_large(start: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise: a whole mapping of `map_large`.
    unsafe { libc::munmap(start.as_ptr().cast(), len.next_multiple_of(SMALL_PAGE)) };
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
