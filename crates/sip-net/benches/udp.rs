//! What a forwarded datagram costs by batch size: receive, copy into the sender, send.
//!
//! `cargo bench -p sip-net`. One thread; only the forwarding is timed, not the filling of the queue
//! nor the emptying at the other end (on loopback the kernel's receiving side runs inside the send,
//! so the figures are an upper bound). Trust ratios between rows, not single nanoseconds.

use std::io::Write;
use std::time::Duration;

use sip_net::clock;
use sip_net::udp::{Receiver, Sender, UdpOptions, UdpSocket};

const DATAGRAM_BYTES: usize = 600;
/// Few enough for a socket buffer without root: the kernel counts some 1.3 KiB for each.
const DATAGRAMS_PER_ROUND: usize = 128;
const ROUNDS: usize = 400;

fn main() {
    let bind = |last| {
        let address = ([127, 47, 1, last], 0).into();
        UdpSocket::bind(address, UdpOptions::default()).expect("a loopback address")
    };
    let (source, forwarder, sink) = (bind(1), bind(2), bind(3));
    let mut out = std::io::stdout().lock();
    writeln!(out, "forwarding {DATAGRAM_BYTES}-byte datagrams on loopback, one thread")
        .expect("stdout");
    writeln!(out, "{:>6} {:>14} {:>14}", "batch", "least ns each", "median ns each")
        .expect("stdout");
    for batch in [1, 8, 32] {
        let mut rounds: Vec<_> =
            (0..ROUNDS).map(|_| round(&source, &forwarder, &sink, batch)).collect();
        rounds.sort_unstable();
        let each = |round: Option<&Duration>| {
            round.map_or(0, |round| round.as_nanos() / DATAGRAMS_PER_ROUND as u128)
        };
        let (least, median) = (each(rounds.first()), each(rounds.get(ROUNDS / 2)));
        writeln!(out, "{batch:>6} {least:>14} {median:>14}").expect("stdout");
    }
}

/// Fills the forwarder's queue, times its emptying towards the sink, and empties the sink.
fn round(source: &UdpSocket, forwarder: &UdpSocket, sink: &UdpSocket, batch: usize) -> Duration {
    let mut sender = Sender::new();
    for _ in 0..DATAGRAMS_PER_ROUND {
        sender.push(forwarder.local_addr(), |out| out.resize(out.len() + DATAGRAM_BYTES, b'x'));
    }
    assert_eq!(source.send(&mut sender).sent, DATAGRAMS_PER_ROUND);

    let mut receiver = Receiver::new(batch, 2_048);
    let mut forwarded = 0;
    let started = clock::now();
    while forwarded < DATAGRAMS_PER_ROUND {
        assert!(forwarder.receive(&mut receiver).expect("received") > 0, "lost in the kernel");
        for datagram in receiver.datagrams() {
            sender.push(sink.local_addr(), |out| out.extend_from_slice(datagram.bytes));
        }
        forwarded += forwarder.send(&mut sender).sent;
    }
    let elapsed = started.elapsed();

    let mut arrived = 0;
    let mut receiver = Receiver::new(32, 2_048);
    while arrived < DATAGRAMS_PER_ROUND {
        let found = sink.receive(&mut receiver).expect("received");
        assert!(found > 0, "lost in the kernel");
        arrived += found;
    }
    elapsed
}
