//! What the manager tells: the fleet's status, events and metrics, from a snapshot and a plan.

use std::collections::BTreeMap;
use std::fmt::Write;

use fleet::{CallRate, InstanceId, InstanceState, Tier, WEIGHT_NORMAL};
use node_api::wire::{
    DnsRecord, Event, EventKind, FleetStatus, Generation, InstanceStatus, ManagerStatus, TierStatus,
};
use provider::Zone;
use scaling::{Plan, ScalingPolicy, Standing, TierPlan};

use crate::config::Settings;
use crate::execute::Outcome;
use crate::observe::{Place, Seen, Snapshot};

/// The fleet as this round saw and left it.
pub(crate) fn fleet_status(
    at_ms: u64,
    manager: ManagerStatus,
    settings: &Settings,
    snapshot: &Snapshot,
    plan: &Plan,
    zone: Option<&Zone>,
) -> FleetStatus {
    let generation = plan.memory.membership.as_ref();
    let tier = |(&tier, tier_plan): (&Tier, &TierPlan)| {
        let policy = match tier {
            Tier::LoadBalancer => &settings.balancers,
            Tier::Proxy | Tier::Store => &settings.proxies,
        };
        tier_status(tier, tier_plan, policy)
    };
    let instance = |machine: &Place| {
        let standing = plan.standings.get(&machine.instance);
        let seen = snapshot.nodes.get(&machine.instance).cloned().unwrap_or_default();
        let answers = snapshot
            .observed
            .iter()
            .any(|one| one.instance == machine.instance && one.node.known().is_some());
        instance_status(machine, standing, seen, answers)
    };
    FleetStatus {
        at_ms,
        manager,
        generation: generation.map(|membership| Generation::from(membership.generation)),
        tiers: plan.tiers.iter().map(tier).collect(),
        instances: snapshot.machines.iter().map(instance).collect(),
        dns: zone.map(dns_records).unwrap_or_default(),
        store: None,
    }
}

/// Before the first round.
pub(crate) const fn nothing_yet(at_ms: u64, manager: ManagerStatus) -> FleetStatus {
    FleetStatus {
        at_ms,
        manager,
        generation: None,
        tiers: Vec::new(),
        instances: Vec::new(),
        dns: Vec::new(),
        store: None,
    }
}

fn tier_status(tier: Tier, plan: &TierPlan, policy: &ScalingPolicy) -> TierStatus {
    TierStatus {
        tier: tier.name().to_owned(),
        load_cps: cps(plan.load),
        capacity_cps: cps(plan.capacity),
        in_service: plan.in_service,
        starting: plan.starting,
        draining: plan.draining,
        silent: plan.silent,
        desired: plan.decision.instances,
        instances_min: policy.instances_min,
        instances_max: policy.instances_max,
        reason: plan.decision.reason.to_string(),
    }
}

fn instance_status(
    machine: &Place,
    standing: Option<&Standing>,
    seen: Seen,
    answers: bool,
) -> InstanceStatus {
    let last = seen.last.as_ref();
    let rates = seen.rates.unwrap_or_default();
    InstanceStatus {
        instance: machine.instance,
        state: standing.map_or(InstanceState::Booting, |one| one.state).to_string(),
        machine: machine.machine.clone(),
        sip: machine.with.sip,
        control: machine.with.control,
        answers,
        incarnation: last.map(|last| last.incarnation),
        pid: last.map(|last| last.pid),
        version: last.map_or_else(String::new, |last| last.version.clone()),
        build: last.map_or_else(String::new, |last| last.build.clone()),
        created_at_ms: machine.created_at_ms,
        load_cps: cps(seen.load.at_least),
        cpu_percent: rates.cpu_percent,
        rss_bytes: last.map_or(0, |last| last.rss_bytes),
        network_bytes_per_s: rates.network_bytes_per_s,
        server_transactions: last.map_or(0, |last| last.server_transactions),
        streams_open: last.map_or(0, |last| last.streams_open),
        calls_total: last.map_or(0, |last| last.calls_total),
        generation: last.and_then(|last| last.generation),
        weight: WEIGHT_NORMAL,
        weight_now: None,
        note: standing.map_or_else(String::new, |standing| standing.note.clone()),
    }
}

/// What operators gave to instances, and what the generation gives them now.
pub(crate) fn tell_weights(
    fleet: &mut FleetStatus,
    plan: &Plan,
    weights: &BTreeMap<InstanceId, u16>,
) {
    let owners = plan.memory.membership.iter().flat_map(|membership| &membership.proxies);
    let now: BTreeMap<_, _> = owners.map(|member| (member.instance, member.weight)).collect();
    for one in &mut fleet.instances {
        one.weight = weights.get(&one.instance).copied().unwrap_or(WEIGHT_NORMAL);
        one.weight_now = now.get(&one.instance).copied();
    }
}

fn dns_records(zone: &Zone) -> Vec<DnsRecord> {
    let ttl_s = u32::try_from(zone.ttl.as_secs()).unwrap_or(u32::MAX);
    let mut records = Vec::new();
    for name in &zone.service_names {
        records.extend(zone.balancers.iter().map(|target| DnsRecord {
            name: name.clone(),
            address: (target.address, target.port).into(),
            priority: target.priority,
            weight: target.weight,
            ttl_s,
        }));
    }
    records
}

fn cps(rate: CallRate) -> f64 {
    rate.millicps() as f64 / 1_000.0
}

/// A line of the journal without its number.
pub(crate) fn event(at_ms: u64, kind: EventKind, text: impl Into<String>) -> Event {
    Event {
        number: 0,
        at_ms,
        kind,
        tier: None,
        instance: None,
        text: text.into(),
        desired: None,
        before: None,
        load_millicps: None,
    }
}

/// The line of a decision.
pub(crate) fn decision_event(at_ms: u64, tier: Tier, plan: &TierPlan, is_dry_run: bool) -> Event {
    let (before, desired) = (plan.planned, plan.decision.instances);
    let number = match before == desired {
        true => format!("{desired} stay"),
        false => format!("{before} → {desired}"),
    };
    let dry = if is_dry_run { " (dry run)" } else { "" };
    Event {
        tier: Some(tier.name().to_owned()),
        desired: Some(desired),
        before: Some(before),
        load_millicps: Some(plan.load.millicps()),
        ..event(at_ms, EventKind::Decision, format!("{number}: {}{dry}", plan.decision.reason))
    }
}

/// The line of an act.
pub(crate) fn outcome_event(at_ms: u64, outcome: &Outcome) -> Event {
    let kind = if outcome.is_done { EventKind::Act } else { EventKind::Failure };
    Event {
        tier: outcome.tier.map(|tier| tier.name().to_owned()),
        instance: outcome.instance,
        ..event(at_ms, kind, outcome.text.clone())
    }
}

/// Prometheus text about the fleet.
pub(crate) fn metrics(fleet: &FleetStatus) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, f64)>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let rounds = fleet.manager.rounds_total as f64;
    let plain = |value: f64| vec![(String::new(), value)];
    family(
        "sipcloud_manager_leads",
        "gauge",
        "1: this manager acts; 0: it stands by, or cannot renew its lease.",
        plain(f64::from(u8::from(fleet.manager.leads))),
    );
    family(
        "sipcloud_manager_fence",
        "gauge",
        "Fence of its lease; it rises with every change of leaders.",
        plain(fleet.manager.fence as f64),
    );
    family(
        "sipcloud_manager_rounds_total",
        "counter",
        "Rounds of observe, decide, act.",
        plain(rounds),
    );
    let tiers = |value: fn(&TierStatus) -> f64| {
        let sample = |tier: &TierStatus| (format!("{{tier=\"{}\"}}", tier.tier), value(tier));
        fleet.tiers.iter().map(sample).collect::<Vec<_>>()
    };
    let gauge = "gauge";
    family("sipcloud_tier_load_cps", gauge, "Calls per second of the tier.", tiers(|t| t.load_cps));
    family(
        "sipcloud_tier_capacity_cps",
        gauge,
        "Calls per second that the instances in service are trusted with.",
        tiers(|t| t.capacity_cps),
    );
    family(
        "sipcloud_tier_desired_instances",
        gauge,
        "Instances that the tier should have.",
        tiers(|t| f64::from(t.desired)),
    );
    family(
        "sipcloud_tier_silent_instances",
        gauge,
        "Instances in service of which nothing was heard in the last poll.",
        tiers(|t| f64::from(t.silent)),
    );
    let mut states: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for instance in &fleet.instances {
        let tier = instance.instance.tier.name();
        *states.entry((tier, instance.state.as_str())).or_default() += 1.0;
    }
    let states = states
        .into_iter()
        .map(|((tier, state), count)| (format!("{{tier=\"{tier}\",state=\"{state}\"}}"), count));
    family("sipcloud_instances", gauge, "Instances by tier and state.", states.collect());
    text
}
