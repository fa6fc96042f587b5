//! The copies of a request (RFC 3261 §16.6): which leave, how each is written, and what becomes of
//! the response context's wishes.

use std::collections::VecDeque;

use sip_core::branch::{
    MethodClass, ProxyBranch, ProxyVia, proxy_branch, write_proxy_via, write_sent_by,
};
use sip_core::reject::Reject;
use sip_core::response::{Action, BranchFailure, ContextKind, ContextTimers, ResponseContext};
use sip_core::route::{self, Routed};
use sip_core::target::{Target, TargetReach, TargetSet};
use sip_core::{forwarding, validation};
use sip_message::{Index, Message, Method, OwnedMessage, StatusCode, Transport, Uri};
use sip_net::resolve::{self, Resolution, ResolveRequest, Target as NextHop};
use sip_transaction::{ClientKey, Kind};
use store::{Binding, Query};

use crate::answer::Answer;
use crate::arrival::Arrival;
use crate::context::{Context, ContextId, Fork, Stage};
use crate::draft::Draft;
use crate::leave::Way;
use crate::record_route;
use crate::worker::{Worker, World};

impl Worker {
    /// The targets are known: the request leaves for the first of them. `routed`: its route, if it has
    /// just been read.
    pub(crate) fn fork(
        &mut self,
        id: ContextId,
        mut targets: TargetSet,
        routed: Option<&Routed<'_>>,
    ) {
        let now = self.now;
        let timers = self.context_timers();
        let Some(context) = self.contexts.get(id) else { return };
        let request = context.request.view();
        for target in &mut targets.targets {
            record_route::replace_gone_balancer(&self.world, request.call_id(), target);
        }
        if self.is_loop(&context.request.view(), &targets) {
            return self.refuse(id, &Reject::LoopDetected);
        }
        let Some(context) = self.contexts.get_mut(id) else { return };
        let view = context.request.view();
        let is_invite = matches!(view.method(), Some(Method::Invite));
        if is_invite && view.to_tag().is_none() {
            self.world.counters.calls.add(1);
        }
        let kind = if is_invite { ContextKind::Invite } else { ContextKind::NonInvite };
        let mut actions = Vec::new();
        let responses = ResponseContext::start(kind, &targets, timers, now, &mut actions);
        context.fork = Some(Fork { targets, responses, branches: Vec::new() });
        context.stage = Stage::Forwarding;
        self.perform_along(id, actions, routed);
        // Only now need the client repeat itself no more: before, nobody but we knew of its INVITE,
        // and we may die.
        self.send_trying(id);
        self.set_alarm(id);
    }

    /// Whether a Via of the request holds a branch that we would write now (RFC 5393 §4.2). Only a
    /// request with a Via below the client's can have come round.
    fn is_loop(&self, request: &Message<'_>, targets: &TargetSet) -> bool {
        request.vias().count() > 2
            && targets
                .targets
                .iter()
                .any(|target| validation::is_loop(request, &self.branch_of(request, target)))
    }

    /// The computed branch of the copy for a target (rule 5 of docs/protocol.md).
    pub(crate) fn branch_of(&self, request: &Message<'_>, target: &Target) -> Vec<u8> {
        let mut identity = Vec::with_capacity(24);
        target.identity.write(&mut identity);
        let inputs = ProxyBranch {
            call_id: request.call_id(),
            from_tag: request.from_tag().unwrap_or_default(),
            cseq: request.cseq().number,
            class: class_of(request),
            request_uri: request.request_uri_bytes(),
            target: &identity,
            attempt: target.attempt,
        };
        let mut branch = Vec::with_capacity(48);
        proxy_branch(&self.world.ring, &inputs, &mut branch);
        branch
    }

    fn context_timers(&self) -> ContextTimers {
        let patience = 64 * self.world.config.timing.t1;
        ContextTimers { timer_c: self.world.config.timer_c, timer_f: patience }
    }

    /// Does what a response context wants, in order; a failure on the way feeds it again.
    pub(crate) fn perform(&mut self, id: ContextId, actions: Vec<Action<OwnedMessage>>) {
        self.perform_along(id, actions, None);
    }

    fn perform_along(
        &mut self,
        id: ContextId,
        actions: Vec<Action<OwnedMessage>>,
        routed: Option<&Routed<'_>>,
    ) {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Start(branch) => {
                    if let Some((status, known)) = self.recall(id, branch) {
                        queue.extend(self.tell_fork(id, branch, status, known));
                    } else if let Err(failure) = self.start_branch(id, branch, routed) {
                        queue.extend(self.fail_branch(id, branch, failure));
                    }
                }
                Action::Forward { response, challenges, .. } => {
                    self.forward_response(id, &response, &challenges);
                }
                Action::Cancel(branch) => self.cancel_branch(id, branch),
                Action::Abandon(branch) => self.abandon_branch(id, branch),
                Action::Refresh(branch) => self.ask_for_refresh(id, branch),
                Action::RespondLocally(status) => {
                    self.finish(id, &Answer { status, fields: Vec::new() });
                }
                Action::Done => self.settle(id),
            }
        }
    }

    /// Tells the response context what has come on a branch; what it then wants.
    pub(crate) fn tell_fork(
        &mut self,
        id: ContextId,
        branch: usize,
        status: StatusCode,
        response: OwnedMessage,
    ) -> Vec<Action<OwnedMessage>> {
        let mut actions = Vec::new();
        if let Some(fork) = self.contexts.get_mut(id).and_then(|it| it.fork.as_mut()) {
            fork.responses.handle_response(self.now, branch, status, response, &mut actions);
        }
        actions
    }

    /// Tells the response context that a branch failed; what it then wants.
    fn fail_branch(
        &mut self,
        id: ContextId,
        branch: usize,
        failure: BranchFailure,
    ) -> Vec<Action<OwnedMessage>> {
        let now = self.now;
        let mut actions = Vec::new();
        if let Some(fork) = self.contexts.get_mut(id).and_then(|it| it.fork.as_mut()) {
            fork.responses.handle_failure(now, branch, failure, &mut actions);
        }
        actions
    }

    /// A client transaction failed.
    pub(crate) fn fail_client(
        &mut self,
        client: sip_transaction::ClientId,
        failure: BranchFailure,
    ) {
        let Some(&(id, branch)) = self.clients.get(&client) else {
            return self.end_cancel(client, None);
        };
        let actions = self.fail_branch(id, branch, failure);
        self.perform(id, actions);
        self.set_alarm(id);
    }

    /// Finds the next hop of a target and sends the copy, or has its name resolved first.
    fn start_branch(
        &mut self,
        id: ContextId,
        branch: usize,
        routed: Option<&Routed<'_>>,
    ) -> Result<(), BranchFailure> {
        let Some(context) = self.contexts.get(id) else { return Ok(()) };
        let Some(target) = context.target(branch) else { return Err(BranchFailure::Unresolved) };
        let request = context.request.clone();
        let read_again;
        let routed = match routed {
            Some(routed) => routed,
            None => {
                let World { ring, names, .. } = &self.world;
                read_again = route::preprocess(&request.view(), ring, names)
                    .map_err(|_| BranchFailure::Unresolved)?;
                &read_again
            }
        };
        match next_hop(target, routed) {
            NextHopOf::Known(way) => self.launch(id, branch, routed, way),
            NextHopOf::Name(name) => self.resolve(id, branch, name),
            NextHopOf::Nowhere => {
                self.world.counters.drop_unreachable.add(1);
                Err(BranchFailure::Unresolved)
            }
        }
    }

    fn resolve(
        &mut self,
        id: ContextId,
        branch: usize,
        name: ResolveRequest,
    ) -> Result<(), BranchFailure> {
        self.resolve_tickets = self.resolve_tickets.wrapping_add(1);
        let ticket = self.resolve_tickets;
        // Spreads the choice among equal SRV records; nobody gains by guessing it.
        let random = self.today.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ticket;
        self.resolver.submit(ticket, name, random).map_err(|_| BranchFailure::Unresolved)?;
        self.resolving.insert(ticket, (id, branch));
        Ok(())
    }

    /// A name was resolved, or not.
    pub(crate) fn handle_resolved(&mut self, resolution: &Resolution) {
        let Some((id, branch)) = self.resolving.remove(&resolution.ticket) else { return };
        let found = resolution.result.as_deref().unwrap_or_default();
        let Some(context) = self.contexts.get(id) else { return };
        let request = context.request.clone();
        let is_stateless = context.server.is_none();
        let outcome = match found.first().and_then(way_to) {
            Some(way) => route::preprocess(&request.view(), &self.world.ring, &self.world.names)
                .map_err(|_| BranchFailure::Unresolved)
                .and_then(|routed| self.launch(id, branch, &routed, way)),
            None => Err(BranchFailure::Unresolved),
        };
        if is_stateless {
            self.forget(id);
        } else if let Err(failure) = outcome {
            let actions = self.fail_branch(id, branch, failure);
            self.perform(id, actions);
            self.set_alarm(id);
        }
    }

    /// Writes the copy for one target and gives it to a client transaction.
    fn launch(
        &mut self,
        id: ContextId,
        branch: usize,
        routed: &Routed<'_>,
        way: Way,
    ) -> Result<(), BranchFailure> {
        let Some(context) = self.contexts.get(id) else { return Ok(()) };
        let Some(target) = context.target(branch) else { return Err(BranchFailure::Unresolved) };
        let request = context.request.clone();
        let view = request.view();
        let Some(method) = view.method() else { return Err(BranchFailure::Unresolved) };
        let name = self.branch_of(&view, target);
        let mut draft = std::mem::take(&mut self.draft);
        self.write_copy(&view, context, routed, target, (&name, way), &mut draft);
        self.draft = draft;
        self.world.counters.requests_forwarded.add(1);
        if matches!(method, Method::Ack) {
            self.wire.send(&way, &self.draft.text);
            return Ok(());
        }
        let copy = self.draft.finish();
        let kind = if matches!(method, Method::Invite) { Kind::Invite } else { Kind::NonInvite };
        let key = self.key_of_branch(&name, method);
        let (now, reliability) = (self.now, way.reliability());
        let client = self
            .layer
            .client_new(now, key, kind, copy, way, reliability, &mut self.wire)
            .map_err(|_| BranchFailure::TransportFailed)?;
        self.clients.insert(client, (id, branch));
        if let Some(fork) = self.contexts.get_mut(id).and_then(|it| it.fork.as_mut()) {
            fork.branch_mut(branch).client = Some(client);
        }
        Ok(())
    }

    pub(crate) fn key_of_copy(&self, copy: &[u8]) -> Option<ClientKey> {
        let mut index = Index::new();
        let view = sip_message::parse(copy, &mut index, sip_message::Framing::Datagram).ok()?;
        Some(self.layer.client_key(&view))
    }

    /// The key of a copy whose Via we write ourselves.
    pub(crate) fn key_of_branch(&self, branch: &[u8], method: Method<'_>) -> ClientKey {
        let mut sent_by = Vec::with_capacity(24);
        write_sent_by(self.world.address, &mut sent_by);
        self.layer.client_key_from(branch, &sent_by, method)
    }

    /// The copy for one target (RFC 3261 §16.6), under the name of its branch.
    fn write_copy(
        &self,
        request: &Message<'_>,
        context: &Context,
        routed: &Routed<'_>,
        target: &Target,
        (branch, way): (&[u8], Way),
        draft: &mut Draft,
    ) {
        let world = &self.world;
        let line = ProxyVia {
            transport: transport_of(way),
            sent_by: world.address,
            branch,
            instance: world.config.instance,
            incarnation: world.config.incarnation,
            several: context.fork.as_ref().is_some_and(|it| it.targets.has_several()),
        };
        draft.line.clear();
        write_proxy_via(&world.ring, &line, &mut draft.line);
        let record_routes = record_route::write(world, request, context, target, way);
        let record_routes: Vec<&[u8]> = record_routes.iter().map(Vec::as_slice).collect();
        let forward = forwarding::Forward {
            routed,
            target,
            record_routes: &record_routes,
            via: &draft.line,
            names: &world.names,
        };
        forwarding::write(request, &forward, &mut draft.edits, &mut draft.text);
    }

    /// An ACK goes on without a transaction; with `is_gone` to where its phone is registered now.
    pub(crate) fn pass_on(
        &mut self,
        request: &OwnedMessage,
        arrival: &Arrival,
        targets: TargetSet,
        is_gone: bool,
        routed: &Routed<'_>,
    ) {
        let now = self.now;
        let mut actions = Vec::new();
        let timers = self.context_timers();
        let responses =
            ResponseContext::start(ContextKind::NonInvite, &targets, timers, now, &mut actions);
        let id = self.contexts.insert(Context {
            stage: Stage::Forwarding,
            fork: Some(Fork { targets, responses, branches: Vec::new() }),
            ..Context::without_transaction(request, arrival)
        });
        if is_gone {
            self.ask_for_refresh(id, 0);
        } else {
            self.start_ack(id, 0, Some(routed));
        }
    }

    fn start_ack(&mut self, id: ContextId, branch: usize, routed: Option<&Routed<'_>>) {
        let waiting = self.resolving.len();
        if self.start_branch(id, branch, routed).is_err() {
            self.world.counters.drop_unreachable.add(1);
        }
        if self.resolving.len() == waiting {
            self.forget(id);
        }
    }

    fn abandon_branch(&mut self, id: ContextId, branch: usize) {
        if let Some(client) = self.contexts.get(id).and_then(|it| it.client(branch)) {
            self.clients.remove(&client);
            self.layer.client_abandon(client);
        }
    }

    fn ask_for_refresh(&mut self, id: ContextId, branch: usize) {
        let aor =
            self.contexts.get(id).and_then(|it| it.target(branch)).and_then(|it| it.aor.clone());
        match aor {
            Some(aor) => {
                self.wait(id, Stage::Refreshing { branch });
                self.submit(id, Query::Bindings { aor });
            }
            None => self.refresh(id, branch, &[]),
        }
    }

    /// The present bindings of a side whose flow is gone.
    pub(crate) fn refresh(&mut self, id: ContextId, branch: usize, rows: &[Binding]) {
        let (now, today) = (self.now, self.today);
        let Some(context) = self.contexts.get_mut(id) else { return };
        context.stage = Stage::Forwarding;
        let Some(fork) = &mut context.fork else { return };
        let gone = fork.targets.targets.get(branch);
        let replacement =
            gone.and_then(|gone| sip_core::target::refreshed(gone, rows, today)).map(|target| {
                fork.targets.targets.push(target);
                fork.targets.targets.len() - 1
            });
        if context.server.is_none() {
            return self.start_ack(id, replacement.unwrap_or(branch), None);
        }
        let mut actions = Vec::new();
        fork.responses.handle_refreshed(now, branch, replacement, &mut actions);
        self.perform(id, actions);
        self.set_alarm(id);
    }

    /// A final answer is out. An INVITE's context stays for further 2xx until its transaction ends;
    /// any other has done its work.
    pub(crate) fn settle(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get(id) else { return };
        let is_done = context.fork.as_ref().is_none_or(|fork| fork.responses.is_done());
        let view = context.request.view();
        let is_invite = matches!(view.method(), Some(Method::Invite));
        if is_done && !(is_invite && context.fork.is_some()) {
            self.forget(id);
        }
    }

    /// Drops a context and every way to find it. Its transactions end by themselves, but for that of
    /// a request which nobody may answer any more.
    pub(crate) fn forget(&mut self, id: ContextId) {
        let Some(context) = self.contexts.remove(id) else { return };
        if let Some(server) = context.server {
            self.servers.remove(&server);
            if context.fork.as_ref().is_some_and(|fork| fork.responses.is_silent()) {
                self.abandon(server);
            }
        }
        if let Some(twin) = self.layer.twin_key(&context.request.view())
            && self.twins.get(&twin) == Some(&id)
        {
            self.twins.remove(&twin);
        }
        for branch in context.fork.iter().flat_map(|fork| &fork.branches) {
            if let Some(client) = branch.client {
                self.clients.remove(&client);
            }
        }
    }
}

impl Context {
    pub(crate) fn target(&self, branch: usize) -> Option<&Target> {
        self.fork.as_ref()?.targets.targets.get(branch)
    }

    pub(crate) fn client(&self, branch: usize) -> Option<sip_transaction::ClientId> {
        self.fork.as_ref()?.branches.get(branch)?.client
    }
}

/// Where a target is reached.
enum NextHopOf {
    Known(Way),
    Name(ResolveRequest),
    Nowhere,
}

fn next_hop(target: &Target, routed: &Routed<'_>) -> NextHopOf {
    let Ok(uri) = Uri::parse(target.next_hop(routed)) else { return NextHopOf::Nowhere };
    match (&target.reach, resolve::literal(&uri)) {
        (TargetReach::Flow, Some(hop)) => NextHopOf::Known(Way::Tier(hop.address)),
        (TargetReach::Flow, None) => NextHopOf::Nowhere,
        (TargetReach::Direct, Some(hop)) => {
            way_to(&hop).map_or(NextHopOf::Nowhere, NextHopOf::Known)
        }
        (TargetReach::Direct, None) => {
            ResolveRequest::of(&uri).map_or(NextHopOf::Nowhere, NextHopOf::Name)
        }
    }
}

/// A resolved hop as a way, unless we do not speak its transport or it is no single machine: a
/// request to everybody on a network would make us an amplifier.
fn way_to(hop: &NextHop) -> Option<Way> {
    let address = hop.address;
    let is_single = match address.ip() {
        std::net::IpAddr::V4(ip) => {
            !(ip.is_broadcast() || ip.is_multicast() || ip.is_unspecified())
        }
        std::net::IpAddr::V6(ip) => !(ip.is_multicast() || ip.is_unspecified()),
    };
    let speaks = matches!(hop.transport, Transport::Udp | Transport::Tcp);
    (is_single && speaks && address.port() != 0)
        .then_some(Way::Peer { address, transport: hop.transport })
}

fn transport_of(way: Way) -> Transport {
    match way {
        Way::Tier(_) => Transport::Udp,
        Way::Peer { transport, .. } => transport,
        Way::Stream { .. } => Transport::Tcp,
    }
}

fn class_of<'a>(request: &Message<'a>) -> MethodClass<'a> {
    match request.method() {
        Some(Method::Invite | Method::Cancel) => MethodClass::Invite,
        Some(Method::Ack) => MethodClass::AckTo2xx,
        other => MethodClass::Other(other.map(|it| it.as_bytes()).unwrap_or_default()),
    }
}
