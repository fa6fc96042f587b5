//! The forwarders, each a process: this program again, or Kamailio.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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
use crate::peers::now;
use crate::{CLIENT, FORWARDER, PROXY, at, usage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bare,
    Balancer,
    Kamailio,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Balancer => "balancer",
            Self::Kamailio => "kamailio",
        }
    }
}

/// Where a forwarder runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Anywhere,
    /// On this core alone.
    Core(usize),
}

impl Place {
    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Self::Anywhere => Command::new(program),
            Self::Core(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string(), program]);
                command
            }
        }
    }
}

/// A forwarder under measurement; it ends when this is dropped.
pub(crate) enum Forwarder {
    Own(Child),
    Kamailio(Kamailio),
}

impl Forwarder {
    pub(crate) fn start(kind: Kind, threads: usize, place: Place) -> Self {
        if kind == Kind::Kamailio {
            return Self::Kamailio(Kamailio::start(threads, place));
        }
        let own = std::env::current_exe().expect("this program");
        let mut child = place
            .command(own.to_str().expect("a path in text"))
            .args([kind.name(), "--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the forwarder starts");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut ready).expect("the forwarder says when it is ready");
        assert_eq!(ready, "ready\n", "the forwarder does not start");
        Self::Own(child)
    }

    pub(crate) fn cpu_ns(&self) -> u64 {
        usage::cpu_ns(&self.processes())
    }

    pub(crate) fn memory_kib(&self) -> u64 {
        usage::memory_kib(&self.processes())
    }

    fn processes(&self) -> Vec<u32> {
        match self {
            Self::Own(child) => vec![child.id()],
            Self::Kamailio(kamailio) => usage::tree(kamailio.id()),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Self::Own(child) = self {
            drop(child.stdin.take());
            if !ends_in_time(child) {
                eprintln!("a forwarder was told to end and has not after {END_PATIENCE:?}: killed");
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Far more than a forwarder needs to end.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(10);

/// Whether a process that was told to end does so. One that does not is killed by its owner, who says
/// so: the figures of the rounds so far are good, a bench that stands still is not.
pub(crate) fn ends_in_time(child: &mut Child) -> bool {
    let told = now();
    while matches!(child.try_wait(), Ok(None)) {
        if told.elapsed() >= END_PATIENCE {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}

/// One socket, one thread: what comes from the proxy goes to the client, the rest to the proxy.
pub(crate) fn run_bare() {
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

pub(crate) fn run_balancer(threads: usize) {
    let config = Config {
        instance: InstanceId::balancer(1),
        incarnation: Incarnation(1),
        internal: at(FORWARDER),
        advertised: at(FORWARDER),
        extra: Vec::new(),
        threads,
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
