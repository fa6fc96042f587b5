//! What the crate promises as a whole: torture messages, round trips, no allocation.

mod allocation;
mod round_trip;
mod torture;

#[global_allocator]
static ALLOCATOR: testkit::CountingAllocator = testkit::CountingAllocator;
