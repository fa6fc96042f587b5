//! A phone that says what it is told to and waits for what it is owed.

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use store::Credential;

/// Nothing here takes this long; whoever waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Phone {
    socket: UdpSocket,
    user: String,
    password: String,
    branches: Cell<u32>,
    count: Cell<u32>,
    /// Where the last request came from: answers go back there.
    peer: Option<SocketAddr>,
}

impl Phone {
    pub(crate) fn at(address: &str) -> Self {
        let socket = UdpSocket::bind(address).expect("a free address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let (user, password) = ("alice".to_owned(), super::PASSWORD.to_owned());
        Self { socket, user, password, branches: Cell::new(0), count: Cell::new(0), peer: None }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    pub(crate) fn be(&mut self, user: &str, password: &str) {
        (self.user, self.password) = (user.to_owned(), password.to_owned());
    }

    pub(crate) fn send(&self, to: SocketAddr, message: &str) {
        self.socket.send_to(message.as_bytes(), to).expect("sent");
    }

    /// The next message that begins with this method or has this status; others are passed over.
    pub(crate) fn expect(&mut self, wanted: &str) -> String {
        let mut buffer = [0; 8192];
        let mut seen = String::new();
        loop {
            let (length, from) = self
                .socket
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("no {wanted} came: {error}; before it: {seen}"));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let first = message.lines().next().unwrap_or_default().to_owned();
            if message.contains("branch=z9hG4bKprobe") {
                // What a balancer answers by itself.
                self.answer_to(from, &message, "200 OK");
                continue;
            }
            self.peer = Some(from);
            if first.starts_with(wanted) || first.starts_with(&format!("SIP/2.0 {wanted}")) {
                return message;
            }
            let _ = write!(seen, "{first}; ");
        }
    }

    /// The next message, whatever it is.
    pub(crate) fn next(&mut self) -> String {
        self.expect("")
    }

    pub(crate) fn answer(&self, request: &str, status: &str) {
        self.answer_to(self.peer.expect("somebody asked"), request, status);
    }

    /// The same, but the response goes to `to`.
    pub(crate) fn answer_to(&self, to: SocketAddr, request: &str, status: &str) {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for line in request.lines().skip(1).take_while(|line| !line.is_empty()) {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            match name.as_str() {
                "via" | "from" | "call-id" | "cseq" | "record-route" => {
                    let _ = write!(text, "{line}\r\n");
                }
                "to" if line.contains(";tag=") => {
                    let _ = write!(text, "{line}\r\n");
                }
                "to" => {
                    let _ = write!(text, "{line};tag=callee\r\n");
                }
                _ => {}
            }
        }
        let _ = write!(text, "Contact: <sip:bob@{}>\r\nContent-Length: 0\r\n\r\n", self.address());
        self.send(to, &text);
    }

    pub(crate) fn invite(&self, cseq: u32, credentials: Option<&str>) -> String {
        self.compose("INVITE", "sip:bob@example.com", cseq, None, &[], credentials)
    }

    pub(crate) fn register(&self, cseq: u32, credentials: Option<&str>) -> String {
        let to = format!("<sip:{}@example.com>", self.user);
        self.compose("REGISTER", "sip:example.com", cseq, Some(&to), &[], credentials)
    }

    pub(crate) fn request(&self, method: &str, uri: &str, domain: &str) -> String {
        let message = self.compose(method, uri, 1, Some(&format!("<{uri}>")), &[], None);
        message.replace("@example.com>;tag", &format!("@{domain}>;tag"))
    }

    /// The ACK to a refusal (its branch is the INVITE's) or, with `dialog`, to a 2xx.
    pub(crate) fn ack(&self, cseq: u32, response: &str, dialog: Option<&str>) -> String {
        let to = value(response, "To");
        match dialog {
            Some(answered) => {
                let uri = contact_of(answered);
                let routes = values(answered, "Record-Route");
                self.compose("ACK", &uri, cseq, Some(&to), &routes, None)
            }
            None => {
                self.branches.set(self.branches.get() - 1);
                self.compose("ACK", "sip:bob@example.com", cseq, Some(&to), &[], None)
            }
        }
    }

    pub(crate) fn cancel(&self, cseq: u32) -> String {
        self.branches.set(self.branches.get() - 1);
        self.compose("CANCEL", "sip:bob@example.com", cseq, None, &[], None)
    }

    pub(crate) fn bye(&self, cseq: u32, answered: &str, credentials: Option<&str>) -> String {
        let (to, uri) = (value(answered, "To"), contact_of(answered));
        let routes = values(answered, "Record-Route");
        self.compose("BYE", &uri, cseq, Some(&to), &routes, credentials)
    }

    fn compose(
        &self,
        method: &str,
        uri: &str,
        cseq: u32,
        to: Option<&str>,
        routes: &[String],
        credentials: Option<&str>,
    ) -> String {
        self.branches.set(self.branches.get() + 1);
        let (user, at, branch) = (&self.user, self.address(), self.branches.get());
        let mut text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{user}{branch}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@example.com>;tag=caller\r\nTo: {}\r\n\
             Call-ID: {user}-at-{}\r\nCSeq: {cseq} {method}\r\nContact: <sip:{user}@{at}>\r\n",
            to.unwrap_or("<sip:bob@example.com>"),
            at.ip(),
        );
        for route in routes {
            let _ = write!(text, "Route: {route}\r\n");
        }
        if let Some(credentials) = credentials {
            let _ = write!(text, "{credentials}\r\n");
        }
        text + "Content-Length: 0\r\n\r\n"
    }

    /// A whole header field that answers a challenge (RFC 7616 §3.4 with MD5 and qop=auth).
    pub(crate) fn credentials(&self, challenge: &str, method: &str, uri: &str) -> String {
        let (field, name) = match challenge.contains("Proxy-Authenticate") {
            true => ("Proxy-Authenticate", "Proxy-Authorization"),
            false => ("WWW-Authenticate", "Authorization"),
        };
        let offered = value(challenge, field);
        let nonce = offered.split("nonce=\"").nth(1).and_then(|it| it.split('"').next());
        let nonce = nonce.expect("a nonce");
        self.count.set(self.count.get() + 1);
        let count = format!("{:08x}", self.count.get());
        let ha1 = hex(&Credential::new(&self.user, super::DOMAIN, &self.password).md5);
        let ha2 = md5(&format!("{method}:{uri}"));
        let response = md5(&format!("{ha1}:{nonce}:{count}:c:auth:{ha2}"));
        format!(
            "{name}: Digest username=\"{}\", realm=\"{}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=MD5, cnonce=\"c\", qop=auth, nc={count}",
            self.user,
            super::DOMAIN,
        )
    }
}

/// The URI of the Contact.
pub(crate) fn contact_of(message: &str) -> String {
    value(message, "Contact").trim_start_matches('<').trim_end_matches('>').to_owned()
}

fn value(message: &str, name: &str) -> String {
    values(message, name).into_iter().next().unwrap_or_else(|| panic!("no {name} in {message}"))
}

fn values(message: &str, name: &str) -> Vec<String> {
    let prefix = format!("{name}: ");
    message.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

fn md5(text: &str) -> String {
    use md5::{Digest as _, Md5};
    hex(&Md5::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
