//! What scripts cannot see: sizes, leaks, and the cost of changes of mind.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::StatusCode;

use super::client::Client;
use super::server::Server;
use super::*;
use crate::output::{Event, Kind};
use crate::table::{Key, TableFull};
use crate::timers::Reliability;

#[derive(Default)]
struct Collected {
    sent: usize,
    events: Vec<Event>,
}

impl<D> Sink<D> for Collected {
    fn transmit(&mut self, _to: &D, _bytes: &Bytes, _from: Origin) {
        self.sent += 1;
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn epoch() -> Instant {
    Instant::now()
}

fn layer(transactions_max: usize) -> Layer<SocketAddr> {
    Layer::new(Timing::RFC_3261, Limits { transactions_max }, [7; 16])
}

fn client_key(number: u64) -> ClientKey {
    ClientKey(Key { high: 1, low: number })
}

fn server_key(number: u64) -> ServerKey {
    ServerKey(Key { high: 2, low: number })
}

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5060);

/// A proxied INVITE holds one of each; the budget for it beside its messages is 2 KiB.
#[test]
fn a_transaction_is_small() {
    let server = size_of::<Server<SocketAddr>>();
    let client = size_of::<Client<SocketAddr>>();
    assert!(server <= 256, "a server transaction takes {server} bytes");
    assert!(client <= 224, "a client transaction takes {client} bytes");
}

/// Goal: neither the tables nor the schedule grow with what has passed through them.
///
/// Method: twenty thousand requests answered before their first repetition is due, all within one
/// T1, so that every timer is cancelled and none has come up yet.
#[test]
fn cancelled_timers_do_not_pile_up() {
    let (mut layer, mut sink, now) = (layer(10), Collected::default(), epoch());
    for number in 0..20_000 {
        let id = layer
            .client_new(
                now + Duration::from_micros(number),
                client_key(number),
                Kind::NonInvite,
                Bytes::from_static(b"x"),
                PEER,
                Reliability::Unreliable,
                &mut sink,
            )
            .expect("there is room");
        layer.client_abandon(id);
        assert!(layer.schedule.len() <= 2_000, "{} entries", layer.schedule.len());
    }
    assert_eq!((layer.client_transactions(), layer.clients.keys()), (0, 0));
    assert_eq!(layer.poll_timeout(), None);
}

/// A full table refuses, and has room again when a transaction ends.
#[test]
fn a_full_table_refuses_until_one_ends() {
    let (mut layer, mut sink, now) = (layer(1), Collected::default(), epoch());
    let new = |layer: &mut Layer<SocketAddr>, number| {
        layer.server_new(server_key(number), Kind::NonInvite, Reliability::Unreliable, PEER)
    };
    let first = new(&mut layer, 1).expect("there is room");
    assert_eq!(new(&mut layer, 2), Err(TableFull));

    layer.server_respond(now, first, StatusCode::OK, Bytes::from_static(b"200"), &mut sink);
    layer.handle_timeout(now + Duration::from_secs(32), &mut sink);
    assert_eq!(sink.events, [Event::ServerTerminated(first)]);
    assert!(new(&mut layer, 2).is_ok());
}

/// The clock may jump over many repetitions, after a suspended machine: one goes out, not a burst.
#[test]
fn a_jump_of_the_clock_sends_no_burst() {
    let (mut layer, mut sink, now) = (layer(1), Collected::default(), epoch());
    layer
        .client_new(
            now,
            client_key(1),
            Kind::NonInvite,
            Bytes::from_static(b"x"),
            PEER,
            Reliability::Unreliable,
            &mut sink,
        )
        .expect("there is room");
    layer.handle_timeout(now + Duration::from_secs(20), &mut sink);
    assert_eq!(sink.sent, 2);
    layer.handle_timeout(now + Duration::from_secs(40), &mut sink);
    assert_eq!((sink.sent, sink.events.len()), (2, 2), "timed out and terminated");
    assert_eq!(layer.poll_timeout(), None);
}
