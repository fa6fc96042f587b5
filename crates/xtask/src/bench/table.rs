//! What was measured, as tables for people.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::rig::FAILED_SHARE_MAX;
use crate::rig::element::Round;

/// From the lines of the balancer's bench.
pub(super) fn balancers(lines: &str, workers: u16) -> Result<String> {
    let mut text = format!(
        "Balancer with {workers} thread{}: CPU per forwarded message, median (least to most) of the \
         rounds; in brackets what the balancer costs of it. Most memory, and from the client to the \
         proxy p50, p99, p99.9 of the request.\n\n\
         | messages at once | element | CPU per message | lost | memory | one way |\n\
         |---|---|---|---|---|---|\n",
        plural(workers)
    );
    let figures: Vec<Value> =
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for figure in &figures {
        let number = |name: &str| figure[name].as_f64().with_context(|| format!("no {name}"));
        let ratio = match figure["element"].as_str() {
            Some("balancer") => String::new(),
            _ if figure["ratio"].is_null() => " [none: messages were lost]".to_owned(),
            _ => format!(" [{:.2} ×]", number("ratio")?),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} µs ({:.2} to {:.2}){ratio} | {} of {} | {:.1} MiB | {:.0}, {:.0}, \
             {:.0} µs |",
            number("burst")?,
            figure["element"].as_str().unwrap_or_default(),
            number("us_median")?,
            number("us_least")?,
            number("us_most")?,
            number("lost")?,
            number("messages")?,
            number("memory_kib")? / 1_024.0,
            number("way_us_p50")?,
            number("way_us_p99")?,
            number("way_us_p999")?,
        );
    }
    Ok(text + "\n")
}

/// `rounds[rate][element]`; the first element is what the others are compared with, the second one
/// is nothing at all.
pub(super) fn proxies(
    names: &[&str],
    rates: &[u32],
    rounds: &[Vec<Vec<Round>>],
    workers: u16,
) -> String {
    let mut text = format!(
        "Proxy, {workers} worker{}: CPU of its processes per Figure-4 call, median (least to most of \
         the rounds), calls that send nothing twice; no ratio where more than {:.1} % failed. Time \
         from the INVITE with credentials to its 200, and in brackets what the element adds.\n\n\
         | cps | element | calls | failed | CPU per call | of Kamailio's | Cassandra's CPU | p50 | p99 \
         | p99.9 | memory |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
        plural(workers),
        FAILED_SHARE_MAX * 100.0,
    );
    for (rate, at_rate) in rates.iter().zip(rounds) {
        let summaries: Vec<Summary> = at_rate.iter().map(|rounds| Summary::of(rounds)).collect();
        let [peer, nothing, ..] = summaries.as_slice() else { continue };
        for (name, own) in names.iter().zip(&summaries) {
            let times = [0, 1, 2].map(|place| {
                let added = own.answer_ms[place] - nothing.answer_ms[place];
                format!("{:.2} ms [{added:.2}]", own.answer_ms[place])
            });
            let Summary { calls, failed, .. } = own;
            let _ = writeln!(
                text,
                "| {rate} | {name} | {calls} | {failed} | {} | {} | {} | {} | {} | {} | {:.1} MiB |",
                own.cpu_us,
                own.ratio_to(peer),
                own.database_us,
                times[0],
                times[1],
                times[2],
                own.memory_kib as f64 / 1_024.0
            );
        }
    }
    text + "\n"
}

fn plural(number: u16) -> &'static str {
    if number == 1 { "" } else { "s" }
}

/// Several rounds as one.
struct Summary {
    calls: u64,
    failed: u64,
    cpu_us: Spread,
    database_us: Spread,
    answer_ms: [f64; 3],
    memory_kib: u64,
    /// Whether so few calls failed in every round that they can be compared.
    counts: bool,
}

impl Summary {
    fn of(rounds: &[Round]) -> Self {
        let answer_ms = [0, 1, 2]
            .map(|place| Spread::of(rounds.iter().map(|it| it.report.answer_ms[place])).median);
        Self {
            calls: rounds.iter().map(|it| it.report.calls).sum(),
            failed: rounds.iter().map(|it| it.report.failed).sum(),
            cpu_us: Spread::of(rounds.iter().map(|it| it.cpu_us)),
            database_us: Spread::of(rounds.iter().map(|it| it.database_us)),
            answer_ms,
            memory_kib: rounds.iter().map(|it| it.memory_kib).max().unwrap_or_default(),
            counts: rounds.iter().all(|it| it.report.counts()),
        }
    }

    fn ratio_to(&self, peer: &Self) -> String {
        if self.cpu_us.median == 0.0 {
            String::new()
        } else if self.counts && peer.counts {
            format!("{:.2} ×", self.cpu_us.median / peer.cpu_us.median)
        } else {
            "none: calls failed".to_owned()
        }
    }
}

/// Least, median and most.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let at = |place: usize| figures.get(place).copied().unwrap_or(f64::NAN);
        Self { least: at(0), median: at(figures.len() / 2), most: at(figures.len().max(1) - 1) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.most == 0.0 {
            return f.write_str("–");
        }
        write!(f, "{:.0} µs ({:.0} to {:.0})", self.median, self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::calls::Report;

    fn round(failed: u64, cpu_us: f64, ms: f64) -> Round {
        let answer_ms = [ms, ms * 2.0, ms * 3.0];
        let report = Report { calls: 1_000, failed, late: 0, answer_ms };
        Round { report, cpu_us, database_us: 0.0, busy: 0.1, memory_kib: 2_048 }
    }

    fn table(failed: u64) -> String {
        let rounds = [round(0, 400.0, 2.0), round(0, 0.0, 0.5), round(failed, 100.0, 1.5)];
        let rounds = vec![rounds.into_iter().map(|it| vec![it]).collect()];
        proxies(&["Kamailio", "nothing", "ours"], &[200], &rounds, 1)
    }

    #[test]
    fn no_ratio_is_printed_where_calls_failed() {
        assert!(table(1).contains("0.25 ×"), "{}", table(1));
        assert!(!table(2).contains("0.25 ×") && table(2).contains("none: calls failed"));
    }

    #[test]
    fn what_an_element_adds_is_beyond_nothing() {
        assert!(table(0).contains("1.50 ms [1.00] | 3.00 ms [2.00] | 4.50 ms [3.00]"));
    }

    #[test]
    fn the_middle_of_the_rounds_counts() {
        let spread = Spread::of([5.0, 1.0, 3.0].into_iter());
        assert_eq!(spread, Spread { least: 1.0, median: 3.0, most: 5.0 });
    }

    #[test]
    fn a_balancer_that_loses_messages_is_not_compared() {
        let line = |ratio: &str| {
            format!(
                r#"{{"burst":8,"element":"kamailio","us_least":1,"us_median":2,"us_most":3,
                     "ratio":{ratio},"lost":0,"messages":9,"memory_kib":2048,"way_us_p50":1,
                     "way_us_p99":2,"way_us_p999":3}}"#
            )
            .replace('\n', "")
        };
        let told = |ratio| balancers(&line(ratio), 1).expect("a table");
        assert!(told("0.5").contains("[0.50 ×]") && told("null").contains("messages were lost"));
    }
}
