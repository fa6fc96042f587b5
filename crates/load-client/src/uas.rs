//! The callees: they ring, answer, wait for the ACK and say goodbye, each user at a fixed address or
//! registered through the service under test.

mod call;
mod registration;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sip_message::{Message, Transport};
use sip_net::clock;
use sip_transaction::{Event, Layer, Limits, Origin, Timing};

use crate::connections::ConnectionCounts;
use crate::destinations::{Destinations, Service};
use crate::endpoint::{Agent, Endpoint, Outbox, Way};
use crate::plan::{Credentials, Retransmission, Stop};
use crate::report::OwnLosses;
use call::Calls;
use registration::Registrar;

/// Transactions of each side at most.
const TRANSACTIONS_MAX: usize = 2_000_000;

/// How callees behave.
#[derive(Clone, Debug)]
pub struct UasOptions {
    /// Addresses to listen on, a socket for each; registered users are spread over them.
    pub local: Vec<SocketAddr>,
    /// UDP or TCP; `None`: what the registration's name leads to, otherwise UDP.
    pub transport: Option<Transport>,
    pub domain: String,
    /// Who registers, and whose credentials are right if callers are challenged.
    pub users: Vec<Credentials>,
    /// `None`: the callees are direct, and everybody who calls `local` reaches them.
    pub registration: Option<Registration>,
    /// Zero: the 200 follows the 180 at once.
    pub ring_for: Duration,
    /// Users that ring for another time.
    pub rings: HashMap<String, Duration>,
    /// A status to refuse every call with, instead of answering.
    pub refuse_with: Option<u16>,
    /// Realm in which INVITE and BYE are challenged by the callee itself, for tests without a
    /// server.
    pub challenge: Option<String>,
    /// Whether the 200 to an INVITE is repeated until its ACK. (Requests that are repeated to us
    /// are always absorbed.)
    pub retransmission: Retransmission,
    pub timing: Timing,
}

impl UasOptions {
    /// Callees at fixed addresses that answer at once.
    pub fn direct(local: Vec<SocketAddr>, domain: &str) -> Self {
        Self {
            local,
            transport: None,
            domain: domain.to_owned(),
            users: Vec::new(),
            registration: None,
            ring_for: Duration::ZERO,
            rings: HashMap::new(),
            refuse_with: None,
            challenge: None,
            retransmission: Retransmission::On,
            timing: Timing::RFC_3261,
        }
    }
}

/// Where and how callees register.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Each user stays with one of them as long as it answers: its Path leads through it.
    pub targets: Vec<SocketAddr>,
    /// In place of targets: a name that leads to them.
    pub service: Option<Service>,
    /// What is asked for; refreshed after half of what is granted.
    pub expires: Duration,
    /// REGISTER requests started per second.
    pub per_second: f64,
}

impl Registration {
    /// For an hour, two hundred per second.
    pub fn at(targets: Vec<SocketAddr>) -> Self {
        let expires = Duration::from_secs(3_600);
        Self { targets, service: None, expires, per_second: 200.0 }
    }
}

/// What callees have seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UasCounters {
    /// INVITEs that passed the challenge, if there is one; repetitions not counted.
    pub calls: u64,
    pub answered: u64,
    /// Calls whose ACK came.
    pub confirmed: u64,
    pub refused: u64,
    pub cancelled: u64,
    /// Calls that a BYE ended.
    pub ended: u64,
    /// Calls whose 200 was repeated for 64·T1 without an ACK.
    pub unacknowledged: u64,
    /// Users that hold a binding now.
    pub registered: u64,
    /// REGISTER requests that were refused or not answered.
    pub registration_failures: u64,
    /// Users that registered anew because their target was dead or their connection had ended.
    pub failed_over: u64,
    /// The longest that a user was without a binding that we know to lead here, once it had one.
    pub longest_unregistered: Duration,
    /// Of streams; over UDP all zero.
    pub connections: ConnectionCounts,
    pub own: OwnLosses,
}

/// Running callees. Dropping it stops them.
#[derive(Debug)]
pub struct Uas {
    addresses: Vec<SocketAddr>,
    stop: Stop,
    board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

/// Where the thread writes its counters for the others.
#[derive(Debug, Default)]
struct Board {
    counters: Mutex<UasCounters>,
    changed: Condvar,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, UasCounters> {
        // Counters are whole whatever happened to the writer.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uas {
    /// Binds the sockets and starts the thread.
    ///
    /// # Errors
    ///
    /// An address is not this machine's, or taken; the registration's name leads nowhere.
    pub fn start(options: UasOptions) -> io::Result<Self> {
        let destinations = match &options.registration {
            Some(Registration { service: Some(service), .. }) => {
                Destinations::named(service, options.transport)?
            }
            Some(Registration { targets, .. }) => Destinations::fixed(targets, options.transport),
            None => Destinations::fixed(&[], options.transport),
        };
        let mut endpoint = Endpoint::bind(&options.local, destinations.transport)?;
        let addresses = endpoint.addresses();
        let stop = Stop::new();
        let board = Arc::new(Board::default());
        let (told, written) = (stop.clone(), Arc::clone(&board));
        let now = clock::now();
        let mut callees = Callees::new(options, destinations, &addresses, told, written, now);
        let thread = std::thread::Builder::new().name("callees".to_owned()).spawn(move || {
            if let Err(error) = endpoint.run(&mut callees) {
                tracing::warn!(%error, "the callees stopped");
            }
        })?;
        Ok(Self { addresses, stop, board, thread: Some(thread) })
    }

    /// Where the callees listen, with the ports that were found for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn counters(&self) -> UasCounters {
        *self.board.lock()
    }

    /// Waits until `users` users are registered; false if that takes longer than `timeout`.
    pub fn wait_registered(&self, users: u64, timeout: Duration) -> bool {
        self.wait(timeout, |counters| counters.registered >= users)
    }

    /// Likewise until users have registered anew `times` times because their way in was dead.
    pub fn wait_failed_over(&self, times: u64, timeout: Duration) -> bool {
        self.wait(timeout, |counters| counters.failed_over >= times)
    }

    fn wait(&self, timeout: Duration, is_enough: impl Fn(&UasCounters) -> bool) -> bool {
        let waiting = |counters: &mut UasCounters| !is_enough(counters);
        let (counters, _) = self
            .board
            .changed
            .wait_timeout_while(self.board.lock(), timeout, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        is_enough(&counters)
    }

    /// Stops the callees and returns their last counters. Bindings are left to expire.
    pub fn stop(mut self) -> UasCounters {
        self.join();
        self.counters()
    }

    fn join(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed by the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Uas {
    fn drop(&mut self) {
        self.join();
    }
}

/// The agent of the callees' thread.
struct Callees {
    layer: Layer<Way>,
    calls: Calls,
    registrar: Registrar,
    counters: UasCounters,
    stop: Stop,
    board: Arc<Board>,
}

impl Callees {
    fn new(
        options: UasOptions,
        destinations: Destinations,
        addresses: &[SocketAddr],
        stop: Stop,
        board: Arc<Board>,
        now: Instant,
    ) -> Self {
        let limits = Limits { transactions_max: TRANSACTIONS_MAX };
        let run = format!("{:x}-{:x}", clock::unix_millis(), std::process::id());
        Self {
            // Nobody attacks a load client through its own hash table.
            layer: Layer::new(options.timing, limits, [0; 16]),
            calls: Calls::new(options.clone(), destinations.transport, run.clone()),
            registrar: Registrar::new(&options, destinations, addresses, run, now),
            counters: UasCounters::default(),
            stop,
            board,
        }
    }

    fn handle_events(&mut self, now: Instant, out: &mut Outbox) {
        for event in out.take_events() {
            match event {
                Event::ClientTimedOut(id) | Event::ClientTransportFailed(id) => {
                    self.registrar.unanswered(now, id, &self.layer, &mut self.counters);
                }
                // Server transactions end by themselves; the calls have timers of their own.
                Event::ClientTerminated(_)
                | Event::ServerTimedOut(_)
                | Event::ServerTransportFailed(_)
                | Event::ServerTerminated(_) => {}
            }
        }
    }
}

impl Agent for Callees {
    fn handle_message(&mut self, now: Instant, way: Way, message: &Message<'_>, out: &mut Outbox) {
        let (layer, counters) = (&mut self.layer, &mut self.counters);
        if message.is_request() {
            self.calls.handle_request(now, way, message, layer, counters, out);
        } else {
            self.registrar.handle_response(now, message, layer, counters, out);
        }
        self.handle_events(now, out);
    }

    fn handle_transport_error(&mut self, now: Instant, origin: Origin, out: &mut Outbox) {
        match origin {
            Origin::Client(id) => self.layer.client_transport_error(id, out),
            Origin::Server(id) => self.layer.server_transport_error(id, out),
        }
        self.handle_events(now, out);
    }

    fn handle_undelivered(&mut self, now: Instant, message: &Message<'_>, out: &mut Outbox) {
        // A lost response is the caller's to ask for again.
        if message.is_request()
            && let Some(id) = self.layer.client_find(self.layer.client_key(message))
        {
            self.layer.client_transport_error(id, out);
        }
        self.handle_events(now, out);
    }

    fn handle_peer_gone(&mut self, now: Instant, way: Way, out: &mut Outbox) {
        self.registrar.peer_gone(now, way, &mut self.layer, &mut self.counters, out);
        self.handle_events(now, out);
    }

    fn handle_time(&mut self, now: Instant, own: OwnLosses, out: &mut Outbox) {
        self.layer.handle_timeout(now, out);
        self.handle_events(now, out);
        self.calls.handle_time(now, &mut self.layer, &mut self.counters, out);
        self.registrar.handle_time(now, &mut self.layer, out);
        self.handle_events(now, out);
        self.counters.own = own;
        self.counters.connections = out.connections();
        *self.board.lock() = self.counters;
        self.board.changed.notify_all();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let timeouts =
            [self.layer.poll_timeout(), self.calls.poll_timeout(), self.registrar.poll_timeout()];
        timeouts.into_iter().flatten().min()
    }

    fn is_done(&self) -> bool {
        self.stop.is_stopped()
    }
}
