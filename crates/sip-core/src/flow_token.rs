//! Flows, and the tokens that carry them through strangers: in Path (RFC 3327, RFC 5626 §5.1), in
//! Record-Route, and the To tag of a stateless answer. These are wire formats.

use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleet::{Incarnation, InstanceId};
use sip_message::Transport;
use siphasher::sip::SipHasher13;
use store::{Aor, BindingId};

use crate::mac::{KeyRing, MAC_BYTES, Mac, Purpose, push_hex, read_hex};
use crate::text::push_address;

/// What a flow runs over.
pub type FlowTransport = Transport;

/// The way between a balancer and a client: from where on our side to where on theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Which of the balancer's listeners.
    pub listener: u8,
    pub transport: FlowTransport,
    /// The client's address as the packet came from it.
    pub remote: SocketAddr,
    /// For streams: which connection, so that a reused address is not mistaken for it.
    pub connection: Option<StreamId>,
}

/// One stream connection of one balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub number: u32,
    /// Tells apart connections that had the same number, before a restart for instance.
    pub incarnation: u32,
}

impl StreamId {
    /// The incarnation of the connections of `balancer`, which began at `began`: never the same at two
    /// balancers that began in the same second.
    pub fn incarnation_of(balancer: InstanceId, began: Incarnation) -> u32 {
        // An odd factor keeps slots apart; 2³² divided by the golden ratio spreads them best.
        began.0.wrapping_add(u32::from(balancer.slot).wrapping_mul(0x9e37_79b1))
    }
}

const IPV6: u8 = 1 << 3;
const CONNECTED: u8 = 1 << 4;

impl Flow {
    /// Reads a flow from the front of `input`.
    fn read(input: &mut &[u8]) -> Option<Self> {
        let (&[flags, listener, high, low], rest) = input.split_first_chunk()?;
        *input = rest;
        let transport = match flags & 0b111 {
            0 => Transport::Udp,
            1 => Transport::Tcp,
            2 => Transport::Tls,
            3 => Transport::Ws,
            4 => Transport::Wss,
            _ => return None,
        };
        let ip = if flags & IPV6 == 0 {
            IpAddr::V4(Ipv4Addr::from(take::<4>(input)?))
        } else {
            IpAddr::V6(Ipv6Addr::from(take::<16>(input)?))
        };
        let connection = if flags & CONNECTED == 0 {
            None
        } else {
            let number = u32::from_be_bytes(take(input)?);
            Some(StreamId { number, incarnation: u32::from_be_bytes(take(input)?) })
        };
        // The upper bits are for later formats; whoever sets them is not understood here.
        let is_known = flags & !(0b111 | IPV6 | CONNECTED) == 0;
        let remote = SocketAddr::new(ip, u16::from_be_bytes([high, low]));
        is_known.then_some(Self { listener, transport, remote, connection })
    }

    /// Reads a flow that is all of `input`.
    pub(crate) fn read_all(mut input: &[u8]) -> Option<Self> {
        let flow = Self::read(&mut input)?;
        input.is_empty().then_some(flow)
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*taken)
}

/// A few octets on the stack: a flow with its key id and MAC needs 37 at most.
pub(crate) struct Packed {
    octets: [u8; 48],
    length: usize,
}

impl Packed {
    const fn empty() -> Self {
        Self { octets: [0; 48], length: 0 }
    }

    pub(crate) fn of_flow(flow: &Flow) -> Self {
        let mut packed = Self::empty();
        packed.push_flow(flow);
        packed
    }

    fn push_flow(&mut self, flow: &Flow) {
        let transport: u8 = match flow.transport {
            Transport::Udp => 0,
            Transport::Tcp => 1,
            Transport::Tls => 2,
            Transport::Ws => 3,
            Transport::Wss => 4,
        };
        let family = if flow.remote.is_ipv6() { IPV6 } else { 0 };
        let connected = if flow.connection.is_some() { CONNECTED } else { 0 };
        self.push(&[transport | family | connected, flow.listener]);
        self.push(&flow.remote.port().to_be_bytes());
        match flow.remote.ip() {
            IpAddr::V4(ip) => self.push(&ip.octets()),
            IpAddr::V6(ip) => self.push(&ip.octets()),
        }
        if let Some(connection) = flow.connection {
            self.push(&connection.number.to_be_bytes());
            self.push(&connection.incarnation.to_be_bytes());
        }
    }

    pub(crate) fn push(&mut self, more: &[u8]) {
        let end = self.length + more.len();
        assert!(end <= self.octets.len(), "a flow, a key id and a MAC fit in 48 octets");
        if let Some(room) = self.octets.get_mut(self.length..end) {
            room.copy_from_slice(more);
        }
        self.length = end;
    }

    pub(crate) fn octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        let mut packed = Self::empty();
        // A token of another kind; not worth decoding until it does not fit.
        if text.len() > 4 * packed.octets.len() / 3 {
            return None;
        }
        packed.length = URL_SAFE_NO_PAD.decode_slice(text, &mut packed.octets).ok()?;
        Some(packed)
    }
}

/// Writes unpadded base64url.
pub(crate) fn push_base64(octets: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = base64::encoded_len(octets.len(), false).unwrap_or_default();
    out.resize(start + length, 0);
    if let Some(room) = out.get_mut(start..) {
        // The room is exactly what the encoder asked for.
        let written = URL_SAFE_NO_PAD.encode_slice(octets, room);
        debug_assert_eq!(written.ok(), Some(length));
    }
}

/// Writes the Path value of a REGISTER: `<sip:TOKEN@ip:port;lr;ob>`, where `balancer` is this
/// balancer's internal address and TOKEN is base64url of key id, flow and MAC.
pub fn write_path(ring: &KeyRing, flow: &Flow, balancer: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<sip:");
    write_path_token(ring, flow, out);
    out.push(b'@');
    push_address(balancer, out);
    out.extend_from_slice(b";lr;ob>");
}

fn write_path_token(ring: &KeyRing, flow: &Flow, out: &mut Vec<u8>) {
    let mut packed = Packed::empty();
    packed.push(&[ring.signing_id()]);
    packed.push_flow(flow);
    let (_, fields) = packed.octets().split_at_checked(1).unwrap_or_default();
    let mac = ring.sign(Purpose::Path).field(fields).short();
    packed.push(&mac);
    push_base64(packed.octets(), out);
}

/// The flow of a Path token, if its MAC holds. `user` is the user part of the URI.
///
/// # Cost
///
/// One decoding and one MAC; no allocation.
pub fn read_path(ring: &KeyRing, user: &[u8]) -> Option<Flow> {
    let packed = Packed::decode(user)?;
    let (&key_id, rest) = packed.octets().split_first()?;
    let (flow, claimed) = rest.split_last_chunk::<MAC_BYTES>()?;
    let holds = ring.with_key(Purpose::Path, key_id)?.field(flow).holds(claimed);
    holds.then(|| Flow::read_all(flow)).flatten()
}

/// What a Record-Route URI remembers of a dialog: how each side is reached, and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialogToken {
    /// The side that sent the INVITE.
    pub caller: Side,
    pub callee: Side,
    /// [`tag_hash`] of the caller's tag: tells which side an in-dialog request comes from, and whether
    /// it belongs to this dialog.
    pub caller_tag_hash: u32,
}

/// One side of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    pub reach: Reach,
    /// Whose this side is: the caller's is the authenticated one.
    pub aor: Option<Aor>,
    /// For when the flow is gone: the binding whose present flow is then taken.
    pub binding: Option<BindingId>,
}

/// How a side is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// From the proxy itself, by RFC 3263.
    Direct,
    /// Over this flow of that balancer.
    Flow {
        /// The balancer's slot: whoever has its address now.
        balancer: InstanceId,
        /// The way from there.
        flow: Flow,
    },
}

const BY_FLOW: u8 = 1;
const HAS_AOR: u8 = 1 << 1;
const HAS_BINDING: u8 = 1 << 2;

/// Writes the user part of a Record-Route URI: base64url of key id, veiled token and MAC.
///
/// An address-of-record beyond 65,535 octets is left out; no message is that long.
pub fn write_dialog_token(ring: &KeyRing, token: &DialogToken, out: &mut Vec<u8>) {
    let mut octets = Vec::with_capacity(128);
    octets.push(ring.signing_id());
    octets.extend_from_slice(&token.caller_tag_hash.to_be_bytes());
    push_side(&token.caller, &mut octets);
    push_side(&token.callee, &mut octets);
    let (_, fields) = octets.split_at_checked(1).unwrap_or_default();
    let mac = ring.sign(Purpose::Dialog).field(fields).short();
    veil(&ring.sign(Purpose::Veil), mac, octets.get_mut(1..).unwrap_or_default());
    octets.extend_from_slice(&mac);
    push_base64(&octets, out);
}

/// Hides what a token says, or shows it again: both sides of a call carry it, and neither must learn
/// from it who an anonymous caller is or where a callee's phone stands. The MAC of what is hidden
/// serves as the nonce: equal tokens look alike, and no others share a key stream.
fn veil(key: &Mac, nonce: [u8; MAC_BYTES], text: &mut [u8]) {
    let key = key.clone().field(&nonce);
    for (counter, block) in (0_u32..).zip(text.chunks_mut(16)) {
        let stream = key.clone().field(&counter.to_be_bytes()).finish();
        block.iter_mut().zip(stream).for_each(|(octet, mask)| *octet ^= mask);
    }
}

fn push_side(side: &Side, octets: &mut Vec<u8>) {
    let aor = side.aor.as_ref().map(Aor::as_bytes);
    let aor = aor.and_then(|aor| Some((u16::try_from(aor.len()).ok()?, aor)));
    let mut flags = 0;
    flags |= if matches!(side.reach, Reach::Flow { .. }) { BY_FLOW } else { 0 };
    flags |= if aor.is_some() { HAS_AOR } else { 0 };
    flags |= if side.binding.is_some() { HAS_BINDING } else { 0 };
    octets.push(flags);
    if let Reach::Flow { balancer, flow } = &side.reach {
        octets.extend_from_slice(&balancer.slot.to_be_bytes());
        octets.extend_from_slice(Packed::of_flow(flow).octets());
    }
    if let Some((length, aor)) = aor {
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(aor);
    }
    if let Some(BindingId(id)) = side.binding {
        octets.extend_from_slice(&id);
    }
}

/// The token in the user part of a Record-Route URI that came back as a Route, if its MAC holds.
pub fn read_dialog_token(ring: &KeyRing, user: &[u8]) -> Option<DialogToken> {
    let mut octets = URL_SAFE_NO_PAD.decode(user).ok()?;
    let (&mut key_id, rest) = octets.split_first_mut()?;
    let (fields, &mut claimed) = rest.split_last_chunk_mut::<MAC_BYTES>()?;
    veil(&ring.with_key(Purpose::Veil, key_id)?, claimed, fields);
    let fields = &*fields;
    if !ring.with_key(Purpose::Dialog, key_id)?.field(fields).holds(&claimed) {
        return None;
    }
    let mut input = fields;
    let caller_tag_hash = u32::from_be_bytes(take(&mut input)?);
    let caller = read_side(&mut input)?;
    let callee = read_side(&mut input)?;
    input.is_empty().then_some(DialogToken { caller, callee, caller_tag_hash })
}

fn read_side(input: &mut &[u8]) -> Option<Side> {
    let [flags] = take(input)?;
    let reach = if flags & BY_FLOW == 0 {
        Reach::Direct
    } else {
        let slot = u16::from_be_bytes(take(input)?);
        Reach::Flow { balancer: InstanceId::balancer(slot), flow: Flow::read(input)? }
    };
    let aor = if flags & HAS_AOR == 0 {
        None
    } else {
        let length = u16::from_be_bytes(take(input)?);
        let (aor, rest) = input.split_at_checked(usize::from(length))?;
        *input = rest;
        Some(Aor::from_bytes(aor)?)
    };
    let binding = if flags & HAS_BINDING == 0 { None } else { Some(BindingId(take::<16>(input)?)) };
    let is_known = flags & !(BY_FLOW | HAS_AOR | HAS_BINDING) == 0;
    is_known.then_some(Side { reach, aor, binding })
}

/// A short hash of a tag and the Call-ID that it belongs to. Its key is no secret: the token around
/// it has a MAC.
pub fn tag_hash(call_id: &[u8], tag: &[u8]) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write_usize(call_id.len());
    hasher.write(call_id);
    hasher.write(tag);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// What the To tag of a stateless answer is computed from: fields that the ACK to it repeats.
#[derive(Clone, Copy, Debug)]
pub struct ToTag<'a> {
    pub call_id: &'a [u8],
    pub from_tag: &'a [u8],
    /// The CSeq number.
    pub cseq: u32,
}

const TO_TAG_PREFIX: &[u8] = b"sct";

/// Writes the To tag of a stateless answer (RFC 3261 §8.2.7): the same for a repeated request, and
/// any proxy knows the ACK by it. `sct` + key id (2 hex digits) + MAC (16 hex digits).
pub fn to_tag(ring: &KeyRing, tag: &ToTag<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(TO_TAG_PREFIX);
    push_hex(&[ring.signing_id()], out);
    push_hex(&to_tag_mac(ring.sign(Purpose::ToTag), tag).short(), out);
}

/// Whether `text` is the To tag that this fleet gave to the request of `tag`.
pub fn is_our_to_tag(ring: &KeyRing, text: &[u8], tag: &ToTag<'_>) -> bool {
    let parts = text.strip_prefix(TO_TAG_PREFIX).and_then(|rest| rest.split_at_checked(2));
    let Some((key_id, claimed)) = parts else { return false };
    let (Some([key_id]), Some(claimed)) = (read_hex::<1>(key_id), read_hex::<MAC_BYTES>(claimed))
    else {
        return false;
    };
    let mac = ring.with_key(Purpose::ToTag, key_id);
    mac.is_some_and(|mac| to_tag_mac(mac, tag).holds(&claimed))
}

fn to_tag_mac(mac: Mac, tag: &ToTag<'_>) -> Mac {
    mac.field(tag.call_id).field(tag.from_tag).field(&tag.cseq.to_be_bytes())
}

#[cfg(test)]
mod tests;
