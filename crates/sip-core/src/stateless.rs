//! The load balancer's whole decision (RFC 3261 §16.11): for each message where it goes and which
//! bytes of it change, from the message, the membership and the table alone.

mod directory;
mod earlier;
mod request;
mod response;
mod top_via;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use fleet::{GenerationNumber, InstanceId};
use sip_message::{Edits, Message, StatusCode, Transport};

pub use self::directory::{Directory, Place};
pub use self::earlier::EarlierOwners;
pub use self::top_via::{edit_client_via, response_target};
use crate::flow_token::Flow;
use crate::mac::KeyRing;
use crate::selection::Selection;

/// The private header field of a response that goes to another proxy than its Via names: the flow
/// that it came on, as a Path value. The receiver has not sent the request, and acknowledges a
/// refusal over this flow (protocol rule 21).
pub const FLOW_FIELD: &[u8] = b"X-SipCloud-Flow";
/// Follows the value of [`FLOW_FIELD`] while the proxy that the Via names may live: it gets the
/// response too.
pub const SUSPECT_PARAM: &[u8] = b";suspect";
/// How the names of the private header fields begin.
pub const PRIVATE_PREFIX: &[u8] = b"X-SipCloud-";

/// Octets of a Path field, roughly.
const PATH_BYTES: usize = 80;

/// Who this balancer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerIdentity {
    pub instance: InstanceId,
    /// The incarnation in the [`StreamId`](crate::flow_token::StreamId)s of our own connections.
    pub connections: u32,
    /// What proxies see: in our Via and Path towards them.
    pub internal: SocketAddr,
    /// What clients see, by listener: in our Via towards them. [`Flow::listener`] is a place here.
    pub listeners: Vec<SocketAddr>,
}

impl BalancerIdentity {
    /// What a client of this flow sees of us.
    fn advertised(&self, flow: &Flow) -> SocketAddr {
        self.listeners.get(usize::from(flow.listener)).copied().unwrap_or(self.internal)
    }

    /// A flow of another balancer, as far as this one can use it: any listener reaches a UDP client
    /// that no translator binds to one address; a connection of the same number is somebody else's.
    fn stand_in(&self, flow: Flow) -> Flow {
        let has_listener = usize::from(flow.listener) < self.listeners.len();
        let listener = if has_listener { flow.listener } else { 0 };
        let connection = flow.connection.filter(|_| self.has_connection(&flow));
        Flow { listener, connection, ..flow }
    }

    /// Whether this flow is a connection of ours, open or not.
    fn has_connection(&self, flow: &Flow) -> bool {
        flow.connection.is_some_and(|it| it.incarnation == self.connections)
    }

    /// Whether `address` is one of ours.
    fn is_me(&self, address: SocketAddr) -> bool {
        address == self.internal || self.listeners.contains(&address)
    }
}

/// What a decision depends on besides the message.
#[derive(Clone, Copy)]
pub struct BalancerView<'a> {
    pub ring: &'a KeyRing,
    pub me: &'a BalancerIdentity,
    /// Who is in the fleet; made once per generation.
    pub directory: &'a Directory,
    pub selection: &'a Selection,
    /// Stamped on what goes to a proxy (protocol rule 19).
    pub generation: GenerationNumber,
    /// Who owned the calls before, oldest first.
    pub earlier: &'a [EarlierOwners],
    /// The names of the tier, lower case.
    pub service_names: &'a [String],
    /// Messages between the tiers that are longer than this many bytes go by TCP.
    pub internal_mtu_bytes: usize,
    /// Members that are skipped, by their place in [`fleet::Membership::every_proxy`].
    pub is_dead: &'a dyn Fn(usize) -> bool,
    /// Members that have missed probes and may be dead, by the same place: they are sent what is
    /// theirs, and their heirs what they may not live to handle (protocol rule 21).
    pub is_suspect: &'a dyn Fn(usize) -> bool,
}

/// What to do with a message. The edits are in the scratch space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To a worker of a proxy, from the internal listener.
    ToMember {
        /// Whose message it is, by place in [`fleet::Membership::every_proxy`].
        member: usize,
        /// That worker's address, or that of an earlier owner who looks at it first.
        address: SocketAddr,
        transport: Transport,
        /// A second receiver: the heir of a member that is suspect.
        also: Option<SocketAddr>,
    },
    /// Over a flow. Over UDP `flow.remote` is the address and `flow.listener` the socket.
    ToFlow {
        flow: Flow,
        /// For a response whose connection is gone: where a new one may be opened (RFC 3261
        /// §18.2.2). A request has none: answer 430 (RFC 5626 §5.3.1).
        otherwise: Option<SocketAddr>,
    },
    /// Answer it ourselves. The edits give the topmost Via what the answer must repeat.
    Reply { status: StatusCode, reason: ReplyReason },
    /// Nothing is sent.
    Drop(DropReason),
}

/// Why a request is answered by the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplyReason {
    /// Max-Forwards is zero.
    TooManyHops,
    /// An OPTIONS that was meant for this hop.
    Options,
    /// A Path token as Route from somebody who is no member.
    PathFromStranger,
    /// A member's request whose topmost Route is no Path token.
    NoPath,
    /// The flow is a connection of another balancer.
    OtherBalancersFlow,
    /// No member is alive.
    NoMember,
}

impl ReplyReason {
    pub const ALL: [Self; 6] = [
        Self::TooManyHops,
        Self::Options,
        Self::PathFromStranger,
        Self::NoPath,
        Self::OtherBalancersFlow,
        Self::NoMember,
    ];

    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooManyHops => "too_many_hops",
            Self::Options => "options",
            Self::PathFromStranger => "path_from_stranger",
            Self::NoPath => "no_path",
            Self::OtherBalancersFlow => "other_balancers_flow",
            Self::NoMember => "no_member",
        }
    }
}

/// Why a message goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// An ACK that, were it another request, would be answered: nothing answers an ACK.
    Ack(ReplyReason),
    /// The ACK to an answer that we made ourselves.
    AckForUs,
    /// A message for a proxy before the first generation: whoever sent it repeats it, or asks another
    /// balancer. A refusal would end what the balancer that had this address before has begun.
    NoTable,
    /// A request from a member's address whose topmost Via no member wrote.
    MemberWithoutMac,
    /// The topmost Via cannot be understood, so no answer would find its way.
    NoTopVia,
    /// A response whose topmost Via no balancer wrote.
    ResponseNotOurs,
    /// A response that was meant for us: we ask nothing.
    ResponseForUs,
    /// A response to a dead member, and no member is alive.
    ResponseWithoutMember,
    /// Multicast, broadcast, unspecified, or port 0.
    UnusableAddress,
}

impl DropReason {
    pub const ALL: [Self; 14] = [
        Self::Ack(ReplyReason::TooManyHops),
        Self::Ack(ReplyReason::Options),
        Self::Ack(ReplyReason::PathFromStranger),
        Self::Ack(ReplyReason::NoPath),
        Self::Ack(ReplyReason::OtherBalancersFlow),
        Self::Ack(ReplyReason::NoMember),
        Self::AckForUs,
        Self::NoTable,
        Self::MemberWithoutMac,
        Self::NoTopVia,
        Self::ResponseNotOurs,
        Self::ResponseForUs,
        Self::ResponseWithoutMember,
        Self::UnusableAddress,
    ];

    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ack(ReplyReason::TooManyHops) => "ack_too_many_hops",
            Self::Ack(ReplyReason::Options) => "ack_options",
            Self::Ack(ReplyReason::PathFromStranger) => "ack_path_from_stranger",
            Self::Ack(ReplyReason::NoPath) => "ack_no_path",
            Self::Ack(ReplyReason::OtherBalancersFlow) => "ack_other_balancers_flow",
            Self::Ack(ReplyReason::NoMember) => "ack_no_member",
            Self::AckForUs => "ack_for_us",
            Self::NoTable => "no_table",
            Self::MemberWithoutMac => "member_without_mac",
            Self::NoTopVia => "no_top_via",
            Self::ResponseNotOurs => "response_not_ours",
            Self::ResponseForUs => "response_for_us",
            Self::ResponseWithoutMember => "response_without_member",
            Self::UnusableAddress => "unusable_address",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ReplyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Decides about one message that came over `source`; what changes in it goes into `scratch`,
/// which is emptied first.
///
/// # Cost
///
/// Three or four MACs and one hash, one more for each earlier set; no allocation once `scratch` has grown.
pub fn handle(
    view: &BalancerView<'_>,
    message: &Message<'_>,
    source: &Flow,
    scratch: &mut Edits,
) -> Verdict {
    scratch.clear();
    if message.is_request() {
        request::handle(view, message, source, scratch)
    } else {
        response::handle(view, message, source, scratch)
    }
}

/// The owner of the Call-ID and its address, or `None` if nobody is alive.
fn owner(view: &BalancerView<'_>, message: &Message<'_>) -> Option<(usize, SocketAddr)> {
    let member = view.selection.owner(message.call_id(), view.is_dead)?;
    Some((member, view.directory.address(member)?))
}

impl BalancerView<'_> {
    /// Each message between the tiers picks its transport by its own size.
    const fn transport_for(&self, bytes: usize) -> Transport {
        if bytes > self.internal_mtu_bytes { Transport::Tcp } else { Transport::Udp }
    }
}

/// Whether something may be sent there at all.
pub fn is_usable(address: SocketAddr) -> bool {
    let is_one_host = match address.ip() {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    };
    is_one_host && address.port() != 0
}

#[cfg(test)]
mod tests;
