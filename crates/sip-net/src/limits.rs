//! The limits of this crate, each with its unit and what happens at it.

use std::time::Duration;

/// Datagrams that one system call takes or sends. Larger batches measured no faster.
pub const BATCH_MAX: usize = 32;

/// Bytes of the largest UDP payload over IPv4; a longer datagram cannot arrive.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// How often one `send` waits for room in a full socket buffer before it gives up on the rest of
/// its batch: at most [`SEND_WAITS_MAX`] times [`SEND_WAIT`].
pub const SEND_WAITS_MAX: u32 = 4;

/// How long one such wait lasts.
pub const SEND_WAIT: Duration = Duration::from_millis(1);

/// Errors of earlier datagrams that one call takes from a socket; the rest waits for the next call,
/// in a queue that the kernel bounds with the socket's receive buffer.
pub const ERRORS_TAKEN_MAX: usize = 64;

/// How often a call is repeated that failed with the error of an earlier datagram; each error fails
/// one call, and more may come meanwhile.
pub(crate) const PENDING_ERRORS_MAX: u32 = 8;

/// Bytes that a sender's arena keeps between batches; beyond, the memory is given back.
pub const ARENA_BYTES_KEPT: usize = 1 << 20;
/// Bytes asked of a stream in one read.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// Messages that one vectored write of a stream takes together.
pub(crate) const WRITE_MESSAGES_MAX: usize = 16;

/// Connections that may wait to be accepted; the kernel refuses more.
pub(crate) const ACCEPT_BACKLOG: i32 = 1_024;

/// How long accepting rests when the machine has no descriptor or memory left.
pub(crate) const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long a connection that we close may take to deliver what is queued and to hear the peer's
/// end of stream.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// How long a connection stays open for an answer after a malformed message came on it.
pub(crate) const MALFORMED_WAIT: Duration = Duration::from_secs(2);

/// How long answers are still written to a peer that has closed its side, unless the role says otherwise.
pub(crate) const HALF_CLOSED_WAIT: Duration = Duration::from_secs(2);

/// After how much silence the kernel asks a peer whether it is still there. Translators forget a
/// connection sooner or later, too.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(120);

/// SRV records of one name whose addresses are looked up; the rest is not tried.
pub(crate) const SRV_RECORDS_MAX: usize = 16;

/// Targets of one answer; the rest is cut off.
pub(crate) const TARGETS_MAX: usize = 32;
