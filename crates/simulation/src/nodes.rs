//! A node as a few numbers: what it was given, what it carries, what it would say of itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fleet::{CallRate, GenerationNumber, Incarnation, InstanceId, Member, Membership, Tier};
use scaling::{Doubt, LeavingBalancer, NodeView};

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
    beliefs: Beliefs,
}

/// What a balancer hears of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sound {
    Answers,
    /// Nobody listens there.
    Refuses,
    Silent,
}

/// What a balancer believes of the lives in its table: the outcome of its probes, which take a second or
/// two and are over at the next look. Whoever is not in here is held alive.
#[derive(Clone, Debug, Default)]
struct Beliefs {
    doubts: BTreeMap<(InstanceId, Incarnation), Belief>,
    /// The generation in which it last looked.
    seen: Option<GenerationNumber>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Belief {
    is_dead: bool,
    answers: bool,
    /// A generation since its death still has it.
    is_pardoned: bool,
}

impl Beliefs {
    /// Hears of everybody in its table.
    fn look(&mut self, table: &Membership, sound: impl Fn(InstanceId) -> Sound) {
        let is_newer = self.seen.replace(table.generation) != Some(table.generation);
        let lives: Vec<_> =
            table.every_proxy().map(|member| (member.instance, member.incarnation)).collect();
        let answering = lives.iter().filter(|life| sound(life.0) == Sound::Answers).count();
        let mut before = std::mem::take(&mut self.doubts);
        for life in lives {
            let known = before.remove(&life).unwrap_or_default();
            let answers = sound(life.0) == Sound::Answers;
            let is_pardoned = known.is_dead && (known.is_pardoned || is_newer);
            let is_dead = match sound(life.0) {
                Sound::Answers => known.is_dead && !is_pardoned,
                Sound::Refuses => true,
                // If nobody answers, the fault may be the balancer's own.
                Sound::Silent => known.is_dead || answering > 0,
            };
            if is_dead || !answers {
                self.doubts.insert(life, Belief { is_dead, answers, is_pardoned });
            }
        }
    }
}

/// Phones that registered through a balancer on its way out have done so elsewhere after this time.
const BINDINGS_MS: u64 = 60_000;

impl Node {
    pub(crate) fn new(machine: String, incarnation: Incarnation, at: SocketAddr) -> Self {
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
            beliefs: Beliefs::default(),
        }
    }

    /// A balancer looks who is there.
    pub(crate) fn look(&mut self, sound: impl Fn(InstanceId) -> Sound) {
        if let Some(table) = &self.membership {
            self.beliefs.look(table, sound);
        }
    }

    /// Whether a balancer gives nothing to this owner.
    pub(crate) fn skips(&self, owner: &Member) -> bool {
        let belief = self.beliefs.doubts.get(&(owner.instance, owner.incarnation));
        belief.is_some_and(|belief| belief.is_dead)
    }

    fn doubts(&self) -> Vec<Doubt> {
        let doubts = self.beliefs.doubts.iter();
        let told = doubts.map(|(&(instance, incarnation), &belief)| Doubt {
            instance,
            worker: 0,
            incarnation,
            is_dead: belief.is_dead,
            answers: belief.answers,
        });
        told.collect()
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
            doubts: self.doubts(),
            load: CallRate::ZERO,
        }
    }
}
