//! How bytes leave: by which transport, through which socket, and who hears of a failure.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sip_message::{Framing, Index, Transport};
use sip_net::stream::{ConnectionId, StreamTo, Streams};
use sip_net::udp::{Sender, UdpSocket};
use sip_transaction::{Event, Origin, Reliability, Sink};

use crate::balancers::{Detours, Health};
use crate::metrics::Counters;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A balancer or another proxy: UDP or TCP, as the size of each message asks.
    Tier(SocketAddr),
    /// A peer that this proxy reaches itself.
    Peer { address: SocketAddr, transport: Transport },
    /// The stream that a request came on, or its peer's address if the stream is gone.
    Stream { connection: ConnectionId, address: SocketAddr },
}

impl Way {
    /// Which timers a transaction needs. Through a balancer always those of an unreliable
    /// transport, whatever carries a single message.
    pub(crate) fn reliability(&self) -> Reliability {
        match self {
            Self::Tier(_) => Reliability::Unreliable,
            Self::Peer { transport, .. } if !transport.is_reliable() => Reliability::Unreliable,
            Self::Peer { .. } | Self::Stream { .. } => Reliability::Reliable,
        }
    }
}

/// A message on its way out: of somebody who keeps it, or copied into the batch.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Shared(&'a Bytes),
    Lent(&'a [u8]),
}

impl<'a> Piece<'a> {
    fn octets(self) -> &'a [u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Lent(octets) => octets,
        }
    }

    fn share(self) -> Bytes {
        match self {
            Self::Shared(bytes) => bytes.clone(),
            Self::Lent(octets) => Bytes::copy_from_slice(octets),
        }
    }
}

/// One worker's sockets for sending, and what the transaction layer wants done.
pub(crate) struct Wire {
    pub(crate) udp: UdpSocket,
    pub(crate) streams: Streams,
    sender: Sender,
    /// Whose message each queued datagram is.
    origins: Vec<Option<Origin>>,
    /// Whose message no stream would take.
    refused: Vec<Origin>,
    events: VecDeque<Event>,
    internal_mtu: usize,
    /// Which balancers are not there, and who stands in for them.
    pub(crate) detours: Arc<Detours>,
    index: Index,
    counters: Arc<Counters>,
    /// Where a test on virtual time finds what would leave.
    #[cfg(test)]
    pub(crate) captured: Option<Vec<(Way, Bytes)>>,
}

impl Wire {
    pub(crate) fn new(
        udp: UdpSocket,
        streams: Streams,
        internal_mtu: usize,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            udp,
            streams,
            sender: Sender::new(),
            origins: Vec::new(),
            refused: Vec::new(),
            events: VecDeque::new(),
            internal_mtu,
            detours: Arc::default(),
            index: Index::new(),
            counters,
            #[cfg(test)]
            captured: None,
        }
    }

    /// Queues a message that belongs to no transaction, and that nobody keeps.
    pub(crate) fn send(&mut self, way: &Way, octets: &[u8]) {
        self.queue(way, Piece::Lent(octets), None);
    }

    /// What the transaction layer told since the last call.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Sends what is queued; the result names the transactions whose message did not leave.
    pub(crate) fn flush(&mut self) -> Vec<Origin> {
        let mut failed = std::mem::take(&mut self.refused);
        if self.origins.is_empty() {
            return failed;
        }
        let report = self.udp.send(&mut self.sender);
        let origins = &self.origins;
        let origin_of = |index: usize| origins.get(index).copied().flatten();
        self.counters.drop_send.add(u64::try_from(report.failed.len()).unwrap_or(u64::MAX));
        failed.extend(report.failed.iter().filter_map(|it| origin_of(it.index)));
        self.origins.clear();
        failed
    }

    fn queue(&mut self, way: &Way, piece: Piece<'_>, origin: Option<Origin>) {
        self.counters.messages_sent.add(1);
        self.counters.bytes_sent.add(u64::try_from(piece.octets().len()).unwrap_or_default());
        #[cfg(test)]
        if let Some(captured) = &mut self.captured {
            return captured.push((*way, piece.share()));
        }
        match way {
            Way::Tier(address) => self.queue_within(*address, piece, origin),
            Way::Peer { address, transport: Transport::Udp } => {
                self.queue_datagram(*address, piece, origin);
            }
            Way::Peer { address, .. } => {
                self.queue_stream(StreamTo::Address(*address), piece, origin);
            }
            Way::Stream { connection, address } => {
                let to = StreamTo::Connection(*connection);
                if self.streams.send(to, piece.share()).is_err() {
                    // Gone: a new one to where it came from (RFC 3261 §18.2.2).
                    self.queue_stream(StreamTo::Address(*address), piece, origin);
                }
            }
        }
    }

    /// To a member, or around it (protocol rule 23). A response to a suspect's client goes both ways,
    /// and the client passes over the second one. A request does not: another balancer would refuse
    /// the flow of a client on a stream, which the suspect may still serve.
    fn queue_within(&mut self, member: SocketAddr, piece: Piece<'_>, origin: Option<Origin>) {
        let health = self.detours.health(member);
        let is_request = !piece.octets().starts_with(b"SIP/");
        if health == Health::Well || (health == Health::Suspect && is_request) {
            return self.queue_hop(member, piece, origin);
        }
        let stand_in = self.stand_in(member, piece.octets());
        if health == Health::Suspect || stand_in.is_none() {
            self.queue_hop(member, piece, origin);
        }
        if let Some(stand_in) = stand_in {
            self.counters.detoured.add(1);
            self.queue_hop(stand_in, piece, origin);
        }
    }

    /// Sends what was refused at `balancer` through another one; `false` if there is none.
    pub(crate) fn send_around(&mut self, balancer: SocketAddr, bytes: &Bytes) -> bool {
        let Some(stand_in) = self.stand_in(balancer, bytes) else { return false };
        self.counters.detoured.add(1);
        self.queue_hop(stand_in, Piece::Shared(bytes), None);
        true
    }

    fn stand_in(&mut self, balancer: SocketAddr, octets: &[u8]) -> Option<SocketAddr> {
        let message = sip_message::parse(octets, &mut self.index, Framing::Datagram).ok()?;
        self.detours.stand_in(balancer, message.call_id()).map(|one| one.internal)
    }

    fn queue_hop(&mut self, member: SocketAddr, piece: Piece<'_>, origin: Option<Origin>) {
        if piece.octets().len() <= self.internal_mtu {
            self.queue_datagram(member, piece, origin);
        } else {
            self.queue_stream(StreamTo::Address(member), piece, origin);
        }
    }

    fn queue_stream(&mut self, to: StreamTo, piece: Piece<'_>, origin: Option<Origin>) {
        if self.streams.send(to, piece.share()).is_err() {
            self.counters.drop_send.add(1);
            self.refused.extend(origin);
        }
    }

    fn queue_datagram(&mut self, to: SocketAddr, piece: Piece<'_>, origin: Option<Origin>) {
        match piece {
            Piece::Shared(bytes) => self.sender.push_bytes(to, bytes.clone()),
            Piece::Lent(octets) => self.sender.push(to, |arena| arena.extend_from_slice(octets)),
        }
        self.origins.push(origin);
    }
}

impl Sink<Way> for Wire {
    fn transmit(&mut self, to: &Way, bytes: &Bytes, from: Origin) {
        self.queue(to, Piece::Shared(bytes), Some(from));
    }

    fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message to a balancer goes by TCP or UDP as its length asks, the next one by the other: only
    /// the timers of an unreliable transport repeat what a member loses.
    #[test]
    fn transactions_through_a_balancer_repeat_whatever_carries_them() {
        let address = SocketAddr::from(([192, 0, 2, 1], 5060));
        let peer = |transport| Way::Peer { address, transport };
        let connection = ConnectionId { number: 1, incarnation: 1 };
        for (way, expected) in [
            (Way::Tier(address), Reliability::Unreliable),
            (peer(Transport::Udp), Reliability::Unreliable),
            (peer(Transport::Tcp), Reliability::Reliable),
            (Way::Stream { connection, address }, Reliability::Reliable),
        ] {
            assert_eq!(way.reliability(), expected, "{way:?}");
        }
    }
}
