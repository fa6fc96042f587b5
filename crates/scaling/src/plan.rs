//! What a step says is to be done, and how it sees each instance.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use fleet::{CallRate, InstanceId, InstanceState, Membership, Tier};

use crate::decision::Decision;
use crate::view::Memory;

/// The outcome of a step.
#[derive(Clone, Debug)]
#[must_use = "a plan that nobody executes changes nothing"]
pub struct Plan {
    /// In the order in which they are to be done; each may be repeated and may fail.
    pub actions: Vec<Action>,
    pub tiers: BTreeMap<Tier, TierPlan>,
    pub standings: BTreeMap<InstanceId, Standing>,
    /// What happened to an instance that no action shows, for the journal.
    pub remarks: Vec<(InstanceId, String)>,
    /// For the next step.
    pub memory: Memory,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for a machine in this slot.
    Create {
        instance: InstanceId,
        cause: Cause,
    },
    /// Give this generation to those nodes.
    Publish {
        membership: Membership,
        to: Vec<InstanceId>,
    },
    /// Let the DNS lead clients to exactly these.
    Names {
        balancers: Vec<ZoneEntry>,
    },
    Drain {
        instance: InstanceId,
    },
    /// Take it back into service.
    Undrain {
        instance: InstanceId,
    },
    /// Remove the machine.
    Terminate {
        instance: InstanceId,
        machine: String,
        cause: Cause,
    },
}

/// A balancer in the DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ZoneEntry {
    pub instance: InstanceId,
    pub advertised: SocketAddr,
}

/// Why a machine comes or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The tier's decision asks for it.
    Decided(Decision),
    /// Fewer are there than was decided: one broke, or was taken away by the operator.
    Missing,
    /// It is empty: nothing is lost with it.
    Empty,
    /// It was not empty when its time was up.
    DrainLimit { transactions: Option<u64> },
    /// Its process is gone.
    Dead,
    /// It did not become ready in time.
    NeverReady,
    /// It runs and has not answered for so many rounds.
    Silent { rounds: u32 },
    /// It was asked for and never took calls; it is not needed any more.
    NotNeeded,
    /// Another machine has its slot.
    Stray,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decided(decision) => write!(f, "{}", decision.reason),
            Self::Missing => f.write_str("makes up the number"),
            Self::Empty => f.write_str("empty"),
            Self::DrainLimit { transactions: Some(count) } => {
                write!(f, "drain limit reached with {count} transactions left")
            }
            Self::DrainLimit { transactions: None } => {
                f.write_str("drain limit reached, it does not answer")
            }
            Self::Dead => f.write_str("its process is dead"),
            Self::NeverReady => f.write_str("did not become ready in time"),
            Self::Silent { rounds } => write!(f, "no answer for {rounds} rounds"),
            Self::NotNeeded => f.write_str("not needed any more"),
            Self::Stray => f.write_str("a second machine in its slot"),
        }
    }
}

/// How one tier stands and what was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierPlan {
    pub decision: Decision,
    /// Instances in service or on their way, before the decision.
    pub planned: u32,
    pub in_service: u32,
    pub starting: u32,
    pub draining: u32,
    /// What those in service are trusted with together.
    pub capacity: CallRate,
    /// Load of the last poll, what answered.
    pub load: CallRate,
    pub silent: u32,
}

/// Where an instance stands, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: InstanceState,
    pub note: String,
}
