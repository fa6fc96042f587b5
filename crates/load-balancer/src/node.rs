//! The control side of a balancer: what the manager asks and tells (`node-api`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fleet::{Incarnation, InstanceId, Membership, StaleGeneration};
use node_api::server::NodeHandle;
use node_api::wire::{CallsToMember, NodeStatus, SipAddresses};
use sip_net::clock;
use sip_net::stream::StreamSender;
use tracing::info;

use crate::config::Config;
use crate::health::Belief;
use crate::ledger::LedgerCounters;
use crate::metrics::{Counters, Text};
use crate::service::Shared;

/// A running balancer, as its manager sees it.
#[derive(Debug)]
pub struct Node {
    instance: InstanceId,
    incarnation: Incarnation,
    sip: SipAddresses,
    started_at_ms: u64,
    shared: Arc<Shared>,
    counters: Vec<Arc<Counters>>,
    streams: StreamSender,
}

impl Node {
    pub(crate) fn new(
        config: &Config,
        shared: Arc<Shared>,
        counters: Vec<Arc<Counters>>,
        streams: StreamSender,
    ) -> Self {
        let sip = SipAddresses {
            internal: shared.me.internal,
            advertised: config.advertised,
            extra: config.extra.clone(),
        };
        Self {
            instance: config.instance,
            incarnation: config.incarnation,
            sip,
            started_at_ms: clock::unix_millis(),
            shared,
            counters,
            streams,
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn put(&self, membership: Membership) -> Result<(), StaleGeneration> {
        let (generation, owners) = (membership.generation, membership.proxies.len());
        self.shared.tables.put(membership)?;
        self.shared.watch.wake();
        info!(%generation, owners, "membership taken");
        Ok(())
    }

    /// Those of proxies are no reason to stay.
    fn streams_of_clients(&self) -> u64 {
        let table = self.shared.tables.current();
        let ledger = self.shared.ledger.lock();
        ledger.clients(|ip| table.directory.has_ip(ip)) as u64
    }

    fn sum(&self, total: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|counters| total(counters)).sum()
    }
}

impl NodeHandle for Node {
    fn status(&self) -> NodeStatus {
        let table = self.shared.tables.current();
        let membership = table.membership.as_ref();
        let draining = self.shared.is_draining.load(Ordering::Relaxed);
        let incarnation_of = |name: (InstanceId, u16)| {
            let mut members = membership.into_iter().flat_map(Membership::every_proxy);
            members.find(|one| (one.instance, one.worker) == name).map_or(0, |m| m.incarnation.0)
        };
        let calls = self.shared.tables.calls();
        let call = |(name, calls_total): ((InstanceId, u16), u64)| CallsToMember {
            instance: name.0,
            worker: name.1,
            incarnation: incarnation_of(name),
            calls_total,
        };
        let usage = node_api::process::usage();
        let replied = self.sum(Counters::replied);
        let messages_sent_total = self.sum(|c| c.to_members.get() + c.to_flows.get()) + replied;
        let now = clock::unix_millis();
        NodeStatus {
            pid: std::process::id(),
            started_at_ms: self.started_at_ms,
            uptime_ms: now.saturating_sub(self.started_at_ms),
            ready: membership.is_some() && !draining,
            draining,
            generation: membership.map(|one| one.generation.into()),
            digest: membership.map(|one| format!("{:016x}", one.digest)),
            calls_total: self.sum(|c| c.calls.get()),
            requests_total: self.sum(|c| c.requests_received.get()),
            calls_to_members: calls.into_iter().map(call).collect(),
            cpu_seconds_total: usage.cpu_seconds,
            rss_bytes: usage.rss_bytes,
            network_received_bytes_total: self.sum(|c| c.bytes_received.get()),
            network_sent_bytes_total: self.sum(|c| c.bytes_sent.get()),
            messages_received_total: self
                .sum(|c| c.requests_received.get() + c.responses_received.get()),
            messages_sent_total,
            messages_dropped_total: self.sum(Counters::dropped),
            last_sip_activity_ms: self
                .counters
                .iter()
                .map(|c| c.last_activity_ms.get())
                .max()
                .unwrap_or(0),
            streams_open: self.streams_of_clients(),
            members_in_doubt: self.shared.watch.doubts(),
            ..NodeStatus::started(self.instance, self.incarnation, self.sip.clone())
        }
    }

    fn membership(&self) -> Option<Membership> {
        self.shared.tables.current().membership.clone()
    }

    fn put_membership(&self, membership: Membership) -> Result<(), StaleGeneration> {
        self.put(membership)
    }

    fn drain(&self, on: bool) {
        let was = self.shared.is_draining.swap(on, Ordering::Relaxed);
        if was != on {
            info!(draining = on, "drain");
        }
    }

    fn metrics(&self) -> String {
        let mut text = Text::default();
        text.threads(&self.counters);
        let name = "sipcloud_balancer_calls_to_member_total";
        text.family(name, "counter", "INVITEs with credentials and without To tag, by worker.");
        for ((instance, worker), calls) in self.shared.tables.calls() {
            text.sample(name, &format!("instance=\"{instance}\",worker=\"{worker}\""), calls);
        }
        let table = self.shared.tables.current();
        let streams = self.streams.counters();
        let draining = u64::from(self.shared.is_draining.load(Ordering::Relaxed));
        let generation = table
            .membership
            .as_ref()
            .map_or((0, 0), |one| (one.generation.fence, one.generation.counter));
        let earlier_sets = table.earlier.len() as u64;
        let of_clients = self.streams_of_clients();
        self.write_members(&mut text);
        let gauges = [
            ("generation_fence", "First half of the generation in use.", generation.0),
            ("generation_counter", "Second half of the generation in use.", generation.1),
            ("earlier_sets", "Sets of earlier owners that requests still pass.", earlier_sets),
            ("draining", "1 while draining.", draining),
            ("streams_open", "Stream connections.", streams.open as u64),
            ("streams_of_clients", "Stream connections that hold a drain.", of_clients),
        ];
        for (name, help, value) in gauges {
            let name = format!("sipcloud_balancer_{name}");
            text.family(&name, "gauge", help);
            text.sample(&name, "", value);
        }
        for (name, help, value) in stream_totals(&streams) {
            let name = format!("sipcloud_balancer_streams_{name}_total");
            text.family(&name, "counter", help);
            text.sample(&name, "", value);
        }
        write_ledger(&mut text, &self.shared.ledger.lock().counters());
        text.out
    }
}

impl Node {
    fn write_members(&self, text: &mut Text) {
        let table = self.shared.tables.current();
        let name = "sipcloud_balancer_members";
        text.family(name, "gauge", "Workers in the membership, by what is believed of them.");
        for belief in Belief::ALL {
            let label = format!("state=\"{}\"", belief.as_str());
            text.sample(name, &label, table.count(belief) as u64);
        }
        let name = "sipcloud_balancer_member_transitions_total";
        text.family(name, "counter", "Changes of belief, by the new one and its reason.");
        for (belief, reason, total) in self.shared.watch.transitions() {
            text.sample(name, &format!("to=\"{belief}\",reason=\"{reason}\""), total);
        }
    }
}

fn write_ledger(text: &mut Text, kept: &LedgerCounters) {
    let gauges = [
        (
            "open_requests",
            "Requests from or to streams without final response.",
            kept.requests_open,
        ),
        ("kept_responses", "Final responses kept for a repeated request.", kept.responses_kept),
        ("kept_bytes", "Memory of both.", kept.bytes),
    ];
    for (name, help, value) in gauges {
        let name = format!("sipcloud_balancer_{name}");
        text.family(&name, "gauge", help);
        text.sample(&name, "", value as u64);
    }
    let totals = [
        (
            "repeated_requests",
            "Requests sent again for clients on streams.",
            kept.requests_repeated_total,
        ),
        (
            "repeated_responses",
            "Refusals sent again for callees on streams.",
            kept.responses_repeated_total,
        ),
        (
            "replayed_responses",
            "Responses given in place of a callee on a stream.",
            kept.responses_replayed_total,
        ),
        (
            "expired_requests",
            "Requests from streams that nobody answered in time.",
            kept.requests_expired_total,
        ),
        (
            "evicted_kept",
            "Kept messages that went because newer ones needed their room.",
            kept.evicted_total,
        ),
    ];
    for (name, help, value) in totals {
        let name = format!("sipcloud_balancer_{name}_total");
        text.family(&name, "counter", help);
        text.sample(&name, "", value);
    }
}

fn stream_totals(
    streams: &sip_net::stream::StreamCounters,
) -> [(&'static str, &'static str, u64); 8] {
    [
        ("accepted", "Connections accepted.", streams.accepted_total),
        ("opened", "Connections opened.", streams.opened_total),
        ("refused", "Connections closed at once at the limit.", streams.refused_total),
        ("keep_alives", "Keep-alives answered.", streams.keep_alives_total),
        ("malformed", "Connections ended because of what came.", streams.malformed_total),
        ("undelivered", "Messages queued and not written.", streams.undelivered_total),
        ("idle_closed", "Connections closed for idleness.", streams.idle_closed_total),
        ("stalled_closed", "Connections closed for slowness.", streams.stalled_closed_total),
    ]
}
