//! The balancer, Kamailio's dispatcher (if it is installed) and a bare recvmmsg/sendmmsg forwarder on
//! the same messages, in turns, in one run.
//!
//! `cargo bench -p load-balancer --bench forward [-- OPTIONS]`, where the options are
//!
//! - `--messages N`, `--rounds N`: CPU per message, by so many messages in so many turns;
//! - `--capacity`: instead, how many INVITEs per second each carries on a core of its own (start it with
//!   `taskset` on the others);
//! - `--core N`: that core, in place of the last one;
//! - `--threads N`: threads of the balancer, workers of Kamailio;
//! - `--json`: one line per figure.
//!
//! Each forwarder is a process of its own (Kamailio: with its children); what it used is read from
//! `/proc`, in nanoseconds of all its threads.

mod capacity;
mod cost;
mod forwarder;
mod kamailio;
#[path = "../../../xtask/src/rig/kamailio_settings.rs"]
mod kamailio_settings;
mod peers;
#[path = "../../../xtask/src/rig/search.rs"]
mod search;
#[path = "../../../xtask/src/rig/usage.rs"]
mod usage;

use std::net::SocketAddr;

use forwarder::Kind;

const FORWARDER: &str = "127.61.10.1:5060";
const PROXY: &str = "127.61.20.1:5060";
const CLIENT: &str = "127.61.30.1:5060";

struct Options {
    messages: usize,
    rounds: usize,
    threads: usize,
    is_capacity: bool,
    core: Option<usize>,
    is_json: bool,
}

impl Options {
    fn of(arguments: &[String]) -> Self {
        let has = |name: &str| arguments.iter().any(|text| text == name);
        let number = |name: &str| {
            let at = arguments.iter().position(|text| text == name)?;
            Some(arguments.get(at + 1)?.parse().expect("a number"))
        };
        Self {
            messages: number("--messages").unwrap_or(24_000),
            rounds: number("--rounds").unwrap_or(5),
            threads: number("--threads").unwrap_or(1),
            is_capacity: has("--capacity"),
            core: number("--core"),
            is_json: has("--json"),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = Options::of(&arguments);
    match arguments.first().map(String::as_str) {
        Some("bare") => forwarder::run_bare(),
        Some("balancer") => forwarder::run_balancer(options.threads),
        _ if options.is_capacity => capacity::find(&kinds(), &options),
        _ => cost::compare(&kinds(), &options),
    }
}

/// Those that can be measured here.
fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind::Bare, Kind::Balancer];
    match kamailio::version() {
        Some(version) => {
            kinds.push(Kind::Kamailio);
            eprintln!("beside {version}");
        }
        None => eprintln!("Kamailio is not installed (apt-get install kamailio): left out"),
    }
    kinds
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
