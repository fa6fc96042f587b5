//! Target sets (RFC 3261 §16.5): where a request may go, in which order, how broadly (RFC 5393).

use sip_message::{Message, Uri};
use store::{Aor, Binding, BindingId, UnixMillis};

use crate::flow_token::Reach;
use crate::registrar::binding_id_of_contact;
use crate::reject::Reject;
use crate::route::{InDialog, Party, Routed};

/// How many parallel branches a request may have that does not say (RFC 5393 §5.3.2).
pub const MAX_BREADTH_DEFAULT: u32 = 60;

/// One place that a request may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Request-URI of the copy.
    pub request_uri: Vec<u8>,
    /// Route values to push, topmost first, as name-addr texts: the binding's Path, or the one
    /// minted from a dialog's token.
    pub routes: Vec<Vec<u8>>,
    /// What the target is in the branch's MAC (protocol rule 5).
    pub identity: TargetIdentity,
    /// Whose phone it is.
    pub aor: Option<Aor>,
    pub reach: TargetReach,
    /// Which try at the same target.
    pub attempt: u16,
    /// Serial order: a lower group first; equal groups are tried at once.
    pub group: u16,
    /// Targets of equal slot are flows of one phone: the next only when the one before has failed
    /// (protocol rule 16). A slot belongs to one group.
    pub slot: u16,
    /// Whether the side's present binding may take its place when its flow is gone (rule 14).
    pub is_refreshable: bool,
    /// This branch's share of the breadth (RFC 5393 §5.3.3).
    pub max_breadth: u32,
}

/// Which way a target is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetReach {
    /// Through the balancer that `routes` names first.
    Flow,
    /// From the proxy itself, by RFC 3263.
    Direct,
}

/// What tells targets of one request apart, the same for whichever proxy computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetIdentity {
    Binding(BindingId),
    /// In a dialog: the side that the request goes to, and its binding.
    Dialog {
        to: Party,
        binding: Option<BindingId>,
    },
    /// The only target of a request that goes where its Request-URI or Route says.
    RequestUri,
}

impl TargetIdentity {
    /// Writes the octets that stand for the target in the branch's MAC: a letter for the kind, in a
    /// dialog a digit for the side, then the binding id if there is one.
    pub fn write(&self, out: &mut Vec<u8>) {
        let binding = match self {
            Self::Binding(id) => {
                out.push(b'B');
                Some(id)
            }
            Self::Dialog { to, binding } => {
                out.push(b'D');
                out.push(match to {
                    Party::Caller => b'0',
                    Party::Callee => b'1',
                });
                binding.as_ref()
            }
            Self::RequestUri => {
                out.push(b'U');
                None
            }
        };
        if let Some(BindingId(id)) = binding {
            out.extend_from_slice(id);
        }
    }
}

impl Target {
    /// The URI that RFC 3263 starts from: the first pushed Route, else the first one left on the
    /// request, else the Request-URI.
    pub fn next_hop<'t>(&'t self, routed: &'t Routed<'_>) -> &'t [u8] {
        let pushed = self.routes.first().map(|text| uri_of(text));
        let left = || routed.next_route().map(|route| route.uri.bytes());
        pushed.or_else(left).unwrap_or(&self.request_uri)
    }

    fn alone(request_uri: Vec<u8>, identity: TargetIdentity, max_breadth: u32) -> Self {
        Self {
            request_uri,
            routes: Vec::new(),
            identity,
            aor: None,
            reach: TargetReach::Direct,
            attempt: 0,
            group: 0,
            slot: 0,
            is_refreshable: false,
            max_breadth,
        }
    }
}

/// The URI inside a name-addr text; the text itself if it has no brackets.
pub fn uri_of(name_addr: &[u8]) -> &[u8] {
    let start = name_addr.iter().position(|&octet| octet == b'<');
    let end = name_addr.iter().rposition(|&octet| octet == b'>');
    match (start, end) {
        (Some(start), Some(end)) => name_addr.get(start + 1..end).unwrap_or(name_addr),
        _ => name_addr,
    }
}

/// Where a request goes. Never empty; branch `i` of the response context is `targets[i]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSet {
    pub targets: Vec<Target>,
}

impl TargetSet {
    /// Whether the request has or may yet get other targets: the flag beside the branch
    /// (protocol rule 6). The present binding that may take the place of a dialog's lost flow is the
    /// same phone, and takes it only after a 430, which is never the last word.
    pub fn has_several(&self) -> bool {
        self.targets.len() > 1
    }
}

/// The live bindings of an address-of-record: falling q, equal q at once, one phone's flows one
/// after the other with the newest first.
///
/// # Errors
///
/// 480 without a live binding, 440 if the request may have no branch at all.
pub fn of_bindings(
    request: &Message<'_>,
    aor: &Aor,
    bindings: &[Binding],
    now: UnixMillis,
) -> Result<TargetSet, Reject> {
    let breadth = breadth(request)?;
    let mut live: Vec<&Binding> = bindings.iter().filter(|it| it.is_live(now)).collect();
    if live.is_empty() {
        return Err(Reject::NotRegistered { aor: aor.clone() });
    }
    live.sort_by(|one, other| one.preference(other));
    let phones = phones(&live);

    let mut targets = Vec::with_capacity(live.len());
    let mut group = 0;
    let mut slot = 0;
    for equal in phones.chunk_by(|one, other| q_of(one) == q_of(other)) {
        // More phones than the breadth allows ring one part after the other.
        let parallel = usize::try_from(breadth).unwrap_or(usize::MAX);
        for part in equal.chunks(parallel) {
            let shares = shares(breadth, part.len());
            for (phone, share) in part.iter().zip(shares) {
                let place = Place { group, slot, max_breadth: share };
                targets.extend(phone.iter().map(|binding| of_binding(aor, binding, place)));
                slot += 1;
            }
            group += 1;
        }
    }
    Ok(TargetSet { targets })
}

/// The flows of each phone, its newest first; phones in the order of their best flow.
fn phones<'b>(live: &[&'b Binding]) -> Vec<Vec<&'b Binding>> {
    let mut phones: Vec<Vec<&Binding>> = Vec::with_capacity(live.len());
    for binding in live {
        let instance = binding.instance.as_ref();
        let same = phones.iter_mut().find(|phone| {
            instance.is_some() && phone.first().and_then(|it| it.instance.as_ref()) == instance
        });
        match same {
            Some(phone) => phone.push(binding),
            None => phones.push(vec![binding]),
        }
    }
    for phone in &mut phones {
        phone.sort_by_key(|binding| std::cmp::Reverse((binding.updated_at, binding.id)));
    }
    phones.sort_by_key(|phone| std::cmp::Reverse(q_of(phone)));
    phones
}

fn q_of(phone: &[&Binding]) -> u16 {
    phone.first().map_or(0, |binding| binding.q)
}

#[derive(Clone, Copy)]
struct Place {
    group: u16,
    slot: u16,
    max_breadth: u32,
}

fn of_binding(aor: &Aor, binding: &Binding, place: Place) -> Target {
    let is_direct = binding.direct || binding.path.is_empty();
    Target {
        request_uri: without_headers(&binding.contact).to_vec(),
        routes: binding.path.clone(),
        identity: TargetIdentity::Binding(binding.id),
        aor: Some(aor.clone()),
        reach: if is_direct { TargetReach::Direct } else { TargetReach::Flow },
        attempt: 0,
        group: place.group,
        slot: place.slot,
        is_refreshable: false,
        max_breadth: place.max_breadth,
    }
}

/// Header parts of a URI have no place in a Request-URI (RFC 3261 §19.1.1, table 1).
fn without_headers(uri: &[u8]) -> &[u8] {
    let headers = Uri::parse(uri).ok().and_then(|parsed| parsed.headers().map(<[u8]>::len));
    let end = headers.and_then(|length| uri.len().checked_sub(length + 1));
    end.and_then(|end| uri.get(..end)).unwrap_or(uri)
}

/// A foreign Request-URI, or a Route that is not ours: one target, by RFC 3263.
///
/// # Errors
///
/// 440 if the request may have no branch at all.
pub fn of_request_uri(request: &Message<'_>, routed: &Routed<'_>) -> Result<TargetSet, Reject> {
    let uri = without_headers(&routed.request_uri).to_vec();
    let target = Target::alone(uri, TargetIdentity::RequestUri, breadth(request)?);
    Ok(TargetSet { targets: vec![target] })
}

/// The other side of a dialog. `path` is the Path value minted for that side's flow
/// ([`write_path`](crate::flow_token::write_path)); with a further Route on the request, or for a
/// side that is reached directly, it is not used.
///
/// # Errors
///
/// 440 if the request may have no branch at all.
pub fn of_dialog(
    request: &Message<'_>,
    routed: &Routed<'_>,
    dialog: &InDialog,
    path: Option<Vec<u8>>,
) -> Result<TargetSet, Reject> {
    let side = dialog.receiving_side();
    let identity = TargetIdentity::Dialog { to: dialog.receiver(), binding: side.binding };
    let uri = without_headers(&routed.request_uri).to_vec();
    let mut target = Target::alone(uri, identity, breadth(request)?);
    let has_further_route = routed.next_route().is_some();
    target.aor.clone_from(&side.aor);
    if let (Reach::Flow { .. }, false) = (side.reach, has_further_route) {
        target.is_refreshable = side.aor.is_some() && side.binding.is_some();
        target.routes.extend(path);
        target.reach = TargetReach::Flow;
    }
    Ok(TargetSet { targets: vec![target] })
}

/// After the flow of a dialog's side has turned out to be gone: the way to its present binding
/// (protocol rule 14), or `None` if that is no other.
pub fn refreshed(gone: &Target, bindings: &[Binding], now: UnixMillis) -> Option<Target> {
    if !matches!(gone.identity, TargetIdentity::Dialog { .. }) {
        return None;
    }
    let present = present_binding(gone, bindings, now)?;
    if present.path.is_empty() || present.path == gone.routes {
        return None;
    }
    // The Request-URI stays the dialog's remote target: that is a contract between the phones.
    Some(Target {
        routes: present.path.clone(),
        attempt: gone.attempt.saturating_add(1),
        is_refreshable: false,
        ..gone.clone()
    })
}

/// What the phone of a target is registered as now.
pub fn present_binding<'a>(
    target: &Target,
    bindings: &'a [Binding],
    now: UnixMillis,
) -> Option<&'a Binding> {
    let id = match target.identity {
        TargetIdentity::Binding(id) | TargetIdentity::Dialog { binding: Some(id), .. } => id,
        TargetIdentity::Dialog { binding: None, .. } | TargetIdentity::RequestUri => return None,
    };
    // A caller's binding is known by its Contact alone, which says less than its REGISTER did.
    let is_it = |it: &&Binding| {
        it.id == id || binding_id_of_contact(&it.contact).is_ok_and(|other| other == id)
    };
    bindings.iter().filter(|it| it.is_live(now)).find(is_it)
}

/// The breadth that a request may still have.
fn breadth(request: &Message<'_>) -> Result<u32, Reject> {
    let Some(field) = request.named(b"Max-Breadth").next() else {
        return Ok(MAX_BREADTH_DEFAULT);
    };
    let digits = std::str::from_utf8(field.value).ok();
    let breadth = digits.and_then(|digits| digits.parse::<u32>().ok());
    match breadth {
        Some(0) => Err(Reject::BreadthExceeded),
        Some(breadth) => Ok(breadth),
        None => Err(Reject::BadRequest { what: "Max-Breadth" }),
    }
}

/// Divides `breadth` among `branches` as evenly as it goes; the sum is `breadth`.
fn shares(breadth: u32, branches: usize) -> impl Iterator<Item = u32> {
    let branches = u32::try_from(branches).unwrap_or(u32::MAX).max(1);
    let (each, more) = (breadth / branches, breadth % branches);
    (0..branches).map(move |place| each + u32::from(place < more))
}

#[cfg(test)]
mod tests;
