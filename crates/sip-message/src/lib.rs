//! SIP messages: octets to a view of a message and back (RFC 3261 §7, §18.3, §19.1, §20, §25).
//!
//! A message is the received octets plus an index of where its fields lie. Nothing is copied and
//! nothing is understood that nobody asks for. A forwarded message is the same octets plus a list
//! of edits, so what we do not touch leaves exactly as it came.
//!
//! # Where it sits
//!
//! Floor 0. Everything that speaks SIP uses it; balancer and proxy share this one parser, because
//! two parsers that disagree about where a message ends are a way to smuggle a second one in.
//!
//! # Invariants
//!
//! - No I/O, no clock, no randomness; `parse` does not allocate.
//! - No octets make it panic.
//! - Strict where a message ends and what an element acts on, liberal everywhere else: unknown
//!   methods, schemes, fields and octets that are not UTF-8 are carried through.
//! - A refusal says what and where, and keeps the message if it can be answered.
//!
//! # Reading order
//!
//! `message` (the view) → `parse` (cut, then check) → `header` (names; one file per typed field)
//! → `uri` → `edits` and `print` (how messages leave) → `frame` (streams).

mod edits;
mod error;
mod frame;
pub mod header;
pub mod limits;
mod message;
mod method;
mod owned;
mod parse;
mod print;
mod span;
mod start_line;
mod status;
mod syntax;
mod transport;
pub mod uri;

pub use edits::Edits;
pub use error::{HeaderError, ParseError, UriError};
pub use frame::{Frame, FrameError, Framer};
pub use header::HeaderName;
pub use header::auth::AuthParams;
pub use header::contact::{ContactList, Contacts};
pub use header::cseq::CSeq;
pub use header::max_forwards::MaxForwards;
pub use header::name_addr::NameAddr;
pub use header::param::{Param, Params, unquoted};
pub use header::route::RouteValue;
pub use header::value::{Value, Values};
pub use header::via::{MAGIC_COOKIE, Rport, Via};
pub use message::{Field, Fields, Index, Message};
pub use method::Method;
pub use owned::OwnedMessage;
pub use parse::{Framing, Malformed, parse};
pub use print::{Reply, write_ack, write_cancel, write_reply, write_reply_edited};
pub use span::Span;
pub use status::{ResponseClass, StatusCode};
pub use transport::Transport;
pub use uri::{Scheme, Uri, UriParam, parse_ip};
