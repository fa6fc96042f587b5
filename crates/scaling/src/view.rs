//! What the controller sees: machines, what their nodes said, and what may be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use fleet::{
    CallRate, GenerationNumber, Incarnation, InstanceId, Membership, Observation, Poll, Tier,
};

use crate::policy::ScalingPolicy;

/// The world at one moment. Times are UNIX milliseconds.
#[derive(Clone, Debug)]
pub struct View<'a> {
    pub now_ms: u64,
    pub balancers: TierInput<'a>,
    pub proxies: TierInput<'a>,
    pub timing: &'a Timing,
    /// Every machine that the provider lists; one per instance.
    pub observed: &'a [Observed],
    /// Second machines in slots that are taken.
    pub strays: &'a [Stray],
    /// The balancers that the DNS serves now; `Unknown` if it did not say.
    pub dns: &'a Observation<BTreeSet<InstanceId>>,
    /// The newest generation that a node was found with, read back from it; what a manager that
    /// has just started goes on from.
    pub held: Option<&'a Membership>,
    /// What the operator asked to be taken out of service.
    pub asked_to_drain: &'a BTreeSet<InstanceId>,
    /// What the operator gave to proxies in place of [`WEIGHT_NORMAL`](fleet::WEIGHT_NORMAL): how large
    /// a share of the calls, and of an ordinary capacity, each takes. By slot, whatever machine has it.
    pub weights: &'a BTreeMap<InstanceId, u16>,
    /// Rows of the table.
    pub rows: u32,
    /// First half of every generation.
    pub fence: u64,
    /// Decide, and do nothing.
    pub is_dry_run: bool,
    pub memory: &'a Memory,
}

/// One tier's policy and load.
#[derive(Clone, Copy, Debug)]
pub struct TierInput<'a> {
    pub policy: &'a ScalingPolicy,
    /// Oldest first.
    pub polls: &'a [Poll],
    /// Mean over the instances in service, percent of one core.
    pub cpu_percent: Option<u32>,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    pub poll_interval: Duration,
    /// Assumed until a boot was measured.
    pub boot_time: Duration,
    /// From being asked for to being ready; longer counts as failed.
    pub start_limit: Duration,
    /// How long a client may repeat a request: 64·T1.
    pub repeats: Duration,
    /// Of a proxy, from its withdrawal: Timer C + 64·T1.
    pub proxy_drain_limit: Duration,
    /// Of a balancer, from its removal from the DNS.
    pub balancer_drain_limit: Duration,
    /// How long clients keep a DNS answer.
    pub dns_ttl: Duration,
    /// Rounds without an answer after which a running machine counts as failed, if most others
    /// answer.
    pub silent_rounds_max: u32,
    /// Rounds that a new manager waits for nodes that do not answer, before it publishes a
    /// generation without them.
    pub adoption_rounds: u32,
    /// Rounds without an answer after which a machine that the provider lists no more is gone.
    pub unlisted_rounds_max: u32,
    /// Until a new owner takes its full share, from its entry into the table; zero: at once.
    pub slow_start: Duration,
    /// How long a second machine in a slot is left alone before it is removed.
    pub stray_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(5),
            boot_time: Duration::from_secs(10),
            start_limit: Duration::from_secs(600),
            repeats: Duration::from_secs(32),
            proxy_drain_limit: Duration::from_secs(212),
            balancer_drain_limit: Duration::from_secs(3_600),
            dns_ttl: Duration::from_secs(30),
            silent_rounds_max: 24,
            adoption_rounds: 3,
            unlisted_rounds_max: 3,
            slow_start: Duration::ZERO,
            stray_grace: Duration::from_secs(60),
        }
    }
}

/// What the provider knows of a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState {
    Booting,
    Running,
    Dead,
    /// The provider does not list it any more and did before (see [`Roster`](crate::Roster)).
    Unlisted,
}

/// A second machine in a slot that is taken: a creation that was thought to have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    pub instance: InstanceId,
    /// The provider's name for it.
    pub machine: String,
}

/// A machine and what its node said.
#[derive(Clone, Debug)]
pub struct Observed {
    pub instance: InstanceId,
    /// The provider's name for it.
    pub machine: String,
    pub machine_state: MachineState,
    pub created_at_ms: u64,
    /// Whether it answered this round, and what. Never `Absent`.
    pub node: Observation<NodeView>,
    /// What it last said, this round or earlier; `None` if this manager never heard of it.
    pub last: Option<NodeView>,
    /// Rounds in a row without an answer.
    pub misses: u32,
}

impl Observed {
    /// What it says now, or said last.
    pub(crate) fn heard(&self) -> Option<&NodeView> {
        self.node.known().or(self.last.as_ref())
    }
}

/// What a node says about itself, as far as steps depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    pub incarnation: Incarnation,
    pub is_ready: bool,
    pub is_draining: bool,
    pub internal: SocketAddr,
    pub advertised: SocketAddr,
    /// A proxy's workers and their addresses.
    pub workers: Vec<(u16, SocketAddr)>,
    /// The membership that it works with, by number and digest.
    pub generation: Option<(GenerationNumber, u64)>,
    pub server_transactions: u64,
    /// Oldest generation that a live transaction is stamped with.
    pub oldest_stamp: Option<GenerationNumber>,
    pub streams_open: u64,
    /// A proxy's word on the balancers that it knows to be on their way out.
    pub balancers_leaving: Vec<LeavingBalancer>,
    /// A balancer's word on the workers of its table that it does not hold to be alive.
    pub doubts: Vec<Doubt>,
    /// The larger of its own report and of what the balancers gave to it.
    pub load: CallRate,
}

/// Who still needs a balancer that is on its way out, as far as one proxy knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeavingBalancer {
    pub instance: InstanceId,
    /// Transactions that name it.
    pub transactions: u64,
    /// Until when a binding may live whose Path names it; `None` while the proxy does not know.
    pub bindings_until_ms: Option<u64>,
}

/// A worker that a balancer does not hold to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub instance: InstanceId,
    pub worker: u16,
    pub incarnation: Incarnation,
    /// It is given nothing until a newer generation has it. Otherwise it is suspect, and used.
    pub is_dead: bool,
    /// It answers that balancer's probes now.
    pub answers: bool,
}

/// What a step tells the next one. All of it may be lost: it is rebuilt from the view, at the
/// price of waits that begin anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The last generation made.
    pub membership: Option<Membership>,
    /// That generation was another manager's, read back from a node.
    pub is_adopted: bool,
    /// When every live balancer was first seen with a later generation, by the end of each earlier
    /// set.
    pub acknowledged_ms: BTreeMap<GenerationNumber, u64>,
    /// Instances that a tier should have: replaces what died.
    pub targets: BTreeMap<Tier, u32>,
    pub retiring: BTreeMap<InstanceId, Retiring>,
    /// Instances that were listed at some time.
    pub met: BTreeSet<InstanceId>,
    /// When each listed instance was first seen.
    pub first_seen_ms: BTreeMap<InstanceId, u64>,
    /// Instances that were ready at some time.
    pub was_ready: BTreeSet<InstanceId>,
    /// The last boot of each tier, measured.
    pub boot_time: BTreeMap<Tier, Duration>,
    /// When machines were asked for, within the launch interval.
    pub launches_ms: Vec<(Tier, u64)>,
    pub rounds: u32,
    /// The time of the last step.
    pub step_ms: Option<u64>,
    /// Instances that were asked for and have not been ready since.
    pub made: BTreeSet<InstanceId>,
    /// Failed machines that are still listed.
    pub failed_machines: BTreeSet<String>,
    /// How many machines of a tier failed in a row before their first answer, and when the last did.
    pub failed_starts: BTreeMap<Tier, (u32, u64)>,
    /// When owners that have not their full weight entered the table.
    pub slow_since_ms: BTreeMap<InstanceId, u64>,
    /// The membership was read back, and what in it begins slowly has not been looked at yet.
    pub may_hold_slow_starts: bool,
    /// When a balancer was last missing or not heard.
    pub cut_off_ms: Option<u64>,
    /// When each second machine in a slot was first seen.
    pub strays_seen_ms: BTreeMap<String, u64>,
    /// Since when every balancer says of an owner that it does not answer them.
    pub unreached_ms: BTreeMap<InstanceId, u64>,
    /// How many times in short succession an owner was brought back to balancers that held it dead,
    /// and when the last time was.
    pub returns: BTreeMap<InstanceId, (u32, u64)>,
}

/// An instance on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retiring {
    pub cause: RetiringCause,
    pub since_ms: u64,
    /// When every live balancer was first seen with a generation without it (a proxy), or the DNS
    /// without it (a balancer).
    pub withdrawn_at_ms: Option<u64>,
    /// When every live balancer was first seen with a generation that does not name the proxy as an
    /// earlier owner either.
    pub released_at_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetiringCause {
    /// The tier has more than it needs; reversible.
    Scaling,
    /// The operator wants this one gone; not reversed by load.
    Operator,
    /// It was found draining: an earlier manager, or a signal, began it.
    Found,
}
