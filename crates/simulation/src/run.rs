//! A scenario from its first poll to its last.

use std::fmt::Write;
use std::time::Duration;

use fleet::{CallRate, Tier};
use scaling::RoundKind;

use crate::faults::{Event, Fault};
use crate::load::{Random, offered};
use crate::manager::Manager;
use crate::scenario::{Scenario, Settings};
use crate::story::Story;
use crate::watch::{Violation, Watch};
use crate::world::{EPOCH_MS, World, millis};

/// After acts the manager looks again so soon, and so often at most.
const SETTLE_MS: u64 = 300;
const SETTLES_MAX: usize = 3;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For readers: a line for each thing that happened, and a summary.
    pub story: String,
    pub violations: Vec<Violation>,
    /// Seconds in which some proxy was given more than its capacity.
    pub overloaded_s: u64,
    /// Calls that found no balancer or no proxy in service.
    pub calls_unserved: u64,
    /// Proxies that there were at the end, and at most.
    pub proxies: (usize, usize),
}

/// Plays a scenario; `settings` are the scenario's own ([`Scenario::settings`]) or an operator's.
#[must_use]
pub fn run(scenario: &Scenario, settings: &Settings) -> Outcome {
    let mut run = Run::new(
        settings.clone(),
        Duration::from_secs(scenario.boot_time_s),
        Duration::from_secs(scenario.transaction_s),
    );
    run.world.settle(scenario.balancers_at_start, scenario.proxies_at_start);
    let poll_ms = millis(settings.timing.poll_interval).max(1);
    let mut random = Random::new(scenario.seed);
    let mut events = scenario.event.clone();
    events.sort_by_key(|event| event.at_s);
    let mut events = events.into_iter().peekable();
    for at_ms in (0..=scenario.duration_s.saturating_mul(1_000)).step_by(steps(poll_ms)) {
        let load = offered(scenario, at_ms / 1_000);
        let load = random.around(load, scenario.load_noise_percent);
        while let Some(event) = events.next_if(|event| event.at_s * 1_000 <= at_ms) {
            run.begin(EPOCH_MS + at_ms, &event);
        }
        run.poll(EPOCH_MS + at_ms, load);
    }
    run.outcome()
}

fn steps(poll_ms: u64) -> usize {
    usize::try_from(poll_ms).unwrap_or(usize::MAX)
}

/// A run in progress.
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) settings: Settings,
    pub(crate) watch: Watch,
    pub(crate) story: Story,
    pub(crate) polls: u64,
    manager: Option<Manager>,
    managers: u64,
    /// Whether the operator wanted the number frozen from the beginning.
    is_frozen: bool,
    blind: bool,
    proxies_most: usize,
}

impl Run {
    pub(crate) fn new(settings: Settings, boot_time: Duration, transaction: Duration) -> Self {
        let capacity = settings.proxies.capacity_each;
        Self {
            world: World::new(boot_time, transaction, capacity),
            is_frozen: settings.proxies.is_frozen,
            settings,
            watch: Watch::default(),
            story: Story::default(),
            polls: 0,
            manager: Some(Manager::new(1)),
            managers: 1,
            blind: false,
            proxies_most: 0,
        }
    }

    pub(crate) fn begin(&mut self, now_ms: u64, event: &Event) {
        self.world.now_ms = now_ms;
        self.story.tell(&self.world, "event", &event.words());
        self.world.begin(event);
        match event.fault {
            Fault::ManagerRestarts => self.restart(),
            Fault::ManagerAway => self.manager = None,
            _ => {}
        }
    }

    fn restart(&mut self) {
        self.managers += 1;
        self.manager = Some(Manager::new(self.managers));
        self.watch.restart();
    }

    /// A poll interval has passed with this load, until `now_ms`.
    pub(crate) fn poll(&mut self, now_ms: u64, load: CallRate) {
        self.polls += 1;
        self.world.now_ms = now_ms;
        self.world.heal(false);
        let interval_ms = millis(self.settings.timing.poll_interval);
        self.world.live(interval_ms, load);
        let is_frozen = self.is_frozen || self.world.has(Fault::Freeze);
        (self.settings.proxies.is_frozen, self.settings.balancers.is_frozen) =
            (is_frozen, is_frozen);
        if self.manager.is_none() && !self.world.has(Fault::ManagerAway) {
            self.restart();
            self.story.tell(&self.world, "event", "another manager takes over");
        }
        let mut has_acted = self.round(RoundKind::Poll);
        for _ in 0..SETTLES_MAX {
            if !has_acted || interval_ms <= SETTLE_MS * 4 {
                break;
            }
            self.world.now_ms += SETTLE_MS;
            self.world.live(0, load);
            has_acted = self.round(RoundKind::Settle);
        }
        let proxies = self.world.nodes.keys().filter(|one| one.tier == Tier::Proxy).count();
        self.proxies_most = self.proxies_most.max(proxies);
    }

    /// One turn of the manager; returns whether something was done.
    fn round(&mut self, kind: RoundKind) -> bool {
        let Some(manager) = &mut self.manager else { return false };
        let turn = match manager.turn(kind, &self.world, &self.settings) {
            Ok(turn) => turn,
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    self.story.tell(&self.world, "fail", &format!("list the machines: {error}"));
                }
                return false;
            }
        };
        self.blind = false;
        self.watch.look(&self.world, &self.settings, &turn);
        let is_dry_run = self.settings.is_dry_run;
        self.story.tell_decisions(&self.world, &turn.plan, is_dry_run);
        for (instance, remark) in &turn.plan.remarks {
            self.story.tell(&self.world, "remark", &format!("{instance}: {remark}"));
        }
        let done = manager.act(&mut self.world, turn.plan.actions);
        for done in &done {
            self.story.tell_act(&self.world, done);
        }
        done.iter().any(|done| done.result.is_ok())
    }

    fn outcome(self) -> Outcome {
        let totals = self.world.totals;
        let proxies = self.world.nodes.keys().filter(|one| one.tier == Tier::Proxy).count();
        let mut story = self.story.text();
        let machines = self.world.machines().len();
        let (most, made) = (self.proxies_most, self.world.cloud.created_total());
        let (overloaded_s, removed) = (totals.overloaded_ms / 1_000, totals.removed);
        let (unserved, hours) = (totals.calls_unserved, totals.machine_ms as f64 / 3_600_000.0);
        let _ = writeln!(
            story,
            "\n{proxies} proxies at the end, {most} at most; {machines} machines, {made} made, \
             {removed} removed, {hours:.1} machine hours\n\
             above the capacity of a proxy for {overloaded_s} s, {unserved} calls found nobody"
        );
        for violation in &self.watch.violations {
            let _ = writeln!(story, "BROKEN {violation}");
        }
        Outcome {
            story,
            violations: self.watch.violations,
            overloaded_s,
            calls_unserved: unserved,
            proxies: (proxies, most),
        }
    }
}
