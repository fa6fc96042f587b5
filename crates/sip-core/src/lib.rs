//! What a SIP element decides about a message (RFC 3261 §10, §16, §22), and nothing else.
//!
//! The balancer's whole decision, the proxy's rooms, the registrar, digest, and the formats with
//! which members of the fleet recognise each other.
//!
//! # Where it sits
//!
//! Floor 2. Used by the roles `load-balancer` and `proxy`, which own sockets and transactions;
//! uses `sip-message`, `fleet` and the words of `store`.
//!
//! # Invariants
//!
//! - No I/O, no clock, no randomness: whatever is needed is an argument.
//! - `mac`, `branch`, `flow_token`, `selection` and `handover` are wire formats, pinned by golden files:
//!   changing one is a migration.
//! - A message is never rebuilt: decisions are edits on the bytes that came.
//! - Nothing that a peer sends makes us panic, and what it claims about us is believed only if its
//!   MAC holds.
//!
//! # Reading order
//!
//! `mac` → `branch` → `flow_token` → `selection` → `handover` → `stateless` (the balancer); then the proxy's
//! rooms in the order in which a request walks through them.

pub mod branch;
pub mod cancel;
pub mod capabilities;
pub mod date;
pub mod digest;
pub mod flow_token;
pub mod forwarding;
pub mod handover;
pub mod identity;
pub mod mac;
pub mod names;
pub mod registrar;
pub mod reject;
pub mod response;
pub mod route;
pub mod search;
pub mod selection;
pub mod stateless;
pub mod stray;
pub mod target;
mod text;
pub mod validation;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod testing;
