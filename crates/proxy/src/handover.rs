//! A change of owners, seen from a proxy (protocol rules 19 and 20): what matches nothing here goes
//! on to the next stop of its way, and every transaction keeps the stamp of its balancer.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fleet::GenerationNumber;
use sip_core::handover::{Handover, Next};
use sip_message::{Method, OwnedMessage};
use sip_transaction::{KeyedMap, ServerId, ServerKey};

use crate::arrival::Arrival;
use crate::leave::Way;
use crate::worker::Worker;

/// The oldest stamp of a worker's transactions, where the control thread reads it.
#[derive(Debug, Default)]
pub(crate) struct OldestStamp(Mutex<Option<GenerationNumber>>);

impl OldestStamp {
    pub(crate) fn get(&self) -> Option<GenerationNumber> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, oldest: Option<GenerationNumber>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }
}

/// Which generation each live server transaction was sent under.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    by_server: KeyedMap<ServerId, GenerationNumber>,
    counts: BTreeMap<GenerationNumber, usize>,
    shown: Option<GenerationNumber>,
    oldest: Arc<OldestStamp>,
}

impl Stamps {
    pub(crate) fn new(oldest: Arc<OldestStamp>) -> Self {
        Self { oldest, ..Self::default() }
    }

    /// A transaction began with a request that arrived so. One that no balancer sent has no stamp.
    pub(crate) fn add(&mut self, server: ServerId, arrival: &Arrival) {
        if let Some(handover) = arrival.handover {
            self.by_server.insert(server, handover.stamp);
            *self.counts.entry(handover.stamp).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, server: ServerId) {
        let Some(stamp) = self.by_server.remove(&server) else { return };
        if let Some(count) = self.counts.get_mut(&stamp) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&stamp);
            }
        }
    }

    /// Once per turn: lets the control thread know.
    pub(crate) fn show(&mut self) {
        let oldest = self.counts.keys().next().copied();
        if oldest != self.shown {
            self.shown = oldest;
            self.oldest.set(oldest);
        }
    }
}

/// How many INVITEs are remembered that were passed on; beyond it the oldest are forgotten.
const PASSED_ON_MAX: usize = 20_000;

/// How many late copies of an INVITE go after it that another proxy has passed on: ways of different
/// generations may lead in a circle, where one copy would never come to rest.
const FOLLOWS_MAX: u8 = 8;

/// Where INVITEs were passed on to, and by which generation. A copy that was overtaken by its own
/// repetition comes by an older one, and would begin the call a second time.
#[derive(Debug, Default)]
pub(crate) struct PassedOn {
    stops: KeyedMap<ServerKey, Stop>,
    /// Until when each is remembered.
    order: VecDeque<(Instant, ServerKey)>,
}

#[derive(Clone, Copy, Debug)]
struct Stop {
    to: SocketAddr,
    stamp: GenerationNumber,
    /// How many copies that another proxy has passed on may still go there.
    follows_left: u8,
}

impl PassedOn {
    fn note(&mut self, until: Instant, key: ServerKey, to: SocketAddr, stamp: GenerationNumber) {
        match self.stops.get_mut(&key) {
            Some(stop) if stop.stamp > stamp => {}
            Some(stop) => (stop.to, stop.stamp) = (to, stamp),
            None => {
                self.stops.insert(key, Stop { to, stamp, follows_left: FOLLOWS_MAX });
                self.order.push_back((until, key));
            }
        }
        if self.order.len() > PASSED_ON_MAX {
            self.forget_oldest();
        }
    }

    /// Where a copy went that came by a newer generation than `stamp`. What comes straight from its
    /// balancer may follow it each time, what another proxy has passed on so often only.
    fn stop(
        &mut self,
        now: Instant,
        key: ServerKey,
        stamp: GenerationNumber,
        is_straight: bool,
    ) -> Option<SocketAddr> {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
        let stop = self.stops.get_mut(&key).filter(|stop| stamp < stop.stamp)?;
        if !is_straight {
            stop.follows_left = stop.follows_left.checked_sub(1)?;
        }
        Some(stop.to)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.stops.remove(&key);
        }
    }
}

/// What has matched nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmatched {
    /// A request that only an earlier owner passes on.
    New,
    /// A CANCEL, or an ACK to a refusal: it also walks back.
    Orphan,
}

impl Worker {
    /// Gives up a server transaction that is not to be answered through it; no event follows.
    pub(crate) fn abandon(&mut self, server: ServerId) {
        self.layer.server_abandon(server);
        self.stamps.remove(server);
    }

    /// Passes a request on that matched nothing, if its way has another stop: octet for octet, since
    /// nothing was decided about it. Returns whether it went.
    pub(crate) fn hand_on(
        &mut self,
        request: &OwnedMessage,
        arrival: &Arrival,
        unmatched: Unmatched,
    ) -> bool {
        let next = arrival.handover.map_or(Next::Nowhere, |handover| handover.next);
        let to: SocketAddr = match (next, unmatched) {
            (Next::On(to), _) | (Next::Back(to), Unmatched::Orphan) => to,
            (Next::Back(_), Unmatched::New) | (Next::Nowhere, _) => return false,
        };
        self.pass_to(request, to);
        true
    }

    /// The same for what would begin something. An INVITE goes after a copy of it that was passed on
    /// before, although it was sent earlier.
    pub(crate) fn hand_on_new(
        &mut self,
        request: &OwnedMessage,
        arrival: &Arrival,
        key: ServerKey,
    ) -> bool {
        let handover = arrival.handover.filter(|_| request.view().method() == Some(Method::Invite));
        if let Some(Handover { stamp, next }) = handover {
            let stop = self.passed_on.stop(self.now, key, stamp, arrival.is_straight);
            if let Some(to) = stop {
                self.pass_to(request, to);
                return true;
            }
            if let Next::On(to) = next {
                let until = self.now + 64 * self.world.config.timing.t1;
                self.passed_on.note(until, key, to, stamp);
            }
        }
        self.hand_on(request, arrival, Unmatched::New)
    }

    fn pass_to(&mut self, request: &OwnedMessage, to: SocketAddr) {
        tracing::debug!(
            call_id = %request.view().call_id().escape_ascii(),
            %to,
            "handed on"
        );
        self.world.counters.handed_on.add(1);
        self.wire.send(&Way::Tier(to), request.bytes());
    }
}
