//! One message from its arrival to its leaving: parse, decide, edit, hand to a socket.
//!
//! Everything here belongs to one thread and is reused from message to message.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sip_core::flow_token::{Flow, StreamId};
use sip_core::stateless::{self, BalancerView, DropReason, Verdict};
use sip_message::{Edits, Framing, HeaderName, Index, Malformed, Message, Method, StatusCode};
use sip_message::{ParseError, Transport, parse};
use sip_net::clock;
use sip_net::stream::{ConnectionId, SendError, StreamSender, StreamTo};
use sip_net::udp::{Sender, UdpSocket};
use tracing::debug;

use crate::ledger::{Kept, Key, Passage};
use crate::metrics::{Counters, RoleDrop, RoleReply};
use crate::reply;
use crate::service::Shared;
use crate::table::Table;

/// One listener's socket of one thread, and what waits to leave by it.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) socket: UdpSocket,
    pub(crate) sender: Sender,
}

/// What one thread needs to handle messages.
#[derive(Debug)]
pub(crate) struct Hall {
    index: Index,
    desk: Desk,
}

/// The hall without its index, which the message at hand borrows.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) table: Arc<Table>,
    /// By listener.
    pub(crate) ports: Vec<Port>,
    streams: StreamSender,
    edits: Edits,
    /// Responses that answer the message at hand in place of its receiver.
    replays: Vec<Kept>,
}

impl Hall {
    pub(crate) fn new(
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        ports: Vec<Port>,
        streams: StreamSender,
    ) -> Self {
        let table = shared.tables.current();
        let (edits, replays) = (Edits::new(), Vec::new());
        let desk = Desk { shared, counters, table, ports, streams, edits, replays };
        Self { index: Index::new(), desk }
    }

    pub(crate) const fn desk(&mut self) -> &mut Desk {
        &mut self.desk
    }

    /// A datagram or a message cut from a stream.
    pub(crate) fn handle(&mut self, bytes: &[u8], source: &Flow) {
        let Self { index, desk } = self;
        let framing =
            if source.transport == Transport::Udp { Framing::Datagram } else { Framing::Stream };
        desk.counters.bytes_received.add(bytes.len() as u64);
        match parse(bytes, index, framing) {
            Ok(message) => desk.message(&message, source),
            Err(malformed) => desk.malformed(&malformed, bytes, source),
        }
        while let Some(kept) = self.desk.replays.pop() {
            self.repeat(&kept);
        }
    }

    /// A message that was kept for a peer on a stream, as if it came once more.
    pub(crate) fn repeat(&mut self, kept: &Kept) {
        let Self { index, desk } = self;
        if let Ok(message) = parse(&kept.bytes, index, Framing::Stream) {
            desk.repeat(&message, &kept.source);
        }
    }

    /// What cannot be cut out of a stream: answered if it can be, then the stream ends.
    pub(crate) fn handle_unframed(&mut self, bytes: &[u8], source: &Flow) {
        let Self { index, desk } = self;
        match parse(bytes, index, Framing::Stream) {
            // Only its length was wrong.
            Ok(message) => desk.answer_malformed(&message, StatusCode::BAD_REQUEST, source),
            Err(malformed) => desk.malformed(&malformed, bytes, source),
        }
        if let Some(connection) = source.connection {
            desk.streams.close(connection_id(connection));
        }
    }
}

impl Desk {
    fn message(&mut self, message: &Message<'_>, source: &Flow) {
        if message.is_request() {
            self.counters.requests_received.add(1);
        } else {
            self.counters.responses_received.add(1);
        }
        match self.decide(message, source) {
            Verdict::ToMember { member, address, transport, also } => {
                self.send_to_member(message, member, address, transport);
                if let Some(heir) = also {
                    self.send_to_address(message, heir, transport);
                }
                if let Some(connection) = source.connection {
                    self.keep(message, source, connection);
                }
            }
            Verdict::ToFlow { flow, otherwise } => {
                self.send_to_flow(message, source, &flow, otherwise)
            }
            Verdict::Reply { status, reason } => {
                self.counters.count_reply(reason);
                self.reply(message, status, source);
                debug!(call_id = %text(message.call_id()), status = status.code(), %reason, "answered");
            }
            Verdict::Drop(reason) => {
                if let (DropReason::NoTable, Some(connection)) = (reason, source.connection) {
                    // Its sender will not repeat it.
                    self.keep(message, source, connection);
                }
                self.counters.count_drop(reason);
                debug!(call_id = %text(message.call_id()), source = %source.remote, %reason, "dropped");
            }
        }
    }

    fn decide(&mut self, message: &Message<'_>, source: &Flow) -> Verdict {
        let table = &*self.table;
        let view = BalancerView {
            ring: &self.shared.ring,
            me: &self.shared.me,
            directory: &table.directory,
            selection: &table.selection,
            generation: table.generation(),
            earlier: &table.earlier,
            service_names: &self.shared.service_names,
            internal_mtu_bytes: self.shared.internal_mtu_bytes,
            is_dead: &|member| table.is_dead(member),
            is_suspect: &|member| table.is_suspect(member),
        };
        stateless::handle(&view, message, source, &mut self.edits)
    }

    /// Sends a kept message again, to the owner of the moment. Without one it waits for its next
    /// turn: its sender has been told nothing yet.
    fn repeat(&mut self, message: &Message<'_>, source: &Flow) {
        if let Verdict::ToMember { address, transport, also, .. } = self.decide(message, source) {
            self.send_to_address(message, address, transport);
            if let Some(heir) = also {
                self.send_to_address(message, heir, transport);
            }
        } else {
            self.counters.count_role_drop(RoleDrop::RepeatWithoutMember);
        }
    }

    /// Keeps what a peer on a stream said, as long as it may be needed again.
    fn keep(&self, message: &Message<'_>, source: &Flow, connection: StreamId) {
        let Some(key) = ledger_key(message, connection) else { return };
        let mut ledger = self.shared.ledger.lock();
        if message.is_request() {
            ledger.keep_request(&key, message, source, clock::now());
        } else {
            ledger.keep_response(&key, message, source, clock::now());
        }
    }

    /// Whether a message for a peer on a stream is to reach it.
    fn passes(&mut self, message: &Message<'_>, connection: StreamId) -> bool {
        let Some(key) = ledger_key(message, connection) else { return true };
        let mut ledger = self.shared.ledger.lock();
        if let Some(status) = message.status() {
            ledger.hear_response(&key, status.code(), connection, clock::now());
            return true;
        }
        match ledger.let_pass(&key, message, connection, clock::now()) {
            Passage::Through => true,
            Passage::Replay(kept) => {
                self.replays.push(kept);
                false
            }
            Passage::Absorbed => {
                self.counters.count_role_drop(RoleDrop::RepeatedAck);
                false
            }
        }
    }

    fn send_to_member(
        &mut self,
        message: &Message<'_>,
        member: usize,
        address: SocketAddr,
        transport: Transport,
    ) {
        if begins_call(message) {
            self.counters.calls.add(1);
            self.table.count_call(member);
        }
        self.send_to_address(message, address, transport);
    }

    fn send_to_address(
        &mut self,
        message: &Message<'_>,
        address: SocketAddr,
        transport: Transport,
    ) {
        self.counters.to_members.add(1);
        if transport == Transport::Udp {
            self.push(0, address, message);
        } else {
            let bytes = self.edited(message);
            let sent = self.streams.send(StreamTo::Address(address), bytes);
            self.note_stream(sent, message);
        }
        debug!(call_id = %text(message.call_id()), to = %address, "to a member");
    }

    fn send_to_flow(
        &mut self,
        message: &Message<'_>,
        source: &Flow,
        flow: &Flow,
        otherwise: Option<SocketAddr>,
    ) {
        debug!(call_id = %text(message.call_id()), to = %flow.remote, "to a client");
        if flow.transport == Transport::Udp {
            self.counters.to_flows.add(1);
            self.push(usize::from(flow.listener), flow.remote, message);
            return;
        }
        if flow.connection.is_some_and(|connection| !self.passes(message, connection)) {
            return;
        }
        let bytes = self.edited(message);
        let over = flow.connection.map(|id| StreamTo::Connection(connection_id(id)));
        let first =
            over.map_or(Err(SendError::NoConnection), |to| self.streams.send(to, bytes.clone()));
        if first.is_ok() {
            self.counters.to_flows.add(1);
        } else if message.is_request() {
            // The proxy then tries the binding's present flow (RFC 5626 §5.3.1).
            self.answer_flow_gone(message, source);
        } else if let Some(address) = otherwise {
            self.counters.to_flows.add(1);
            let sent = self.streams.send(StreamTo::Address(address), bytes);
            self.note_stream(sent, message);
        } else {
            self.counters.count_role_drop(RoleDrop::ConnectionGone);
        }
    }

    fn answer_flow_gone(&mut self, message: &Message<'_>, source: &Flow) {
        if message.method() == Some(Method::Ack) {
            self.counters.count_role_drop(RoleDrop::ConnectionGone);
            return;
        }
        self.counters.count_role_reply(RoleReply::FlowGone);
        self.edits.clear();
        self.reply(message, StatusCode::FLOW_FAILED, source);
    }

    fn malformed(&mut self, malformed: &Malformed<'_>, bytes: &[u8], source: &Flow) {
        if malformed.error == ParseError::Empty {
            self.counters.count_role_drop(RoleDrop::KeepAlive);
            return;
        }
        debug!(source = %source.remote, error = %malformed.error, "malformed");
        let answerable = malformed.message.filter(Message::is_request);
        match answerable.filter(|request| request.method() != Some(Method::Ack)) {
            Some(request) => self.answer_malformed(&request, malformed.error.status(), source),
            None if bytes.starts_with(b"SIP/") => {
                self.counters.count_role_drop(RoleDrop::MalformedResponse);
            }
            None => self.counters.count_role_drop(RoleDrop::MalformedRequest),
        }
    }

    fn answer_malformed(&mut self, request: &Message<'_>, status: StatusCode, source: &Flow) {
        self.counters.count_role_reply(RoleReply::Malformed);
        self.edits.clear();
        if let Ok(via) = request.top_via() {
            stateless::edit_client_via(&via, source.remote, &mut self.edits);
        }
        self.reply(request, status, source);
    }

    /// An answer of ours, to where the request came from.
    fn reply(&mut self, request: &Message<'_>, status: StatusCode, source: &Flow) {
        let bytes = reply::write(&self.shared.ring, request, status, &self.edits);
        if let Some(connection) = source.connection {
            let to = StreamTo::Connection(connection_id(connection));
            let sent = self.streams.send(to, bytes.into());
            self.note_stream(sent, request);
            return;
        }
        let target = match request.top_via() {
            Ok(via) => stateless::response_target(&via, source.remote, source.transport),
            Err(_) => source.remote,
        };
        if stateless::is_usable(target) {
            self.push_with(usize::from(source.listener), target, |_, out| {
                out.extend_from_slice(&bytes);
            });
        }
    }

    fn push(&mut self, listener: usize, to: SocketAddr, message: &Message<'_>) {
        self.push_with(listener, to, |edits, out| edits.apply(message.bytes(), out));
    }

    fn push_with(
        &mut self,
        listener: usize,
        to: SocketAddr,
        write: impl FnOnce(&Edits, &mut Vec<u8>),
    ) {
        let Some(port) = self.ports.get_mut(listener) else {
            self.counters.count_role_drop(RoleDrop::UnknownListener);
            return;
        };
        if port.sender.is_full() {
            flush(port, &self.counters);
        }
        let edits = &self.edits;
        port.sender.push(to, |out| {
            let before = out.len();
            write(edits, out);
            self.counters.bytes_sent.add((out.len() - before) as u64);
        });
    }

    fn edited(&self, message: &Message<'_>) -> Bytes {
        let mut bytes = Vec::with_capacity(message.bytes().len() + 512);
        self.edits.apply(message.bytes(), &mut bytes);
        self.counters.bytes_sent.add(bytes.len() as u64);
        bytes.into()
    }

    fn note_stream(&self, sent: Result<(), SendError>, message: &Message<'_>) {
        let Err(error) = sent else { return };
        let reason = match error {
            SendError::NoConnection => RoleDrop::ConnectionGone,
            SendError::QueueFull | SendError::TooManyConnections => RoleDrop::StreamRefused,
        };
        self.counters.count_role_drop(reason);
        debug!(call_id = %text(message.call_id()), %error, "not sent");
    }

    /// Sends what waits; once per batch.
    pub(crate) fn flush(&mut self) {
        for port in &mut self.ports {
            if !port.sender.is_empty() {
                flush(port, &self.counters);
            }
        }
    }
}

fn flush(port: &mut Port, counters: &Counters) {
    let report = port.socket.send(&mut port.sender);
    for failure in report.failed {
        let reason = match failure.kind {
            std::io::ErrorKind::WouldBlock => RoleDrop::SendBufferFull,
            _ => RoleDrop::SendFailed,
        };
        counters.count_role_drop(reason);
        debug!(to = %failure.to, kind = ?failure.kind, "not sent");
    }
}

/// Whether this request counts as a call given to a member: an INVITE without To tag that carries
/// credentials, or that nobody will ask for any.
///
/// A balancer keeps nothing, so an INVITE that is challenged must not count before it comes again
/// with credentials; one that is never challenged (a trunk's) counts only at the proxy. Repeats
/// over UDP count again: the manager takes the larger of this and what the proxies say.
fn begins_call(message: &Message<'_>) -> bool {
    message.method() == Some(Method::Invite)
        && message.to_tag().is_none()
        && (message.field(HeaderName::PROXY_AUTHORIZATION).is_some()
            || message.field(HeaderName::AUTHORIZATION).is_some())
}

/// The transaction with the peer on this connection. Its branch is in the topmost Via of a request,
/// and below our own in a response.
fn ledger_key(message: &Message<'_>, connection: StreamId) -> Option<Key> {
    let via = message.vias().nth(usize::from(!message.is_request()))?.ok()?;
    Some(Key::new(connection, via.branch().unwrap_or_default(), message))
}

pub(crate) const fn connection_id(id: StreamId) -> ConnectionId {
    ConnectionId { number: id.number, incarnation: id.incarnation }
}

/// Bytes of a message for a log line.
fn text(bytes: &[u8]) -> impl std::fmt::Display {
    bytes.escape_ascii()
}
