//! Keeping callees registered: digest, refresh at half time, another target when one is silent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sip_message::{Framing, HeaderName, Index, Message, NameAddr, parse};
use sip_transaction::{ClientId, ClientVerdict, Kind, Layer, Reliability};

use super::{Registration, UasCounters, UasOptions};
use crate::digest::DigestChallenge;
use crate::endpoint::{Outbox, Way};
use crate::plan::Credentials;
use crate::text::Request;

/// How soon a refused or unanswered registration is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// All users that register.
pub(super) struct Registrar {
    registration: Option<Registration>,
    domain: String,
    run: String,
    users: Vec<User>,
    pending: HashMap<ClientId, usize>,
    alarms: BinaryHeap<Reverse<(Instant, usize)>>,
}

struct User {
    credentials: Credentials,
    socket: usize,
    local: SocketAddr,
    /// Place in the targets.
    target: usize,
    cseq: u32,
    expires: Duration,
    is_registered: bool,
}

impl Registrar {
    pub(super) fn new(
        options: &UasOptions,
        addresses: &[SocketAddr],
        run: &str,
        now: Instant,
    ) -> Self {
        let registration = options.registration.clone().filter(|it| !it.targets.is_empty());
        let mut users = Vec::new();
        let mut alarms = BinaryHeap::new();
        if let Some(registration) = &registration {
            let sockets = addresses.iter().enumerate().cycle();
            for (number, (credentials, (socket, local))) in
                options.users.iter().zip(sockets).enumerate()
            {
                users.push(User {
                    credentials: credentials.clone(),
                    socket,
                    local: *local,
                    target: number % registration.targets.len(),
                    cseq: 0,
                    expires: registration.expires,
                    is_registered: false,
                });
                let after = number as f64 / registration.per_second.max(0.001);
                alarms.push(Reverse((now + Duration::from_secs_f64(after), number)));
            }
        }
        let (domain, run) = (options.domain.clone(), run.to_owned());
        Self { registration, domain, run, users, pending: HashMap::new(), alarms }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn handle_time(&mut self, now: Instant, layer: &mut Layer<Way>, out: &mut Outbox) {
        while let Some(Reverse((_, number))) =
            self.alarms.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            self.alarms.pop();
            self.register(now, number, "", layer, out);
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
                counters.registered += u64::from(!user.is_registered);
                user.is_registered = true;
                self.alarms.push(Reverse((now + granted / 2, number)));
            }
            (_, Some(challenge)) => {
                let uri = format!("sip:{}", self.domain);
                let cnonce = format!("{number:x}{}", user.cseq);
                let line = challenge.answer(&user.credentials, "REGISTER", &uri, &cnonce);
                self.register(now, number, &line, layer, out);
            }
            _ => {
                if code == 423 {
                    user.expires = min_expires(response).unwrap_or(user.expires);
                }
                tracing::debug!(user = user.credentials.user, code, "registration refused");
                self.failed(now, number, counters);
            }
        }
    }

    pub(super) fn unanswered(&mut self, now: Instant, id: ClientId, counters: &mut UasCounters) {
        if let Some(number) = self.pending.remove(&id) {
            // Another way in, and with it another Path (RFC 3263 §4.3).
            if let (Some(user), Some(registration)) =
                (self.users.get_mut(number), &self.registration)
            {
                user.target = (user.target + 1) % registration.targets.len();
            }
            self.failed(now, number, counters);
        }
    }

    fn failed(&mut self, now: Instant, number: usize, counters: &mut UasCounters) {
        counters.registration_failures += 1;
        if let Some(user) = self.users.get_mut(number) {
            counters.registered -= u64::from(std::mem::take(&mut user.is_registered));
        }
        self.alarms.push(Reverse((now + RETRY, number)));
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
        let (Some(user), Some(registration)) = (self.users.get_mut(number), &self.registration)
        else {
            return;
        };
        let Some(to) = registration.targets.get(user.target) else {
            return;
        };
        let is_first = authorization.is_empty();
        user.cseq += if is_first == (user.cseq % 2 == 0) { 1 } else { 2 };
        let name = &user.credentials.user;
        let aor = format!("<sip:{name}@{}>", self.domain);
        let contact = format!("<sip:{name}@{}>", user.local);
        let expires = user.expires.as_secs();
        let request = Request {
            method: "REGISTER",
            uri: &format!("sip:{}", self.domain),
            sent_by: user.local,
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
        let way = Way { socket: user.socket, to: *to };
        let mut index = Index::new();
        let key =
            parse(&request, &mut index, Framing::Datagram).ok().map(|it| layer.client_key(&it));
        let started = key.and_then(|key| {
            let (kind, reliability) = (Kind::NonInvite, Reliability::Unreliable);
            layer.client_new(now, key, kind, request.clone(), way, reliability, out).ok()
        });
        match started {
            Some(id) => {
                self.pending.insert(id, number);
            }
            None => self.alarms.push(Reverse((now + RETRY, number))),
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
