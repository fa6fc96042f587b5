//! The two elements, the phones, and how one after the other has its turn.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::{
    BalancerMember, GenerationNumber, Incarnation, InstanceId, Member, Members, Membership,
    WEIGHT_NORMAL,
};
use load_balancer::{Probing, Timing};
use sip_net::clock;
use sip_net::poll::{Events, Poller};
use sip_net::stream::StreamLimits;
use store::memory::MemoryStore;
use store::{Blocking, Credential, Query, StoreError, UnixMillis};
use testkit::Allocations;

use crate::counted_turn;
use crate::phone::{DOMAIN, PAIRS, PASSWORD, Phone, Side, contact_of};

const BALANCER: &str = "127.114.10.1:5060";
const PROXY: &str = "127.114.20.1:5060";
const CALLER: &str = "127.114.30.1:5060";
const CALLEE: &str = "127.114.40.1:5060";
const MARKER: &str = "127.114.50.1:5060";
/// Reached only by a message that is lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any timer of a transaction whose end was heard: 64·T1.
const LAP: Duration = Duration::from_secs(33);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementName {
    Balancer,
    Proxy,
}

/// A small cloud in one thread.
pub(crate) struct Bed {
    balancer: load_balancer::Stepped,
    proxy: proxy::Stepped,
    /// Says who has something to do.
    poller: Poller,
    events: Events,
    callers: Phone,
    callees: Phone,
    /// Tells when loopback has delivered: a datagram to itself.
    marker: UdpSocket,
    counted: Option<ElementName>,
    total: Allocations,
    now: Instant,
    today: UnixMillis,
    lap: usize,
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl Bed {
    pub(crate) fn new() -> Self {
        let balancer = load_balancer::Stepped::new(balancer_config()).expect("a balancer");
        let proxy = proxy::Stepped::new(proxy_config(), &store()).expect("a proxy");
        let membership = membership();
        balancer.put_membership(membership.clone()).expect("a first generation");
        proxy.put_membership(membership).expect("a first generation");
        let callers = Phone::new(Side::Caller, at(CALLER), at(BALANCER));
        let callees = Phone::new(Side::Callee, at(CALLEE), at(BALANCER));
        let poller = Poller::new().expect("a poller");
        poller.add(&balancer, ElementName::Balancer as u64).expect("watched");
        poller.add(&proxy, ElementName::Proxy as u64).expect("watched");
        Self {
            balancer,
            proxy,
            poller,
            events: Events::default(),
            callers,
            callees,
            marker: marker(),
            counted: None,
            total: Allocations::default(),
            now: clock::now(),
            today: UnixMillis(1_700_000_000_000),
            lap: 0,
        }
    }

    /// From now on the turns of this element are counted.
    pub(crate) fn count(&mut self, element: ElementName) {
        self.counted = Some(element);
    }

    pub(crate) fn counted(&self) -> Allocations {
        self.total
    }

    /// Every callee registers: REGISTER, 401, REGISTER, 200.
    pub(crate) fn register(&mut self) {
        let lap = self.lap;
        self.say(Side::Callee, |phone, n| phone.register(n, lap, 1, ""));
        let challenges = self.hear(Side::Callee, "SIP/2.0 401");
        self.say(Side::Callee, |phone, n| {
            let uri = format!("sip:{DOMAIN}");
            let proof = phone.credentials(n, &challenges[n], "REGISTER", &uri);
            phone.register(n, lap, 2, &proof)
        });
        self.hear(Side::Callee, "SIP/2.0 200");
        self.end_lap();
    }

    /// Figure 4, by every caller to its callee.
    pub(crate) fn call(&mut self) {
        let lap = self.lap;
        self.say(Side::Caller, |phone, n| phone.invite(n, lap, 1, ""));
        let challenges = self.hear(Side::Caller, "SIP/2.0 407");
        self.say(Side::Caller, |phone, n| phone.ack_refusal(n, lap, &challenges[n]));
        self.run();
        self.say(Side::Caller, |phone, n| {
            let proof = phone.credentials(n, &challenges[n], "INVITE", &phone.callee(n));
            phone.invite(n, lap, 2, &proof)
        });
        self.hear(Side::Caller, "SIP/2.0 100");
        let invites = self.hear(Side::Callee, "INVITE ");
        self.say(Side::Callee, |phone, n| phone.answer(&invites[n], "180 Ringing"));
        self.hear(Side::Caller, "SIP/2.0 180");
        self.say(Side::Callee, |phone, n| phone.answer(&invites[n], "200 OK"));
        let answers = self.hear(Side::Caller, "SIP/2.0 200");
        self.say(Side::Caller, |phone, n| phone.in_dialog(n, lap, &answers[n], (2, "ACK"), ""));
        self.hear(Side::Callee, "ACK ");
        self.say(Side::Caller, |phone, n| phone.in_dialog(n, lap, &answers[n], (3, "BYE"), ""));
        let challenges = self.hear(Side::Caller, "SIP/2.0 407");
        self.say(Side::Caller, |phone, n| {
            let uri = contact_of(&answers[n]);
            let proof = phone.credentials(n, &challenges[n], "BYE", &uri);
            phone.in_dialog(n, lap, &answers[n], (4, "BYE"), &proof)
        });
        let byes = self.hear(Side::Callee, "BYE ");
        self.say(Side::Callee, |phone, n| phone.answer(&byes[n], "200 OK"));
        self.hear(Side::Caller, "SIP/2.0 200");
        self.end_lap();
    }

    /// Gives turns until every phone of this side has heard this; in the order of the pairs.
    fn hear(&mut self, side: Side, start: &str) -> Vec<String> {
        let mut heard = vec![String::new(); PAIRS];
        let mut missing = PAIRS;
        while missing > 0 {
            let phone = self.phone(side);
            if let Some(text) = phone.next() {
                assert!(text.starts_with(start), "{start} is due, and this came: {text}");
                let place = phone.pair_of(&text);
                assert!(heard[place].is_empty(), "twice: {text}");
                heard[place] = text;
                missing -= 1;
            } else {
                assert!(self.give_turns(), "{missing} times no {start}");
            }
        }
        heard
    }

    /// Gives turns until nobody has anything to do.
    fn run(&mut self) {
        while self.give_turns() {}
    }

    /// A turn for whoever has something to do; whether there was anybody.
    fn give_turns(&mut self) -> bool {
        self.poller.wait(Some(Duration::ZERO), &mut self.events).expect("it waits");
        let mut is_anybody = false;
        for element in [ElementName::Balancer, ElementName::Proxy] {
            if self.events.tokens().any(|token| token == element as u64) {
                self.turn(element);
                is_anybody = true;
            }
        }
        is_anybody
    }

    fn turn(&mut self, element: ElementName) {
        let Self { balancer, proxy, now, today, .. } = self;
        let mut turn = || match element {
            ElementName::Balancer => balancer.turn().expect("its poller works"),
            ElementName::Proxy => proxy.turn(*now, *today).expect("its poller works"),
        };
        if self.counted == Some(element) {
            let more = counted_turn(&mut turn);
            self.total.count += more.count;
            self.total.bytes += more.bytes;
        } else {
            turn();
        }
        self.settle();
    }

    fn phone(&self, side: Side) -> &Phone {
        match side {
            Side::Caller => &self.callers,
            Side::Callee => &self.callees,
        }
    }

    fn say(&self, side: Side, message: impl Fn(&Phone, usize) -> String) {
        self.phone(side).say(message);
        self.settle();
    }

    /// Waits until everything that was sent has arrived: on a busy machine the kernel delivers later,
    /// but in order, to one core, to which this process is bound.
    fn settle(&self) {
        self.marker.send_to(b"marker", at(MARKER)).expect("loopback takes it");
        self.marker.recv(&mut [0; 8]).expect("loopback delivers");
    }

    /// Nothing more is on its way; then the timers of what has ended.
    fn end_lap(&mut self) {
        self.run();
        for phone in [&self.callers, &self.callees] {
            assert_eq!(phone.next(), None, "more than was due");
        }
        self.now += LAP;
        self.today = UnixMillis(self.today.0 + LAP.as_secs() * 1_000);
        self.lap += 1;
        self.turn(ElementName::Proxy);
        self.run();
    }
}

fn marker() -> UdpSocket {
    let socket = UdpSocket::bind(at(MARKER)).expect("a free address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn membership() -> Membership {
    let proxy = Member {
        instance: InstanceId::proxy(1),
        worker: 0,
        incarnation: Incarnation(1),
        address: at(PROXY),
        weight: WEIGHT_NORMAL,
    };
    let balancer = BalancerMember {
        instance: InstanceId::balancer(1),
        incarnation: Incarnation(1),
        internal: at(BALANCER),
        advertised: at(BALANCER),
    };
    let members = Members { proxies: vec![proxy], balancers: vec![balancer], ..Members::default() };
    Membership::new(GenerationNumber { fence: 1, counter: 1 }, fleet::ROWS_DEFAULT, members)
}

fn balancer_config() -> load_balancer::Config {
    load_balancer::Config {
        instance: InstanceId::balancer(1),
        incarnation: Incarnation(1),
        internal: at(BALANCER),
        advertised: at(BALANCER),
        extra: Vec::new(),
        threads: 1,
        keys: testkit::keys(),
        service_names: vec!["sip.example.com".to_owned()],
        internal_mtu_bytes: 1_400,
        receive_buffer_bytes: 8 << 20,
        stream_limits: StreamLimits::default(),
        timing: Timing::default(),
        kept_bytes_max: 1 << 20,
        drain_streams_per_s: 20,
        probing: Probing::default(),
    }
}

fn proxy_config() -> proxy::Config {
    proxy::Config {
        instance: InstanceId::proxy(1),
        incarnation: Incarnation(1),
        listen: at(PROXY),
        workers: 1,
        keys: testkit::keys(),
        domains: vec![DOMAIN.to_owned()],
        service_names: vec!["sip.example.com".to_owned()],
        trusted_trunks: Vec::new(),
        foreign_callers: Default::default(),
        dialog_methods: vec!["INVITE".to_owned(), "BYE".to_owned()],
        digest: Default::default(),
        registrar: Default::default(),
        timing: sip_transaction::Timing::RFC_3261,
        timer_c: Duration::from_secs(181),
        limits: Default::default(),
        internal_mtu: 1_400,
        receive_buffer_bytes: 8 << 20,
        name_servers: Vec::new(),
    }
}

/// In memory, with every user.
fn store() -> proxy::StoreFactory {
    let store = MemoryStore::new(Arc::new(|| {}));
    let opened = Blocking::open(PATIENCE, |wake| Ok::<_, StoreError>(store.handle(wake)));
    let mut filler = opened.expect("a store");
    for side in [Side::Caller, Side::Callee] {
        for n in 0..PAIRS {
            let (realm, username) = (DOMAIN.to_owned(), side.user(n));
            let credential = Credential::new(&username, DOMAIN, PASSWORD);
            filler.ask(Query::PutCredential { realm, username, credential }).expect("a user");
        }
    }
    Box::new(move |wake| Ok(Box::new(store.handle(wake)) as Box<dyn store::Store>))
}
