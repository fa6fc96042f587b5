//! Calls and registrations over TCP: what a lost connection means, and how it is mended.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use load_client::{Plan, Registration, Transport, Uas, UasOptions};
use sip_message::{Framing, Index, Reply, StatusCode, parse, write_reply};

use crate::{FAST, REALM, address, challenging, plan, run, users};

const TCP: Option<Transport> = Some(Transport::Tcp);

/// A peer that takes one message from each connection, answers it if it may, and ends the
/// connection; after `connections` it is gone.
struct Fickle {
    address: SocketAddr,
    thread: JoinHandle<()>,
}

impl Fickle {
    fn start(local: &str, connections: usize, answer: Option<StatusCode>) -> Self {
        let listener = TcpListener::bind(local).expect("an address of our own");
        let address = listener.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().expect("a caller");
                let mut bytes = Vec::new();
                let mut buffer = [0; 4_096];
                while !bytes.windows(4).any(|it| it == b"\r\n\r\n") {
                    let read = stream.read(&mut buffer).expect("a message");
                    bytes.extend_from_slice(&buffer[..read]);
                }
                let Some(status) = answer else {
                    continue;
                };
                let mut index = Index::new();
                let request = parse(&bytes, &mut index, Framing::Datagram).expect("SIP");
                let mut out = Vec::new();
                let reply = Reply { status, reason: None, to_tag: None, fields: &[], body: b"" };
                write_reply(&request, &reply, &mut out);
                stream.write_all(&out).expect("written");
            }
        });
        Self { address, thread }
    }
}

#[test]
fn calls_over_tcp_follow_the_same_flow() {
    let uas = Uas::start(UasOptions { transport: TCP, ..challenging("127.85.1.1:0") });
    let uas = uas.expect("a callee");
    let mix = "talk=60,talk/50ms=40".parse().expect("a mix");
    let plan = Plan { transport: TCP, mix, ..plan("127.85.1.2:0", uas.addresses(), "100@500ms") };
    let report = run(&plan);
    assert_eq!((report.succeeded, report.failed, report.healed), (50, 0, 0), "{report}");
    let connections = report.connections;
    assert_eq!((connections.opened, connections.lost), (1, 0), "all calls share one");
    assert_eq!(uas.stop().ended, 50);
}

/// Goal: requests that were under way on a connection which ends go to the next target at once, not
/// after 64·T1 (here 32 s), and so do those whose connection is refused.
#[test]
fn a_lost_and_a_refused_connection_are_reasons_to_try_the_next_target() {
    let fickle = Fickle::start("127.85.2.3:0", 1, None);
    let uas = Uas::start(UasOptions { transport: TCP, ..challenging("127.85.2.1:0") });
    let uas = uas.expect("a callee");
    let plan = Plan {
        transport: TCP,
        timing: load_client::Timing::RFC_3261,
        ..plan("127.85.2.2:0", &[fickle.address, uas.addresses()[0]], "50@200ms")
    };
    for (round, lost) in [("the connection ends", 1), ("it is refused", 0)] {
        let report = run(&plan);
        assert_eq!((report.succeeded, report.failed), (10, 0), "{round}: {report}");
        assert!(report.failed_over >= 1 && report.healed >= 1, "{round}: {report}");
        assert!(report.answer.max() < Duration::from_secs(30), "{round}: {report}");
        assert_eq!(report.connections.lost, lost, "{round}");
    }
    fickle.thread.join().expect("the peer");
}

/// Goal: a registered user whose connection ends registers again over a new one.
#[test]
fn a_user_registers_again_when_its_connection_has_ended() {
    let registrar = Fickle::start("127.85.3.1:0", 3, Some(StatusCode::OK));
    let uas = Uas::start(UasOptions {
        users: users(1),
        transport: TCP,
        registration: Some(Registration::at(vec![registrar.address])),
        timing: FAST,
        ..UasOptions::direct(vec![address("127.85.3.2:0")], REALM)
    })
    .expect("a callee");
    // It ends when it has seen three REGISTERs.
    registrar.thread.join().expect("the registrar");
    assert!(uas.wait_failed_over(2, Duration::from_secs(10)), "{:?}", uas.counters());
    let counters = uas.stop();
    assert!(counters.connections.reopened >= 2, "{counters:?}");
    assert_eq!(counters.connections.opened, 3, "{counters:?}");
}
