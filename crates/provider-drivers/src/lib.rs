//! Drivers behind the seams of `provider`: the local provider and the embedded DNS server.
//!
//! # Where it sits
//!
//! Floor 3. Only the front door knows it; the manager sees the traits of `provider`.
//!
//! # Invariants
//!
//! - What a driver needs to know after a restart lies on disk or in the cloud, never in memory.
//! - No process is signalled unless its id and its start time are the ones written down.
//! - Files with secrets are readable by their owner alone.
//! - A zone is replaced as a whole: no query sees half of one.
//!
//! # Reading order
//!
//! `local` (machines) → `local_machine` (a machine's folder) → `process` (who is alive) →
//! `dns_zone` (what is answered) → `dns_embedded` (the sockets) → `dns_led` (whose they are).

mod dns_embedded;
mod dns_led;
mod dns_zone;
mod local;
mod local_machine;
pub mod process;

pub use dns_embedded::EmbeddedDns;
pub use dns_led::LedDns;
pub use local::{AddressPlan, LocalCompute, LocalOptions, live_machines, remove_dead_machines};
