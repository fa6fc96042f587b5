//! A node as a few numbers: what it was given, what it carries, what it would say of itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fleet::{CallRate, GenerationNumber, Incarnation, InstanceId, Membership, Tier};
use scaling::{LeavingBalancer, NodeView};

/// One life of a balancer or a proxy.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) machine: String,
    pub(crate) incarnation: Incarnation,
    address: SocketAddr,
    pub(crate) is_draining: bool,
    pub(crate) membership: Option<Membership>,
    /// A proxy's: when it was last given a call under each generation, and how many it was given.
    stamps: BTreeMap<GenerationNumber, (u64, CallRate)>,
    /// Calls that it took in the last interval.
    pub(crate) calls: CallRate,
    /// A proxy's: calls that it was given.
    pub(crate) offered: CallRate,
    /// A balancer's: calls that it gave to each proxy in the last interval.
    pub(crate) calls_to: BTreeMap<InstanceId, CallRate>,
    /// A proxy's: when each balancer last gave it a call.
    given_by_ms: BTreeMap<InstanceId, u64>,
}

/// Phones that registered through a balancer on its way out have done so elsewhere after this time.
const BINDINGS_MS: u64 = 60_000;

impl Node {
    pub(crate) const fn new(machine: String, incarnation: Incarnation, at: SocketAddr) -> Self {
        Self {
            machine,
            incarnation,
            address: at,
            is_draining: false,
            membership: None,
            stamps: BTreeMap::new(),
            calls: CallRate::ZERO,
            offered: CallRate::ZERO,
            calls_to: BTreeMap::new(),
            given_by_ms: BTreeMap::new(),
        }
    }

    /// A balancer gives it calls under its generation.
    pub(crate) fn give(
        &mut self,
        now_ms: u64,
        by: InstanceId,
        under: GenerationNumber,
        rate: CallRate,
    ) {
        self.offered += rate;
        self.given_by_ms.insert(by, now_ms);
        let stamp = self.stamps.entry(under).or_insert((now_ms, CallRate::ZERO));
        *stamp = (now_ms, if stamp.0 == now_ms { stamp.1 + rate } else { rate });
    }

    /// Forgets transactions that are over.
    pub(crate) fn age(&mut self, now_ms: u64, transaction_ms: u64, is_busy: bool) {
        if !is_busy {
            self.stamps.retain(|_, (given_ms, _)| *given_ms + transaction_ms > now_ms);
        }
    }

    /// Transactions that live: each generation's, fewer and fewer after its last call.
    pub(crate) fn transactions(&self, now_ms: u64, transaction_ms: u64) -> u64 {
        let live = self.stamps.values().map(|(given_ms, rate)| {
            let left_ms = (given_ms + transaction_ms).saturating_sub(now_ms);
            (rate.millicps().saturating_mul(left_ms) / 1_000_000).max(1)
        });
        live.sum()
    }

    /// What it says of the balancers that it knows to be on their way out.
    fn leaving(&self, now_ms: u64, transaction_ms: u64) -> Vec<LeavingBalancer> {
        let leaving = self.membership.iter().flat_map(|membership| &membership.leaving);
        let need = |&instance: &InstanceId| {
            let last_ms = self.given_by_ms.get(&instance).copied().unwrap_or(0);
            LeavingBalancer {
                instance,
                transactions: u64::from(last_ms + transaction_ms > now_ms),
                bindings_until_ms: Some(last_ms + BINDINGS_MS),
            }
        };
        leaving.map(need).collect()
    }

    /// What it says of itself; the load is the manager's to find out.
    pub(crate) fn view(&self, now_ms: u64, transaction_ms: u64, instance: InstanceId) -> NodeView {
        let is_proxy = instance.tier == Tier::Proxy;
        NodeView {
            incarnation: self.incarnation,
            is_ready: (is_proxy || self.membership.is_some()) && !self.is_draining,
            is_draining: self.is_draining,
            internal: self.address,
            advertised: self.address,
            workers: if is_proxy { vec![(0, self.address)] } else { Vec::new() },
            generation: self.membership.as_ref().map(|have| (have.generation, have.digest)),
            server_transactions: self.transactions(now_ms, transaction_ms),
            oldest_stamp: self.stamps.keys().next().copied(),
            streams_open: 0,
            balancers_leaving: self.leaving(now_ms, transaction_ms),
            load: CallRate::ZERO,
        }
    }
}
