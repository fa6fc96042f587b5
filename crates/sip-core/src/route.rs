//! Route preprocessing (RFC 3261 §16.4): what of the route was ours, and whom the request is for.

use std::borrow::Cow;

use sip_message::{Message, Method, Uri};

use crate::flow_token::{DialogToken, Side, read_dialog_token, read_path, tag_hash};
use crate::mac::KeyRing;
use crate::names::LocalNames;
use crate::reject::{Forbidden, Reject};

/// A request after its own route values were taken off.
#[derive(Clone, Debug)]
pub struct Routed<'a> {
    /// The Request-URI to work with: strict routers undone, a `maddr` of ours removed.
    pub request_uri: Cow<'a, [u8]>,
    /// The Route values that are left, topmost first.
    pub routes: Vec<RouteLeft<'a>>,
    /// Whether any value was taken off, so that the copy's Route fields must be written anew.
    pub is_route_changed: bool,
    /// The dialog that the consumed token tells of. Only for a request with a To tag and with that
    /// dialog's Call-ID and caller's tag: nobody opens a dialog with a token of another.
    pub dialog: Option<InDialog>,
    /// Whom the request is for.
    pub addressee: Addressee,
}

impl<'a> Routed<'a> {
    /// The topmost Route value that is left.
    pub fn next_route(&self) -> Option<&RouteLeft<'a>> {
        self.routes.first()
    }
}

/// A token of ours was on the route: the request belongs to a dialog that the tier carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDialog {
    pub token: DialogToken,
    /// Who sends this request.
    pub sender: Party,
}

impl InDialog {
    /// The side that the request comes from.
    pub fn sending_side(&self) -> &Side {
        self.side(self.sender)
    }

    /// The side that the request goes to.
    pub fn receiving_side(&self) -> &Side {
        self.side(self.receiver())
    }

    /// The party that the request goes to.
    pub fn receiver(&self) -> Party {
        match self.sender {
            Party::Caller => Party::Callee,
            Party::Callee => Party::Caller,
        }
    }

    fn side(&self, party: Party) -> &Side {
        match party {
            Party::Caller => &self.token.caller,
            Party::Callee => &self.token.callee,
        }
    }
}

/// The two ends of a dialog; the caller sent the request that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    Caller,
    Callee,
}

/// A Route value that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLeft<'a> {
    /// Its URI.
    pub uri: &'a [u8],
    /// The value as it came: a name-addr with its parameters.
    pub text: &'a [u8],
    /// Whether it is a loose router (`lr`).
    pub is_loose: bool,
}

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The tier itself: no user, or a REGISTER for a domain of ours. We answer.
    Tier,
    /// A user of this served domain (lower case).
    User { domain: String },
    /// Somebody elsewhere, whoever a further Route leads to, or a contact inside a dialog.
    Foreign,
}

/// Takes our own values off the route.
///
/// # Errors
///
/// 403 if what comes next is a Path token of the tier; 400 if a Route cannot be read; 416 as
/// [`check_scheme`](crate::validation::check_scheme).
pub fn preprocess<'a>(
    request: &Message<'a>,
    ring: &KeyRing,
    names: &LocalNames,
) -> Result<Routed<'a>, Reject> {
    crate::validation::check_scheme(request)?;
    let mut routes = read_routes(request)?;
    let received = routes.len();

    let (request_uri, token) = undo_strict_routing(request, ring, &mut routes);
    let request_uri = without_our_maddr(request_uri, names);
    let token = pop_our_values(ring, names, &mut routes, token);
    if routes.first().is_some_and(|route| is_path_token(route, ring)) {
        return Err(Reject::Forbidden { why: Forbidden::PathToken });
    }

    let dialog = dialog_of(request, token);
    let addressee = if routes.is_empty() && dialog.is_none() {
        addressee_of(request, &request_uri, names)
    } else {
        Addressee::Foreign
    };
    let is_route_changed = routes.len() != received;
    Ok(Routed { request_uri, routes, is_route_changed, dialog, addressee })
}

fn read_routes<'a>(request: &Message<'a>) -> Result<Vec<RouteLeft<'a>>, Reject> {
    let unreadable = Reject::BadRequest { what: "Route" };
    let mut routes = Vec::new();
    for value in request.routes() {
        let Ok(value) = value else { return Err(unreadable) };
        let Ok(uri) = value.address.uri() else { return Err(unreadable) };
        routes.push(RouteLeft {
            uri: value.address.uri_bytes(),
            text: value.value.text,
            is_loose: uri.param(b"lr").is_some(),
        });
    }
    Ok(routes)
}

/// The user of a Route value, where a token of ours would be.
fn user_of<'a>(route: &RouteLeft<'a>) -> Option<&'a [u8]> {
    Uri::parse(route.uri).ok().and_then(|uri| uri.user())
}

fn is_path_token(route: &RouteLeft<'_>, ring: &KeyRing) -> bool {
    user_of(route).is_some_and(|user| read_path(ring, user).is_some())
}

/// A strict router before us has put our Record-Route into the Request-URI and the Request-URI at
/// the end of the route (RFC 3261 §16.4, first paragraph).
fn undo_strict_routing<'a>(
    request: &Message<'a>,
    ring: &KeyRing,
    routes: &mut Vec<RouteLeft<'a>>,
) -> (Cow<'a, [u8]>, Option<DialogToken>) {
    let received = request.request_uri_bytes();
    let user = request.uri().ok().and_then(|uri| uri.user());
    let token = user.and_then(|user| read_dialog_token(ring, user));
    if token.is_some()
        && let Some(last) = routes.pop()
    {
        return (Cow::Borrowed(last.uri), token);
    }
    (Cow::Borrowed(received), token)
}

/// `maddr` with a host of ours only led the request here: it goes, and with it the port and the
/// transport that it was reached by (RFC 3261 §16.4, second paragraph).
fn without_our_maddr<'a>(request_uri: Cow<'a, [u8]>, names: &LocalNames) -> Cow<'a, [u8]> {
    let Ok(uri) = Uri::parse(&request_uri) else { return request_uri };
    let Some(Some(maddr)) = uri.param(b"maddr") else { return request_uri };
    if !names.is_our_host(maddr) {
        return request_uri;
    }
    let mut kept = Vec::with_capacity(request_uri.len());
    let before_host = request_uri.iter().position(|&octet| octet == b'@').map_or_else(
        || request_uri.iter().position(|&octet| octet == b':').map_or(0, |at| at + 1),
        |at| at + 1,
    );
    kept.extend_from_slice(request_uri.get(..before_host).unwrap_or_default());
    kept.extend_from_slice(uri.host());
    for param in uri.params() {
        let is_spent = [b"maddr".as_slice(), b"transport"]
            .iter()
            .any(|spent| param.name.eq_ignore_ascii_case(spent));
        if !is_spent {
            kept.push(b';');
            kept.extend_from_slice(param.name);
            if let Some(value) = param.value {
                kept.push(b'=');
                kept.extend_from_slice(value);
            }
        }
    }
    if let Some(headers) = uri.headers() {
        kept.push(b'?');
        kept.extend_from_slice(headers);
    }
    Cow::Owned(kept)
}

/// Pops what names the tier from the top: a token with its twin for the other transport, and values
/// without one. A second, different token is of another passage through the tier and stays.
fn pop_our_values(
    ring: &KeyRing,
    names: &LocalNames,
    routes: &mut Vec<RouteLeft<'_>>,
    mut token: Option<DialogToken>,
) -> Option<DialogToken> {
    let mut popped = 0;
    for route in routes.iter() {
        let found = user_of(route).and_then(|user| read_dialog_token(ring, user));
        let is_ours = match &found {
            Some(_) => token.is_none() || token == found,
            None => names_tier(route, ring, names),
        };
        if !is_ours {
            break;
        }
        popped += 1;
        token = token.or(found);
    }
    routes.drain(..popped);
    token
}

/// A value that leads here without a token that holds. A Path token does so too, but is no
/// client's to use: it stays and is refused.
fn names_tier(route: &RouteLeft<'_>, ring: &KeyRing, names: &LocalNames) -> bool {
    let is_tier = Uri::parse(route.uri).is_ok_and(|uri| names.is_tier(&uri));
    is_tier && !is_path_token(route, ring)
}

fn dialog_of(request: &Message<'_>, token: Option<DialogToken>) -> Option<InDialog> {
    let (token, to_tag) = (token?, request.to_tag()?);
    let is_callers = |tag| tag_hash(request.call_id(), tag) == token.caller_tag_hash;
    let sender = if is_callers(request.from_tag().unwrap_or_default()) {
        Party::Caller
    } else if is_callers(to_tag) {
        Party::Callee
    } else {
        // The token of another dialog leads nobody anywhere.
        return None;
    };
    Some(InDialog { token, sender })
}

fn addressee_of(request: &Message<'_>, request_uri: &[u8], names: &LocalNames) -> Addressee {
    let Ok(uri) = Uri::parse(request_uri) else { return Addressee::Foreign };
    let Some(domain) = names.domain_of(&uri) else {
        return if names.is_tier(&uri) { Addressee::Tier } else { Addressee::Foreign };
    };
    let has_user = crate::names::user_of(&uri).is_some();
    // A REGISTER names no user in its Request-URI (RFC 3261 §10.2); one that does means the same.
    if !has_user || request.method() == Some(Method::Register) {
        return Addressee::Tier;
    }
    Addressee::User { domain: domain.to_owned() }
}

#[cfg(test)]
mod tests;
