//! Whether a request may be handled at all (RFC 3261 §16.3).

use sip_message::{HeaderName, Message, Method, Scheme, Uri};

use crate::reject::Reject;
use crate::route::Addressee;

/// Option tags that the tier understands, as a proxy and as a registrar.
pub const OPTION_TAGS: [&[u8]; 2] = [b"path", b"outbound"];

/// Scheme (416), Max-Forwards (483), Proxy-Require (420); for requests to ourselves Require (420).
///
/// A request that we answer ourselves is not forwarded, so its Max-Forwards is not asked: that is
/// how OPTIONS with 0 finds out who stands here (RFC 3261 §11).
///
/// # Errors
///
/// As above, in this order.
pub fn validate(request: &Message<'_>, addressee: &Addressee) -> Result<(), Reject> {
    check_scheme(request)?;
    let is_for_us = *addressee == Addressee::Tier;
    let is_last_hop = request.max_forwards().is_some_and(|it| it.forwarded().is_none());
    if is_last_hop && !is_for_us {
        return Err(Reject::TooManyHops);
    }
    // An ACK is never answered and a CANCEL never carries these (RFC 3261 §8.2.2.3).
    if matches!(request.method(), Some(Method::Ack | Method::Cancel)) {
        return Ok(());
    }
    check_options(request, HeaderName::PROXY_REQUIRE)?;
    if is_for_us { check_options(request, HeaderName::REQUIRE) } else { Ok(()) }
}

/// The Request-URI, if its scheme is one that we route: before route preprocessing, which must
/// understand it.
///
/// # Errors
///
/// 416 for a scheme that we cannot route, 400 if a SIP URI cannot be read.
pub fn check_scheme<'a>(request: &Message<'a>) -> Result<Uri<'a>, Reject> {
    let Ok(uri) = request.uri() else {
        return Err(Reject::BadRequest { what: "Request-URI" });
    };
    match uri.scheme() {
        Scheme::Sip | Scheme::Sips | Scheme::Tel => Ok(uri),
        Scheme::Other(scheme) => {
            let scheme = String::from_utf8_lossy(scheme).into_owned();
            Err(Reject::UnsupportedUriScheme { scheme })
        }
    }
}

fn check_options(request: &Message<'_>, name: HeaderName) -> Result<(), Reject> {
    let is_unknown = |tag: &&[u8]| !OPTION_TAGS.iter().any(|it| it.eq_ignore_ascii_case(tag));
    let unknown = request.option_tags(name).filter(is_unknown);
    let options: Vec<String> =
        unknown.map(|tag| String::from_utf8_lossy(tag).into_owned()).collect();
    if options.is_empty() { Ok(()) } else { Err(Reject::BadExtension { options }) }
}

/// Whether a Via of the request already holds `branch`, the one that we would now write: the
/// request has been exactly here, for the same target (protocol rule 10). A spiral has another
/// Request-URI or target and thus another branch. Answer [`Reject::LoopDetected`].
pub fn is_loop(request: &Message<'_>, branch: &[u8]) -> bool {
    request.vias().flatten().any(|via| via.branch() == Some(branch))
}

#[cfg(test)]
mod tests;
