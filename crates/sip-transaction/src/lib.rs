//! The SIP transaction layer (RFC 3261 §17, with the corrections of RFC 6026).
//!
//! A transaction is one request and every response to it. This crate absorbs the peer's
//! retransmissions, makes ours, and tells the transaction user only what is new.
//!
//! # Where it sits
//!
//! Floor 1. Driven by the roles, which own the sockets and the clock; uses only `sip-message`.
//! It knows no method but INVITE and ACK, no header beyond those that find a transaction, and no
//! address: a destination is an opaque `D` of its owner.
//!
//! # Invariants
//!
//! - No I/O, no threads, no clock, no randomness: instants, branches and keys are arguments.
//! - Instants passed in never go backwards.
//! - The tables are bounded: at [`Limits::transactions_max`] a new transaction is refused, never
//!   queued.
//! - Timers live inside the state that needs them, so that leaving a state cancels them.
//! - Message bytes are shared: a transmission copies no message, it lends one to the [`Sink`].
//! - Timer C is not here: it belongs to the response context (RFC 3261 §16.6 step 11).
//! - Every transaction that the user did not abandon ends with exactly one `…Terminated` event.
//!
//! # Reading order
//!
//! `timers` (the table of RFC 3261 appendix A) → `client_invite` (the fullest machine) → the other
//! three machines → `key` (matching, §17.1.3 and §17.2.3) → `layer` (who owns them all) →
//! `table` and `schedule` (how the layer finds them and wakes them).

mod client_invite;
mod client_non_invite;
mod key;
mod layer;
mod limits;
mod output;
mod schedule;
mod server_invite;
mod server_non_invite;
mod table;
mod timers;

pub use key::{ClientKey, Hop, ServerKey, TwinKey};
pub use layer::Layer;
pub use limits::{Limits, PATHS_MAX};
pub use output::{AckVerdict, ClientId, ClientVerdict, Event, Kind, Origin, ServerId, Sink};
pub use table::{AsItIs, KeyedMap, TableFull};
pub use timers::{Reliability, Timing};
