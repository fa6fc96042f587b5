//! Counts what a thread asks of the allocator: for benchmarks, and for tests that there is nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted. A program that counts makes it its `#[global_allocator]`.
pub struct CountingAllocator;

/// What a thread has asked for since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Blocks, a grown one again.
    pub count: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
}

impl Allocations {
    const NONE: Self = Self { count: 0, bytes: 0 };

    /// What has come since.
    pub fn since(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, bytes: self.bytes - earlier.bytes }
    }
}

thread_local! {
    static ALLOCATIONS: Cell<Allocations> = const { Cell::new(Allocations::NONE) };
}

/// What this thread has asked for; nothing, unless the program counts.
pub fn allocations() -> Allocations {
    ALLOCATIONS.with(Cell::get)
}

fn count(bytes: usize) {
    // While a thread ends its counter may be gone already; nobody measures there.
    let _ = ALLOCATIONS.try_with(|counter| {
        let Allocations { count, bytes: before } = counter.get();
        counter.set(Allocations { count: count + 1, bytes: before + bytes as u64 });
    });
}

// SAFETY: every call goes to the system's allocator unchanged.
#[expect(unsafe_code, reason = "an allocator cannot be wrapped otherwise; not in the product")]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { System.realloc(block, layout, size) }
    }
}
