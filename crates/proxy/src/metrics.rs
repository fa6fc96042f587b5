//! Counters of a worker: plain atomics that only one thread writes, read by the control thread.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use store::Latencies;

/// A counter or gauge that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// One more.
    pub fn add(&self, more: u64) {
        // One writer: a plain load and store is enough and costs no locked instruction.
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// The present value of a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// What was last written.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($( $(#[doc = $help:literal])+ $kind:ident $field:ident = $name:literal $labels:literal; )+) => {
        /// Everything that one worker counts. One cache line apart from any other worker's.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $( $(#[doc = $help])+ pub $field: Cell, )+
            /// How long store queries took.
            pub store_latencies: LatencyCells,
        }

        impl Counters {
            /// Name, labels, kind, help and value of each, in the order in which they are shown.
            fn rows(&self) -> Vec<Row> {
                vec![$( Row {
                    name: $name,
                    labels: $labels,
                    kind: stringify!($kind),
                    help: concat!($($help),+),
                    value: self.$field.get(),
                }, )+]
            }
        }
    };
}

struct Row {
    name: &'static str,
    labels: &'static str,
    kind: &'static str,
    help: &'static str,
    value: u64,
}

counters! {
    /// Calls: INVITEs without To tag that were forwarded, each counted once.
    counter calls = "sipcloud_proxy_calls_total" "";
    /// Requests that began something here, by method.
    counter invites = "sipcloud_proxy_requests_total" r#"method="INVITE""#;
    /// Requests that began something here, by method.
    counter registers = "sipcloud_proxy_requests_total" r#"method="REGISTER""#;
    /// Requests that began something here, by method.
    counter byes = "sipcloud_proxy_requests_total" r#"method="BYE""#;
    /// Requests that began something here, by method.
    counter cancels = "sipcloud_proxy_requests_total" r#"method="CANCEL""#;
    /// Requests that began something here, by method.
    counter acks = "sipcloud_proxy_requests_total" r#"method="ACK""#;
    /// Requests that began something here, by method.
    counter others = "sipcloud_proxy_requests_total" r#"method="other""#;
    /// Requests that repeated what a transaction knew.
    counter repeats = "sipcloud_proxy_repeats_total" "";
    /// Challenges sent (401 and 407).
    counter challenges = "sipcloud_proxy_challenges_total" "";
    /// Credentials that were right.
    counter authenticated = "sipcloud_proxy_authentications_total" r#"result="accepted""#;
    /// Credentials that were wrong.
    counter refused = "sipcloud_proxy_authentications_total" r#"result="refused""#;
    /// Responses of ours to clients by class.
    counter replies_2xx = "sipcloud_proxy_replies_total" r#"class="2xx""#;
    /// Responses of ours to clients by class.
    counter replies_3xx = "sipcloud_proxy_replies_total" r#"class="3xx""#;
    /// Responses of ours to clients by class.
    counter replies_4xx = "sipcloud_proxy_replies_total" r#"class="4xx""#;
    /// Responses of ours to clients by class.
    counter replies_5xx = "sipcloud_proxy_replies_total" r#"class="5xx""#;
    /// Responses of ours to clients by class.
    counter replies_6xx = "sipcloud_proxy_replies_total" r#"class="6xx""#;
    /// Responses forwarded upstream.
    counter responses_forwarded = "sipcloud_proxy_responses_forwarded_total" "";
    /// Responses to requests of a proxy that is dead, by what became of them.
    counter strays_forwarded = "sipcloud_proxy_responses_inherited_total" r#"outcome="forwarded""#;
    /// Responses to requests of a proxy that is dead, by what became of them.
    counter strays_adopted = "sipcloud_proxy_responses_inherited_total" r#"outcome="matched""#;
    /// Responses to requests of a proxy that is dead, by what became of them.
    counter strays_withheld = "sipcloud_proxy_responses_inherited_total" r#"outcome="withheld""#;
    /// Responses to requests of a proxy that is dead, by what became of them.
    counter strays_released = "sipcloud_proxy_responses_inherited_total" r#"outcome="released""#;
    /// Responses to requests of a proxy that is dead, by what became of them.
    counter strays_handed_on = "sipcloud_proxy_responses_inherited_total" r#"outcome="handed_on""#;
    /// Requests that matched nothing and went on to the next owner of their call.
    counter handed_on = "sipcloud_proxy_requests_handed_on_total" "";
    /// Messages that went through another balancer, because theirs did not answer.
    counter detoured = "sipcloud_proxy_messages_detoured_total" "";
    /// Requests forwarded downstream, one per branch.
    counter requests_forwarded = "sipcloud_proxy_requests_forwarded_total" "";
    /// Messages dropped by reason.
    counter drop_malformed = "sipcloud_proxy_dropped_total" r#"reason="malformed""#;
    /// Messages dropped by reason.
    counter drop_unmatched_response = "sipcloud_proxy_dropped_total" r#"reason="response_without_transaction""#;
    /// Messages dropped by reason.
    counter drop_stray_hop_by_hop = "sipcloud_proxy_dropped_total" r#"reason="inherited_hop_by_hop""#;
    /// Messages dropped by reason.
    counter drop_stray_comes_again = "sipcloud_proxy_dropped_total" r#"reason="inherited_comes_again""#;
    /// Messages dropped by reason.
    counter drop_stray_too_late = "sipcloud_proxy_dropped_total" r#"reason="inherited_too_late""#;
    /// Messages dropped by reason.
    counter drop_unmatched_ack = "sipcloud_proxy_dropped_total" r#"reason="ack_without_route""#;
    /// Messages dropped by reason.
    counter drop_send = "sipcloud_proxy_dropped_total" r#"reason="send_failed""#;
    /// Messages dropped by reason.
    counter drop_unreachable = "sipcloud_proxy_dropped_total" r#"reason="no_next_hop""#;
    /// Messages dropped by reason.
    counter drop_table_full = "sipcloud_proxy_dropped_total" r#"reason="table_full""#;
    /// Datagrams that the kernel dropped because the socket's buffer was full.
    counter kernel_drops = "sipcloud_proxy_kernel_drops_total" "";
    /// Store queries submitted, by kind.
    counter queries_credential = "sipcloud_proxy_store_queries_total" r#"kind="credential""#;
    /// Store queries submitted, by kind.
    counter queries_bindings = "sipcloud_proxy_store_queries_total" r#"kind="bindings""#;
    /// Store queries submitted, by kind.
    counter queries_write = "sipcloud_proxy_store_queries_total" r#"kind="write""#;
    /// Store queries that failed.
    counter query_failures = "sipcloud_proxy_store_failures_total" "";
    /// Credentials that were found in the cache, or that another query in flight was asked for.
    counter store_saved = "sipcloud_proxy_store_queries_saved_total" "";
    /// Messages that came, keep-alives included.
    counter messages_received = "sipcloud_proxy_messages_received_total" "";
    /// Messages that left.
    counter messages_sent = "sipcloud_proxy_messages_sent_total" "";
    /// Bytes of messages that came.
    counter bytes_received = "sipcloud_proxy_received_bytes_total" "";
    /// Bytes of messages that left.
    counter bytes_sent = "sipcloud_proxy_sent_bytes_total" "";
    /// Store queries that wait for their answer now.
    gauge store_in_flight = "sipcloud_proxy_store_queries_in_flight" "";
    /// 1 while the store does not answer.
    gauge store_is_down = "sipcloud_proxy_store_down" "";
    /// Balancers that do not answer.
    gauge balancers_unwell = "sipcloud_proxy_balancers_unwell" "";
    /// Server transactions now.
    gauge server_transactions = "sipcloud_proxy_server_transactions" "";
    /// Client transactions now.
    gauge client_transactions = "sipcloud_proxy_client_transactions" "";
    /// Requests being worked on now.
    gauge contexts = "sipcloud_proxy_contexts" "";
    /// Calls of dead proxies of which refusals are withheld now.
    gauge withheld = "sipcloud_proxy_withheld_calls" "";
    /// Time of the last message of a client, in milliseconds since 1970.
    gauge last_activity_ms = "sipcloud_proxy_last_activity_unix_milliseconds" "";
}

/// The store's histogram, as another thread may read it.
#[derive(Debug, Default)]
pub struct LatencyCells {
    counts: [Cell; Latencies::BOUNDS_US.len() + 1],
    sum_us: Cell,
}

impl LatencyCells {
    /// Shows what the store has counted.
    pub fn set(&self, latencies: &Latencies) {
        for (cell, count) in self.counts.iter().zip(latencies.counts) {
            cell.set(count);
        }
        self.sum_us.set(latencies.sum_us);
    }

    /// Queries that were answered or failed.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(Cell::get).sum()
    }

    /// What they took together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    /// The samples of one worker.
    fn render(&self, worker: usize, text: &mut String) {
        let name = STORE_SECONDS;
        let bounds = Latencies::BOUNDS_US.iter().map(|bound_us| seconds(*bound_us).to_string());
        let mut sum = 0;
        for (cell, bound) in self.counts.iter().zip(bounds.chain(["+Inf".to_owned()])) {
            sum += cell.get();
            let _ = writeln!(text, "{name}_bucket{{worker=\"{worker}\",le=\"{bound}\"}} {sum}");
        }
        let _ = writeln!(text, "{name}_sum{{worker=\"{worker}\"}} {}", seconds(self.sum_us()));
        let _ = writeln!(text, "{name}_count{{worker=\"{worker}\"}} {sum}");
    }
}

const STORE_SECONDS: &str = "sipcloud_proxy_store_query_seconds";

fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

impl Counters {
    /// Counts a response of ours.
    pub fn count_reply(&self, code: u16) {
        match code / 100 {
            2 => self.replies_2xx.add(1),
            3 => self.replies_3xx.add(1),
            4 => self.replies_4xx.add(1),
            5 => self.replies_5xx.add(1),
            6 => self.replies_6xx.add(1),
            _ => {}
        }
    }

    /// Requests that began something here, of all methods.
    pub fn requests(&self) -> u64 {
        [&self.invites, &self.registers, &self.byes, &self.cancels, &self.acks, &self.others]
            .iter()
            .map(|cell| cell.get())
            .sum()
    }
}

impl Counters {
    /// Messages that went nowhere, for whatever reason.
    pub fn dropped(&self) -> u64 {
        [
            &self.drop_malformed,
            &self.drop_unmatched_response,
            &self.drop_stray_hop_by_hop,
            &self.drop_stray_comes_again,
            &self.drop_stray_too_late,
            &self.drop_unmatched_ack,
            &self.drop_send,
            &self.drop_unreachable,
            &self.drop_table_full,
            &self.kernel_drops,
        ]
        .iter()
        .map(|cell| cell.get())
        .sum()
    }
}

/// All workers' counters in the text format of Prometheus.
pub fn render(workers: &[std::sync::Arc<Counters>]) -> String {
    let tables: Vec<Vec<Row>> = workers.iter().map(|worker| worker.rows()).collect();
    let mut text = String::new();
    let mut last_name = "";
    let width = tables.first().map_or(0, Vec::len);
    for column in 0..width {
        for (worker, rows) in tables.iter().enumerate() {
            let Some(row) = rows.get(column) else { continue };
            if row.name != last_name {
                last_name = row.name;
                let _ = writeln!(text, "# HELP {} {}", row.name, row.help.trim());
                let _ = writeln!(text, "# TYPE {} {}", row.name, row.kind);
            }
            let comma = if row.labels.is_empty() { "" } else { "," };
            let (name, labels, value) = (row.name, row.labels, row.value);
            let _ = writeln!(text, "{name}{{worker=\"{worker}\"{comma}{labels}}} {value}");
        }
    }
    let _ = writeln!(text, "# HELP {STORE_SECONDS} How long store queries took, failed ones too.");
    let _ = writeln!(text, "# TYPE {STORE_SECONDS} histogram");
    for (worker, counters) in workers.iter().enumerate() {
        counters.store_latencies.render(worker, &mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_help_and_type_once() {
        let workers = [std::sync::Arc::new(Counters::default()), Default::default()];
        workers[1].calls.add(3);

        let text = render(&workers);

        assert!(text.contains("sipcloud_proxy_calls_total{worker=\"1\"} 3\n"), "{text}");
        let helps = text.lines().filter(|line| line.starts_with("# HELP")).count();
        let types = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        let mut names: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split('{').next())
            // A histogram is one metric.
            .map(|name| if name.starts_with(STORE_SECONDS) { STORE_SECONDS } else { name })
            .collect();
        names.dedup();
        assert_eq!((helps, types), (names.len(), names.len()), "{text}");
    }

    #[test]
    fn latencies_are_shown_as_a_histogram() {
        let mut latencies = Latencies::default();
        for latency_us in [40, 400, 450, 9_000_000] {
            latencies.record(std::time::Duration::from_micros(latency_us));
        }
        let counters = std::sync::Arc::new(Counters::default());
        counters.store_latencies.set(&latencies);

        let text = render(&[counters]);

        let name = "sipcloud_proxy_store_query_seconds";
        for line in [
            "_bucket{worker=\"0\",le=\"0.00005\"} 1\n",
            "_bucket{worker=\"0\",le=\"0.0005\"} 3\n",
            "_bucket{worker=\"0\",le=\"5\"} 3\n",
            "_bucket{worker=\"0\",le=\"+Inf\"} 4\n",
            "_sum{worker=\"0\"} 9.00089\n",
            "_count{worker=\"0\"} 4\n",
        ] {
            assert!(text.contains(&format!("{name}{line}")), "{line} in {text}");
        }
    }
}
