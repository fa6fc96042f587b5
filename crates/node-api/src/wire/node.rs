//! What a node says about itself when polled.

use std::net::SocketAddr;

use fleet::{Incarnation, InstanceId};
use serde::{Deserialize, Serialize};

use super::{Generation, SipAddresses};
use crate::text;

/// The answer to a poll. Totals count up from the node's start; the manager makes rates of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    #[serde(with = "text")]
    pub instance: InstanceId,
    /// UNIX seconds of the start; another one means that the counters began anew.
    pub incarnation: u32,
    pub pid: u32,
    pub started_at_ms: u64,
    pub uptime_ms: u64,
    /// Of the program that runs; empty: older than this field.
    #[serde(default)]
    pub version: String,
    /// The binary that runs, as its manager named it.
    #[serde(default)]
    pub build: String,
    /// The process works.
    pub live: bool,
    /// It may be given calls: configured, listening, store reachable, not draining. A balancer
    /// needs a membership for it.
    pub ready: bool,
    pub draining: bool,
    pub sip: SipAddresses,
    /// A proxy's workers; empty for a balancer.
    #[serde(default)]
    pub workers: Vec<WorkerStatus>,
    /// The membership it works with: its acknowledgement.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// Digest of that membership.
    #[serde(default)]
    pub digest: Option<String>,
    /// Calls that it forwarded (INVITE without To tag), each counted once.
    pub calls_total: u64,
    /// Requests of every kind that it forwarded or answered.
    pub requests_total: u64,
    /// Server transactions, those included that only absorb repeats. They hold a drain.
    #[serde(default)]
    pub server_transactions: u64,
    /// What a balancer gave to each member.
    #[serde(default)]
    pub calls_to_members: Vec<CallsToMember>,
    /// User and system time since the start, seconds.
    #[serde(default)]
    pub cpu_seconds_total: f64,
    #[serde(default)]
    pub rss_bytes: u64,
    #[serde(default)]
    pub network_received_bytes_total: u64,
    #[serde(default)]
    pub network_sent_bytes_total: u64,
    #[serde(default)]
    pub messages_received_total: u64,
    #[serde(default)]
    pub messages_sent_total: u64,
    #[serde(default)]
    pub messages_dropped_total: u64,
    #[serde(default)]
    pub store: StoreHealth,
    /// Queries that the store answered, those that it did not, and how long all of them took.
    #[serde(default)]
    pub store_queries_total: u64,
    #[serde(default)]
    pub store_failures_total: u64,
    #[serde(default)]
    pub store_latency_us_total: u64,
    /// The highest that it obeyed: a manager with a lower one leads no longer.
    #[serde(default)]
    pub fence: u64,
    /// Oldest generation that a live transaction is stamped with.
    #[serde(default)]
    pub oldest_stamp: Option<Generation>,
    /// UNIX milliseconds of the last SIP message that was more than a keep-alive; zero: never.
    #[serde(default)]
    pub last_sip_activity_ms: u64,
    /// Stream connections that hold a drain: at a balancer those of clients, not those of the other
    /// tier.
    #[serde(default)]
    pub streams_open: u64,
    /// Members that a balancer does not hold to be alive.
    #[serde(default)]
    pub members_in_doubt: Vec<MemberInDoubt>,
    /// What a proxy knows of each balancer that its membership says is on its way out.
    #[serde(default)]
    pub balancers_leaving: Vec<LeavingBalancer>,
}

impl NodeStatus {
    /// The status of a node that has just started: live, not ready, every count zero.
    #[must_use]
    pub fn started(instance: InstanceId, incarnation: Incarnation, sip: SipAddresses) -> Self {
        Self {
            instance,
            incarnation: incarnation.0,
            pid: 0,
            started_at_ms: u64::from(incarnation.0) * 1_000,
            uptime_ms: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: String::new(),
            live: true,
            ready: false,
            draining: false,
            sip,
            workers: Vec::new(),
            generation: None,
            digest: None,
            calls_total: 0,
            requests_total: 0,
            server_transactions: 0,
            calls_to_members: Vec::new(),
            cpu_seconds_total: 0.0,
            rss_bytes: 0,
            network_received_bytes_total: 0,
            network_sent_bytes_total: 0,
            messages_received_total: 0,
            messages_sent_total: 0,
            messages_dropped_total: 0,
            store: StoreHealth::Unused,
            store_queries_total: 0,
            store_failures_total: 0,
            store_latency_us_total: 0,
            fence: 0,
            oldest_stamp: None,
            last_sip_activity_ms: 0,
            streams_open: 0,
            members_in_doubt: Vec::new(),
            balancers_leaving: Vec::new(),
        }
    }
}

/// One worker of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub worker: u16,
    pub address: SocketAddr,
    pub calls_total: u64,
    pub server_transactions: u64,
}

/// Who still needs a balancer that is on its way out, as far as one proxy knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingBalancer {
    #[serde(with = "text")]
    pub instance: InstanceId,
    /// Transactions whose request came through it, or went out through it.
    pub transactions: u64,
    /// Until when a binding may live whose Path names it, UNIX milliseconds; `None` while the proxy
    /// does not know.
    pub bindings_until_ms: Option<u64>,
}

/// What a balancer gave to one worker since the balancer's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsToMember {
    #[serde(with = "text")]
    pub instance: InstanceId,
    pub worker: u16,
    pub incarnation: u32,
    pub calls_total: u64,
}

/// A worker that a balancer doubts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInDoubt {
    #[serde(with = "text")]
    pub instance: InstanceId,
    pub worker: u16,
    pub incarnation: u32,
    /// It is skipped, until a generation brings it back. Otherwise it is suspect, and used.
    pub is_dead: bool,
    pub reason: DoubtReason,
    /// It answers probes. If it is held dead all the same, a new generation brings it back.
    pub answers: bool,
    /// UNIX milliseconds.
    pub since_ms: u64,
}

/// Why a balancer doubts a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoubtReason {
    /// Nobody listens there.
    Refused,
    /// The network does not lead there.
    Unreachable,
    /// It does not answer.
    Silent,
}

/// How the store does, seen from a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreHealth {
    /// The node uses none.
    #[default]
    Unused,
    Good,
    /// Slow, or refusing some queries.
    Degraded,
    Unavailable,
}

/// Asks a node to drain, or not to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// Of the manager that asks; absent: of a release that does not say it.
    #[serde(default)]
    pub fence: Option<u64>,
}

/// The answer to a drain or its reversal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainAnswer {
    pub draining: bool,
}
