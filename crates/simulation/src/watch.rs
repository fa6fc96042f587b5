//! What must never happen, looked for in every plan and at the end of every run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fleet::{CallRate, GenerationNumber, InstanceId, InstanceState, Membership, Tier};
use provider::MachineState;
use scaling::{Action, Cause, Observed, Plan, Reason, ScalingPolicy};

use crate::manager::Turn;
use crate::scenario::Settings;
use crate::world::{World, millis};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Seconds after the start.
    pub at_s: u64,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} s  {}", self.at_s, self.what)
    }
}

/// Holds every plan against the world as it really is.
#[derive(Default)]
pub(crate) struct Watch {
    last: Option<(GenerationNumber, u64)>,
    before: BTreeMap<InstanceId, InstanceState>,
    launches: Vec<(Tier, u64)>,
    pub(crate) violations: Vec<Violation>,
}

impl Watch {
    /// Another manager: what the one before had in hand is unknown to it.
    pub(crate) fn restart(&mut self) {
        self.before.clear();
        self.launches.clear();
    }

    /// Before the plan is acted upon.
    pub(crate) fn look(&mut self, world: &World, settings: &Settings, turn: &Turn) {
        let mut found = Vec::new();
        for tier in [Tier::LoadBalancer, Tier::Proxy] {
            let policy = match tier {
                Tier::LoadBalancer => &settings.balancers,
                Tier::Proxy | Tier::Store => &settings.proxies,
            };
            self.look_at_number(tier, policy, world, turn, &mut found);
        }
        for action in &turn.plan.actions {
            match action {
                Action::Publish { membership, .. } => self.look_at_table(membership, &mut found),
                Action::Names { balancers } if balancers.is_empty() => {
                    found.push("the last name is taken from the DNS".to_owned());
                }
                Action::Terminate { instance, machine, cause } => {
                    look_at_end(world, turn, *instance, machine, cause, &mut found);
                }
                _ => {}
            }
        }
        let standings = turn.plan.standings.iter();
        self.before = standings.map(|(&instance, one)| (instance, one.state)).collect();
        let at_s = world.elapsed_s();
        self.violations.extend(found.into_iter().map(|what| Violation { at_s, what }));
    }

    /// Minimum, maximum, launches, and what is taken away on missing data.
    fn look_at_number(
        &mut self,
        tier: Tier,
        policy: &ScalingPolicy,
        world: &World,
        turn: &Turn,
        found: &mut Vec<String>,
    ) {
        let plan = &turn.plan;
        let stays = |instance: &InstanceId, states: &[InstanceState]| {
            let state = plan.standings.get(instance).map(|one| one.state);
            state.is_some_and(|state| states.contains(&state))
                && !world.asked_to_drain.contains(instance)
        };
        let of_tier = || plan.standings.keys().filter(|one| one.tier == tier);
        let created: Vec<InstanceId> = creations(plan).filter(|one| one.tier == tier).collect();
        if !created.is_empty() {
            let held = of_tier().filter(|one| stays(one, &STAYING)).count();
            if held + created.len() > number(policy.instances_max) {
                let count = held + created.len();
                found.push(format!("{count} {tier} instances, above the maximum"));
            }
            self.look_at_launches(tier, policy, world, &created, found);
        }
        let taken = of_tier().filter(|one| self.is_taken_away(one, world, turn)).count();
        if taken == 0 {
            return;
        }
        let left: Vec<InstanceId> = of_tier().filter(|one| stays(one, &SERVING)).copied().collect();
        let capacity: CallRate = left.iter().map(|one| world.capacity_of(*one)).sum();
        let left = left.len();
        if left < number(policy.instances_min) {
            found.push(format!("{left} {tier} instances are left, below the minimum"));
        }
        let reason = plan.tiers.get(&tier).map(|tier| &tier.decision.reason);
        let is_by_load = !matches!(reason, Some(Reason::AboveMaximum { .. }));
        let is_unheard = |one: &&Observed| {
            one.instance.tier == tier
                && one.node.is_unknown()
                && self.before.get(&one.instance) == Some(&InstanceState::InService)
                && plan.standings.get(&one.instance).is_some_and(|now| {
                    matches!(now.state, InstanceState::InService | InstanceState::Draining)
                })
        };
        if is_by_load && turn.observed.iter().any(|one| is_unheard(&one)) {
            found.push(format!("the {tier} tier shrinks on missing data"));
        }
        if is_by_load && tier == Tier::Proxy && world.offered > capacity {
            found.push(format!("{left} proxies are left for {}", world.offered));
        }
    }

    /// Whether the plan takes it out of service because of the load.
    fn is_taken_away(&self, instance: &InstanceId, world: &World, turn: &Turn) -> bool {
        let served = matches!(
            self.before.get(instance),
            Some(InstanceState::InService | InstanceState::Ready)
        );
        let now = turn.plan.standings.get(instance).map(|one| one.state);
        let drained_itself = turn.observed.iter().any(|one| {
            one.instance == *instance && one.last.as_ref().is_some_and(|v| v.is_draining)
        });
        served
            && now == Some(InstanceState::Draining)
            && !drained_itself
            && !world.asked_to_drain.contains(instance)
    }

    fn look_at_launches(
        &mut self,
        tier: Tier,
        policy: &ScalingPolicy,
        world: &World,
        created: &[InstanceId],
        found: &mut Vec<String>,
    ) {
        let interval_ms = millis(policy.launch_interval);
        self.launches.retain(|(_, at_ms)| at_ms + interval_ms > world.now_ms);
        let exists: BTreeSet<InstanceId> = world
            .machines()
            .iter()
            .filter(|one| one.state != MachineState::Dead)
            .map(|one| one.instance)
            .collect();
        let new = created.iter().filter(|one| !exists.contains(one));
        self.launches.extend(new.map(|_| (tier, world.now_ms)));
        let count = self.launches.iter().filter(|(of, _)| *of == tier).count();
        if count > number(policy.launches_max) {
            found.push(format!("{count} launches of the {tier} tier within the launch interval"));
        }
    }

    fn look_at_table(&mut self, membership: &Membership, found: &mut Vec<String>) {
        let this = (membership.generation, membership.digest);
        let goes_on = self.last.is_none_or(|last| this.0 > last.0 || this == last);
        if !goes_on {
            found.push(format!("generation {} after {:?}", membership.generation, self.last));
        }
        if let Err(why) = membership.validate() {
            found.push(format!("no node takes it: {why}"));
        }
        self.last = Some(this);
    }
}

const SERVING: [InstanceState; 2] = [InstanceState::InService, InstanceState::Ready];
const STAYING: [InstanceState; 4] = [
    InstanceState::InService,
    InstanceState::Ready,
    InstanceState::Configuring,
    InstanceState::Booting,
];

fn number(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn creations(plan: &Plan) -> impl Iterator<Item = InstanceId> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Create { instance, .. } => Some(*instance),
        _ => None,
    })
}

/// Nothing ends that is needed: the dead are dead, the empty are empty, and no table names them.
fn look_at_end(
    world: &World,
    turn: &Turn,
    instance: InstanceId,
    machine: &str,
    cause: &Cause,
    found: &mut Vec<String>,
) {
    let Some(node) = world.nodes.get(&instance).filter(|node| node.machine == machine) else {
        return;
    };
    // A balancer that is neither listed nor in the manager's own table, because it was silent too when
    // the list left it out, or no list has shown it for long: it is gone, as far as anybody can know.
    let is_unknowable = |balancer: &InstanceId| {
        !turn.balancers.contains(balancer)
            && !turn.observed.iter().any(|one| one.instance == *balancer)
    };
    let named = Named::of(world, instance, is_unknowable);
    let is_wrong = match cause {
        Cause::Dead => true,
        Cause::Empty if instance.tier == Tier::Proxy => {
            let left = node.transactions(world.now_ms, world.transaction_ms);
            named != Named::Not || left > 0
        }
        Cause::NeverReady | Cause::NotNeeded => named == Named::Owner,
        // A manager that hears few gives nobody up that balancers reach.
        Cause::Silent { .. } if instance.tier == Tier::Proxy => {
            let heard = turn.observed.iter().filter(|one| one.node.known().is_some()).count();
            2 * heard <= turn.observed.len() && world.is_reached(instance)
        }
        _ => false,
    };
    if is_wrong {
        found.push(format!("{instance} is terminated ({cause}), named {named:?}"));
    }
}

/// What the live balancers' tables say of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Not,
    Earlier,
    Owner,
}

impl Named {
    fn of(
        world: &World,
        instance: InstanceId,
        is_passed_over: impl Fn(&InstanceId) -> bool,
    ) -> Self {
        let is_meant = |one: &InstanceId| one.tier == Tier::LoadBalancer && !is_passed_over(one);
        let balancers = world.nodes.iter().filter(|(one, _)| is_meant(one));
        let tables = || balancers.clone().filter_map(|(_, node)| node.membership.as_ref());
        let names = |members: &[fleet::Member]| members.iter().any(|m| m.instance == instance);
        if tables().any(|table| names(&table.proxies)) {
            Self::Owner
        } else if tables().flat_map(|table| &table.earlier).any(|set| names(&set.proxies)) {
            Self::Earlier
        } else {
            Self::Not
        }
    }
}

/// What is not as it should be after all faults are over and nothing changed for long.
pub(crate) fn unconverged(world: &World, settings: &Settings) -> Vec<String> {
    let mut wrong = Vec::new();
    let machines = world.machines();
    if machines.len() != world.nodes.len() {
        let (listed, live) = (machines.len(), world.nodes.len());
        wrong.push(format!("{listed} machines for {live} nodes: an orphan is left"));
    }
    for (tier, policy) in
        [(Tier::LoadBalancer, &settings.balancers), (Tier::Proxy, &settings.proxies)]
    {
        let count = world.nodes.keys().filter(|one| one.tier == tier).count();
        let limits = number(policy.instances_min)..=number(policy.instances_max);
        if !limits.contains(&count) {
            wrong.push(format!("{count} {tier} instances, expected {limits:?}"));
        }
    }
    let tables: BTreeSet<_> = world
        .nodes
        .values()
        .map(|node| node.membership.as_ref().map(|have| (have.generation, have.digest)))
        .collect();
    if tables.len() > 1 {
        wrong.push(format!("the nodes work with different generations: {tables:?}"));
    }
    let live = |tier| -> BTreeSet<InstanceId> {
        world.nodes.keys().copied().filter(|one| one.tier == tier).collect()
    };
    let table = world.nodes.values().find_map(|node| node.membership.as_ref());
    let owners: BTreeSet<InstanceId> =
        table.iter().flat_map(|table| &table.proxies).map(|member| member.instance).collect();
    if owners != live(Tier::Proxy) {
        wrong.push(format!("the table names {owners:?}"));
    }
    if table.is_some_and(|table| !table.earlier.is_empty()) {
        wrong.push("earlier owners are left in the table".to_owned());
    }
    let skips = |member| world.nodes.values().any(|balancer| balancer.skips(member));
    if let Some(member) = table.iter().flat_map(|table| &table.proxies).find(|one| skips(*one)) {
        wrong.push(format!("a balancer holds {} dead", member.instance));
    }
    if world.dns.known() != Some(&live(Tier::LoadBalancer)) {
        wrong.push(format!("the DNS names {:?}", world.dns));
    }
    wrong
}
