//! Computed branches and the parameters that we put beside them on a Via (RFC 3261 §16.6 step 8).
//!
//! A branch is a MAC over the call and the target, so every proxy would compute the same one; what
//! stands beside it says who wrote the Via, with a MAC of its own. This is a wire format.

use std::net::SocketAddr;

use fleet::{Incarnation, InstanceId, Tier};
use sip_message::{Transport, Via};

use crate::flow_token::{self, Flow};
use crate::mac::{KeyRing, MAC_BYTES, Mac, Purpose, push_hex, read_hex};
use crate::text::{push_address, push_number};

/// How a proxy's branches begin.
pub const PROXY_PREFIX: &[u8] = b"z9hG4bKscp";
/// How a balancer's branches begin.
pub const BALANCER_PREFIX: &[u8] = b"z9hG4bKscb";
/// The Via parameter with a proxy's identity.
pub const PROXY_PARAM: &[u8] = b"sc-p";
/// The Via parameter with the flow that a request came on.
pub const BALANCER_PARAM: &[u8] = b"sc-b";
/// How every parameter of ours begins.
pub const OUR_PARAM_PREFIX: &[u8] = b"sc-";

/// Octets of a branch's MAC: 96 bits, so that branches of different calls never meet.
const BRANCH_MAC_BYTES: usize = 12;

/// Which requests of one CSeq number share a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodClass<'a> {
    /// INVITE, its CANCEL and the ACK to its non-2xx final response.
    Invite,
    /// The ACK to a 2xx.
    AckTo2xx,
    /// Any other method, by name.
    Other(&'a [u8]),
}

impl<'a> MethodClass<'a> {
    const fn octets(self) -> &'a [u8] {
        match self {
            Self::Invite => b"INVITE",
            Self::AckTo2xx => b"ACK",
            Self::Other(name) => name,
        }
    }
}

/// What a proxy's branch is computed from.
#[derive(Clone, Copy, Debug)]
pub struct ProxyBranch<'a> {
    pub call_id: &'a [u8],
    pub from_tag: &'a [u8],
    /// The CSeq number.
    pub cseq: u32,
    pub class: MethodClass<'a>,
    /// As it was received, before any target replaced it.
    pub request_uri: &'a [u8],
    /// The binding id; in a dialog, the side and binding of the token consumed. Never a contact, a
    /// flow or a place in a list: those differ between proxies.
    pub target: &'a [u8],
    /// Which try at this target.
    pub attempt: u16,
}

/// Writes the branch of a request that this proxy forwards, signed with the signing key.
pub fn proxy_branch(ring: &KeyRing, branch: &ProxyBranch<'_>, out: &mut Vec<u8>) {
    let mac = ring.sign(Purpose::ProxyBranch);
    write_proxy_branch(mac, ring.signing_id(), branch, out);
}

/// The same with the key `key_id`: what a proxy that signed with it has written. Writes nothing
/// and returns `false` if that key is not accepted.
pub fn proxy_branch_with(
    ring: &KeyRing,
    key_id: u8,
    branch: &ProxyBranch<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let Some(mac) = ring.with_key(Purpose::ProxyBranch, key_id) else { return false };
    write_proxy_branch(mac, key_id, branch, out);
    true
}

fn write_proxy_branch(mac: Mac, key_id: u8, branch: &ProxyBranch<'_>, out: &mut Vec<u8>) {
    let mac = mac
        .field(branch.call_id)
        .field(branch.from_tag)
        .field(&branch.cseq.to_be_bytes())
        .field(branch.class.octets())
        .field(branch.request_uri)
        .field(branch.target)
        .field(&branch.attempt.to_be_bytes());
    write_branch(PROXY_PREFIX, key_id, mac, out);
}

/// What a balancer's branch is computed from.
#[derive(Clone, Copy, Debug)]
pub struct BalancerBranch<'a> {
    /// The branch of the topmost Via as it came; empty if it has none (RFC 2543).
    pub received_branch: &'a [u8],
    /// The sent-by of that Via, or `None` under an authenticated proxy's Via: proxies speak for
    /// one another, so which of them it was must not matter.
    pub received_sent_by: Option<&'a [u8]>,
    pub call_id: &'a [u8],
    pub from_tag: &'a [u8],
    /// The CSeq number.
    pub cseq: u32,
}

/// Writes the branch of a request that a balancer forwards: the same for a request, its CANCEL and
/// the ACK to its non-2xx final response.
///
/// `key_id` is the key that the proxy's Via names, or `None` under a client's Via. Writes nothing
/// and returns `false` if that key is not accepted.
pub fn balancer_branch(
    ring: &KeyRing,
    key_id: Option<u8>,
    branch: &BalancerBranch<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let key_id = key_id.unwrap_or_else(|| ring.signing_id());
    let Some(mac) = ring.with_key(Purpose::BalancerBranch, key_id) else { return false };
    let mac = mac
        .field(branch.received_branch)
        .field(branch.received_sent_by.unwrap_or_default())
        .field(branch.call_id)
        .field(branch.from_tag)
        .field(&branch.cseq.to_be_bytes());
    write_branch(BALANCER_PREFIX, key_id, mac, out);
    true
}

/// `z9hG4bKsc?` + key id (2 hex digits) + MAC (24 hex digits).
fn write_branch(prefix: &[u8], key_id: u8, mac: Mac, out: &mut Vec<u8>) {
    out.extend_from_slice(prefix);
    push_hex(&[key_id], out);
    let [mac @ .., _, _, _, _] = mac.finish();
    const { assert!(BRANCH_MAC_BYTES == 12, "four of sixteen octets are left out") };
    push_hex(&mac, out);
}

/// The key that signed `branch`, if the branch begins like ours.
fn key_of_branch(prefix: &[u8], branch: &[u8]) -> Option<u8> {
    let (key_id, mac) = branch.strip_prefix(prefix)?.split_at_checked(2)?;
    let [key_id] = read_hex::<1>(key_id)?;
    read_hex::<BRANCH_MAC_BYTES>(mac)?;
    Some(key_id)
}

/// A Via that a proxy writes.
#[derive(Clone, Copy, Debug)]
pub struct ProxyVia<'a> {
    pub transport: Transport,
    pub sent_by: SocketAddr,
    /// From [`proxy_branch`] or [`proxy_branch_with`]; the key it was made with signs the rest.
    pub branch: &'a [u8],
    pub instance: InstanceId,
    pub incarnation: Incarnation,
    /// The request has, or may yet get, other targets; serial forking counts.
    pub several: bool,
}

/// Who wrote a proxy's Via, as its MAC vouches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyIdentity {
    pub instance: InstanceId,
    pub incarnation: Incarnation,
    /// The key of the branch.
    pub key_id: u8,
    /// The request had, or might have got, other targets.
    pub several: bool,
}

/// Writes a whole line, `Via: SIP/2.0/UDP a:p;branch=…;sc-p=…` with its CRLF.
///
/// `sc-p` is `SLOT.INCARNATION.FLAGS.MAC`: a decimal, three hex fields.
pub fn write_proxy_via(ring: &KeyRing, via: &ProxyVia<'_>, out: &mut Vec<u8>) {
    let sent_by = write_via_start(via.transport, via.sent_by, out);
    out.extend_from_slice(via.branch);
    let key_id = key_of_branch(PROXY_PREFIX, via.branch).unwrap_or_else(|| ring.signing_id());
    let identity = ProxyIdentity {
        instance: via.instance,
        incarnation: via.incarnation,
        key_id,
        several: via.several,
    };
    out.push(b';');
    out.extend_from_slice(PROXY_PARAM);
    out.push(b'=');
    push_number(u64::from(via.instance.slot), out);
    out.push(b'.');
    push_hex(&via.incarnation.0.to_be_bytes(), out);
    out.extend_from_slice(if via.several { b".1." } else { b".0." });
    let sent_by = out.get(sent_by).unwrap_or_default();
    // An unaccepted key leaves no MAC: the Via is then a stranger's to everybody, never a lie.
    let mac = proxy_via_mac(ring, &identity, via.branch, sent_by).map(Mac::short);
    push_hex(mac.as_ref().map_or(&[], <[u8; MAC_BYTES]>::as_slice), out);
    out.extend_from_slice(b"\r\n");
}

/// Writes an address as it stands in our Vias.
pub fn write_sent_by(address: SocketAddr, out: &mut Vec<u8>) {
    push_address(address, out);
}

fn proxy_via_mac(
    ring: &KeyRing,
    identity: &ProxyIdentity,
    branch: &[u8],
    sent_by: &[u8],
) -> Option<Mac> {
    let mac = ring.with_key(Purpose::ProxyVia, identity.key_id)?;
    let mac = mac
        .field(branch)
        .field(sent_by)
        .field(&identity.instance.slot.to_be_bytes())
        .field(&identity.incarnation.0.to_be_bytes())
        .field(&[u8::from(identity.several)]);
    Some(mac)
}

/// A Via that a balancer writes.
#[derive(Clone, Copy, Debug)]
pub struct BalancerVia<'a> {
    pub transport: Transport,
    pub sent_by: SocketAddr,
    /// The key that the proxy's Via below names, or `None` over a client's Via.
    pub key_id: Option<u8>,
    pub branch: BalancerBranch<'a>,
    /// Where the request came from.
    pub flow: &'a Flow,
    /// The sent-by is a dead balancer's, for which another one stands in: `rport` asks for the answer
    /// to come to where the request came from (RFC 3581).
    pub answered_to_source: bool,
}

/// Writes a whole line, `Via: SIP/2.0/UDP a:p;branch=…;sc-b=…` with its CRLF.
///
/// `sc-b` is base64url of the flow and a MAC over branch, sent-by and flow. Without an accepted
/// key there is neither branch nor parameter, and no answer will find its way.
pub fn write_balancer_via(ring: &KeyRing, via: &BalancerVia<'_>, out: &mut Vec<u8>) {
    let key_id = via.key_id.unwrap_or_else(|| ring.signing_id());
    let sent_by = write_via_start(via.transport, via.sent_by, out);
    let branch_start = out.len();
    balancer_branch(ring, Some(key_id), &via.branch, out);
    let mut payload = flow_token::Packed::of_flow(via.flow);
    let branch = out.get(branch_start..).unwrap_or_default();
    let sent_by = out.get(sent_by).unwrap_or_default();
    if let Some(mac) = balancer_via_mac(ring, key_id, branch, sent_by, payload.octets()) {
        payload.push(&mac.short());
    }
    out.push(b';');
    out.extend_from_slice(BALANCER_PARAM);
    out.push(b'=');
    flow_token::push_base64(payload.octets(), out);
    if via.answered_to_source {
        out.extend_from_slice(b";rport");
    }
    out.extend_from_slice(b"\r\n");
}

fn balancer_via_mac(
    ring: &KeyRing,
    key_id: u8,
    branch: &[u8],
    sent_by: &[u8],
    flow: &[u8],
) -> Option<Mac> {
    let mac = ring.with_key(Purpose::BalancerVia, key_id)?;
    Some(mac.field(branch).field(sent_by).field(flow))
}

/// Writes up to the branch; returns where in `out` the sent-by lies.
fn write_via_start(
    transport: Transport,
    sent_by: SocketAddr,
    out: &mut Vec<u8>,
) -> std::ops::Range<usize> {
    out.extend_from_slice(b"Via: SIP/2.0/");
    out.extend_from_slice(transport.as_str().as_bytes());
    out.push(b' ');
    let start = out.len();
    write_sent_by(sent_by, out);
    let end = out.len();
    out.extend_from_slice(b";branch=");
    start..end
}

/// Who wrote a Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierVia {
    /// A proxy of this fleet.
    Proxy(ProxyIdentity),
    /// A balancer of this fleet, for a request that came on `flow`.
    Balancer {
        /// Where the request came from.
        flow: Flow,
    },
    /// Somebody else; also whoever changed a Via of ours.
    Foreign,
}

/// Tells a Via of this fleet from a stranger's, by its MAC alone.
///
/// # Cost
///
/// Nothing but a comparison unless the branch begins like ours; then one MAC. No allocation.
pub fn read_tier_via(ring: &KeyRing, via: &Via<'_>) -> TierVia {
    let Some(branch) = via.branch() else { return TierVia::Foreign };
    let found = if branch.starts_with(PROXY_PREFIX) {
        read_proxy_via(ring, via, branch).map(TierVia::Proxy)
    } else if branch.starts_with(BALANCER_PREFIX) {
        read_balancer_via(ring, via, branch).map(|flow| TierVia::Balancer { flow })
    } else {
        None
    };
    found.unwrap_or(TierVia::Foreign)
}

fn read_proxy_via(ring: &KeyRing, via: &Via<'_>, branch: &[u8]) -> Option<ProxyIdentity> {
    let key_id = key_of_branch(PROXY_PREFIX, branch)?;
    let value = via.param(PROXY_PARAM)??;
    let mut parts = value.split(|&octet| octet == b'.');
    let slot = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let incarnation = u32::from_be_bytes(read_hex(parts.next()?)?);
    let several = match parts.next()? {
        b"0" => false,
        b"1" => true,
        _ => return None,
    };
    let claimed: [u8; MAC_BYTES] = read_hex(parts.next()?)?;
    if parts.next().is_some() {
        return None;
    }
    let instance = InstanceId { tier: Tier::Proxy, slot };
    let incarnation = Incarnation(incarnation);
    let identity = ProxyIdentity { instance, incarnation, key_id, several };
    let holds = proxy_via_mac(ring, &identity, branch, via.sent_by())?.holds(&claimed);
    holds.then_some(identity)
}

fn read_balancer_via(ring: &KeyRing, via: &Via<'_>, branch: &[u8]) -> Option<Flow> {
    let key_id = key_of_branch(BALANCER_PREFIX, branch)?;
    let packed = flow_token::Packed::decode(via.param(BALANCER_PARAM)??)?;
    let (flow, claimed) = packed.octets().split_last_chunk::<MAC_BYTES>()?;
    let mac = balancer_via_mac(ring, key_id, branch, via.sent_by(), flow)?;
    mac.holds(claimed).then(|| Flow::read_all(flow)).flatten()
}

#[cfg(test)]
mod tests;
