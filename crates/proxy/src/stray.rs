//! Responses to the requests of another proxy, which is dead or was replaced (protocol rule 21).

use bytes::Bytes;
use sip_core::forwarding;
use sip_core::handover::{self, Next};
use sip_core::selection::Selection;
use sip_core::stray::{self, Fate, Judgement, Stray};
use sip_message::{Framing, Index, Message, Method, OwnedMessage, StatusCode, Via};
use sip_transaction::{Hop, Kind};

use crate::arrival::{Arrival, literal_sent_by};
use crate::context::ContextId;
use crate::leave::Way;
use crate::outcome::with_vias_of;
use crate::worker::Worker;

/// A refusal that waits, as it came.
pub(crate) struct Refusal {
    response: OwnedMessage,
    status: StatusCode,
    way: Way,
}

impl Worker {
    /// A response that no transaction knows by its Via. If another proxy of ours has asked for it,
    /// somebody must speak for that one; anything else is late or forged, and ends here.
    pub(crate) fn handle_stray(&mut self, response: &Message<'_>) {
        let world = &self.world;
        let config = &world.config;
        let found = Stray::read(&world.ring, world.membership.as_deref(), response);
        let is_other = |it: &Stray<'_>| {
            (it.writer.instance, it.writer.incarnation) != (config.instance, config.incarnation)
        };
        let below = response.vias().nth(1).and_then(Result::ok);
        let way = below.as_ref().and_then(literal_sent_by).map(Way::Tier);
        let Some((stray, way)) = found.filter(is_other).zip(way) else {
            world.counters.drop_unmatched_response.add(1);
            return;
        };
        if self.adopt(response, &stray)
            || self.pass_on_stray(response, &stray)
            || self.pass_to_owner(response)
        {
            return;
        }
        match stray::judge(&stray, response) {
            Judgement::Pass(status) => {
                let is_invite = response.cseq().method == Method::Invite;
                if is_invite && response.status().is_some_and(StatusCode::is_final) {
                    self.withheld.answer(self.now, stray.call);
                }
                self.pass_upstream(response, status, way);
            }
            Judgement::Withhold => self.withhold(response, &stray, way),
            Judgement::HopByHop => self.world.counters.drop_stray_hop_by_hop.add(1),
            Judgement::ComesAgain => self.world.counters.drop_stray_comes_again.add(1),
        }
    }

    /// The client has repeated its request, and here is a branch with the same name: the response
    /// is that branch's. It has the Vias of the request that the dead proxy got.
    fn adopt(&mut self, response: &Message<'_>, stray: &Stray<'_>) -> bool {
        let key = self.key_of_branch(stray.branch, response.cseq().method);
        let Some(client) = self.layer.client_find(key) else { return false };
        let Some(request) = self.layer.client_request(client).cloned() else { return false };
        let Ok(request) = OwnedMessage::parse(request, Framing::Datagram) else { return false };
        let ours = with_vias_of(&Bytes::copy_from_slice(response.bytes()), &request);
        let mut index = Index::new();
        let Ok(ours) = sip_message::parse(&ours, &mut index, Framing::Datagram) else {
            return false;
        };
        self.world.counters.strays_adopted.add(1);
        self.take_response(client, &ours);
        true
    }

    /// An earlier owner passes on what is of no branch of its own and of no call that it withholds
    /// something of.
    fn pass_on_stray(&mut self, response: &Message<'_>, stray: &Stray<'_>) -> bool {
        let world = &self.world;
        let handover = handover::read(&world.ring, response, world.address);
        let Some(Next::On(to)) = handover.map(|it| it.next) else { return false };
        if self.withheld.knows(stray.call) {
            return false;
        }
        world.counters.strays_handed_on.add(1);
        self.wire.send(&Way::Tier(to), response.bytes());
        true
    }

    /// We have the dead proxy's address: what comes to it belongs to the owner of the call. Only the
    /// one who has that address passes on, so nothing goes round.
    fn pass_to_owner(&mut self, response: &Message<'_>) -> bool {
        let world = &self.world;
        let addressee = response.top_via().ok().as_ref().and_then(literal_sent_by);
        let is_diverted = response.named(sip_core::stateless::FLOW_FIELD).next().is_some();
        let Some(membership) = world.membership.as_deref() else { return false };
        if is_diverted || addressee != Some(world.address) {
            return false;
        }
        let (rows, key) = (membership.rows, world.ring.selection_key());
        let members = &membership.proxies;
        let owner = Selection::owner_among(rows, key, members, response.call_id());
        let Some(owner) = owner.and_then(|place| members.get(place)) else { return false };
        if owner.address == world.address {
            return false;
        }
        world.counters.strays_handed_on.add(1);
        self.wire.send(&Way::Tier(owner.address), response.bytes());
        true
    }

    fn pass_upstream(&mut self, response: &Message<'_>, status: Option<StatusCode>, way: Way) {
        let mut out = Vec::with_capacity(response.bytes().len());
        forwarding::write_response_as(response, status, &mut self.draft.edits, &mut out);
        self.world.counters.responses_forwarded.add(1);
        self.world.counters.strays_forwarded.add(1);
        self.wire.send(&way, &out);
    }

    fn withhold(&mut self, response: &Message<'_>, stray: &Stray<'_>, way: Way) {
        let Some(status) = response.status() else { return };
        let keep = || Refusal { response: OwnedMessage::from(response), status, way };
        let fate = self.withheld.refuse(self.now, stray, status, keep);
        if let (false, Some(flow)) = (matches!(fate, Fate::Full), stray.flow) {
            self.acknowledge(response, flow);
        }
        match fate {
            Fate::Kept => self.world.counters.strays_withheld.add(1),
            Fate::Released(refusal) => self.release(refusal),
            Fate::TooLate => self.world.counters.drop_stray_too_late.add(1),
            Fate::Full => self.pass_upstream(response, stray::speakable(status), way),
        }
    }

    fn acknowledge(&mut self, response: &Message<'_>, flow: &[u8]) {
        let uri = sip_message::Uri::parse(sip_core::target::uri_of(flow)).ok();
        let Some(hop) = uri.and_then(|uri| sip_net::resolve::literal(&uri)) else { return };
        let mut ack = Vec::with_capacity(512);
        stray::write_ack(response, flow, &mut ack);
        self.wire.send(&Way::Tier(hop.address), &ack);
    }

    /// The name of the call of a request that a balancer brought.
    fn call_of<'m>(request: &Message<'m>, arrival: &Arrival) -> Option<&'m [u8]> {
        arrival.carrier.as_ref().and(request.top_via().ok()?.branch())
    }

    /// Whether this INVITE, which no transaction knows, is over: its caller has been told, or will be.
    pub(crate) fn is_over(&self, request: &Message<'_>, arrival: &Arrival) -> bool {
        request.method() == Some(Method::Invite)
            && Self::call_of(request, arrival).is_some_and(|call| self.withheld.is_over(call))
    }

    /// Whether this INVITE, which no transaction knows, is of a call whose refusals are withheld here:
    /// the next owner would let the phones ring again.
    pub(crate) fn is_withheld(&self, request: &Message<'_>, arrival: &Arrival) -> bool {
        request.method() == Some(Method::Invite)
            && Self::call_of(request, arrival).is_some_and(|call| self.withheld.knows(call))
    }

    /// What the phone of this branch has told a dead proxy and we have withheld: it has its ACK and
    /// would be silent, or ring again.
    pub(crate) fn recall(
        &self,
        id: ContextId,
        target: usize,
    ) -> Option<(StatusCode, OwnedMessage)> {
        if self.withheld.is_empty() {
            return None;
        }
        let context = self.contexts.get(id)?;
        let view = context.request.view();
        let call = Self::call_of(&view, &context.arrival)?;
        let target = context.target(target)?;
        let known = self.withheld.recall(call, &self.branch_of(&view, target))?;
        Some((known.status, known.response.clone()))
    }

    /// Refusals whose time has come.
    pub(crate) fn take_released(&mut self) {
        while let Some(refusal) = self.withheld.pop_due(self.now) {
            self.release(refusal);
        }
    }

    /// The caller cancelled a call of a dead proxy: it is told what was withheld.
    pub(crate) fn release_cancelled(&mut self, cancel: &Message<'_>) {
        let via = cancel.top_via().ok();
        let Some(call) = via.as_ref().and_then(Via::branch) else { return };
        if let Some(refusal) = self.withheld.cancel(self.now, call) {
            self.release(refusal);
        }
    }

    /// The phone has its ACK, so nobody repeats the refusal but we, until the caller's ACK comes.
    fn release(&mut self, refusal: Refusal) {
        let Refusal { response, status, way } = refusal;
        let spoken = stray::speakable(status);
        let mut out = Vec::with_capacity(response.bytes().len());
        forwarding::write_response_as(&response.view(), spoken, &mut self.draft.edits, &mut out);
        let (bytes, status) = (Bytes::from(out), spoken.unwrap_or(status));
        let mut index = Index::new();
        let Ok(view) = sip_message::parse(&bytes, &mut index, Framing::Datagram) else { return };
        let key = self.layer.server_key(&view, Hop::ThroughBalancer);
        // The caller has asked again, and is answered by that.
        if self.layer.server_find(key).is_some() {
            self.world.counters.drop_stray_too_late.add(1);
            return;
        }
        self.world.counters.responses_forwarded.add(1);
        self.world.counters.strays_released.add(1);
        match self.layer.server_new(key, Kind::Invite, way.reliability(), way) {
            Ok(id) => self.layer.server_respond(self.now, id, status, bytes, &mut self.wire),
            Err(_) => self.wire.send(&way, &bytes),
        }
    }
}
