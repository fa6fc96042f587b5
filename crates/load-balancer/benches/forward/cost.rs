//! CPU per forwarded message and how long one takes, in bursts: a burst of one is how an idle element
//! meets its messages, a burst of 32 how a busy one does. Every INVITE is answered with a 180 through
//! the forwarder, so that half of the messages are responses.

use std::fmt::Write as _;
use std::time::Duration;

use crate::Options;
use crate::forwarder::{Forwarder, Kind, Place};
use crate::peers::{Exchange, Peers};

const BURSTS: [usize; 3] = [32, 8, 1];
/// Of messages at most this share may be lost, or nothing is compared.
const LOST_SHARE_MAX: f64 = 0.001;

/// All rounds of one forwarder with one kind of burst.
#[derive(Default)]
struct Figures {
    us: Vec<f64>,
    messages: usize,
    lost: usize,
    memory_kib: u64,
    ways: Vec<Duration>,
}

impl Figures {
    fn counts(&self) -> bool {
        self.lost as f64 <= self.messages as f64 * LOST_SHARE_MAX
    }

    fn median_us(&self) -> f64 {
        self.us[self.us.len() / 2]
    }

    /// What `share` of the requests did not exceed, microseconds.
    fn way_us(&self, share: f64) -> f64 {
        let place = (self.ways.len() as f64 * share) as usize;
        self.ways.get(place).map_or(f64::NAN, |way| way.as_secs_f64() * 1_000_000.0)
    }
}

/// Takes turns, so that whatever else this machine does falls on all alike.
pub(crate) fn compare(kinds: &[Kind], options: &Options) {
    for burst in BURSTS {
        let mut all: Vec<Figures> = kinds.iter().map(|_| Figures::default()).collect();
        for round in 1..=options.rounds {
            let mut line = format!("bursts of {burst}, round {round}:");
            for (kind, figures) in kinds.iter().zip(&mut all) {
                measure(*kind, options, burst, figures);
                let us = figures.us.last().copied().unwrap_or(f64::NAN);
                let _ = write!(line, " {} {us:.2} µs", kind.name());
            }
            eprintln!("{line}");
        }
        for figures in &mut all {
            figures.us.sort_by(f64::total_cmp);
            figures.ways.sort_unstable();
        }
        report(burst, kinds, &all, options.is_json);
    }
}

/// Medians, least and most, and the balancer's ratio to each of the others.
fn report(burst: usize, kinds: &[Kind], all: &[Figures], is_json: bool) {
    let ours = kinds.iter().zip(all).find(|(kind, _)| **kind == Kind::Balancer);
    let (_, ours) = ours.expect("it was measured");
    for (kind, figures) in kinds.iter().zip(all) {
        let (name, median) = (kind.name(), figures.median_us());
        let (least, most) = (figures.us[0], figures.us[figures.us.len() - 1]);
        let ratio = (ours.counts() && figures.counts()).then(|| ours.median_us() / median);
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| figures.way_us(share));
        let Figures { messages, lost, memory_kib, .. } = figures;
        if is_json {
            let ratio = ratio.map_or_else(|| "null".to_owned(), |ratio| format!("{ratio:.3}"));
            println!(
                r#"{{"burst":{burst},"element":"{name}","us_least":{least:.3},"us_median":{median:.3},"us_most":{most:.3},"ratio":{ratio},"messages":{messages},"lost":{lost},"memory_kib":{memory_kib},"way_us_p50":{p50:.1},"way_us_p99":{p99:.1},"way_us_p999":{p999:.1}}}"#
            );
            continue;
        }
        let ratio = ratio.map_or_else(
            || "lost too many to be compared".to_owned(),
            |ratio| format!("the balancer costs {ratio:.2} of it"),
        );
        println!(
            "bursts of {burst:2}: {name:8} median {median:6.2} µs ({least:.2} to {most:.2}), {ratio}; \
             one way p50 {p50:.0} µs, p99 {p99:.0}, p99.9 {p999:.0}; {lost} of {messages} lost; \
             {memory_kib} KiB"
        );
    }
}

/// One round: what a forwarder uses for `messages`, half of them requests.
fn measure(kind: Kind, options: &Options, burst: usize, figures: &mut Figures) {
    // Before the forwarder: it must not find that nobody listens.
    let peers = Peers::new();
    let forwarder = Forwarder::start(kind, options.threads, Place::Anywhere);
    peers.wait_until_forwarded();
    peers.exchange(640, burst);
    let before = forwarder.cpu_ns();
    let Exchange { messages, lost, ways } = peers.exchange(options.messages / 2, burst);
    let used_ns = forwarder.cpu_ns() - before;
    figures.us.push(used_ns as f64 / 1_000.0 / messages as f64);
    figures.messages += messages;
    figures.lost += lost;
    figures.memory_kib = figures.memory_kib.max(forwarder.memory_kib());
    figures.ways.extend(ways);
}
