//! What the manager is started with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fleet::{InstanceId, Tier};
use node_api::wire::{NodeConfiguration, Secret, SipAddresses};
use provider::Addresses;
use scaling::{ScalingPolicy, Timing};

use crate::store_tier::StoreWatch;

/// Everything but the drivers.
#[derive(Clone, Debug)]
pub struct LsmConfiguration {
    pub settings: Settings,
    pub template: NodeTemplate,
    /// Where the manager's own interface listens.
    pub listen: SocketAddr,
    /// The token of that interface.
    pub token: Secret,
    /// The journal's file; older lines are kept beside it as `….1`.
    pub journal: PathBuf,
    pub journal_limits: JournalLimits,
    /// Where what operators asked for is kept, for whoever leads next.
    pub wishes: PathBuf,
    /// Which manager this is, as in `manager-2`.
    pub name: String,
    pub store: StoreWatch,
}

/// What may change while the manager runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub balancers: ScalingPolicy,
    pub proxies: ScalingPolicy,
    pub timing: Timing,
    /// How long a node may take to answer a poll.
    pub poll_timeout: Duration,
    /// How long one act may take.
    pub act_timeout: Duration,
    /// Between looks at a fleet in motion: instances starting, acts just done.
    pub settle_interval: Duration,
    /// Decide and journal, do nothing.
    pub is_dry_run: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            balancers: ScalingPolicy::default(),
            proxies: ScalingPolicy::default(),
            timing: Timing::default(),
            poll_timeout: Duration::from_secs(1),
            act_timeout: Duration::from_secs(30),
            settle_interval: Duration::from_millis(300),
            is_dry_run: false,
        }
    }
}

/// From which a new node's file is made. The instance, its addresses and the address of its
/// control interface are filled in for each slot; everything else is taken from `base`.
#[derive(Clone, Debug)]
pub struct NodeTemplate {
    pub base: NodeConfiguration,
    /// Threads of a balancer; `base.workers` is the proxies' number.
    pub balancer_threads: u16,
    /// Addresses at which clients see a balancer, where they differ from the slot's.
    pub advertised: BTreeMap<InstanceId, SocketAddr>,
}

impl NodeTemplate {
    /// The file of the instance in this slot.
    #[must_use]
    pub fn configuration(&self, instance: InstanceId, at: Addresses) -> NodeConfiguration {
        let mut node = self.base.clone();
        node.instance = instance;
        let advertised = self.advertised.get(&instance).copied().unwrap_or(at.sip);
        let extra = self.base.sip.extra.clone();
        node.sip = SipAddresses { internal: at.sip, advertised, extra };
        node.control.listen = at.control;
        if instance.tier == Tier::LoadBalancer {
            node.workers = self.balancer_threads;
        }
        node
    }
}

/// How much of the journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// Size at which the file is set aside and a new one begun.
    pub bytes_max: u64,
    /// Events that can be asked for.
    pub events_max: usize,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { bytes_max: 8 * 1024 * 1024, events_max: 5_000 }
    }
}
