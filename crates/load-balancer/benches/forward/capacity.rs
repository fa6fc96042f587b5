//! How many INVITEs per second a forwarder carries on one core: an open-loop replay, which sends at its
//! rate however much is lost, at higher and higher rates.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sip_net::limits::{BATCH_MAX, DATAGRAM_BYTES_MAX};
use sip_net::poll::{Events, Poller};
use sip_net::udp::{Receiver, Sender, UdpOptions, UdpSocket};

use crate::forwarder::{Forwarder, Kind, Place};
use crate::peers::{PROBE_BYTES_MAX, QUESTIONS_MAX, invite, now};
use crate::search::{self, Trial};
use crate::{CLIENT, FORWARDER, Options, PROXY, at};

const FIRST_PER_S: f64 = 10_000.0;
/// Between a rate that is carried and one that is not, at most.
const PRECISION: f64 = 0.05;
const REPLAY: Duration = Duration::from_secs(1);
/// What comes later than this after its replay is lost.
const STRAGGLING: Duration = Duration::from_millis(300);
/// What is due is sent so often.
const TICK: Duration = Duration::from_micros(250);
const LOST_SHARE_MAX: f64 = 0.001;
/// Of what was due so much must have been sent, or the replay itself is too slow.
const SENT_SHARE_MIN: f64 = 0.99;
/// Different messages, so that a hash has something to spread.
const MESSAGES: usize = 1_024;

/// One replay.
#[derive(Clone, Copy, Debug)]
struct Replay {
    per_s: f64,
    sent_share: f64,
    lost_share: f64,
    /// Share of its core that the forwarder used.
    busy: f64,
}

impl Trial for Replay {
    fn rate(&self) -> f64 {
        self.per_s
    }

    fn is_carried(&self) -> bool {
        self.lost_share <= LOST_SHARE_MAX && self.sent_share >= SENT_SHARE_MIN
    }
}

/// The highest rate that each carries.
pub(crate) fn find(kinds: &[Kind], options: &Options) {
    let cores = thread::available_parallelism().expect("a number of cores").get();
    let core = options.core.unwrap_or(cores - 1);
    for kind in kinds {
        // Before the forwarder: it must not find that nobody listens.
        let street = Street::new();
        let forwarder = Forwarder::start(*kind, options.threads, Place::Core(core));
        street.wait_until_forwarded();
        let Ok((best, failed)) = search::highest(FIRST_PER_S, PRECISION, |per_s| {
            let replay = street.replay(&forwarder, per_s);
            eprintln!(
                "{}: {per_s:.0}/s: {:.2} % lost, {:.0} % of the core",
                kind.name(),
                replay.lost_share * 100.0,
                replay.busy * 100.0
            );
            Ok::<_, Infallible>(replay)
        });
        report(*kind, best, failed, options.is_json);
    }
}

fn report(kind: Kind, best: Option<Replay>, failed: Replay, is_json: bool) {
    let name = kind.name();
    let (per_s, busy) = best.map_or((0.0, 0.0), |best| (best.per_s, best.busy));
    let limit = if failed.sent_share < SENT_SHARE_MIN { "replay" } else { name };
    if is_json {
        println!(
            r#"{{"element":"{name}","invites_per_s":{per_s:.0},"busy":{busy:.3},"limit":"{limit}"}}"#
        );
    } else {
        println!("{name:8} carries {per_s:.0} INVITEs/s with {:.0} % of a core", busy * 100.0);
    }
}

/// The client and the proxy, by large batches.
struct Street {
    client: UdpSocket,
    proxy: UdpSocket,
    invites: Vec<String>,
}

impl Street {
    fn new() -> Self {
        let bind = |address| UdpSocket::bind(at(address), UdpOptions::default());
        Self {
            client: bind(CLIENT).expect("a free address"),
            proxy: bind(PROXY).expect("a free address"),
            invites: (0..MESSAGES).map(invite).collect(),
        }
    }

    /// A forwarder that has just been started may not listen yet.
    fn wait_until_forwarded(&self) {
        let mut receiver = Receiver::new(BATCH_MAX, DATAGRAM_BYTES_MAX);
        let mut sender = Sender::new();
        let is_forwarded = (0..QUESTIONS_MAX).any(|_| {
            sender.push(at(FORWARDER), |out| out.extend_from_slice(self.invites[0].as_bytes()));
            self.client.send(&mut sender);
            thread::park_timeout(STRAGGLING / 3);
            self.proxy.receive(&mut receiver).expect("it reads");
            receiver.datagrams().any(|datagram| datagram.bytes.len() > PROBE_BYTES_MAX)
        });
        assert!(is_forwarded, "the forwarder does not forward");
        thread::park_timeout(STRAGGLING);
        while self.proxy.receive(&mut receiver).expect("it reads") > 0 {}
    }

    fn replay(&self, forwarder: &Forwarder, per_s: f64) -> Replay {
        let (is_over, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| self.count(&is_over, &arrived));
            let (begun, before) = (now(), forwarder.cpu_ns());
            let sent = self.send(per_s);
            let busy_ns = forwarder.cpu_ns() - before;
            let busy = busy_ns as f64 / begun.elapsed().as_nanos() as f64;
            thread::park_timeout(STRAGGLING);
            is_over.store(true, Ordering::Release);
            let lost = sent.saturating_sub(arrived.load(Ordering::Acquire));
            let due = per_s * REPLAY.as_secs_f64();
            Replay {
                per_s,
                sent_share: sent as f64 / due,
                lost_share: lost as f64 / sent.max(1) as f64,
                busy,
            }
        })
    }

    /// At the rate, whatever becomes of it; returns how many.
    fn send(&self, per_s: f64) -> u64 {
        let mut sender = Sender::new();
        let (begun, mut sent) = (now(), 0);
        while begun.elapsed() < REPLAY {
            let due = (begun.elapsed().as_secs_f64() * per_s) as u64;
            if sent >= due {
                thread::park_timeout(TICK);
                continue;
            }
            let batch = (due - sent).min(BATCH_MAX as u64);
            for number in sent..sent + batch {
                let invite = &self.invites[number as usize % MESSAGES];
                sender.push(at(FORWARDER), |out| out.extend_from_slice(invite.as_bytes()));
            }
            self.client.send(&mut sender);
            sent += batch;
        }
        sent
    }

    /// What reaches the proxy. A balancer asks whether it is there: it is.
    fn count(&self, is_over: &AtomicBool, arrived: &AtomicU64) {
        let mut receiver = Receiver::new(BATCH_MAX, DATAGRAM_BYTES_MAX);
        let (poller, mut sender) = (Poller::new().expect("a poller"), Sender::new());
        let mut events = Events::default();
        poller.add(&self.proxy, 0).expect("a socket");
        while !is_over.load(Ordering::Acquire) {
            poller.wait(Some(TICK * 40), &mut events).expect("it waits");
            while self.proxy.receive(&mut receiver).expect("it reads") > 0 {
                let mut messages = 0;
                for datagram in receiver.datagrams() {
                    if datagram.bytes.len() > PROBE_BYTES_MAX {
                        messages += 1;
                    } else {
                        sender.push(datagram.source, |out| out.extend_from_slice(b"\r\n"));
                    }
                }
                arrived.fetch_add(messages, Ordering::AcqRel);
                self.proxy.send(&mut sender);
                if receiver.is_drained() {
                    break;
                }
            }
        }
    }
}
