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
    token_text: Option<&'a [u8]>,
}

impl<'a> Routed<'a> {
    /// The topmost Route value that is left.
    pub fn next_route(&self) -> Option<&RouteLeft<'a>> {
        self.routes.first()
    }

    /// The token of the dialog, for [`preprocess_again`].
    pub fn known_token(&self) -> Option<KnownToken> {
        let (dialog, text) = (self.dialog.as_ref()?, self.token_text?);
        Some(KnownToken { text: text.into(), token: dialog.token.clone() })
    }
}

/// A token that was found good, and the text that it was read from.
#[derive(Clone, Debug)]
pub struct KnownToken {
    text: Box<[u8]>,
    token: DialogToken,
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
#[derive(Clone, Copy, Debug)]
pub struct RouteLeft<'a> {
    /// Its URI.
    pub uri: Uri<'a>,
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
    preprocess_again(request, ring, names, None)
}

/// The same for a request whose token is known already: it is not deciphered once more.
///
/// # Errors
///
/// As [`preprocess`].
pub fn preprocess_again<'a>(
    request: &Message<'a>,
    ring: &KeyRing,
    names: &LocalNames,
    known: Option<&KnownToken>,
) -> Result<Routed<'a>, Reject> {
    let uri = crate::validation::check_scheme(request)?;
    let mut routes = read_routes(request)?;
    let received = routes.len();

    let mut tokens = Tokens { ring, known, last: None };
    let (uri, token) = undo_strict_routing(uri, &mut tokens, &mut routes);
    let request_uri = without_our_maddr(uri, names);
    let token = pop_our_values(&mut tokens, names, &mut routes, token);
    if routes.first().is_some_and(|route| is_path_token(route, ring)) {
        return Err(Reject::Forbidden { why: Forbidden::PathToken });
    }

    let dialog = dialog_of(request, token);
    let addressee = if routes.is_empty() && dialog.is_none() {
        match &request_uri {
            Cow::Borrowed(_) => addressee_of(request, &uri, names),
            Cow::Owned(kept) => Uri::parse(kept)
                .map_or(Addressee::Foreign, |kept| addressee_of(request, &kept, names)),
        }
    } else {
        Addressee::Foreign
    };
    let is_route_changed = routes.len() != received;
    // Another passage's token may have been read after it.
    let is_the_dialogs = |token: &DialogToken| dialog.as_ref().is_some_and(|it| it.token == *token);
    let token_text =
        tokens.last.as_ref().filter(|(_, token)| is_the_dialogs(token)).map(|(text, _)| *text);
    Ok(Routed { request_uri, routes, is_route_changed, dialog, addressee, token_text })
}

/// Deciphers tokens, each text once: it costs more than all the rest of a route.
struct Tokens<'a, 'r> {
    ring: &'r KeyRing,
    known: Option<&'r KnownToken>,
    last: Option<(&'a [u8], DialogToken)>,
}

impl<'a> Tokens<'a, '_> {
    fn read(&mut self, text: &'a [u8]) -> Option<DialogToken> {
        if let Some((_, token)) = self.last.as_ref().filter(|(last, _)| *last == text) {
            return Some(token.clone());
        }
        let known = self.known.filter(|known| *known.text == *text);
        let token = match known {
            Some(known) => known.token.clone(),
            None => read_dialog_token(self.ring, text)?,
        };
        self.last = Some((text, token.clone()));
        Some(token)
    }
}

fn read_routes<'a>(request: &Message<'a>) -> Result<Vec<RouteLeft<'a>>, Reject> {
    let unreadable = Reject::BadRequest { what: "Route" };
    let mut routes = Vec::new();
    for value in request.routes() {
        let Ok(value) = value else { return Err(unreadable) };
        let Ok(uri) = value.address.uri() else { return Err(unreadable) };
        routes.push(RouteLeft {
            uri,
            text: value.value.text,
            is_loose: uri.param(b"lr").is_some(),
        });
    }
    Ok(routes)
}

fn is_path_token(route: &RouteLeft<'_>, ring: &KeyRing) -> bool {
    route.uri.user().is_some_and(|user| read_path(ring, user).is_some())
}

/// A strict router before us has put our Record-Route into the Request-URI and the Request-URI at
/// the end of the route (RFC 3261 §16.4, first paragraph).
fn undo_strict_routing<'a>(
    received: Uri<'a>,
    tokens: &mut Tokens<'a, '_>,
    routes: &mut Vec<RouteLeft<'a>>,
) -> (Uri<'a>, Option<DialogToken>) {
    let token = received.user().and_then(|user| tokens.read(user));
    if token.is_some()
        && let Some(last) = routes.pop()
    {
        return (last.uri, token);
    }
    (received, token)
}

/// `maddr` with a host of ours only led the request here: it goes, and with it the port and the
/// transport that it was reached by (RFC 3261 §16.4, second paragraph).
fn without_our_maddr<'a>(uri: Uri<'a>, names: &LocalNames) -> Cow<'a, [u8]> {
    let request_uri = uri.bytes();
    let Some(Some(maddr)) = uri.param(b"maddr") else { return Cow::Borrowed(request_uri) };
    if !names.is_our_host(maddr) {
        return Cow::Borrowed(request_uri);
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
fn pop_our_values<'a>(
    tokens: &mut Tokens<'a, '_>,
    names: &LocalNames,
    routes: &mut Vec<RouteLeft<'a>>,
    mut token: Option<DialogToken>,
) -> Option<DialogToken> {
    let mut popped = 0;
    for route in routes.iter() {
        let found = route.uri.user().and_then(|user| tokens.read(user));
        let is_ours = match &found {
            Some(_) => token.is_none() || token == found,
            None => names_tier(route, tokens.ring, names),
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
    names.is_tier(&route.uri) && !is_path_token(route, ring)
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

fn addressee_of(request: &Message<'_>, uri: &Uri<'_>, names: &LocalNames) -> Addressee {
    let Some(domain) = names.domain_of(uri) else {
        return if names.is_tier(uri) { Addressee::Tier } else { Addressee::Foreign };
    };
    let has_user = crate::names::user_of(uri).is_some();
    // A REGISTER names no user in its Request-URI (RFC 3261 §10.2); one that does means the same.
    if !has_user || request.method() == Some(Method::Register) {
        return Addressee::Tier;
    }
    Addressee::User { domain: domain.to_owned() }
}

#[cfg(test)]
mod tests;
