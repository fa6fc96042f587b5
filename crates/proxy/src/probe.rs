//! Asks every balancer four times a second whether it is there, and tells the workers who is not.
//!
//! The question is an OPTIONS that no hop may forward: the balancer answers it itself, by the threads
//! that carry its calls. A connected socket also hears if nobody listens; so do the workers' own, and
//! sooner.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sip_net::clock;
use sip_net::poll::{Events, Poller, Waker};

use crate::balancers::{Health, Sign, Unwell, Vitals};
use crate::control::Control;

const INTERVAL: Duration = Duration::from_millis(250);
/// For how long one that is dead and gone from the membership is remembered, in rounds: ten minutes.
/// No transaction that names it is older.
const ROUNDS_OF_A_GONE: u32 = 2_400;

/// Starts the thread. `workers` are woken when anything changes.
pub(crate) fn start(
    control: Arc<Control>,
    local: IpAddr,
    workers: Vec<Waker>,
) -> io::Result<JoinHandle<()>> {
    let poller = Poller::new()?;
    control.set_prober(poller.waker());
    let run = move || {
        let mut prober = Prober { local, rounds: 0, peers: BTreeMap::new() };
        let mut events = Events::default();
        let mut next = clock::now();
        while !control.is_stopping() {
            prober.take_refusals(&control);
            let now = clock::now();
            if now >= next {
                next = now + INTERVAL;
                prober.round(&control);
            }
            if control.put_unwell(prober.unwell()) {
                workers.iter().for_each(Waker::wake);
            }
            let patience = next.saturating_duration_since(clock::now());
            if poller.wait(Some(patience), &mut events).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("proxy-probe".to_owned()).spawn(run)
}

struct Prober {
    local: IpAddr,
    rounds: u64,
    peers: BTreeMap<SocketAddr, Peer>,
}

struct Peer {
    socket: UdpSocket,
    vitals: Vitals,
    was_asked: bool,
    /// For how many rounds it has been dead and no member.
    gone: u32,
}

impl Prober {
    /// What the workers have heard from the network: the balancer is asked again at once.
    fn take_refusals(&mut self, control: &Control) {
        let rounds = self.rounds;
        for balancer in control.take_refusals() {
            if let Some(peer) = self.peers.get_mut(&balancer) {
                peer.note(balancer, Sign::Refusal);
                peer.ask(balancer, rounds);
            }
        }
    }

    fn unwell(&self) -> Unwell {
        let health = |(address, peer): (&SocketAddr, &Peer)| (*address, peer.vitals.health());
        self.peers.iter().map(health).filter(|(_, health)| *health != Health::Well).collect()
    }

    /// What the last round's probes have brought, and the next ones.
    fn round(&mut self, control: &Control) {
        self.rounds += 1;
        let membership = control.membership();
        let members = membership.iter().flat_map(|known| &known.balancers);
        for balancer in members {
            if let std::collections::btree_map::Entry::Vacant(place) =
                self.peers.entry(balancer.internal)
            {
                match Peer::new(self.local, balancer.internal) {
                    Ok(peer) => drop(place.insert(peer)),
                    Err(error) => {
                        tracing::debug!(balancer = %balancer.internal, %error, "no probe");
                    }
                }
            }
        }
        let is_member = |address: &SocketAddr| {
            let members = membership.iter().flat_map(|known| &known.balancers);
            members.into_iter().any(|balancer| balancer.internal == *address)
        };
        let rounds = self.rounds;
        self.peers.retain(|address, peer| {
            peer.look(*address);
            peer.ask(*address, rounds);
            // One that is no member any more and answers is as good as ever to whom it brought.
            let is_gone = peer.vitals.health() == Health::Dead && !is_member(address);
            peer.gone = if is_gone { peer.gone + 1 } else { 0 };
            peer.gone < ROUNDS_OF_A_GONE
        });
    }
}

impl Peer {
    fn new(local: IpAddr, balancer: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((local, 0))?;
        socket.connect(balancer)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, vitals: Vitals::default(), was_asked: false, gone: 0 })
    }

    /// What has come since the last probe.
    fn look(&mut self, balancer: SocketAddr) {
        if !self.was_asked {
            return;
        }
        let mut scratch = [0; 1_024];
        let mut sign = Sign::Silence;
        // Late answers count as well, and must not pile up.
        for _ in 0..8 {
            match self.socket.recv(&mut scratch) {
                Ok(_) => sign = Sign::Answer,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    sign = Sign::Refusal;
                    break;
                }
                Err(_) => break,
            }
        }
        self.note(balancer, sign);
    }

    fn note(&mut self, balancer: SocketAddr, sign: Sign) {
        let before = self.vitals.health();
        self.vitals.note(sign);
        let after = self.vitals.health();
        if before != after {
            tracing::warn!(%balancer, ?before, ?after, "health of a balancer");
        }
    }

    fn ask(&mut self, balancer: SocketAddr, round: u64) {
        let Ok(local) = self.socket.local_addr() else { return };
        let probe = format!(
            "OPTIONS sip:{balancer} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bKprobe{round};rport\r\n\
             Max-Forwards: 0\r\nFrom: <sip:{local}>;tag={round}\r\nTo: <sip:{balancer}>\r\n\
             Call-ID: {round}@{local}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        // A refusal of the last probe may be reported here: the next look would miss it.
        self.was_asked = true;
        if let Err(error) = self.socket.send(probe.as_bytes())
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            self.note(balancer, Sign::Refusal);
        }
    }
}
