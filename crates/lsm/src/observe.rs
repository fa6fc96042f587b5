//! Asks every node at once and lists the machines and names: one snapshot per round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet::{
    CallRate, GenerationNumber, Incarnation, InstanceId, Membership, Observation, Poll, Tier,
};
use node_api::wire::NodeStatus;
use provider::{Addresses, ComputeProvider, DnsProvider, Machine, MachineState, ProviderError};
use scaling::{Listed, Load, NodeView, Observed, Report, Roster, RoundKind, Stray, Timing};
use tokio::task::JoinSet;

use crate::nodes::NodeAccess;
use crate::rates::{Rates, Sample};

/// A machine, and where its node is reached.
pub(crate) type Place = Listed<Addresses>;

/// What is remembered of each instance between rounds; losing it costs one poll.
#[derive(Default)]
pub(crate) struct Observer {
    roster: Roster<Addresses>,
    histories: BTreeMap<InstanceId, History>,
}

struct History {
    /// With its birth: a provider may give the name again to the machine that replaces one.
    machine: (String, u64),
    last: Option<NodeStatus>,
    misses: u32,
    sample: Option<Sample>,
    /// Of the last poll; `None` if nothing is known of it.
    rates: Option<Rates>,
    load: Load,
}

/// The world at one moment.
pub(crate) struct Snapshot {
    pub(crate) machines: Vec<Place>,
    pub(crate) strays: Vec<Stray>,
    pub(crate) observed: Vec<Observed>,
    pub(crate) nodes: BTreeMap<InstanceId, Seen>,
    pub(crate) dns: Observation<BTreeSet<InstanceId>>,
    /// The newest generation that a node has, if it is newer than what was known.
    pub(crate) held: Option<Membership>,
}

/// One instance, for reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) last: Option<NodeStatus>,
    pub(crate) rates: Option<Rates>,
    pub(crate) load: Load,
}

/// Whom an observation asks.
pub(crate) struct Sources<'a> {
    pub(crate) compute: &'a dyn ComputeProvider,
    pub(crate) dns: &'a dyn DnsProvider,
    pub(crate) nodes: &'a Arc<dyn NodeAccess>,
    pub(crate) poll_timeout: Duration,
    pub(crate) timing: &'a Timing,
    /// The generation that this manager made last; none that is older is read back.
    pub(crate) known: Option<GenerationNumber>,
}

impl Observer {
    /// One round of asking.
    ///
    /// # Errors
    ///
    /// If the machines cannot be listed: without the list nothing is known, and nothing is done.
    pub(crate) async fn observe(
        &mut self,
        kind: RoundKind,
        sources: &Sources<'_>,
    ) -> Result<Snapshot, ProviderError> {
        let listing = tokio::time::timeout(sources.poll_timeout * 10, sources.compute.list());
        let too_late = |_| ProviderError::Unavailable { why: "no list in time".to_owned() };
        let mut machines = listing.await.map_err(too_late)??;
        machines.retain(|machine| machine.instance.tier != Tier::Store);
        self.roster.take(kind, machines.into_iter().map(place).collect(), sources.timing);
        let machines: Vec<Place> = self.roster.machines().cloned().collect();
        let answers = ask_all(&machines, sources).await;
        let dns = names(sources).await;
        let held = read_back(&machines, &answers, sources).await;
        answers.keys().for_each(|&instance| self.roster.heard(instance));
        self.take(kind, &machines, answers, sources.timing.poll_interval);
        Ok(Snapshot { held, ..self.snapshot(machines, dns) })
    }

    /// That machine is gone: nothing waits for it to be listed again.
    pub(crate) fn forget(&mut self, instance: InstanceId, machine: &str) {
        self.roster.forget(instance, machine);
    }

    /// Files the answers, and on a poll makes rates of them.
    fn take(
        &mut self,
        kind: RoundKind,
        machines: &[Place],
        mut answers: BTreeMap<InstanceId, NodeStatus>,
        poll_interval: Duration,
    ) {
        let born = |one: &Place| (one.machine.clone(), one.created_at_ms);
        let listed: BTreeMap<_, _> = machines.iter().map(|one| (one.instance, born(one))).collect();
        self.histories.retain(|instance, history| listed.get(instance) == Some(&history.machine));
        // A node so young that its whole life is about one poll.
        let young_ms = u64::try_from(poll_interval.as_millis() * 2).unwrap_or(u64::MAX);
        for machine in machines {
            let history = self.histories.entry(machine.instance).or_insert_with(|| History {
                machine: born(machine),
                last: None,
                misses: 0,
                sample: None,
                rates: None,
                load: Load::default(),
            });
            let answer = answers.remove(&machine.instance);
            match (&answer, kind) {
                (Some(_), _) => history.misses = 0,
                (None, RoundKind::Poll) => history.misses = history.misses.saturating_add(1),
                // At least one, so that it shows as not answering.
                (None, RoundKind::Settle) => history.misses = history.misses.max(1),
            }
            if kind == RoundKind::Poll {
                let sample = answer.as_ref().map(Sample::of);
                let since = |sample: &Sample| sample.since(history.sample.as_ref(), young_ms);
                history.rates = sample.as_ref().and_then(since);
                history.sample = sample.or_else(|| history.sample.take());
            }
            history.last = answer.or_else(|| history.last.take());
        }
        if kind == RoundKind::Poll {
            self.take_loads();
        }
    }

    fn take_loads(&mut self) {
        let reports = self.histories.iter().map(|(&instance, history)| {
            let rates = history.rates.as_ref();
            let report =
                rates.map(|rates| Report { calls: rates.calls, calls_to: &rates.calls_to });
            (instance, report)
        });
        let loads = scaling::loads(&reports.collect());
        for (instance, history) in &mut self.histories {
            history.load = loads.get(instance).copied().unwrap_or_default();
        }
    }

    fn snapshot(&self, machines: Vec<Place>, dns: Observation<BTreeSet<InstanceId>>) -> Snapshot {
        let strays = self.roster.strays().to_vec();
        let (observed, nodes) = (Vec::new(), BTreeMap::new());
        let mut snapshot = Snapshot { machines, strays, observed, nodes, dns, held: None };
        for machine in &snapshot.machines {
            let Some(history) = self.histories.get(&machine.instance) else {
                continue;
            };
            let last = history.last.as_ref().map(|status| view_of(status, history.load.at_least));
            let answers = history.misses == 0;
            snapshot.observed.push(Observed {
                instance: machine.instance,
                machine: machine.machine.clone(),
                machine_state: machine.state,
                created_at_ms: machine.created_at_ms,
                node: match last.clone().filter(|_| answers) {
                    Some(view) => Observation::Known(view),
                    None => Observation::Unknown,
                },
                last,
                misses: history.misses,
            });
            let (last, rates, load) = (history.last.clone(), history.rates.clone(), history.load);
            snapshot.nodes.insert(machine.instance, Seen { last, rates, load });
        }
        snapshot
    }
}

impl Snapshot {
    /// The highest fence that any node obeys.
    pub(crate) fn fence_obeyed(&self) -> u64 {
        let nodes = self.nodes.values().filter_map(|seen| seen.last.as_ref());
        nodes.map(|last| last.fence).max().unwrap_or(0)
    }

    /// The tier's poll.
    pub(crate) fn poll(
        &self,
        tier: Tier,
        standings: Option<&BTreeMap<InstanceId, scaling::Standing>>,
    ) -> Poll {
        let loads = self.nodes.iter().map(|(&instance, seen)| (instance, seen.load)).collect();
        scaling::poll(tier, &self.observed, &loads, standings)
    }

    /// Mean CPU of the tier's instances that answered, percent of one core.
    pub(crate) fn cpu_percent(&self, tier: Tier) -> Option<u32> {
        let of_tier = self.nodes.iter().filter(|(instance, _)| instance.tier == tier);
        let known: Vec<f64> = of_tier
            .filter_map(|(_, seen)| seen.rates.as_ref())
            .map(|rates| rates.cpu_percent)
            .collect();
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        // `as` saturates; a mean of nothing is no number.
        (!known.is_empty()).then_some(mean.round() as u32)
    }
}

async fn ask_all(machines: &[Place], sources: &Sources<'_>) -> BTreeMap<InstanceId, NodeStatus> {
    let mut asked = JoinSet::new();
    for machine in machines {
        let (instance, control) = (machine.instance, machine.with.control);
        let (nodes, timeout) = (Arc::clone(sources.nodes), sources.poll_timeout);
        asked.spawn(async move {
            let answer = tokio::time::timeout(timeout, nodes.status(control)).await;
            (instance, answer)
        });
    }
    let mut answers = BTreeMap::new();
    while let Some(answered) = asked.join_next().await {
        match answered {
            // Something else listens there: it has not answered for this instance.
            Ok((instance, Ok(Ok(status)))) if status.instance != instance => {
                tracing::warn!(%instance, answers = %status.instance, "another instance answers");
            }
            Ok((instance, Ok(Ok(status)))) => {
                answers.insert(instance, status);
            }
            Ok((instance, Ok(Err(error)))) => tracing::debug!(%instance, %error, "no answer"),
            Ok((instance, Err(_))) => tracing::debug!(%instance, "no answer in time"),
            Err(error) => tracing::warn!(%error, "a poll broke off"),
        }
    }
    answers
}

/// The newest generation that any node works with, from one of those that have it.
async fn read_back(
    machines: &[Place],
    answers: &BTreeMap<InstanceId, NodeStatus>,
    sources: &Sources<'_>,
) -> Option<Membership> {
    let generation_of = |instance: &InstanceId| -> Option<GenerationNumber> {
        answers.get(instance)?.generation.map(GenerationNumber::from)
    };
    let newest = answers.keys().filter_map(generation_of).max()?;
    if sources.known.is_some_and(|known| known >= newest) {
        return None;
    }
    let has_it = |machine: &&Place| generation_of(&machine.instance) == Some(newest);
    for machine in machines.iter().filter(has_it) {
        let asked = sources.nodes.membership(machine.with.control);
        match tokio::time::timeout(sources.poll_timeout, asked).await {
            Ok(Ok(Some(held))) if held.validate().is_ok() => return Some(held),
            _ => tracing::warn!(instance = %machine.instance, "its generation cannot be read back"),
        }
    }
    None
}

fn place(machine: Machine) -> Place {
    let state = match machine.state {
        MachineState::Booting => scaling::MachineState::Booting,
        MachineState::Running => scaling::MachineState::Running,
        MachineState::Dead => scaling::MachineState::Dead,
    };
    let Machine { id, instance, addresses, created_at_ms, .. } = machine;
    Listed { instance, machine: id.to_string(), state, created_at_ms, with: addresses }
}

async fn names(sources: &Sources<'_>) -> Observation<BTreeSet<InstanceId>> {
    match tokio::time::timeout(sources.poll_timeout * 10, sources.dns.published()).await {
        Ok(Ok(Some(zone))) => {
            let names = zone.balancers.iter().filter_map(|target| target.name.parse().ok());
            Observation::Known(names.collect())
        }
        Ok(Ok(None)) => Observation::Absent,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the names are unknown");
            Observation::Unknown
        }
        Err(_) => Observation::Unknown,
    }
}

fn view_of(status: &NodeStatus, load: CallRate) -> NodeView {
    let digest = status.digest.as_deref().and_then(|text| u64::from_str_radix(text, 16).ok());
    let leaving = |one: &node_api::wire::LeavingBalancer| scaling::LeavingBalancer {
        instance: one.instance,
        transactions: one.transactions,
        bindings_until_ms: one.bindings_until_ms,
    };
    let doubt = |one: &node_api::wire::MemberInDoubt| scaling::Doubt {
        instance: one.instance,
        worker: one.worker,
        incarnation: Incarnation(one.incarnation),
        is_dead: one.is_dead,
        answers: one.answers,
    };
    NodeView {
        incarnation: Incarnation(status.incarnation),
        is_ready: status.ready,
        is_draining: status.draining,
        internal: status.sip.internal,
        advertised: status.sip.advertised,
        workers: status.workers.iter().map(|worker| (worker.worker, worker.address)).collect(),
        generation: status.generation.map(|number| (number.into(), digest.unwrap_or(0))),
        server_transactions: status.server_transactions,
        oldest_stamp: status.oldest_stamp.map(GenerationNumber::from),
        streams_open: status.streams_open,
        balancers_leaving: status.balancers_leaving.iter().map(leaving).collect(),
        doubts: status.members_in_doubt.iter().map(doubt).collect(),
        load,
    }
}
