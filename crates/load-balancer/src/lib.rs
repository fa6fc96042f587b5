//! The load balancer role: takes SIP from clients and hands it, stateless, to the proxy that owns
//! the call (RFC 3261 §16.11).
//!
//! One thread and one SO_REUSEPORT socket per core and listener. A message is parsed once, edited
//! in place and leaves with its batch; over UDP nothing is allocated for it.
//!
//! # Where it sits
//!
//! Floor 4. Gives the decision of `sip-core` hands: the sockets of `sip-net`, the control
//! interface of `node-api`.
//!
//! # Invariants
//!
//! - Nothing is remembered about a message that came over UDP: the table, the membership and the
//!   open streams are all that steers it. What streams need is in the ledger, bounded.
//! - Only a generation changes the table; between two of them a dead member may be skipped.
//! - Whatever is neither sent on nor answered is counted with its reason.
//!
//! # Reading order
//!
//! `service` (threads, sockets) → `hall` (one message) → `reply` → `table` (generations) → `health`
//! and `probe` (who is dead) → `ledger` and `streams` (what peers on streams need) → `node` and
//! `metrics` (what the manager sees) → `stepped` (the same without threads).

mod config;
mod hall;
mod health;
mod ledger;
mod metrics;
mod node;
mod probe;
mod reply;
mod service;
mod stepped;
mod streams;
mod table;

pub use config::Config;
pub use ledger::Timing;
pub use node::Node;
pub use probe::Probing;
pub use service::{Running, start};
pub use stepped::Stepped;
