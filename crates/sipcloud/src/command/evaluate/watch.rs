//! The cloud, looked at once a second: every node's own counters, and the manager's view.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use evaluation::{Calls, Moment, Part, Sample};
use fleet::{InstanceId, Tier};
use load_client::Schedule;
use node_api::process::usage_of;
use node_api::wire::{FleetStatus, InstanceStatus, NodeStatus, TierStatus};
use node_api::{ManagerClient, NodeClient};
use sip_net::clock;
use tokio::task::JoinSet;

use super::experiment::Experiment;
use super::store_node::{StoreNode, Totals};
use crate::cli::LastingStore;
use crate::files::ManagerFile;
use crate::secrets::Secrets;

/// How long one answer may take; what does not come is missing in the samples.
const PATIENCE: Duration = Duration::from_millis(800);
const IN_SERVICE: &str = "in service";

pub(super) struct Watch {
    data: std::path::PathBuf,
    schedule: Schedule,
    manager: Option<ManagerClient>,
    /// Leads to any node: all have one token.
    nodes: NodeClient,
    last: BTreeMap<InstanceId, NodeStatus>,
    load: [Process; 2],
    store: Option<(StoreNode, Totals)>,
    seen_at: Option<Instant>,
    starting: u32,
    in_service: u32,
    pub(super) samples: Vec<Sample>,
    pub(super) moments: Vec<Moment>,
}

/// A process of the load.
struct Process {
    part: Part,
    pid: u32,
    cpu_seconds: Option<f64>,
}

impl Watch {
    /// `load`: the processes of callers and callees.
    pub(super) fn new(experiment: &Experiment, load: [u32; 2]) -> Result<Self> {
        let [callers, callees] = load;
        let process = |part, pid| Process { part, pid, cpu_seconds: None };
        let contact_points = &experiment.config.store.contact_points;
        let store = (experiment.store == LastingStore::Cassandra)
            .then(|| StoreNode::at(contact_points.first()?))
            .flatten();
        Ok(Self {
            data: experiment.data.clone(),
            schedule: experiment.schedule.clone(),
            manager: None,
            nodes: NodeClient::new(
                experiment.balancer(),
                &Secrets::load_or_make(&experiment.data)?.node_token,
                PATIENCE,
            )?,
            last: BTreeMap::new(),
            load: [process(Part::Callers, callers), process(Part::Callees, callees)],
            store: store.map(|store| (store, Totals::default())),
            seen_at: None,
            starting: 0,
            in_service: 0,
            samples: Vec::new(),
            moments: Vec::new(),
        })
    }

    /// Proxies that have been asked for and are not in service yet.
    pub(super) fn starting(&self) -> u32 {
        self.starting
    }

    /// Takes one sample of everything.
    pub(super) async fn sample(&mut self, began_unix_ms: u64, calls: Calls) -> Moment {
        let at = Duration::from_millis(clock::unix_millis().saturating_sub(began_unix_ms));
        let at_s = at.as_secs_f64();
        let fleet = self.fleet().await;
        let now = clock::now();
        let elapsed_s = self.seen_at.map(|seen| now.saturating_duration_since(seen).as_secs_f64());
        self.seen_at = Some(now);
        if let Some(fleet) = fleet {
            let proxies = tier(&fleet, Tier::Proxy);
            self.starting = proxies.map_or(0, |tier| tier.starting);
            self.in_service = proxies.map_or(self.in_service, |tier| tier.in_service);
            let first = self.samples.len();
            self.sample_nodes(at_s, &fleet).await;
            let queries = self.samples[first..].iter().map(|it| it.store_queries_per_s).sum();
            self.sample_store(at_s, elapsed_s, queries);
        }
        self.sample_load(at_s, elapsed_s);
        let wanted_cps = self.schedule.rate_at(at);
        let moment = Moment { at_s, wanted_cps, in_service: self.in_service, calls };
        self.moments.push(moment.clone());
        moment
    }

    async fn fleet(&mut self) -> Option<FleetStatus> {
        if self.manager.is_none() {
            let file = ManagerFile::read(&self.data)?;
            self.manager = ManagerClient::new(file.api, &file.token, PATIENCE).ok();
        }
        let fleet = self.manager.as_ref()?.fleet().await;
        if fleet.is_err() {
            // Another one may answer elsewhere.
            self.manager = None;
        }
        fleet.ok()
    }

    async fn sample_nodes(&mut self, at_s: f64, fleet: &FleetStatus) {
        let mut asked = JoinSet::new();
        for instance in &fleet.instances {
            let (client, instance) = (self.nodes.at(instance.control), instance.clone());
            asked.spawn(async move { (instance, client.status().await.ok()) });
        }
        let mut answers = Vec::new();
        while let Some(Ok(answer)) = asked.join_next().await {
            answers.push(answer);
        }
        answers.sort_by_key(|(instance, _)| instance.instance);
        for (instance, status) in answers {
            let id = instance.instance;
            let sample = match (&status, self.last.get(&id)) {
                (Some(now), Some(before)) if now.incarnation == before.incarnation => {
                    Some(node_sample(at_s, &instance, now, before))
                }
                // Silence of one in service is a hole in its samples, not a zero.
                (None, _) if instance.state == IN_SERVICE => None,
                (None, _) => Some(silent_sample(at_s, &instance)),
                (Some(_), _) => None,
            };
            self.samples.extend(sample);
            match status {
                Some(status) => drop(self.last.insert(id, status)),
                None if instance.state != IN_SERVICE => drop(self.last.remove(&id)),
                None => {}
            }
        }
        self.last.retain(|id, _| fleet.instances.iter().any(|it| it.instance == *id));
    }

    fn sample_store(&mut self, at_s: f64, elapsed_s: Option<f64>, queries_per_s: f64) {
        let Some((node, before)) = &mut self.store else {
            return;
        };
        let now = node.totals();
        let earlier = std::mem::replace(before, now);
        let Some(elapsed_s) = elapsed_s.filter(|elapsed| *elapsed > 0.0) else {
            return;
        };
        let rate = |now: Option<u64>, before: Option<u64>| {
            Some(now?.saturating_sub(before?) as f64 / elapsed_s)
        };
        let cpu = now.cpu_seconds.zip(earlier.cpu_seconds);
        self.samples.push(Sample {
            cpu_percent: cpu.map(|(now, before)| 100.0 * (now - before) / elapsed_s),
            received_bytes_per_s: rate(now.received_bytes, earlier.received_bytes),
            sent_bytes_per_s: rate(now.sent_bytes, earlier.sent_bytes),
            store_queries_per_s: queries_per_s,
            ..blank(at_s, Part::Store, "cassandra-1", IN_SERVICE)
        });
    }

    fn sample_load(&mut self, at_s: f64, elapsed_s: Option<f64>) {
        for process in &mut self.load {
            let now = usage_of(process.pid).map(|usage| usage.cpu_seconds);
            let before = std::mem::replace(&mut process.cpu_seconds, now);
            let name = if process.part == Part::Callers { "callers" } else { "callees" };
            if let (Some(now), Some(before), Some(elapsed_s)) = (now, before, elapsed_s) {
                self.samples.push(Sample {
                    cpu_percent: Some(100.0 * (now - before) / elapsed_s),
                    ..blank(at_s, process.part, name, "running")
                });
            }
        }
    }
}

fn node_sample(
    at_s: f64,
    instance: &InstanceStatus,
    now: &NodeStatus,
    before: &NodeStatus,
) -> Sample {
    let elapsed_s = now.uptime_ms.saturating_sub(before.uptime_ms).max(1) as f64 / 1_000.0;
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / elapsed_s;
    let received = rate(now.network_received_bytes_total, before.network_received_bytes_total);
    let sent = rate(now.network_sent_bytes_total, before.network_sent_bytes_total);
    let cpu_seconds = now.cpu_seconds_total - before.cpu_seconds_total;
    let generation = now.generation.map(|it| format!("{}.{}", it.fence, it.counter));
    Sample {
        cpu_percent: Some(100.0 * cpu_seconds / elapsed_s),
        received_bytes_per_s: Some(received),
        sent_bytes_per_s: Some(sent),
        calls_per_s: rate(now.calls_total, before.calls_total),
        transactions: now.server_transactions,
        generation: generation.unwrap_or_default(),
        store_queries_per_s: rate(now.store_queries_total, before.store_queries_total),
        ..silent_sample(at_s, instance)
    }
}

fn silent_sample(at_s: f64, instance: &InstanceStatus) -> Sample {
    let part = match instance.instance.tier {
        Tier::LoadBalancer => Part::Balancer,
        Tier::Proxy => Part::Proxy,
        Tier::Store => Part::Store,
    };
    blank(at_s, part, &instance.instance.to_string(), &instance.state)
}

fn blank(at_s: f64, part: Part, instance: &str, state: &str) -> Sample {
    Sample {
        at_s,
        part,
        instance: instance.to_owned(),
        state: state.to_owned(),
        cpu_percent: None,
        received_bytes_per_s: None,
        sent_bytes_per_s: None,
        calls_per_s: 0.0,
        transactions: 0,
        generation: String::new(),
        store_queries_per_s: 0.0,
    }
}

fn tier(fleet: &FleetStatus, tier: Tier) -> Option<&TierStatus> {
    fleet.tiers.iter().find(|status| status.tier == tier.name())
}
