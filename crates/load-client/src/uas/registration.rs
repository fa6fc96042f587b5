//! Keeping callees registered: digest, refresh at half time, another target when one is dead.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sip_message::{Framing, HeaderName, Index, Message, NameAddr, parse};
use sip_transaction::{ClientId, ClientVerdict, Kind, Layer, Reliability};

use super::{UasCounters, UasOptions};
use crate::destinations::Destinations;
use crate::digest::DigestChallenge;
use crate::endpoint::{Outbox, Way};
use crate::plan::Credentials;
use crate::text::{Request, contact};

/// How soon a refused or unanswered registration is tried again, if there is no other target.
const RETRY: Duration = Duration::from_secs(2);

/// All users that register.
pub(super) struct Registrar {
    destinations: Destinations,
    domain: String,
    run: String,
    users: Vec<User>,
    pending: HashMap<ClientId, usize>,
    alarms: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Between two users that register at the same occasion.
    step: Duration,
}

struct User {
    credentials: Credentials,
    socket: usize,
    local: SocketAddr,
    /// Where its binding leads through, or is about to.
    target: Option<SocketAddr>,
    /// Targets that were dead, since the last one that was not.
    tried: Vec<SocketAddr>,
    cseq: u32,
    expires: Duration,
    is_registered: bool,
    lost_at: Option<Instant>,
    /// When it registers again; entries of the heap for other times are stale.
    alarm: Option<Instant>,
}

impl Registrar {
    pub(super) fn new(
        options: &UasOptions,
        destinations: Destinations,
        addresses: &[SocketAddr],
        run: String,
        now: Instant,
    ) -> Self {
        let (pending, alarms, domain) = (HashMap::new(), BinaryHeap::new(), options.domain.clone());
        let per_second = options.registration.as_ref().map_or(1.0, |it| it.per_second);
        let step = Duration::from_secs_f64(1.0 / per_second.max(0.001));
        let users = Vec::new();
        let mut new = Self { destinations, domain, run, users, pending, alarms, step };
        let Some(registration) = &options.registration else {
            return new;
        };
        let sockets = addresses.iter().enumerate().cycle();
        let users = options.users.iter().zip(sockets).zip(0..);
        for ((credentials, (socket, local)), number) in users {
            new.users.push(User {
                credentials: credentials.clone(),
                socket,
                local: *local,
                target: new.destinations.choose(now, number as usize, &[]),
                tried: Vec::new(),
                cseq: 0,
                expires: registration.expires,
                is_registered: false,
                lost_at: None,
                alarm: None,
            });
            new.set_alarm(number as usize, now + new.step * number);
        }
        new
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn handle_time(&mut self, now: Instant, layer: &mut Layer<Way>, out: &mut Outbox) {
        self.destinations.handle_time(now);
        while let Some(Reverse((at, number))) =
            self.alarms.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            self.alarms.pop();
            if self.users.get(number).is_some_and(|user| user.alarm == Some(at)) {
                self.follow_the_name(now, number);
                self.register(now, number, "", layer, out);
            }
        }
    }

    pub(super) fn handle_response(
        &mut self,
        now: Instant,
        response: &Message<'_>,
        layer: &mut Layer<Way>,
        counters: &mut UasCounters,
        out: &mut Outbox,
    ) {
        let Some(id) = layer.client_find(layer.client_key(response)) else {
            return;
        };
        let verdict = layer.client_handle_response(now, id, response, out);
        let code = response.status().map_or(0, |status| status.code());
        if verdict != ClientVerdict::Deliver || code < 200 {
            return;
        }
        let Some(number) = self.pending.remove(&id) else {
            return;
        };
        let Some(user) = self.users.get_mut(number) else {
            return;
        };
        // An even CSeq had credentials already (see `register`): they were wrong.
        let asks = matches!(code, 401 | 407) && user.cseq % 2 == 1;
        match (code, DigestChallenge::of(response).filter(|_| asks)) {
            (200..300, _) => {
                let granted = granted(response, &user.local).unwrap_or(user.expires);
                user.registered(now, counters);
                if let Some(target) = user.target {
                    self.destinations.answers(target);
                }
                self.set_alarm(number, now + granted / 2);
            }
            (_, Some(challenge)) => {
                let uri = format!("sip:{}", self.domain);
                let cnonce = format!("{number:x}{}", user.cseq);
                let line = challenge.answer(&user.credentials, "REGISTER", &uri, &cnonce);
                self.register(now, number, &line, layer, out);
            }
            (503, _) => self.move_on(now, number, counters),
            _ => {
                if code == 423 {
                    user.expires = min_expires(response).unwrap_or(user.expires);
                }
                tracing::debug!(user = user.credentials.user, code, "registration refused");
                counters.registration_failures += 1;
                user.unregistered(now, counters);
                self.set_alarm(number, now + RETRY);
            }
        }
    }

    /// A REGISTER was not answered, or could not be sent.
    pub(super) fn unanswered(
        &mut self,
        now: Instant,
        id: ClientId,
        layer: &Layer<Way>,
        counters: &mut UasCounters,
    ) {
        let Some(number) = self.pending.remove(&id) else {
            return;
        };
        let went_to = layer.client_destination(id).map(|way| way.to);
        let target = self.users.get(number).and_then(|user| user.target);
        if let Some(target) = went_to.or(target) {
            self.destinations.avoid(now, target);
        }
        self.move_on(now, number, counters);
    }

    /// Nobody is at the other end of `way`, or the connection there has ended: every user whose
    /// binding leads through it registers anew, elsewhere if there is an elsewhere.
    pub(super) fn peer_gone(
        &mut self,
        now: Instant,
        way: Way,
        layer: &mut Layer<Way>,
        counters: &mut UasCounters,
        out: &mut Outbox,
    ) {
        if !self.destinations.includes(way.to) {
            return;
        }
        self.destinations.avoid(now, way.to);
        let asked: Vec<ClientId> = self.pending.keys().copied().collect();
        for id in asked {
            if layer.client_destination(id) == Some(&way) {
                layer.client_transport_error(id, out);
            }
        }
        let mut at = now;
        for number in 0..self.users.len() {
            let Some(user) = self.users.get_mut(number) else {
                return;
            };
            if user.target != Some(way.to) || user.socket != way.socket || !user.is_registered {
                continue;
            }
            counters.failed_over += 1;
            user.unregistered(now, counters);
            user.target = self.destinations.choose(now, number, &[way.to]).or(user.target);
            self.set_alarm(number, at);
            at += self.step;
        }
    }

    /// Another way in, and with it another Path (RFC 3263 §4.3); when all are tried, later.
    fn move_on(&mut self, now: Instant, number: usize, counters: &mut UasCounters) {
        counters.registration_failures += 1;
        let Some(user) = self.users.get_mut(number) else {
            return;
        };
        user.unregistered(now, counters);
        user.tried.extend(user.target);
        let next = self.destinations.choose(now, number, &user.tried);
        let at = if next.is_some() { now } else { now + RETRY };
        if next.is_none() {
            user.tried.clear();
        }
        user.target = next.or_else(|| self.destinations.choose(now, number, &[]));
        self.set_alarm(number, at);
    }

    fn set_alarm(&mut self, number: usize, at: Instant) {
        if let Some(user) = self.users.get_mut(number) {
            user.alarm = Some(at);
            self.alarms.push(Reverse((at, number)));
        }
    }

    /// A target that the name leads to no more is not gone back to: it may be leaving, and answers
    /// until its last phone has gone.
    fn follow_the_name(&mut self, now: Instant, number: usize) {
        let Some(user) = self.users.get_mut(number) else { return };
        if user.target.is_some_and(|target| !self.destinations.includes(target)) {
            user.target = self.destinations.choose(now, number, &[]);
        }
    }

    /// Sends a REGISTER: with an odd CSeq a first one, with an even one its repetition with
    /// credentials.
    fn register(
        &mut self,
        now: Instant,
        number: usize,
        authorization: &str,
        layer: &mut Layer<Way>,
        out: &mut Outbox,
    ) {
        let transport = self.destinations.transport;
        let Some(user) = self.users.get_mut(number) else {
            return;
        };
        user.alarm = None;
        let Some(to) = user.target else {
            return;
        };
        let is_first = authorization.is_empty();
        user.cseq += if is_first == (user.cseq % 2 == 0) { 1 } else { 2 };
        let name = &user.credentials.user;
        let aor = format!("<sip:{name}@{}>", self.domain);
        let contact = contact(name, user.local, transport);
        let expires = user.expires.as_secs();
        let request = Request {
            method: "REGISTER",
            uri: &format!("sip:{}", self.domain),
            sent_by: user.local,
            transport,
            branch: &format!("z9hG4bKr{number}-{}-{}", self.run, user.cseq),
            from: &format!("{aor};tag=r{number}-{}", self.run),
            to: &aor,
            call_id: &format!("r{number}-{}@{}", self.run, user.local.ip()),
            cseq: user.cseq,
            routes: &[],
            lines: &format!("Contact: {contact}\r\nExpires: {expires}\r\n{authorization}"),
            body: "",
        }
        .bytes();
        let way = Way { socket: user.socket, to };
        let reliability =
            if transport.is_reliable() { Reliability::Reliable } else { Reliability::Unreliable };
        let mut index = Index::new();
        let key =
            parse(&request, &mut index, Framing::Datagram).ok().map(|it| layer.client_key(&it));
        let started = key.and_then(|key| {
            let kind = Kind::NonInvite;
            layer.client_new(now, key, kind, request.clone(), way, reliability, out).ok()
        });
        match started {
            Some(id) => {
                self.pending.insert(id, number);
            }
            None => self.set_alarm(number, now + RETRY),
        }
    }
}

impl User {
    fn registered(&mut self, now: Instant, counters: &mut UasCounters) {
        counters.registered += u64::from(!std::mem::replace(&mut self.is_registered, true));
        self.tried.clear();
        if let Some(lost_at) = self.lost_at.take() {
            let without = now.saturating_duration_since(lost_at);
            counters.longest_unregistered = counters.longest_unregistered.max(without);
        }
    }

    fn unregistered(&mut self, now: Instant, counters: &mut UasCounters) {
        if std::mem::take(&mut self.is_registered) {
            counters.registered -= 1;
            self.lost_at = Some(now);
        }
    }
}

/// What the registrar granted to our contact.
fn granted(response: &Message<'_>, local: &SocketAddr) -> Option<Duration> {
    let ours = local.to_string();
    let seconds = response
        .values(HeaderName::CONTACT)
        .filter_map(|value| NameAddr::from_text(value.text).ok())
        .filter(|contact| String::from_utf8_lossy(contact.uri_bytes()).contains(&ours))
        .find_map(|contact| contact.expires())
        .or_else(|| response.expires())?;
    Some(Duration::from_secs(u64::from(seconds.max(2))))
}

fn min_expires(response: &Message<'_>) -> Option<Duration> {
    let value = response.field(HeaderName::MIN_EXPIRES)?.value;
    let seconds = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
