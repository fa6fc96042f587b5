//! Every refusal, its status code, and the header fields that the answer owes: in one place.

use sip_message::StatusCode;
use store::{Aor, StoreError};

use crate::capabilities::ALLOW_HERE;

/// Header fields of an answer: name and value.
pub type Fields = Vec<(&'static str, Vec<u8>)>;

/// After how many seconds a client may ask again when the store was not there.
const STORE_RETRY_AFTER_S: u32 = 5;

/// RFC 5393 §5.3.4.
const MAX_BREADTH_EXCEEDED: StatusCode = match StatusCode::new(440) {
    Some(status) => status,
    None => StatusCode::SERVER_INTERNAL_ERROR,
};

/// A refusal. `Display` is for logs; the client sees [`Reject::status`] and [`Reject::fields`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// A rule about meaning is broken; syntax is the parser's.
    #[error("bad request: {what}")]
    BadRequest { what: &'static str },

    #[error("unsupported uri scheme `{scheme}`")]
    UnsupportedUriScheme { scheme: String },

    #[error("max-forwards is zero")]
    TooManyHops,

    /// A Via of the request holds the branch that we would write (RFC 3261 §16.3 step 4).
    #[error("the request came back to where it was")]
    LoopDetected,

    /// RFC 5393 §5.3.
    #[error("max-breadth is used up")]
    BreadthExceeded,

    #[error("unsupported extension {}", .options.join(", "))]
    BadExtension { options: Vec<String> },

    #[error("forbidden: {why}")]
    Forbidden { why: Forbidden },

    /// The domain is ours, such a user cannot be in it.
    #[error("no such user")]
    NotFound,

    #[error("{aor} has no binding")]
    NotRegistered { aor: Aor },

    #[error("the tier does not answer this method")]
    MethodNotAllowed,

    #[error("expiry below {min_s} s")]
    IntervalTooBrief { min_s: u32 },

    /// The binding was changed by a later REGISTER of the same Call-ID (RFC 3261 §10.3 step 7).
    #[error("register out of order")]
    RegisterOutOfOrder,

    #[error("more than {limit} contacts")]
    TooManyContacts { limit: usize },

    /// A CANCEL that matches nothing (RFC 3261 §9.2).
    #[error("no such transaction")]
    NoSuchTransaction,

    #[error("the next hop has no address that answers")]
    NextHopUnreachable,

    #[error("store failed: {0}")]
    StoreUnavailable(#[from] StoreError),

    /// This proxy sheds load, or its tables are full.
    #[error("overloaded")]
    Overloaded { retry_after_s: u32 },
}

/// Why a request is forbidden; for logs and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("neither caller nor callee is served here")]
    RelayBetweenForeignDomains,
    #[error("the credentials are not the sender's")]
    NotTheSender,
    #[error("the credentials are not the registrant's")]
    NotTheRegistrant,
    /// Protocol rule 13.
    #[error("a path token of the tier on a client's route")]
    PathToken,
}

impl Reject {
    /// The status code for the client. The only place where refusals become numbers.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest { .. } => StatusCode::BAD_REQUEST, // 400
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,    // 403
            // Not 503: that makes the client shun the whole tier for one phone too many.
            Self::TooManyContacts { .. } => StatusCode::FORBIDDEN, // 403
            Self::NotFound => StatusCode::NOT_FOUND,               // 404
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED, // 405
            Self::UnsupportedUriScheme { .. } => StatusCode::UNSUPPORTED_URI_SCHEME, // 416
            Self::BadExtension { .. } => StatusCode::BAD_EXTENSION, // 420
            Self::IntervalTooBrief { .. } => StatusCode::INTERVAL_TOO_BRIEF, // 423
            Self::BreadthExceeded => MAX_BREADTH_EXCEEDED,         // 440
            Self::NotRegistered { .. } => StatusCode::TEMPORARILY_UNAVAILABLE, // 480
            Self::NoSuchTransaction => StatusCode::CALL_OR_TRANSACTION_DOES_NOT_EXIST, // 481
            Self::LoopDetected => StatusCode::LOOP_DETECTED,       // 482
            Self::TooManyHops => StatusCode::TOO_MANY_HOPS,        // 483
            // RFC 3261 §10.3 step 7 only says that the request fails; the update did, so 500.
            Self::RegisterOutOfOrder => StatusCode::SERVER_INTERNAL_ERROR, // 500
            // A next hop without an address would be 503 from a transport (§16.9), and a 503 from
            // beyond us never leaves as one (§16.7 step 6).
            Self::NextHopUnreachable => StatusCode::SERVER_INTERNAL_ERROR, // 500
            // Not 503: that asks the client to shun this whole tier (RFC 3261 §21.5.4) for what may
            // be one slow read, or one busy proxy of many.
            Self::StoreUnavailable(_) | Self::Overloaded { .. } => {
                StatusCode::SERVER_INTERNAL_ERROR // 500
            }
        }
    }

    /// The header fields that the answer must or should carry.
    pub fn fields(&self) -> Fields {
        match self {
            Self::BadExtension { options } => vec![("Unsupported", options.join(", ").into())],
            Self::IntervalTooBrief { min_s } => vec![("Min-Expires", min_s.to_string().into())],
            Self::MethodNotAllowed => vec![("Allow", ALLOW_HERE.into())],
            Self::Overloaded { retry_after_s } => {
                vec![("Retry-After", retry_after_s.to_string().into())]
            }
            Self::StoreUnavailable(error) if error.is_transient() => {
                vec![("Retry-After", STORE_RETRY_AFTER_S.to_string().into())]
            }
            Self::StoreUnavailable(_)
            | Self::BadRequest { .. }
            | Self::UnsupportedUriScheme { .. }
            | Self::TooManyHops
            | Self::LoopDetected
            | Self::BreadthExceeded
            | Self::Forbidden { .. }
            | Self::NotFound
            | Self::NotRegistered { .. }
            | Self::RegisterOutOfOrder
            | Self::TooManyContacts { .. }
            | Self::NoSuchTransaction
            | Self::NextHopUnreachable => Fields::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_code_and_what_the_answer_owes() {
        let options = vec!["foo".to_owned(), "bar".to_owned()];
        type Row = (Reject, u16, &'static [(&'static str, &'static [u8])]);
        #[rustfmt::skip]
        let table: [Row; 10] = [
            (Reject::BadExtension { options },                                  420, &[("Unsupported", b"foo, bar")]),
            (Reject::IntervalTooBrief { min_s: 60 },                            423, &[("Min-Expires", b"60")]),
            (Reject::MethodNotAllowed,                                          405, &[("Allow", b"OPTIONS, REGISTER")]),
            (Reject::Overloaded { retry_after_s: 3 },                           500, &[("Retry-After", b"3")]),
            (Reject::StoreUnavailable(StoreError::Overloaded),                  500, &[("Retry-After", b"5")]),
            (Reject::StoreUnavailable(StoreError::Corrupt { row: "x".into() }), 500, &[]),
            (Reject::UnsupportedUriScheme { scheme: "fax".into() },             416, &[]),
            (Reject::Forbidden { why: Forbidden::PathToken },                   403, &[]),
            (Reject::LoopDetected,                                              482, &[]),
            (Reject::BreadthExceeded,                                           440, &[]),
        ];
        for (reject, status, fields) in table {
            assert_eq!(reject.status().code(), status, "{reject}");
            let found = reject.fields();
            let found: Vec<_> = found.iter().map(|(name, value)| (*name, &value[..])).collect();
            assert_eq!(found, fields, "{reject}");
        }
    }
}
