//! What the operator wants of one tier: capacity, thresholds, polls, limits.

use std::num::NonZeroUsize;
use std::time::Duration;

use fleet::CallRate;

use crate::retirement::Order;

/// What the operator wants of one tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalingPolicy {
    /// What one instance is trusted with. The paper's test: 200 calls per second.
    pub capacity_each: CallRate,
    pub rule: Rule,
    pub instances_min: u32,
    pub instances_max: u32,
    /// Machines asked for within `launch_interval`, replacements included: a mistake elsewhere
    /// must not empty a purse.
    pub launches_max: u32,
    pub launch_interval: Duration,
    /// The number stays as it is; broken instances are still replaced.
    pub is_frozen: bool,
    /// Which instance goes first.
    pub retire: Order,
}

/// How load becomes a number of instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The paper's §4.1: one threshold for both directions, one machine at a time.
    Paper(PaperRule),
    /// Two thresholds and windows, a forecast over the boot time, several machines at once.
    Adaptive(AdaptiveRule),
}

/// See [`Rule::Paper`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaperRule {
    /// Share of the tier's capacity at which it grows or shrinks. The paper: 85 %.
    pub threshold_percent: u8,
    /// Polls in a row that must agree. The paper: 5, at 3 s each.
    pub polls_needed: NonZeroUsize,
}

/// See [`Rule::Adaptive`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptiveRule {
    /// Share of the capacity above which the tier grows.
    pub up_percent: u8,
    /// Polls in a row that must be above.
    pub up_polls: NonZeroUsize,
    /// Share of the *survivors'* capacity below which the tier shrinks by one.
    pub down_percent: u8,
    /// Polls in a row that must be below.
    pub down_polls: NonZeroUsize,
    /// Polls that a forecast needs; zero: no forecast.
    pub trend_polls: usize,
    /// A forecast counts up to this share of the present load.
    pub forecast_percent_max: u32,
    /// CPU of one core, mean over the instances, above which the tier grows whatever the call rate
    /// says (paper §3.1); `None`: CPU is not looked at.
    pub cpu_percent_max: Option<u8>,
}

impl Default for AdaptiveRule {
    fn default() -> Self {
        Self {
            up_percent: 75,
            up_polls: NonZeroUsize::MIN.saturating_add(1),
            down_percent: 60,
            down_polls: NonZeroUsize::MIN.saturating_add(11),
            trend_polls: 12,
            forecast_percent_max: 200,
            cpu_percent_max: None,
        }
    }
}

/// The policy of the paper's §4.1. The maximum of four is ours: at 85 % a fifth would be asked for
/// at 680 calls per second, and the paper's load reaches 760.
pub const PAPER: ScalingPolicy = ScalingPolicy {
    capacity_each: CallRate::from_cps(200),
    rule: Rule::Paper(PaperRule {
        threshold_percent: 85,
        polls_needed: NonZeroUsize::MIN.saturating_add(4),
    }),
    instances_min: 1,
    instances_max: 4,
    launches_max: 4,
    launch_interval: Duration::from_secs(60),
    is_frozen: false,
    retire: Order::HighestSlot,
};

impl Default for ScalingPolicy {
    fn default() -> Self {
        Self {
            rule: Rule::Adaptive(AdaptiveRule::default()),
            instances_max: 8,
            launches_max: 10,
            ..PAPER
        }
    }
}

impl ScalingPolicy {
    /// The load at which a tier of `weights` (100 for each ordinary instance) is as full as `percent`
    /// says.
    pub(crate) fn share(&self, weights: u32, percent: u8) -> CallRate {
        self.capacity_each * weights * u32::from(percent) / 10_000
    }
}
