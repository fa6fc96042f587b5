//! The three tiers (paper §2).

use std::fmt;

/// A tier of the fleet; each scales alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    LoadBalancer,
    Proxy,
    Store,
}

impl Tier {
    /// The word that instance names begin with: `balancer`, `proxy`, `store`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoadBalancer => "balancer",
            Self::Proxy => "proxy",
            Self::Store => "store",
        }
    }

    /// The tier of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::LoadBalancer, Self::Proxy, Self::Store].into_iter().find(|tier| tier.name() == name)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
