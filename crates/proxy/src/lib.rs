//! The proxy role: a transaction-stateful proxy and registrar (RFC 3261 §10, §16, §22).
//!
//! One event loop per worker, one worker per port. A request is a state machine fed with events
//! (message, timer, completion of a query), never a task that waits.
//!
//! # Where it sits
//!
//! Floor 4. Introduces `sip-core` (what to do) to `sip-transaction` (what was said already),
//! `sip-net` (sockets) and `store` (what outlives a machine). Knows no store driver and no clock
//! but `sip_net::clock`.
//!
//! # Invariants
//!
//! - A worker shares nothing on the call path with another worker.
//! - Nothing in a worker waits: queries are submitted and completed.
//! - Messages of one call leave in the order in which they came.
//! - Nothing outlives a transaction; what must, is in the store or in a token.
//!
//! # Reading order
//!
//! `service` (what starts) → `worker` (the loop) → `arrival` (who sent this) → `call` (the walk of
//! a request) → `query` (what it asks the store) → `handover` → `orphan` → `registration` → `fork`
//! (the copies) → `record_route` → `outcome` (responses) → `answer` (our own) → `draft` (what they are
//! written with) → `leave` (how bytes leave) → `balancers` and `probe` (which balancers are there) →
//! `leaving` (who still needs one) → `metrics` → `stepped` (one worker without its thread).

mod answer;
mod arrival;
mod balancers;
mod call;
mod cancel;
pub mod config;
mod context;
mod control;
mod draft;
mod fork;
mod handover;
mod leave;
mod leaving;
pub mod metrics;
mod orphan;
mod outcome;
mod probe;
mod query;
mod record_route;
mod registration;
pub mod service;
mod stepped;
mod stray;
mod worker;

pub use config::Config;
pub use service::{Running, StoreFactory, start};
pub use stepped::Stepped;
