//! Two ends on loopback: ours is `Streams`, the other a plain `std` socket or another `Streams`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use sip_net::poll::{Events, Poller};
use sip_net::stream::{
    CloseReason, ConnectionId, SendError, StreamEvent, StreamLimits, StreamOptions, StreamTo,
    Streams,
};

const DEADLINE: Duration = Duration::from_secs(10);

/// Streams with the poller that waits for them.
struct End {
    streams: Streams,
    poller: Poller,
}

impl End {
    fn listening(ip: [u8; 4], limits: StreamLimits) -> Self {
        Self::start(StreamOptions {
            listen: vec![(ip, 0).into()],
            local_ip: Some(ip.into()),
            incarnation: 77,
            limits,
        })
    }

    fn start(options: StreamOptions) -> Self {
        let poller = Poller::new().expect("a poller");
        let streams = Streams::start(options, poller.waker()).expect("streams");
        Self { streams, poller }
    }

    fn address(&self) -> SocketAddr {
        *self.streams.local_addrs().first().expect("one listener")
    }

    /// The next event; fails the test if none comes.
    fn next(&mut self) -> StreamEvent {
        let mut events = Events::default();
        loop {
            if let Some(event) = self.streams.poll() {
                return event;
            }
            self.poller.wait(Some(DEADLINE), &mut events).expect("a wait");
            assert!(events.is_woken(), "no event came in time");
        }
    }

    fn next_opened(&mut self) -> ConnectionId {
        match self.next() {
            StreamEvent::Opened { id, .. } => id,
            other => panic!("opened expected: {other:?}"),
        }
    }

    fn next_message(&mut self) -> (ConnectionId, Bytes) {
        match self.next() {
            StreamEvent::Message { id, bytes, .. } => (id, bytes),
            other => panic!("message expected: {other:?}"),
        }
    }

    fn next_closed(&mut self) -> (ConnectionId, CloseReason) {
        match self.next() {
            StreamEvent::Closed { id, reason, .. } => (id, reason),
            other => panic!("closed expected: {other:?}"),
        }
    }
}

fn message(body: &str) -> Vec<u8> {
    format!(
        "OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKa\r\n\
         From: <sip:b@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: {body}\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
}

/// Goal: borders of TCP segments are no borders of messages. Method: three messages in one write,
/// then one of them byte by byte.
#[test]
fn messages_are_cut_out_wherever_segments_end() {
    let mut end = End::listening([127, 43, 1, 1], StreamLimits::default());
    let mut peer = connect(end.address());
    peer.set_nodelay(true).expect("no delay");
    let three = [message("one"), message("two"), message("")];
    peer.write_all(&three.concat()).expect("written");
    let id = end.next_opened();
    for expected in &three {
        assert_eq!(end.next_message(), (id, Bytes::copy_from_slice(expected)));
    }
    for byte in message("slow") {
        peer.write_all(&[byte]).expect("written");
    }
    assert_eq!(end.next_message().1, message("slow"));

    end.streams.send(StreamTo::Connection(id), message("answer").into()).expect("queued");
    let mut answer = vec![0; message("answer").len()];
    peer.read_exact(&mut answer).expect("the answer");
    assert_eq!(answer, message("answer"));

    drop(peer);
    assert_eq!(end.next_closed(), (id, CloseReason::EndOfStream));
    let gone = end.streams.send(StreamTo::Connection(id), Bytes::new());
    assert_eq!(gone, Err(SendError::NoConnection));
    assert_eq!(end.streams.counters().messages_in_total, 4);
}

/// RFC 5626 §3.5.1: a double CRLF is answered by a single one.
#[test]
fn ping_is_answered_by_pong() {
    let end = End::listening([127, 43, 2, 1], StreamLimits::default());
    let mut peer = connect(end.address());
    for _ in 0..3 {
        peer.write_all(b"\r\n\r\n").expect("written");
        let mut pong = [0; 2];
        peer.read_exact(&mut pong).expect("a pong");
        assert_eq!(&pong, b"\r\n");
    }
    assert_eq!(end.streams.counters().keep_alives_total, 3);
}

/// Goal: one connection each way between two elements. Method: 50 messages to one address go over
/// one connection, and the other end answers over it by the remote address.
#[test]
fn connection_is_reused_by_remote_address() {
    let mut left = End::listening([127, 43, 3, 1], StreamLimits::default());
    let mut right = End::listening([127, 43, 3, 2], StreamLimits::default());
    let to = StreamTo::Address(right.address());
    for number in 0..50 {
        left.streams.send(to, message(&number.to_string()).into()).expect("queued");
    }
    let StreamEvent::Opened { remote, .. } = right.next() else { panic!("opened comes first") };
    assert_eq!(remote.ip(), left.address().ip(), "opened from the configured address");
    for number in 0..50 {
        assert_eq!(right.next_message().1, message(&number.to_string()));
    }
    right.streams.send(StreamTo::Address(remote), message("back").into()).expect("queued");
    let id = left.next_opened();
    assert_eq!(left.next_message(), (id, message("back").into()));
    let (left, right) = (left.streams.counters(), right.streams.counters());
    assert_eq!((left.opened_total, left.accepted_total, left.open), (1, 0, 1));
    assert_eq!((right.opened_total, right.accepted_total, right.open), (0, 1, 1));
    assert_eq!(left.messages_out_total, 50);
}

#[test]
fn idle_connection_is_closed() {
    let limits = StreamLimits { idle_close: Duration::from_millis(50), ..StreamLimits::default() };
    let mut end = End::listening([127, 43, 4, 1], limits);
    let mut peer = connect(end.address());
    let id = end.next_opened();
    assert_eq!(end.next_closed(), (id, CloseReason::Idle));
    assert_eq!(peer.read(&mut [0; 1]).expect("an end, no reset"), 0);
    assert_eq!(end.streams.counters().idle_closed_total, 1);
}

#[test]
fn message_that_never_ends_closes_its_connection() {
    let limits =
        StreamLimits { message_timeout: Duration::from_millis(50), ..StreamLimits::default() };
    let mut end = End::listening([127, 43, 5, 1], limits);
    let mut peer = connect(end.address());
    peer.write_all(b"OPTIONS sip:a").expect("written");
    let id = end.next_opened();
    assert_eq!(end.next_closed(), (id, CloseReason::Unfinished));
}

/// Goal: what a refused connection was to carry comes back. Method: an address where nobody
/// listens; three messages.
#[test]
fn refused_connect_is_reported_with_its_bytes() {
    let mut end = End::listening([127, 43, 6, 1], StreamLimits::default());
    let nobody = {
        let listener = TcpListener::bind("127.43.6.2:0").expect("bound");
        listener.local_addr().expect("an address")
    };
    let messages = [message("one"), message("two"), message("three")];
    for bytes in &messages {
        end.streams.send(StreamTo::Address(nobody), bytes.clone().into()).expect("queued");
    }
    let mut returned = Vec::new();
    while returned.len() < 3 {
        match end.next() {
            StreamEvent::Failed { to, undelivered, error, .. } => {
                assert_eq!((to, error), (nobody, ErrorKind::ConnectionRefused));
                returned.push(undelivered);
            }
            other => panic!("failed expected: {other:?}"),
        }
    }
    assert_eq!(returned, messages);
    let counters = end.streams.counters();
    // The kernel may refuse before the second message was queued: then it is tried once more.
    assert!((1..=3).contains(&counters.connect_failures_total), "{counters:?}");
    assert_eq!((counters.undelivered_total, counters.open), (3, 0));
}

/// Goal: a peer that reads nothing costs a bounded amount. Method: a first message larger than the
/// sockets' buffers, then fill the queue: it refuses, and after the timeout everything comes back.
#[test]
fn peer_that_takes_nothing_is_given_up() {
    let huge = Bytes::from(vec![b'x'; 32 << 20]);
    let small = Bytes::from(vec![b'x'; 60_000]);
    let limits = StreamLimits {
        write_timeout: Duration::from_millis(200),
        queue_bytes_max: huge.len() + 3 * small.len(),
        ..StreamLimits::default()
    };
    let mut end = End::listening([127, 43, 7, 1], limits);
    let _peer = connect(end.address());
    let to = StreamTo::Connection(end.next_opened());
    for bytes in [&huge, &small, &small, &small] {
        end.streams.send(to, bytes.clone()).expect("queued");
    }
    assert_eq!(end.streams.send(to, small.clone()), Err(SendError::QueueFull));
    let mut lengths = Vec::new();
    let reason = loop {
        match end.next() {
            StreamEvent::Failed { undelivered, error, .. } => {
                assert_eq!(error, ErrorKind::TimedOut);
                lengths.push(undelivered.len());
            }
            StreamEvent::Closed { reason, .. } => break reason,
            other => panic!("failed or closed expected: {other:?}"),
        }
    };
    // The kernel's own timeout may come first.
    assert!(matches!(reason, CloseReason::Stalled | CloseReason::Error(ErrorKind::TimedOut)));
    assert_eq!(lengths, [huge.len(), small.len(), small.len(), small.len()]);
    assert_eq!(end.streams.counters().undelivered_total, 4);
}

/// Goal: the owner can answer what cannot be framed. Method: a message whose length is no number;
/// the answer arrives although more garbage follows, and the stream then ends in order.
#[test]
fn malformed_frame_can_be_answered_before_the_close() {
    let mut end = End::listening([127, 43, 8, 1], StreamLimits::default());
    let mut peer = connect(end.address());
    let good = message("good");
    let bad = String::from_utf8(message("")).expect("text").replace("Length: 0", "Length: x");
    peer.write_all(&[good.as_slice(), bad.as_bytes(), b"garbage"].concat()).expect("written");
    let id = end.next_opened();
    assert_eq!(end.next_message().1, good);
    match end.next() {
        StreamEvent::Malformed { id: malformed, bytes, .. } => {
            assert_eq!(malformed, id);
            assert!(bytes.starts_with(bad.as_bytes()), "{bytes:?}");
        }
        other => panic!("malformed expected: {other:?}"),
    }
    peer.write_all(b"more").expect("written");
    end.streams.send(StreamTo::Connection(id), Bytes::from_static(b"400")).expect("queued");
    end.streams.sender().close(id);
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).expect("an end, no reset");
    assert_eq!(answer, b"400");
    assert_eq!(end.next_closed(), (id, CloseReason::Malformed));
}

#[test]
fn connections_beyond_the_limit_of_a_source_are_closed() {
    let limits = StreamLimits { connections_per_source_max: 2, ..StreamLimits::default() };
    let mut end = End::listening([127, 43, 9, 1], limits);
    let _kept = [connect(end.address()), connect(end.address())];
    let mut refused = connect(end.address());
    end.next_opened();
    end.next_opened();
    // An end or a reset, but no connection.
    assert!(matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
    let counters = end.streams.counters();
    assert_eq!((counters.open, counters.refused_by_source_total), (2, 1));
}

/// Goal: the role's bounded queue slows the peer and loses nothing. Method: room for two events,
/// 200 messages; only then does the role begin to poll.
#[test]
fn full_event_queue_holds_the_peer_back() {
    let limits = StreamLimits { events_max: 2, ..StreamLimits::default() };
    let mut end = End::listening([127, 43, 10, 1], limits);
    let mut peer = connect(end.address());
    for number in 0..200 {
        peer.write_all(&message(&number.to_string())).expect("written");
    }
    end.next_opened();
    for number in 0..200 {
        assert_eq!(end.next_message().1, message(&number.to_string()));
    }
}

#[test]
fn address_that_is_not_ours_is_refused_at_the_start() {
    let options =
        StreamOptions { listen: vec![([192, 0, 2, 1], 5060).into()], ..Default::default() };
    let poller = Poller::new().expect("a poller");
    let error = Streams::start(options, poller.waker()).map(|_| ()).map_err(|error| error.kind());
    assert_eq!(error, Err(ErrorKind::AddrNotAvailable));
}
