//! Batches over real loopback sockets, each test on addresses of its own.

use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::poll::{Events, Poller};

fn bind(ip: [u8; 4]) -> UdpSocket {
    UdpSocket::bind((ip, 0).into(), UdpOptions::default()).expect("a loopback address")
}

/// Receives until `count` datagrams came; a deadline of the poller fails the test, no sleep.
fn receive_all(socket: &UdpSocket, receiver: &mut Receiver, count: usize) -> Vec<Vec<u8>> {
    let poller = Poller::new().expect("a poller");
    poller.add(socket, 7).expect("watched");
    let mut events = Events::default();
    let mut received = Vec::new();
    while received.len() < count {
        poller.wait(Some(Duration::from_secs(5)), &mut events).expect("a wait");
        assert_eq!(events.tokens().collect::<Vec<_>>(), [7], "{} came", received.len());
        let found = socket.receive(receiver).expect("received");
        received.extend((0..found).map(|index| receiver.datagram(index).bytes.to_vec()));
    }
    received
}

/// Goal: order within a flow survives batching on both sides. Method: 100 numbered datagrams, some
/// from the arena and some shared, in one `send` of more than one system call.
#[test]
fn batches_keep_their_order() {
    let (from, to) = (bind([127, 41, 1, 1]), bind([127, 41, 1, 2]));
    let mut sender = Sender::new();
    for number in 0..100_u8 {
        match number % 2 {
            0 => sender.push(to.local_addr(), |out| out.extend_from_slice(&[number; 600])),
            _ => sender.push_bytes(to.local_addr(), Bytes::copy_from_slice(&[number; 60])),
        }
    }
    assert!(sender.is_full());
    assert_eq!(from.send(&mut sender), SendReport { sent: 100, failed: &[] });
    assert!(sender.is_empty());

    let mut receiver = Receiver::new(32, 1_500);
    let received = receive_all(&to, &mut receiver, 100);
    for (number, bytes) in received.iter().enumerate() {
        assert!(bytes.iter().all(|&byte| usize::from(byte) == number), "datagram {number}");
        assert_eq!(bytes.len(), if number % 2 == 0 { 600 } else { 60 });
    }
    assert_eq!(receiver.counters().datagrams_total, 100);
    assert!(receiver.counters().batches_total < 30, "in batches: {:?}", receiver.counters());
    assert_eq!(receiver.datagrams().next().map(|it| it.source), Some(from.local_addr()));
}

/// Goal: one bad destination costs only its own datagram. Method: broadcast (forbidden without
/// its option), port 0 (invalid) and a payload beyond UDP, first, in the middle and last.
#[test]
fn failing_destination_does_not_stall_its_batch() {
    let (from, to) = (bind([127, 41, 2, 1]), bind([127, 41, 2, 2]));
    let good = to.local_addr();
    let forbidden = SocketAddr::from(([255, 255, 255, 255], 5060));
    let invalid = SocketAddr::from(([127, 41, 2, 2], 0));
    let mut sender = Sender::new();
    for (address, length) in
        [(forbidden, 1), (good, 2), (invalid, 3), (good, 70_000), (good, 5), (invalid, 6)]
    {
        sender.push(address, |out| out.resize(out.len() + length, b'x'));
    }
    let report = from.send(&mut sender);
    assert_eq!(report.sent, 2);
    let failed: Vec<_> = report.failed.iter().map(|failure| (failure.index, failure.to)).collect();
    assert_eq!(failed, [(0, forbidden), (2, invalid), (3, good), (5, invalid)]);
    assert_eq!(report.failed.first().map(|it| it.kind), Some(io::ErrorKind::PermissionDenied));
    assert_eq!(sender.counters().failed_total, 4);

    let mut receiver = Receiver::new(32, 1_500);
    let lengths: Vec<_> = receive_all(&to, &mut receiver, 2).iter().map(Vec::len).collect();
    assert_eq!(lengths, [2, 5]);
}

#[test]
fn oversized_datagrams_are_counted_and_not_handed_out() {
    let (from, to) = (bind([127, 41, 3, 1]), bind([127, 41, 3, 2]));
    let mut sender = Sender::new();
    for length in [1_000, 1_001, 3_000, 0, 999] {
        sender.push(to.local_addr(), |out| out.resize(out.len() + length, b'x'));
    }
    from.send(&mut sender);
    let mut receiver = Receiver::new(8, 1_000);
    let lengths: Vec<_> = receive_all(&to, &mut receiver, 3).iter().map(Vec::len).collect();
    assert_eq!(lengths, [1_000, 0, 999]);
    assert_eq!(receiver.counters().oversized_total, 2);
}

/// Goal: what the kernel drops is known. Method: fill a small buffer without reading, read all,
/// send one more: it carries the count.
#[test]
fn kernel_drops_are_reported_with_the_next_datagram() {
    let from = bind([127, 41, 4, 1]);
    let small = UdpOptions { receive_buffer_bytes: 4_096, ..UdpOptions::default() };
    let to = UdpSocket::bind(([127, 41, 4, 2], 0).into(), small).expect("a loopback address");
    let mut sender = Sender::new();
    for _ in 0..64 {
        sender.push(to.local_addr(), |out| out.resize(out.len() + 600, b'x'));
    }
    assert_eq!(from.send(&mut sender).sent, 64, "the sender does not see the loss");

    let mut receiver = Receiver::new(32, 1_500);
    let mut taken = 0;
    loop {
        let found = to.receive(&mut receiver).expect("received");
        if found == 0 {
            break;
        }
        taken += found as u64;
    }
    assert!((1..64).contains(&taken), "{taken} fitted");
    sender.push(to.local_addr(), |out| out.push(b'x'));
    from.send(&mut sender);
    receive_all(&to, &mut receiver, 1);
    assert_eq!(receiver.kernel_drops(), 64 - taken);
}

#[test]
fn nothing_queued_is_no_error() {
    let socket = bind([127, 41, 5, 1]);
    let mut receiver = Receiver::new(32, 1_500);
    assert_eq!(socket.receive(&mut receiver).expect("no error"), 0);
    assert!(receiver.is_drained());
    assert_eq!(socket.send(&mut Sender::new()), SendReport { sent: 0, failed: &[] });
}

#[test]
fn an_address_is_shared_only_by_those_that_say_so() {
    let shared = UdpOptions { reuse_port: true, ..UdpOptions::default() };
    let first = UdpSocket::bind(([127, 41, 6, 1], 0).into(), shared).expect("the first");
    UdpSocket::bind(first.local_addr(), shared).expect("a second on the same address");
    let refused = UdpSocket::bind(first.local_addr(), UdpOptions::default());
    assert_eq!(refused.map(|_| ()).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
}

/// Waits for an error, takes all errors of the socket, and returns whom they name.
fn take_refusals(socket: &UdpSocket, errors: &mut PeerErrors) -> Vec<SocketAddr> {
    let poller = Poller::new().expect("a poller");
    poller.add(socket, 7).expect("watched");
    let mut events = Events::default();
    let mut refused = Vec::new();
    let mut wait = Duration::from_secs(5);
    loop {
        poller.wait(Some(wait), &mut events).expect("a wait");
        if events.failing().count() == 0 {
            return refused;
        }
        socket.take_errors(errors);
        assert!(errors.iter().all(|error| error.kind == io::ErrorKind::ConnectionRefused));
        refused.extend(errors.iter().map(|error| error.to));
        wait = Duration::ZERO;
    }
}

/// An address of which nobody listens: bound, and given back.
fn deserted(ip: IpAddr) -> SocketAddr {
    UdpSocket::bind((ip, 0).into(), UdpOptions::default()).expect("an address").local_addr()
}

/// Goal: a dead peer costs no other peer's datagram, in neither direction, and is named. Method:
/// batches to a dead and a living peer in turn, answers of the living one already queued; all that
/// the living one was sent arrives, and all its answers are received.
#[test]
fn a_refusal_names_the_dead_peer_and_loses_no_other_datagram() {
    for ip in [IpAddr::from([127, 41, 7, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)] {
        let reporting = UdpOptions { report_errors: true, ..UdpOptions::default() };
        let Ok(from) = UdpSocket::bind((ip, 0).into(), reporting) else {
            assert!(ip.is_ipv6(), "a loopback address");
            println!("skipped: no IPv6 on this machine");
            continue;
        };
        let alive = UdpSocket::bind((ip, 0).into(), UdpOptions::default()).expect("an address");
        let dead = deserted(ip);
        let mut sender = Sender::new();
        let mut answers = Sender::new();
        for round in 0..20_u8 {
            for number in 0..10 {
                let to = if number % 2 == 0 { dead } else { alive.local_addr() };
                sender.push(to, |out| out.push(round));
            }
            assert_eq!(from.send(&mut sender), SendReport { sent: 10, failed: &[] }, "{round}");
            answers.push(from.local_addr(), |out| out.push(round));
            assert_eq!(alive.send(&mut answers).sent, 1);
        }
        let mut receiver = Receiver::new(32, 1_500);
        assert_eq!(receive_all(&alive, &mut receiver, 100).len(), 100);
        assert_eq!(receive_all(&from, &mut receiver, 20).len(), 20, "answers behind errors");

        let mut errors = PeerErrors::default();
        let refused = take_refusals(&from, &mut errors);
        assert!(!refused.is_empty() && refused.iter().all(|to| *to == dead), "{refused:?}");
        assert_eq!(errors.counters().reported_total, refused.len() as u64);
        assert_eq!(from.receive(&mut receiver).expect("no error left"), 0);
    }
}

/// Goal: errors are taken in bounded portions, and a datagram of this machine's own fault is no
/// peer's. Method: more refusals than one call takes, then a payload beyond UDP.
#[test]
fn errors_are_taken_in_portions_and_only_the_networks() {
    let reporting = UdpOptions { report_errors: true, ..UdpOptions::default() };
    let from = UdpSocket::bind(([127, 41, 8, 1], 0).into(), reporting).expect("an address");
    let dead = deserted([127, 41, 8, 2].into());
    let mut sender = Sender::new();
    for _ in 0..100 {
        sender.push(dead, |out| out.push(b'x'));
    }
    from.send(&mut sender);
    let mut errors = PeerErrors::default();
    from.take_errors(&mut errors);
    assert_eq!(errors.iter().count(), ERRORS_TAKEN_MAX);
    assert!(!take_refusals(&from, &mut errors).is_empty(), "the rest");

    sender.push(dead, |out| out.resize(out.len() + 70_000, b'x'));
    let failed = from.send(&mut sender).failed.first().copied();
    assert_eq!(failed.map(|it| it.to), Some(dead), "its own error, however often it is asked");
    from.take_errors(&mut errors);
    assert_eq!(errors.iter().count(), 0, "{errors:?}");
}
