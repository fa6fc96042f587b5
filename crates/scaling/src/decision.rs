//! How many instances a tier should have (paper §3.1 and §4.1). Same view, same decision.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use fleet::{CallRate, Poll};

use crate::policy::{AdaptiveRule, PaperRule, Rule, ScalingPolicy};
use crate::trend;

/// Everything the decision may look at. There is nothing else: no clock, no cloud, no log.
#[derive(Clone, Copy, Debug)]
pub struct TierView<'a> {
    pub policy: &'a ScalingPolicy,
    pub in_service: u32,
    /// Asked for and not in service yet, replacements of broken ones included.
    pub starting: u32,
    pub draining: u32,
    /// In service, and without an answer in the last round.
    pub unheard: u32,
    /// Calls may not find their way to the tier: one that leads them here is missing or not heard.
    pub is_cut_off: bool,
    /// Oldest first.
    pub polls: &'a [Poll],
    pub poll_interval: Duration,
    /// How long a machine takes from being asked for to being ready.
    pub boot_time: Duration,
    /// Machines asked for within the policy's launch interval.
    pub launched: u32,
    /// Mean CPU of the instances in service, percent of one core; `None` if it is not known.
    pub cpu_percent: Option<u32>,
    /// What those in service and starting are trusted with together, in percent of one ordinary
    /// instance: 100 for each, unless the operator gave other weights.
    pub planned_percent: u32,
    /// The most that one of them is trusted with.
    pub heaviest_percent: u32,
}

impl<'a> TierView<'a> {
    /// A tier of which only the numbers and the polls matter, as in the paper.
    #[must_use]
    pub const fn new(policy: &'a ScalingPolicy, in_service: u32, polls: &'a [Poll]) -> Self {
        Self {
            policy,
            in_service,
            starting: 0,
            draining: 0,
            unheard: 0,
            is_cut_off: false,
            polls,
            poll_interval: Duration::from_secs(5),
            boot_time: Duration::ZERO,
            launched: 0,
            cpu_percent: None,
            planned_percent: in_service * 100,
            heaviest_percent: 100,
        }
    }

    /// The same with machines that are on their way.
    #[must_use]
    pub const fn with_starting(self, starting: u32) -> Self {
        Self { starting, planned_percent: (self.in_service + starting) * 100, ..self }
    }

    /// The load at which the tier is as full as `percent` says.
    fn limit(&self, percent: u8) -> CallRate {
        self.policy.share(self.planned_percent, percent)
    }

    /// The same after one has left: whichever it is.
    fn survivors_limit(&self, percent: u8) -> CallRate {
        self.policy.share(self.planned_percent.saturating_sub(self.heaviest_percent), percent)
    }

    /// The most that a poll may stand for: who is silent counts as full, whoever it is.
    fn at_most(&self, poll: &Poll) -> CallRate {
        poll.at_most(self.policy.capacity_each * self.heaviest_percent / 100)
    }

    /// Machines still booting were asked for because of this same load. Not counting them would
    /// ask for another at every poll of the two to three minutes that a boot takes.
    const fn planned(&self) -> u32 {
        self.in_service.saturating_add(self.starting)
    }

    /// The last `count` polls, if there are so many.
    fn recent(&self, count: NonZeroUsize) -> Option<&'a [Poll]> {
        let first = self.polls.len().checked_sub(count.get())?;
        self.polls.get(first..)
    }
}

/// How many instances the tier should have, and why. The log, the dashboard and the tests read the
/// same reason.
#[must_use = "a decision nobody records cannot be explained later"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub instances: u32,
    pub reason: Reason,
}

/// Why a tier should have that many instances. `Display` is what people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    BelowMinimum {
        planned: u32,
        minimum: u32,
    },
    AboveMaximum {
        planned: u32,
        maximum: u32,
    },
    Frozen,
    TooFewPolls {
        have: usize,
        needed: usize,
    },
    AboveThreshold {
        limit: CallRate,
        polls: usize,
    },
    /// The load will pass the limit before a machine asked for now would serve.
    Forecast {
        load: CallRate,
        limit: CallRate,
        within: Duration,
    },
    Cpu {
        percent: u32,
        limit: u8,
    },
    /// More would be needed and the policy's maximum forbids it.
    AtMaximum {
        needed: u32,
    },
    /// More are needed and too many were asked for a short while ago.
    LaunchLimit {
        needed: u32,
        launched: u32,
    },
    BelowThreshold {
        limit: CallRate,
        polls: usize,
    },
    /// Fewer would do; first what has begun comes to its end.
    ChangeInProgress,
    /// Fewer would do, as far as is known; first all in service have to answer.
    Unheard {
        instances: u32,
    },
    /// Fewer would do for the calls that came; others may have found no balancer, or no proxy.
    CutOff,
    WithinThresholds,
}

impl Reason {
    /// Whether another number would be right and something forbids it: worth telling.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        matches!(
            self,
            Self::AtMaximum { .. } | Self::LaunchLimit { .. } | Self::Unheard { .. } | Self::CutOff
        )
    }

    const fn so(self, instances: u32) -> Decision {
        Decision { instances, reason: self }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BelowMinimum { planned, minimum } => {
                write!(f, "{planned} is below the minimum of {minimum}")
            }
            Self::AboveMaximum { planned, maximum } => {
                write!(f, "{planned} is above the maximum of {maximum}")
            }
            Self::Frozen => f.write_str("frozen by the operator"),
            Self::TooFewPolls { have, needed } => write!(f, "{have} of {needed} polls so far"),
            Self::AboveThreshold { limit, polls } => write!(f, "above {limit} for {polls} polls"),
            Self::Forecast { load, limit, within } => {
                write!(f, "{load} expected within {} s, above {limit}", within.as_secs())
            }
            Self::Cpu { percent, limit } => write!(f, "CPU at {percent} %, above {limit} %"),
            Self::AtMaximum { needed } => write!(f, "{needed} needed, held at the maximum"),
            Self::LaunchLimit { needed, launched } => {
                write!(f, "{needed} needed, {launched} were launched a short while ago")
            }
            Self::BelowThreshold { limit, polls } => write!(f, "below {limit} for {polls} polls"),
            Self::ChangeInProgress => f.write_str("fewer would do, a change is in progress"),
            Self::Unheard { instances } => {
                write!(f, "fewer might do, {instances} in service did not answer")
            }
            Self::CutOff => {
                f.write_str("fewer would do for the calls that came, others may have found nobody")
            }
            Self::WithinThresholds => f.write_str("within the thresholds"),
        }
    }
}

/// The number of instances that the policy asks for.
pub fn decide(view: &TierView<'_>) -> Decision {
    let policy = view.policy;
    let planned = view.planned();
    let (minimum, maximum) = (policy.instances_min, policy.instances_max.max(policy.instances_min));
    let wanted = if planned < minimum {
        Reason::BelowMinimum { planned, minimum }.so(minimum)
    } else if policy.is_frozen {
        Reason::Frozen.so(planned)
    } else if planned > maximum {
        Reason::AboveMaximum { planned, maximum }.so(maximum)
    } else {
        match &policy.rule {
            Rule::Paper(rule) => paper(view, rule),
            Rule::Adaptive(rule) => adaptive(view, rule),
        }
    };
    within_launch_limit(view, wanted)
}

/// A number that would launch more than the policy allows is cut, and says so.
fn within_launch_limit(view: &TierView<'_>, wanted: Decision) -> Decision {
    let planned = view.planned();
    let allowed = view.policy.launches_max.saturating_sub(view.launched);
    if wanted.instances <= planned.saturating_add(allowed) {
        return wanted;
    }
    Reason::LaunchLimit { needed: wanted.instances, launched: view.launched }.so(planned + allowed)
}

/// The paper's rule for one tier: one threshold, N polls that agree, one machine at a time.
fn paper(view: &TierView<'_>, rule: &PaperRule) -> Decision {
    let policy = view.policy;
    let planned = view.planned();
    let needed = rule.polls_needed.get();
    let Some(recent) = view.recent(rule.polls_needed) else {
        return Reason::TooFewPolls { have: view.polls.len(), needed }.so(planned);
    };

    let limit = view.limit(rule.threshold_percent);
    if recent.iter().all(|poll| poll.at_least() > limit) {
        let more = planned.saturating_add(1).min(policy.instances_max.max(planned));
        return Reason::AboveThreshold { limit, polls: needed }.so(more);
    }

    // Shrink only if the survivors would stay under *their* threshold.
    let limit = view.survivors_limit(rule.threshold_percent);
    if recent.iter().all(|poll| view.at_most(poll) < limit) {
        if let Some(held) = held(view) {
            return held.so(planned);
        }
        let fewer = planned.saturating_sub(1).max(policy.instances_min);
        return Reason::BelowThreshold { limit, polls: needed }.so(fewer);
    }
    Reason::WithinThresholds.so(planned)
}

/// The default rule: see [`AdaptiveRule`].
fn adaptive(view: &TierView<'_>, rule: &AdaptiveRule) -> Decision {
    let planned = view.planned();
    let Some(recent) = view.recent(rule.up_polls) else {
        let (have, needed) = (view.polls.len(), rule.up_polls.get());
        return Reason::TooFewPolls { have, needed }.so(planned);
    };
    let now = recent.iter().map(Poll::at_least).min().unwrap_or_default();
    let coming = expected_load(view, rule, now);

    if let Some(more) = growth(view, rule, now, coming) {
        let needed = more.instances;
        let maximum = view.policy.instances_max.max(planned);
        if maximum == planned {
            return Reason::AtMaximum { needed }.so(planned);
        }
        return more.reason.so(needed.min(maximum));
    }

    let survivors = planned.saturating_sub(1);
    let limit = view.survivors_limit(rule.down_percent);
    let is_below = |poll: &Poll| view.at_most(poll) < limit;
    let has_room = view.recent(rule.down_polls).is_some_and(|recent| recent.iter().all(is_below))
        && coming.is_none_or(|coming| coming < limit);
    if !has_room || planned <= view.policy.instances_min {
        return Reason::WithinThresholds.so(planned);
    }
    if let Some(held) = held(view) {
        return held.so(planned);
    }
    Reason::BelowThreshold { limit, polls: rule.down_polls.get() }.so(survivors)
}

/// Why the tier does not shrink although it could.
const fn held(view: &TierView<'_>) -> Option<Reason> {
    if view.starting + view.draining > 0 {
        return Some(Reason::ChangeInProgress);
    }
    if view.unheard > 0 {
        return Some(Reason::Unheard { instances: view.unheard });
    }
    if view.is_cut_off {
        return Some(Reason::CutOff);
    }
    None
}

/// How many more the present load, the coming load or the CPU asks for, if any does.
fn growth(
    view: &TierView<'_>,
    rule: &AdaptiveRule,
    now: CallRate,
    coming: Option<CallRate>,
) -> Option<Decision> {
    let planned = view.planned();
    let limit = view.limit(rule.up_percent);
    let enough = instances_for(view, rule, coming.unwrap_or_default().max(now));
    if now > limit {
        let polls = rule.up_polls.get();
        return Some(Reason::AboveThreshold { limit, polls }.so(enough.max(planned + 1)));
    }
    if let Some(load) = coming.filter(|&load| load > limit) {
        let within = view.boot_time + view.poll_interval;
        return Some(Reason::Forecast { load, limit, within }.so(enough.max(planned + 1)));
    }
    let (percent, limit) = (view.cpu_percent?, rule.cpu_percent_max?);
    // A machine that is on its way will take its part: the CPU says nothing new until it serves.
    if percent <= u32::from(limit) || view.starting > 0 {
        return None;
    }
    let enough = (view.in_service * percent).div_ceil(u32::from(limit).max(1));
    Some(Reason::Cpu { percent, limit }.so(enough.max(planned + 1)))
}

/// The load when a machine asked for now would serve, if it rises.
fn expected_load(view: &TierView<'_>, rule: &AdaptiveRule, now: CallRate) -> Option<CallRate> {
    let polls = view.recent(NonZeroUsize::new(rule.trend_polls)?)?;
    let ahead = view.boot_time + view.poll_interval;
    let coming = trend::forecast(polls, view.poll_interval, ahead)?;
    Some(coming.min(now * rule.forecast_percent_max / 100))
}

/// The fewest instances that carry `load` below the upper threshold, if those that are to be made are
/// ordinary ones.
fn instances_for(view: &TierView<'_>, rule: &AdaptiveRule, load: CallRate) -> u32 {
    let each = view.policy.share(100, rule.up_percent).millicps().max(1);
    let beyond = load.millicps().saturating_sub(view.limit(rule.up_percent).millicps());
    let more = u32::try_from(beyond.div_ceil(each)).unwrap_or(u32::MAX);
    view.planned().saturating_add(more)
}

#[cfg(test)]
mod tests;
