//! Memory in large pages: it is looked up in few entries, where memory in small pages takes one each four kilobytes.

use std::ptr::NonNull;

/// Bytes of zeros that begin at a large page and are of such pages, where the system leaves that to programs. What comes of
/// the wish decides no bit. The system hands pages over when they are first touched.
#[derive(Debug)]
pub struct LargePages {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory that one value owns.
unsafe impl Send for LargePages {}
// SAFETY: as above.
unsafe impl Sync for LargePages {}

impl LargePages {
    /// So many bytes; none where they are fewer than a large page, the system has no such thing, or no memory.
    pub fn zeroed(len: usize) -> Option<Self> {
        let start: NonNull<u8> = super::map_large(len)?;
        Some(Self { start, len })
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for LargePages {
    fn drop(&mut self) {
        // SAFETY: made by `map_large` for this length; nobody else has it.
        #[cfg(target_os = "linux")]
        unsafe {
            super::linux::unmap_large(self.start, self.len);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = self.len;
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn large_memory_is_zeros_from_a_large_page_on_and_goes_back() {
        assert!(LargePages::zeroed((2 << 20) - 1).is_none());
        assert!(LargePages::zeroed(usize::MAX).is_none());
        assert!(LargePages::zeroed(usize::MAX / 2).is_none());
        for len in [2 << 20, (2 << 20) + 1, (5 << 20) - 64, 64 << 20] {
            let memory = LargePages::zeroed(len).unwrap();
            assert_eq!(memory.start().as_ptr() as usize % (2 << 20), 0);
            // SAFETY: as long as asked for, and ours.
            let bytes = unsafe { std::slice::from_raw_parts_mut(memory.start().as_ptr(), len) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes.fill(1);
        }
    }
}
