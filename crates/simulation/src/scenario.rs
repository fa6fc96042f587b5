//! What a scenario file says: fleet, policy, load, events; and what is wrong with it.

use std::num::NonZeroUsize;
use std::time::Duration;

use fleet::CallRate;
use scaling::{AdaptiveRule, PaperRule, Rule, ScalingPolicy, Timing};
use serde::Deserialize;

use crate::faults::Event;
use crate::load::Segment;

/// The longest scenario: a month.
const DURATION_MAX_S: u64 = 31 * 24 * 3_600;

/// A load, what goes wrong meanwhile, and the policy that has to answer. Seconds count from the start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, for readers.
    pub about: String,
    pub duration_s: u64,
    /// Instances in service at the start, which an earlier manager made.
    #[serde(default = "one")]
    pub balancers_at_start: u16,
    #[serde(default = "one")]
    pub proxies_at_start: u16,
    /// From a machine being asked for to its node's first answer.
    #[serde(default = "boot_time")]
    pub boot_time_s: u64,
    /// How long a transaction lasts, the absorbing of repeats included.
    #[serde(default = "transaction")]
    pub transaction_s: u64,
    #[serde(default)]
    pub policy: PolicyKeys,
    #[serde(default = "balancers")]
    pub balancers: TierKeys,
    #[serde(default = "proxies")]
    pub proxies: TierKeys,
    pub load: Vec<Segment>,
    /// The load begins anew after so many seconds; 0: it does not.
    #[serde(default)]
    pub load_repeats_s: u64,
    /// Each poll's load is off by up to this much, either way.
    #[serde(default)]
    pub load_noise_percent: u32,
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub event: Vec<Event>,
}

/// As `[manager]` of the configuration, with the same defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyKeys {
    pub policy: PolicyName,
    pub poll_interval_s: u64,
    pub up_percent: u8,
    pub up_polls: u16,
    pub down_percent: u8,
    pub down_polls: u16,
    pub trend_polls: u16,
    pub launches_max: u32,
    pub launch_interval_s: u64,
    pub start_limit_s: u64,
    pub slow_start_s: u16,
    pub freeze: bool,
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    Adaptive,
    Paper,
}

/// Limits and capacity of a tier.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierKeys {
    pub instances_min: u32,
    pub instances_max: u32,
    pub capacity_cps: u32,
}

impl Default for PolicyKeys {
    fn default() -> Self {
        Self {
            policy: PolicyName::Adaptive,
            poll_interval_s: 5,
            up_percent: 75,
            up_polls: 2,
            down_percent: 60,
            down_polls: 6,
            trend_polls: 12,
            launches_max: 10,
            launch_interval_s: 60,
            start_limit_s: 600,
            slow_start_s: 0,
            freeze: false,
            dry_run: false,
        }
    }
}

const fn one() -> u16 {
    1
}

const fn boot_time() -> u64 {
    30
}

const fn transaction() -> u64 {
    40
}

const fn balancers() -> TierKeys {
    TierKeys { instances_min: 1, instances_max: 2, capacity_cps: 2_000 }
}

const fn proxies() -> TierKeys {
    TierKeys { instances_min: 1, instances_max: 8, capacity_cps: 200 }
}

/// The manager's side of a scenario: what a configuration file says as well.
#[derive(Clone, Debug)]
pub struct Settings {
    pub balancers: ScalingPolicy,
    pub proxies: ScalingPolicy,
    pub timing: Timing,
    pub is_dry_run: bool,
}

/// What is wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    #[error("{0}")]
    Syntax(String),
    #[error("{key}: {why}")]
    Value { key: &'static str, why: &'static str },
    #[error("event {number} ({fault}): {why}")]
    Event { number: usize, fault: String, why: &'static str },
}

impl Scenario {
    /// Reads and checks the text of a scenario file.
    ///
    /// # Errors
    ///
    /// [`ScenarioError`]; none is worth retrying unchanged.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)
            .map_err(|error| ScenarioError::Syntax(error.to_string().trim_end().to_owned()))?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let wrong = |key, why| Err(ScenarioError::Value { key, why });
        let poll = self.policy.poll_interval_s;
        if !(1..=DURATION_MAX_S).contains(&self.duration_s) {
            return wrong("duration_s", "expected 1 s to 31 days");
        }
        if !(1..=600).contains(&poll) {
            return wrong("policy.poll_interval_s", "expected 1 to 600");
        }
        if self.load.first().is_none_or(|first| first.at_s != 0) {
            return wrong("load", "the first segment begins at_s = 0");
        }
        if !self.load.is_sorted_by(|one, next| one.at_s < next.at_s) {
            return wrong("load", "segments are in the order of time");
        }
        if self.load_noise_percent > 100 {
            return wrong("load_noise_percent", "expected 0 to 100");
        }
        for tier in [&self.balancers, &self.proxies] {
            if tier.instances_min > tier.instances_max || tier.instances_max > 250 {
                return wrong("instances_max", "expected instances_min to 250");
            }
            if tier.instances_min == 0 || tier.capacity_cps == 0 {
                return wrong("instances_min, capacity_cps", "expected at least 1");
            }
        }
        let at_start = self.balancers_at_start.max(self.proxies_at_start);
        if at_start > 250 || (self.balancers_at_start == 0) != (self.proxies_at_start == 0) {
            return wrong("proxies_at_start, balancers_at_start", "both 0, or both 1 to 250");
        }
        for (index, event) in self.event.iter().enumerate() {
            event.check().map_err(|why| {
                let fault = format!("{:?}", event.fault);
                ScenarioError::Event { number: index + 1, fault, why }
            })?;
        }
        Ok(())
    }

    /// The policies and times as the manager takes them.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let keys = &self.policy;
        let timing = Timing {
            poll_interval: Duration::from_secs(keys.poll_interval_s),
            boot_time: Duration::from_secs(self.boot_time_s),
            start_limit: Duration::from_secs(keys.start_limit_s),
            slow_start: Duration::from_secs(keys.slow_start_s.into()),
            ..Timing::default()
        };
        let policy = |tier: &TierKeys| ScalingPolicy {
            capacity_each: CallRate::from_cps(tier.capacity_cps),
            rule: keys.rule(),
            instances_min: tier.instances_min,
            instances_max: tier.instances_max,
            launches_max: keys.launches_max,
            launch_interval: Duration::from_secs(keys.launch_interval_s),
            is_frozen: keys.freeze,
            ..ScalingPolicy::default()
        };
        Settings {
            balancers: policy(&self.balancers),
            proxies: policy(&self.proxies),
            timing,
            is_dry_run: keys.dry_run,
        }
    }
}

impl PolicyKeys {
    fn rule(&self) -> Rule {
        let polls = |count: u16| NonZeroUsize::new(count.into()).unwrap_or(NonZeroUsize::MIN);
        match self.policy {
            PolicyName::Paper => Rule::Paper(PaperRule {
                threshold_percent: self.up_percent,
                polls_needed: polls(self.up_polls),
            }),
            PolicyName::Adaptive => Rule::Adaptive(AdaptiveRule {
                up_percent: self.up_percent,
                up_polls: polls(self.up_polls),
                down_percent: self.down_percent,
                down_polls: polls(self.down_polls),
                trend_polls: self.trend_polls.into(),
                ..AdaptiveRule::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "about = 'x'\nduration_s = 60\nload = [{ at_s = 0, cps = 10 }]\n";

    #[test]
    fn what_is_wrong_with_a_scenario_is_said() {
        assert!(Scenario::parse(GOOD).is_ok());
        #[rustfmt::skip]
        let table = [
            ("duration_s = 60", "duration_s = 0", "duration_s: expected 1 s to 31 days"),
            ("at_s = 0", "at_s = 3", "load: the first segment begins at_s = 0"),
            ("load = [", "seeds = 1\nload = [", "unknown field `seeds`"),
            ("load = [", "event = [{ at_s = 1, fault = 'dies' }]\nload = [", "event 1 (Dies): `on` names one instance"),
            ("load = [", "event = [{ at_s = 1, fault = 'sleeps' }]\nload = [", "unknown variant `sleeps`"),
            ("load = [", "proxies = { instances_min = 3, instances_max = 2, capacity_cps = 1 }\nload = [", "instances_max: expected instances_min to 250"),
        ];
        for (good, bad, expected) in table {
            let error = Scenario::parse(&GOOD.replacen(good, bad, 1)).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
