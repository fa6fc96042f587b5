//! The copy that leaves (RFC 3261 §16.6), and the response on its way back (§16.7 steps 3 and 7).

use std::borrow::Cow;

use sip_message::{AuthParams, Edits, Field, HeaderName, Message, Method, StatusCode, Uri};

use crate::names::LocalNames;
use crate::route::Routed;
use crate::stateless::PRIVATE_PREFIX;
use crate::target::{Target, uri_of};
use crate::text::push_number;

/// What a proxy writes when the header field is missing (RFC 3261 §16.6 step 3).
const MAX_FORWARDS_DEFAULT: u8 = 70;

/// What the proxy adds to one copy.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    pub routed: &'a Routed<'a>,
    pub target: &'a Target,
    /// Our Record-Route values, topmost first, as name-addr texts: none, one or two.
    pub record_routes: &'a [&'a [u8]],
    /// Our whole Via line with its CRLF.
    pub via: &'a [u8],
    pub names: &'a LocalNames,
}

/// Writes one forwarded copy. Both `edits` and `out` are emptied first.
///
/// Whatever is not named here leaves as it came, the balancer's Via among it.
pub fn write(request: &Message<'_>, forward: &Forward<'_>, edits: &mut Edits, out: &mut Vec<u8>) {
    edits.clear();
    out.clear();
    let Forward { routed, target, .. } = *forward;
    let route = NewRoute::of(routed, target);

    replace_request_uri(request, route.request_uri, edits);
    edits.insert_with(request.headers_start(), |text| {
        text.extend_from_slice(forward.via);
        for value in forward.record_routes {
            write_field(b"Record-Route: ", value, text);
        }
        for value in &route.values {
            write_field(b"Route: ", value, text);
        }
    });
    if route.is_rewritten {
        request.all(HeaderName::ROUTE).for_each(|field| edits.remove(field.line));
    }
    count_hop(request, edits);
    write_breadth(request, target.max_breadth, edits);
    remove_private(request, edits);
    remove_our_credentials(request, forward.names, edits);
    edits.apply(request.bytes(), out);
}

/// The route of the copy: what the target adds, then what is left of the request's.
struct NewRoute<'a> {
    request_uri: &'a [u8],
    /// Values to write above the fields that came.
    values: Vec<Cow<'a, [u8]>>,
    /// Whether the Route fields that came are replaced by `values`.
    is_rewritten: bool,
}

impl<'a> NewRoute<'a> {
    fn of(routed: &'a Routed<'a>, target: &'a Target) -> Self {
        let pushed = || target.routes.iter().map(|text| Cow::Borrowed(text.as_slice()));
        let left = || routed.routes.iter().map(|route| Cow::Borrowed(route.text));
        let request_uri = target.request_uri.as_slice();
        if is_next_strict(routed, target) {
            // RFC 3261 §16.6 step 6: the strict router's URI becomes the Request-URI, and the
            // Request-URI the last value of the route.
            let request_uri = target.next_hop(routed);
            let last = [b"<", target.request_uri.as_slice(), b">"].concat();
            let rest = pushed().chain(left()).skip(1);
            let values = rest.chain(std::iter::once(Cow::Owned(last))).collect();
            return Self { request_uri, values, is_rewritten: true };
        }
        if routed.is_route_changed {
            let values = pushed().chain(left()).collect();
            return Self { request_uri, values, is_rewritten: true };
        }
        Self { request_uri, values: pushed().collect(), is_rewritten: false }
    }
}

/// Whether the first value of the copy's route names a strict router.
fn is_next_strict(routed: &Routed<'_>, target: &Target) -> bool {
    let is_strict = |uri: Uri<'_>| uri.param(b"lr").is_none();
    target.routes.first().map_or_else(
        || routed.next_route().is_some_and(|route| !route.is_loose),
        |first| Uri::parse(uri_of(first)).is_ok_and(is_strict),
    )
}

fn replace_request_uri(request: &Message<'_>, uri: &[u8], edits: &mut Edits) {
    if let Some(span) = request.request_uri().filter(|_| request.request_uri_bytes() != uri) {
        edits.replace(span, uri);
    }
}

fn write_field(name: &[u8], value: &[u8], text: &mut Vec<u8>) {
    text.extend_from_slice(name);
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

fn count_hop(request: &Message<'_>, edits: &mut Edits) {
    match request.field(HeaderName::MAX_FORWARDS) {
        Some(field) => {
            let hops = request.max_forwards().map_or(MAX_FORWARDS_DEFAULT, |it| it.hops());
            let left = u64::from(hops.saturating_sub(1));
            edits.replace_with(field.value_span, |text| push_number(left, text));
        }
        None => insert_number(request, b"Max-Forwards: ", MAX_FORWARDS_DEFAULT.into(), edits),
    }
}

/// RFC 5393 §5.3.3: every copy says how broadly it may still fork. An ACK does not fork.
fn write_breadth(request: &Message<'_>, breadth: u32, edits: &mut Edits) {
    if request.method() == Some(Method::Ack) {
        return;
    }
    let breadth = u64::from(breadth);
    match request.named(b"Max-Breadth").next() {
        Some(field) => edits.replace_with(field.value_span, |text| push_number(breadth, text)),
        None => insert_number(request, b"Max-Breadth: ", breadth, edits),
    }
}

fn insert_number(request: &Message<'_>, name: &[u8], number: u64, edits: &mut Edits) {
    edits.insert_with(request.headers_end(), |text| {
        text.extend_from_slice(name);
        push_number(number, text);
        text.extend_from_slice(b"\r\n");
    });
}

fn is_private(field: &Field<'_>) -> bool {
    let start = field.raw_name.get(..PRIVATE_PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(PRIVATE_PREFIX))
}

fn remove_private(message: &Message<'_>, edits: &mut Edits) {
    let unknown = message.all(HeaderName::OTHER);
    unknown.filter(is_private).for_each(|field| edits.remove(field.line));
}

/// Credentials for a realm of ours have done their work here and would only travel (RFC 3261
/// §22.3); those for other realms go on.
fn remove_our_credentials(request: &Message<'_>, names: &LocalNames, edits: &mut Edits) {
    for field in request.all(HeaderName::PROXY_AUTHORIZATION) {
        let realm = AuthParams::parse(field.value).and_then(|auth| auth.get(b"realm"));
        if realm.is_some_and(|realm| names.domain(&realm).is_some()) {
            edits.remove(field.line);
        }
    }
}

/// Writes the response without our Via, which is the topmost, and without private fields.
/// Both `edits` and `out` are emptied first.
pub fn write_response(response: &Message<'_>, edits: &mut Edits, out: &mut Vec<u8>) {
    write_response_with_challenges(response, &[], edits, out);
}

/// The same with another status, if one is given.
pub fn write_response_as(
    response: &Message<'_>,
    status: Option<StatusCode>,
    edits: &mut Edits,
    out: &mut Vec<u8>,
) {
    let mut plain = Vec::with_capacity(response.bytes().len());
    write_response(response, edits, &mut plain);
    out.clear();
    let start = usize::try_from(response.headers_start()).unwrap_or_default();
    match status.zip(plain.get(start..)) {
        Some((status, rest)) => {
            let line = format!("SIP/2.0 {status} {}\r\n", status.reason());
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(rest);
        }
        None => *out = plain,
    }
}

/// The same, with the challenges of the other branches' 401 and 407 (RFC 3261 §16.7 step 7).
pub fn write_response_with_challenges(
    response: &Message<'_>,
    others: &[Message<'_>],
    edits: &mut Edits,
    out: &mut Vec<u8>,
) {
    edits.clear();
    out.clear();
    if let Some(via) = response.values(HeaderName::VIA).next() {
        edits.remove(via.removal_span());
    }
    remove_private(response, edits);
    let names = [HeaderName::WWW_AUTHENTICATE, HeaderName::PROXY_AUTHENTICATE];
    for other in others {
        for name in names {
            for field in other.all(name) {
                edits.insert_with(response.headers_end(), |text| {
                    text.extend_from_slice(name.as_str().as_bytes());
                    text.extend_from_slice(b": ");
                    text.extend_from_slice(field.value);
                    text.extend_from_slice(b"\r\n");
                });
            }
        }
    }
    edits.apply(response.bytes(), out);
}

/// Whether a request of this method may open a dialog, so that the tier must stay on its route.
pub fn opens_dialog(method: Method<'_>) -> bool {
    matches!(method.as_bytes(), b"INVITE" | b"SUBSCRIBE" | b"REFER" | b"NOTIFY")
}

#[cfg(test)]
mod tests;
