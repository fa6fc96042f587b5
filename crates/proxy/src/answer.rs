//! Answers of our own: challenges, refusals and what we answer as the tier itself.

use bytes::Bytes;
use sip_core::digest::{Staleness, challenge_status};
use sip_core::flow_token::{ToTag, to_tag};
use sip_core::identity::Demand;
use sip_core::mac::KeyRing;
use sip_core::reject::{Fields, Reject};
use sip_core::route;
use sip_message::{Message, Method, OwnedMessage, Reply, StatusCode};
use sip_transaction::{Kind, ServerKey};

use crate::arrival::Arrival;
use crate::context::ContextId;
use crate::leave::Way;
use crate::worker::{Worker, World};

/// What is said in an answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
}

impl From<StatusCode> for Answer {
    fn from(status: StatusCode) -> Self {
        Self { status, fields: Vec::new() }
    }
}

impl From<&Reject> for Answer {
    fn from(reject: &Reject) -> Self {
        Self { status: reject.status(), fields: reject.fields() }
    }
}

impl Worker {
    /// Answers a request that has no context yet: statelessly (RFC 3261 §8.2.7), so that any proxy
    /// absorbs the ACK. A challenge inside a dialog keeps its transaction (rule 18 of
    /// docs/protocol.md), since its ACK carries a token of ours.
    pub(crate) fn answer_early(
        &mut self,
        request: &OwnedMessage,
        arrival: &Arrival,
        key: ServerKey,
        answer: &Answer,
    ) {
        let view = request.view();
        let is_invite = matches!(view.method(), Some(Method::Invite));
        if is_invite && self.is_in_dialog(&view) {
            let reliability = arrival.reply.reliability();
            if let Ok(id) = self.layer.server_new(key, Kind::Invite, reliability, arrival.reply) {
                self.world.counters.count_reply(answer.status.code());
                self.stamps.add(id, arrival);
                let bytes = write_answer(&self.world.ring, &view, answer);
                let (now, status) = (self.now, answer.status);
                self.layer.server_respond(now, id, status, bytes, &mut self.wire);
                return;
            }
        }
        self.answer_statelessly(&view, &arrival.reply, answer);
    }

    /// Sends an answer that nobody keeps.
    fn answer_statelessly(&mut self, request: &Message<'_>, reply: &Way, answer: &Answer) {
        self.world.counters.count_reply(answer.status.code());
        self.draft.text.clear();
        append_answer(&self.world.ring, request, answer, &mut self.draft.text);
        self.wire.send(reply, &self.draft.text);
    }

    /// Whether a token of ours says that the request is of a dialog. A To tag alone says nothing: it
    /// costs a stranger as little as any other word.
    fn is_in_dialog(&self, request: &Message<'_>) -> bool {
        let World { ring, names, .. } = &self.world;
        request.to_tag().is_some()
            && route::preprocess(request, ring, names).is_ok_and(|routed| routed.dialog.is_some())
    }

    /// The answer that asks for credentials.
    pub(crate) fn challenge(
        &self,
        request: &Message<'_>,
        demand: &Demand,
        staleness: Staleness,
    ) -> Answer {
        self.world.counters.challenges.add(1);
        let fields =
            self.digest.challenge(&self.world.ring, request, demand, staleness, self.today);
        Answer { status: challenge_status(demand.role), fields }
    }

    /// Answers the request of a context, finally, through its transaction.
    pub(crate) fn finish(&mut self, id: ContextId, answer: &Answer) {
        let Some(context) = self.contexts.get(id) else { return };
        let request = context.request.clone();
        let Some(server) = context.server else { return self.lose_orphan(id) };
        tracing::debug!(
            call_id = %request.view().call_id().escape_ascii(),
            status = answer.status.code(),
            "answered"
        );
        let mut answers = vec![write_answer(&self.world.ring, &request.view(), answer)];
        let twins = context.joined.iter();
        answers.extend(twins.map(|twin| write_answer(&self.world.ring, &twin.view(), answer)));
        self.world.counters.count_reply(answer.status.code());
        let render = |path: usize, _: &_| answers.get(path).cloned();
        let (now, status) = (self.now, answer.status);
        self.layer.server_respond_each(now, server, status, render, &mut self.wire);
        self.settle(id);
    }

    /// Refuses the request of a context.
    pub(crate) fn refuse(&mut self, id: ContextId, reject: &Reject) {
        if let Some(context) = self.contexts.get(id) {
            tracing::debug!(
                call_id = %context.request.view().call_id().escape_ascii(),
                %reject,
                "refused"
            );
        }
        self.finish(id, &Answer::from(reject));
    }

    /// Challenges a request whose credentials were no good, and keeps nothing of it: strangers who
    /// guess must not fill our tables. Not if the client has stopped repeating, and not in a dialog
    /// (rule 18 of docs/protocol.md): then the answer needs its transaction.
    pub(crate) fn dismiss(&mut self, id: ContextId, answer: &Answer) {
        let Some(context) = self.contexts.get(id) else { return };
        let is_told = context.is_trying || !context.joined.is_empty();
        let (request, reply) = (context.request.clone(), context.arrival.reply);
        let (Some(server), false) = (context.server, is_told || self.is_in_dialog(&request.view()))
        else {
            return self.finish(id, answer);
        };
        self.abandon(server);
        self.forget(id);
        self.answer_statelessly(&request.view(), &reply, answer);
    }

    /// 100 to an INVITE, once, so that the client stops repeating (RFC 3261 §17.2.1).
    pub(crate) fn send_trying(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        let Some(server) = context.server else { return };
        let is_invite = matches!(context.request.view().method(), Some(Method::Invite));
        if !is_invite || std::mem::replace(&mut context.is_trying, true) {
            return;
        }
        let status = StatusCode::TRYING;
        let reply = Reply { status, reason: None, to_tag: None, fields: &[], body: &[] };
        self.draft.text.clear();
        sip_message::write_reply(&context.request.view(), &reply, &mut self.draft.text);
        let bytes = self.draft.finish();
        self.layer.server_respond(self.now, server, status, bytes, &mut self.wire);
    }
}

/// Renders an answer.
pub(crate) fn write_answer(ring: &KeyRing, request: &Message<'_>, answer: &Answer) -> Bytes {
    let mut out = Vec::with_capacity(512);
    append_answer(ring, request, answer, &mut out);
    Bytes::from(out)
}

/// Appends an answer. The To tag is computed, so that a repeated request gets the same one.
fn append_answer(ring: &KeyRing, request: &Message<'_>, answer: &Answer, out: &mut Vec<u8>) {
    let mut tag = Vec::with_capacity(24);
    to_tag(ring, &to_tag_of(request), &mut tag);
    let fields: Vec<(&str, &[u8])> =
        answer.fields.iter().map(|(name, value)| (*name, value.as_slice())).collect();
    let reply = Reply {
        status: answer.status,
        reason: None,
        to_tag: Some(&tag),
        fields: &fields,
        body: &[],
    };
    sip_message::write_reply(request, &reply, out);
}

/// What our To tags are computed from.
pub(crate) fn to_tag_of<'a>(request: &Message<'a>) -> ToTag<'a> {
    ToTag {
        call_id: request.call_id(),
        from_tag: request.from_tag().unwrap_or_default(),
        cseq: request.cseq().number,
    }
}
