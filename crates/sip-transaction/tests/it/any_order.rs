//! Messages, answers, errors and the clock in any order: what must hold whatever happens.
//!
//! `SIPCLOUD_SEED=n` plays one seed alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::StatusCode;
use sip_transaction::{
    ClientId, ClientVerdict, Event, Hop, Kind, Layer, Limits, Origin, Reliability, ServerId, Sink,
    Timing,
};

use crate::text::{Request, epoch, read, response};

const SEEDS: u64 = 400;
const STEPS: usize = 300;
const TRANSACTIONS_MAX: usize = 6;

/// Goal: no order of events breaks a promise of the layer.
///
/// Method: for each seed three hundred random events over a handful of transactions, then time
/// alone. Checked after every event: the bounds; that finals reach the user once; that nothing is
/// said of a transaction after its end; that nothing leaves for the wire without a cause. At the
/// end: both tables empty, no timer left.
#[test]
fn any_order_of_events_keeps_the_promises() {
    for seed in seeds() {
        let result = std::panic::catch_unwind(|| World::new(seed).play());
        assert!(
            result.is_ok(),
            "replay with: SIPCLOUD_SEED={seed} cargo test -p sip-transaction any_order"
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "the seed to replay comes from the developer")]
fn seeds() -> Vec<u64> {
    match std::env::var("SIPCLOUD_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIPCLOUD_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

/// SplitMix64: enough for shuffling events, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[derive(Default)]
struct Out {
    sent: Vec<(Origin, Bytes)>,
    events: Vec<Event>,
}

impl Sink<u8> for Out {
    fn transmit(&mut self, _to: &u8, bytes: &Bytes, from: Origin) {
        self.sent.push((from, bytes.clone()));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// What the test knows of a transaction.
struct Known {
    request: Request,
    kind: Kind,
    reliability: Reliability,
    born: Instant,
    /// Final responses delivered to the user, or accepted from it.
    finals: usize,
    ended: bool,
}

struct World {
    random: Random,
    layer: Layer<u8>,
    now: Instant,
    out: Out,
    born: u32,
    clients: HashMap<ClientId, Known>,
    servers: HashMap<ServerId, Known>,
    client_ids: Vec<ClientId>,
    server_ids: Vec<ServerId>,
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = Limits { transactions_max: TRANSACTIONS_MAX };
        Self {
            random: Random(seed),
            layer: Layer::new(Timing::RFC_3261, limits, [3; 16]),
            now: epoch(),
            out: Out::default(),
            born: 0,
            clients: HashMap::new(),
            servers: HashMap::new(),
            client_ids: Vec::new(),
            server_ids: Vec::new(),
        }
    }

    fn play(mut self) {
        for _ in 0..STEPS {
            match self.random.below(9) {
                0 => self.new_client(),
                1 => self.new_server(),
                2 | 3 => self.response(),
                4 => self.repeat_or_ack(),
                5 | 6 => self.answer(),
                7 => self.transport_error(),
                _ => self.pass_time(),
            }
            self.check();
        }
        self.finish();
    }

    fn some_request(&mut self) -> (Request, Kind, Reliability) {
        self.born += 1;
        let kind = if self.random.below(2) == 0 { Kind::Invite } else { Kind::NonInvite };
        let method = if kind == Kind::Invite { "INVITE" } else { "OPTIONS" };
        let reliability = match self.random.below(3) {
            0 => Reliability::Reliable,
            _ => Reliability::Unreliable,
        };
        let branch = format!("z9hG4bK{}", self.born);
        (Request { branch: Some(branch), ..Request::new(method) }, kind, reliability)
    }

    fn known(&self, request: Request, kind: Kind, reliability: Reliability) -> Known {
        Known { request, kind, reliability, born: self.now, finals: 0, ended: false }
    }

    fn new_client(&mut self) {
        let (request, kind, reliability) = self.some_request();
        let bytes = request.bytes();
        let key = read(&bytes, |it| self.layer.client_key(it));
        let full = self.layer.client_transactions() == TRANSACTIONS_MAX;
        let new = self.layer.client_new(self.now, key, kind, bytes, 0, reliability, &mut self.out);
        assert_eq!(new.is_err(), full, "refused exactly when full");
        if let Ok(id) = new {
            self.clients.insert(id, self.known(request, kind, reliability));
            self.client_ids.push(id);
        }
    }

    fn new_server(&mut self) {
        let (request, kind, reliability) = self.some_request();
        let key = read(&request.bytes(), |it| self.layer.server_key(it, Hop::Direct));
        let full = self.layer.server_transactions() == TRANSACTIONS_MAX;
        let new = self.layer.server_new(key, kind, reliability, 0);
        assert_eq!(new.is_err(), full, "refused exactly when full");
        if let Ok(id) = new {
            assert_eq!(self.layer.server_find(key), Some(id));
            self.servers.insert(id, self.known(request, kind, reliability));
            self.server_ids.push(id);
        }
    }

    fn some_status(&mut self) -> StatusCode {
        let codes = [100, 180, 200, 202, 302, 404, 486, 503, 603];
        let code = codes[self.random.below(codes.len() as u64) as usize];
        StatusCode::new(code).expect("a status")
    }

    fn some_client(&mut self) -> Option<ClientId> {
        let recent = self.client_ids.len().min(8) as u64;
        let back = if recent == 0 { return None } else { self.random.below(recent) as usize };
        self.client_ids.iter().rev().nth(back).copied()
    }

    fn some_server(&mut self) -> Option<ServerId> {
        let recent = self.server_ids.len().min(8) as u64;
        let back = if recent == 0 { return None } else { self.random.below(recent) as usize };
        self.server_ids.iter().rev().nth(back).copied()
    }

    fn response(&mut self) {
        let (status, Some(id)) = (self.some_status(), self.some_client()) else {
            return;
        };
        let known = self.clients.get_mut(&id).expect("known");
        let bytes = response(&known.request.bytes(), status);
        let verdict = read(&bytes, |response| {
            self.layer.client_handle_response(self.now, id, response, &mut self.out)
        });
        if verdict == ClientVerdict::Deliver {
            assert!(!known.ended, "a response was delivered after the end");
            if status.code() >= 200 {
                known.finals += 1;
                // Several 2xx may come to an INVITE; nothing else may come twice.
                let several = known.kind == Kind::Invite && status.code() < 300;
                assert!(known.finals == 1 || several, "a second final response: {status:?}");
            }
        }
    }

    fn repeat_or_ack(&mut self) {
        let Some(id) = self.some_server() else {
            return;
        };
        if self.random.below(2) == 0 {
            self.layer.server_handle_repeat(id, &mut self.out);
        } else {
            self.layer.server_handle_ack(self.now, id, &mut self.out);
        }
    }

    fn answer(&mut self) {
        let (status, Some(id)) = (self.some_status(), self.some_server()) else {
            return;
        };
        let known = self.servers.get_mut(&id).expect("known");
        let bytes = response(&known.request.bytes(), status);
        let before = self.out.sent.len();
        self.layer.server_respond(self.now, id, status, bytes, &mut self.out);
        if self.out.sent.len() > before {
            assert!(!known.ended, "answered after the end");
            if status.code() >= 200 {
                known.finals += 1;
                let several = known.kind == Kind::Invite && status.code() < 300;
                assert!(known.finals == 1 || several, "a second final response: {status:?}");
            }
        }
    }

    fn transport_error(&mut self) {
        // Rarely, or nothing would live long enough to be interesting.
        match self.random.below(12) {
            0 => {
                if let Some(id) = self.some_client() {
                    self.layer.client_transport_error(id, &mut self.out);
                }
            }
            1 => {
                if let Some(id) = self.some_server() {
                    self.layer.server_transport_error(id, &mut self.out);
                }
            }
            _ => {}
        }
    }

    fn pass_time(&mut self) {
        let milliseconds = match self.random.below(4) {
            0 => self.random.below(40_000),
            _ => self.random.below(1_500),
        };
        self.now += Duration::from_millis(milliseconds);
        self.layer.handle_timeout(self.now, &mut self.out);
        let next = self.layer.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "a deadline passed without effect");
    }

    /// After every event.
    fn check(&mut self) {
        for (origin, bytes) in std::mem::take(&mut self.out.sent) {
            assert!(!bytes.is_empty(), "an empty message was sent for {origin:?}");
            let known = match origin {
                Origin::Client(id) => self.clients.get(&id),
                Origin::Server(id) => self.servers.get(&id),
            };
            // The very first transmission comes before the test knows the name.
            assert!(known.is_none_or(|it| !it.ended), "{origin:?} spoke after its end");
        }
        for event in std::mem::take(&mut self.out.events) {
            let (known, ends) = match event {
                Event::ClientTerminated(id) => (self.clients.get_mut(&id), true),
                Event::ServerTerminated(id) => (self.servers.get_mut(&id), true),
                Event::ClientTimedOut(id) | Event::ClientTransportFailed(id) => {
                    (self.clients.get_mut(&id), false)
                }
                Event::ServerTimedOut(id) | Event::ServerTransportFailed(id) => {
                    (self.servers.get_mut(&id), false)
                }
            };
            let known = known.expect("events name known transactions");
            assert!(!known.ended, "{event:?} came after the end");
            known.ended |= ends;
        }
        let living = |ended: usize, all: usize| all - ended;
        let ended_clients = self.clients.values().filter(|it| it.ended).count();
        let ended_servers = self.servers.values().filter(|it| it.ended).count();
        assert_eq!(
            self.layer.client_transactions(),
            living(ended_clients, self.clients.len()),
            "every end is told, and only an end"
        );
        assert_eq!(self.layer.server_transactions(), living(ended_servers, self.servers.len()));
        assert!(self.layer.client_transactions() <= TRANSACTIONS_MAX);
        assert!(self.layer.server_transactions() <= TRANSACTIONS_MAX);
    }

    /// The user answers what waits for it, then only time passes: nothing may stay.
    fn finish(mut self) {
        for id in self.server_ids.clone() {
            if self.servers.get(&id).is_some_and(|it| it.finals == 0 && !it.ended) {
                self.layer.server_abandon(id);
                self.servers.remove(&id);
            }
        }
        for id in self.client_ids.clone() {
            // An INVITE that rings has no timer here: Timer C is the user's.
            let rings = |it: &Known| it.kind == Kind::Invite && it.finals == 0 && !it.ended;
            if self.clients.get(&id).is_some_and(rings) {
                self.layer.client_abandon(id);
                self.clients.remove(&id);
            }
        }
        let mut wakes = 0;
        while let Some(deadline) = self.layer.poll_timeout() {
            self.now = self.now.max(deadline);
            self.layer.handle_timeout(self.now, &mut self.out);
            self.check();
            wakes += 1;
            assert!(wakes < 1_000, "the schedule never empties");
        }
        assert_eq!(self.layer.client_transactions(), 0, "client transactions stayed");
        assert_eq!(self.layer.server_transactions(), 0, "server transactions stayed");
        for known in self.clients.values().chain(self.servers.values()) {
            assert!(known.ended && known.born <= self.now, "{:?}", known.reliability);
        }
    }
}
