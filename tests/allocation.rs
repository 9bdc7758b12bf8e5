//! A step of training asks the system for no memory that grows with the model: after the first step, tensors come
//! from the backend's pool, and what is left are a few small things of the host.
//!
//! A binary of its own, because a global allocator counts for everything in it.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use nanorun::internals::data::Cache;
use nanorun::internals::manifest::{Manifest, Options};
use nanorun::internals::ops::SequenceShape;
use nanorun::internals::plan::plan;
use nanorun::internals::run::engine::engine;
use nanorun::internals::run::library::Library;
use nanorun::internals::train::engine::MicroBatch;

/// Two micro-batches a step of 4 rows of 128 tokens: every accumulation path, windows, value embeddings.
const MANIFEST: &str = r#"
name = "allocation"
question = "Does a step allocate?"
upstream.commit = "92d63d4"
run = { seed = 1, backend = "cpu" }
budget.steps = 8
schedule.warmdown = "linear"
model = { depth = 2, head_dim = 64, sequence_len = 128 }
train = { device_batch_size = 4, total_batch_size = 1024 }
data.tokenizer.vocab_size = 512
eval.tokens = 512
"#;

/// Micro-batches of a step.
const ACCUMULATION: usize = 2;
/// Losses of a micro-batch are handed to the caller: one f32 a token. Nothing may be larger.
const LARGEST: usize = 4 * 128 * size_of::<f32>();
/// Allocations a step, all of them small: lists of layers, of parameters, and the thread pool's queues.
const MOST: usize = 400;

struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static LARGEST_SEEN: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    /// Printing a place allocates too.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: usize) {
    if !ON.load(Relaxed) || INSIDE.try_with(Cell::get).unwrap_or(true) {
        return;
    }
    COUNT.fetch_add(1, Relaxed);
    LARGEST_SEEN.fetch_max(bytes, Relaxed);
    // ALLOCATION_TRACE=bytes shows where allocations of at least so many come from.
    INSIDE.with(|inside| inside.set(true));
    let traced = std::env::var("ALLOCATION_TRACE").ok().and_then(|least| least.parse().ok());
    if traced.is_some_and(|least: usize| bytes >= least) {
        eprintln!("{bytes} bytes\n{}", std::backtrace::Backtrace::force_capture());
    }
    INSIDE.with(|inside| inside.set(false));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn after_the_first_step_only_small_things_are_allocated() {
    let manifest = Manifest::parse(Path::new("allocation.toml"), MANIFEST, &Options::default()).unwrap();
    let library = Library::new(Cache::disabled());
    let plan = plan(&manifest, &library).unwrap();
    let config = &plan.runs[0].config;
    assert_eq!(config.batch.grad_accum_steps as usize, ACCUMULATION);
    // Batches are made before: the data thread is not a thread that computes.
    let mut source = library.rows(config).unwrap().train(None).unwrap();
    let batches: Vec<_> = (0..5 * ACCUMULATION).map(|_| source.next_batch().unwrap()).collect();
    drop(source);
    let mut engine = engine(config, 2).unwrap();
    for (step, batches) in batches.chunks(ACCUMULATION).enumerate() {
        ON.store(step > 0, Relaxed);
        COUNT.store(0, Relaxed);
        for batch in batches {
            let sequence = SequenceShape { batch: batch.rows, len: batch.len };
            let micro = MicroBatch { inputs: &batch.inputs, targets: &batch.targets, sequence };
            let losses = engine.accumulate(&micro, 1.0 / 1024.0).unwrap().read().unwrap();
            assert!(losses.iter().all(|loss| loss.is_finite()));
        }
        engine.update(&config.schedule.step_values(step as u64)).unwrap();
        ON.store(false, Relaxed);
        let (count, largest) = (COUNT.load(Relaxed), LARGEST_SEEN.load(Relaxed));
        println!("step {step}: {count} allocations, the largest so far {largest} bytes");
        assert!(largest <= LARGEST, "step {step} allocated {largest} bytes at once");
        assert!(count <= MOST, "step {step} allocated {count} times");
        assert!(step == 0 || count > 0, "nothing is counted");
    }
}
