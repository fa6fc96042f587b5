//! The experiment of the paper's §4.1 and Figure 5, on virtual time: the controller's own step
//! against a cloud in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use fleet::{
    CallRate, Incarnation, InstanceId, InstanceState, Membership, Observation, Poll, Tier,
};
use provider::in_process::InProcessCompute;
use provider::{ComputeProvider, MachineId, MachineRequest, MachineState};
use scaling::{
    Action, Memory, NodeView, Observed, PAPER, Plan, ScalingPolicy, TierInput, Timing, View, step,
};

const POLL: Duration = Duration::from_secs(3);
const BOOT: Duration = Duration::from_secs(150);
const EXPECTED: &str = include_str!("paper_figure_5.expected");

/// 140 cps, 10 more every 90 s up to 760, then 60 less every 90 s down to nothing.
fn paper_load(elapsed: Duration) -> u32 {
    let step = u32::try_from(elapsed.as_secs() / 90).expect("a test lasts hours");
    let climb = (760 - 140) / 10;
    if step <= climb { 140 + 10 * step } else { 760_u32.saturating_sub(60 * (step - climb)) }
}

struct Node {
    membership: Option<Membership>,
    is_draining: bool,
    /// When it was last in the table: its transactions last 32 s longer.
    owned_at_ms: u64,
}

struct Simulation {
    now_ms: u64,
    cloud: InProcessCompute,
    nodes: BTreeMap<InstanceId, Node>,
    dns: Observation<BTreeSet<InstanceId>>,
    polls: Vec<Poll>,
    memory: Memory,
    timing: Timing,
    balancers: ScalingPolicy,
}

impl Simulation {
    async fn observed(&self) -> Vec<Observed> {
        let machines = self.cloud.list().await.expect("listed");
        let observe = |machine: &provider::Machine| {
            let node = self.nodes.get(&machine.instance);
            let is_running = machine.state == MachineState::Running;
            let view = node.filter(|_| is_running).map(|node| {
                let is_proxy = machine.instance.tier == Tier::Proxy;
                let lingers = self.now_ms < node.owned_at_ms + 32_000;
                NodeView {
                    incarnation: Incarnation(
                        u32::try_from(machine.created_at_ms / 1_000).expect("a time"),
                    ),
                    is_ready: !node.is_draining && (is_proxy || node.membership.is_some()),
                    is_draining: node.is_draining,
                    internal: machine.addresses.sip,
                    advertised: machine.addresses.sip,
                    workers: vec![(0, machine.addresses.sip)],
                    generation: node.membership.as_ref().map(|have| (have.generation, have.digest)),
                    server_transactions: u64::from(lingers),
                    oldest_stamp: None,
                    streams_open: 0,
                    balancers_leaving: Vec::new(),
                    load: CallRate::ZERO,
                }
            });
            Observed {
                instance: machine.instance,
                machine: machine.id.to_string(),
                machine_state: match machine.state {
                    MachineState::Booting => scaling::MachineState::Booting,
                    MachineState::Running => scaling::MachineState::Running,
                    MachineState::Dead => scaling::MachineState::Dead,
                },
                created_at_ms: machine.created_at_ms,
                node: view.clone().map_or(Observation::Unknown, Observation::Known),
                last: view,
                misses: 0,
            }
        };
        machines.iter().map(observe).collect()
    }

    async fn tick(&mut self) -> Plan {
        self.cloud.advance_to(self.now_ms);
        let observed = self.observed().await;
        let nobody = BTreeSet::new();
        let plan = step(&View {
            now_ms: self.now_ms,
            balancers: TierInput { policy: &self.balancers, polls: &[], cpu_percent: None },
            proxies: TierInput { policy: &PAPER, polls: &self.polls, cpu_percent: None },
            timing: &self.timing,
            observed: &observed,
            strays: &[],
            dns: &self.dns,
            asked_to_drain: &nobody,
            rows: 1 << 8,
            fence: 1,
            is_dry_run: false,
            held: None,
            memory: &self.memory,
        });
        self.memory = plan.memory.clone();
        for action in plan.actions.clone() {
            self.perform(action).await;
        }
        plan
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Create { instance, .. } => {
                let request = MachineRequest {
                    instance,
                    token: instance.to_string(),
                    files: Vec::new(),
                    arguments: Vec::new(),
                };
                self.cloud.create(&request).await.expect("created");
                let node = Node { membership: None, is_draining: false, owned_at_ms: 0 };
                self.nodes.insert(instance, node);
            }
            Action::Publish { membership, to } => {
                for member in self.memory.membership.iter().flat_map(|have| &have.proxies) {
                    let node = self.nodes.get_mut(&member.instance).expect("it runs");
                    node.owned_at_ms = self.now_ms;
                }
                for instance in to {
                    let node = self.nodes.get_mut(&instance).expect("it runs");
                    node.membership = Some(membership.clone());
                }
            }
            Action::Names { balancers } => {
                let names = balancers.iter().map(|entry| entry.instance).collect();
                self.dns = Observation::Known(names);
            }
            Action::Drain { instance } => self.node(instance).is_draining = true,
            Action::Undrain { instance } => self.node(instance).is_draining = false,
            Action::Terminate { instance, machine, .. } => {
                self.cloud.terminate(&MachineId::new(machine)).await.expect("terminated");
                self.nodes.remove(&instance);
            }
        }
    }

    fn node(&mut self, instance: InstanceId) -> &mut Node {
        self.nodes.get_mut(&instance).expect("it runs")
    }
}

/// Figure 5: four proxies at the top, one at the end, and never an overload.
///
/// Method: play the paper's load against the controller and a cloud that boots in 150 s, all on
/// virtual time, and check every tick. The experiment begins with one proxy in service.
#[tokio::test]
async fn the_papers_load_needs_four_proxies_and_gives_them_back() {
    let start_ms = 1_700_000_000_000;
    let mut simulation = Simulation {
        now_ms: start_ms - 200_000,
        cloud: InProcessCompute::new(start_ms - 200_000, BOOT),
        nodes: BTreeMap::new(),
        dns: Observation::Absent,
        polls: Vec::new(),
        memory: Memory::default(),
        timing: Timing { poll_interval: POLL, boot_time: BOOT, ..Timing::default() },
        balancers: ScalingPolicy { instances_max: 1, ..PAPER },
    };
    while simulation.now_ms < start_ms {
        let _ = simulation.tick().await;
        simulation.now_ms += 1_000;
    }
    let mut story = String::new();
    for second in (0..2 * 60 * 60).step_by(3) {
        let elapsed = Duration::from_secs(second);
        simulation.now_ms = start_ms + second * 1_000;
        let cps = paper_load(elapsed);
        simulation.polls.push(Poll::answered(cps));
        let plan = simulation.tick().await;
        let tier = &plan.tiers[&Tier::Proxy];
        let serving = plan
            .standings
            .iter()
            .filter(|(instance, _)| instance.tier == Tier::Proxy)
            .filter(|(_, one)| one.state == InstanceState::InService)
            .count();
        assert!(cps <= 200 * u32::try_from(serving.max(1)).expect("few"), "overload at {second} s");
        let (before, after) = (tier.planned, tier.decision.instances);
        if before != after {
            let verb = if after > before { "add   " } else { "remove" };
            let reason = &tier.decision.reason;
            let serving = tier.in_service;
            writeln!(
                story,
                "{second:>6} s   {cps:>3} cps   {serving} in service   {verb}   {reason}"
            )
            .expect("a string");
        }
    }
    assert_eq!(story, EXPECTED);
    assert_eq!(simulation.nodes.len(), 2, "one balancer and one proxy are left");
}
