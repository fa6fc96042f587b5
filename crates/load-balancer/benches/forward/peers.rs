//! The client and the proxy between which a forwarder stands; both are in this process.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use sip_message::{Framing, Index, Reply, StatusCode, parse, write_reply};
use sip_net::limits::DATAGRAM_BYTES_MAX;

use crate::{CLIENT, FORWARDER, PROXY, at};

/// How long a message may be under way before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Asked so often whether a forwarder that has just been started forwards, 100 ms each.
pub(crate) const QUESTIONS_MAX: usize = 100;
/// Longest datagram that is a sign of life and no message.
pub(crate) const PROBE_BYTES_MAX: usize = 4;

/// Their sockets.
pub(crate) struct Peers {
    client: UdpSocket,
    proxy: UdpSocket,
}

/// What became of messages.
pub(crate) struct Exchange {
    pub messages: usize,
    pub lost: usize,
    /// How long each request took to the proxy.
    pub ways: Vec<Duration>,
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

impl Peers {
    pub(crate) fn new() -> Self {
        let bind = |address| UdpSocket::bind(at(address)).expect("a free address");
        Self { client: bind(CLIENT), proxy: bind(PROXY) }
    }

    /// A forwarder that has just been started may not listen yet.
    pub(crate) fn wait_until_forwarded(&self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let is_forwarded = (0..QUESTIONS_MAX).any(|_| {
            // What is refused is told at the next call.
            let _ = self.client.send_to(invite(0).as_bytes(), at(FORWARDER));
            receive(&self.proxy, &mut buffer, Duration::from_millis(100)).is_some()
        });
        assert!(is_forwarded, "the forwarder does not forward");
        self.drain();
    }

    /// Takes what is still under way.
    fn drain(&self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        for socket in [&self.client, &self.proxy] {
            while receive(socket, &mut buffer, Duration::from_millis(200)).is_some() {}
        }
    }

    /// Sends `requests` there and as many responses back, a burst at a time.
    pub(crate) fn exchange(&self, requests: usize, burst: usize) -> Exchange {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut index = Index::new();
        let mut replies: Vec<Vec<u8>> = vec![Vec::new(); burst];
        let mut sent = Vec::with_capacity(burst);
        let mut exchange = Exchange { messages: 0, lost: 0, ways: Vec::with_capacity(requests) };
        for turn in 0..requests / burst {
            sent.clear();
            for number in 0..burst {
                let invite = invite(turn * burst + number);
                sent.push(now());
                self.client.send_to(invite.as_bytes(), at(FORWARDER)).expect("loopback takes it");
            }
            let mut arrived = 0;
            for (reply, sent) in replies.iter_mut().zip(&sent) {
                let Some(length) = receive(&self.proxy, &mut buffer, PATIENCE) else { break };
                exchange.ways.push(sent.elapsed());
                let request = parse(&buffer[..length], &mut index, Framing::Datagram);
                let request = request.unwrap_or_else(|malformed| panic!("{}", malformed.error));
                reply.clear();
                write_reply(&request, &RINGING, reply);
                arrived += 1;
            }
            for reply in replies.iter().take(arrived) {
                self.proxy.send_to(reply, at(FORWARDER)).expect("loopback takes it");
            }
            let answered = (0..arrived)
                .take_while(|_| receive(&self.client, &mut buffer, PATIENCE).is_some())
                .count();
            exchange.messages += burst + arrived;
            exchange.lost += burst - answered;
            if answered < burst {
                // What comes late must not be taken for the next one.
                self.drain();
            }
        }
        exchange
    }
}

const RINGING: Reply<'static> = Reply {
    status: StatusCode::RINGING,
    reason: None,
    to_tag: Some(b"314159"),
    fields: &[("Contact", b"<sip:bob@192.0.2.4>")],
    body: b"",
};

/// The next message, if one comes in time. A balancer asks whether the proxy is there: it is.
fn receive(socket: &UdpSocket, buffer: &mut [u8], patience: Duration) -> Option<usize> {
    let begun = now();
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    while begun.elapsed() <= patience {
        // A refusal of an earlier message is no message.
        let Ok((length, source)) = socket.recv_from(buffer) else { continue };
        if length > PROBE_BYTES_MAX {
            return Some(length);
        }
        let _ = socket.send_to(b"\r\n", source);
    }
    None
}

const BODY: &str = "v=0\r\no=alice 2890844526 2890844526 IN IP4 192.0.2.1\r\ns=-\r\n\
                    c=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 49172 RTP/AVP 0\r\n\
                    a=rtpmap:0 PCMU/8000\r\n";

pub(crate) fn invite(number: usize) -> String {
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
