//! The calls that callees hold, and their answers.
//!
//! ```text
//!   INVITE ─► Ringing ──ring_for──► Answered (200, again until the ACK) ──ACK──► Talking ──BYE──► end
//!                └──CANCEL: 200, 487──► end        └── 64·T1 without an ACK ──► end
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::{
    Framing, HeaderName, Message, Method, OwnedMessage, Reply, Rport, StatusCode, Transport,
    write_reply,
};
use sip_transaction::{AckVerdict, Hop, Kind, Layer, Reliability, ServerId};

use super::{UasCounters, UasOptions};
use crate::digest::is_authorised;
use crate::endpoint::{Outbox, Way};
use crate::plan::Retransmission;
use crate::text::{self, sdp};

/// A call nobody ends is forgotten after this.
const TALK_MAX: Duration = Duration::from_secs(3_600);

/// All calls, by their Call-ID.
pub(super) struct Calls {
    options: UasOptions,
    transport: Transport,
    /// Makes our tags differ from those of other runs.
    run: String,
    tags: u64,
    calls: HashMap<Bytes, Call>,
    alarms: BinaryHeap<Reverse<(Instant, Bytes)>>,
}

struct Call {
    server: ServerId,
    invite: OwnedMessage,
    tag: String,
    local: SocketAddr,
    phase: Phase,
    alarm: Instant,
}

enum Phase {
    Ringing,
    /// The alarm repeats the 200.
    Answered {
        ok: Bytes,
        interval: Duration,
        give_up: Instant,
    },
    Talking,
}

/// A request being answered: its transaction, and what is needed to write the response.
struct Asked<'a> {
    id: ServerId,
    request: &'a Message<'a>,
    tag: &'a str,
}

impl Asked<'_> {
    fn answer(
        &self,
        now: Instant,
        code: u16,
        fields: &[(&str, &[u8])],
        body: &str,
        layer: &mut Layer<Way>,
        out: &mut Outbox,
    ) -> Bytes {
        let status = StatusCode::new(code).unwrap_or(StatusCode::OK);
        let to_tag = (code > 100).then_some(self.tag.as_bytes());
        let reply = Reply { status, reason: None, to_tag, fields, body: body.as_bytes() };
        let mut bytes = Vec::with_capacity(1_024);
        write_reply(self.request, &reply, &mut bytes);
        let bytes = Bytes::from(bytes);
        layer.server_respond(now, self.id, status, bytes.clone(), out);
        bytes
    }
}

impl Calls {
    pub(super) fn new(options: UasOptions, transport: Transport, run: String) -> Self {
        Self { options, transport, run, tags: 0, calls: HashMap::new(), alarms: BinaryHeap::new() }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn handle_request(
        &mut self,
        now: Instant,
        way: Way,
        request: &Message<'_>,
        layer: &mut Layer<Way>,
        counters: &mut UasCounters,
        out: &mut Outbox,
    ) {
        let Some(method) = request.method() else {
            return;
        };
        let key = layer.server_key(request, Hop::Direct);
        let known = layer.server_find(key);
        if method == Method::Ack {
            let verdict = known.map(|id| layer.server_handle_ack(now, id, out));
            if verdict.is_none_or(|verdict| verdict == AckVerdict::Deliver) {
                self.confirmed(now, request, counters);
            }
            return;
        }
        if let Some(id) = known {
            return layer.server_handle_repeat(id, out);
        }
        let kind = if method == Method::Invite { Kind::Invite } else { Kind::NonInvite };
        let (to, reliability) = if self.transport.is_reliable() {
            (way.to, Reliability::Reliable)
        } else {
            (reply_address(way.to, request), Reliability::Unreliable)
        };
        let way = Way { to, ..way };
        // Full: silence, and the request comes again.
        let Ok(id) = layer.server_new(key, kind, reliability, way) else {
            return;
        };
        self.tags += 1;
        let tag = format!("{}-{}", self.tags, self.run);
        let asked = Asked { id, request, tag: &tag };
        match method {
            Method::Invite => self.invited(now, way, &asked, layer, counters, out),
            Method::Cancel => self.cancelled(now, &asked, layer, counters, out),
            Method::Bye => self.left(now, &asked, layer, counters, out),
            Method::Options => {
                asked.answer(now, 200, &[], "", layer, out);
            }
            _ => {
                let allow: &[u8] = b"INVITE, ACK, CANCEL, BYE, OPTIONS";
                asked.answer(now, 405, &[("Allow", allow)], "", layer, out);
            }
        }
    }

    pub(super) fn handle_time(
        &mut self,
        now: Instant,
        layer: &mut Layer<Way>,
        counters: &mut UasCounters,
        out: &mut Outbox,
    ) {
        while let Some(Reverse((at, _))) = self.alarms.peek() {
            if *at > now {
                return;
            }
            let Some(Reverse((at, call_id))) = self.alarms.pop() else {
                return;
            };
            if self.calls.get(&call_id).is_some_and(|call| call.alarm == at) {
                self.alarm(now, call_id, layer, counters, out);
            }
        }
    }

    fn alarm(
        &mut self,
        now: Instant,
        call_id: Bytes,
        layer: &mut Layer<Way>,
        counters: &mut UasCounters,
        out: &mut Outbox,
    ) {
        let Some(call) = self.calls.get_mut(&call_id) else {
            return;
        };
        match &mut call.phase {
            Phase::Ringing => self.answer(now, &call_id, layer, counters, out),
            Phase::Answered { ok, interval, give_up } if now < *give_up => {
                layer.server_respond(now, call.server, StatusCode::OK, ok.clone(), out);
                *interval = (*interval * 2).min(self.options.timing.t2);
                call.alarm = (now + *interval).min(*give_up);
                self.alarms.push(Reverse((call.alarm, call_id)));
            }
            Phase::Answered { .. } => {
                counters.unacknowledged += 1;
                self.calls.remove(&call_id);
            }
            Phase::Talking => {
                self.calls.remove(&call_id);
            }
        }
    }

    fn invited(
        &mut self,
        now: Instant,
        way: Way,
        asked: &Asked<'_>,
        layer: &mut Layer<Way>,
        counters: &mut UasCounters,
        out: &mut Outbox,
    ) {
        if !self.is_admitted(now, asked, layer, out) {
            return;
        }
        counters.calls += 1;
        if let Some(code) = self.options.refuse_with {
            counters.refused += 1;
            asked.answer(now, code, &[], "", layer, out);
            return;
        }
        let call_id = Bytes::copy_from_slice(asked.request.call_id());
        if self.calls.contains_key(&call_id) {
            // A second INVITE of a call that stands: no callee here changes its session.
            asked.answer(now, 488, &[], "", layer, out);
            return;
        }
        let bytes = Bytes::copy_from_slice(asked.request.bytes());
        let (Some(local), Ok(invite)) =
            (out.local(way.socket), OwnedMessage::parse(bytes, Framing::Datagram))
        else {
            return;
        };
        let contact = contact(asked.request, local, self.transport);
        let fields = answer_fields(asked.request, &contact);
        asked.answer(now, 180, &fields, "", layer, out);
        let ring_for = self.ring_for(asked.request);
        let alarm = now + ring_for;
        let tag = asked.tag.to_owned();
        let call = Call { server: asked.id, invite, tag, local, phase: Phase::Ringing, alarm };
        self.calls.insert(call_id.clone(), call);
        if ring_for.is_zero() {
            self.answer(now, &call_id, layer, counters, out);
        } else {
            self.alarms.push(Reverse((alarm, call_id)));
        }
    }

    fn ring_for(&self, invite: &Message<'_>) -> Duration {
        let own = callee(invite).and_then(|user| self.options.rings.get(&user));
        own.copied().unwrap_or(self.options.ring_for)
    }

    /// Sends the 200 of a ringing call.
    fn answer(
        &mut self,
        now: Instant,
        call_id: &Bytes,
        layer: &mut Layer<Way>,
        counters: &mut UasCounters,
        out: &mut Outbox,
    ) {
        let timing = self.options.timing;
        let Some(call) = self.calls.get_mut(call_id) else {
            return;
        };
        let invite = call.invite.view();
        let contact = contact(&invite, call.local, self.transport);
        let mut fields = answer_fields(&invite, &contact);
        fields.push(("Content-Type", b"application/sdp"));
        let asked = Asked { id: call.server, request: &invite, tag: &call.tag };
        let ok = asked.answer(now, 200, &fields, &sdp(call.local), layer, out);
        counters.answered += 1;
        let give_up = now + timing.sixty_four_t1();
        call.alarm = match self.options.retransmission {
            Retransmission::On => now + timing.t1,
            Retransmission::Off => give_up,
        };
        call.phase = Phase::Answered { ok, interval: timing.t1, give_up };
        self.alarms.push(Reverse((call.alarm, call_id.clone())));
    }

    /// The ACK to a 200.
    fn confirmed(&mut self, now: Instant, ack: &Message<'_>, counters: &mut UasCounters) {
        let Some(call) = self.calls.get_mut(ack.call_id()) else {
            return;
        };
        if matches!(call.phase, Phase::Answered { .. }) {
            counters.confirmed += 1;
            call.phase = Phase::Talking;
            call.alarm = now + TALK_MAX;
            let call_id = Bytes::copy_from_slice(ack.call_id());
            self.alarms.push(Reverse((call.alarm, call_id)));
        }
    }

    fn cancelled(
        &mut self,
        now: Instant,
        asked: &Asked<'_>,
        layer: &mut Layer<Way>,
        counters: &mut UasCounters,
        out: &mut Outbox,
    ) {
        let invite = layer.server_find(layer.invite_key_of_cancel(asked.request, Hop::Direct));
        if invite.is_none() {
            asked.answer(now, 481, &[], "", layer, out);
            return;
        }
        asked.answer(now, 200, &[], "", layer, out);
        let call_id = asked.request.call_id();
        let rings = self.calls.get(call_id).is_some_and(|call| {
            matches!(call.phase, Phase::Ringing) && Some(call.server) == invite
        });
        if let Some(call) = if rings { self.calls.remove(call_id) } else { None } {
            counters.cancelled += 1;
            let invite = call.invite.view();
            let asked = Asked { id: call.server, request: &invite, tag: &call.tag };
            asked.answer(now, 487, &[], "", layer, out);
        }
    }

    fn left(
        &mut self,
        now: Instant,
        asked: &Asked<'_>,
        layer: &mut Layer<Way>,
        counters: &mut UasCounters,
        out: &mut Outbox,
    ) {
        let call_id = asked.request.call_id();
        if !self.calls.contains_key(call_id) {
            asked.answer(now, 481, &[], "", layer, out);
        } else if self.is_admitted(now, asked, layer, out) {
            // A BYE that overtook the ACK confirms the call as well.
            let phase = self.calls.remove(call_id).map(|call| call.phase);
            counters.confirmed += u64::from(matches!(phase, Some(Phase::Answered { .. })));
            counters.ended += 1;
            asked.answer(now, 200, &[], "", layer, out);
        }
    }

    /// Challenges a request without right credentials, if this callee challenges at all.
    fn is_admitted(
        &self,
        now: Instant,
        asked: &Asked<'_>,
        layer: &mut Layer<Way>,
        out: &mut Outbox,
    ) -> bool {
        let Some(realm) = &self.options.challenge else {
            return true;
        };
        // All callees of this process take it, as all proxies of a service do: a call may fail over.
        let nonce = format!("nonce-{:x}", std::process::id());
        let method = asked.request.method().map_or(&b""[..], |method| method.as_bytes());
        let method = String::from_utf8_lossy(method);
        if is_authorised(asked.request, &method, realm, &nonce, &self.options.users) {
            return true;
        }
        let challenge =
            format!("Digest realm=\"{realm}\",nonce=\"{nonce}\",algorithm=MD5,qop=\"auth\"");
        let fields: &[(&str, &[u8])] = &[("Proxy-Authenticate", challenge.as_bytes())];
        asked.answer(now, 407, fields, "", layer, out);
        false
    }
}

/// Contact and Record-Routes of a 180 or 200.
fn answer_fields<'a>(invite: &Message<'a>, contact: &'a str) -> Vec<(&'static str, &'a [u8])> {
    let routes = invite.all(HeaderName::RECORD_ROUTE).map(|it| ("Record-Route", it.value));
    routes.chain([("Contact", contact.as_bytes())]).collect()
}

/// The callee that was called, at our own address.
fn contact(invite: &Message<'_>, local: SocketAddr, transport: Transport) -> String {
    text::contact(&callee(invite).unwrap_or_else(|| "callee".to_owned()), local, transport)
}

/// The user part of the Request-URI.
fn callee(invite: &Message<'_>) -> Option<String> {
    let uri = invite.uri().ok()?;
    Some(String::from_utf8_lossy(uri.user()?).into_owned())
}

/// Where responses go: the source, by the port that the Via asks for (RFC 3261 §18.2.2, RFC 3581).
fn reply_address(source: SocketAddr, request: &Message<'_>) -> SocketAddr {
    match request.top_via() {
        Ok(via) if via.rport() == Rport::Absent => {
            SocketAddr::new(source.ip(), via.port().unwrap_or(5_060))
        }
        _ => source,
    }
}
