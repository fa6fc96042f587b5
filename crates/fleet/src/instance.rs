//! Who an instance is: its tier, its slot in the tier, and which life in that slot.

use std::fmt;
use std::str::FromStr;

use crate::Tier;

/// One place of a tier. A slot stands for an address of the tier, counts from 1 and is used again
/// by the instance that replaces another. Written `balancer-1`, `proxy-3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    pub tier: Tier,
    pub slot: u16,
}

impl InstanceId {
    #[must_use]
    pub const fn new(tier: Tier, slot: u16) -> Self {
        Self { tier, slot }
    }

    #[must_use]
    pub const fn balancer(slot: u16) -> Self {
        Self::new(Tier::LoadBalancer, slot)
    }

    #[must_use]
    pub const fn proxy(slot: u16) -> Self {
        Self::new(Tier::Proxy, slot)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.tier, self.slot)
    }
}

impl FromStr for InstanceId {
    type Err = InstanceIdError;

    fn from_str(text: &str) -> Result<Self, InstanceIdError> {
        let wrong = || InstanceIdError { text: text.to_owned() };
        let (tier, slot) = text.rsplit_once('-').ok_or_else(wrong)?;
        let tier = Tier::from_name(tier).ok_or_else(wrong)?;
        // One spelling only: names are compared as text elsewhere, so "proxy-01" is not proxy-1.
        let has_one_spelling = !slot.starts_with(['0', '+']);
        let slot = slot.parse().ok().filter(|_| has_one_spelling).ok_or_else(wrong)?;
        Ok(Self { tier, slot })
    }
}

/// A text that names no instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("instance name {text:?}: expected a tier and a slot, as in \"proxy-3\"")]
pub struct InstanceIdError {
    pub text: String,
}

/// Which life in a slot: the start of the process in UNIX seconds, strictly larger at each start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where an instance stands in its life, as the manager sees it.
///
/// ```text
/// requested → booting → configuring → ready → in service → draining → terminated
///                 └──────────┴───────────┴────────┴───────────┴─────→ failed → terminated
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceState {
    /// The provider was asked for it.
    Requested,
    /// The provider knows it; it does not answer yet.
    Booting,
    /// It answers and is not ready.
    Configuring,
    /// It is ready and takes no calls yet.
    Ready,
    /// It is in the table (a balancer: in the DNS).
    InService,
    /// It is out of the table and finishes what it has.
    Draining,
    Terminated,
    /// Its process is dead or it never became ready in time.
    Failed,
}

impl InstanceState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Booting => "booting",
            Self::Configuring => "configuring",
            Self::Ready => "ready",
            Self::InService => "in service",
            Self::Draining => "draining",
            Self::Terminated => "terminated",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names go through text and back; anything else is refused.
    #[test]
    fn instance_names_have_one_spelling() {
        for id in [InstanceId::balancer(1), InstanceId::proxy(300), InstanceId::new(Tier::Store, 2)]
        {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in
            ["", "proxy", "proxy-", "proxy-0", "proxy-01", "proxy-+1", "proxy-70000", "lb-1"]
        {
            assert!(wrong.parse::<InstanceId>().is_err(), "{wrong:?} names nobody");
        }
    }
}
