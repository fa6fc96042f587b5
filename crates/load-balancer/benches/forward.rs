//! CPU per forwarded message: the balancer beside a bare recvmmsg/sendmmsg forwarder, in one run,
//! with the same messages.
//!
//! `cargo bench -p load-balancer --bench forward [-- MESSAGES]`. Each forwarder is a process of its
//! own with one thread and one socket; what it used is read from `/proc`, in nanoseconds of all its
//! threads. The load: bursts of 32 INVITEs of about 600 bytes from a client to a proxy, which
//! answers each with a 180 through the forwarder, so half of the messages are responses.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleet::{
    FleetKey, FleetKeys, GenerationNumber, Incarnation, InstanceId, Member, Members, Membership,
    WEIGHT_NORMAL,
};
use load_balancer::{Config, Probing, Timing};
use node_api::server::NodeHandle;
use sip_message::{Framing, Index, Reply, StatusCode, parse, write_reply};
use sip_net::limits::{BATCH_MAX, DATAGRAM_BYTES_MAX};
use sip_net::poll::{Events, Poller};
use sip_net::stream::StreamLimits;
use sip_net::udp;

const FORWARDER: &str = "127.61.10.1:5060";
const PROXY: &str = "127.61.20.1:5060";
const CLIENT: &str = "127.61.30.1:5060";
const BURST: usize = 32;
const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("bare") => run_bare(),
        Some("balancer") => run_balancer(),
        _ => {
            let messages = arguments.iter().find_map(|text| text.parse().ok()).unwrap_or(400_000);
            compare(messages);
        }
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Takes turns, so that whatever else this machine does falls on both alike.
fn compare(messages: usize) {
    let mut bare = Vec::new();
    let mut balancer = Vec::new();
    for round in 1..=ROUNDS {
        bare.push(measure("bare", messages / ROUNDS));
        balancer.push(measure("balancer", messages / ROUNDS));
        println!(
            "round {round}: bare {:.2} µs, balancer {:.2} µs of CPU per forwarded message",
            bare[round - 1],
            balancer[round - 1]
        );
    }
    let (bare, balancer) = (median(bare), median(balancer));
    println!(
        "median of {ROUNDS}: bare {bare:.2} µs, balancer {balancer:.2} µs, ratio {:.2}",
        balancer / bare
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Microseconds of CPU that a forwarder uses per message.
fn measure(kind: &str, messages: usize) -> f64 {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .arg(kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the forwarder starts");
    let mut ready = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut ready).expect("the forwarder says when it is ready");
    let peers = Peers::new();
    peers.exchange(20 * BURST);
    let before = cpu_ns(&child);
    peers.exchange(messages / 2);
    let after = cpu_ns(&child);
    drop(child.stdin.take());
    child.wait().expect("the forwarder ends");
    (after - before) as f64 / 1_000.0 / (messages / 2 / BURST * BURST * 2) as f64
}

/// CPU time of all threads of a process.
fn cpu_ns(child: &Child) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
    let of_task = |task: std::fs::DirEntry| -> u64 {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    tasks.flatten().map(of_task).sum()
}

/// The client and the proxy, in this process.
struct Peers {
    client: UdpSocket,
    proxy: UdpSocket,
}

impl Peers {
    fn new() -> Self {
        let bind = |address| {
            let socket = UdpSocket::bind(at(address)).expect("a free address");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            socket
        };
        Self { client: bind(CLIENT), proxy: bind(PROXY) }
    }

    /// Sends `requests` there and as many responses back, a burst at a time.
    fn exchange(&self, requests: usize) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut index = Index::new();
        let mut replies: Vec<Vec<u8>> = vec![Vec::new(); BURST];
        for burst in 0..requests / BURST {
            for number in 0..BURST {
                let invite = invite(burst * BURST + number);
                self.client.send_to(invite.as_bytes(), at(FORWARDER)).expect("loopback takes it");
            }
            for reply in &mut replies {
                let length = receive(&self.proxy, &mut buffer);
                let request = parse(&buffer[..length], &mut index, Framing::Datagram);
                let request = request.unwrap_or_else(|malformed| panic!("{}", malformed.error));
                let ringing = Reply {
                    status: StatusCode::RINGING,
                    reason: None,
                    to_tag: Some(b"314159"),
                    fields: &[("Contact", b"<sip:bob@192.0.2.4>")],
                    body: b"",
                };
                reply.clear();
                write_reply(&request, &ringing, reply);
            }
            for reply in &replies {
                self.proxy.send_to(reply, at(FORWARDER)).expect("loopback takes it");
            }
            for _ in 0..BURST {
                receive(&self.client, &mut buffer);
            }
        }
    }
}

/// The next message that is no probe.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> usize {
    loop {
        let received = socket.recv(buffer);
        let length = received.unwrap_or_else(|error| {
            panic!("a message to {:?} is lost: {error}", socket.local_addr());
        });
        if length > 4 {
            return length;
        }
    }
}

const BODY: &str = "v=0\r\no=alice 2890844526 2890844526 IN IP4 192.0.2.1\r\ns=-\r\n\
                    c=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 49172 RTP/AVP 0\r\n\
                    a=rtpmap:0 PCMU/8000\r\n";

fn invite(number: usize) -> String {
    format!(
        "INVITE sip:bob@example.test SIP/2.0\r\n\
         Via: SIP/2.0/UDP {CLIENT};branch=z9hG4bK{number:016x};rport\r\n\
         Max-Forwards: 70\r\n\
         From: \"Alice\" <sip:alice@example.test>;tag=1928301774\r\n\
         To: \"Bob\" <sip:bob@example.test>\r\n\
         Call-ID: {number:016x}@{CLIENT}\r\nCSeq: 314159 INVITE\r\n\
         Contact: <sip:alice@{CLIENT}>\r\nUser-Agent: bench\r\n\
         Allow: INVITE, ACK, CANCEL, OPTIONS, BYE\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
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
