//! The client and the proxy between which a forwarder stands; both are in this process.

use std::net::UdpSocket;
use std::time::Duration;

use sip_message::{Framing, Index, Reply, StatusCode, parse, write_reply};
use sip_net::limits::DATAGRAM_BYTES_MAX;

use crate::{CLIENT, FORWARDER, PROXY, at};

/// Their sockets.
pub(crate) struct Peers {
    client: UdpSocket,
    proxy: UdpSocket,
}

impl Peers {
    pub(crate) fn new() -> Self {
        let bind = |address| {
            let socket = UdpSocket::bind(at(address)).expect("a free address");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            socket
        };
        Self { client: bind(CLIENT), proxy: bind(PROXY) }
    }

    /// Whether a request passes: a forwarder that has just been started may not listen yet.
    pub(crate) fn is_forwarded(&self) -> bool {
        let patience = |limit| {
            self.proxy.set_read_timeout(Some(limit)).expect("a timeout");
        };
        patience(Duration::from_millis(100));
        let sent = self.client.send_to(invite(0).as_bytes(), at(FORWARDER));
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let came = sent.is_ok() && self.proxy.recv(&mut buffer).is_ok();
        patience(Duration::from_secs(5));
        came
    }

    /// Takes what is still under way from asking whether anything is forwarded.
    pub(crate) fn settle(&self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        for socket in [&self.client, &self.proxy] {
            socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
            while socket.recv(&mut buffer).is_ok() {}
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        }
    }

    /// Sends `requests` there and as many responses back, a burst at a time.
    pub(crate) fn exchange(&self, requests: usize, burst: usize) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut index = Index::new();
        let mut replies: Vec<Vec<u8>> = vec![Vec::new(); burst];
        for turn in 0..requests / burst {
            for number in 0..burst {
                let invite = invite(turn * burst + number);
                self.client.send_to(invite.as_bytes(), at(FORWARDER)).expect("loopback takes it");
            }
            for reply in &mut replies {
                let length = receive(&self.proxy, &mut buffer);
                let request = parse(&buffer[..length], &mut index, Framing::Datagram);
                let request = request.unwrap_or_else(|malformed| panic!("{}", malformed.error));
                let ringing = Reply {
                    status: StatusCode::RINGING,
                    reason: None,
                    to_tag: Some(b"314159"),
                    fields: &[("Contact", b"<sip:bob@192.0.2.4>")],
                    body: b"",
                };
                reply.clear();
                write_reply(&request, &ringing, reply);
            }
            for reply in &replies {
                self.proxy.send_to(reply, at(FORWARDER)).expect("loopback takes it");
            }
            for _ in 0..burst {
                receive(&self.client, &mut buffer);
            }
        }
    }
}

/// The next message that is no probe.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> usize {
    loop {
        let received = socket.recv(buffer);
        let length = received.unwrap_or_else(|error| {
            panic!("a message to {:?} is lost: {error}", socket.local_addr());
        });
        if length > 4 {
            return length;
        }
    }
}

const BODY: &str = "v=0\r\no=alice 2890844526 2890844526 IN IP4 192.0.2.1\r\ns=-\r\n\
                    c=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 49172 RTP/AVP 0\r\n\
                    a=rtpmap:0 PCMU/8000\r\n";

fn invite(number: usize) -> String {
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
