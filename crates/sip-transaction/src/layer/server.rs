//! Server transactions: requests that came in, and the responses of the user.

use std::time::Instant;

use bytes::Bytes;
use sip_message::StatusCode;

use super::Layer;
use crate::key::ServerKey;
use crate::limits::PATHS_MAX;
use crate::output::{AckVerdict, Answer, Event, Kind, Origin, Outcome, ServerId, ServerStep, Sink};
use crate::schedule::Scheduled;
use crate::server_invite::InviteServer;
use crate::server_non_invite::NonInviteServer;
use crate::table::TableFull;
use crate::timers::{At, Reliability, Timing};

/// One server transaction and what it needs from the layer.
pub(super) struct Server<D> {
    machine: Machine,
    reliability: Reliability,
    pub(super) scheduled: Scheduled,
    /// The way of the first request, and those that joined it.
    first: Path<D>,
    joined: Vec<Path<D>>,
}

/// A receiver of responses: the same transaction by another Via.
struct Path<D> {
    key: ServerKey,
    reply_to: D,
    last_response: Option<Bytes>,
}

enum Machine {
    Invite(InviteServer),
    NonInvite(NonInviteServer),
}

impl Machine {
    fn handle_timeout(&mut self, at: At<'_>) -> ServerStep {
        match self {
            Self::Invite(machine) => machine.handle_timeout(at),
            Self::NonInvite(machine) => machine.handle_timeout(at),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Invite(machine) => machine.poll_timeout(),
            Self::NonInvite(machine) => machine.poll_timeout(),
        }
    }

    fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(machine) => machine.is_terminated(),
            Self::NonInvite(machine) => machine.is_terminated(),
        }
    }
}

impl<D> Server<D> {
    fn at<'a>(&self, now: Instant, timing: &'a Timing) -> At<'a> {
        At { now, timing, reliability: self.reliability }
    }

    pub(super) fn destinations(&self) -> impl Iterator<Item = &D> {
        self.paths().map(|path| &path.reply_to)
    }

    fn paths(&self) -> impl Iterator<Item = &Path<D>> {
        std::iter::once(&self.first).chain(&self.joined)
    }

    fn paths_mut(&mut self) -> impl Iterator<Item = &mut Path<D>> {
        std::iter::once(&mut self.first).chain(&mut self.joined)
    }

    fn perform(&self, step: ServerStep, id: ServerId, sink: &mut impl Sink<D>) {
        match step {
            ServerStep::Nothing => {}
            ServerStep::Repeat => {
                for path in self.paths() {
                    if let Some(response) = &path.last_response {
                        sink.transmit(&path.reply_to, response, Origin::Server(id));
                    }
                }
            }
            ServerStep::TimedOut => sink.event(Event::ServerTimedOut(id)),
            ServerStep::TransportFailed => sink.event(Event::ServerTransportFailed(id)),
        }
    }
}

impl<D: Clone> Layer<D> {
    /// A request that no transaction knows: it gets one. The user handles the request.
    ///
    /// # Errors
    ///
    /// [`TableFull`]: answer 503 statelessly.
    pub fn server_new(
        &mut self,
        key: ServerKey,
        kind: Kind,
        reliability: Reliability,
        reply_to: D,
    ) -> Result<ServerId, TableFull> {
        let machine = match kind {
            Kind::Invite => Machine::Invite(InviteServer::new()),
            Kind::NonInvite => Machine::NonInvite(NonInviteServer::new()),
        };
        let first = Path { key, reply_to, last_response: None };
        let scheduled = Scheduled::default();
        let server = Server { machine, reliability, scheduled, first, joined: Vec::new() };
        self.servers.insert(key.0, server).map(ServerId)
    }

    /// The transaction that `key` belongs to.
    pub fn server_find(&self, key: ServerKey) -> Option<ServerId> {
        self.servers.find(key.0).map(ServerId)
    }

    /// The request came again: the last response goes again, by every path that had one.
    pub fn server_handle_repeat(&mut self, id: ServerId, sink: &mut impl Sink<D>) {
        let Some(server) = self.servers.get(id.0) else {
            return;
        };
        let step = match &server.machine {
            Machine::Invite(machine) => machine.handle_repeat(),
            Machine::NonInvite(machine) => machine.handle_repeat(),
        };
        server.perform(step, id, sink);
    }

    /// What [`Self::server_handle_repeat`] would send to the first receiver: for a user who answers
    /// a repetition by the Vias that *it* came with, because another balancer brought it or the
    /// client has a new connection.
    pub fn server_last_response(&self, id: ServerId) -> Option<&Bytes> {
        let server = self.servers.get(id.0)?;
        let step = match &server.machine {
            Machine::Invite(machine) => machine.handle_repeat(),
            Machine::NonInvite(machine) => machine.handle_repeat(),
        };
        matches!(step, ServerStep::Repeat).then_some(server.first.last_response.as_ref()).flatten()
    }

    /// An ACK with the key of this transaction.
    pub fn server_handle_ack(
        &mut self,
        now: Instant,
        id: ServerId,
        sink: &mut impl Sink<D>,
    ) -> AckVerdict {
        let Some(server) = self.servers.get_mut(id.0) else {
            return AckVerdict::Absorb;
        };
        let at = server.at(now, &self.timing);
        let verdict = match &mut server.machine {
            Machine::Invite(machine) => machine.handle_ack(at),
            Machine::NonInvite(_) => AckVerdict::Absorb,
        };
        self.settle_server(id, sink);
        verdict
    }

    /// A request of a client that failed over joins the live transaction of its twin: it is found
    /// by `key` too, and its sender gets every later response at `reply_to`.
    ///
    /// # Errors
    ///
    /// [`TableFull`]: more than [`PATHS_MAX`] paths, or the transaction is gone.
    pub fn server_add_path(
        &mut self,
        id: ServerId,
        key: ServerKey,
        reply_to: D,
    ) -> Result<(), TableFull> {
        let server = self.servers.get_mut(id.0).ok_or(TableFull)?;
        if server.paths().count() >= PATHS_MAX {
            return Err(TableFull);
        }
        server.joined.push(Path { key, reply_to, last_response: None });
        self.servers.add_key(key.0, id.0);
        Ok(())
    }

    /// How many receivers the responses have: 1, unless requests joined.
    pub fn server_paths(&self, id: ServerId) -> usize {
        self.servers.get(id.0).map_or(0, |server| server.paths().count())
    }

    /// The user answers a transaction that nobody joined. A response that comes too late for the
    /// state of the transaction is ignored. If others joined, only the first receiver hears this:
    /// use [`Self::server_respond_each`].
    pub fn server_respond(
        &mut self,
        now: Instant,
        id: ServerId,
        status: StatusCode,
        response: Bytes,
        sink: &mut impl Sink<D>,
    ) {
        let mut once = Some(response);
        self.server_respond_each(now, id, status, |_, _| once.take(), sink);
    }

    /// The user answers every receiver: `render` makes the response for the path of that number (0
    /// is the first request's, the others as they joined), each with its own Vias; `None` leaves
    /// one out.
    pub fn server_respond_each(
        &mut self,
        now: Instant,
        id: ServerId,
        status: StatusCode,
        mut render: impl FnMut(usize, &D) -> Option<Bytes>,
        sink: &mut impl Sink<D>,
    ) {
        let Some(server) = self.servers.get_mut(id.0) else {
            return;
        };
        let at = server.at(now, &self.timing);
        let outcome = Outcome::of(status);
        let answer = match &mut server.machine {
            Machine::Invite(machine) => machine.respond(at, outcome),
            Machine::NonInvite(machine) => machine.respond(at, outcome),
        };
        if answer == Answer::Ignore {
            return;
        }
        for (number, path) in server.paths_mut().enumerate() {
            let response = render(number, &path.reply_to);
            if let Some(response) = &response {
                sink.transmit(&path.reply_to, response, Origin::Server(id));
            }
            path.last_response = match answer {
                Answer::SendAndKeep => response.or_else(|| path.last_response.take()),
                Answer::Send | Answer::Ignore => None,
            };
        }
        self.settle_server(id, sink);
    }

    /// A response of this transaction could not be sent.
    pub fn server_transport_error(&mut self, id: ServerId, sink: &mut impl Sink<D>) {
        let Some(server) = self.servers.get_mut(id.0) else {
            return;
        };
        let step = match &mut server.machine {
            Machine::Invite(machine) => machine.handle_transport_error(),
            Machine::NonInvite(machine) => machine.handle_transport_error(),
        };
        server.perform(step, id, sink);
        self.settle_server(id, sink);
    }

    /// The user gives up a transaction that it will not answer. No event follows.
    pub fn server_abandon(&mut self, id: ServerId) {
        self.remove_server(id);
    }

    /// An entry of the schedule came up.
    pub(super) fn wake_server(
        &mut self,
        now: Instant,
        entry: Instant,
        id: ServerId,
        sink: &mut impl Sink<D>,
    ) {
        let Some(server) = self.servers.get_mut(id.0) else {
            return;
        };
        if !server.scheduled.take_if(entry) {
            return;
        }
        let at = server.at(now, &self.timing);
        while server.machine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let step = server.machine.handle_timeout(at);
            server.perform(step, id, sink);
        }
        self.settle_server(id, sink);
    }

    /// After a machine has moved: it is woken when it wants to be, or it goes.
    fn settle_server(&mut self, id: ServerId, sink: &mut impl Sink<D>) {
        let Some(server) = self.servers.get_mut(id.0) else {
            return;
        };
        if server.machine.is_terminated() {
            self.remove_server(id);
            sink.event(Event::ServerTerminated(id));
            return;
        }
        let deadline = server.machine.poll_timeout();
        self.schedule.wake(Origin::Server(id), &mut server.scheduled, deadline);
    }

    fn remove_server(&mut self, id: ServerId) {
        if let Some(server) = self.servers.remove(id.0) {
            for path in server.paths() {
                self.servers.drop_key(path.key.0, id.0);
            }
        }
        self.tidy_schedule();
    }
}
