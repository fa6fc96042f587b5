//! The controller against a small world that does at once what it is told.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use fleet::{CallRate, GenerationNumber, Incarnation, Membership, Observation, Poll};

use super::*;
use crate::policy::{PAPER, ScalingPolicy};
use crate::view::{Doubt, LeavingBalancer, MachineState, NodeView, Timing};

mod doubts;
mod handover;
mod orders;
mod safety;
mod weights;

const ROUND_MS: u64 = 5_000;

/// Machines that boot in one round, and a load that the proxies share evenly.
struct World {
    now_ms: u64,
    nodes: BTreeMap<InstanceId, Node>,
    dns: Observation<BTreeSet<InstanceId>>,
    memory: Memory,
    balancers: ScalingPolicy,
    proxies: ScalingPolicy,
    polls: Vec<Poll>,
    asked: BTreeSet<InstanceId>,
    weights: BTreeMap<InstanceId, u16>,
    timing: Timing,
    strays: Vec<Stray>,
    acts: Vec<String>,
}

#[derive(Clone)]
struct Node {
    machine: String,
    created_at_ms: u64,
    is_dead: bool,
    is_silent: bool,
    is_draining: bool,
    transactions: u64,
    /// Transactions that name a balancer on its way out.
    through_leaving: u64,
    bindings_until_ms: u64,
    oldest_stamp: Option<GenerationNumber>,
    doubts: Vec<Doubt>,
    membership: Option<Membership>,
    last: Option<NodeView>,
    misses: u32,
}

impl World {
    fn new(proxies_min: u32, proxies_max: u32) -> Self {
        let tier = |instances_min, instances_max| ScalingPolicy {
            instances_min,
            instances_max,
            launches_max: 100,
            ..PAPER
        };
        Self {
            now_ms: 1_700_000_000_000,
            nodes: BTreeMap::new(),
            dns: Observation::Absent,
            memory: Memory::default(),
            balancers: tier(1, 1),
            proxies: tier(proxies_min, proxies_max),
            polls: Vec::new(),
            asked: BTreeSet::new(),
            weights: BTreeMap::new(),
            strays: Vec::new(),
            timing: Timing::default(),
            acts: Vec::new(),
        }
    }

    fn settled(proxies: u32) -> Self {
        let mut world = Self::new(proxies, 8);
        world.rounds(6, 0);
        world.acts.clear();
        world
    }

    fn observed(&mut self) -> Vec<Observed> {
        let now_ms = self.now_ms;
        let observe = |(&instance, node): (&InstanceId, &mut Node)| {
            // Also when the manager's clock was set back.
            let is_up = now_ms.abs_diff(node.created_at_ms) >= ROUND_MS;
            let answers = is_up && !node.is_dead && !node.is_silent;
            let said = if answers {
                let seen = node.view(instance);
                node.last = Some(seen.clone());
                node.misses = 0;
                Observation::Known(seen)
            } else {
                node.misses += 1;
                Observation::Unknown
            };
            Observed {
                instance,
                machine: node.machine.clone(),
                machine_state: match (node.is_dead, is_up) {
                    (true, _) => MachineState::Dead,
                    (false, true) => MachineState::Running,
                    (false, false) => MachineState::Booting,
                },
                created_at_ms: node.created_at_ms,
                node: said,
                last: node.last.clone(),
                misses: node.misses,
            }
        };
        self.nodes.iter_mut().map(observe).collect()
    }

    fn round(&mut self, cps: u32) -> Plan {
        let plan = self.round_without_acts(cps);
        for action in plan.actions.clone() {
            self.perform(action);
        }
        plan
    }

    fn round_without_acts(&mut self, cps: u32) -> Plan {
        self.now_ms += ROUND_MS;
        self.polls.push(Poll::answered(cps));
        let observed = self.observed();
        let held = self.held();
        let plan = step(&View {
            now_ms: self.now_ms,
            balancers: TierInput { policy: &self.balancers, polls: &[], cpu_percent: None },
            proxies: TierInput { policy: &self.proxies, polls: &self.polls, cpu_percent: None },
            timing: &self.timing,
            observed: &observed,
            strays: &self.strays,
            dns: &self.dns,
            held: held.as_ref(),
            asked_to_drain: &self.asked,
            weights: &self.weights,
            rows: 1 << 8,
            fence: 1,
            is_dry_run: false,
            memory: &self.memory,
        });
        self.memory = plan.memory.clone();
        plan
    }

    /// The newest generation of a node that answers, as the manager reads it back.
    fn held(&self) -> Option<Membership> {
        let answering = self.nodes.values().filter(|node| !node.is_dead && !node.is_silent);
        let memberships = answering.filter_map(|node| node.membership.as_ref());
        memberships.max_by_key(|membership| membership.generation).cloned()
    }

    fn rounds(&mut self, count: usize, cps: u32) {
        for _ in 0..count {
            let _ = self.round(cps);
        }
    }

    fn perform(&mut self, action: Action) {
        self.acts.push(match &action {
            Action::Create { instance, cause } => format!("create {instance}: {cause}"),
            Action::Publish { membership, to } => {
                let mut text = format!("publish {} to {}:", membership.generation, to.len());
                text.push_str(&names(&membership.proxies));
                for set in &membership.earlier {
                    text.push_str(if set.is_settled { ", settled" } else { ", first" });
                    text.push_str(&names(&set.proxies));
                }
                text
            }
            Action::Names { balancers } => format!("names: {}", balancers.len()),
            Action::Drain { instance } => format!("drain {instance}"),
            Action::Undrain { instance } => format!("undrain {instance}"),
            Action::Terminate { instance, cause, .. } => format!("terminate {instance}: {cause}"),
        });
        match action {
            Action::Create { instance, .. } => {
                let machine = format!("{instance}@{}", self.now_ms);
                let node = Node::new(machine, self.now_ms);
                assert!(self.nodes.insert(instance, node).is_none(), "{instance} made twice");
            }
            Action::Publish { membership, to } => {
                assert!(!membership.proxies.is_empty(), "never an empty table");
                for instance in to {
                    let Some(node) = self.nodes.get_mut(&instance) else { continue };
                    let hears = !node.is_dead && !node.is_silent;
                    if hears && membership.follows(node.membership.as_ref()).is_ok() {
                        node.membership = Some(membership.clone());
                    }
                }
            }
            Action::Names { balancers } => {
                let names = balancers.iter().map(|entry| entry.instance).collect();
                self.dns = Observation::Known(names);
            }
            Action::Drain { instance } | Action::Undrain { instance } => {
                let is_drain = self.acts.last().is_some_and(|act| act.starts_with("drain"));
                let node = self.nodes.get_mut(&instance).expect("it exists");
                node.is_draining = is_drain;
            }
            Action::Terminate { instance, .. } => {
                self.nodes.remove(&instance).expect("it exists");
            }
        }
    }

    fn node(&mut self, instance: InstanceId) -> &mut Node {
        self.nodes.get_mut(&instance).expect("it exists")
    }

    fn owners(&self) -> Vec<u16> {
        let balancer = self.nodes.get(&InstanceId::balancer(1));
        let table = balancer.and_then(|node| node.membership.as_ref());
        table.map_or_else(Vec::new, |table| {
            table.proxies.iter().map(|member| member.instance.slot).collect()
        })
    }
}

fn names(members: &[fleet::Member]) -> String {
    members.iter().map(|member| format!(" {}", member.instance)).collect()
}

impl Node {
    fn new(machine: String, created_at_ms: u64) -> Self {
        Self {
            machine,
            created_at_ms,
            is_dead: false,
            is_silent: false,
            is_draining: false,
            transactions: 0,
            through_leaving: 0,
            bindings_until_ms: 0,
            oldest_stamp: None,
            doubts: Vec::new(),
            membership: None,
            last: None,
            misses: 0,
        }
    }

    /// What a proxy with this membership says: nobody needs them, or what the test has set.
    fn balancers_leaving(&self) -> Vec<LeavingBalancer> {
        let leaving = self.membership.iter().flat_map(|have| &have.leaving);
        let needs = |&instance: &InstanceId| LeavingBalancer {
            instance,
            transactions: self.through_leaving,
            bindings_until_ms: Some(self.bindings_until_ms),
        };
        leaving.map(needs).collect()
    }

    fn view(&self, instance: InstanceId) -> NodeView {
        let second = if instance.tier == Tier::Proxy { 20 } else { 10 };
        let [_, low] = instance.slot.to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, second, low), 5060));
        let has_table = self.membership.is_some() || instance.tier == Tier::Proxy;
        NodeView {
            incarnation: Incarnation(u32::try_from(self.created_at_ms / 1_000).expect("a time")),
            is_ready: has_table && !self.is_draining,
            is_draining: self.is_draining,
            internal: address,
            advertised: address,
            workers: vec![(0, address)],
            generation: self.membership.as_ref().map(|have| (have.generation, have.digest)),
            server_transactions: self.transactions,
            oldest_stamp: self.oldest_stamp,
            streams_open: 0,
            balancers_leaving: self.balancers_leaving(),
            doubts: self.doubts.clone(),
            load: CallRate::ZERO,
        }
    }
}

#[test]
fn a_fleet_is_built_configured_published_and_named_in_that_order() {
    let mut world = World::new(2, 4);
    world.rounds(6, 0);
    let expected = [
        "create balancer-1: 0 is below the minimum of 1",
        "create proxy-1: 0 is below the minimum of 2",
        "create proxy-2: 0 is below the minimum of 2",
        "publish 1.1 to 3: proxy-1 proxy-2",
        "names: 1",
    ];
    assert_eq!(world.acts, expected);
    world.acts.clear();
    world.rounds(20, 100);
    assert!(world.acts.is_empty(), "nothing changes, nothing is done: {:?}", world.acts);
}

/// Out of the table, acknowledged, drained, empty, gone; and the balancers are told at the end.
#[test]
fn a_proxy_leaves_the_table_before_it_leaves_the_fleet() {
    let mut world = World::settled(2);
    world.proxies.instances_min = 1;
    world.node(InstanceId::proxy(2)).transactions = 3;
    world.rounds(10, 10);
    let publication = "publish 1.2 to 3: proxy-1, first proxy-1 proxy-2";
    assert_eq!(world.acts[..2], [publication, "drain proxy-2"]);
    world.node(InstanceId::proxy(2)).transactions = 0;
    world.rounds(4, 10);
    let expected = [
        publication,
        "drain proxy-2",
        "publish 1.3 to 3: proxy-1",
        "terminate proxy-2: empty",
        "publish 1.4 to 2: proxy-1",
    ];
    assert_eq!(world.acts, expected);
}

#[test]
fn a_proxy_that_never_gets_empty_goes_at_the_limit() {
    let mut world = World::settled(2);
    world.proxies.instances_min = 1;
    world.node(InstanceId::proxy(2)).transactions = 1;
    world.rounds(60, 10);
    let gone = "terminate proxy-2: drain limit reached with 1 transactions left";
    assert!(world.acts.iter().any(|act| act == gone), "{:?}", world.acts);
}

/// A balancer does not answer: it may still send to the proxy, which therefore stays.
#[test]
fn an_unacknowledged_withdrawal_keeps_the_proxy_alive() {
    let mut world = World::settled(2);
    (world.proxies.instances_min, world.proxies.instances_max) = (1, 1);
    world.node(InstanceId::balancer(1)).is_silent = true;
    world.rounds(20, 10);
    assert!(!world.acts.iter().any(|act| act.contains("terminate")), "{:?}", world.acts);
    world.node(InstanceId::balancer(1)).is_silent = false;
    world.rounds(5, 10);
    assert!(world.acts.iter().any(|act| act == "terminate proxy-2: empty"), "{:?}", world.acts);
}

#[test]
fn load_that_returns_takes_a_draining_proxy_back() {
    let mut world = World::settled(2);
    world.proxies.instances_min = 1;
    world.node(InstanceId::proxy(2)).transactions = 3;
    world.rounds(8, 10);
    assert_eq!(world.owners(), [1]);
    world.rounds(8, 300);
    assert_eq!(world.owners(), [1, 2]);
    assert!(world.acts.contains(&"undrain proxy-2".to_owned()), "{:?}", world.acts);
    assert!(!world.acts.iter().any(|act| act.starts_with("create")), "{:?}", world.acts);
}

#[test]
fn a_dead_proxy_leaves_the_table_at_once_and_is_replaced_in_its_slot() {
    let mut world = World::settled(3);
    world.node(InstanceId::proxy(2)).is_dead = true;
    let _ = world.round(10);
    assert_eq!(world.owners(), [1, 3]);
    world.rounds(4, 10);
    assert_eq!(world.owners(), [1, 2, 3]);
    assert!(world.acts.contains(&"terminate proxy-2: its process is dead".to_owned()));
    assert!(world.acts.contains(&"create proxy-2: makes up the number".to_owned()));
}

/// Above its minimum a tier is restored as well: no decision asked for the death.
#[test]
fn a_death_above_the_minimum_is_replaced_too() {
    let mut world = World::settled(1);
    world.rounds(8, 180);
    assert_eq!(world.owners(), [1, 2]);
    world.node(InstanceId::proxy(2)).is_dead = true;
    world.rounds(5, 175);
    assert_eq!(world.owners(), [1, 2]);
}

#[test]
fn the_last_owner_stays_in_the_table_even_when_dead() {
    let mut world = World::settled(1);
    world.node(InstanceId::proxy(1)).is_dead = true;
    let _ = world.round(10);
    assert_eq!(world.owners(), [1], "an empty table helps nobody");
    world.rounds(4, 10);
    let made: Vec<_> = world.acts.iter().filter(|act| act.starts_with("create")).collect();
    assert_eq!(made, ["create proxy-1: makes up the number"]);
    assert_eq!(world.owners(), [1]);
}

#[test]
fn a_running_proxy_that_is_silent_for_long_is_replaced() {
    let mut world = World::settled(3);
    world.node(InstanceId::proxy(3)).is_silent = true;
    world.rounds(23, 10);
    assert_eq!(world.owners(), [1, 2, 3], "silence alone is no evidence");
    world.rounds(3, 10);
    assert!(world.acts.contains(&"terminate proxy-3: no answer for 24 rounds".to_owned()));
}

#[test]
fn a_frozen_tier_keeps_its_number_and_replaces_what_breaks() {
    let mut world = World::settled(2);
    world.proxies.is_frozen = true;
    world.proxies.instances_min = 1;
    world.rounds(8, 700);
    world.node(InstanceId::proxy(2)).is_dead = true;
    world.rounds(6, 10);
    assert_eq!(world.owners(), [1, 2], "{:?}", world.acts);
    assert_eq!(world.nodes.len(), 3);
}

/// If nobody answers, the fault is the manager's own.
#[test]
fn a_manager_that_hears_nobody_does_nothing() {
    let mut world = World::settled(3);
    for node in world.nodes.values_mut() {
        node.is_silent = true;
    }
    world.polls.clear();
    for _ in 0..100 {
        let _ = world.round(0);
        // What observation makes of a round in which nobody answered.
        *world.polls.last_mut().expect("a poll") = Poll { reported: CallRate::ZERO, silent: 3 };
    }
    assert!(world.acts.is_empty(), "{:?}", world.acts);
}

#[test]
fn a_drain_by_the_operator_waits_for_the_replacement() {
    let mut world = World::settled(1);
    world.asked.insert(InstanceId::proxy(1));
    world.rounds(8, 10);
    assert_eq!(world.owners(), [2]);
    let expected = [
        "create proxy-2: makes up the number",
        "publish 1.2 to 3: proxy-1 proxy-2, first proxy-1",
        "publish 1.3 to 3: proxy-2, first proxy-1, first proxy-1 proxy-2",
        "publish 1.4 to 3: proxy-2, first proxy-1 proxy-2",
        "drain proxy-1",
        "publish 1.5 to 3: proxy-2",
        "terminate proxy-1: empty",
        "publish 1.6 to 2: proxy-2",
    ];
    assert_eq!(world.acts, expected);
}

/// With others in service too: their number is made up before one of them leaves.
#[test]
fn a_drained_instance_is_replaced_before_it_leaves() {
    let mut world = World::settled(3);
    world.asked.insert(InstanceId::proxy(2));
    let mut least = usize::MAX;
    for _ in 0..8 {
        world.rounds(1, 30);
        least = least.min(world.owners().len());
    }
    assert_eq!((least, world.owners()), (3, vec![1, 3, 4]), "{:?}", world.acts);
}

/// A new manager hears two of three proxies at first.
#[test]
fn a_new_manager_waits_for_the_unheard_before_it_publishes() {
    let mut world = World::settled(3);
    world.memory = Memory::default();
    let node = world.node(InstanceId::proxy(3));
    (node.is_silent, node.last) = (true, None);
    world.rounds(3, 10);
    assert!(world.acts.is_empty(), "{:?}", world.acts);
    world.node(InstanceId::proxy(3)).is_silent = false;
    world.rounds(3, 10);
    assert!(world.acts.is_empty(), "the same generation again is no new one: {:?}", world.acts);
    assert_eq!(world.owners(), [1, 2, 3]);
}

/// The balancer tier shrinks: out of the DNS, the TTL waited, drained, empty, gone; every node knows
/// from the first step that it is leaving.
#[test]
fn a_balancer_leaves_the_names_before_it_leaves_the_fleet() {
    let mut world = World::new(1, 1);
    (world.balancers.instances_min, world.balancers.instances_max) = (2, 2);
    world.rounds(6, 0);
    assert_eq!(world.dns.known().map(BTreeSet::len), Some(2));
    world.acts.clear();
    (world.balancers.instances_min, world.balancers.instances_max) = (1, 1);
    world.rounds(7, 0);
    assert_eq!(world.acts, ["publish 1.2 to 3: proxy-1", "names: 1"], "the TTL is 30 s");
    world.rounds(4, 0);
    let expected = ["drain balancer-2", "terminate balancer-2: empty"];
    assert_eq!(world.acts[2..4], expected);
}

/// Goal: a balancer waits until no transaction names it and no phone is registered through it any
/// more, by the word of every proxy; an undrained one is in full service again.
#[test]
fn a_balancer_stays_while_a_proxy_needs_it() {
    let mut world = World::new(2, 2);
    (world.balancers.instances_min, world.balancers.instances_max) = (2, 2);
    world.rounds(6, 0);
    (world.balancers.instances_min, world.balancers.instances_max) = (1, 1);
    let leaving = InstanceId::balancer(2);
    let phones_until = world.now_ms + 150_000;
    world.node(InstanceId::proxy(1)).through_leaving = 3;
    world.node(InstanceId::proxy(2)).bindings_until_ms = phones_until;
    let note_of = |plan: &Plan| plan.standings.get(&leaving).map(|it| it.note.clone());
    world.rounds(12, 0);
    assert_eq!(note_of(&world.round(0)).as_deref(), Some("waits for 3 transactions"));
    world.node(InstanceId::proxy(1)).through_leaving = 0;
    let note = note_of(&world.round(0)).expect("still there");
    assert!(note.starts_with("waits up to ") && note.ends_with("register elsewhere"), "{note}");
    world.node(InstanceId::proxy(1)).is_silent = true;
    world.rounds(20, 0);
    assert!(world.now_ms > phones_until);
    assert_eq!(note_of(&world.round(0)).as_deref(), Some("waits for the word of proxy-1"));

    (world.balancers.instances_min, world.balancers.instances_max) = (2, 2);
    world.rounds(4, 0);
    let held = world.held().expect("a generation");
    assert!(held.leaving.is_empty() && held.balancer(leaving).is_some(), "{held:?}");
    assert_eq!(world.dns.known().map(BTreeSet::len), Some(2), "taken back");
}
