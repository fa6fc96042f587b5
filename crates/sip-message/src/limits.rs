//! What one message may cost. Beyond these, a message is refused with 513 (RFC 3261 §21.5.7).

/// Octets of one message, start line to the end of the body. Also what a UDP datagram can hold.
pub const MESSAGE_BYTES_MAX: usize = 65_535;

/// Octets of start line and header fields together.
pub const HEADER_SECTION_BYTES_MAX: usize = 60_000;

/// Header fields of one message, each line counted once, whatever it lists.
pub const FIELDS_MAX: usize = 128;

/// Octets that a stream may hold back before one message is complete.
pub const STREAM_BUFFER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
