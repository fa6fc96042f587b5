//! Calls and registrations over TCP: what a lost connection means, and how it is mended.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use load_client::{Plan, Registration, Transport, Uas, UasOptions};
use sip_message::{Framing, Index, Reply, StatusCode, parse, write_reply};

use crate::{FAST, REALM, address, challenging, plan, run, unchallenged, users};

const TCP: Option<Transport> = Some(Transport::Tcp);

/// A peer that takes one message from each connection, answers it if it may, and ends the
/// connection; after `connections` it is gone.
struct Fickle {
    address: SocketAddr,
    thread: JoinHandle<()>,
}

impl Fickle {
    fn start(local: &str, connections: usize, status: Option<StatusCode>) -> Self {
        let listener = TcpListener::bind(local).expect("an address of our own");
        let address = listener.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().expect("a caller");
                let request = read_until(&mut stream, "\r\n\r\n");
                if let Some(status) = status {
                    stream.write_all(&answer(&request, status, &[])).expect("written");
                }
            }
        });
        Self { address, thread }
    }
}

/// What comes until `last` is in it, or the peer has ended the connection.
fn read_until(stream: &mut TcpStream, last: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    while !bytes.windows(last.len()).any(|part| part == last.as_bytes()) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
    bytes
}

fn answer(request: &[u8], status: StatusCode, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut index = Index::new();
    let request = parse(request, &mut index, Framing::Datagram).expect("SIP");
    let mut out = Vec::new();
    let reply = Reply { status, reason: None, to_tag: Some(b"peer"), fields, body: b"" };
    write_reply(&request, &reply, &mut out);
    out
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

/// Goal: the one address that a dialog names has ended its connection before the BYE; it is there
/// again, and is asked again.
#[test]
fn a_bye_that_a_connection_did_not_carry_is_asked_again() {
    let listener = TcpListener::bind("127.85.4.1:0").expect("an address of our own");
    let address = listener.local_addr().expect("bound");
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the caller");
        let invite = read_until(&mut stream, "PCMU/8000\r\n");
        let contact = format!("<sip:bob@{address};transport=tcp>");
        let fields: &[(&str, &[u8])] = &[("Contact", contact.as_bytes())];
        stream.write_all(&answer(&invite, StatusCode::OK, fields)).expect("written");
        // The ACK, and perhaps a BYE that nobody reads.
        read_until(&mut stream, "\r\n\r\n");
        drop(stream);
        let (mut stream, _) = listener.accept().expect("the caller");
        loop {
            let bye = read_until(&mut stream, "\r\n\r\n");
            if bye.is_empty() || stream.write_all(&answer(&bye, StatusCode::OK, &[])).is_err() {
                return;
            }
        }
    });
    let plan = Plan { transport: TCP, ..plan("127.85.4.2:0", &[address], "1@1s") };
    let report = run(&unchallenged(plan));
    assert_eq!((report.succeeded, report.failed), (1, 0), "{report}");
    peer.join().expect("the peer");
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
