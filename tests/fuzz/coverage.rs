//! Which code an input reached, where the build counts it.
//!
//! `scripts/fuzz` compiles nanorun with LLVM's inline 8-bit counters, one an edge of the control flow, which hand
//! themselves in here at start. In an ordinary build there are none, and nothing is guided.

use std::sync::Mutex;

/// Start and length of each block of counters.
static BLOCKS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by instrumented code, once a module.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let block = (start as usize, stop as usize - start as usize);
    let mut blocks = BLOCKS.lock().unwrap();
    // The linker joins the counters of all modules, each of which then hands in the whole.
    if !blocks.contains(&block) {
        blocks.push(block);
    }
}

/// Which edges were taken how often, by powers of two, over all inputs so far.
pub(crate) struct Coverage {
    seen: Vec<u8>,
}

impl Coverage {
    pub(crate) fn new() -> Self {
        let edges = BLOCKS.lock().unwrap().iter().map(|(_, len)| len).sum();
        Self { seen: vec![0; edges] }
    }

    /// Whether the build counts at all.
    pub(crate) fn is_there(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Edges reached so far.
    pub(crate) fn edges(&self) -> usize {
        self.seen.iter().filter(|&&seen| seen != 0).count()
    }

    /// Adds what was reached since the last call; whether any of it is new.
    pub(crate) fn advance(&mut self) -> bool {
        let mut new = false;
        let mut seen = self.seen.iter_mut();
        for &(start, len) in BLOCKS.lock().unwrap().iter() {
            // SAFETY: the block is a static of this program, given by the compiler; racing increments of other
            // threads lose a count at worst.
            let counters = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) };
            for (counter, seen) in counters.iter_mut().zip(&mut seen) {
                if *counter != 0 {
                    let class = 1_u8 << counter.ilog2();
                    new |= *seen & class == 0;
                    *seen |= class;
                    *counter = 0;
                }
            }
        }
        new
    }
}
