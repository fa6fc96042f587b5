//! A phone that does what it is told: registers, calls, rings, answers, hangs up. Over UDP it
//! speaks to whichever balancer it is told to; over TCP to the one that it is connected to.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use sip_net::clock;

use crate::cloud::{DOMAIN, PASSWORD, PATIENCE};
use crate::sip::{Message, credentials};

/// How long one look at the wire takes.
const LOOK: Duration = Duration::from_millis(100);

/// Between two repetitions of a final response.
const REPEAT: Duration = Duration::from_millis(500);

enum Wire {
    Datagrams(UdpSocket),
    Stream(TcpStream, Vec<u8>),
}

pub(crate) struct Phone {
    wire: Wire,
    user: String,
    domain: &'static str,
    password: String,
    /// What it believes its address to be.
    claims: SocketAddr,
    contact_parameters: &'static str,
    count: u32,
    /// What came while something else was waited for.
    inbox: VecDeque<(Message, SocketAddr)>,
    /// Branches of the calls that have rung.
    rung: Vec<String>,
}

/// A call that this phone makes, until it is answered.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) id: String,
    uri: String,
    from: String,
    cseq: u32,
    /// Header lines of the present INVITE that its CANCEL and its ACK repeat.
    via: String,
    at: SocketAddr,
}

/// A call that rings here.
#[derive(Clone)]
pub(crate) struct Incoming {
    pub(crate) invite: Message,
    to: String,
    peer: SocketAddr,
}

/// One side of an established call.
#[derive(Clone)]
pub(crate) struct Dialog {
    call_id: String,
    local: String,
    remote: String,
    target: String,
    routes: Vec<String>,
    cseq: u32,
}

impl Phone {
    pub(crate) fn udp(user: &str, local: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).expect("a free address");
        socket.set_read_timeout(Some(LOOK)).expect("a time-out");
        let local = socket.local_addr().expect("bound");
        Self::on(Wire::Datagrams(socket), user, local, "")
    }

    pub(crate) fn tcp(user: &str, balancer: SocketAddr) -> Self {
        let stream = TcpStream::connect(balancer).expect("connected");
        stream.set_read_timeout(Some(LOOK)).expect("a time-out");
        stream.set_nodelay(true).expect("set");
        let local = stream.local_addr().expect("connected");
        Self::on(Wire::Stream(stream, Vec::new()), user, local, ";transport=tcp")
    }

    fn on(wire: Wire, user: &str, claims: SocketAddr, contact_parameters: &'static str) -> Self {
        Self {
            wire,
            user: user.to_owned(),
            domain: DOMAIN,
            password: PASSWORD.to_owned(),
            claims,
            contact_parameters,
            count: 0,
            inbox: VecDeque::new(),
            rung: Vec::new(),
        }
    }

    /// From now on it believes to be somewhere else, as behind an address translator.
    pub(crate) fn believing(mut self, claims: SocketAddr) -> Self {
        self.claims = claims;
        self
    }

    pub(crate) fn with_password(mut self, password: &str) -> Self {
        self.password = password.to_owned();
        self
    }

    pub(crate) fn of_domain(mut self, domain: &'static str) -> Self {
        self.domain = domain;
        self
    }

    pub(crate) fn contact(&self) -> String {
        format!("sip:{}@{}{}", self.user, self.claims, self.contact_parameters)
    }

    // --- requests outside calls

    /// The final response to a REGISTER of this phone's contact; challenges are met.
    pub(crate) fn register(&mut self, at: SocketAddr, expires: u32) -> Message {
        let id = format!("register-{}-{}", self.user, self.claims);
        let contact = format!("Contact: <{}>;expires={expires}\r\n", self.contact());
        let uri = format!("sip:{DOMAIN}");
        let to = format!("<sip:{}@{DOMAIN}>", self.user);
        self.ask(at, "REGISTER", &uri, &to, &id, &contact)
    }

    /// The final response to a request outside any dialog; challenges are met once.
    pub(crate) fn ask(
        &mut self,
        at: SocketAddr,
        method: &str,
        uri: &str,
        to: &str,
        id: &str,
        fields: &str,
    ) -> Message {
        let from = format!("<sip:{}@{}>;tag=f", self.user, self.domain);
        let mut authorization = String::new();
        loop {
            let (cseq, via) = (self.next_number(), self.via());
            let head = Head { method, uri, via: &via, from: &from, to, id, cseq };
            let request = compose(&head, &format!("{fields}{authorization}"));
            self.send(at, &request);
            let answer = self.answer_to(id, &format!("{cseq} {method}"));
            if !authorization.is_empty() || !matches!(answer.status(), Some(401 | 407)) {
                return answer;
            }
            authorization = self.credentials(&answer, method, uri);
        }
    }

    // --- calls from here

    /// Sends an INVITE, meets the challenge and sends it again.
    pub(crate) fn dial(&mut self, at: SocketAddr, callee: &str) -> Outgoing {
        let number = self.next_number();
        let id = format!("{}-{}-{number}", self.user, self.claims);
        let mut call = Outgoing {
            from: format!("<sip:{}@{DOMAIN}>;tag=t{number}", self.user),
            id,
            uri: format!("sip:{callee}@{DOMAIN}"),
            cseq: 0,
            via: String::new(),
            at,
        };
        self.invite(&mut call, "");
        let challenge = self.answer_to(&call.id, &format!("{} INVITE", call.cseq));
        assert_eq!(challenge.status(), Some(407), "{challenge:?}");
        self.acknowledge_refusal(&call, &challenge);
        let authorization = self.credentials(&challenge, "INVITE", &call.uri);
        self.invite(&mut call, &authorization);
        call
    }

    fn invite(&mut self, call: &mut Outgoing, authorization: &str) {
        call.cseq += 1;
        call.via = self.via();
        let contact = format!("Contact: <{}>\r\n", self.contact());
        let request = call.compose("INVITE", None, &format!("{contact}{authorization}"));
        self.send(call.at, &request);
    }

    /// Waits for a provisional response to the INVITE.
    pub(crate) fn hear_ringing(&mut self, call: &Outgoing) {
        let cseq = format!("{} INVITE", call.cseq);
        self.wait("180", |it| {
            it.status() == Some(180) && it.call_id() == call.id && it.cseq() == cseq
        });
    }

    /// The final response to the INVITE; a refusal is acknowledged.
    pub(crate) fn outcome(&mut self, call: &Outgoing) -> Message {
        let answer = self.answer_to(&call.id, &format!("{} INVITE", call.cseq));
        if answer.status() >= Some(300) {
            self.acknowledge_refusal(call, &answer);
        }
        answer
    }

    fn acknowledge_refusal(&mut self, call: &Outgoing, refusal: &Message) {
        let ack = call.compose("ACK", Some(&refusal.value("To")), "");
        self.send(call.at, &ack);
    }

    /// The dialog after a 2xx; the ACK is sent to `at`.
    pub(crate) fn acknowledge(
        &mut self,
        call: &Outgoing,
        answer: &Message,
        at: SocketAddr,
    ) -> Dialog {
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        let mut routes = answer.record_routes();
        routes.reverse();
        let dialog = Dialog {
            call_id: call.id.clone(),
            local: call.from.clone(),
            remote: answer.value("To"),
            target: answer.contact(),
            routes,
            cseq: call.cseq,
        };
        let via = self.via();
        self.send(at, &dialog.compose("ACK", &via, ""));
        dialog
    }

    /// Cancels, and waits for the 200 to the CANCEL.
    pub(crate) fn cancel(&mut self, call: &Outgoing) {
        let request = call.compose("CANCEL", None, "");
        self.send(call.at, &request);
        let answer = self.answer_to(&call.id, &format!("{} CANCEL", call.cseq));
        assert_eq!(answer.status(), Some(200), "{answer:?}");
    }

    // --- calls to here

    /// Waits for a call and rings. A repeat of one that has rung is passed over.
    pub(crate) fn ring(&mut self) -> Incoming {
        let rung = std::mem::take(&mut self.rung);
        let is_new = |it: &Message| it.is_request("INVITE") && !rung.contains(&it.branch());
        let (invite, peer) = self.wait("INVITE", is_new);
        self.rung = rung;
        self.rung.push(invite.branch());
        self.count += 1;
        let to = format!("{};tag={}{}", invite.value("To"), self.user, self.count);
        let call = Incoming { invite, to, peer };
        self.respond(&call, "180 Ringing");
        call
    }

    /// Answers, and waits for the ACK.
    pub(crate) fn pick_up(&mut self, call: &Incoming) -> Dialog {
        self.conclude(call, "200 OK");
        Dialog {
            call_id: call.invite.call_id(),
            local: call.to.clone(),
            remote: call.invite.value("From"),
            target: call.invite.contact(),
            routes: call.invite.record_routes(),
            cseq: 0,
        }
    }

    /// Refuses, and waits for the ACK.
    pub(crate) fn refuse(&mut self, call: &Incoming, status: &str) {
        self.conclude(call, status);
    }

    /// A final response is repeated until its ACK comes (RFC 3261 §13.3.1.4, §17.2.1).
    fn conclude(&mut self, call: &Incoming, status: &str) {
        let id = call.invite.call_id();
        let deadline = clock::now() + PATIENCE;
        while clock::now() < deadline {
            self.respond(call, status);
            let again = clock::now() + REPEAT;
            while clock::now() < again {
                self.listen();
                if self.take(|it| it.is_request("ACK") && it.call_id() == id).is_some() {
                    return;
                }
            }
        }
        panic!("{}: nobody acknowledges {status}", self.user);
    }

    /// Waits for the CANCEL of a call, and ends it.
    pub(crate) fn be_cancelled(&mut self, call: &Incoming) {
        let id = call.invite.call_id();
        let (cancel, peer) =
            self.wait("CANCEL", |it| it.is_request("CANCEL") && it.call_id() == id);
        let cancelled = Incoming { invite: cancel, to: call.to.clone(), peer };
        self.respond(&cancelled, "200 OK");
        self.refuse(call, "487 Request Terminated");
    }

    fn respond(&mut self, call: &Incoming, status: &str) {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for name in ["Via", "Record-Route", "From", "Call-ID", "CSeq"] {
            for value in call.invite.values(name) {
                let _ = write!(text, "{name}: {value}\r\n");
            }
        }
        let (to, contact) = (&call.to, self.contact());
        let _ = write!(text, "To: {to}\r\nContact: <{contact}>\r\nContent-Length: 0\r\n\r\n");
        self.send(call.peer, &text);
    }

    // --- inside calls

    fn tell(&mut self, dialog: &mut Dialog, method: &str, at: SocketAddr, fields: &str) {
        dialog.cseq += 1;
        let via = self.via();
        self.send(at, &dialog.compose(method, &via, fields));
    }

    /// Hangs up while the other side listens.
    pub(crate) fn hang_up(&mut self, dialog: &mut Dialog, at: SocketAddr, other: &mut Self) {
        self.tell(dialog, "BYE", at, "");
        let first = format!("{} BYE", dialog.cseq);
        // A direct side is known by its address and not challenged.
        if let Some(challenge) = self.challenge_or_request(other, &dialog.call_id, &first) {
            let authorization = self.credentials(&challenge, "BYE", &dialog.target);
            self.tell(dialog, "BYE", at, &authorization);
        }
        other.hear_bye(&dialog.call_id);
        let answer = self.answer_to(&dialog.call_id, &format!("{} BYE", dialog.cseq));
        assert_eq!(answer.status(), Some(200), "{answer:?}");
    }

    /// The challenge that comes here, unless the BYE arrives at the other side first.
    fn challenge_or_request(&mut self, other: &mut Self, id: &str, cseq: &str) -> Option<Message> {
        let deadline = clock::now() + PATIENCE;
        while clock::now() < deadline {
            self.listen();
            other.listen();
            if let Some((answer, _)) =
                self.take(|it| it.status().is_some() && it.call_id() == id && it.cseq() == cseq)
            {
                assert_eq!(answer.status(), Some(407), "{answer:?}");
                return Some(answer);
            }
            if other.inbox.iter().any(|(it, _)| it.is_request("BYE") && it.call_id() == id) {
                return None;
            }
        }
        panic!("nothing came of a BYE");
    }

    fn hear_bye(&mut self, id: &str) {
        let (bye, peer) = self.wait("BYE", |it| it.is_request("BYE") && it.call_id() == id);
        let call = Incoming { to: bye.value("To"), invite: bye, peer };
        self.respond(&call, "200 OK");
    }

    // --- the wire

    fn next_number(&mut self) -> u32 {
        self.count += 1;
        self.count
    }

    fn via(&mut self) -> String {
        let number = self.next_number();
        let (claims, user) = (self.claims, &self.user);
        let transport = match self.wire {
            Wire::Datagrams(_) => "UDP",
            Wire::Stream(..) => "TCP",
        };
        let port = claims.port();
        format!("SIP/2.0/{transport} {claims};rport;branch=z9hG4bK{user}{port}x{number}")
    }

    fn credentials(&self, challenge: &Message, method: &str, uri: &str) -> String {
        let line = credentials(challenge, (&self.user, &self.password), (method, uri));
        line + "\r\n"
    }

    fn send(&mut self, to: SocketAddr, text: &str) {
        match &mut self.wire {
            Wire::Datagrams(socket) => {
                socket.send_to(text.as_bytes(), to).expect("sent");
            }
            Wire::Stream(stream, _) => stream.write_all(text.as_bytes()).expect("sent"),
        }
    }

    /// The final response to the request of this call and CSeq.
    fn answer_to(&mut self, id: &str, cseq: &str) -> Message {
        let is_it =
            |it: &Message| it.status() >= Some(200) && it.call_id() == id && it.cseq() == cseq;
        self.wait(&format!("answer to {cseq} of {id}"), is_it).0
    }

    /// The first message that `is_it`; others are kept for later.
    fn wait(&mut self, what: &str, is_it: impl Fn(&Message) -> bool) -> (Message, SocketAddr) {
        let deadline = clock::now() + PATIENCE;
        while clock::now() < deadline {
            if let Some(found) = self.take(&is_it) {
                return found;
            }
            self.listen();
        }
        let seen: Vec<&str> = self.inbox.iter().map(|(it, _)| it.start()).collect();
        panic!("{}: no {what} came, only {seen:?}", self.user);
    }

    fn take(&mut self, is_it: impl Fn(&Message) -> bool) -> Option<(Message, SocketAddr)> {
        let at = self.inbox.iter().position(|(message, _)| is_it(message))?;
        self.inbox.remove(at)
    }

    /// Whether a call to here came and was not taken yet.
    pub(crate) fn is_called(&mut self) -> bool {
        self.listen();
        self.inbox.iter().any(|(it, _)| it.is_request("INVITE"))
    }

    /// One look at the wire.
    fn listen(&mut self) {
        let mut buffer = vec![0; 65_536];
        match &mut self.wire {
            Wire::Datagrams(socket) => match socket.recv_from(&mut buffer) {
                Ok((length, peer)) => {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    self.inbox.push_back((Message(text), peer));
                }
                Err(error) => assert!(is_silence(error.kind()), "{error}"),
            },
            Wire::Stream(stream, held) => {
                match stream.read(&mut buffer) {
                    Ok(length) => held.extend_from_slice(&buffer[..length]),
                    Err(error) => assert!(is_silence(error.kind()), "{error}"),
                }
                let peer = stream.peer_addr().expect("connected");
                while let Some(message) = cut(held) {
                    self.inbox.push_back((message, peer));
                }
            }
        }
    }
}

fn is_silence(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The next whole message of a stream.
fn cut(held: &mut Vec<u8>) -> Option<Message> {
    let head = held.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    let message = Message(String::from_utf8_lossy(&held[..head]).into_owned());
    let length = head + message.content_length();
    (held.len() >= length).then(|| {
        held.drain(..length);
        message
    })
}

/// The fields that every request has.
struct Head<'a> {
    method: &'a str,
    uri: &'a str,
    via: &'a str,
    from: &'a str,
    to: &'a str,
    id: &'a str,
    cseq: u32,
}

fn compose(head: &Head<'_>, fields: &str) -> String {
    let Head { method, uri, via, from, to, id, cseq } = head;
    format!(
        "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\n\
         Call-ID: {id}\r\nCSeq: {cseq} {method}\r\n{fields}Content-Length: 0\r\n\r\n"
    )
}

impl Outgoing {
    /// Whether this is what arrived.
    pub(crate) fn is_of(&self, ringing: &Incoming) -> bool {
        ringing.invite.call_id() == self.id
    }

    /// The INVITE, its CANCEL or the ACK to its refusal: they share branch and CSeq number.
    fn compose(&self, method: &str, to: Option<&str>, fields: &str) -> String {
        let plain = format!("<{}>", self.uri);
        let Self { id, uri, from, cseq, via, .. } = self;
        let to = to.unwrap_or(&plain);
        compose(&Head { method, uri, via, from, to, id, cseq: *cseq }, fields)
    }
}

impl Outgoing {
    /// From now on this phone reaches the service here: it fails over (RFC 3263 §4.3).
    pub(crate) fn through(mut self, balancer: SocketAddr) -> Self {
        self.at = balancer;
        self
    }
}

impl Dialog {
    /// Whether the next request goes to this balancer by the recorded route.
    pub(crate) fn leads_to(&self, balancer: SocketAddr) -> bool {
        self.routes.first().is_some_and(|route| route.contains(&format!("@{balancer};")))
    }

    fn compose(&self, method: &str, via: &str, fields: &str) -> String {
        let Self { call_id: id, local: from, remote: to, target: uri, routes, cseq } = self;
        let mut all = String::new();
        for route in routes {
            let _ = write!(all, "Route: {route}\r\n");
        }
        all.push_str(fields);
        compose(&Head { method, uri, via, from, to, id, cseq: *cseq }, &all)
    }
}
