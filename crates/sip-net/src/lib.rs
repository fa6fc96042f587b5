//! Sockets for SIP messages: datagrams in batches, streams, and where a message goes next.
//!
//! # Where it sits
//!
//! Floor 3. The roles (load balancer, proxy, load client) own its sockets and drive their loops
//! with it; it uses only the words of `sip-message`. It decides nothing about SIP: it finds the
//! borders of messages, the address that a response goes to, and the addresses behind a name.
//!
//! # Invariants
//!
//! - `clock.rs` is the only clock on the call path; `system.rs` is the only file with `unsafe`.
//! - What a role calls never blocks, except `Poller::wait`, and `UdpSocket::send` for at most 4 ms.
//! - Streams and name resolution live on threads of their own; what they have to say waits in a
//!   bounded queue, and a `Waker` tells the role.
//! - Every queue, table and batch has a limit, in `limits.rs` or in the options, and a counter of
//!   what was lost there.
//!
//! # Reading order
//!
//! `clock` → `poll` (waiting) → `udp` (over `system`) → `stream` (over `connections`) →
//! `received` and `response_address` (RFC 3261 §18.2) → `resolve` (RFC 3263).

mod background;
pub mod clock;
mod connections;
pub mod limits;
pub mod poll;
pub mod received;
pub mod resolve;
pub mod response_address;
pub mod stream;
mod system;
pub mod udp;

/// Raises the number of files and sockets that this process may open to its hard limit, and returns
/// that limit. For the start of a process that will hold many streams.
pub fn raise_open_files_limit() -> std::io::Result<u64> {
    system::raise_open_files()
}
