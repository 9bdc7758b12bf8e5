//! What Linux has beyond other Unix systems: the kernel's texts, and large pages at a program's wish.

use std::path::Path;

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

pub(super) fn kernel_text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

pub(super) fn kernel_link(path: &Path) -> Option<String> {
    std::fs::read_link(path).ok().map(|link| link.to_string_lossy().into_owned())
}

pub(super) fn want_large_pages(start: *mut u8, len: usize) {
    let first = (start as usize).next_multiple_of(LARGE_PAGE);
    let end = (start as usize + len) / LARGE_PAGE * LARGE_PAGE;
    if first < end {
        // SAFETY: inside memory that this process holds; the advice changes none of its contents.
        unsafe { libc::madvise(start.add(first - start as usize).cast(), end - first, libc::MADV_HUGEPAGE) };
    }
}
