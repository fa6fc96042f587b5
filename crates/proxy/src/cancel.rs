//! The CANCEL of a branch (RFC 3261 §16.10), and where it goes if the phone is connected elsewhere by
//! now (protocol rule 23): a connection ends with its balancer, and the phone opens another one.
//!
//! ```text
//!   CANCEL ──430──► the phone's present binding ──► the same CANCEL over its flow
//!                      ▲          │ still the old one, or 430 again
//!                      └── 1 s ───┘ while the branch waits for its final response
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_core::flow_token::write_path;
use sip_core::target::{self, TargetReach};
use sip_message::{Framing, Index, StatusCode};
use sip_transaction::{ClientId, Kind};
use store::{Binding, Query};

use crate::context::{Context, ContextId, Stage};
use crate::leave::Way;
use crate::record_route::read_path_value;
use crate::worker::Worker;

/// How soon the present binding of a phone is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One branch of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BranchId {
    pub(crate) context: ContextId,
    pub(crate) branch: usize,
}

/// The CANCELs under way, and those that wait for their phone.
#[derive(Debug, Default)]
pub(crate) struct Cancels {
    clients: HashMap<ClientId, BranchId>,
    /// In order of time, since all wait equally long.
    waiting: VecDeque<(Instant, BranchId)>,
}

impl Cancels {
    /// When [`Worker::seek_phones`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// The transaction has ended.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }
}

impl Worker {
    pub(crate) fn cancel_branch(&mut self, id: ContextId, branch: usize) {
        let of = BranchId { context: id, branch };
        if let Some((cancel, way)) = self.write_cancel(of) {
            self.send_cancel(of, cancel, way);
        }
    }

    /// The CANCEL of a branch, as its INVITE went.
    fn write_cancel(&self, of: BranchId) -> Option<(Bytes, Way)> {
        let client = self.contexts.get(of.context)?.client(of.branch)?;
        let way = *self.layer.client_destination(client)?;
        let mut index = Index::new();
        let request = self.layer.client_request(client)?;
        let invite = sip_message::parse(request, &mut index, Framing::Datagram).ok()?;
        let mut cancel = Vec::with_capacity(512);
        sip_message::write_cancel(&invite, &mut cancel);
        Some((Bytes::from(cancel), way))
    }

    fn send_cancel(&mut self, of: BranchId, cancel: Bytes, way: Way) {
        let Some(key) = self.key_of_copy(&cancel) else { return };
        let (now, reliability) = (self.now, way.reliability());
        let (kind, wire) = (Kind::NonInvite, &mut self.wire);
        match self.layer.client_new(now, key, kind, cancel, way, reliability, wire) {
            Ok(client) => {
                self.cancels.clients.insert(client, of);
            }
            Err(_) => self.world.counters.drop_table_full.add(1),
        }
    }

    /// A CANCEL of ours was answered; `false`: it is none. What the phone says matters to nobody, for
    /// the INVITE's own final response ends the branch; unless the CANCEL did not reach it.
    pub(crate) fn take_cancel_answer(&mut self, client: ClientId, status: StatusCode) -> bool {
        let Some(of) = self.cancels.clients.get(&client).copied() else { return false };
        let fork = self.contexts.get_mut(of.context).and_then(|context| context.fork.as_mut());
        let Some(fork) = fork else { return true };
        let is_moved = &mut fork.branch_mut(of.branch).is_moved;
        if status == StatusCode::FLOW_FAILED {
            // The name of the transaction is needed again.
            self.layer.client_abandon(client);
            self.cancels.forget(client);
            if std::mem::replace(is_moved, true) {
                self.cancels.waiting.push_back((self.now + LOOK_AGAIN, of));
            } else {
                self.seek_phone(of);
            }
        } else if status.is_success() && *is_moved {
            fork.responses.handle_cancel_taken(self.now, of.branch);
            self.set_alarm(of.context);
        }
        true
    }

    /// Phones whose time to be looked for again has come.
    pub(crate) fn seek_phones(&mut self) {
        while self.cancels.waiting.front().is_some_and(|(at, _)| *at <= self.now) {
            if let Some((_, of)) = self.cancels.waiting.pop_front() {
                self.seek_phone(of);
            }
        }
    }

    /// Asks for the bindings of the phone of a branch that waits for its end.
    fn seek_phone(&mut self, of: BranchId) {
        let Some(context) = self.contexts.get(of.context) else { return };
        let waits = context.fork.as_ref().is_some_and(|it| it.responses.is_cancelling(of.branch));
        let target = context.target(of.branch).filter(|it| it.reach == TargetReach::Flow);
        let Some(aor) = target.filter(|_| waits).and_then(|target| target.aor.clone()) else {
            return;
        };
        // The context of the INVITE may have a query of its own under way.
        let mut asking = Context::without_transaction(&context.request, &context.arrival);
        asking.stage = Stage::Seeking { of };
        let id = self.contexts.insert(asking);
        self.submit(id, Query::Bindings { aor });
    }

    /// The bindings have come, or none if the store did not say.
    pub(crate) fn phone_found(&mut self, id: ContextId, of: BranchId, rows: &[Binding]) {
        self.forget(id);
        let target = self.contexts.get(of.context).and_then(|context| context.target(of.branch));
        let path = target.and_then(|target| {
            let present = target::present_binding(target, rows, self.today)?;
            present.path.first().filter(|path| Some(*path) != target.routes.first())
        });
        let moved = path.and_then(|path| self.redirect(of, path));
        match moved {
            Some((cancel, way)) => {
                self.world.counters.requests_forwarded.add(1);
                self.send_cancel(of, cancel, way);
            }
            None => self.cancels.waiting.push_back((self.now + LOOK_AGAIN, of)),
        }
    }

    /// The CANCEL of a branch to where `path` leads, in the name of the balancer that its INVITE went
    /// through: the phone knows the transaction by that (RFC 3261 §17.2.3).
    fn redirect(&self, of: BranchId, path: &[u8]) -> Option<(Bytes, Way)> {
        let ring = &self.world.ring;
        let (cancel, _) = self.write_cancel(of)?;
        let mut index = Index::new();
        let view = sip_message::parse(&cancel, &mut index, Framing::Datagram).ok()?;
        let first = view.routes().next()?.ok()?;
        let (before, _) = read_path_value(ring, first.value.text)?;
        let (now, flow) = read_path_value(ring, path)?;
        let mut route = Vec::with_capacity(96);
        write_path(ring, &flow, before, &mut route);
        let mut edits = sip_message::Edits::new();
        edits.replace(first.value.span, &route);
        let mut out = Vec::with_capacity(cancel.len() + 32);
        edits.apply(view.bytes(), &mut out);
        Some((Bytes::from(out), Way::Tier(now)))
    }
}
