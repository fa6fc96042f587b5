//! RFC 3263 against a name server of the test's own.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use sip_message::Transport;
use sip_net::poll::{Events, Poller};
use sip_net::resolve::{Families, ResolveError, ResolveRequest, Resolver, ResolverOptions, Target};

use crate::name_server::{NameServer, a, aaaa, naptr, srv};

/// A resolver with the poller that waits for it.
struct Client {
    resolver: Resolver,
    poller: Poller,
    tickets: u64,
}

impl Client {
    fn asking(server: SocketAddr) -> Self {
        Self::with(ResolverOptions { name_servers: vec![server], ..ResolverOptions::default() })
    }

    fn with(options: ResolverOptions) -> Self {
        let poller = Poller::new().expect("a poller");
        let resolver = Resolver::start(options, poller.waker()).expect("a resolver");
        Self { resolver, poller, tickets: 0 }
    }

    fn resolve(&mut self, request: ResolveRequest) -> Result<Vec<Target>, ResolveError> {
        self.tickets += 1;
        self.resolver.submit(self.tickets, request, 0)?;
        let mut events = Events::default();
        loop {
            if let Some(resolution) = self.resolver.poll_completion() {
                assert_eq!(resolution.ticket, self.tickets);
                return resolution.result;
            }
            self.poller.wait(Some(Duration::from_secs(10)), &mut events).expect("a wait");
            assert!(events.is_woken(), "no answer came in time");
        }
    }

    /// As `transport address`, one each, joined by commas.
    fn text(&mut self, request: ResolveRequest) -> Result<String, ResolveError> {
        let targets = self.resolve(request)?;
        let texts = targets.iter().map(|it| format!("{} {}", it.transport.as_str(), it.address));
        Ok(texts.collect::<Vec<_>>().join(", "))
    }
}

fn named(host: &str) -> ResolveRequest {
    ResolveRequest { host: host.to_owned(), port: None, transport: None, secure: false }
}

/// The steps of RFC 3263 §4.1 and §4.2, with what each asks.
#[test]
fn procedure_of_rfc_3263_is_followed() {
    let server = NameServer::start(
        "127.46.1.1",
        vec![
            naptr("pointed.test.", 50, "SIPS+D2T", "_sips._tcp.pointed.test."),
            naptr("pointed.test.", 90, "SIP+D2T", "elsewhere.test."),
            srv("elsewhere.test.", 1, 0, 5070, "one.test."),
            srv("_sip._udp.both.test.", 2, 0, 5060, "two.test."),
            srv("_sip._udp.both.test.", 1, 0, 5080, "one.test."),
            srv("_sip._tcp.both.test.", 1, 0, 5090, "two.test."),
            srv("_sip._tcp.tcp.test.", 1, 0, 5060, "one.test."),
            srv("_sip._udp.closed.test.", 0, 0, 0, "."),
            srv("_sip._udp.partly.test.", 1, 0, 5060, "gone.test."),
            srv("_sip._udp.partly.test.", 2, 0, 5060, "one.test."),
            srv("_sip._udp.broken.test.", 1, 0, 5060, "gone.test."),
            a("one.test.", "127.46.9.1"),
            a("two.test.", "127.46.9.2"),
            a("two.test.", "127.46.9.3"),
            aaaa("two.test.", "2001:db8::2"),
        ],
    );
    let mut client = Client::asking(server.address);
    let tcp = Some(Transport::Tcp);
    let table = [
        ("naptr leads to what we have", named("pointed.test"), Ok("TCP 127.46.9.1:5070")),
        (
            "without naptr srv of the preferred transport, by priority",
            named("both.test"),
            Ok("UDP 127.46.9.1:5080, UDP 127.46.9.2:5060, UDP 127.46.9.3:5060"),
        ),
        (
            "the parameter chooses the transport",
            ResolveRequest { transport: tcp, ..named("both.test") },
            Ok("TCP 127.46.9.2:5090, TCP 127.46.9.3:5090"),
        ),
        ("the next transport with srv", named("tcp.test"), Ok("TCP 127.46.9.1:5060")),
        ("no srv: address and default port", named("one.test."), Ok("UDP 127.46.9.1:5060")),
        (
            "no srv for this transport",
            ResolveRequest { transport: tcp, ..named("one.test") },
            Ok("TCP 127.46.9.1:5060"),
        ),
        (
            "an explicit port asks for no srv",
            ResolveRequest { port: Some(5099), ..named("one.test") },
            Ok("UDP 127.46.9.1:5099"),
        ),
        ("the service is not offered", named("closed.test"), Err(ResolveError::NotOffered)),
        ("one of two records is dead", named("partly.test"), Ok("UDP 127.46.9.1:5060")),
        ("the only record is dead", named("broken.test"), Err(ResolveError::NotFound)),
        ("no such name", named("nowhere.test"), Err(ResolveError::NotFound)),
        (
            "sips without tls",
            ResolveRequest { secure: true, ..named("one.test") },
            Err(ResolveError::NoTransport),
        ),
        ("numeric", named("127.46.9.9"), Ok("UDP 127.46.9.9:5060")),
        ("not a name", named("a..b"), Err(ResolveError::BadName)),
    ];
    for (name, request, expected) in table {
        assert_eq!(client.text(request), expected.map(str::to_owned), "{name}");
    }
    let asked = server.asked();
    assert!(!asked.iter().any(|it| it.starts_with("AAAA")), "nobody asked for IPv6: {asked:?}");
}

#[test]
fn both_families_are_asked_for_when_both_are_wanted() {
    let records = vec![a("two.test.", "127.46.9.2"), aaaa("two.test.", "2001:db8::2")];
    let server = NameServer::start("127.46.2.1", records);
    let mut client = Client::with(ResolverOptions {
        name_servers: vec![server.address],
        families: Families::Both,
        ..ResolverOptions::default()
    });
    let found = client.text(ResolveRequest { port: Some(5060), ..named("two.test") });
    assert_eq!(found, Ok("UDP [2001:db8::2]:5060, UDP 127.46.9.2:5060".to_owned()));
}

/// Goal: an answer is kept for its TTL, and not longer than that. Method: the same name three
/// times, one of the records with a TTL of zero.
#[test]
fn answers_are_kept_for_their_ttl() {
    let mut short = a("short.test.", "127.46.9.1");
    short.ttl = 0;
    let server = NameServer::start("127.46.3.1", vec![a("long.test.", "127.46.9.1"), short]);
    let mut client = Client::asking(server.address);
    for _ in 0..3 {
        for host in ["long.test", "short.test"] {
            let request = ResolveRequest { port: Some(5060), ..named(host) };
            assert_eq!(client.text(request), Ok("UDP 127.46.9.1:5060".to_owned()));
        }
    }
    let count = |text: &str| server.asked().iter().filter(|it| *it == text).count();
    assert_eq!((count("A long.test."), count("A short.test.")), (1, 3));
    client.resolver.clear_cache();
    client.resolve(ResolveRequest { port: Some(5060), ..named("long.test") }).expect("found");
    assert_eq!(count("A long.test."), 2, "asked again after clearing");
}

/// Goal: a dead name server costs time, but a bounded one, and never the owner's. Method: a socket
/// that does not answer, a short deadline, room for two requests.
#[test]
fn silent_name_server_makes_names_unavailable_in_time() {
    let silent = UdpSocket::bind("127.46.4.1:0").expect("a loopback address");
    let mut client = Client::with(ResolverOptions {
        name_servers: vec![silent.local_addr().expect("an address")],
        query_timeout: Duration::from_millis(50),
        deadline: Duration::from_millis(100),
        in_flight_max: 2,
        ..ResolverOptions::default()
    });
    assert_eq!(client.resolve(named("one.test")), Err(ResolveError::Unavailable));
    client.resolver.submit(10, named("one.test"), 0).expect("room for one");
    client.resolver.submit(11, named("two.test"), 0).expect("room for two");
    let third = client.resolver.submit(12, named("three.test"), 0);
    assert_eq!(third, Err(ResolveError::Overloaded));
}

#[test]
fn numeric_hosts_work_without_any_name_server() {
    let mut client = Client::with(ResolverOptions::default());
    let found =
        client.text(ResolveRequest { transport: Some(Transport::Tcp), ..named("127.1.2.3") });
    assert_eq!(found, Ok("TCP 127.1.2.3:5060".to_owned()));
    assert_eq!(
        client.resolve(ResolveRequest { transport: Some(Transport::Ws), ..named("127.1.2.3") }),
        Err(ResolveError::NoTransport)
    );
}
