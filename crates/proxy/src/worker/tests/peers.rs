//! Callers and phones: the transaction layer and, above it, no more than RFC 3261 asks of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::{
    Framing, HeaderName, Index, Message, Method, OwnedMessage, Reply, StatusCode, write_reply,
};
use sip_transaction::{
    AckVerdict, ClientId, ClientVerdict, Event, Hop, Kind, Layer, Limits, Origin, Reliability,
    Sink, Timing,
};

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);

/// What leaves, and what the transactions tell.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) sent: Vec<(SocketAddr, Bytes)>,
    events: Vec<Event>,
}

impl Sink<SocketAddr> for Outbox {
    fn transmit(&mut self, to: &SocketAddr, bytes: &Bytes, _from: Origin) {
        self.sent.push((*to, bytes.clone()));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

fn layer() -> Layer<SocketAddr> {
    Layer::new(Timing::RFC_3261, Limits::default(), [3; 16])
}

pub(super) fn with<R>(bytes: &[u8], read: impl FnOnce(&Message<'_>) -> R) -> R {
    let mut index = Index::new();
    match sip_message::parse(bytes, &mut index, Framing::Datagram) {
        Ok(message) => read(&message),
        Err(malformed) => panic!("{}: {}", malformed.error, String::from_utf8_lossy(bytes)),
    }
}

/// When a caller does what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) call: u64,
    /// It hangs up so long after its INVITE, if it still waits then.
    pub(super) patience: Duration,
    /// It tries the other balancer when it has heard nothing for two seconds.
    pub(super) fails_over: bool,
}

pub(super) struct Caller {
    pub(super) plan: Plan,
    pub(super) address: SocketAddr,
    pub(super) out: Outbox,
    /// To tags of every 2xx, and statuses of other final responses.
    pub(super) answers: Vec<String>,
    pub(super) refusals: Vec<u16>,
    /// The CANCEL was answered.
    pub(super) is_cancelled: bool,
    /// Nobody ever answered: 64·T1 without anything, or after the CANCEL.
    pub(super) gave_up: Option<&'static str>,
    pub(super) story: Vec<String>,
    layer: Layer<SocketAddr>,
    callee: &'static str,
    balancers: [SocketAddr; 2],
    began: Instant,
    /// One for each balancer that it has tried.
    invites: Vec<ClientId>,
    cancels: Vec<ClientId>,
    pub(super) cancelled_at: Option<Instant>,
    has_heard: bool,
}

impl Caller {
    pub(super) fn new(
        now: Instant,
        plan: Plan,
        address: SocketAddr,
        callee: &'static str,
        balancers: [SocketAddr; 2],
    ) -> Self {
        let mut caller = Self {
            plan,
            address,
            out: Outbox::default(),
            answers: Vec::new(),
            refusals: Vec::new(),
            is_cancelled: false,
            gave_up: None,
            story: Vec::new(),
            layer: layer(),
            callee,
            balancers,
            began: now,
            invites: Vec::new(),
            cancels: Vec::new(),
            cancelled_at: None,
            has_heard: false,
        };
        caller.invite(now);
        caller
    }

    pub(super) fn call_id(&self) -> String {
        format!("call-{}@example.com", self.plan.call)
    }

    pub(super) fn is_over(&self) -> bool {
        self.gave_up.is_some() || !self.answers.is_empty() || !self.refusals.is_empty()
    }

    fn invite(&mut self, now: Instant) {
        let to = self.balancers[self.invites.len() % 2];
        let (callee, at, call) = (self.callee, self.address, self.plan.call);
        let text = format!(
            "INVITE sip:{callee}@example.com SIP/2.0\r\n\
             Via: SIP/2.0/UDP {at};rport;branch=z9hG4bKinvite-{call}-{}\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@example.com>;tag=caller-{call}\r\nTo: <sip:{callee}@example.com>\r\n\
             Call-ID: {}\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@{at}>\r\n\
             Content-Length: 0\r\n\r\n",
            self.invites.len(),
            self.call_id(),
        );
        let client = self.start(now, Kind::Invite, text.into(), to);
        self.invites.push(client);
    }

    fn start(&mut self, now: Instant, kind: Kind, bytes: Bytes, to: SocketAddr) -> ClientId {
        let key = with(&bytes, |message| self.layer.client_key(message));
        let (reliability, out) = (Reliability::Unreliable, &mut self.out);
        self.layer.client_new(now, key, kind, bytes, to, reliability, out).expect("room")
    }

    pub(super) fn take(&mut self, now: Instant, bytes: &Bytes) {
        with(bytes, |response| {
            let Some(status) = response.status() else { return };
            let key = self.layer.client_key(response);
            let Some(client) = self.layer.client_find(key) else {
                self.story.push(format!("{status} of no transaction"));
                return;
            };
            let verdict = self.layer.client_handle_response(now, client, response, &mut self.out);
            if verdict == ClientVerdict::Absorb {
                return;
            }
            self.story.push(format!("{status} to {}", response.cseq().method));
            if self.cancels.contains(&client) {
                self.is_cancelled |= status.is_success();
            } else {
                self.has_heard = true;
                self.hear(response, status);
            }
        });
    }

    fn hear(&mut self, response: &Message<'_>, status: StatusCode) {
        if status.is_success() {
            let tag = String::from_utf8_lossy(response.to_tag().expect("a tag")).into_owned();
            if !self.answers.contains(&tag) {
                self.answers.push(tag);
            }
            self.acknowledge(response);
        } else if status.is_final() {
            // Each of the tries is answered, with the same.
            if !self.refusals.contains(&status.code()) {
                self.refusals.push(status.code());
            }
        }
    }

    /// The ACK to a 2xx goes by the route set (RFC 3261 §12.1.2, §13.2.2.4).
    fn acknowledge(&mut self, response: &Message<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let route: Vec<String> = {
            let fields = response.all(HeaderName::RECORD_ROUTE);
            fields.map(|field| format!("Route: {}\r\n", text(field.value))).collect()
        };
        let contacts = response.field(HeaderName::CONTACT).expect("a Contact");
        let uri = text(sip_core::target::uri_of(contacts.value));
        let to = text(response.field(HeaderName::TO).expect("a To").value);
        let (at, call) = (self.address, self.plan.call);
        let ack = format!(
            "ACK {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};rport;branch=z9hG4bKack-{call}\r\n\
             {}Max-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=caller-{call}\r\nTo: {to}\r\n\
             Call-ID: {}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
            route.into_iter().rev().collect::<String>(),
            self.call_id(),
        );
        self.out.sent.push((self.balancers[0], ack.into()));
    }

    pub(super) fn wake(&mut self, now: Instant) {
        self.layer.handle_timeout(now, &mut self.out);
        for event in std::mem::take(&mut self.out.events) {
            match event {
                Event::ClientTimedOut(client) if self.invites == [client] => {
                    self.gave_up = Some("nobody answered the INVITE");
                }
                _ => {}
            }
        }
        if self.is_over() {
            return;
        }
        let waited = now.duration_since(self.began);
        if self.plan.fails_over && !self.has_heard && self.invites.len() == 1 && waited >= 4 * T1 {
            self.story.push("fails over".to_owned());
            self.invite(now);
        }
        // Nothing is cancelled before a provisional response has come (RFC 3261 §9.1).
        if waited >= self.plan.patience && self.has_heard && self.cancelled_at.is_none() {
            self.story.push("CANCEL".to_owned());
            self.cancelled_at = Some(now);
            for client in self.invites.clone() {
                self.cancel(now, client);
            }
        }
        if self.cancelled_at.is_some_and(|at| now.duration_since(at) >= 64 * T1) {
            self.gave_up = Some("no final response 64·T1 after the CANCEL");
        }
    }
}

impl Caller {
    fn cancel(&mut self, now: Instant, invite: ClientId) {
        let Some(request) = self.layer.client_request(invite).cloned() else { return };
        let Some(to) = self.layer.client_destination(invite).copied() else { return };
        let mut cancel = Vec::new();
        with(&request, |message| sip_message::write_cancel(message, &mut cancel));
        let client = self.start(now, Kind::NonInvite, cancel.into(), to);
        self.cancels.push(client);
    }
}

/// What a phone does when it rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Answers,
    Refuses,
    Rings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Ringing,
    Answered,
    Refused,
    Cancelled,
}

pub(super) struct Ring {
    pub(super) phase: Phase,
    /// INVITEs that no transaction knew: more than one, and the phone rings twice.
    pub(super) alerts: usize,
    invite: OwnedMessage,
    server: sip_transaction::ServerId,
    acts_at: Instant,
    /// A 2xx is repeated until its ACK comes (RFC 3261 §13.3.1.4).
    repeat: Option<(Instant, Duration, Bytes)>,
    gives_up: Instant,
}

pub(super) struct Phone {
    pub(super) address: SocketAddr,
    pub(super) out: Outbox,
    pub(super) rings: BTreeMap<String, Ring>,
    manner: Manner,
    delay: Duration,
    layer: Layer<SocketAddr>,
}

impl Phone {
    pub(super) fn new(address: SocketAddr, manner: Manner, delay: Duration) -> Self {
        let (out, rings) = (Outbox::default(), BTreeMap::new());
        Self { address, out, rings, manner, delay, layer: layer() }
    }

    pub(super) fn tag(&self) -> String {
        format!("phone-{}", self.address.ip())
    }

    pub(super) fn take(&mut self, now: Instant, from: SocketAddr, bytes: &Bytes) {
        let Ok(request) = OwnedMessage::parse(bytes.clone(), Framing::Datagram) else { return };
        let view = request.view();
        match view.method() {
            Some(Method::Invite) => self.invite(now, from, &request),
            Some(Method::Cancel) => self.cancel(now, from, &view),
            Some(Method::Ack) => self.ack(now, &view),
            _ => {}
        }
    }

    fn invite(&mut self, now: Instant, from: SocketAddr, request: &OwnedMessage) {
        let view = request.view();
        let key = self.layer.server_key(&view, Hop::Direct);
        if let Some(id) = self.layer.server_find(key) {
            return self.layer.server_handle_repeat(id, &mut self.out);
        }
        let call = String::from_utf8_lossy(view.call_id()).into_owned();
        if let Some(ring) = self.rings.get_mut(&call) {
            ring.alerts += 1;
            return;
        }
        let reliability = Reliability::Unreliable;
        let server = self.layer.server_new(key, Kind::Invite, reliability, from).expect("room");
        let ring = Ring {
            phase: Phase::Ringing,
            alerts: 1,
            invite: request.clone(),
            server,
            acts_at: now + self.delay,
            repeat: None,
            gives_up: now + 64 * T1,
        };
        self.rings.insert(call.clone(), ring);
        self.respond(now, &call, StatusCode::RINGING);
    }

    fn respond(&mut self, now: Instant, call: &str, status: StatusCode) {
        let tag = self.tag();
        let Some(ring) = self.rings.get_mut(call) else { return };
        let bytes = reply(&ring.invite.view(), status, &tag, self.address);
        if status.is_success() {
            ring.repeat = Some((now + T1, T1, bytes.clone()));
            ring.gives_up = now + 64 * T1;
        }
        let server = ring.server;
        self.layer.server_respond(now, server, status, bytes, &mut self.out);
    }

    fn cancel(&mut self, now: Instant, from: SocketAddr, view: &Message<'_>) {
        let key = self.layer.server_key(view, Hop::Direct);
        if let Some(id) = self.layer.server_find(key) {
            return self.layer.server_handle_repeat(id, &mut self.out);
        }
        let invite = self.layer.invite_key_of_cancel(view, Hop::Direct);
        let found = self.layer.server_find(invite);
        let known = StatusCode::new(481).expect("a status");
        let status = if found.is_some() { StatusCode::OK } else { known };
        let bytes = reply(view, status, &self.tag(), self.address);
        let reliability = Reliability::Unreliable;
        let id = self.layer.server_new(key, Kind::NonInvite, reliability, from).expect("room");
        self.layer.server_respond(now, id, status, bytes, &mut self.out);
        let call = String::from_utf8_lossy(view.call_id()).into_owned();
        if let Some(ring) = self.rings.get_mut(&call)
            && found == Some(ring.server)
            && ring.phase == Phase::Ringing
        {
            ring.phase = Phase::Cancelled;
            self.respond(now, &call, StatusCode::REQUEST_TERMINATED);
        }
    }

    fn ack(&mut self, now: Instant, view: &Message<'_>) {
        let key = self.layer.server_key(view, Hop::Direct);
        if let Some(id) = self.layer.server_find(key)
            && self.layer.server_handle_ack(now, id, &mut self.out) == AckVerdict::Absorb
        {
            return;
        }
        let call = String::from_utf8_lossy(view.call_id()).into_owned();
        if let Some(ring) = self.rings.get_mut(&call) {
            ring.repeat = None;
        }
    }

    pub(super) fn wake(&mut self, now: Instant) {
        self.layer.handle_timeout(now, &mut self.out);
        self.out.events.clear();
        let mut acts = Vec::new();
        for (call, ring) in &mut self.rings {
            if ring.phase == Phase::Ringing && now >= ring.acts_at {
                match self.manner {
                    Manner::Answers => {
                        ring.phase = Phase::Answered;
                        acts.push((call.clone(), StatusCode::OK));
                    }
                    Manner::Refuses => {
                        ring.phase = Phase::Refused;
                        acts.push((call.clone(), StatusCode::BUSY_HERE));
                    }
                    Manner::Rings => {}
                }
            }
            let server = ring
                .invite
                .view()
                .top_via()
                .ok()
                .and_then(|via| crate::arrival::literal_sent_by(&via));
            if let (Some((at, interval, bytes)), Some(to)) = (&mut ring.repeat, server)
                && now >= *at
                && now < ring.gives_up
            {
                self.out.sent.push((to, bytes.clone()));
                *interval = (*interval * 2).min(T2);
                *at = now + *interval;
            }
        }
        for (call, status) in acts {
            self.respond(now, &call, status);
        }
    }
}

fn reply(request: &Message<'_>, status: StatusCode, tag: &str, at: SocketAddr) -> Bytes {
    let contact = format!("<sip:phone@{at}>");
    let mut fields: Vec<(&str, &[u8])> = vec![("Contact", contact.as_bytes())];
    for field in request.all(HeaderName::RECORD_ROUTE) {
        fields.push(("Record-Route", field.value));
    }
    let to_tag = Some(tag.as_bytes());
    let reply = Reply { status, reason: None, to_tag, fields: &fields, body: &[] };
    let mut out = Vec::new();
    write_reply(request, &reply, &mut out);
    out.into()
}
