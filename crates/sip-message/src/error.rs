//! Why a message, a header field or a URI was refused: what, and where.

use crate::header::HeaderName;
use crate::status::StatusCode;

/// Why octets are not a message that we handle. `at` counts octets of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing but line ends: a keep-alive (RFC 5626 §3.5.1).
    #[error("the datagram holds no message")]
    Empty,
    #[error("no sip start line at octet {at}")]
    NotSip { at: usize },
    #[error("malformed start line at octet {at}")]
    StartLine { at: usize },
    #[error("malformed request-uri at octet {at}: {error}")]
    RequestUri { at: usize, error: UriError },
    #[error("unsupported sip version at octet {at}")]
    Version { at: usize },
    #[error("status code at octet {at} is not 100 to 699")]
    StatusCode { at: usize },
    #[error("line at octet {at} does not end in CR LF")]
    LineEnd { at: usize },
    #[error("header section ends at octet {at} without an empty line")]
    Unended { at: usize },
    #[error("header line without a colon at octet {at}")]
    NoColon { at: usize },
    #[error("malformed header name at octet {at}")]
    FieldName { at: usize },
    #[error("{} is missing", name.as_str())]
    Missing { name: HeaderName },
    #[error("second {} at octet {at}", name.as_str())]
    Repeated { name: HeaderName, at: usize },
    #[error("malformed {} at octet {at}", name.as_str())]
    Field { name: HeaderName, at: usize },
    #[error("{} out of range at octet {at}", name.as_str())]
    OutOfRange { name: HeaderName, at: usize },
    #[error("cseq at octet {at} names another method than the request")]
    MethodMismatch { at: usize },
    #[error("content-lengths disagree at octet {at}")]
    LengthConflict { at: usize },
    #[error("content-length at octet {at} announces {announced} octets and {present} are there")]
    BodyCut { at: usize, announced: usize, present: usize },
    #[error("message larger than allowed at octet {at}")]
    TooLarge { at: usize },
    #[error("more header fields than allowed at octet {at}")]
    TooManyFields { at: usize },
}

impl ParseError {
    /// What the client is told, if it can be told anything.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Version { .. } => StatusCode::VERSION_NOT_SUPPORTED,
            Self::TooLarge { .. } | Self::TooManyFields { .. } => StatusCode::MESSAGE_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Which octet of the message; 0 for what is missing.
    pub const fn at(&self) -> usize {
        match *self {
            Self::Empty | Self::Missing { .. } => 0,
            Self::NotSip { at }
            | Self::StartLine { at }
            | Self::RequestUri { at, .. }
            | Self::Version { at }
            | Self::StatusCode { at }
            | Self::LineEnd { at }
            | Self::Unended { at }
            | Self::NoColon { at }
            | Self::FieldName { at }
            | Self::Repeated { at, .. }
            | Self::Field { at, .. }
            | Self::OutOfRange { at, .. }
            | Self::MethodMismatch { at }
            | Self::LengthConflict { at }
            | Self::BodyCut { at, .. }
            | Self::TooLarge { at }
            | Self::TooManyFields { at } => at,
        }
    }
}

/// Why a header field cannot be understood. `at` counts octets of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("{} is missing", name.as_str())]
    Missing { name: HeaderName },
    #[error("malformed {} at octet {at}", name.as_str())]
    Malformed { name: HeaderName, at: usize },
    #[error("{} out of range at octet {at}", name.as_str())]
    OutOfRange { name: HeaderName, at: usize },
}

impl From<HeaderError> for ParseError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Missing { name } => Self::Missing { name },
            HeaderError::Malformed { name, at } => Self::Field { name, at },
            HeaderError::OutOfRange { name, at } => Self::OutOfRange { name, at },
        }
    }
}

/// Why octets are not a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("no scheme")]
    Scheme,
    #[error("an octet that no uri may hold")]
    Octet,
    #[error("malformed user part")]
    User,
    #[error("malformed host")]
    Host,
    #[error("malformed port")]
    Port,
    #[error("malformed parameter")]
    Parameter,
    #[error("header fields in a request-uri")]
    Headers,
}
