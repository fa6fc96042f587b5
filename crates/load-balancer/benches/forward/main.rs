//! CPU per forwarded message: the balancer, Kamailio's dispatcher (if it is installed) and a bare
//! recvmmsg/sendmmsg forwarder, in turns, in one run, with the same messages.
//!
//! `cargo bench -p load-balancer --bench forward [-- MESSAGES] [--json]`. Each forwarder is a process of
//! its own (Kamailio: with its children) and uses one socket; what it used is read from `/proc`, in nanoseconds of all its
//! threads. The load: bursts of INVITEs of about 600 bytes from a client to a proxy, which answers
//! each with a 180 through the forwarder, so half of the messages are responses. A burst of one is
//! how an idle element meets its messages, a burst of 32 how a busy one does.

mod kamailio;
mod peers;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use fleet::{
    FleetKey, FleetKeys, GenerationNumber, Incarnation, InstanceId, Member, Members, Membership,
    WEIGHT_NORMAL,
};
use load_balancer::{Config, Probing, Timing};
use node_api::server::NodeHandle;
use sip_net::limits::{BATCH_MAX, DATAGRAM_BYTES_MAX};
use sip_net::poll::{Events, Poller};
use sip_net::stream::StreamLimits;
use sip_net::udp;

use crate::kamailio::Kamailio;
use crate::peers::Peers;

const FORWARDER: &str = "127.61.10.1:5060";
const PROXY: &str = "127.61.20.1:5060";
const CLIENT: &str = "127.61.30.1:5060";
const BURSTS: [usize; 3] = [32, 8, 1];
const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("bare") => run_bare(),
        Some("balancer") => run_balancer(),
        _ => {
            let messages = arguments.iter().find_map(|text| text.parse().ok()).unwrap_or(400_000);
            compare(messages, arguments.iter().any(|text| text == "--json"));
        }
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Takes turns, so that whatever else this machine does falls on all alike.
fn compare(messages: usize, is_json: bool) {
    let mut kinds = vec![Kind::Bare, Kind::Balancer];
    match kamailio::version() {
        Some(version) => {
            kinds.push(Kind::Kamailio);
            eprintln!("beside {version}");
        }
        None => eprintln!("Kamailio is not installed (apt-get install kamailio): left out"),
    }
    for burst in BURSTS {
        let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
        for round in 1..=ROUNDS {
            let mut line = format!("bursts of {burst}, round {round}:");
            for (kind, figures) in kinds.iter().zip(&mut rounds) {
                let figure = measure(*kind, messages / ROUNDS / BURSTS.len(), burst);
                figures.push(figure);
                let _ = write!(line, " {} {figure:.2} µs", kind.name());
            }
            eprintln!("{line}");
        }
        report(burst, &kinds, &rounds, is_json);
    }
}

/// Medians, least and most, and the balancer's ratio to each of the others.
fn report(burst: usize, kinds: &[Kind], rounds: &[Vec<f64>], is_json: bool) {
    let sorted = |figures: &Vec<f64>| {
        let mut figures = figures.clone();
        figures.sort_by(f64::total_cmp);
        figures
    };
    let of = |wanted: Kind| {
        let place = kinds.iter().position(|kind| *kind == wanted)?;
        rounds.get(place).map(|figures| sorted(figures)[figures.len() / 2])
    };
    let ours = of(Kind::Balancer).expect("it was measured");
    for (kind, figures) in kinds.iter().zip(rounds) {
        let figures = sorted(figures);
        let (least, median, most) =
            (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
        let name = kind.name();
        let ratio = ours / median;
        if is_json {
            println!(
                r#"{{"burst":{burst},"element":"{name}","us_least":{least:.3},"us_median":{median:.3},"us_most":{most:.3},"ratio":{ratio:.3}}}"#
            );
        } else {
            println!(
                "bursts of {burst:2}: {name:8} median {median:6.2} µs ({least:.2} to {most:.2}), \
                 the balancer costs {ratio:.2} of it"
            );
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bare,
    Balancer,
    Kamailio,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Balancer => "balancer",
            Self::Kamailio => "kamailio",
        }
    }
}

/// A forwarder under measurement; it ends when this is dropped.
enum Forwarder {
    Own(Child),
    Kamailio(Kamailio),
}

impl Forwarder {
    fn start(kind: Kind) -> Self {
        if kind == Kind::Kamailio {
            return Self::Kamailio(Kamailio::start());
        }
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg(kind.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the forwarder starts");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut ready).expect("the forwarder says when it is ready");
        Self::Own(child)
    }

    fn cpu_ns(&self) -> u64 {
        match self {
            Self::Own(child) => cpu_ns(child.id()),
            Self::Kamailio(kamailio) => kamailio.processes().into_iter().map(cpu_ns).sum(),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Self::Own(child) = self {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Microseconds of CPU that a forwarder uses per message.
fn measure(kind: Kind, messages: usize, burst: usize) -> f64 {
    let forwarder = Forwarder::start(kind);
    let peers = Peers::new();
    let attempts = (0..50).find(|_| peers.is_forwarded());
    attempts.expect("the forwarder forwards within five seconds");
    peers.settle();
    peers.exchange(640, burst);
    let before = forwarder.cpu_ns();
    peers.exchange(messages / 2, burst);
    let after = forwarder.cpu_ns();
    (after - before) as f64 / 1_000.0 / (messages / 2 / burst * burst * 2) as f64
}

/// CPU time of all threads of a process.
fn cpu_ns(process: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let of_task = |task: fs::DirEntry| -> u64 {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    tasks.flatten().map(of_task).sum()
}

/// One socket, one thread: what comes from the proxy goes to the client, the rest to the proxy.
fn run_bare() {
    let options = udp::UdpOptions::default();
    let socket = udp::UdpSocket::bind(at(FORWARDER), options).expect("a free address");
    let poller = Poller::new().expect("a poller");
    poller.add(&socket, 0).expect("a socket");
    let waker = poller.waker();
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&is_over);
    let forwarding = std::thread::spawn(move || {
        let mut receiver = udp::Receiver::new(BATCH_MAX, DATAGRAM_BYTES_MAX);
        let mut sender = udp::Sender::new();
        let mut events = Events::default();
        let (client, proxy) = (at(CLIENT), at(PROXY));
        while !flag.load(std::sync::atomic::Ordering::Acquire) {
            poller.wait(None, &mut events).expect("it waits");
            while socket.receive(&mut receiver).expect("it reads") > 0 {
                for datagram in receiver.datagrams() {
                    let to = if datagram.source == proxy { client } else { proxy };
                    sender.push(to, |out| out.extend_from_slice(datagram.bytes));
                }
                socket.send(&mut sender);
                if receiver.is_drained() {
                    break;
                }
            }
        }
    });
    wait_for_the_end();
    is_over.store(true, std::sync::atomic::Ordering::Release);
    waker.wake();
    forwarding.join().expect("it ends in order");
}

fn run_balancer() {
    let config = Config {
        instance: InstanceId::balancer(1),
        incarnation: Incarnation(1),
        internal: at(FORWARDER),
        advertised: at(FORWARDER),
        extra: Vec::new(),
        threads: 1,
        keys: FleetKeys { keys: vec![FleetKey { id: 1, secret: [7; 32] }], signing: 1 },
        service_names: Vec::new(),
        internal_mtu_bytes: 1_400,
        receive_buffer_bytes: 8 << 20,
        stream_limits: StreamLimits::default(),
        timing: Timing::default(),
        kept_bytes_max: 1 << 20,
        drain_streams_per_s: 20,
        probing: Probing::default(),
    };
    let balancer = load_balancer::start(config).expect("a balancer");
    let member = Member {
        instance: InstanceId::proxy(1),
        worker: 0,
        incarnation: Incarnation(1),
        address: at(PROXY),
        weight: WEIGHT_NORMAL,
    };
    let members = Members { proxies: vec![member], ..Members::default() };
    let generation = GenerationNumber { fence: 1, counter: 1 };
    let membership = Membership::new(generation, fleet::ROWS_DEFAULT, members);
    balancer.put_membership(membership).expect("a first generation");
    wait_for_the_end();
    // Says where a message went if the peers miss one.
    for line in balancer.node().metrics().lines() {
        if line.contains("drop") && !line.starts_with('#') && !line.ends_with(" 0") {
            eprintln!("{line}");
        }
    }
    balancer.stop();
}

/// Says that it is ready, then waits until the parent closes the pipe.
fn wait_for_the_end() {
    println!("ready");
    std::io::stdout().flush().expect("the parent listens");
    let mut rest = String::new();
    while std::io::stdin().read_line(&mut rest).is_ok_and(|length| length > 0) {}
}
