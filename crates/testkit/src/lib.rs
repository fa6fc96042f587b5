//! What tests of several crates share: an epoch, messages from text, a small fleet, seeded chance, a
//! count of allocations.
//!
//! # Where it sits
//!
//! Beside the floors; only tests use it.
//!
//! # Invariants
//!
//! - The same call gives the same result in every run, the epoch's absolute value excepted.
//! - A test's own mistake (a text that is no message) panics with that text.
//!
//! # Reading order
//!
//! `clock` → `messages` → `members` → `random` → `allocations`; they do not know each other.

mod allocations;
mod clock;
mod members;
mod messages;
mod random;

pub use allocations::{Allocations, CountingAllocator, allocations};
pub use clock::epoch;
pub use members::{balancers, keys, membership, proxies};
pub use messages::{message, request, response, response_to, wire};
pub use random::Random;
