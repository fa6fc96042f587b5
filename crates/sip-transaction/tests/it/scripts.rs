//! Plays `testdata/**/*.script` and compares everything that happens with what is written there.
//!
//! ```text
//! transport reliable           # a directive; unreliable without it
//!    0 ms  tu   > INVITE       # `>` goes into the layer: from the user, or from the wire
//!    0 ms  wire < INVITE       # `<` comes out of it: to the wire, or to the user
//! 32000 ms      terminated
//! ```
//!
//! A request takes attributes (`branch= uri= cseq= call= from= to= by= hop=`; `branch=none` is a
//! client of RFC 2543, `hop=` a balancer's branch above). `error` from the wire is a transport
//! error, `join` and `abandon` are the user's. A status names its method unless that is the
//! script's first, and its path (`path=1`) unless that is the first.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::{Method, StatusCode};
use sip_transaction::{
    AckVerdict, ClientId, ClientVerdict, Event, Hop, Kind, Layer, Limits, Origin, Reliability,
    ServerId, Sink, Timing,
};

use crate::text::{Request, epoch, read, response};

/// Goal: the machines do what RFC 3261 §17 and RFC 6026 draw, at the very millisecond.
///
/// Method: every script is played to the end, and its transcript must be the script itself.
#[test]
fn every_script_happens_as_it_is_written() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"), &mut files);
    files.sort();
    assert!(files.len() >= 20, "only {} scripts found", files.len());
    let mut failures = String::new();
    for file in &files {
        let script = fs::read_to_string(file).expect("a readable script");
        let expected: Vec<String> = lines(&script).collect();
        let happened = Stage::play(&script);
        if happened != expected {
            failures += &format!(
                "{}\n--- written\n{}\n--- happened\n{}\n\n",
                file.display(),
                expected.join("\n"),
                happened.join("\n")
            );
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder of the scripts") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "script") {
            files.push(path);
        }
    }
}

/// The lines that happen: no comments, no directives, single spaces.
fn lines(script: &str) -> impl Iterator<Item = String> {
    script
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty() && !line.starts_with("transport"))
}

#[derive(Default)]
struct Out(Vec<Output>);

enum Output {
    Sent { path: usize, bytes: Bytes },
    Event(Event),
}

impl Sink<usize> for Out {
    fn transmit(&mut self, to: &usize, bytes: &Bytes, _from: Origin) {
        self.0.push(Output::Sent { path: *to, bytes: bytes.clone() });
    }

    fn event(&mut self, event: Event) {
        self.0.push(Output::Event(event));
    }
}

/// Plays wire and user, and writes down what happens.
struct Stage {
    layer: Layer<usize>,
    reliability: Reliability,
    epoch: Instant,
    now: Instant,
    out: Out,
    transcript: Vec<String>,
    first_method: Option<String>,
    clients: Vec<(ClientId, Request)>,
    servers: Vec<(ServerId, Vec<Request>)>,
}

impl Stage {
    fn play(script: &str) -> Vec<String> {
        let reliability = if script.lines().any(|line| line.trim() == "transport reliable") {
            Reliability::Reliable
        } else {
            Reliability::Unreliable
        };
        let epoch = epoch();
        let limits = Limits { transactions_max: 4 };
        let mut stage = Self {
            layer: Layer::new(Timing::RFC_3261, limits, [1; 16]),
            reliability,
            epoch,
            now: epoch,
            out: Out::default(),
            transcript: Vec::new(),
            first_method: None,
            clients: Vec::new(),
            servers: Vec::new(),
        };
        for line in lines(script) {
            let words: Vec<&str> = line.split(' ').collect();
            if let [milliseconds, "ms", who, ">", what, attributes @ ..] = words.as_slice() {
                let milliseconds = milliseconds.parse().expect("milliseconds");
                stage.run_until(epoch + Duration::from_millis(milliseconds));
                stage.transcript.push(line.clone());
                match *who {
                    "tu" => stage.user_does(what, attributes),
                    "wire" => stage.wire_brings(what, attributes),
                    other => panic!("nobody is called {other}: {line}"),
                }
                stage.write_down();
            }
        }
        stage.run_until(epoch + Duration::from_secs(1_000));
        stage.transcript
    }

    fn run_until(&mut self, until: Instant) {
        while let Some(deadline) = self.layer.poll_timeout().filter(|it| *it <= until) {
            self.now = deadline;
            self.layer.handle_timeout(deadline, &mut self.out);
            self.write_down();
        }
        self.now = until;
    }

    fn user_does(&mut self, what: &str, attributes: &[&str]) {
        if let Ok(code) = what.parse() {
            return self.respond(code, attributes);
        }
        match what {
            "join" => {
                let request = request("INVITE", attributes);
                let key = read(&request.bytes(), |it| self.layer.server_key(it, hop(&request)));
                let (id, paths) = self.servers.last_mut().expect("a transaction to join");
                let joined = self.layer.server_add_path(*id, key, paths.len());
                joined.expect("there is room for another path");
                paths.push(request);
            }
            "abandon" => {
                if let Some((id, _)) = self.clients.last() {
                    self.layer.client_abandon(*id);
                }
                if let Some((id, _)) = self.servers.last() {
                    self.layer.server_abandon(*id);
                }
            }
            method => self.send(request(method, attributes)),
        }
    }

    fn send(&mut self, request: Request) {
        self.first_method.get_or_insert_with(|| request.method.clone());
        let key = read(&request.bytes(), |it| self.layer.client_key(it));
        let kind = if request.method == "INVITE" { Kind::Invite } else { Kind::NonInvite };
        let (now, reliability) = (self.now, self.reliability);
        let bytes = request.bytes();
        match self.layer.client_new(now, key, kind, bytes, 0, reliability, &mut self.out) {
            Ok(id) => self.clients.push((id, request)),
            Err(_) => self.note("tu < full".to_owned()),
        }
    }

    fn respond(&mut self, code: u16, attributes: &[&str]) {
        let method = attributes.iter().find(|it| !it.contains('='));
        let found = self.servers.iter().rev().find(|(_, paths)| {
            method.is_none_or(|method| paths.iter().any(|it| it.method == *method))
        });
        let (id, paths) = found.expect("a transaction to answer");
        let status = StatusCode::new(code).expect("a status");
        let render = |path: usize, _: &usize| Some(response(&paths[path].bytes(), status));
        self.layer.server_respond_each(self.now, *id, status, render, &mut self.out);
    }

    fn wire_brings(&mut self, what: &str, attributes: &[&str]) {
        if what == "error" {
            if let Some((id, _)) = self.clients.last() {
                self.layer.client_transport_error(*id, &mut self.out);
            }
            if let Some((id, _)) = self.servers.last() {
                self.layer.server_transport_error(*id, &mut self.out);
            }
        } else if let Ok(code) = what.parse() {
            self.response_came(code, attributes);
        } else {
            self.request_came(request(what, attributes));
        }
    }

    fn response_came(&mut self, code: u16, attributes: &[&str]) {
        let method = attributes.iter().find(|it| !it.contains('='));
        let asked = self
            .clients
            .iter()
            .rev()
            .find(|(_, request)| method.is_none_or(|method| request.method == *method));
        let mut answered = asked.expect("a request to answer").1.clone();
        apply(&mut answered, attributes);
        let status = StatusCode::new(code).expect("a status");
        let bytes = response(&answered.bytes(), status);
        let verdict = read(&bytes, |response| {
            let id = self.layer.client_find(self.layer.client_key(response))?;
            Some(self.layer.client_handle_response(self.now, id, response, &mut self.out))
        });
        match verdict {
            Some(ClientVerdict::Deliver) => {
                let line = format!("tu < {}", self.label(&bytes, 0));
                // The verdict comes before the events of the same call, after its messages.
                let events = self.out.0.iter().position(|it| matches!(it, Output::Event(_)));
                let rest = events.map(|at| self.out.0.split_off(at)).unwrap_or_default();
                self.write_down();
                self.note(line);
                self.out.0 = rest;
            }
            Some(ClientVerdict::Absorb) => {}
            None => self.note("tu < unmatched".to_owned()),
        }
    }

    fn request_came(&mut self, request: Request) {
        self.first_method.get_or_insert_with(|| request.method.clone());
        let bytes = request.bytes();
        let hop = hop(&request);
        let key = read(&bytes, |it| self.layer.server_key(it, hop));
        let known = self.layer.server_find(key);
        match (known, request.method.as_str()) {
            (Some(id), "ACK") => {
                if self.layer.server_handle_ack(self.now, id, &mut self.out) == AckVerdict::Deliver
                {
                    self.note("tu < ACK".to_owned());
                }
            }
            (None, "ACK") => self.note("tu < ACK".to_owned()),
            (Some(id), _) => self.layer.server_handle_repeat(id, &mut self.out),
            (None, method) => {
                let kind = if method == "INVITE" { Kind::Invite } else { Kind::NonInvite };
                match self.layer.server_new(key, kind, self.reliability, 0) {
                    Ok(id) => {
                        let invite = read(&bytes, |it| self.layer.invite_key_of_cancel(it, hop));
                        let cancels =
                            method == "CANCEL" && self.layer.server_find(invite).is_some();
                        let suffix = if cancels { " matches" } else { "" };
                        self.note(format!("tu < {method}{suffix}"));
                        self.servers.push((id, vec![request]));
                    }
                    Err(_) => self.note("tu < full".to_owned()),
                }
            }
        }
    }

    fn write_down(&mut self) {
        for output in std::mem::take(&mut self.out.0) {
            let line = match output {
                Output::Sent { path, bytes } => format!("wire < {}", self.label(&bytes, path)),
                Output::Event(Event::ClientTimedOut(_) | Event::ServerTimedOut(_)) => {
                    "tu < timeout".to_owned()
                }
                Output::Event(
                    Event::ClientTransportFailed(_) | Event::ServerTransportFailed(_),
                ) => "tu < transport-error".to_owned(),
                Output::Event(Event::ClientTerminated(_) | Event::ServerTerminated(_)) => {
                    "terminated".to_owned()
                }
            };
            self.note(line);
        }
    }

    /// `INVITE`, or `486`, or `200 CANCEL path=1`.
    fn label(&self, bytes: &[u8], path: usize) -> String {
        read(bytes, |message| {
            let text = |method: Method<'_>| String::from_utf8_lossy(method.as_bytes()).into_owned();
            let mut label = match (message.method(), message.status()) {
                (None, Some(status)) => status.code().to_string(),
                (method, _) => return method.map(text).unwrap_or_default(),
            };
            let method = text(message.cseq().method);
            if self.first_method.as_ref() != Some(&method) {
                label += &format!(" {method}");
            }
            if path > 0 {
                label += &format!(" path={path}");
            }
            label
        })
    }

    fn note(&mut self, what: String) {
        let milliseconds = (self.now - self.epoch).as_millis();
        self.transcript.push(format!("{milliseconds} ms {what}"));
    }
}

fn request(method: &str, attributes: &[&str]) -> Request {
    let mut request = Request::new(method);
    apply(&mut request, attributes);
    request
}

fn apply(request: &mut Request, attributes: &[&str]) {
    for attribute in attributes {
        let Some((name, value)) = attribute.split_once('=') else {
            continue;
        };
        let value = value.to_owned();
        match name {
            "branch" => request.branch = (value != "none").then_some(value),
            "hop" => request.balancer = Some(value),
            "uri" => request.uri = value,
            "by" => request.sent_by = value,
            "call" => request.call_id = value,
            "from" => request.from_tag = value,
            "to" => request.to_tag = Some(value),
            "cseq" => request.cseq = value.parse().expect("a number"),
            other => panic!("no attribute is called {other}"),
        }
    }
}

fn hop(request: &Request) -> Hop {
    if request.balancer.is_some() { Hop::ThroughBalancer } else { Hop::Direct }
}
