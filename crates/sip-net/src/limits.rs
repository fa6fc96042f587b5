//! The limits of this crate, each with its unit and what happens at it.

use std::time::Duration;

/// Datagrams that one system call takes or sends. Larger batches measured no faster.
pub const BATCH_MAX: usize = 32;

/// Datagrams that a receiver asks for when the last call found none.
pub(crate) const BATCH_MIN: usize = 4;

/// Bytes of the largest UDP payload over IPv4; a longer datagram cannot arrive.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// How often one `send` waits for room in a full socket buffer before it gives up on the rest of
/// its batch: at most [`SEND_WAITS_MAX`] times [`SEND_WAIT`].
pub const SEND_WAITS_MAX: u32 = 4;

/// How long one such wait lasts.
pub const SEND_WAIT: Duration = Duration::from_millis(1);

/// Bytes that a sender's arena keeps between batches; beyond, the memory is given back.
pub const ARENA_BYTES_KEPT: usize = 1 << 20;
