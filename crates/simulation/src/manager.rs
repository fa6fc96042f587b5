//! The manager's side: what it can know of the world, the step, and what comes of its acts.

use std::collections::{BTreeMap, BTreeSet};

use fleet::{Incarnation, InstanceId, Membership, Observation, Poll, Tier};
use provider::{Machine, MachineState, ProviderError};
use scaling::{
    Action, Listed, Load, Memory, NodeView, Observed, Plan, Report, Roster, RoundKind, Standing,
    TierInput, View,
};

use crate::scenario::Settings;
use crate::world::{ROWS, World, millis};

/// Polls kept for the decisions, as the manager does.
const POLLS_MAX: usize = 256;

/// What a manager remembers; another one begins with nothing.
pub(crate) struct Manager {
    /// First half of its generations.
    fence: u64,
    memory: Memory,
    roster: Roster<()>,
    known: BTreeMap<InstanceId, Known>,
    loads: BTreeMap<InstanceId, Load>,
    polls: BTreeMap<Tier, Vec<Poll>>,
    standings: Option<BTreeMap<InstanceId, Standing>>,
}

struct Known {
    machine: String,
    last: Option<NodeView>,
    misses: u32,
    /// The life whose counters were read at the poll before: a rate needs two readings.
    read: Option<Incarnation>,
}

/// One look at the world, and what is to be done.
pub(crate) struct Turn {
    pub(crate) observed: Vec<Observed>,
    /// The balancers of the generation that it works with.
    pub(crate) balancers: BTreeSet<InstanceId>,
    pub(crate) plan: Plan,
}

/// How an action came out.
pub(crate) struct Done {
    pub(crate) action: Action,
    pub(crate) result: Result<(), String>,
}

impl Manager {
    pub(crate) fn new(fence: u64) -> Self {
        Self {
            fence,
            memory: Memory::default(),
            roster: Roster::default(),
            known: BTreeMap::new(),
            loads: BTreeMap::new(),
            polls: BTreeMap::new(),
            standings: None,
        }
    }

    /// Observes and decides.
    ///
    /// # Errors
    ///
    /// If the provider does not list: then nothing is known, and nothing is done.
    pub(crate) fn turn(
        &mut self,
        kind: RoundKind,
        world: &World,
        settings: &Settings,
    ) -> Result<Turn, ProviderError> {
        let listed = world.list()?.into_iter().map(listed).collect();
        self.roster.take(kind, listed, &settings.timing);
        let answers = self.ask(world);
        answers.keys().for_each(|&instance| self.roster.heard(instance));
        self.file(kind, world, settings, answers);
        let observed = self.observed();
        if kind == RoundKind::Poll {
            self.count_polls(&observed);
        }
        let plan = self.step(kind, world, settings, &observed);
        self.standings = Some(plan.standings.clone());
        let balancers = self.memory.membership.iter().flat_map(|have| &have.balancers);
        let balancers = balancers.map(|one| one.instance).collect();
        Ok(Turn { observed, balancers, plan })
    }

    fn ask(&self, world: &World) -> BTreeMap<InstanceId, NodeView> {
        let answer = |instance: InstanceId| {
            let node = world.nodes.get(&instance).filter(|_| world.answers(instance))?;
            Some((instance, node.view(world.now_ms, world.transaction_ms, instance)))
        };
        self.roster.machines().filter_map(|one| answer(one.instance)).collect()
    }

    /// Files the answers; at a poll, finds out who takes how many calls.
    fn file(
        &mut self,
        kind: RoundKind,
        world: &World,
        settings: &Settings,
        mut answers: BTreeMap<InstanceId, NodeView>,
    ) {
        let mut before = std::mem::take(&mut self.known);
        let mut reports = BTreeMap::new();
        for machine in self.roster.machines() {
            let instance = machine.instance;
            let same = before.remove(&instance).filter(|known| known.machine == machine.machine);
            let mut known = same.unwrap_or_else(|| Known {
                machine: machine.machine.clone(),
                last: None,
                misses: 0,
                read: None,
            });
            let answer = answers.remove(&instance);
            known.misses = match (&answer, kind) {
                (Some(_), _) => 0,
                (None, RoundKind::Poll) => known.misses.saturating_add(1),
                (None, RoundKind::Settle) => known.misses.max(1),
            };
            if kind == RoundKind::Poll {
                let life = answer.as_ref().map(|view| view.incarnation);
                let young_ms = 2 * millis(settings.timing.poll_interval);
                let is_young =
                    life.is_some_and(|life| u64::from(life.0) * 1_000 + young_ms >= world.now_ms);
                let node = world.nodes.get(&instance);
                let node = node.filter(|_| life.is_some() && (known.read == life || is_young));
                let report =
                    node.map(|node| Report { calls: node.calls, calls_to: &node.calls_to });
                reports.insert(instance, report);
                known.read = life.or(known.read);
            }
            known.last = answer.or_else(|| known.last.take());
            self.known.insert(instance, known);
        }
        if kind == RoundKind::Poll {
            self.loads = scaling::loads(&reports);
        }
    }

    fn observed(&self) -> Vec<Observed> {
        let observe = |machine: &Listed<()>| {
            let known = self.known.get(&machine.instance);
            let load = self.loads.get(&machine.instance).copied().unwrap_or_default();
            let last = known.and_then(|known| known.last.clone());
            let last = last.map(|last| NodeView { load: load.at_least, ..last });
            let misses = known.map_or(1, |known| known.misses);
            Observed {
                instance: machine.instance,
                machine: machine.machine.clone(),
                machine_state: machine.state,
                created_at_ms: machine.created_at_ms,
                node: match last.clone().filter(|_| misses == 0) {
                    Some(view) => Observation::Known(view),
                    None => Observation::Unknown,
                },
                last,
                misses,
            }
        };
        self.roster.machines().map(observe).collect()
    }

    fn count_polls(&mut self, observed: &[Observed]) {
        for tier in [Tier::LoadBalancer, Tier::Proxy] {
            let poll = scaling::poll(tier, observed, &self.loads, self.standings.as_ref());
            let polls = self.polls.entry(tier).or_default();
            polls.push(poll);
            let surplus = polls.len().saturating_sub(POLLS_MAX);
            polls.drain(..surplus);
        }
    }

    fn step(
        &mut self,
        kind: RoundKind,
        world: &World,
        settings: &Settings,
        observed: &[Observed],
    ) -> Plan {
        let input = |tier, policy| TierInput {
            policy,
            polls: self.polls.get(&tier).map_or(&[], Vec::as_slice),
            cpu_percent: None,
        };
        let held = self.read_back(world, observed);
        let mut plan = scaling::step(&View {
            now_ms: world.managers_time_ms(),
            balancers: input(Tier::LoadBalancer, &settings.balancers),
            proxies: input(Tier::Proxy, &settings.proxies),
            timing: &settings.timing,
            observed,
            strays: self.roster.strays(),
            dns: &world.dns,
            held: held.as_ref(),
            asked_to_drain: &world.asked_to_drain,
            weights: &world.weights,
            rows: ROWS,
            fence: self.fence,
            is_dry_run: settings.is_dry_run,
            memory: &self.memory,
        });
        if kind == RoundKind::Settle {
            plan.memory.rounds = self.memory.rounds;
        }
        self.memory = std::mem::take(&mut plan.memory);
        plan
    }

    /// The newest generation of a node that answers, if it is newer than this manager's own.
    fn read_back(&self, world: &World, observed: &[Observed]) -> Option<Membership> {
        let number = |one: &Observed| one.node.known()?.generation.map(|(number, _)| number);
        let newest = observed.iter().max_by_key(|one| number(one))?;
        let mine = self.memory.membership.as_ref().map(|mine| mine.generation);
        if number(newest) <= mine {
            return None;
        }
        world.nodes.get(&newest.instance)?.membership.clone()
    }

    /// Does what the plan says, as far as the world lets it.
    pub(crate) fn act(&mut self, world: &mut World, actions: Vec<Action>) -> Vec<Done> {
        let mut done = Vec::with_capacity(actions.len());
        for action in actions {
            let no_answer = |took: bool| took.then_some(()).ok_or_else(|| "no answer".to_owned());
            let result = match &action {
                Action::Create { instance, .. } => {
                    world.create(*instance).map_err(|error| error.to_string())
                }
                Action::Publish { membership, to } => {
                    let took = to.iter().filter(|&&one| world.publish(membership, one)).count();
                    no_answer(took > 0)
                }
                Action::Names { balancers } => {
                    world.name(balancers);
                    Ok(())
                }
                Action::Drain { instance } => no_answer(world.drain(*instance, true)),
                Action::Undrain { instance } => no_answer(world.drain(*instance, false)),
                Action::Terminate { instance, machine, .. } => {
                    self.terminate(world, *instance, machine)
                }
            };
            done.push(Done { action, result });
        }
        done
    }

    fn terminate(
        &mut self,
        world: &mut World,
        instance: InstanceId,
        machine: &str,
    ) -> Result<(), String> {
        world.terminate(machine).map_err(|error| error.to_string())?;
        self.roster.forget(instance, machine);
        if !self.roster.strays().iter().any(|stray| stray.machine == machine) {
            world.asked_to_drain.remove(&instance);
        }
        Ok(())
    }
}

fn listed(machine: Machine) -> Listed<()> {
    let state = match machine.state {
        MachineState::Booting => scaling::MachineState::Booting,
        MachineState::Running => scaling::MachineState::Running,
        MachineState::Dead => scaling::MachineState::Dead,
    };
    let Machine { id, instance, created_at_ms, .. } = machine;
    Listed { instance, machine: id.to_string(), state, created_at_ms, with: () }
}
