//! The database tier: watched and told about, never scaled. The paper leaves that to an operator too.

use std::sync::{Arc, Mutex, PoisonError};

use fleet::Tier;
use node_api::wire::{StoreKind, StoreNode, StoreTierStatus};

use crate::observe::Snapshot;

/// Share of the tier's capacity above which an operator should add a node, in percent.
const FULL_PERCENT: f64 = 75.0;

/// Mean time of a query above which an operator should look, in milliseconds.
const SLOW_MS: f64 = 50.0;

/// What is known of the store without asking the proxies.
#[derive(Clone, Debug)]
pub struct StoreWatch {
    pub kind: StoreKind,
    /// Queries per second that one node is trusted with.
    pub node_capacity_queries_per_s: u32,
    pub news: StoreNews,
}

impl Default for StoreWatch {
    fn default() -> Self {
        Self {
            kind: StoreKind::Sqlite,
            node_capacity_queries_per_s: u32::MAX,
            news: StoreNews::default(),
        }
    }
}

/// Where whoever watches the cluster writes which nodes are up.
#[derive(Clone, Debug, Default)]
pub struct StoreNews(Arc<Mutex<Vec<StoreNode>>>);

impl StoreNews {
    pub fn set(&self, nodes: Vec<StoreNode>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    fn nodes(&self) -> Vec<StoreNode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The tier in this round.
pub(crate) fn status(watch: &StoreWatch, snapshot: &Snapshot) -> StoreTierStatus {
    let mut status = StoreTierStatus {
        kind: match watch.kind {
            StoreKind::Sqlite => "sqlite",
            StoreKind::Memory => "memory",
            StoreKind::Cassandra => "cassandra",
        }
        .to_owned(),
        nodes: watch.news.nodes(),
        ..StoreTierStatus::default()
    };
    let mut busy_ms_per_s = 0.0;
    for (instance, seen) in &snapshot.nodes {
        let Some(rates) = seen.rates.as_ref().filter(|_| instance.tier == Tier::Proxy) else {
            continue;
        };
        status.queries_per_s += rates.store.queries_per_s;
        status.failures_per_s += rates.store.failures_per_s;
        busy_ms_per_s += rates.store.busy_ms_per_s;
    }
    if status.queries_per_s > 0.0 {
        status.latency_ms = busy_ms_per_s / status.queries_per_s;
    }
    status.advice = advice(watch, &status);
    status
}

/// What an operator should do, if anything.
fn advice(watch: &StoreWatch, status: &StoreTierStatus) -> String {
    let down: Vec<String> = status
        .nodes
        .iter()
        .filter(|node| !node.is_up)
        .map(|node| node.address.to_string())
        .collect();
    if !down.is_empty() {
        return format!("{} of {} nodes down: {}", down.len(), status.nodes.len(), down.join(", "));
    }
    let nodes = status.nodes.len() as f64;
    let capacity = f64::from(watch.node_capacity_queries_per_s) * nodes;
    // A file has no nodes, and nothing to add.
    if nodes > 0.0 && status.queries_per_s > capacity * FULL_PERCENT / 100.0 {
        return format!(
            "add a node: more than {FULL_PERCENT:.0} % of the {capacity:.0} queries per second that \
             {nodes} can take",
        );
    }
    if status.latency_ms > SLOW_MS {
        return format!("slow: a query takes more than {SLOW_MS:.0} ms on average");
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_told_what_to_do() {
        let watch = StoreWatch { node_capacity_queries_per_s: 1_000, ..StoreWatch::default() };
        let node = |last: u8, is_up| StoreNode {
            address: ([127, 0, 0, last], 9042).into(),
            datacenter: "one".to_owned(),
            is_up,
        };
        let of = |nodes: &[StoreNode], queries_per_s, latency_ms| {
            let nodes = nodes.to_vec();
            let status =
                StoreTierStatus { nodes, queries_per_s, latency_ms, ..StoreTierStatus::default() };
            advice(&watch, &status)
        };
        let both = [node(1, true), node(2, true)];
        assert_eq!(of(&both, 1_400.0, 1.0), "");
        assert!(of(&both, 1_600.0, 1.0).starts_with("add a node"));
        assert!(of(&both, 10.0, 80.0).starts_with("slow"));
        let one_down = of(&[node(1, true), node(2, false)], 1_600.0, 80.0);
        assert_eq!(one_down, "1 of 2 nodes down: 127.0.0.2:9042");
        assert_eq!(of(&[], 9_000.0, 1.0), "", "a file has no nodes");
    }
}
