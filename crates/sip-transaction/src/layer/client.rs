//! Client transactions: requests of ours, and the responses that came.

use std::time::Instant;

use bytes::Bytes;
use sip_message::{Framing, Index, Message, parse, write_ack};

use super::Layer;
use crate::client_invite::InviteClient;
use crate::client_non_invite::NonInviteClient;
use crate::key::ClientKey;
use crate::output::{ClientId, ClientStep, ClientVerdict, Event, Kind, Origin, Outcome, Sink};
use crate::schedule::Scheduled;
use crate::table::TableFull;
use crate::timers::{At, Reliability, Timing};

/// One client transaction and what it needs from the layer.
pub(super) struct Client<D> {
    machine: Machine,
    reliability: Reliability,
    pub(super) scheduled: Scheduled,
    key: ClientKey,
    to: D,
    request: Bytes,
}

enum Machine {
    Invite(InviteClient),
    NonInvite(NonInviteClient),
}

impl Machine {
    fn new(kind: Kind, at: At<'_>) -> Self {
        match kind {
            Kind::Invite => Self::Invite(InviteClient::new(at)),
            Kind::NonInvite => Self::NonInvite(NonInviteClient::new(at)),
        }
    }

    fn handle_timeout(&mut self, at: At<'_>) -> ClientStep {
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

impl<D> Client<D> {
    pub(super) fn destination(&self) -> &D {
        &self.to
    }

    fn at<'a>(&self, now: Instant, timing: &'a Timing) -> At<'a> {
        At { now, timing, reliability: self.reliability }
    }

    fn perform(&self, step: ClientStep, id: ClientId, sink: &mut impl Sink<D>) -> ClientVerdict {
        let origin = Origin::Client(id);
        match step {
            ClientStep::Nothing => {}
            ClientStep::Repeat => sink.transmit(&self.to, &self.request, origin),
            ClientStep::Acknowledge(ack) => sink.transmit(&self.to, &ack, origin),
            ClientStep::TimedOut => sink.event(Event::ClientTimedOut(id)),
            ClientStep::TransportFailed => sink.event(Event::ClientTransportFailed(id)),
            ClientStep::Deliver => return ClientVerdict::Deliver,
            ClientStep::AcknowledgeAndDeliver(ack) => {
                sink.transmit(&self.to, &ack, origin);
                return ClientVerdict::Deliver;
            }
        }
        ClientVerdict::Absorb
    }
}

impl<D: Clone> Layer<D> {
    /// Starts a transaction: `request` is transmitted at once. `key` is [`ClientKey::of`] it.
    ///
    /// # Errors
    ///
    /// [`TableFull`]: nothing was sent.
    #[expect(clippy::too_many_arguments, reason = "each is of its own type, and used once")]
    pub fn client_new(
        &mut self,
        now: Instant,
        key: ClientKey,
        kind: Kind,
        request: Bytes,
        to: D,
        reliability: Reliability,
        sink: &mut impl Sink<D>,
    ) -> Result<ClientId, TableFull> {
        let at = At { now, timing: &self.timing, reliability };
        let machine = Machine::new(kind, at);
        let scheduled = Scheduled::default();
        let client = Client { machine, reliability, scheduled, key, to, request };
        let id = self.clients.insert(key.0, client).map(ClientId)?;
        if let Some(client) = self.clients.get(id.0) {
            sink.transmit(&client.to, &client.request, Origin::Client(id));
        }
        self.settle_client(id, sink);
        Ok(id)
    }

    /// The transaction that `key` belongs to.
    pub fn client_find(&self, key: ClientKey) -> Option<ClientId> {
        self.clients.find(key.0).map(ClientId)
    }

    /// The request that a client transaction sent: for its CANCEL (RFC 3261 §9.1).
    pub fn client_request(&self, id: ClientId) -> Option<&Bytes> {
        self.clients.get(id.0).map(|client| &client.request)
    }

    /// Where a client transaction sends to.
    pub fn client_destination(&self, id: ClientId) -> Option<&D> {
        self.clients.get(id.0).map(|client| &client.to)
    }

    /// A response matched this transaction. The ACK to a non-2xx is sent from here; the ACK to a
    /// 2xx is the user's.
    pub fn client_handle_response(
        &mut self,
        now: Instant,
        id: ClientId,
        response: &Message<'_>,
        sink: &mut impl Sink<D>,
    ) -> ClientVerdict {
        let (Some(client), Some(status)) = (self.clients.get_mut(id.0), response.status()) else {
            return ClientVerdict::Absorb;
        };
        let at = client.at(now, &self.timing);
        let outcome = Outcome::of(status);
        let step = match &mut client.machine {
            Machine::Invite(machine) => machine.handle_response(at, outcome, || {
                ack_for(&client.request, response, &mut self.index)
            }),
            Machine::NonInvite(machine) => machine.handle_response(at, outcome),
        };
        let verdict = client.perform(step, id, sink);
        self.settle_client(id, sink);
        verdict
    }

    /// A message of this transaction could not be sent.
    pub fn client_transport_error(&mut self, id: ClientId, sink: &mut impl Sink<D>) {
        let Some(client) = self.clients.get_mut(id.0) else {
            return;
        };
        let step = match &mut client.machine {
            Machine::Invite(machine) => machine.handle_transport_error(),
            Machine::NonInvite(machine) => machine.handle_transport_error(),
        };
        // Neither machine delivers a message here.
        let _: ClientVerdict = client.perform(step, id, sink);
        self.settle_client(id, sink);
    }

    /// The user does not want the transaction any longer, as after Timer C. No event follows.
    pub fn client_abandon(&mut self, id: ClientId) {
        self.remove_client(id);
    }

    /// An entry of the schedule came up.
    pub(super) fn wake_client(
        &mut self,
        now: Instant,
        entry: Instant,
        id: ClientId,
        sink: &mut impl Sink<D>,
    ) {
        let Some(client) = self.clients.get_mut(id.0) else {
            return;
        };
        if !client.scheduled.take_if(entry) {
            return;
        }
        let at = client.at(now, &self.timing);
        while client.machine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let step = client.machine.handle_timeout(at);
            let _: ClientVerdict = client.perform(step, id, sink);
        }
        self.settle_client(id, sink);
    }

    /// After a machine has moved: it is woken when it wants to be, or it goes.
    fn settle_client(&mut self, id: ClientId, sink: &mut impl Sink<D>) {
        let Some(client) = self.clients.get_mut(id.0) else {
            return;
        };
        if client.machine.is_terminated() {
            self.remove_client(id);
            sink.event(Event::ClientTerminated(id));
            return;
        }
        let deadline = client.machine.poll_timeout();
        self.schedule.wake(Origin::Client(id), &mut client.scheduled, deadline);
    }

    fn remove_client(&mut self, id: ClientId) {
        if let Some(client) = self.clients.remove(id.0) {
            self.clients.drop_key(client.key.0, id.0);
        }
        self.tidy_schedule();
    }
}

/// The ACK to a non-2xx response (RFC 3261 §17.1.1.3). The INVITE is our own; should it not parse
/// all the same, the ACK is empty, which every receiver takes for a keep-alive.
fn ack_for(invite: &Bytes, response: &Message<'_>, index: &mut Index) -> Bytes {
    let mut ack = Vec::with_capacity(invite.len());
    if let Ok(invite) = parse(invite, index, Framing::Datagram) {
        write_ack(&invite, response, &mut ack);
    }
    ack.into()
}
