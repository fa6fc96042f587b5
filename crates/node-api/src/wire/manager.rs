//! What the manager says about the fleet, and its journal.

use std::net::SocketAddr;

use fleet::{InstanceId, WEIGHT_NORMAL};
use serde::{Deserialize, Serialize};

use super::Generation;
use crate::text;

/// The fleet as the manager sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// UNIX milliseconds of the round that this shows.
    pub at_ms: u64,
    pub manager: ManagerStatus,
    #[serde(default)]
    pub generation: Option<Generation>,
    pub tiers: Vec<TierStatus>,
    pub instances: Vec<InstanceStatus>,
    pub dns: Vec<DnsRecord>,
    /// The database tier, once something is known of it.
    #[serde(default)]
    pub store: Option<StoreTierStatus>,
}

/// The database tier. The manager watches it and starts nothing there: an operator does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreTierStatus {
    /// `sqlite`, `memory` or `cassandra`.
    pub kind: String,
    /// Its nodes; none for a file.
    pub nodes: Vec<StoreNode>,
    /// Queries of all proxies together.
    pub queries_per_s: f64,
    /// Of those, the ones that were not answered.
    pub failures_per_s: f64,
    /// Mean over the last round, from a proxy's question to its answer; zero: nobody asked.
    pub latency_ms: f64,
    /// What an operator should do, if anything.
    pub advice: String,
}

/// One node of the database tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreNode {
    pub address: SocketAddr,
    pub datacenter: String,
    /// Whether it has a connection with us.
    pub is_up: bool,
}

/// The manager itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    pub pid: u32,
    pub started_at_ms: u64,
    /// Rounds of observe, decide, act so far.
    pub rounds_total: u64,
    pub poll_interval_ms: u64,
    /// Decisions are made and journaled, nothing is done.
    pub dry_run: bool,
    /// The numbers of instances stay as they are; broken ones are still replaced.
    pub frozen: bool,
    /// Which one it is, as in `manager-2`.
    #[serde(default)]
    pub name: String,
    /// Whether it acts. Of several managers one does; the others stand by.
    #[serde(default)]
    pub leads: bool,
    /// Who leads as far as it knows; empty: nobody.
    #[serde(default)]
    pub leader: String,
    /// Of the lease: first half of every generation that it makes. Zero: it never led.
    #[serde(default)]
    pub fence: u64,
    /// Why the lease cannot be renewed, if so.
    #[serde(default)]
    pub trouble: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub build: String,
}

/// One tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierStatus {
    /// `balancer` or `proxy`.
    pub tier: String,
    pub load_cps: f64,
    /// What the instances in service are trusted with together.
    pub capacity_cps: f64,
    pub in_service: u32,
    pub starting: u32,
    pub draining: u32,
    /// In service, of which nothing was heard in the last round.
    pub silent: u32,
    pub desired: u32,
    pub instances_min: u32,
    pub instances_max: u32,
    /// Why that many.
    pub reason: String,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    #[serde(with = "text")]
    pub instance: InstanceId,
    /// A word of the instance's life: `requested`, `booting`, `configuring`, `ready`,
    /// `in service`, `draining`, `terminated`, `failed`.
    pub state: String,
    pub machine: String,
    pub sip: SocketAddr,
    pub control: SocketAddr,
    /// Whether it answered the last poll.
    pub answers: bool,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub build: String,
    #[serde(default)]
    pub incarnation: Option<u32>,
    #[serde(default)]
    pub pid: Option<u32>,
    pub created_at_ms: u64,
    pub load_cps: f64,
    /// Of one core.
    pub cpu_percent: f64,
    pub rss_bytes: u64,
    pub network_bytes_per_s: f64,
    pub server_transactions: u64,
    pub streams_open: u64,
    pub calls_total: u64,
    #[serde(default)]
    pub generation: Option<Generation>,
    /// What an operator gave it: its share of the calls in percent of an ordinary one.
    #[serde(default = "ordinary_weight")]
    pub weight: u16,
    /// What the present generation gives it: less while it starts slowly; `None`: it owns no calls.
    #[serde(default)]
    pub weight_now: Option<u16>,
    /// What it waits for, if anything.
    pub note: String,
}

const fn ordinary_weight() -> u16 {
    WEIGHT_NORMAL
}

/// One balancer as clients find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    pub name: String,
    pub address: SocketAddr,
    pub priority: u16,
    pub weight: u16,
    pub ttl_s: u32,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up without gaps over restarts of the manager.
    pub number: u64,
    pub at_ms: u64,
    pub kind: EventKind,
    /// `balancer` or `proxy`, if it concerns one tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::optional")]
    pub instance: Option<InstanceId>,
    /// What happened and why, for people.
    pub text: String,
    /// Of a decision: how many instances there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<u32>,
    /// Of a decision: how many were planned before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u32>,
    /// Of a decision: the tier's load, thousandths of a call per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_millicps: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A manager started, stopped, leads or leads no longer; or an operator's command says so.
    Manager,
    /// The number of instances that a tier should have changed.
    Decision,
    /// Something was done.
    Act,
    /// Something was tried and failed; it is tried again.
    Failure,
    /// An instance changed its state.
    Instance,
}

/// The answer to `GET /v1/events?after=N`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsPage {
    /// Oldest first.
    pub events: Vec<Event>,
    /// The number to ask for next.
    pub last: u64,
    /// Number of the oldest event that is still kept.
    pub first_kept: u64,
}

/// Asks the manager to take an instance out of service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainOrder {
    /// For the journal.
    #[serde(default)]
    pub why: String,
}

/// Asks the manager to give a proxy another share of the calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightOrder {
    /// Percent of an ordinary share, 1 to 1,000.
    pub weight: u16,
    /// For the journal.
    #[serde(default)]
    pub why: String,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightAnswer {
    pub weight: u16,
}

/// What operators asked for and what has to outlive the manager that they asked: the file that managers
/// of one fleet share. Everything else is found again in the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Machines that are to be drained.
    #[serde(default)]
    pub drains: Vec<DrainWish>,
    /// Weights other than the ordinary one.
    #[serde(default)]
    pub weights: Vec<WeightWish>,
}

/// This machine in this slot, born then, is to be drained. Another one in the slot is not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainWish {
    #[serde(with = "text")]
    pub instance: InstanceId,
    pub machine: String,
    pub created_at_ms: u64,
}

/// Whatever machine has this slot gets this share of the calls, percent of an ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightWish {
    #[serde(with = "text")]
    pub instance: InstanceId,
    pub weight: u16,
}

/// Something that an operator's command did, for the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub text: String,
}

/// Every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub error: String,
}
