//! Who is dead: asks every member whether it is there, and hears from the threads whose messages
//! came back. What follows from it is decided in `health`.
//!
//! A probe is an empty line, as RFC 5626 §4.4.1 sends over streams; a proxy's event loop answers it
//! with one line end, to members alone. So a process that is frozen, a loop that hangs and a machine
//! that is lost are all found, and nothing of SIP is spent on it. Probes leave by connected sockets
//! of their own: only such a socket hears that its peer refuses.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fleet::{Incarnation, InstanceId, Member, Membership};
use node_api::wire::{DoubtReason, MemberInDoubt};
use parking_lot::Mutex;
use sip_net::clock;
use sip_net::poll::{Events, Poller, Waker};
use tracing::{debug, info, warn};

use crate::health::{Belief, Change, Evidence, Health, Patience, Reason};
use crate::service::Shared;
use crate::table::Table;

/// What is sent.
const PROBE: &[u8] = b"\r\n\r\n";
/// Datagrams of one member that one look takes.
const ANSWERS_PER_LOOK: usize = 8;
/// Members of which the threads may have bad news at one time; more say nothing new.
const NEWS_MAX: usize = 1_024;

/// How often members are asked, and when silence counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// From one probe to the next.
    pub interval: Duration,
    /// Unanswered probes in a row that make a member suspect.
    pub suspect_missed: u32,
    /// And that make it dead.
    pub dead_missed: u32,
}

impl Default for Probing {
    fn default() -> Self {
        Self { interval: Duration::from_millis(200), suspect_missed: 2, dead_missed: 10 }
    }
}

/// What the threads tell the prober, and the prober the node.
#[derive(Debug)]
pub(crate) struct Watch {
    waker: Waker,
    news: Mutex<BTreeMap<SocketAddr, Evidence>>,
    doubts: Mutex<Vec<MemberInDoubt>>,
    /// By belief, by reason.
    transitions: [[AtomicU64; Reason::ALL.len()]; Belief::ALL.len()],
}

impl Watch {
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            waker,
            news: Mutex::default(),
            doubts: Mutex::default(),
            transitions: Default::default(),
        }
    }

    /// A message to this member came back.
    pub(crate) fn tell(&self, member: SocketAddr, kind: io::ErrorKind) {
        let evidence = match kind {
            io::ErrorKind::ConnectionRefused => Evidence::MessageRefused,
            _ => Evidence::Unreachable,
        };
        let mut news = self.news.lock();
        let is_full = news.len() >= NEWS_MAX && !news.contains_key(&member);
        if !is_full && news.insert(member, evidence) != Some(evidence) {
            self.waker.wake();
        }
    }

    /// Something else has changed that the prober should look at.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Members that are not held to be alive.
    pub(crate) fn doubts(&self) -> Vec<MemberInDoubt> {
        self.doubts.lock().clone()
    }

    /// Label of the belief, label of the reason, how often.
    pub(crate) fn transitions(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        Belief::ALL.iter().zip(&self.transitions).flat_map(|(belief, row)| {
            let cells = Reason::ALL.iter().zip(row);
            cells.map(|(reason, total)| {
                (belief.as_str(), reason.as_str(), total.load(Ordering::Relaxed))
            })
        })
    }

    fn count(&self, change: Change) {
        let row = Belief::ALL.iter().zip(&self.transitions);
        for (_, row) in row.filter(|(belief, _)| **belief == change.belief) {
            let cell = Reason::ALL.iter().zip(row).find(|(reason, _)| **reason == change.reason);
            if let Some((_, total)) = cell {
                total.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Starts the thread.
pub(crate) fn start(
    shared: Arc<Shared>,
    poller: Poller,
    local: IpAddr,
    probing: Probing,
) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let mut prober = Prober {
            table: shared.tables.current(),
            version: u64::MAX,
            shared,
            poller,
            local,
            probing,
            probes: BTreeMap::new(),
            lives: BTreeMap::new(),
            last_token: 0,
        };
        if let Err(error) = prober.run() {
            warn!(%error, "members are not watched any more");
        }
    };
    std::thread::Builder::new().name("balancer-probe".to_owned()).spawn(run)
}

/// A worker in one life of it.
type Life = (InstanceId, u16, Incarnation, SocketAddr);

const fn life(member: &Member) -> Life {
    (member.instance, member.worker, member.incarnation, member.address)
}

struct Prober {
    shared: Arc<Shared>,
    poller: Poller,
    local: IpAddr,
    probing: Probing,
    table: Arc<Table>,
    version: u64,
    probes: BTreeMap<Life, Probe>,
    /// Whose socket a token is.
    lives: BTreeMap<u64, Life>,
    last_token: u64,
}

struct Probe {
    socket: UdpSocket,
    token: u64,
    /// Its place in the table.
    member: usize,
    health: Health,
    changed_at_ms: u64,
}

impl Prober {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::default();
        let mut next_round = clock::now();
        while !self.shared.is_stopping.load(Ordering::Acquire) {
            let now = clock::now();
            self.renew();
            if now >= next_round {
                self.round();
                next_round = now + self.probing.interval;
            }
            self.take_news();
            self.poller.wait(Some(until(next_round)), &mut events)?;
            for token in events.tokens() {
                if let Some(life) = self.lives.get(&token).copied() {
                    self.listen(&life);
                }
            }
        }
        Ok(())
    }

    /// Follows the table. Whoever is in a newer generation may come back; beliefs go over to it.
    fn renew(&mut self) {
        let version = self.shared.tables.version();
        if version == self.version {
            return;
        }
        self.version = version;
        self.table = self.shared.tables.current();
        let members: Vec<Member> = {
            let membership = self.table.membership.as_ref();
            membership.into_iter().flat_map(Membership::every_proxy).copied().collect()
        };
        let mut old = std::mem::take(&mut self.probes);
        for (place, member) in members.iter().enumerate() {
            let known = old.remove(&life(member));
            let mut probe = match known.map_or_else(|| self.open(member), Ok) {
                Ok(probe) => probe,
                Err(error) => {
                    debug!(address = %member.address, %error, "no probe");
                    continue;
                }
            };
            probe.member = place;
            let change = probe.health.pardon();
            self.table.believe(place, probe.health.belief());
            self.probes.insert(life(member), probe);
            self.note(&life(member), change);
        }
        for gone in old.into_values() {
            self.lives.remove(&gone.token);
        }
        self.report();
    }

    fn open(&mut self, member: &Member) -> io::Result<Probe> {
        let socket = UdpSocket::bind((self.local, 0))?;
        socket.connect(member.address)?;
        socket.set_nonblocking(true)?;
        self.last_token += 1;
        let token = self.last_token;
        self.poller.add(&socket, token)?;
        self.lives.insert(token, life(member));
        Ok(Probe { socket, token, member: 0, health: Health::default(), changed_at_ms: 0 })
    }

    /// Asks everybody, after everything that has come was heard.
    fn round(&mut self) {
        let lives: Vec<Life> = self.probes.keys().copied().collect();
        for life in &lives {
            self.listen(life);
        }
        let answering = self.probes.values().filter(|one| one.health.is_answering()).count();
        let patience = Patience {
            suspect_missed: self.probing.suspect_missed,
            dead_missed: self.probing.dead_missed,
        };
        for life in &lives {
            let Some(probe) = self.probes.get_mut(life) else { continue };
            let others = answering - usize::from(probe.health.is_answering());
            let change = probe.health.ask(patience, others > 0);
            self.note(life, change);
            self.send(life);
        }
        self.report();
    }

    /// What the threads heard.
    fn take_news(&mut self) {
        let news = std::mem::take(&mut *self.shared.watch.news.lock());
        for (address, evidence) in news {
            let named = self.probes.keys().find(|life| life.3 == address).copied();
            if let Some(life) = named {
                self.hear(&life, evidence);
            }
        }
    }

    /// Everything that has come from one member.
    fn listen(&mut self, life: &Life) {
        let mut scratch = [0; 64];
        for _ in 0..ANSWERS_PER_LOOK {
            let Some(probe) = self.probes.get(life) else { return };
            let evidence = match probe.socket.recv(&mut scratch) {
                Ok(_) => Evidence::Answer,
                Err(error) => match evidence_of(error.kind()) {
                    Some(evidence) => evidence,
                    None => return,
                },
            };
            self.hear(life, evidence);
        }
    }

    fn send(&mut self, life: &Life) {
        // The first call may report what became of the last probe, and then sends nothing.
        for _ in 0..2 {
            let Some(probe) = self.probes.get(life) else { return };
            match probe.socket.send(PROBE).map_err(|error| evidence_of(error.kind())) {
                Err(Some(evidence)) => {
                    // Not `hear`: that would ask again from here.
                    let change = self.probes.get_mut(life).and_then(|it| it.health.hear(evidence));
                    self.note(life, change);
                }
                Ok(_) | Err(None) => return,
            }
        }
    }

    fn hear(&mut self, life: &Life, evidence: Evidence) {
        let Some(probe) = self.probes.get_mut(life) else { return };
        let was_urgent = probe.health.is_urgent();
        let change = probe.health.hear(evidence);
        let is_urgent = probe.health.is_urgent() && !was_urgent;
        self.note(life, change);
        if change.is_some() {
            self.report();
        }
        if is_urgent {
            self.send(life);
        }
    }

    /// Makes a change known.
    fn note(&mut self, life: &Life, change: Option<Change>) {
        let (Some(change), Some(probe)) = (change, self.probes.get_mut(life)) else { return };
        probe.changed_at_ms = clock::unix_millis();
        self.table.believe(probe.member, change.belief);
        self.shared.watch.count(change);
        let (instance, worker, _, address) = life;
        let (belief, reason) = (change.belief.as_str(), change.reason.as_str());
        match change.belief {
            Belief::Alive => info!(%instance, worker, %address, reason, "a member is back"),
            _ => warn!(%instance, worker, %address, belief, reason, "a member is in doubt"),
        }
    }

    /// What the manager reads.
    fn report(&self) {
        let doubtful = self.probes.iter().filter(|(_, one)| one.health.belief() != Belief::Alive);
        let doubts = doubtful.map(|(life, one)| MemberInDoubt {
            instance: life.0,
            worker: life.1,
            incarnation: life.2.0,
            is_dead: one.health.belief() == Belief::Dead,
            reason: match one.health.reason() {
                Some(Reason::Refused) => DoubtReason::Refused,
                Some(Reason::Unreachable) => DoubtReason::Unreachable,
                _ => DoubtReason::Silent,
            },
            answers: one.health.is_answering(),
            since_ms: one.changed_at_ms,
        });
        *self.shared.watch.doubts.lock() = doubts.collect();
    }
}

fn until(moment: Instant) -> Duration {
    moment.saturating_duration_since(clock::now())
}

/// What a probe's socket says by failing; nothing, if that is no fault of the peer.
const fn evidence_of(kind: io::ErrorKind) -> Option<Evidence> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some(Evidence::ProbeRefused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(Evidence::Unreachable)
        }
        _ => None,
    }
}
