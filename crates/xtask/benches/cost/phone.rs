//! All phones of one side behind one socket, and what they say. They remember nothing: what they must
//! know of a call stands in the messages that they answer.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};

use md5::{Digest as _, Md5};

/// How many call at once; what an element takes with one system call.
pub(crate) const PAIRS: usize = 32;
pub(crate) const DOMAIN: &str = "example.com";
pub(crate) const PASSWORD: &str = "secret";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Caller,
    Callee,
}

impl Side {
    /// Its `n`th user.
    pub(crate) fn user(self, n: usize) -> String {
        match self {
            Self::Caller => format!("alice{n:02}"),
            Self::Callee => format!("bob{n:02}"),
        }
    }
}

pub(crate) struct Phone {
    side: Side,
    socket: UdpSocket,
    address: SocketAddr,
    balancer: SocketAddr,
}

impl Phone {
    pub(crate) fn new(side: Side, address: SocketAddr, balancer: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).expect("a free address");
        socket.set_nonblocking(true).expect("a socket that does not wait");
        Self { side, socket, address, balancer }
    }

    /// Every phone of this side says something.
    pub(crate) fn say(&self, message: impl Fn(&Self, usize) -> String) {
        for n in 0..PAIRS {
            let text = message(self, n);
            self.socket.send_to(text.as_bytes(), self.balancer).expect("loopback takes it");
        }
    }

    /// What one of them hears, if anything is there.
    pub(crate) fn next(&self) -> Option<String> {
        let mut buffer = [0; 4_096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Whose message this is: it stands at the end of the Call-ID.
    pub(crate) fn pair_of(&self, text: &str) -> usize {
        let call_id = field(text, "Call-ID");
        call_id.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a Call-ID of ours")
    }

    pub(crate) fn callee(&self, n: usize) -> String {
        format!("sip:{}@{DOMAIN}", Side::Callee.user(n))
    }

    pub(crate) fn register(&self, n: usize, lap: usize, cseq: u32, proof: &str) -> String {
        let number = cseq as usize + 2 * lap;
        let me = format!("<{}>", self.callee(n));
        let lines = format!("{proof}Contact: {}\r\nExpires: 3600\r\n", self.contact(n));
        // One Call-ID for all registrations of a phone (RFC 3261 §10.2).
        let start = Start { method: "REGISTER", uri: &format!("sip:{DOMAIN}"), to: &me };
        self.compose(n, &start, &format!("registration-{n}"), number, &lines, "")
    }

    pub(crate) fn invite(&self, n: usize, lap: usize, cseq: usize, proof: &str) -> String {
        let uri = self.callee(n);
        let lines = format!(
            "{proof}Contact: {}\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n\
             User-Agent: Example Phones\r\nContent-Type: application/sdp\r\n",
            self.contact(n)
        );
        let start = Start { method: "INVITE", uri: &uri, to: &format!("<{uri}>") };
        self.compose(n, &start, &call_id(lap, n), cseq, &lines, &sdp(self.address))
    }

    /// The ACK to a refusal of the first INVITE: it has the branch of that.
    pub(crate) fn ack_refusal(&self, n: usize, lap: usize, refusal: &str) -> String {
        let start = Start { method: "ACK", uri: &self.callee(n), to: field(refusal, "To") };
        self.compose(n, &start, &call_id(lap, n), 1, "", "")
    }

    /// A request along the route that the 200 recorded.
    pub(crate) fn in_dialog(
        &self,
        n: usize,
        lap: usize,
        answer: &str,
        (cseq, method): (usize, &str),
        proof: &str,
    ) -> String {
        let mut lines = String::new();
        for route in fields(answer, "Record-Route") {
            let _ = write!(lines, "Route: {route}\r\n");
        }
        lines += proof;
        let start = Start { method, uri: &contact_of(answer), to: field(answer, "To") };
        self.compose(n, &start, &call_id(lap, n), cseq, &lines, "")
    }

    /// A response of the callee; only it has a body and a contact.
    pub(crate) fn answer(&self, request: &str, status: &str) -> String {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for name in ["Via", "Record-Route", "From"] {
            for value in fields(request, name) {
                let _ = write!(text, "{name}: {value}\r\n");
            }
        }
        let to = field(request, "To");
        let tag = if to.contains(";tag=") { "" } else { ";tag=callee" };
        let _ = write!(
            text,
            "To: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: {}\r\n",
            field(request, "Call-ID"),
            field(request, "CSeq"),
            self.contact(self.pair_of(request)),
        );
        let has_body = status.starts_with("200") && request.starts_with("INVITE ");
        let body = if has_body { sdp(self.address) } else { String::new() };
        finish(text, &body)
    }

    /// The header line that answers a challenge (RFC 7616 §3.4, MD5 and `qop=auth`).
    pub(crate) fn credentials(&self, n: usize, challenge: &str, method: &str, uri: &str) -> String {
        let is_proxy = challenge.starts_with("SIP/2.0 407");
        let (asked, answered) = if is_proxy {
            ("Proxy-Authenticate", "Proxy-Authorization")
        } else {
            ("WWW-Authenticate", "Authorization")
        };
        let nonce = field(challenge, asked).split("nonce=\"").nth(1);
        let nonce = nonce.and_then(|rest| rest.split('"').next()).expect("a nonce");
        let user = self.side.user(n);
        let ha1 = md5(&format!("{user}:{DOMAIN}:{PASSWORD}"));
        let ha2 = md5(&format!("{method}:{uri}"));
        let response = md5(&format!("{ha1}:{nonce}:00000001:0a4f113b:auth:{ha2}"));
        format!(
            "{answered}: Digest username=\"{user}\",realm=\"{DOMAIN}\",nonce=\"{nonce}\",\
             uri=\"{uri}\",response=\"{response}\",algorithm=MD5,qop=auth,nc=00000001,\
             cnonce=\"0a4f113b\"\r\n"
        )
    }

    fn compose(
        &self,
        n: usize,
        start: &Start<'_>,
        call_id: &str,
        cseq: usize,
        lines: &str,
        body: &str,
    ) -> String {
        let (user, at) = (self.side.user(n), self.address);
        let Start { method, uri, to } = start;
        let text = format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {at};branch=z9hG4bK{call_id}-{cseq}{};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@{DOMAIN}>;tag={user}\r\nTo: {to}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{lines}",
            // The ACK to a 200 is a transaction of its own.
            if *method == "ACK" && cseq > 1 { "a" } else { "" },
        );
        finish(text, body)
    }

    fn contact(&self, n: usize) -> String {
        format!("<sip:{}@{}>", self.side.user(n), self.address)
    }
}

/// Whom a request is for.
struct Start<'a> {
    method: &'a str,
    uri: &'a str,
    to: &'a str,
}

fn call_id(lap: usize, n: usize) -> String {
    format!("call-{lap:06}-{n}")
}

fn finish(head: String, body: &str) -> String {
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn sdp(at: SocketAddr) -> String {
    let ip = at.ip();
    format!(
        "v=0\r\no=phone 28908 28908 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio 49170 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
    )
}

/// The URI of the Contact.
pub(crate) fn contact_of(message: &str) -> String {
    let contact = field(message, "Contact").trim_start_matches('<');
    contact.split('>').next().unwrap_or_default().to_owned()
}

fn field<'a>(message: &'a str, name: &str) -> &'a str {
    fields(message, name).next().unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// The values of a header field, by the name that our own side and the tier write.
fn fields<'a>(message: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = message.lines().skip(1).take_while(|line| !line.is_empty());
    let named = lines.filter_map(move |line| line.split_once(": ").filter(|(it, _)| *it == name));
    named.map(|(_, value)| value)
}

fn md5(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
