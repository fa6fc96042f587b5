//! The walk of a request (RFC 3261 §16.3 to §16.6): from its arrival to the copies that leave.
//!
//! Each step either moves on, or submits a query and goes on when the completion arrives. What SIP
//! asks for is decided in `sip-core`; here is only the order of the rooms.

use sip_core::branch::{TierVia, read_tier_via};
use sip_core::cancel::{self, CancelDecision, Found};
use sip_core::capabilities::{self, OwnRequest};
use sip_core::digest::{Claim, Presented, Staleness, Verification};
use sip_core::flow_token::{self, Reach, StreamId};
use sip_core::identity::{self, Demand, Verdict};
use sip_core::reject::Reject;
use sip_core::route::{self, Addressee, KnownToken, Routed};
use sip_core::search::Search;
use sip_core::target::{self, TargetSet};
use sip_core::{registrar, validation};
use sip_message::{Message, Method, OwnedMessage, StatusCode, Uri};
use sip_transaction::{AckVerdict, Kind, ServerId, ServerKey};
use store::{Aor, Query};

use crate::answer::{self, Answer};
use crate::arrival::Arrival;
use crate::context::{Context, ContextId, Otherwise, Proof, Stage};
use crate::handover::Unmatched;
use crate::outcome;
use crate::worker::{Worker, World};

/// Seconds after which a client may try again when a table is full.
const RETRY_AFTER_S: u32 = 2;

impl Worker {
    /// A request, however it came.
    pub(crate) fn handle_request(&mut self, request: OwnedMessage, arrival: Arrival) {
        let view = request.view();
        match view.method() {
            Some(Method::Ack) => return self.handle_ack(&request, arrival),
            Some(Method::Cancel) => return self.handle_cancel(&request, &arrival),
            _ => {}
        }
        let key = self.layer.server_key(&view, arrival.hop());
        if let Some(id) = self.layer.server_find(key) {
            self.world.counters.repeats.add(1);
            return self.answer_repetition(id, &request, &arrival);
        }
        if self.join(&request, &arrival, key) {
            return;
        }
        if !self.is_withheld(&view, &arrival) && self.hand_on_new(&request, &arrival, key) {
            return;
        }
        if self.is_over(&view, &arrival) {
            self.world.counters.repeats.add(1);
            return;
        }
        self.count_request(&view);
        if let Err(reject) = self.begin(&request, &arrival, key) {
            tracing::debug!(call_id = %view.call_id().escape_ascii(), %reject, "refused");
            self.answer_early(&request, &arrival, key, &Answer::from(&reject));
        }
    }

    /// The last response goes again, by the Vias of the repetition: another balancer may have brought
    /// it, or the client may have a new connection.
    fn answer_repetition(&mut self, id: ServerId, request: &OwnedMessage, arrival: &Arrival) {
        if let Some(&context) = self.servers.get(&id) {
            // The store is slow: the client repeats itself before anybody knows who it is.
            self.send_trying(context);
        }
        if let Some(last) = self.layer.server_last_response(id) {
            let again = outcome::with_vias_of(last, request);
            self.wire.send(&arrival.reply, &again);
        }
    }

    /// Validation, route preprocessing, and whether it needs credentials.
    fn begin(
        &mut self,
        request: &OwnedMessage,
        arrival: &Arrival,
        key: ServerKey,
    ) -> Result<(), Reject> {
        let view = request.view();
        let routed = route::preprocess(&view, &self.world.ring, &self.world.names)?;
        validation::validate(&view, &routed.addressee)?;
        let policy = self.world.identity_policy();
        match identity::decide(&policy, &view, &routed, arrival.client) {
            Verdict::Refuse(reject) => Err(reject),
            Verdict::NotChallenged => {
                let id = self.open(request, arrival, key, Stage::Accepted)?;
                self.proceed(id);
                Ok(())
            }
            Verdict::Challenge(demand) => {
                let claim = match self.present(&view, &demand) {
                    Presented::Ask(claim) => claim,
                    Presented::Challenge(staleness) => {
                        let answer = self.challenge(&view, &demand, staleness);
                        self.answer_early(request, arrival, key, &answer);
                        return Ok(());
                    }
                };
                let proof = Proof { demand, claim, trunk: None };
                let id = self.authenticate(request, arrival, key, proof, &routed)?;
                if let Some(aor) = self.user_wanted(&routed) {
                    self.ask_ahead(id, aor);
                }
                Ok(())
            }
            Verdict::ChallengeUnlessFrom { aor, binding, demand } => {
                match self.present(&view, &demand) {
                    Presented::Ask(claim) => {
                        let proof = Proof { demand, claim, trunk: Some((aor, binding)) };
                        self.authenticate(request, arrival, key, proof, &routed)?;
                    }
                    Presented::Challenge(staleness) => {
                        let otherwise = Box::new(Otherwise::Challenge(demand, staleness));
                        let stage = Stage::CheckingSource { binding, otherwise };
                        let id = self.open(request, arrival, key, stage)?;
                        self.submit(id, Query::Bindings { aor });
                    }
                }
                Ok(())
            }
        }
    }

    /// Asks for the credential that a request's proof is measured with.
    fn authenticate(
        &mut self,
        request: &OwnedMessage,
        arrival: &Arrival,
        key: ServerKey,
        proof: Proof,
        routed: &Routed<'_>,
    ) -> Result<ContextId, Reject> {
        let Claim { realm, username, .. } = &proof.claim;
        let query = Query::Credential { realm: realm.clone(), username: username.clone() };
        let id = self.open(request, arrival, key, Stage::Authenticating(Box::new(proof)))?;
        if let Some(context) = self.contexts.get_mut(id) {
            context.token = routed.known_token().map(Box::new);
        }
        self.submit(id, query);
        Ok(id)
    }

    /// The user of ours whom a request that leads outside every dialog is for.
    fn user_wanted(&self, routed: &Routed<'_>) -> Option<Aor> {
        let (Addressee::User { .. }, None) = (&routed.addressee, routed.next_route()) else {
            return None;
        };
        let uri = Uri::parse(&routed.request_uri).ok()?;
        self.world.names.aor(&uri)
    }

    fn present(&self, request: &Message<'_>, demand: &Demand) -> Presented {
        let World { ring, names, .. } = &self.world;
        self.digest.present(ring, request, demand, names, self.today)
    }

    /// Makes the context and the server transaction of a request.
    fn open(
        &mut self,
        request: &OwnedMessage,
        arrival: &Arrival,
        key: ServerKey,
        stage: Stage,
    ) -> Result<ContextId, Reject> {
        let view = request.view();
        let is_invite = matches!(view.method(), Some(Method::Invite));
        let kind = if is_invite { Kind::Invite } else { Kind::NonInvite };
        let reliability = arrival.reply.reliability();
        let server =
            self.layer.server_new(key, kind, reliability, arrival.reply).map_err(|_| {
                self.world.counters.drop_table_full.add(1);
                Reject::Overloaded { retry_after_s: RETRY_AFTER_S }
            })?;
        let id = self.contexts.insert(Context {
            server: Some(server),
            stage,
            ..Context::without_transaction(request, arrival)
        });
        self.servers.insert(server, id);
        self.stamps.add(server, arrival);
        if let Some(twin) = self.layer.twin_key(&view) {
            self.twins.insert(twin, id);
        }
        Ok(id)
    }

    /// A client that failed over repeats its INVITE with a new branch: it joins the live one and
    /// hears every later response (rule 10 of docs/protocol.md).
    fn join(&mut self, request: &OwnedMessage, arrival: &Arrival, key: ServerKey) -> bool {
        let view = request.view();
        let Some(twin) = self.layer.twin_key(&view) else { return false };
        let Some(&id) = self.twins.get(&twin) else { return false };
        if self.has_been_here(&view, arrival) {
            return false;
        }
        let Some(context) = self.contexts.get_mut(id) else { return false };
        let Some(server) = context.server else { return false };
        if self.layer.server_add_path(server, key, arrival.reply).is_err() {
            return false;
        }
        context.joined.push(request.clone());
        self.world.counters.repeats.add(1);
        if let Some(last) = self.layer.server_last_response(server) {
            let so_far = outcome::with_vias_of(last, request);
            self.wire.send(&arrival.reply, &so_far);
        }
        true
    }

    /// Whether a member of the fleet has written one of the Vias below the client's: then the request
    /// has come round, and is no repetition of a client's.
    fn has_been_here(&self, request: &Message<'_>, arrival: &Arrival) -> bool {
        let own = if arrival.carrier.is_some() { 2 } else { 1 };
        let mut below = request.vias().skip(own).filter_map(Result::ok);
        below.any(|via| !matches!(read_tier_via(&self.world.ring, &via), TierVia::Foreign))
    }

    pub(crate) fn verify(
        &mut self,
        id: ContextId,
        proof: Proof,
        credential: Option<&store::Credential>,
    ) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        let request = context.request.clone();
        let Proof { demand, claim, trunk } = proof;
        let otherwise = match self.digest.verify(&request.view(), &claim, credential, self.today) {
            Verification::Authentic(aor) => {
                self.world.counters.authenticated.add(1);
                match identity::check_owner(&demand, &aor) {
                    Ok(()) => {
                        context.identity = Some(aor);
                        return self.proceed(id);
                    }
                    Err(reject) => Otherwise::Refuse(reject),
                }
            }
            Verification::Challenge(staleness) => {
                if matches!(staleness, Staleness::Fresh) {
                    self.world.counters.refused.add(1);
                }
                Otherwise::Challenge(demand, staleness)
            }
        };
        match (trunk, otherwise) {
            (Some((aor, binding)), otherwise) => {
                let otherwise = Box::new(otherwise);
                self.wait(id, Stage::CheckingSource { binding, otherwise });
                self.submit(id, Query::Bindings { aor });
            }
            (None, Otherwise::Challenge(demand, staleness)) => {
                let answer = self.challenge(&request.view(), &demand, staleness);
                self.dismiss(id, &answer);
            }
            (None, Otherwise::Refuse(reject)) => self.refuse(id, &reject),
        }
    }

    pub(crate) fn check_source(
        &mut self,
        id: ContextId,
        rows: &[store::Binding],
        binding: store::BindingId,
        otherwise: &Otherwise,
    ) {
        let Some(context) = self.contexts.get(id) else { return };
        let client = context.arrival.client;
        let is_it = |row: &&store::Binding| row.id == binding && row.is_live(self.today);
        if rows.iter().find(is_it).is_some_and(|row| identity::comes_from(row, client)) {
            return self.proceed(id);
        }
        match otherwise {
            Otherwise::Challenge(demand, staleness) => {
                let answer = self.challenge(&context.request.view(), demand, *staleness);
                self.finish(id, &answer);
            }
            Otherwise::Refuse(reject) => self.refuse(id, reject),
        }
    }

    /// Past every gate: who is it for?
    fn proceed(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        let request = context.request.clone();
        let token = context.token.take();
        if let Err(reject) = self.direct(id, &request.view(), token.as_deref()) {
            self.refuse(id, &reject);
        }
    }

    fn direct(
        &mut self,
        id: ContextId,
        request: &Message<'_>,
        token: Option<&KnownToken>,
    ) -> Result<(), Reject> {
        let World { ring, names, .. } = &self.world;
        let routed = route::preprocess_again(request, ring, names, token)?;
        let targets = match (&routed.dialog, &routed.addressee, routed.next_route()) {
            (Some(_), ..) => self.targets_in_dialog(request, &routed)?,
            (None, Addressee::Tier, None) => return self.answer_as_tier(id, request),
            (None, Addressee::User { .. }, None) => {
                let aor = self.user_wanted(&routed).ok_or(Reject::NotFound)?;
                return self.look_for(id, Search::new(aor));
            }
            (None, _, _) => target::of_request_uri(request, &routed)?,
        };
        self.fork(id, targets, Some(&routed));
        Ok(())
    }

    /// A request for the tier itself: REGISTER and OPTIONS.
    fn answer_as_tier(&mut self, id: ContextId, request: &Message<'_>) -> Result<(), Reject> {
        let Some(method) = request.method() else { return Ok(()) };
        match capabilities::own_request(method)? {
            OwnRequest::Register => {
                let aor = registrar::aor_of(request, &self.world.names)?;
                self.wait(id, Stage::Reading { aor: aor.clone() });
                self.submit(id, Query::Bindings { aor });
            }
            OwnRequest::Options => {
                let fields = capabilities::options_fields();
                self.finish(id, &Answer { status: StatusCode::OK, fields });
            }
            OwnRequest::Drop => self.forget(id),
        }
        Ok(())
    }

    /// Asks for whom the search wants next, or goes where it has led.
    pub(crate) fn look_for(&mut self, id: ContextId, search: Search) -> Result<(), Reject> {
        match search.next().cloned() {
            Some(aor) => {
                self.wait(id, Stage::Locating { search });
                self.locate_user(id, aor);
            }
            None => {
                let targets = search.finish()?;
                if self.contexts.get(id).is_some_and(|it| it.server.is_none()) {
                    self.follow_to(id, &targets);
                } else {
                    self.fork(id, targets, None);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn locate(&mut self, id: ContextId, mut search: Search, rows: &[store::Binding]) {
        let Some(context) = self.contexts.get(id) else { return };
        let request = context.request.clone();
        let taken = search.take(&request.view(), rows, &self.world.names, self.today);
        if let Err(reject) = taken.and_then(|()| self.look_for(id, search)) {
            self.refuse(id, &reject);
        }
    }

    /// The other side of a dialog, as the token says that it is reached.
    pub(crate) fn targets_in_dialog(
        &self,
        request: &Message<'_>,
        routed: &Routed<'_>,
    ) -> Result<TargetSet, Reject> {
        let Some(dialog) = &routed.dialog else { return Err(Reject::NoSuchTransaction) };
        let path = match &dialog.receiving_side().reach {
            Reach::Direct => None,
            Reach::Flow { balancer, flow } => {
                let known = self.world.membership.as_deref();
                // A balancer that is gone for good: another one reaches a client that is not
                // bound to one address.
                let member = known.and_then(|known| {
                    known.balancer(*balancer).or_else(|| known.balancers.first())
                });
                let member = member.ok_or(Reject::NextHopUnreachable)?;
                let mut path = Vec::with_capacity(96);
                flow_token::write_path(&self.world.ring, flow, member.internal, &mut path);
                Some(path)
            }
        };
        target::of_dialog(request, routed, dialog, path)
    }

    /// Whether this is a connection of an earlier life of its balancer. A request hears of it by a 430,
    /// an ACK hears nothing.
    fn is_gone(&self, reach: &Reach) -> bool {
        let Reach::Flow { balancer, flow } = reach else { return false };
        let Some(connection) = flow.connection else { return false };
        let member = self.world.membership.as_deref().and_then(|known| known.balancer(*balancer));
        member.is_none_or(|it| {
            // Balancers of an older build have named their connections by their start alone.
            let names = [StreamId::incarnation_of(it.instance, it.incarnation), it.incarnation.0];
            !names.contains(&connection.incarnation)
        })
    }

    /// An ACK: for a refusal of ours, for a response of a transaction, or on its way to the callee.
    fn handle_ack(&mut self, request: &OwnedMessage, arrival: Arrival) {
        let view = request.view();
        self.world.counters.acks.add(1);
        let key = self.layer.server_key(&view, arrival.hop());
        if let Some(id) = self.layer.server_find(key) {
            match self.layer.server_handle_ack(self.now, id, &mut self.wire) {
                AckVerdict::Absorb => return,
                AckVerdict::Deliver => {}
            }
        }
        if self.hand_on(request, &arrival, Unmatched::New) {
            return;
        }
        let routed = route::preprocess(&view, &self.world.ring, &self.world.names);
        let Ok(routed) = routed else {
            self.world.counters.drop_unmatched_ack.add(1);
            return;
        };
        if routed.dialog.is_none() {
            // The ACK to a stateless answer ends here. Without a token of ours any other goes
            // nowhere: nothing has authenticated its sender (rule 18 of docs/protocol.md).
            if !is_for_us(&self.world.ring, &view)
                && !self.hand_on(request, &arrival, Unmatched::Orphan)
                && !self.follow(request, &arrival)
            {
                self.world.counters.drop_unmatched_ack.add(1);
            }
            return;
        }
        let targets = self.targets_in_dialog(&view, &routed);
        match targets {
            Ok(targets) => {
                let is_gone = routed
                    .dialog
                    .as_ref()
                    .is_some_and(|it| self.is_gone(&it.receiving_side().reach));
                self.pass_on(request, &arrival, targets, is_gone, &routed);
            }
            Err(reject) => {
                tracing::debug!(call_id = %view.call_id().escape_ascii(), %reject, "ack dropped");
                self.world.counters.drop_unmatched_ack.add(1);
            }
        }
    }

    /// A CANCEL is answered here and cancels the branches of its INVITE (RFC 3261 §9.2, §16.10).
    fn handle_cancel(&mut self, request: &OwnedMessage, arrival: &Arrival) {
        let view = request.view();
        self.world.counters.cancels.add(1);
        let key = self.layer.invite_key_of_cancel(&view, arrival.hop());
        let server = self.layer.server_find(key);
        if server.is_none() {
            if self.hand_on(request, arrival, Unmatched::Orphan) {
                // Should nobody know it, responses to its INVITE come here all the same.
                return self.release_cancelled(&view);
            }
            if self.follow(request, arrival) {
                return;
            }
        }
        let id = server.and_then(|server| self.servers.get(&server).copied());
        let found = match (server, id) {
            (None, _) => Found::Nothing,
            (Some(_), Some(id)) if !self.is_answered(id) => Found::Pending,
            (Some(_), _) => Found::Answered,
        };
        let decision = cancel::decide(found);
        let answer = match &decision {
            CancelDecision::Refuse(reject) => Answer::from(reject),
            _ => Answer { status: StatusCode::OK, fields: Vec::new() },
        };
        let bytes = answer::write_answer(&self.world.ring, &view, &answer);
        self.world.counters.count_reply(answer.status.code());
        self.wire.send(&arrival.reply, &bytes);
        if let (CancelDecision::CancelBranches, Some(id)) = (decision, id) {
            self.cancel(id);
        }
    }

    fn cancel(&mut self, id: ContextId) {
        let now = self.now;
        let Some(context) = self.contexts.get_mut(id) else { return };
        let Some(fork) = &mut context.fork else {
            // A query is under way; its completion finds the mark.
            context.is_cancelled = true;
            return;
        };
        let mut actions = Vec::new();
        fork.responses.handle_cancel(now, &mut actions);
        self.perform(id, actions);
        self.set_alarm(id);
    }

    fn is_answered(&self, id: ContextId) -> bool {
        let fork = self.contexts.get(id).and_then(|context| context.fork.as_ref());
        fork.is_some_and(|fork| fork.responses.is_answered())
    }

    fn count_request(&self, request: &Message<'_>) {
        let counters = &self.world.counters;
        match request.method() {
            Some(Method::Invite) => counters.invites.add(1),
            Some(Method::Register) => counters.registers.add(1),
            Some(Method::Bye) => counters.byes.add(1),
            _ => counters.others.add(1),
        }
    }
}

fn is_for_us(ring: &sip_core::mac::KeyRing, ack: &Message<'_>) -> bool {
    let tag = answer::to_tag_of(ack);
    ack.to_tag().is_some_and(|text| flow_token::is_our_to_tag(ring, text, &tag))
}
