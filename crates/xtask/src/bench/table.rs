//! What was measured, as tables for people, and where they stand in the documentation.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::FAILED_SHARE_MAX;
use super::element::Round;

const BEGIN: &str = "<!-- cargo xtask bench --write: begin -->";
const END: &str = "<!-- cargo xtask bench --write: end -->";

/// From the lines of the balancer's benchmark.
pub(super) fn balancers(lines: &str) -> Result<String> {
    let mut text = String::from(
        "CPU per forwarded message, median (least to most) of the rounds; in brackets what the \
         balancer costs of it.\n\n| messages at once | bare forwarder | balancer | Kamailio |\n\
         |---|---|---|---|\n",
    );
    let figures: Vec<Value> =
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut bursts: Vec<u64> = figures.iter().filter_map(|it| it["burst"].as_u64()).collect();
    bursts.dedup();
    for burst in bursts {
        let cell = |element: &str| -> Option<String> {
            let of = |it: &&Value| it["burst"] == burst && it["element"] == element;
            let figure = figures.iter().find(of)?;
            let number = |name: &str| figure[name].as_f64();
            let (least, median, most) =
                (number("us_least")?, number("us_median")?, number("us_most")?);
            let ratio = match element {
                "balancer" => String::new(),
                _ => format!(" [{:.2} ×]", number("ratio")?),
            };
            Some(format!("{median:.2} µs ({least:.2} to {most:.2}){ratio}"))
        };
        let bare = cell("bare").context("the bare forwarder was measured")?;
        let balancer = cell("balancer").context("the balancer was measured")?;
        let kamailio = cell("kamailio").unwrap_or_else(|| "not installed".to_owned());
        let _ = writeln!(text, "| {burst} | {bare} | {balancer} | {kamailio} |");
    }
    Ok(text + "\n")
}

/// `rounds[rate][element]`; the first element is what the others are compared with.
pub(super) fn proxies(
    names: &[String],
    rates: &[u32],
    rounds: &[Vec<Vec<Round>>],
    workers: u16,
) -> String {
    let mut text = format!(
        "Proxy, {workers} worker{}: CPU of its processes per Figure-4 call (medians, least to most of \
         the rounds), calls that send nothing twice.\n\n| cps | element | calls | failed | CPU per \
         call | of Kamailio's | to the 200: p50, p99, p99.9 | most memory |\n\
         |---|---|---|---|---|---|---|---|\n",
        if workers == 1 { "" } else { "s" }
    );
    for (rate, at_rate) in rates.iter().zip(rounds) {
        let peer = at_rate.first().map(|rounds| Summary::of(rounds));
        for (name, rounds) in names.iter().zip(at_rate) {
            let own = Summary::of(rounds);
            let ratio = peer.as_ref().map_or_else(String::new, |peer| own.ratio_to(peer));
            let Summary { calls, failed, least_us, median_us, most_us, answer_ms, memory_kib } =
                own;
            let [p50, p99, p999] = answer_ms;
            let _ = writeln!(
                text,
                "| {rate} | {name} | {calls} | {failed} | {median_us:.0} µs ({least_us:.0} to \
                 {most_us:.0}) | {ratio} | {p50:.2}, {p99:.2}, {p999:.2} ms | {} MiB |",
                memory_kib / 1_024
            );
        }
    }
    text + "\n"
}

/// Several rounds as one.
struct Summary {
    calls: u64,
    failed: u64,
    least_us: f64,
    median_us: f64,
    most_us: f64,
    answer_ms: [f64; 3],
    memory_kib: u64,
}

impl Summary {
    fn of(rounds: &[Round]) -> Self {
        let (least_us, median_us, most_us) = spread(rounds.iter().map(|it| it.cpu_us));
        let answer_ms =
            [0, 1, 2].map(|place| spread(rounds.iter().map(|it| it.answer_ms[place])).1);
        Self {
            calls: rounds.iter().map(|it| it.calls).sum(),
            failed: rounds.iter().map(|it| it.failed).sum(),
            least_us,
            median_us,
            most_us,
            answer_ms,
            memory_kib: rounds.iter().map(|it| it.memory_kib).max().unwrap_or_default(),
        }
    }

    fn has_served(&self) -> bool {
        self.calls > 0 && self.failed as f64 / self.calls as f64 <= FAILED_SHARE_MAX
    }

    fn ratio_to(&self, peer: &Self) -> String {
        if self.has_served() && peer.has_served() {
            format!("{:.2} ×", self.median_us / peer.median_us)
        } else {
            "none: calls failed".to_owned()
        }
    }
}

/// Least, median and most.
fn spread(figures: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let at = |place: usize| figures.get(place).copied().unwrap_or(f64::NAN);
    (at(0), at(figures.len() / 2), at(figures.len().saturating_sub(1)))
}

/// Replaces what stands between the marks.
pub(super) fn write_into(path: &Path, text: &str) -> Result<()> {
    let page = fs::read_to_string(path)?;
    let (before, rest) = page.split_once(BEGIN).context("docs/performance.md has no begin mark")?;
    let (_, after) = rest.split_once(END).context("docs/performance.md has no end mark")?;
    fs::write(path, format!("{before}{BEGIN}\n{text}{END}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(failed: u64, cpu_us: f64) -> Round {
        Round { calls: 1_000, failed, cpu_us, answer_ms: [1.0, 2.0, 3.0], memory_kib: 2_048 }
    }

    #[test]
    fn no_ratio_is_printed_where_calls_failed() {
        let names = ["Kamailio".to_owned(), "ours".to_owned()];
        let table = |failed| {
            let rounds = vec![vec![vec![round(0, 400.0)], vec![round(failed, 100.0)]]];
            proxies(&names, &[200], &rounds, 1)
        };
        assert!(table(1).contains("0.25 ×"), "{}", table(1));
        assert!(!table(2).contains("0.25 ×") && table(2).contains("none: calls failed"));
    }

    #[test]
    fn the_middle_of_the_rounds_counts() {
        assert_eq!(spread([5.0, 1.0, 3.0].into_iter()), (1.0, 3.0, 5.0));
    }
}
