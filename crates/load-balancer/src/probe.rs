//! Who is dead: a port on which nobody listens says so by ICMP, and only a connected socket hears.
//!
//! Each member gets an empty line every 250 ms, which no parser answers. A refused one is evidence;
//! silence is none.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use sip_net::poll::{Events, Poller, Waker};
use tracing::{debug, warn};

use crate::service::Shared;
use crate::table::Table;

const INTERVAL: Duration = Duration::from_millis(250);
/// Refusals in a row before a member is skipped: one may have been a restart in between.
const REFUSALS: u32 = 2;
/// What is sent: what RFC 5626 §4.4.1 sends over streams, and ignored over UDP.
const PROBE: &[u8] = b"\r\n\r\n";

/// Starts the thread; the waker ends its wait.
pub(crate) fn start(shared: Arc<Shared>, local: IpAddr) -> io::Result<(Waker, JoinHandle<()>)> {
    let poller = Poller::new()?;
    let waker = poller.waker();
    let run = move || {
        let mut prober = Prober { local, sockets: BTreeMap::new() };
        let mut events = Events::default();
        while !shared.is_stopping.load(Ordering::Acquire) {
            prober.round(&shared.tables.current());
            if poller.wait(Some(INTERVAL), &mut events).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("balancer-probe".to_owned()).spawn(run)?;
    Ok((waker, thread))
}

struct Prober {
    local: IpAddr,
    sockets: BTreeMap<SocketAddr, Probe>,
}

struct Probe {
    socket: UdpSocket,
    refusals: u32,
}

impl Prober {
    fn round(&mut self, table: &Table) {
        self.sockets.retain(|address, _| table.directory.at(*address).is_some());
        for member in 0..table.directory.len() {
            let Some(address) = table.directory.address(member) else { continue };
            if !self.sockets.contains_key(&address) {
                match Probe::new(self.local, address) {
                    Ok(probe) => drop(self.sockets.insert(address, probe)),
                    Err(error) => debug!(%address, %error, "no probe"),
                }
            }
            let Some(probe) = self.sockets.get_mut(&address) else { continue };
            if probe.is_refused_again() && table.mark_dead(member) {
                warn!(%address, "nobody listens there any more; skipped until the next generation");
            }
        }
    }
}

impl Probe {
    fn new(local: IpAddr, member: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((local, 0))?;
        socket.connect(member)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, refusals: 0 })
    }

    fn is_refused_again(&mut self) -> bool {
        // The answer to the last probe, then the next one; either call may report the refusal.
        let mut scratch = [0; 64];
        let heard = self.socket.recv(&mut scratch).map(|_| ());
        let sent = self.socket.send(PROBE).map(|_| ());
        let is_refused = [heard, sent].iter().any(|outcome| {
            outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        });
        self.refusals = if is_refused { self.refusals + 1 } else { 0 };
        self.refusals >= REFUSALS
    }
}
