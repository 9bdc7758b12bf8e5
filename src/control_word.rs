//! The processor's control word for arithmetic: a thread's rounding, and what becomes of subnormal numbers.
//!
//! Libraries change it as they are loaded: whatever was compiled with `-ffast-math` has numbers too small for a full
//! mantissa taken for zero, in the thread that loads it and in all that this thread starts. Results are defined without
//! that, so nanorun's own threads set the word as they start, and the step loop as it goes: it costs a few cycles.

/// Sets the word of this thread to what results are defined by: rounding to nearest, subnormal numbers as they are, no
/// traps. Whether it was another one.
#[inline]
pub fn set() -> bool {
    let departs = (arch::read() & arch::DECIDES) != arch::DEFAULT;
    if departs {
        arch::write(arch::DEFAULT);
    }
    departs
}

/// Runs `f` while this thread rounds to nearest and takes subnormal numbers for zero, operands and results, whatever the
/// word was before.
///
/// The compiler knows nothing of the word and may move arithmetic across: all of it must be in a function that is not
/// inlined and that writes its results to memory.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn flushing<R>(f: impl FnOnce() -> R) -> R {
    struct Before(u32);
    impl Drop for Before {
        fn drop(&mut self) {
            arch::write(self.0);
        }
    }
    let _before = Before(arch::read());
    arch::write(arch::DEFAULT | arch::FLUSHES);
    f()
}

/// Takes subnormal numbers for zero in this thread, as such a library does.
#[cfg(test)]
pub(crate) fn disturb() {
    arch::write(arch::read() | arch::FLUSHES);
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::asm;

    /// Every exception masked; Intel's manual, volume 1, 10.2.3.
    pub(super) const DEFAULT: u32 = 0x1f80;
    /// All but the flags of exceptions that were.
    pub(super) const DECIDES: u32 = 0xffc0;
    /// Flush to zero, and denormals are zero.
    pub(super) const FLUSHES: u32 = 0x8040;

    #[inline]
    pub(super) fn read() -> u32 {
        let mut word = 0_u32;
        // SAFETY: writes the 32 bits of MXCSR to `word`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    #[inline]
    pub(super) fn write(word: u32) {
        // SAFETY: reads `word`, in which no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use std::arch::asm;

    /// Arm's manual, FPCR: round to nearest, nothing flushed, nothing trapped.
    pub(super) const DEFAULT: u64 = 0;
    pub(super) const DECIDES: u64 = u64::MAX;
    /// Flush to zero.
    #[cfg(test)]
    pub(super) const FLUSHES: u64 = 1 << 24;

    #[inline]
    pub(super) fn read() -> u64 {
        let word: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nomem, nostack, preserves_flags)) };
        word
    }

    #[inline]
    pub(super) fn write(word: u64) {
        // SAFETY: sets the register to a state that it may have. Without `nomem`, so that no memory access is moved
        // across.
        unsafe { asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
    }
}

/// Elsewhere it is left alone.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    pub(super) const DEFAULT: u32 = 0;
    pub(super) const DECIDES: u32 = 0;
    #[cfg(test)]
    pub(super) const FLUSHES: u32 = 0;
    pub(super) fn read() -> u32 {
        0
    }
    pub(super) fn write(_: u32) {}
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use std::hint::black_box;

    use super::*;

    fn halved() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn subnormal_numbers_are_kept() {
        assert!(!set(), "nothing here changes it");
        let expected = halved();
        assert!(expected > 0.0);
        disturb();
        assert_eq!(black_box(halved()), 0.0, "the disturbance disturbs");
        assert!(set());
        assert_eq!(halved(), expected);
        assert!(!set());
    }

    /// A thread has the word of the one that started it.
    #[test]
    fn threads_inherit_it() {
        let disturbed = std::thread::spawn(|| {
            disturb();
            std::thread::spawn(set).join().unwrap()
        });
        assert!(disturbed.join().unwrap());
    }
}
