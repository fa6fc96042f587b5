//! Who sent a request: a client through a balancer, or somebody who came straight to this proxy.

use std::net::SocketAddr;

use fleet::{InstanceId, Membership};
use sip_core::branch::{TierVia, read_tier_via};
use sip_core::flow_token::Flow;
use sip_core::handover::{self, Handover};
use sip_core::mac::KeyRing;
use sip_message::{Framing, Message, OwnedMessage, Transport, Via, parse_ip};
use sip_net::response_address::ResponseAddress;
use sip_net::stream::ConnectionId;
use sip_net::{received, response_address};
use sip_transaction::Hop;

use crate::draft::Draft;
use crate::leave::Way;

/// How a request reached this worker and how its answers go back.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Where answers go.
    pub(crate) reply: Way,
    /// The client's own address: as the balancer saw it, or as the packet says.
    pub(crate) client: SocketAddr,
    /// The client's transport.
    pub(crate) transport: Transport,
    /// The balancer that brought it; `None` for a request that came straight here.
    pub(crate) carrier: Option<Carrier>,
    /// It came from there, and was not passed on by another proxy.
    pub(crate) is_straight: bool,
    /// The balancer's stamp, and where the request goes if it matches nothing here.
    pub(crate) handover: Option<Handover>,
}

/// The balancer that brought a request, and the client's flow there.
#[derive(Clone, Debug)]
pub(crate) struct Carrier {
    /// `None` while the membership does not know the balancer yet.
    pub(crate) balancer: Option<InstanceId>,
    /// What clients see of it.
    pub(crate) advertised: SocketAddr,
    pub(crate) flow: Flow,
}

/// Where a packet came from, before anything in it was believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) address: SocketAddr,
    pub(crate) stream: Option<ConnectionId>,
}

impl Arrival {
    /// Which Via is the client's.
    pub(crate) fn hop(&self) -> Hop {
        if self.carrier.is_some() { Hop::ThroughBalancer } else { Hop::Direct }
    }

    /// Reads the top Via. A Via of a balancer counts by its MAC alone, wherever the packet came
    /// from, and answers go to the address in it.
    pub(crate) fn read(
        ring: &KeyRing,
        membership: Option<&Membership>,
        request: &Message<'_>,
        source: Source,
    ) -> Self {
        let via = request.top_via().ok();
        if let Some(TierVia::Balancer { flow }) = via.as_ref().map(|via| read_tier_via(ring, via))
            && let Some(sent_by) = via.as_ref().and_then(literal_sent_by)
        {
            let member = membership.and_then(|it| it.balancer_at(sent_by));
            return Self {
                reply: Way::Tier(sent_by),
                client: flow.remote,
                transport: flow.transport,
                carrier: Some(Carrier {
                    balancer: member.map(|it| it.instance),
                    advertised: member.map_or(sent_by, |it| it.advertised),
                    flow,
                }),
                is_straight: source.address.ip() == sent_by.ip(),
                handover: None,
            };
        }
        let address = source.address;
        let (reply, transport) = match source.stream {
            Some(connection) => (Way::Stream { connection, address }, Transport::Tcp),
            None => {
                let address = via.as_ref().and_then(answer_to).unwrap_or(address);
                (Way::Peer { address, transport: Transport::Udp }, Transport::Udp)
            }
        };
        Self {
            reply,
            client: source.address,
            transport,
            carrier: None,
            is_straight: true,
            handover: None,
        }
    }

    /// Reads what the balancer says to the worker at `me` about owners. Only beside a balancer's Via:
    /// whoever came straight here says nothing of the kind.
    pub(crate) fn read_handover(&mut self, ring: &KeyRing, request: &Message<'_>, me: SocketAddr) {
        if self.carrier.is_some() {
            self.handover = handover::read(ring, request, me);
        }
    }
}

/// Writes `received` and `rport` on the Via of a request that came straight here (RFC 3261
/// §18.2.1). A balancer has done so for the requests that it brings.
pub(crate) fn stamp(request: &Message<'_>, source: Source, draft: &mut Draft) -> OwnedMessage {
    let Draft { edits, text, .. } = &mut *draft;
    edits.clear();
    text.clear();
    if received::edit(request, source.address, edits).is_err() {
        return OwnedMessage::from(request);
    }
    edits.apply(request.bytes(), text);
    // What we add to a Via that parsed keeps it so.
    OwnedMessage::parse(draft.finish(), Framing::Datagram)
        .unwrap_or_else(|_| OwnedMessage::from(request))
}

/// Where a response goes by this Via, if that is an address.
pub(crate) fn answer_to(via: &Via<'_>) -> Option<SocketAddr> {
    match response_address::of(via) {
        ResponseAddress::Address { address, .. } => Some(address),
        ResponseAddress::Name { .. } | ResponseAddress::UnknownTransport => None,
    }
}

/// The sent-by of a Via, if it is an address.
pub(crate) fn literal_sent_by(via: &Via<'_>) -> Option<SocketAddr> {
    let ip = parse_ip(via.host())?;
    Some(SocketAddr::new(ip, via.port().unwrap_or(5060)))
}
