//! A balancer, and peers to talk to it. Every test has a network of its own, 127.NET.x.y.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fleet::{
    FleetKey, FleetKeys, GenerationNumber, Incarnation, InstanceId, Member, Members, Membership,
    WEIGHT_NORMAL,
};
use load_balancer::{Config, Probing, Running, Timing};
use sip_core::branch::{MethodClass, ProxyBranch, ProxyVia, proxy_branch, write_proxy_via};
use sip_core::mac::KeyRing;
use sip_message::{Framing, Index, Message, Reply, StatusCode, Transport, parse, write_reply};
use sip_net::clock;
use sip_net::stream::StreamLimits;

/// Far more than anything here takes; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// The same for those who get the balancer's probes, fifty a second.
const PROBES_MAX: usize = 500;

pub(crate) fn keys() -> FleetKeys {
    FleetKeys { keys: vec![FleetKey { id: 1, secret: [7; 32] }], signing: 1 }
}

pub(crate) struct Bed {
    pub(crate) network: String,
    pub(crate) balancer: Running,
    counter: u64,
}

impl Bed {
    /// A balancer at 127.`network`.10.1 with an extra listener on port 5070.
    pub(crate) fn new(network: u8) -> Self {
        Self::with(network, |_| ())
    }

    /// The same, configured otherwise.
    pub(crate) fn with(network: u8, change: impl FnOnce(&mut Config)) -> Self {
        let network = format!("127.{network}");
        let at = |text: &str| format!("{network}.{text}").parse().expect("an address");
        let mut config = Config {
            instance: InstanceId::balancer(1),
            incarnation: Incarnation(100),
            internal: at("10.1:5060"),
            advertised: at("10.1:5060"),
            extra: vec![at("10.1:5070")],
            threads: 2,
            keys: keys(),
            service_names: vec!["sip.example.test".to_owned()],
            internal_mtu_bytes: 1_400,
            receive_buffer_bytes: 1 << 20,
            stream_limits: StreamLimits::default(),
            timing: Timing::default(),
            kept_bytes_max: 1 << 20,
            drain_streams_per_s: 20,
            probing: Probing { interval: Duration::from_millis(20), ..Probing::default() },
        };
        change(&mut config);
        let balancer = load_balancer::start(config).expect("a balancer starts");
        Self { network, balancer, counter: 0 }
    }

    pub(crate) fn at(&self, text: &str) -> SocketAddr {
        format!("{}.{text}", self.network).parse().expect("an address")
    }

    pub(crate) fn generation(&self, counter: u64, slots: &[u16]) -> Membership {
        let member = |&slot: &u16| Member {
            instance: InstanceId::proxy(slot),
            worker: 0,
            incarnation: Incarnation(200),
            address: self.at(&format!("20.{slot}:5060")),
            weight: WEIGHT_NORMAL,
        };
        let proxies = slots.iter().map(member).collect();
        let members = Members { proxies, ..Members::default() };
        Membership::new(GenerationNumber { fence: 1, counter }, 1 << 10, members)
    }

    /// The next generation, with these proxies.
    pub(crate) fn put(&mut self, slots: &[u16]) {
        self.counter += 1;
        let membership = self.generation(self.counter, slots);
        self.balancer.put_membership(membership).expect("a newer generation");
    }

    pub(crate) fn peer(&self, text: &str) -> Peer {
        let socket = UdpSocket::bind(self.at(text)).expect("a free address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Peer { socket, balancer: self.balancer.internal() }
    }

    pub(crate) fn listen_tcp(&self, text: &str) -> TcpListener {
        TcpListener::bind(self.at(text)).expect("a free address")
    }
}

/// Somebody with a UDP socket.
pub(crate) struct Peer {
    socket: UdpSocket,
    balancer: SocketAddr,
}

impl Peer {
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    pub(crate) fn send(&self, text: impl AsRef<[u8]>) {
        self.send_to(text, self.balancer);
    }

    pub(crate) fn send_to(&self, text: impl AsRef<[u8]>, to: SocketAddr) {
        self.socket.send_to(text.as_ref(), to).expect("loopback takes it");
    }

    /// The next message; probes are passed over.
    pub(crate) fn receive(&self) -> (String, SocketAddr) {
        let mut buffer = vec![0; 65_535];
        for _ in 0..PROBES_MAX {
            let (length, source) = self.socket.recv_from(&mut buffer).expect("a message in time");
            let text = String::from_utf8_lossy(&buffer[..length]);
            if !text.trim().is_empty() {
                return (text.into_owned(), source);
            }
        }
        panic!("nothing but probes");
    }

    /// Waits for the balancer's next empty line.
    pub(crate) fn wait_for_probe(&self) {
        let mut buffer = vec![0; 65_535];
        let (length, _) = self.socket.recv_from(&mut buffer).expect("a probe in time");
        assert_eq!(&buffer[..length], b"\r\n\r\n");
    }

    /// From now on probes are answered, as a proxy does.
    pub(crate) fn answering(self) -> AnsweringPeer {
        self.socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        let (answers, is_over) =
            (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let answered = Arc::new(AtomicU64::new(0));
        let (inbox_end, inbox) = channel();
        let shared = (Arc::clone(&answers), Arc::clone(&is_over), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            let (answers, is_over, answered) = shared;
            let mut buffer = vec![0; 65_535];
            while !is_over.load(Ordering::Relaxed) {
                let Ok((length, source)) = self.socket.recv_from(&mut buffer) else { continue };
                if &buffer[..length] != b"\r\n\r\n" {
                    // The test may not care any more.
                    inbox_end.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).ok();
                } else if answers.load(Ordering::Relaxed) {
                    self.send_to("\r\n", source);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        AnsweringPeer { answers, answered, inbox, is_over, thread: Some(thread) }
    }

    pub(crate) fn hears_nothing_before(&self, marker: &str) {
        let (text, _) = self.receive();
        assert!(text.contains(marker), "expected nothing before {marker:?}, but: {text}");
    }
}

/// A member whose loop turns, as far as the balancer can see. Dropped, it does not listen any more.
pub(crate) struct AnsweringPeer {
    pub(crate) answers: Arc<AtomicBool>,
    pub(crate) answered: Arc<AtomicU64>,
    /// Everything but probes.
    pub(crate) inbox: Receiver<String>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AnsweringPeer {
    pub(crate) fn receive(&self) -> String {
        self.inbox.recv_timeout(PATIENCE).expect("a message in time")
    }
}

impl Drop for AnsweringPeer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Waits until something is so.
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !is_so() {
        assert!(clock::now() < deadline, "{what} did not happen");
        std::thread::park_timeout(LOOK);
    }
}

/// Somebody with a TCP connection.
pub(crate) struct Stream {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Stream {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).expect("the balancer listens"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, pending: Vec::new() }
    }

    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).expect("the balancer reads");
    }

    /// What came, up to and including `end`.
    pub(crate) fn receive_until(&mut self, end: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.pending).into_owned();
            if let Some(at) = text.find(end) {
                let rest = self.pending.split_off(at + end.len());
                let taken = std::mem::replace(&mut self.pending, rest);
                return String::from_utf8(taken).expect("the tests write text");
            }
            let mut buffer = [0; 4_096];
            let length = self.stream.read(&mut buffer).expect("more in time");
            assert!(length > 0, "the stream ended after {text:?}");
            self.pending.extend_from_slice(&buffer[..length]);
        }
    }

    pub(crate) fn is_ended(&mut self) -> bool {
        let mut buffer = [0; 1];
        matches!(self.stream.read(&mut buffer), Ok(0))
    }
}

/// A request of a client; `lines` stand on top.
pub(crate) fn request(method: &str, call: &str, lines: &str) -> String {
    format!(
        "{method} sip:bob@example.test SIP/2.0\r\n{lines}From: <sip:alice@example.test>;tag=1\r\n\
         To: <sip:bob@example.test>\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
}

/// The answer of whoever got `request`.
pub(crate) fn answer(request: &str, status: StatusCode) -> Vec<u8> {
    let mut index = Index::new();
    let message = parse(request.as_bytes(), &mut index, Framing::Datagram).expect("a request");
    let mut out = Vec::new();
    let reply = Reply { status, reason: None, to_tag: Some(b"t"), fields: &[], body: b"" };
    write_reply(&message, &reply, &mut out);
    out
}

/// What a proxy at `sent_by` makes of `request` for a client that registered with `path`.
pub(crate) fn forwarded(request: &str, sent_by: SocketAddr, path: &str) -> String {
    let mut index = Index::new();
    let message: Message<'_> =
        parse(request.as_bytes(), &mut index, Framing::Datagram).expect("a request");
    let ring = KeyRing::new(&keys()).expect("good keys");
    let mut branch = Vec::new();
    let fields = ProxyBranch {
        call_id: message.call_id(),
        from_tag: message.from_tag().unwrap_or_default(),
        cseq: message.cseq().number,
        class: MethodClass::Invite,
        request_uri: message.request_uri_bytes(),
        target: b"the binding",
        attempt: 0,
    };
    proxy_branch(&ring, &fields, &mut branch);
    let via = ProxyVia {
        transport: Transport::Udp,
        sent_by,
        branch: &branch,
        instance: InstanceId::proxy(1),
        incarnation: Incarnation(200),
        several: false,
    };
    let mut line = Vec::new();
    write_proxy_via(&ring, &via, &mut line);
    let line = String::from_utf8(line).expect("text");
    request.replacen("\r\n", &format!("\r\n{line}Route: {path}\r\n"), 1)
}

/// The value of the first line of `text` with that name.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let start = format!("{name}: ");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default()
}
