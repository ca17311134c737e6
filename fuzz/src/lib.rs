//! What all fuzz targets share: each runs one function of `tintype::fuzzing`, and watches the memory it
//! takes.
//!
//! The allocator is the system's with a count before it; it must never fail or change an allocation.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

pub use libfuzzer_sys;
use tintype::fuzzing::Target;

struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn taken(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

fn given_back(bytes: usize) {
    HELD.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        given_back(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        given_back(layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs a target once.
///
/// # Panics
/// If something does not hold, or if it took more memory than it may.
pub fn run(target: &Target, bytes: &[u8]) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let _read = (target.run)(bytes);
    // What is made once and kept, such as keys, is counted at its first time; it is small.
    let peak = PEAK.load(Ordering::Relaxed) - before;
    assert!(peak <= target.memory_bytes_max, "{}: {peak} bytes of memory for {}", target.name, bytes.len());
}

/// The entry of one target: `target!("name");`.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        static TARGET: std::sync::LazyLock<&tintype::fuzzing::Target> =
            std::sync::LazyLock::new(|| tintype::fuzzing::named($name));
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::run(*TARGET, bytes));
    };
}
