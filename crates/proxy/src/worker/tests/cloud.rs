//! Balancers, proxies and whoever publishes generations, on one clock.

mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::{
    EarlierSet, FleetKeys, GenerationNumber, Incarnation, InstanceId, Member, Members, Membership,
};
use sip_core::flow_token::{Flow, write_path};
use sip_core::mac::KeyRing;
use sip_core::selection::Selection;
use sip_core::stateless::{
    self, BalancerIdentity, BalancerView, Directory, EarlierOwners, Verdict,
};
use sip_message::{Edits, Framing, Index, Reply, Transport, write_reply_edited};
use sip_net::poll::Poller;
use sip_net::resolve::{Resolver, ResolverOptions};
use sip_net::stream::{StreamOptions, Streams};
use sip_net::udp::{UdpOptions, UdpSocket};
use store::memory::MemoryStore;
use store::{Aor, Binding, BindingId, Query, Store, Ticket, UnixMillis};
use testkit::Random;

use super::super::{Parts, Worker};
use super::Weather;
use super::network::{Network, Packet};
use super::peers::{Caller, Manner, Phone, Plan};
use crate::arrival::Source;
use crate::config::Config;
use crate::control::Control;
use crate::handover::OldestStamp;
use crate::leave::{Way, Wire};
use crate::metrics::Counters;

const TICK: Duration = Duration::from_millis(10);
const ROWS: u32 = 1 << 6;
const PROXIES: u16 = 4;
const PATIENCE: Duration = Duration::from_secs(32);

/// Whom one calls, and what each of the phones does: all at once, or (`true`) one after the other.
const CALLEES: [(&str, &[Manner], bool); 6] = [
    ("answers", &[Manner::Answers], false),
    ("refuses", &[Manner::Refuses], false),
    ("rings", &[Manner::Rings], false),
    ("one-of-two", &[Manner::Answers, Manner::Rings], false),
    ("both-refuse", &[Manner::Refuses, Manner::Refuses], false),
    ("second-answers", &[Manner::Refuses, Manner::Answers], true),
];

struct Balancer {
    me: BalancerIdentity,
    /// In force, and what is on its way here.
    table: Table,
    coming: Vec<(Instant, Membership)>,
    suspects: BTreeMap<SocketAddr, (Instant, Instant)>,
    dead: BTreeMap<(SocketAddr, Incarnation), Instant>,
}

struct Table {
    membership: Membership,
    directory: Directory,
    selection: Selection,
    earlier: Vec<EarlierOwners>,
}

impl Table {
    fn new(ring: &KeyRing, membership: Membership) -> Self {
        let key = ring.selection_key();
        let owners = |set: &EarlierSet| {
            let selection = Arc::new(Selection::new(ROWS, key, &set.proxies));
            EarlierOwners::new(set, selection, &membership)
        };
        Self {
            directory: Directory::new(&membership),
            selection: Selection::new(ROWS, key, &membership.proxies),
            earlier: membership.earlier.iter().map(owners).collect(),
            membership,
        }
    }
}

struct Proxy {
    worker: Worker,
    member: Member,
    stamp: Arc<OldestStamp>,
    coming: Vec<(Instant, Membership)>,
}

pub(super) struct Cloud {
    now: Instant,
    today: u64,
    random: Random,
    network: Network,
    ring: KeyRing,
    store: MemoryStore,
    balancers: Vec<Balancer>,
    proxies: BTreeMap<u16, Proxy>,
    incarnations: u32,
    /// Who shall own the calls.
    owners: BTreeSet<u16>,
    published: Membership,
    /// When each earlier set was last owner at some balancer, in their order.
    ended: Vec<Option<Instant>>,
    /// Deaths that the manager has not seen yet, and slots that it will fill again.
    unseen: Vec<(Instant, u16)>,
    returns: Vec<(Instant, u16)>,
    next_look: Instant,
    fail_over_percent: u64,
    deaths: Vec<Instant>,
    /// Deaths, suspicions and changes of owners, for the reader of a test that failed.
    history: Vec<String>,
    callers: Vec<Caller>,
    phones: Vec<Phone>,
}

fn keys() -> FleetKeys {
    testkit::keys()
}

impl Cloud {
    pub(super) fn new(seed: u64, weather: &Weather) -> Self {
        let ring = KeyRing::new(&keys()).expect("sound keys");
        let now = testkit::epoch();
        let members = Members {
            proxies: testkit::proxies(PROXIES),
            balancers: testkit::balancers(2),
            ..Members::default()
        };
        let published = Membership::new(GenerationNumber { fence: 1, counter: 1 }, ROWS, members);
        let mut random = Random::new(seed);
        let balancer = |one: &fleet::BalancerMember| Balancer {
            me: BalancerIdentity {
                instance: one.instance,
                connections: 1,
                internal: one.internal,
                listeners: vec![one.internal, one.advertised],
            },
            table: Table::new(&ring, published.clone()),
            coming: Vec::new(),
            suspects: BTreeMap::new(),
            dead: BTreeMap::new(),
        };
        let mut cloud = Self {
            now,
            today: 1_700_000_000_000,
            network: Network::new(random.next_u64(), weather),
            store: MemoryStore::new(Arc::new(|| ())),
            balancers: published.balancers.iter().map(balancer).collect(),
            proxies: BTreeMap::new(),
            incarnations: published.proxies[0].incarnation.0,
            owners: (1..=PROXIES).collect(),
            ended: Vec::new(),
            unseen: Vec::new(),
            returns: Vec::new(),
            next_look: now,
            fail_over_percent: weather.fail_over_percent,
            deaths: Vec::new(),
            history: Vec::new(),
            callers: Vec::new(),
            phones: Vec::new(),
            random,
            ring,
            published,
        };
        for member in cloud.published.proxies.clone() {
            cloud.start(member);
        }
        cloud.register();
        cloud
    }

    fn start(&mut self, member: Member) {
        let config = Arc::new(config(member));
        let control = Arc::new(Control::default());
        control.put_membership(self.published.clone()).expect("the first one");
        let counters = Arc::new(Counters::default());
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let udp = UdpSocket::bind(loopback, UdpOptions::default()).expect("a port");
        let waker = Poller::new().expect("a poller").waker();
        let streams = Streams::start(StreamOptions::default(), waker.clone()).expect("streams");
        let resolver = Resolver::start(ResolverOptions::default(), waker).expect("a resolver");
        let mut wire = Wire::new(udp, streams, 1_400, counters.clone());
        wire.captured = Some(Vec::new());
        let stamp = Arc::new(OldestStamp::default());
        let mut worker = Worker::new(Parts {
            config,
            ring: KeyRing::new(&keys()).expect("sound keys"),
            wire,
            store: Box::new(self.store.handle(Arc::new(|| ()))),
            resolver,
            counters,
            control,
            oldest_stamp: stamp.clone(),
            leaving: Default::default(),
            hash_key: [5; 16],
        });
        worker.world.address = member.address;
        worker.now = self.now;
        worker.take_control();
        let proxy = Proxy { worker, member, stamp, coming: Vec::new() };
        self.proxies.insert(member.instance.slot, proxy);
    }

    /// Every phone stands in the location service, with the Path that a balancer gave it.
    fn register(&mut self) {
        for (number, (user, manners, is_serial)) in (0..).zip(CALLEES) {
            let mut upserts = Vec::new();
            for (place, manner) in (0..).zip(manners) {
                let address = SocketAddr::from(([10, 0, 40 + place, number], 5060));
                let delay = Duration::from_millis(1_000 + self.random.below(19_000));
                self.phones.push(Phone::new(address, *manner, delay));
                let balancer = &self.balancers[usize::from(place + number) % 2].me;
                let flow = Flow {
                    listener: 1,
                    transport: Transport::Udp,
                    remote: address,
                    connection: None,
                };
                let mut path = Vec::new();
                write_path(&self.ring, &flow, balancer.internal, &mut path);
                upserts.push(Binding {
                    id: BindingId([16 * number + place + 1; 16]),
                    contact: format!("sip:{user}@{address}").into_bytes(),
                    path: vec![path],
                    received: None,
                    q: if is_serial { 1_000 - 500 * u16::from(place) } else { 1_000 },
                    call_id: Vec::new(),
                    cseq: 0,
                    expires_at: UnixMillis::NEVER,
                    updated_at: UnixMillis(1),
                    user_agent: Vec::new(),
                    instance: None,
                    reg_id: None,
                    direct: false,
                });
            }
            let aor = Aor::new(user.as_bytes(), b"example.com");
            let query = Query::Write { aor, upserts, now: UnixMillis(1) };
            self.store.submit(Ticket(u64::from(number)), query);
            self.store.poll_completion().expect("at once").result.expect("written");
        }
    }

    pub(super) fn begin_call(&mut self) {
        let call = self.callers.len() as u64;
        let (callee, manners, _) = *self.random.choose(&CALLEES).expect("some");
        let is_hasty = self.random.percent(25) || manners == [Manner::Rings];
        let seconds = if is_hasty { 3 + self.random.below(20) } else { 75 };
        let plan = Plan {
            call,
            patience: Duration::from_secs(seconds),
            fails_over: self.random.percent(self.fail_over_percent),
        };
        let number = u8::try_from(call % 200).expect("small");
        let address = SocketAddr::from(([10, 0, 50, number], 5060));
        let mut balancers = [0, 1].map(|place: usize| self.balancers[place].me.listeners[1]);
        if self.random.percent(50) {
            balancers.reverse();
        }
        self.callers.push(Caller::new(self.now, plan, address, callee, balancers));
    }

    /// One of the owners dies, if another is left. Balancers suspect it first, and one after the other
    /// knows; then the manager does, and in the end the slot is filled again.
    pub(super) fn kill_a_proxy(&mut self) {
        let alive: Vec<u16> =
            self.owners.iter().copied().filter(|slot| self.proxies.contains_key(slot)).collect();
        if alive.len() < 2 {
            return;
        }
        let slot = *self.random.choose(&alive).expect("two at least");
        let dead = self.proxies.remove(&slot).expect("it lives");
        self.deaths.push(self.now);
        self.note(format!("{} dies", dead.member.address));
        for balancer in &mut self.balancers {
            let seen = self.now + Duration::from_millis(100 + self.random.below(400));
            let sure = seen + Duration::from_millis(self.random.below(300));
            let address = dead.member.address;
            balancer.suspects.insert(address, (seen, sure));
            balancer.dead.insert((address, dead.member.incarnation), sure);
        }
        let seen = self.now + Duration::from_millis(1_000 + self.random.below(5_000));
        self.unseen.push((seen, slot));
        self.returns.push((seen + Duration::from_secs(1 + self.random.below(10)), slot));
    }

    /// Another set of owners: each proxy that lives with a chance of one half.
    pub(super) fn change_owners(&mut self) {
        let alive: Vec<u16> = self.proxies.keys().copied().collect();
        let owners: BTreeSet<u16> =
            alive.iter().copied().filter(|_| self.random.percent(50)).collect();
        if !owners.is_empty() {
            self.note(format!("owners {owners:?}"));
            self.owners = owners;
        }
    }

    fn note(&mut self, what: String) {
        let at = (self.now - testkit::epoch()).as_secs_f64();
        self.history.push(format!("{at:.3} {what}"));
    }

    /// A proxy that lives misses its probes for a second.
    pub(super) fn suspect_somebody(&mut self) {
        let alive: Vec<SocketAddr> = self.proxies.values().map(|it| it.member.address).collect();
        let Some(address) = self.random.choose(&alive) else { return };
        self.note(format!("{address} is suspect"));
        for balancer in &mut self.balancers {
            let until = self.now + Duration::from_secs(1);
            balancer.suspects.entry(*address).or_insert((self.now, until));
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += TICK;
            self.today += 10;
            self.manage();
            self.take_generations();
            while let Some(packet) = self.network.next(self.now) {
                self.deliver(&packet);
            }
            self.wake();
        }
    }

    fn deliver(&mut self, packet: &Packet) {
        if let Some(place) =
            self.balancers.iter().position(|one| one.me.listeners.contains(&packet.to))
        {
            return self.balance(place, packet);
        }
        let now = self.now;
        if let Some(phone) = self.phones.iter_mut().find(|it| it.address == packet.to) {
            return phone.take(now, packet.from, &packet.bytes);
        }
        if let Some(caller) = self.callers.iter_mut().find(|it| it.address == packet.to) {
            return caller.take(now, &packet.bytes);
        }
        let proxy = self.proxies.values_mut().find(|it| it.member.address == packet.to);
        if let Some(proxy) = proxy {
            proxy.worker.now = self.now;
            proxy.worker.today = UnixMillis(self.today);
            let source = Source { address: packet.from, stream: None };
            let mut index = Index::new();
            proxy.worker.take_message(&packet.bytes, source, Framing::Datagram, &mut index);
            proxy.worker.take_completions();
            let slot = proxy.member.instance.slot;
            self.send_from(slot);
        }
    }

    fn send_from(&mut self, slot: u16) {
        let Some(proxy) = self.proxies.get_mut(&slot) else { return };
        let from = proxy.member.address;
        let captured = proxy.worker.wire.captured.as_mut().expect("on virtual time");
        for (way, bytes) in captured.drain(..) {
            let (Way::Tier(to) | Way::Peer { address: to, .. } | Way::Stream { address: to, .. }) =
                way;
            self.network.send(self.now, from, to, &bytes);
        }
    }

    fn wake(&mut self) {
        let (now, network) = (self.now, &mut self.network);
        for caller in &mut self.callers {
            caller.wake(now);
            for (to, bytes) in caller.out.sent.drain(..) {
                network.send(now, caller.address, to, &bytes);
            }
        }
        for phone in &mut self.phones {
            phone.wake(now);
            for (to, bytes) in phone.out.sent.drain(..) {
                network.send(now, phone.address, to, &bytes);
            }
        }
        for slot in self.proxies.keys().copied().collect::<Vec<u16>>() {
            if let Some(proxy) = self.proxies.get_mut(&slot) {
                proxy.worker.now = now;
                proxy.worker.today = UnixMillis(self.today);
                proxy.worker.take_timers();
                proxy.worker.take_completions();
                proxy.worker.stamps.show();
            }
            self.send_from(slot);
        }
    }

    /// What a balancer does with a packet: its whole decision is the product's.
    fn balance(&mut self, place: usize, packet: &Packet) {
        let balancer = &self.balancers[place];
        let table = &balancer.table;
        let members: Vec<&Member> = table.membership.every_proxy().collect();
        let is_dead = |member: usize| {
            members.get(member).is_some_and(|it| {
                let since = balancer.dead.get(&(it.address, it.incarnation));
                since.is_some_and(|since| self.now >= *since)
            })
        };
        let is_suspect = |member: usize| {
            members.get(member).is_some_and(|it| {
                let doubt = balancer.suspects.get(&it.address);
                doubt.is_some_and(|(from, until)| (*from..*until).contains(&self.now))
            })
        };
        let view = BalancerView {
            ring: &self.ring,
            me: &balancer.me,
            directory: &table.directory,
            selection: &table.selection,
            generation: table.membership.generation,
            earlier: &table.earlier,
            service_names: &[],
            internal_mtu_bytes: 65_535,
            is_dead: &is_dead,
            is_suspect: &is_suspect,
        };
        let listener = balancer.me.listeners.iter().position(|it| *it == packet.to);
        let source = Flow {
            listener: u8::try_from(listener.expect("one of ours")).expect("two"),
            transport: Transport::Udp,
            remote: packet.from,
            connection: None,
        };
        let mut index = Index::new();
        let parsed = sip_message::parse(&packet.bytes, &mut index, Framing::Datagram);
        let message = parsed.unwrap_or_else(|malformed| {
            panic!("{}: {}", malformed.error, String::from_utf8_lossy(&packet.bytes))
        });
        let mut edits = Edits::new();
        let mut out = Vec::new();
        let (now, network) = (self.now, &mut self.network);
        match stateless::handle(&view, &message, &source, &mut edits) {
            Verdict::ToMember { address, also, .. } => {
                edits.apply(message.bytes(), &mut out);
                let bytes = out.into();
                for to in [Some(address), also].into_iter().flatten() {
                    network.send(now, balancer.me.internal, to, &bytes);
                }
            }
            Verdict::ToFlow { flow, .. } => {
                edits.apply(message.bytes(), &mut out);
                let from = balancer.me.listeners[usize::from(flow.listener)];
                network.send(now, from, flow.remote, &out.into());
            }
            Verdict::Reply { status, .. } => {
                let reply = Reply { to_tag: Some(b"balancer"), ..Reply::new(status) };
                write_reply_edited(&message, &reply, &edits, &mut out);
                network.send(now, packet.to, packet.from, &out.into());
            }
            Verdict::Drop(_) => {}
        }
    }

    /// What the manager does every half second: owners, earlier sets, and what became of the dead.
    fn manage(&mut self) {
        if self.now < self.next_look {
            return;
        }
        self.next_look = self.now + Duration::from_millis(500);
        let now = self.now;
        let (seen, unseen) = self.unseen.iter().partition(|(at, _)| *at <= now);
        self.unseen = unseen;
        let seen: Vec<(Instant, u16)> = seen;
        self.owners.retain(|slot| seen.iter().all(|(_, dead)| dead != slot));
        let (due, later): (Vec<_>, Vec<_>) = self.returns.iter().partition(|(at, _)| *at <= now);
        self.returns = later;
        for (_, slot) in due {
            self.incarnations += 1;
            let incarnation = Incarnation(self.incarnations);
            let old = testkit::proxies(PROXIES)[usize::from(slot - 1)];
            self.start(Member { incarnation, ..old });
            self.owners.insert(slot);
        }
        self.publish();
    }

    fn publish(&mut self) {
        // Whoever died and was not missed yet is still a member.
        let is_unseen = |slot: u16| self.unseen.iter().any(|(_, dead)| *dead == slot);
        let before = self.published.clone();
        let known: Vec<Member> = {
            let lives = self.proxies.values().map(|it| it.member);
            let missed = before.every_proxy().filter(|it| is_unseen(it.instance.slot)).copied();
            lives.chain(missed).collect()
        };
        let (mut proxies, mut retired): (Vec<Member>, Vec<Member>) =
            known.iter().copied().partition(|it| self.owners.contains(&it.instance.slot));
        if proxies.is_empty() {
            proxies = std::mem::take(&mut retired);
        }
        proxies.sort_unstable();
        let slowest = self.balancers.iter().map(|it| it.table.membership.generation).min();
        let slowest = slowest.expect("two balancers");
        let mut kept = Vec::new();
        for (set, since) in before.earlier.iter().zip(&self.ended) {
            let acknowledged = slowest > set.ended_with;
            let since = since.or_else(|| acknowledged.then_some(self.now));
            let is_settled = since.is_some_and(|since| self.now >= since + PATIENCE);
            let holds = set.proxies.iter().any(|member| {
                let it = self.proxies.get(&member.instance.slot);
                let it = it.filter(|it| it.member.incarnation == member.incarnation);
                it.is_some_and(|it| it.stamp.get().is_some_and(|stamp| stamp <= set.ended_with))
            });
            if !is_settled || holds {
                kept.push((EarlierSet { is_settled, ..set.clone() }, since));
            }
        }
        if proxies != before.proxies {
            if kept.len() >= fleet::EARLIER_SETS_MAX {
                return;
            }
            let proxies = before.proxies.clone();
            let ended_with = before.generation;
            kept.push((EarlierSet { ended_with, is_settled: false, proxies }, None));
        }
        self.ended = kept.iter().map(|(_, since)| *since).collect();
        let earlier = kept.into_iter().map(|(set, _)| set).collect();
        let members = Members { proxies, retired, earlier, ..before.members() };
        let number = GenerationNumber { fence: 1, counter: before.generation.counter + 1 };
        let next = Membership::new(number, ROWS, members);
        if next.members() == before.members() {
            return;
        }
        next.validate().expect("what a manager may publish");
        for balancer in &mut self.balancers {
            let at = self.now + Duration::from_millis(self.random.below(900));
            balancer.coming.push((at, next.clone()));
        }
        for proxy in self.proxies.values_mut() {
            let at = self.now + Duration::from_millis(self.random.below(900));
            proxy.coming.push((at, next.clone()));
        }
        self.published = next;
    }

    fn take_generations(&mut self) {
        let now = self.now;
        for balancer in &mut self.balancers {
            let (due, later): (Vec<_>, Vec<_>) =
                balancer.coming.drain(..).partition(|(at, _)| *at <= now);
            balancer.coming = later;
            for (_, membership) in due {
                if membership.generation > balancer.table.membership.generation {
                    balancer.table = Table::new(&self.ring, membership);
                }
            }
        }
        for proxy in self.proxies.values_mut() {
            let (due, later): (Vec<_>, Vec<_>) =
                proxy.coming.drain(..).partition(|(at, _)| *at <= now);
            proxy.coming = later;
            for (_, membership) in due {
                // One that was overtaken is refused.
                let _ = proxy.worker.control.put_membership(membership);
                proxy.worker.take_control();
            }
        }
    }
}

fn config(member: Member) -> Config {
    Config {
        instance: InstanceId { ..member.instance },
        incarnation: member.incarnation,
        listen: member.address,
        workers: 1,
        keys: keys(),
        domains: vec!["example.com".to_owned()],
        service_names: Vec::new(),
        trusted_trunks: vec!["10.0.50.0/24".parse().expect("a network")],
        foreign_callers: Default::default(),
        dialog_methods: Vec::new(),
        digest: Default::default(),
        registrar: Default::default(),
        timing: sip_transaction::Timing::RFC_3261,
        timer_c: Duration::from_secs(181),
        limits: Default::default(),
        internal_mtu: 65_535,
        receive_buffer_bytes: 1 << 16,
        name_servers: Vec::new(),
    }
}
