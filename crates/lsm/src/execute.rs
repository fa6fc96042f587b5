//! Does what a plan says: provider calls and calls to nodes, each safe to repeat.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet::{InstanceId, Membership, Tier};
use provider::{
    ComputeProvider, DnsProvider, DnsTarget, MachineFile, MachineId, MachineRequest, Zone,
};
use scaling::{Action, ZoneEntry};
use tokio::task::JoinSet;

use crate::config::NodeTemplate;
use crate::lease::Leadership;
use crate::nodes::NodeAccess;

/// The file that a node starts from.
const NODE_FILE: &str = "node.json";
/// The longest wait before something that failed is tried again.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Every balancer gets the same share of the clients until their load says otherwise.
const SRV_PRIORITY: u16 = 10;
const SRV_WEIGHT: u16 = 100;

/// How an act came out, for the journal.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) tier: Option<Tier>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) text: String,
    pub(crate) is_done: bool,
    /// This machine is gone.
    pub(crate) gone: Option<String>,
}

/// Everything that acts are done with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) compute: Arc<dyn ComputeProvider>,
    pub(crate) dns: Arc<dyn DnsProvider>,
    pub(crate) nodes: Arc<dyn NodeAccess>,
    pub(crate) template: Arc<NodeTemplate>,
    pub(crate) leadership: Arc<Leadership>,
    /// Of the reign in whose name all is done.
    pub(crate) fence: u64,
    pub(crate) dns_ttl: Duration,
    pub(crate) act_timeout: Duration,
}

/// Remembers what failed, so that it is not tried again at once and for ever.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: BTreeMap<String, (u32, u64)>,
}

impl Backoff {
    fn allows(&self, key: &str, now_ms: u64) -> bool {
        self.failures.get(key).is_none_or(|&(_, not_before_ms)| now_ms >= not_before_ms)
    }

    fn note(&mut self, key: &str, is_done: bool, now_ms: u64) {
        if is_done {
            self.failures.remove(key);
            return;
        }
        let (count, not_before_ms) = self.failures.entry(key.to_owned()).or_default();
        *count = count.saturating_add(1);
        let wait = BACKOFF_FIRST.saturating_mul(1 << (*count - 1).min(10)).min(BACKOFF_MAX);
        *not_before_ms = now_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    }
}

/// Does the actions in their order, neighbours of one kind at the same time; ends when the lease may
/// not be renewed in time. What is not done is for whoever leads then.
pub(crate) async fn execute(
    actions: Vec<Action>,
    tools: &Tools,
    controls: &BTreeMap<InstanceId, SocketAddr>,
    backoff: &mut Backoff,
    now_ms: u64,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let acts = actions.into_iter().flat_map(|action| split(action, controls));
    let mut acts: Vec<Act> = acts.filter(|act| backoff.allows(&act.key(), now_ms)).collect();
    while !acts.is_empty() && tools.leadership.may_act(tools.fence) {
        let kind = acts.first().map(std::mem::discriminant);
        let same = acts.iter().take_while(|act| Some(std::mem::discriminant(*act)) == kind).count();
        let mut running = JoinSet::new();
        for (place, act) in acts.drain(..same).enumerate() {
            let tools = tools.clone();
            running.spawn(async move {
                let key = act.key();
                let limit = tools.act_timeout;
                let done = tokio::select! {
                    done = act.perform(&tools) => done,
                    () = tools.leadership.lost(tools.fence) => {
                        Err("the lease was not renewed in time".to_owned())
                    }
                    () = tokio::time::sleep(limit) => {
                        Err(format!("not done within {} s", limit.as_secs()))
                    }
                };
                (place, key, act.outcome(done))
            });
        }
        let mut done = Vec::new();
        while let Some(joined) = running.join_next().await {
            match joined {
                Ok(result) => done.push(result),
                Err(error) => tracing::warn!(%error, "an act broke off"),
            }
        }
        done.sort_by_key(|(place, _, _)| *place);
        for (_, key, outcome) in done {
            backoff.note(&key, outcome.is_done, now_ms);
            outcomes.push(outcome);
        }
    }
    merge_publications(outcomes)
}

/// One call to one place.
#[derive(Clone, Debug)]
enum Act {
    Create { instance: InstanceId, cause: String },
    Give { instance: InstanceId, control: SocketAddr, membership: Arc<Membership> },
    Names { balancers: Vec<ZoneEntry> },
    Drain { instance: InstanceId, control: SocketAddr, on: bool },
    Terminate { instance: InstanceId, machine: String, cause: String },
}

fn split(action: Action, controls: &BTreeMap<InstanceId, SocketAddr>) -> Vec<Act> {
    let control = |instance: InstanceId| controls.get(&instance).copied();
    let drain = |instance, on| {
        control(instance).map(|control| Act::Drain { instance, control, on }).into_iter().collect()
    };
    match action {
        Action::Create { instance, cause } => {
            vec![Act::Create { instance, cause: cause.to_string() }]
        }
        Action::Publish { membership, to } => {
            let membership = Arc::new(membership);
            let give = |instance: InstanceId| {
                let membership = Arc::clone(&membership);
                control(instance).map(|control| Act::Give { instance, control, membership })
            };
            to.into_iter().filter_map(give).collect()
        }
        Action::Names { balancers } => vec![Act::Names { balancers }],
        Action::Drain { instance } => drain(instance, true),
        Action::Undrain { instance } => drain(instance, false),
        Action::Terminate { instance, machine, cause } => {
            vec![Act::Terminate { instance, machine, cause: cause.to_string() }]
        }
    }
}

impl Act {
    /// What counts as the same thing tried again.
    fn key(&self) -> String {
        match self {
            Self::Create { instance, .. } => format!("create {instance}"),
            Self::Give { instance, .. } => format!("publish {instance}"),
            Self::Names { .. } => "names".to_owned(),
            Self::Drain { instance, on, .. } => format!("drain {instance} {on}"),
            Self::Terminate { machine, .. } => format!("terminate {machine}"),
        }
    }

    async fn perform(&self, tools: &Tools) -> Result<(), String> {
        match self {
            Self::Create { instance, .. } => {
                let request = request(*instance, tools)?;
                tools.compute.create(&request).await.map(|_| ()).map_err(|e| e.to_string())
            }
            Self::Give { control, membership, .. } => tools
                .nodes
                .put_membership(*control, membership)
                .await
                .map_err(|error| error.to_string()),
            Self::Names { balancers } => {
                let zone = zone(balancers, tools);
                tools.dns.publish(&zone).await.map_err(|error| error.to_string())
            }
            Self::Drain { control, on, .. } => {
                let drained = tools.nodes.drain(*control, *on, tools.fence).await;
                drained.map_err(|error| error.to_string())
            }
            Self::Terminate { machine, .. } => {
                let machine = MachineId::new(machine.clone());
                tools.compute.terminate(&machine).await.map_err(|error| error.to_string())
            }
        }
    }

    fn outcome(&self, done: Result<(), String>) -> Outcome {
        let (instance, done_text, failed_text) = match self {
            Self::Create { instance, cause } => {
                (Some(*instance), format!("created: {cause}"), "create it")
            }
            Self::Give { instance, membership, .. } => {
                (Some(*instance), published(membership), "give it the new generation")
            }
            Self::Names { balancers } => (None, named(balancers), "publish the names"),
            Self::Drain { instance, on: true, .. } => {
                (Some(*instance), "told to drain".to_owned(), "tell it to drain")
            }
            Self::Drain { instance, on: false, .. } => {
                (Some(*instance), "taken back into service".to_owned(), "take it back")
            }
            Self::Terminate { instance, cause, .. } => {
                (Some(*instance), format!("terminated: {cause}"), "terminate it")
            }
        };
        let tier = match self {
            Self::Names { .. } => Some(Tier::LoadBalancer),
            Self::Give { .. } => None,
            _ => instance.map(|instance| instance.tier),
        };
        let is_done = done.is_ok();
        let text = match done {
            Ok(()) => done_text,
            Err(why) => format!("failed to {failed_text}: {why}"),
        };
        let gone = match self {
            Self::Terminate { machine, .. } => Some(machine.clone()).filter(|_| is_done),
            _ => None,
        };
        Outcome { tier, instance, text, is_done, gone }
    }
}

/// A generation that went to many nodes is one line, with those that took it counted.
fn merge_publications(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let mut merged: Vec<Outcome> = Vec::new();
    let mut took = 0_usize;
    for outcome in outcomes {
        let is_publication = outcome.is_done && outcome.tier.is_none();
        match merged.last_mut() {
            Some(last) if is_publication && last.is_done && last.text == outcome.text => took += 1,
            _ => merged.push(Outcome {
                instance: outcome.instance.filter(|_| !is_publication),
                ..outcome
            }),
        }
    }
    if let Some(publication) = merged.iter_mut().find(|one| one.is_done && one.tier.is_none()) {
        let nodes = took + 1;
        publication.text.push_str(&format!(" ({nodes} node{})", if nodes == 1 { "" } else { "s" }));
    }
    merged
}

fn published(membership: &Membership) -> String {
    let list = |members: &[fleet::Member]| {
        let mut names: Vec<String> =
            members.iter().map(|member| member.instance.to_string()).collect();
        names.dedup();
        names
    };
    let owners = list(&membership.proxies);
    let verb = if owners.len() == 1 { "owns" } else { "own" };
    let owners = owners.join(", ");
    let mut text =
        format!("generation {} published: {owners} {verb} the calls", membership.generation);
    if !membership.retired.is_empty() {
        text.push_str(&format!(", {} on the way out", list(&membership.retired).join(", ")));
    }
    text
}

fn named(balancers: &[ZoneEntry]) -> String {
    let names: Vec<String> = balancers.iter().map(|entry| entry.instance.to_string()).collect();
    format!("names lead to {}", names.join(" "))
}

fn request(instance: InstanceId, tools: &Tools) -> Result<MachineRequest, String> {
    let addresses = tools.compute.addresses(instance).map_err(|error| error.to_string())?;
    let mut node = tools.template.configuration(instance, addresses);
    node.origin.fence = tools.fence;
    let content = serde_json::to_vec_pretty(&node).map_err(|error| error.to_string())?;
    Ok(MachineRequest {
        instance,
        // The slot alone: whoever asks for it again, also another manager, gets the same machine.
        token: instance.to_string(),
        files: vec![MachineFile { name: NODE_FILE.to_owned(), content }],
        arguments: Vec::new(),
    })
}

fn zone(balancers: &[ZoneEntry], tools: &Tools) -> Zone {
    let target = |entry: &ZoneEntry| DnsTarget {
        name: entry.instance.to_string(),
        address: entry.advertised.ip(),
        port: entry.advertised.port(),
        priority: SRV_PRIORITY,
        weight: SRV_WEIGHT,
    };
    Zone {
        service_names: tools.template.base.service_names.clone(),
        balancers: balancers.iter().map(target).collect(),
        ttl: tools.dns_ttl,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_ever_more_slowly_and_at_once_after_a_success() {
        let mut backoff = Backoff::default();
        let mut now_ms = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoff.note("create proxy-1", false, now_ms);
            let failed_at = now_ms;
            while !backoff.allows("create proxy-1", now_ms) {
                now_ms += 500;
            }
            waits.push((now_ms - failed_at) / 1_000);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert!(backoff.allows("create proxy-2", now_ms), "others are not held up");
        backoff.note("create proxy-1", true, now_ms);
        assert!(backoff.allows("create proxy-1", now_ms));
    }
}
