//! The JSON types; the only ones that cross a process boundary. Units end the names.

mod configuration;
mod manager;
mod membership;
mod node;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use configuration::{
    Cassandra, Control, Digest, Key, KeyError, Keys, Limits, Log, NodeConfiguration, Origin,
    Probing, ReadConsistency, Registration, SipAddresses, StoreConfiguration, StoreKind, Timers,
};
pub use manager::{
    DnsRecord, DrainOrder, DrainWish, Event, EventKind, EventsPage, FleetStatus, InstanceStatus,
    ManagerStatus, Note, Problem, StoreNode, StoreTierStatus, TierStatus, WeightAnswer,
    WeightOrder, WeightWish, Wishes,
};
pub use membership::{Balancer, Generation, Member, Membership};
pub use node::{
    CallsToMember, DoubtReason, DrainAnswer, DrainRequest, LeavingBalancer, MemberInDoubt,
    NodeStatus, StoreHealth, WorkerStatus,
};

/// A token or another text that must not reach a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests;
