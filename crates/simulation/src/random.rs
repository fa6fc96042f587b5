//! Hours of random load and random faults, in which no promise may be broken.

use std::num::NonZeroUsize;
use std::time::Duration;

use fleet::{CallRate, InstanceId, Tier};
use scaling::{AdaptiveRule, PAPER, Rule, ScalingPolicy, Timing};

use crate::faults::{Event, Fault, Target};
use crate::load::Random;
use crate::run::Run;
use crate::scenario::Settings;
use crate::watch::{Violation, unconverged};
use crate::world::{EPOCH_MS, millis};

/// A fleet's life: policy, cloud and load are drawn anew for each.
const EPISODE_HOURS: u64 = 20;
/// At its end all faults are over and the load rests, so that what is left can be looked at.
const CALM_HOURS: u64 = 2;
const HOUR_MS: u64 = 3_600_000;
/// Lines of the story that go with a broken promise.
const LINES_TOLD: usize = 60;

/// How a random run went.
#[derive(Clone, Debug)]
pub struct RandomOutcome {
    /// Simulated hours, whole episodes.
    pub hours: u64,
    pub polls: u64,
    pub faults: u64,
    pub machines_made: u64,
    /// The first episode that broke a promise, with what broke and the end of its story.
    pub broken: Option<Broken>,
}

/// An episode that broke a promise.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Replays it alone, as the first episode.
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub story: String,
}

/// Plays at least `hours`, until a promise is broken; `told` hears of each episode.
pub fn random(seed: u64, hours: u64, mut told: impl FnMut(&RandomOutcome)) -> RandomOutcome {
    let mut outcome =
        RandomOutcome { hours: 0, polls: 0, faults: 0, machines_made: 0, broken: None };
    let mut seed = seed;
    while outcome.hours < hours && outcome.broken.is_none() {
        let mut episode = Episode::new(seed);
        episode.play();
        outcome.hours += EPISODE_HOURS;
        outcome.polls += episode.run.polls;
        outcome.faults += episode.faults;
        outcome.machines_made += episode.run.world.cloud.created_total();
        if !episode.run.watch.violations.is_empty() {
            let lines = episode.run.story.lines();
            let first_s = episode.run.watch.violations.first().map_or(0, |first| first.at_s);
            let until = lines.partition_point(|line| seconds(line) <= first_s);
            let from = until.saturating_sub(LINES_TOLD);
            let story = lines.get(from..until).unwrap_or_default().join("\n");
            let violations = episode.run.watch.violations;
            outcome.broken = Some(Broken { seed, violations, story });
        }
        told(&outcome);
        seed = seed.wrapping_add(1);
    }
    outcome
}

/// When a line of a story was told.
fn seconds(line: &str) -> u64 {
    line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

struct Episode {
    random: Random,
    run: Run,
    poll_ms: u64,
    load: Walk,
    faults: u64,
}

/// A load that goes from one level to the next, by a jump or evenly.
struct Walk {
    now_cps: u64,
    goal_cps: u64,
    step_cps: u64,
    most_cps: u64,
}

impl Walk {
    fn next(&mut self, random: &mut Random) -> CallRate {
        if self.now_cps == self.goal_cps && random.once_in(60) {
            self.goal_cps = random.below(self.most_cps + 1);
            let is_jump = random.once_in(3);
            let way = self.now_cps.abs_diff(self.goal_cps);
            self.step_cps = if is_jump { way } else { (way / (10 + random.below(200))).max(1) };
        }
        let way = self.now_cps.abs_diff(self.goal_cps).min(self.step_cps);
        self.now_cps =
            if self.now_cps < self.goal_cps { self.now_cps + way } else { self.now_cps - way };
        let cps = u32::try_from(self.now_cps).unwrap_or(u32::MAX);
        random.around(CallRate::from_cps(cps), 3)
    }
}

impl Episode {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let settings = settings(&mut random);
        let boot_time = settings.timing.boot_time;
        let transaction = Duration::from_secs(33 + random.below(120));
        let poll_ms = millis(settings.timing.poll_interval);
        let most = u64::from(settings.proxies.instances_max) * 220;
        let mut run = Run::new(settings, boot_time, transaction);
        if random.once_in(2) {
            let proxies = run.settings.proxies.instances_min;
            run.world.settle(1, u16::try_from(proxies).unwrap_or(1));
        }
        let load = Walk { now_cps: 20, goal_cps: 20, step_cps: 1, most_cps: most };
        Self { random, run, poll_ms, load, faults: 0 }
    }

    fn play(&mut self) {
        let calm_ms = (EPISODE_HOURS - CALM_HOURS) * HOUR_MS;
        let end_ms = EPISODE_HOURS * HOUR_MS;
        let mut at_ms = 0;
        while at_ms < calm_ms {
            let now_ms = EPOCH_MS + at_ms;
            if self.random.once_in(25)
                && let Some(event) = self.fault()
            {
                self.faults += 1;
                self.run.begin(now_ms, &event);
            }
            let load = self.load.next(&mut self.random);
            self.run.poll(now_ms, load);
            at_ms += self.poll_ms;
            if !self.run.watch.violations.is_empty() {
                return;
            }
        }
        self.run.world.heal(true);
        let load = CallRate::from_cps(u32::try_from(self.load.now_cps).unwrap_or(0));
        while at_ms < end_ms {
            self.run.poll(EPOCH_MS + at_ms, load);
            at_ms += self.poll_ms;
        }
        let at_s = self.run.world.elapsed_s();
        let wrong = unconverged(&self.run.world, &self.run.settings);
        let wrong = wrong.into_iter().map(|what| Violation { at_s, what });
        self.run.watch.violations.extend(wrong);
    }

    /// Something that goes wrong now, if there is anybody whom it could meet.
    fn fault(&mut self) -> Option<Event> {
        let polls_s = self.poll_ms / 1_000;
        let random = &mut self.random;
        let polls_most = if random.once_in(4) { 40 } else { 6 };
        let for_s = polls_s * (1 + random.below(polls_most));
        let nodes: Vec<InstanceId> = self.run.world.nodes.keys().copied().collect();
        let count = u64::try_from(nodes.len()).unwrap_or(0);
        let place = usize::try_from(random.below(count)).unwrap_or(0);
        let one = nodes.get(place).copied()?;
        let (fault, on, value) = match random.below(37) {
            0..=4 => (Fault::Dies, Some(Target::One(one)), None),
            5..=9 => (Fault::Silent, Some(Target::One(one)), None),
            10 => (Fault::Silent, Some(Target::All), None),
            11 => (Fault::Silent, Some(Target::Tier(one.tier)), None),
            12..=13 => (Fault::Unlisted, Some(Target::One(one)), None),
            14 => (Fault::Unlisted, Some(Target::All), None),
            15..=16 => (Fault::ListFails, None, None),
            17 => (Fault::CreateFails, None, None),
            18..=19 => (Fault::CreateHalf, None, None),
            20 => (Fault::TerminateFails, None, None),
            21 => (Fault::TerminateHalf, None, None),
            22 => (Fault::BootTime, None, i64::try_from(random.below(400)).ok()),
            23 => (Fault::NeverBoots, None, None),
            24 => (Fault::BootDies, None, None),
            25 => (Fault::Duplicate, Some(Target::One(one)), None),
            26..=28 => (Fault::ManagerRestarts, None, None),
            29 => (Fault::ManagerAway, None, None),
            30 => {
                let jump_s = i64::try_from(random.below(7_200)).unwrap_or(0) - 3_600;
                (Fault::ClockJumps, None, Some(jump_s))
            }
            31 => (Fault::Drain, Some(Target::One(one)), None),
            32 => (Fault::Busy, Some(Target::One(one)), None),
            _ if one.tier != Tier::Proxy => return None,
            33 => {
                (Fault::Overloaded, Some(Target::One(one)), i64::try_from(random.below(200)).ok())
            }
            34 => (Fault::Unreached, Some(Target::One(one)), None),
            35 => {
                let weights = [25, 50, 100, 200];
                let place = usize::try_from(random.below(4)).unwrap_or(0);
                (Fault::Weight, Some(Target::One(one)), weights.get(place).copied())
            }
            _ => (Fault::Unreached, Some(Target::Tier(Tier::Proxy)), None),
        };
        Some(Event { at_s: 0, for_s, fault, on, value })
    }
}

/// A policy and a cloud as an operator might have them.
fn settings(random: &mut Random) -> Settings {
    let mut number = |least: u64, most: u64| {
        u32::try_from(least + random.below(most - least + 1)).unwrap_or(u32::MAX)
    };
    let polls = |count: u32| {
        usize::try_from(count).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
    };
    let adaptive = AdaptiveRule {
        up_polls: polls(number(1, 4)),
        down_polls: polls(number(2, 12)),
        trend_polls: if number(0, 1) == 0 { 0 } else { 12 },
        ..AdaptiveRule::default()
    };
    let rule = if number(0, 3) == 0 { PAPER.rule } else { Rule::Adaptive(adaptive) };
    let instances_min = number(1, 3);
    let proxies = ScalingPolicy {
        rule,
        instances_min,
        instances_max: instances_min + number(0, 6),
        launches_max: number(2, 10),
        ..PAPER
    };
    let balancers_min = number(1, 2);
    let balancers = ScalingPolicy {
        capacity_each: CallRate::from_cps(800),
        instances_min: balancers_min,
        instances_max: balancers_min + number(0, 1),
        ..proxies.clone()
    };
    let poll_interval = Duration::from_secs(u64::from(number(1, 4)) * 5);
    let timing = Timing {
        poll_interval,
        boot_time: Duration::from_secs(u64::from(number(1, 180))),
        start_limit: Duration::from_secs(500),
        slow_start: Duration::from_secs(u64::from(number(0, 1) * number(1, 90))),
        balancer_drain_limit: Duration::from_secs(900),
        ..Timing::default()
    };
    Settings { balancers, proxies, timing, is_dry_run: false }
}
