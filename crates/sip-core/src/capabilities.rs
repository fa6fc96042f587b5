//! What the tier says of itself: the answer to OPTIONS (RFC 3261 §11.2), and what it answers at all.

use sip_message::Method;

use crate::reject::{Fields, Reject};

/// Methods that get through the tier.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, PRACK, UPDATE, INFO, \
                         SUBSCRIBE, NOTIFY, REFER, MESSAGE, PUBLISH";

/// Methods that the tier itself answers.
pub const ALLOW_HERE: &str = "OPTIONS, REGISTER";

/// Extensions of requests to the tier itself (RFC 3327, RFC 5626).
pub const SUPPORTED: &str = "path, outbound";

/// What the tier does with a request that is addressed to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnRequest {
    /// Answer 200 with [`options_fields`].
    Options,
    /// Hand it to the registrar.
    Register,
    /// An ACK for us: nothing answers an ACK.
    Drop,
}

/// What becomes of a request that is for the tier and for no user.
///
/// # Errors
///
/// 405 for every method that needs somebody.
pub fn own_request(method: Method<'_>) -> Result<OwnRequest, Reject> {
    match method {
        Method::Options => Ok(OwnRequest::Options),
        Method::Register => Ok(OwnRequest::Register),
        Method::Ack => Ok(OwnRequest::Drop),
        _ => Err(Reject::MethodNotAllowed),
    }
}

/// The header fields of the 200 to OPTIONS.
pub fn options_fields() -> Fields {
    vec![
        ("Accept", b"application/sdp".to_vec()),
        ("Accept-Encoding", b"identity".to_vec()),
        ("Accept-Language", b"en".to_vec()),
        ("Allow", ALLOW.as_bytes().to_vec()),
        ("Supported", SUPPORTED.as_bytes().to_vec()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_answers_options_and_register_and_nothing_else() {
        let table = [
            (Method::Options, Ok(OwnRequest::Options)),
            (Method::Register, Ok(OwnRequest::Register)),
            (Method::Ack, Ok(OwnRequest::Drop)),
            (Method::Invite, Err(Reject::MethodNotAllowed)),
            (Method::Other(b"FROBNICATE"), Err(Reject::MethodNotAllowed)),
        ];
        for (method, expected) in table {
            assert_eq!(own_request(method), expected, "{method:?}");
        }
    }

    #[test]
    fn options_are_answered_with_what_gets_through() {
        let fields = options_fields();
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        let expected = ["Accept", "Accept-Encoding", "Accept-Language", "Allow", "Supported"];
        assert_eq!(names, expected);
    }
}
