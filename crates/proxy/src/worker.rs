//! The event loop of one worker: one thread, one port, its own transactions. Timers come before
//! messages, and messages are handled in the order in which they came.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleet::Membership;
use sip_core::digest::Digest;
use sip_core::identity::IdentityPolicy;
use sip_core::mac::KeyRing;
use sip_core::names::LocalNames;
use sip_core::response::BranchFailure;
use sip_core::stray::Withheld;
use sip_message::{Framing, Index, Message, OwnedMessage, ParseError, Reply, StatusCode};
use sip_net::clock;
use sip_net::poll::{Events, Poller};
use sip_net::resolve::Resolver;
use sip_net::stream::StreamEvent;
use sip_net::udp::{PeerErrors, Receiver};
use sip_transaction::{ClientId, Event, KeyedMap, Layer, Origin, ServerId, TwinKey};
use store::{Query, Store, Ticket, UnixMillis, Waited};

use crate::arrival::{self, Arrival, Source, literal_sent_by};
use crate::balancers::Detours;
use crate::cancel::Cancels;
use crate::config::Config;
use crate::context::{ContextId, Contexts};
use crate::control::Control;
use crate::draft::Draft;
use crate::handover::{OldestStamp, PassedOn, Stamps};
use crate::leave::{Way, Wire};
use crate::leaving::{self, Departures};
use crate::metrics::Counters;
use crate::orphan::Orphans;
use crate::stray::Refusal;

/// Datagrams taken with one system call.
const BATCH: usize = 32;
/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Batches taken before timers and completions get their turn again.
const BATCHES_PER_TURN: usize = 8;
/// The longest wait: control is looked at this often at least.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Timers may come late by this part of T1, so that most of them are looked after in a turn that a
/// message has begun, and need no wake-up of their own.
const SLACK_OF_T1: u32 = 50;
const UDP_TOKEN: u64 = 1;

/// What a worker knows of the world around it.
pub(crate) struct World {
    pub(crate) config: Arc<Config>,
    /// This worker's own address.
    pub(crate) address: SocketAddr,
    pub(crate) ring: KeyRing,
    pub(crate) names: LocalNames,
    pub(crate) membership: Option<Arc<Membership>>,
    pub(crate) detours: Arc<Detours>,
    pub(crate) counters: Arc<Counters>,
}

impl World {
    /// The operator's choices on who is challenged.
    pub(crate) fn identity_policy(&self) -> IdentityPolicy<'_> {
        IdentityPolicy {
            names: &self.names,
            trusted_trunks: &self.config.trusted_trunks,
            foreign_callers: self.config.foreign_callers,
            dialog_methods: &self.config.dialog_methods,
        }
    }

    /// Takes a new membership: its addresses are the tier's own names.
    fn set_membership(&mut self, membership: Option<Arc<Membership>>) {
        let mut addresses = vec![self.address];
        for known in membership.iter() {
            addresses.extend(known.balancers.iter().flat_map(|it| [it.internal, it.advertised]));
            addresses.extend(known.proxies.iter().chain(&known.retired).map(|it| it.address));
        }
        let config = &self.config;
        self.names = LocalNames::new(&config.domains, &config.service_names, addresses);
        self.membership = membership;
    }
}

/// One event loop and everything that it owns.
pub(crate) struct Worker {
    pub(crate) world: World,
    pub(crate) layer: Layer<Way>,
    pub(crate) wire: Wire,
    pub(crate) contexts: Contexts,
    /// Which context and branch a client transaction is of.
    pub(crate) clients: KeyedMap<ClientId, (ContextId, usize)>,
    pub(crate) servers: KeyedMap<ServerId, ContextId>,
    pub(crate) stamps: Stamps,
    pub(crate) passed_on: PassedOn,
    pub(crate) orphans: Orphans,
    pub(crate) cancels: Cancels,
    pub(crate) departures: Departures,
    /// Refusals of calls whose proxy is dead.
    pub(crate) withheld: Withheld<Refusal>,
    /// Live INVITEs by what a client that fails over repeats (rule 10 of docs/protocol.md).
    pub(crate) twins: KeyedMap<TwinKey, ContextId>,
    pub(crate) store: Box<dyn Store>,
    pub(crate) resolver: Resolver,
    /// Which context and branch a name is resolved for.
    pub(crate) resolving: HashMap<u64, (ContextId, usize)>,
    pub(crate) resolve_tickets: u64,
    pub(crate) digest: Digest,
    pub(crate) draft: Draft,
    pub(crate) now: Instant,
    /// Wall-clock time of this turn.
    pub(crate) today: UnixMillis,
    /// Queries under way, by when they are given up; the patience is one, so they are in order.
    pub(crate) store_waits: VecDeque<(Instant, ContextId, u32)>,
    /// A query was submitted after the completions were taken last.
    has_asked: bool,
    /// Messages are left in the socket.
    has_more: bool,
    /// The store's counters have moved since they were shown last, or when they are looked at again.
    store_moved: bool,
    store_shown: Instant,
    alarms: BinaryHeap<Reverse<(Instant, ContextId)>>,
    control: Arc<Control>,
    control_version: u64,
}

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) ring: KeyRing,
    pub(crate) wire: Wire,
    pub(crate) store: Box<dyn Store>,
    pub(crate) resolver: Resolver,
    pub(crate) counters: Arc<Counters>,
    pub(crate) control: Arc<Control>,
    pub(crate) oldest_stamp: Arc<OldestStamp>,
    pub(crate) leaving: Arc<leaving::Shown>,
    /// Secret of the transaction tables.
    pub(crate) hash_key: [u8; 16],
}

/// What a loop takes messages with; reused from turn to turn.
pub(crate) struct Intake {
    pub(crate) ready: Events,
    receiver: Receiver,
    errors: PeerErrors,
    index: Index,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            ready: Events::default(),
            receiver: Receiver::new(BATCH, DATAGRAM_BYTES_MAX),
            errors: PeerErrors::default(),
            index: Index::new(),
        }
    }
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            config,
            ring,
            wire,
            store,
            resolver,
            counters,
            control,
            oldest_stamp,
            leaving,
            hash_key,
        } = parts;
        let address = wire.udp.local_addr();
        let digest = Digest::new(config.digest.clone());
        let patience = 64 * config.timing.t1;
        let layer = Layer::new(config.timing, config.limits, hash_key);
        let mut world = World {
            config,
            address,
            ring,
            names: LocalNames::default(),
            membership: None,
            detours: Arc::default(),
            counters,
        };
        world.set_membership(None);
        Self {
            world,
            layer,
            wire,
            contexts: Contexts::default(),
            clients: KeyedMap::default(),
            servers: KeyedMap::default(),
            stamps: Stamps::new(oldest_stamp),
            passed_on: PassedOn::default(),
            orphans: Orphans::default(),
            cancels: Cancels::default(),
            departures: Departures::new(leaving),
            withheld: Withheld::new(patience),
            twins: KeyedMap::default(),
            store,
            resolver,
            resolving: HashMap::new(),
            resolve_tickets: 0,
            digest,
            draft: Draft::default(),
            now: clock::now(),
            today: UnixMillis(clock::unix_millis()),
            store_waits: VecDeque::new(),
            has_asked: false,
            has_more: false,
            store_moved: true,
            store_shown: clock::now(),
            alarms: BinaryHeap::new(),
            control,
            control_version: u64::MAX,
        }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    ///
    /// The socket or the poller failed in a way that no retry mends.
    pub(crate) fn run(mut self, poller: &Poller) -> io::Result<()> {
        let mut intake = Intake::default();
        self.watch(poller)?;
        while !self.control.is_stopping() {
            self.rest(poller, &mut intake, clock::now())?;
            self.turn(&mut intake, clock::now(), UnixMillis(clock::unix_millis()))?;
        }
        self.store.close();
        Ok(())
    }

    /// Has `poller` report what this loop takes.
    pub(crate) fn watch(&self, poller: &Poller) -> io::Result<()> {
        poller.add(&self.wire.udp, UDP_TOKEN)
    }

    /// Waits for something to do: in the store, if that is where its work is done.
    pub(crate) fn rest(
        &mut self,
        poller: &Poller,
        intake: &mut Intake,
        now: Instant,
    ) -> io::Result<()> {
        let mut patience = self.patience(now);
        if self.store.wait(Some(poller.as_fd()), patience) != Waited::Elsewhere {
            self.has_asked = true;
            patience = Duration::ZERO;
        }
        poller.wait(Some(patience), &mut intake.ready)
    }

    /// Everything that there is to do between two waits.
    pub(crate) fn turn(
        &mut self,
        intake: &mut Intake,
        now: Instant,
        today: UnixMillis,
    ) -> io::Result<()> {
        let Intake { ready, receiver, errors, index } = intake;
        self.now = now;
        self.today = today;
        self.take_control();
        if ready.failing().any(|token| token == UDP_TOKEN) {
            self.wire.udp.take_errors(errors);
            self.take_peer_errors(errors);
        }
        self.take_timers();
        if ready.is_woken() {
            self.store_moved = true;
            self.take_completions();
            self.take_streams(index);
        }
        let is_readable = ready.tokens().any(|token| token == UDP_TOKEN);
        let batches = if is_readable { BATCHES_PER_TURN } else { 0 };
        for _ in 0..batches {
            let count = self.wire.udp.receive(receiver)?;
            for place in 0..count {
                let datagram = receiver.datagram(place);
                let source = Source { address: datagram.source, stream: None };
                self.take_message(datagram.bytes, source, Framing::Datagram, index);
            }
            self.take_prompt_completions();
            self.leave();
            if receiver.is_drained() {
                break;
            }
        }
        self.has_more = is_readable && !receiver.is_drained();
        self.take_prompt_completions();
        self.leave();
        self.world.counters.kernel_drops.set(receiver.kernel_drops());
        self.stamps.show();
        self.look_after_departures();
        self.show_gauges();
        Ok(())
    }

    /// How long the loop may sleep.
    fn patience(&self, now: Instant) -> Duration {
        if self.has_asked || self.has_more {
            return Duration::ZERO;
        }
        let alarm = self.alarms.peek().map(|Reverse((at, _))| *at);
        let others = [self.withheld.poll_timeout(), self.cancels.poll_timeout()];
        let all = [self.layer.poll_timeout(), alarm].into_iter().chain(others);
        let next = all.flatten().min();
        let slack = self.world.config.timing.t1 / SLACK_OF_T1;
        next.map_or(WAIT_MAX, |at| (at + slack).saturating_duration_since(now).min(WAIT_MAX))
    }

    fn take_control(&mut self) {
        let version = self.control.version();
        if version != self.control_version {
            self.control_version = version;
            self.world.set_membership(self.control.membership());
            let known = self.world.membership.as_deref();
            self.world.detours = Arc::new(Detours::new(known, self.control.unwell()));
            self.wire.detours = self.world.detours.clone();
            self.departures.look_again();
        }
    }

    /// Datagrams that did not arrive: at a balancer it means that nobody is there any more.
    fn take_peer_errors(&self, errors: &PeerErrors) {
        let Some(known) = self.world.membership.as_deref() else { return };
        let is_balancer = |at: SocketAddr| known.balancers.iter().any(|one| one.internal == at);
        for error in errors.iter().filter(|it| it.kind == io::ErrorKind::ConnectionRefused) {
            if is_balancer(error.to) {
                self.control.note_refusal(error.to);
            }
        }
    }

    fn take_timers(&mut self) {
        self.layer.handle_timeout(self.now, &mut self.wire);
        self.take_events();
        while let Some(Reverse((at, id))) = self.alarms.peek().copied() {
            if at > self.now {
                break;
            }
            self.alarms.pop();
            self.handle_alarm(at, id);
        }
        self.take_released();
        self.seek_phones();
        while self.store_waits.front().is_some_and(|(at, ..)| *at <= self.now) {
            if let Some((_, id, query)) = self.store_waits.pop_front() {
                self.give_up_query(id, query);
            }
        }
    }

    /// Hands a query to the store.
    pub(crate) fn ask(&mut self, ticket: Ticket, query: Query) {
        self.has_asked = true;
        self.store_moved = true;
        self.store.submit(ticket, query);
    }

    /// What the store has answered at once, or meanwhile: it leaves with the rest of the batch.
    fn take_prompt_completions(&mut self) {
        if self.has_asked {
            self.take_completions();
        }
    }

    fn take_completions(&mut self) {
        while let Some(completion) = self.store.poll_completion() {
            self.store_moved = true;
            self.handle_completion(completion);
            self.take_events();
        }
        self.has_asked = false;
        while let Some(resolution) = self.resolver.poll_completion() {
            self.handle_resolved(&resolution);
            self.take_events();
        }
    }

    fn take_streams(&mut self, index: &mut Index) {
        while let Some(event) = self.wire.streams.poll() {
            match event {
                StreamEvent::Message { id, remote, bytes, .. } => {
                    let source = Source { address: remote, stream: Some(id) };
                    self.take_message(&bytes, source, Framing::Stream, index);
                }
                StreamEvent::Malformed { id, remote, bytes, .. } => {
                    let source = Source { address: remote, stream: Some(id) };
                    self.take_message(&bytes, source, Framing::Datagram, index);
                }
                StreamEvent::Failed { to, undelivered, .. } => {
                    self.fail_stream(to, &undelivered, index);
                }
                StreamEvent::Opened { .. } | StreamEvent::Closed { .. } => {}
            }
        }
    }

    /// One message, by whatever transport.
    fn take_message(&mut self, bytes: &[u8], source: Source, framing: Framing, index: &mut Index) {
        self.world.counters.messages_received.add(1);
        self.world.counters.bytes_received.add(u64::try_from(bytes.len()).unwrap_or_default());
        match sip_message::parse(bytes, index, framing) {
            Ok(message) if message.is_request() => self.take_request(&message, source),
            Ok(message) => self.handle_response(&message),
            Err(malformed) if malformed.error == ParseError::Empty => self.answer_probe(source),
            Err(malformed) => {
                self.world.counters.drop_malformed.add(1);
                tracing::debug!(source = %source.address, error = %malformed.error, "malformed");
                if let Some(request) = malformed.message.filter(|it| it.is_request()) {
                    let status = malformed.error.status();
                    self.answer_malformed(&request, source, status);
                }
            }
        }
        self.take_events();
    }

    fn take_request(&mut self, received: &Message<'_>, source: Source) {
        let World { ring, membership, address, counters, .. } = &self.world;
        let membership = membership.as_deref();
        let mut arrival = Arrival::read(ring, membership, received, source);
        let request = if arrival.carrier.is_some() {
            arrival.read_handover(ring, received, *address);
            OwnedMessage::from(received)
        } else {
            let stamped = arrival::stamp(received, source, &mut self.draft);
            arrival = Arrival::read(ring, membership, &stamped.view(), source);
            stamped
        };
        counters.last_activity_ms.set(self.today.0);
        self.handle_request(request, arrival);
    }

    /// Tells a balancer that asks, with an empty line over UDP, that this loop turns. Nobody else
    /// is answered.
    fn answer_probe(&mut self, source: Source) {
        let membership = self.world.membership.as_deref();
        let is_member = membership.is_some_and(|it| it.has_ip(source.address.ip()));
        if source.stream.is_none() && is_member {
            self.wire.send(&Way::Tier(source.address), b"\r\n");
        }
    }

    fn answer_malformed(&mut self, request: &Message<'_>, source: Source, status: StatusCode) {
        let membership = self.world.membership.as_deref();
        let arrival = Arrival::read(&self.world.ring, membership, request, source);
        let mut out = Vec::new();
        let reply = Reply { status, reason: None, to_tag: None, fields: &[], body: &[] };
        sip_message::write_reply(request, &reply, &mut out);
        self.world.counters.count_reply(status.code());
        self.wire.send(&arrival.reply, &out);
    }

    /// What the transaction layer has to tell.
    pub(crate) fn take_events(&mut self) {
        while let Some(event) = self.wire.next_event() {
            self.handle_event(event);
        }
    }

    /// Sends what is queued; failures become transport errors of their transactions.
    fn leave(&mut self) {
        for origin in self.wire.flush() {
            match origin {
                Origin::Server(id) => self.layer.server_transport_error(id, &mut self.wire),
                Origin::Client(id) => self.layer.client_transport_error(id, &mut self.wire),
            }
        }
        self.take_events();
        self.wire.flush();
    }

    /// A stream did not deliver a message: what a balancer does not take goes through another one,
    /// once; any other request of ours has failed. A response that could not be delivered is repeated
    /// by its transaction, if anybody asks again.
    fn fail_stream(&mut self, to: SocketAddr, undelivered: &Bytes, index: &mut Index) {
        let Ok(message) = sip_message::parse(undelivered, index, Framing::Stream) else { return };
        let client = if message.is_request() {
            self.layer.client_find(self.layer.client_key(&message))
        } else {
            None
        };
        let wanted = match client {
            Some(id) => self.layer.client_destination(id) == Some(&Way::Tier(to)),
            None => message.top_via().ok().and_then(|via| literal_sent_by(&via)) == Some(to),
        };
        if wanted && self.wire.send_around(to, undelivered) {
            return;
        }
        self.world.counters.drop_send.add(1);
        if let Some(id) = client {
            self.layer.client_transport_error(id, &mut self.wire);
            self.take_events();
        }
    }

    /// Promises to look at a context's response context when it next wants to be.
    pub(crate) fn set_alarm(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        let wanted = context.fork.as_ref().and_then(|fork| fork.responses.poll_timeout());
        let Some(at) = wanted else { return };
        if context.alarm.is_none_or(|promised| at < promised) {
            context.alarm = Some(at);
            self.alarms.push(Reverse((at, id)));
        }
    }

    fn handle_alarm(&mut self, at: Instant, id: ContextId) {
        let now = self.now;
        let Some(context) = self.contexts.get_mut(id) else { return };
        if context.alarm != Some(at) {
            return;
        }
        context.alarm = None;
        let mut actions = Vec::new();
        if let Some(fork) = &mut context.fork {
            fork.responses.handle_timeout(now, &mut actions);
        }
        self.perform(id, actions);
        self.set_alarm(id);
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::ClientTimedOut(id) => self.fail_client(id, BranchFailure::TimedOut),
            Event::ClientTransportFailed(id) => {
                self.fail_client(id, BranchFailure::TransportFailed);
            }
            Event::ClientTerminated(id) => {
                self.clients.remove(&id);
                self.cancels.forget(id);
            }
            Event::ServerTerminated(id) => {
                self.stamps.remove(id);
                if let Some(context) = self.servers.remove(&id) {
                    self.forget(context);
                }
            }
            Event::ServerTimedOut(_) | Event::ServerTransportFailed(_) => {}
        }
    }

    fn show_gauges(&mut self) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let counters = &self.world.counters;
        counters.server_transactions.set(count(self.layer.server_transactions()));
        counters.client_transactions.set(count(self.layer.client_transactions()));
        counters.contexts.set(count(self.contexts.len()));
        counters.balancers_unwell.set(count(self.world.detours.unwell()));
        counters.withheld.set(count(self.withheld.len()));
        // A store may fall ill while nobody asks it.
        if self.store_moved || self.now >= self.store_shown + WAIT_MAX / 2 {
            self.store_moved = false;
            self.store_shown = self.now;
            let store = self.store.counters();
            counters.store_latencies.set(&store.latencies);
            counters.store_in_flight.set(store.in_flight);
            counters.store_saved.set(store.cache_hits + store.joined);
            counters.store_is_down.set(u64::from(!self.store.health().is_serving()));
        }
    }
}

#[cfg(test)]
mod tests;
