//! A change of owners, seen from a proxy (protocol rules 19 and 20): what matches nothing here goes
//! on to the next stop of its way, and every transaction keeps the stamp of its balancer.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use fleet::GenerationNumber;
use sip_core::handover::Next;
use sip_message::OwnedMessage;
use sip_transaction::ServerId;

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
    by_server: HashMap<ServerId, GenerationNumber>,
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
        tracing::debug!(
            call_id = %request.view().call_id().escape_ascii(),
            %to,
            "handed on"
        );
        self.world.counters.handed_on.add(1);
        self.wire.send(&Way::Tier(to), request.bytes());
        true
    }
}
