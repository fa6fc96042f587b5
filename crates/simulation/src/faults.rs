//! What goes wrong, or is done by people, and when.

use fleet::{InstanceId, Tier, WEIGHT_MAX};
use serde::Deserialize;

/// Something that happens at a moment, or lasts for a while.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub at_s: u64,
    /// How long it lasts; of some faults only the beginning matters.
    #[serde(default)]
    pub for_s: u64,
    pub fault: Fault,
    /// Whom it meets.
    #[serde(default)]
    pub on: Option<Target>,
    /// How much, where the fault asks for a number.
    #[serde(default)]
    pub value: Option<i64>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The process ends; the provider lists it as dead.
    Dies,
    /// It carries calls and the manager does not reach it.
    Silent,
    /// The balancers do not reach it.
    Unreached,
    /// Its transactions do not end.
    Busy,
    /// It takes `value` calls per second, whatever it is given, and answers no poll.
    Overloaded,
    /// The provider's list leaves it out.
    Unlisted,
    /// The provider lists a second machine in its slot.
    Duplicate,
    ListFails,
    CreateFails,
    /// The machine is made, and the answer lost.
    CreateHalf,
    TerminateFails,
    TerminateHalf,
    /// Machines asked for meanwhile boot in `value` seconds.
    BootTime,
    /// Machines asked for meanwhile never answer.
    NeverBoots,
    /// Machines asked for meanwhile die before they answer.
    BootDies,
    /// Another manager takes over, which knows nothing.
    ManagerRestarts,
    /// There is no manager.
    ManagerAway,
    /// The manager's clock is set by `value` seconds.
    ClockJumps,
    /// The operator freezes the number.
    Freeze,
    /// The operator drains it.
    Drain,
    /// The operator gives it the weight `value`, in percent.
    Weight,
}

/// One instance, a tier, or all.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum Target {
    One(InstanceId),
    Tier(Tier),
    All,
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "all" => Ok(Self::All),
            "proxies" => Ok(Self::Tier(Tier::Proxy)),
            "balancers" => Ok(Self::Tier(Tier::LoadBalancer)),
            _ => text.parse().map(Self::One).map_err(|_| {
                format!("`{text}`: expected all, proxies, balancers or an instance as in proxy-2")
            }),
        }
    }
}

impl Target {
    pub(crate) fn meets(self, instance: InstanceId) -> bool {
        match self {
            Self::One(one) => one == instance,
            Self::Tier(tier) => tier == instance.tier,
            Self::All => true,
        }
    }

    fn words(self) -> String {
        match self {
            Self::One(one) => one.to_string(),
            Self::Tier(Tier::Proxy) => "all proxies".to_owned(),
            Self::Tier(_) => "all balancers".to_owned(),
            Self::All => "all".to_owned(),
        }
    }
}

impl Event {
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        use Fault as F;
        let is_one = matches!(self.on, Some(Target::One(_)));
        match self.fault {
            F::Dies | F::Duplicate | F::Drain | F::Weight | F::Busy | F::Overloaded if !is_one => {
                Err("`on` names one instance")
            }
            F::Silent | F::Unreached | F::Unlisted if self.on.is_none() => {
                Err("`on` says whom it meets")
            }
            F::Overloaded | F::BootTime if self.value.is_none_or(|value| value < 0) => {
                Err("`value` is a number from 0")
            }
            F::Weight
                if self.value.is_none_or(|value| !(1..=WEIGHT_MAX.into()).contains(&value)) =>
            {
                Err("`value` is a weight from 1 to 1,000 percent")
            }
            F::ClockJumps if self.value.is_none() => Err("`value` is a number of seconds"),
            _ if self.lasts() && self.for_s == 0 => Err("`for_s` says how long"),
            _ => Ok(()),
        }
    }

    /// Whether it is over at some time.
    pub(crate) const fn lasts(&self) -> bool {
        use Fault as F;
        !matches!(
            self.fault,
            F::Dies | F::Duplicate | F::ManagerRestarts | F::ClockJumps | F::Drain | F::Weight
        )
    }

    /// In words, for the story.
    pub(crate) fn words(&self) -> String {
        use Fault as F;
        let whom = self.on.map(Target::words).unwrap_or_default();
        let value = self.value.unwrap_or(0);
        let what = match self.fault {
            F::Dies => format!("{whom} dies"),
            F::Silent if self.on == Some(Target::All) => "the manager reaches nobody".to_owned(),
            F::Silent => format!("the manager does not reach {whom}"),
            F::Unreached => format!("the balancers do not reach {whom}"),
            F::Busy => format!("the transactions of {whom} do not end"),
            F::Overloaded => format!("{whom} takes {value} cps at most and answers no poll"),
            F::Unlisted => format!("the list leaves out {whom}"),
            F::Duplicate => format!("a second machine appears in the slot of {whom}"),
            F::ListFails => "the provider lists nothing and says so".to_owned(),
            F::CreateFails => "the provider makes no machine".to_owned(),
            F::CreateHalf => "the provider makes machines and its answers are lost".to_owned(),
            F::TerminateFails => "the provider removes no machine".to_owned(),
            F::TerminateHalf => "the provider removes machines and its answers are lost".to_owned(),
            F::BootTime => format!("machines boot in {value} s"),
            F::NeverBoots => "new machines never answer".to_owned(),
            F::BootDies => "new machines die before they answer".to_owned(),
            F::ManagerRestarts => "another manager takes over".to_owned(),
            F::ManagerAway => "there is no manager".to_owned(),
            F::ClockJumps => format!("the manager's clock is set by {value} s"),
            F::Freeze => "the operator freezes the number".to_owned(),
            F::Drain => format!("the operator drains {whom}"),
            F::Weight => format!("the operator gives {whom} the weight {value}"),
        };
        if self.lasts() { format!("{what}, for {} s", self.for_s) } else { what }
    }
}
