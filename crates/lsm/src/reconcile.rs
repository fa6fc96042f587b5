//! The loop: observe, decide, journal, act. One [`Manager::round`] is one turn of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet::{InstanceId, InstanceState, Poll, Tier};
use node_api::ManagerHandle;
use node_api::wire::{Event, EventKind, ManagerStatus};
use provider::{ComputeProvider, DnsProvider, Zone};
use scaling::{Action, Memory, Plan, Reason, RoundKind, Standing, TierInput, View, step};

use crate::clock::Clock;
use crate::config::{JournalLimits, LsmConfiguration, NodeTemplate, Settings};
use crate::execute::{Backoff, Outcome, Tools, execute};
use crate::journal::Journal;
use crate::lease::Leadership;
use crate::nodes::NodeAccess;
use crate::observe::{Observer, Snapshot, Sources};
use crate::report;
use crate::service::Shared;
use crate::store_tier::{self, StoreWatch};

/// Polls kept for the decisions.
const POLLS_MAX: usize = 256;

/// What a manager works on.
#[derive(Clone)]
pub struct Seams {
    pub compute: Arc<dyn ComputeProvider>,
    pub dns: Arc<dyn DnsProvider>,
    pub nodes: Arc<dyn NodeAccess>,
    pub clock: Arc<dyn Clock>,
    /// Whether it may act. Somebody takes the turns of the lease meanwhile.
    pub leadership: Arc<Leadership>,
}

/// How soon another look is worthwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At the next poll.
    Poll,
    /// Sooner: something was done, or is starting.
    Soon,
}

/// The manager without its loop and its server.
pub struct Manager {
    pub(crate) settings: Settings,
    pub(crate) template: Arc<NodeTemplate>,
    pub(crate) rows: u32,
    pub(crate) name: String,
    pub(crate) journal: (PathBuf, JournalLimits),
    /// What it leads with now; `None`: it stands by.
    pub(crate) reign: Option<u64>,
    /// It said that it does not act although the lease is its own.
    pub(crate) is_pausing: bool,
    pub(crate) seams: Seams,
    pub(crate) shared: Arc<Shared>,
    pub(crate) observer: Observer,
    pub(crate) store: StoreWatch,
    /// The last advice about the store that was told.
    pub(crate) advised: String,
    pub(crate) polls: BTreeMap<Tier, Vec<Poll>>,
    pub(crate) memory: Memory,
    pub(crate) standings: Option<BTreeMap<InstanceId, Standing>>,
    pub(crate) backoff: Backoff,
    /// The last decision told of each tier.
    pub(crate) told: BTreeMap<Tier, (u32, Reason)>,
    /// The last failure to observe told.
    pub(crate) blind: Option<String>,
    pub(crate) rounds_total: u64,
    pub(crate) started_at_ms: u64,
}

impl Manager {
    /// A manager that knows nothing yet.
    ///
    /// # Errors
    ///
    /// If the journal can be neither opened nor made.
    pub fn new(config: LsmConfiguration, seams: Seams) -> std::io::Result<Self> {
        let started_at_ms = seams.clock.unix_ms();
        let journal = (config.journal, config.journal_limits);
        // Whoever leads writes it; that it can be written is better known now.
        Journal::open(&journal.0, journal.1)?;
        let nothing = report::nothing_yet(started_at_ms, ManagerStatus::default());
        let shared = Shared::new(nothing, config.wishes);
        let manager = Self {
            rows: config.template.base.rows,
            settings: config.settings,
            template: Arc::new(config.template),
            name: config.name,
            journal,
            reign: None,
            is_pausing: false,
            seams,
            shared: Arc::new(shared),
            observer: Observer::default(),
            store: config.store,
            advised: String::new(),
            polls: BTreeMap::new(),
            memory: Memory::default(),
            standings: None,
            backoff: Backoff::default(),
            told: BTreeMap::new(),
            blind: None,
            rounds_total: 0,
            started_at_ms,
        };
        manager.report_standing();
        Ok(manager)
    }

    /// What others may ask of it.
    #[must_use]
    pub fn handle(&self) -> Arc<dyn ManagerHandle> {
        Arc::clone(&self.shared) as Arc<dyn ManagerHandle>
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// How often to poll, and how often to look at a fleet in motion.
    #[must_use]
    pub fn intervals(&self) -> (Duration, Duration) {
        let poll = self.settings.timing.poll_interval;
        (poll, self.settings.settle_interval.min(poll))
    }

    /// One round that counts as a poll.
    pub async fn round(&mut self) -> Pace {
        self.turn(RoundKind::Poll).await
    }

    /// One look at a fleet in motion: acts are done, loads and silences are not counted.
    pub async fn settle(&mut self) -> Pace {
        self.turn(RoundKind::Settle).await
    }

    async fn turn(&mut self, kind: RoundKind) -> Pace {
        if let Some(settings) = self.shared.take_settings() {
            self.seams.leadership.set_poll_interval(settings.timing.poll_interval);
            self.settings = settings;
            self.say("new settings taken");
        }
        let Some(fence) = self.leading().await else {
            self.report_standing();
            return Pace::Poll;
        };
        self.rounds_total += 1;
        let observed = self.observe(kind).await;
        let Some(snapshot) = observed else {
            self.report_standing();
            self.shared.sync_journal();
            return Pace::Poll;
        };
        if kind == RoundKind::Poll {
            self.count_polls(&snapshot);
        }
        let obeyed = snapshot.fence_obeyed();
        if obeyed > fence {
            self.say(format!(
                "fence {fence} is too low: nodes obey {obeyed}; a higher one is asked for"
            ));
            self.seams.leadership.saw_fence(obeyed);
            self.report_standing();
            return Pace::Poll;
        }
        let now_ms = self.seams.clock.unix_ms();
        let (asked, weights) = self.shared.wishes(&snapshot);
        let mut plan = self.plan(now_ms, fence, &snapshot, (&asked, &weights));
        if kind == RoundKind::Settle {
            plan.memory.rounds = self.memory.rounds;
        }
        self.memory = plan.memory.clone();
        self.tell_decisions(now_ms, &plan);
        self.tell_changes(now_ms, &plan);
        let outcomes = self.act(now_ms, fence, &plan, &snapshot).await;
        let zone = self.zone().await;
        self.report(now_ms, &snapshot, &plan, &weights, zone.as_ref());
        self.shared.sync_journal();
        let is_in_motion = outcomes.iter().any(|outcome| outcome.is_done)
            || plan.standings.values().any(|standing| is_starting(standing.state));
        self.standings = Some(plan.standings);
        if is_in_motion && !self.settings.is_dry_run { Pace::Soon } else { Pace::Poll }
    }

    /// A snapshot; `None`, told once, if the provider does not list its machines.
    async fn observe(&mut self, kind: RoundKind) -> Option<Snapshot> {
        let sources = Sources {
            compute: self.seams.compute.as_ref(),
            dns: self.seams.dns.as_ref(),
            nodes: &self.seams.nodes,
            poll_timeout: self.settings.poll_timeout,
            timing: &self.settings.timing,
            known: self.memory.membership.as_ref().map(|made| made.generation),
        };
        match self.observer.observe(kind, &sources).await {
            Ok(snapshot) => {
                self.blind = None;
                Some(snapshot)
            }
            Err(error) => {
                let text = format!("failed to list the machines: {error}");
                if self.blind.as_ref() != Some(&text) {
                    let now_ms = self.seams.clock.unix_ms();
                    self.tell(report::event(now_ms, EventKind::Failure, text.clone()));
                    self.blind = Some(text);
                }
                None
            }
        }
    }

    fn count_polls(&mut self, snapshot: &Snapshot) {
        for tier in [Tier::LoadBalancer, Tier::Proxy] {
            let poll = snapshot.poll(tier, self.standings.as_ref());
            let polls = self.polls.entry(tier).or_default();
            polls.push(poll);
            let surplus = polls.len().saturating_sub(POLLS_MAX);
            polls.drain(..surplus);
        }
    }

    fn plan(
        &self,
        now_ms: u64,
        fence: u64,
        snapshot: &Snapshot,
        (asked_to_drain, weights): (&BTreeSet<InstanceId>, &BTreeMap<InstanceId, u16>),
    ) -> Plan {
        let input = |tier, policy| TierInput {
            policy,
            polls: self.polls.get(&tier).map_or(&[], Vec::as_slice),
            cpu_percent: snapshot.cpu_percent(tier),
        };
        step(&View {
            now_ms,
            balancers: input(Tier::LoadBalancer, &self.settings.balancers),
            proxies: input(Tier::Proxy, &self.settings.proxies),
            timing: &self.settings.timing,
            observed: &snapshot.observed,
            strays: &snapshot.strays,
            dns: &snapshot.dns,
            held: snapshot.held.as_ref(),
            asked_to_drain,
            weights,
            rows: self.rows,
            fence,
            is_dry_run: self.settings.is_dry_run,
            memory: &self.memory,
        })
    }

    /// A decision is told when it changes something, or when it would and may not.
    fn tell_decisions(&mut self, now_ms: u64, plan: &Plan) {
        for (&tier, tier_plan) in &plan.tiers {
            let decision = &tier_plan.decision;
            let changes = decision.instances != tier_plan.planned;
            let is_held = decision.reason.is_held();
            let told = self.told.get(&tier).is_some_and(|(instances, reason)| {
                *instances == decision.instances
                    && std::mem::discriminant(reason) == std::mem::discriminant(&decision.reason)
            });
            // A change that is carried out is news each time; one that is not, once.
            let is_news = !told || (changes && !self.settings.is_dry_run);
            if (changes || is_held) && is_news {
                let dry_run = self.settings.is_dry_run;
                self.tell(report::decision_event(now_ms, tier, tier_plan, dry_run));
            }
            self.told.insert(tier, (decision.instances, decision.reason.clone()));
        }
    }

    /// Instances that came, went or changed their state since the round before, and remarks on them.
    fn tell_changes(&mut self, now_ms: u64, plan: &Plan) {
        let before = self.standings.take().unwrap_or_default();
        let mut events = Vec::new();
        let mut change = |instance: InstanceId, text: String| {
            events.push(Event {
                tier: Some(instance.tier.name().to_owned()),
                instance: Some(instance),
                ..report::event(now_ms, EventKind::Instance, text)
            });
        };
        for (&instance, standing) in &plan.standings {
            match before.get(&instance) {
                None => change(instance, format!("seen, {}", standing.state)),
                Some(earlier) if earlier.state != standing.state => {
                    change(instance, format!("{}, was {}", standing.state, earlier.state));
                }
                Some(_) => {}
            }
        }
        for instance in before.keys().filter(|instance| !plan.standings.contains_key(instance)) {
            change(*instance, "gone".to_owned());
        }
        for (instance, remark) in &plan.remarks {
            change(*instance, remark.clone());
        }
        for event in events {
            self.tell(event);
        }
    }

    async fn act(
        &mut self,
        now_ms: u64,
        fence: u64,
        plan: &Plan,
        snapshot: &Snapshot,
    ) -> Vec<Outcome> {
        let controls: BTreeMap<InstanceId, SocketAddr> = snapshot
            .machines
            .iter()
            .map(|machine| (machine.instance, machine.with.control))
            .collect();
        let tools = Tools {
            compute: Arc::clone(&self.seams.compute),
            dns: Arc::clone(&self.seams.dns),
            nodes: Arc::clone(&self.seams.nodes),
            template: Arc::clone(&self.template),
            leadership: Arc::clone(&self.seams.leadership),
            fence,
            dns_ttl: self.settings.timing.dns_ttl,
            act_timeout: self.settings.act_timeout,
        };
        let actions: Vec<Action> = plan.actions.clone();
        let outcomes = execute(actions, &tools, &controls, &mut self.backoff, now_ms).await;
        let at_ms = self.seams.clock.unix_ms();
        for outcome in &outcomes {
            self.tell(report::outcome_event(at_ms, outcome));
            if let (Some(instance), Some(machine)) = (outcome.instance, &outcome.gone) {
                self.observer.forget(instance, machine);
                let is_stray = snapshot.strays.iter().any(|stray| stray.machine == *machine);
                if !is_stray {
                    self.shared.forget_drain(instance);
                }
            }
        }
        outcomes
    }

    /// What the DNS serves after the acts; only for the report.
    async fn zone(&self) -> Option<Zone> {
        let limit = self.settings.poll_timeout;
        tokio::time::timeout(limit, self.seams.dns.published()).await.ok()?.ok()?
    }

    fn report(
        &mut self,
        now_ms: u64,
        snapshot: &Snapshot,
        plan: &Plan,
        weights: &BTreeMap<InstanceId, u16>,
        zone: Option<&Zone>,
    ) {
        let status = self.manager_status();
        let mut fleet = report::fleet_status(now_ms, status, &self.settings, snapshot, plan, zone);
        report::tell_weights(&mut fleet, plan, weights);
        let store = store_tier::status(&self.store, snapshot);
        self.tell_advice(now_ms, &store.advice);
        fleet.store = Some(store);
        self.shared.publish(fleet);
    }
}

const fn is_starting(state: InstanceState) -> bool {
    matches!(
        state,
        InstanceState::Requested
            | InstanceState::Booting
            | InstanceState::Configuring
            | InstanceState::Ready
    )
}
