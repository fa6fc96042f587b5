//! A CANCEL, or the ACK to a refusal, whose transaction died with another proxy (protocol rule 22): it
//! follows its INVITE to the phones with the branches that the dead proxy has computed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_core::branch::{MethodClass, ProxyBranch, ProxyVia, proxy_branch_with, write_proxy_via};
use sip_core::forwarding::{self, Forward};
use sip_core::reject::Reject;
use sip_core::route::{self, Addressee, Routed};
use sip_core::search::Search;
use sip_core::target::{Target, TargetReach, TargetSet};
use sip_message::{
    Framing, HeaderName, Index, Message, Method, OwnedMessage, StatusCode, Transport, Uri,
};
use sip_net::resolve;
use sip_transaction::{ClientId, Kind};

use crate::answer::{self, Answer};
use crate::arrival::Arrival;
use crate::context::{Context, ContextId};
use crate::leave::Way;
use crate::worker::Worker;

/// Of how many orphans per second the phones are looked for. Anybody may send one, and each costs a
/// query and a message to every phone of somebody; a proxy that dies leaves fewer.
const PER_SECOND_MAX: u32 = 100;

/// Counts orphans in the present second, and waits for what the phones say to a CANCEL.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    began: Option<Instant>,
    count: u32,
    /// By number; each ends with its last transaction, 64·T1 later at most.
    cancels: HashMap<u64, Cancelled>,
    numbers: u64,
    clients: HashMap<ClientId, u64>,
}

/// A CANCEL that was sent after its INVITE.
#[derive(Debug)]
struct Cancelled {
    request: OwnedMessage,
    arrival: Arrival,
    /// Phones, once for each key, that have not said anything.
    waiting: usize,
    /// A phone has it, and will refuse its INVITE.
    is_taken: bool,
}

impl Orphans {
    fn admit(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now >= began + Duration::from_secs(1)) {
            (self.began, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count <= PER_SECOND_MAX
    }
}

impl Worker {
    /// Takes a CANCEL or an ACK that matched nothing anywhere. `false`: it leads to no phone of ours.
    pub(crate) fn follow(&mut self, request: &OwnedMessage, arrival: &Arrival) -> bool {
        let view = request.view();
        let Ok(routed) = route::preprocess(&view, &self.world.ring, &self.world.names) else {
            return false;
        };
        if routed.next_route().is_some() {
            return false;
        }
        match (&routed.dialog, &routed.addressee) {
            (Some(_), _) => {
                let Ok(targets) = self.targets_in_dialog(&view, &routed) else { return false };
                let is_sent =
                    self.orphans.admit(self.now) && self.send_after(request, arrival, &targets);
                if is_sent {
                    self.answer_orphan(request, arrival, &Answer::from(StatusCode::OK));
                }
                is_sent
            }
            (None, Addressee::User { .. }) => {
                let aor = Uri::parse(&routed.request_uri).ok();
                let Some(aor) = aor.and_then(|uri| self.world.names.aor(&uri)) else {
                    return false;
                };
                if !self.orphans.admit(self.now) {
                    return false;
                }
                let id = self.contexts.insert(Context::without_transaction(request, arrival));
                self.look_for(id, Search::new(aor)).is_ok()
            }
            (None, Addressee::Tier | Addressee::Foreign) => false,
        }
    }

    /// The phones of an orphan's callee are known.
    pub(crate) fn follow_to(&mut self, id: ContextId, targets: &TargetSet) {
        let Some(context) = self.contexts.get(id) else { return };
        let (request, arrival) = (context.request.clone(), context.arrival.clone());
        self.forget(id);
        let is_sent = self.send_after(&request, &arrival, targets);
        let lost = || Answer::from(&Reject::NoSuchTransaction);
        let answer = if is_sent { Answer::from(StatusCode::OK) } else { lost() };
        self.answer_orphan(&request, &arrival, &answer);
    }

    /// Nobody is there, or the store did not say: an orphan has matched nothing after all.
    pub(crate) fn lose_orphan(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get(id) else { return };
        let (request, arrival) = (context.request.clone(), context.arrival.clone());
        self.forget(id);
        self.answer_orphan(&request, &arrival, &Answer::from(&Reject::NoSuchTransaction));
    }

    /// A CANCEL is answered by whoever takes it, an ACK never.
    fn answer_orphan(&mut self, request: &OwnedMessage, arrival: &Arrival, answer: &Answer) {
        let view = request.view();
        if view.method() != Some(Method::Cancel) {
            return;
        }
        let bytes = answer::write_answer(&self.world.ring, &view, answer);
        self.world.counters.count_reply(answer.status.code());
        self.wire.send(&arrival.reply, &bytes);
        if answer.status == StatusCode::OK {
            self.release_cancelled(&view);
        }
    }

    /// Sends the orphan after its INVITE: through the balancer of each phone, once for each key that
    /// may have signed. A phone that a dead proxy reached by itself knows another Via.
    fn send_after(
        &mut self,
        orphan: &OwnedMessage,
        arrival: &Arrival,
        targets: &TargetSet,
    ) -> bool {
        let request = orphan.view();
        let routed = route::preprocess(&request, &self.world.ring, &self.world.names);
        let Ok(routed) = routed else { return false };
        let is_cancel = request.method() == Some(Method::Cancel);
        let keys: Vec<u8> = self.world.ring.ids().collect();
        let number = self.orphans.numbers;
        let (mut is_sent, mut waiting) = (false, 0);
        for target in targets.targets.iter().filter(|it| it.reach == TargetReach::Flow) {
            let hop = Uri::parse(target.next_hop(&routed)).ok();
            let Some(hop) = hop.and_then(|uri| resolve::literal(&uri)) else { continue };
            for key in &keys {
                let Some(copy) = self.write_orphan(&request, &routed, target, *key) else {
                    continue;
                };
                self.world.counters.requests_forwarded.add(1);
                is_sent = true;
                if is_cancel {
                    waiting += usize::from(self.cancel_after(number, copy, Way::Tier(hop.address)));
                } else {
                    self.wire.send(&Way::Tier(hop.address), &copy);
                }
            }
        }
        if waiting > 0 {
            self.orphans.numbers += 1;
            let (request, arrival) = (orphan.clone(), arrival.clone());
            let cancelled = Cancelled { request, arrival, waiting, is_taken: false };
            self.orphans.cancels.insert(number, cancelled);
        }
        is_sent
    }

    /// A CANCEL is sent until the phone has answered it: the caller is told 200 and asks no more.
    /// `false`: it is under way already.
    fn cancel_after(&mut self, number: u64, copy: Bytes, way: Way) -> bool {
        let Some(key) = self.key_of_copy(&copy) else { return false };
        if self.layer.client_find(key).is_some() {
            return false;
        }
        let (now, reliability) = (self.now, way.reliability());
        let wire = &mut self.wire;
        match self.layer.client_new(now, key, Kind::NonInvite, copy, way, reliability, wire) {
            Ok(client) => self.orphans.clients.insert(client, number).is_none(),
            Err(_) => {
                self.world.counters.drop_table_full.add(1);
                false
            }
        }
    }

    /// A phone has answered an orphan's CANCEL, or will not any more. If none of them had anything to
    /// cancel, the INVITE died with its proxy, and nobody but we can answer it.
    pub(crate) fn end_cancel(&mut self, client: ClientId, status: Option<StatusCode>) {
        if status.is_some_and(StatusCode::is_provisional) {
            return;
        }
        let Some(number) = self.orphans.clients.remove(&client) else { return };
        let Some(cancelled) = self.orphans.cancels.get_mut(&number) else { return };
        cancelled.is_taken |= status.is_some_and(StatusCode::is_success);
        cancelled.waiting -= 1;
        if cancelled.waiting > 0 {
            return;
        }
        let Some(cancelled) = self.orphans.cancels.remove(&number) else { return };
        if !cancelled.is_taken {
            self.terminate(&cancelled.request, &cancelled.arrival);
        }
    }

    /// 487 to the INVITE of this CANCEL.
    fn terminate(&mut self, cancel: &OwnedMessage, arrival: &Arrival) {
        let view = cancel.view();
        let key = self.layer.invite_key_of_cancel(&view, arrival.hop());
        if self.layer.server_find(key).is_some() {
            return;
        }
        let status = StatusCode::REQUEST_TERMINATED;
        let answer = answer::write_answer(&self.world.ring, &view, &Answer::from(status));
        let mut index = Index::new();
        let Ok(answer) = sip_message::parse(&answer, &mut index, Framing::Datagram) else { return };
        let Some(cseq) = answer.field(HeaderName::CSEQ) else { return };
        self.draft.edits.clear();
        let value = format!("{} INVITE", view.cseq().number);
        self.draft.edits.replace(cseq.value_span, value.as_bytes());
        let mut out = Vec::with_capacity(answer.bytes().len());
        self.draft.edits.apply(answer.bytes(), &mut out);
        self.world.counters.count_reply(status.code());
        let (now, reliability) = (self.now, arrival.reply.reliability());
        if let Ok(id) = self.layer.server_new(key, Kind::Invite, reliability, arrival.reply) {
            self.stamps.add(id, arrival);
            self.layer.server_respond(now, id, status, Bytes::from(out), &mut self.wire);
        }
    }

    fn write_orphan(
        &self,
        request: &Message<'_>,
        routed: &Routed<'_>,
        target: &Target,
        key: u8,
    ) -> Option<Bytes> {
        let world = &self.world;
        let mut identity = Vec::with_capacity(24);
        target.identity.write(&mut identity);
        let inputs = ProxyBranch {
            call_id: request.call_id(),
            from_tag: request.from_tag().unwrap_or_default(),
            cseq: request.cseq().number,
            class: MethodClass::Invite,
            request_uri: request.request_uri_bytes(),
            target: &identity,
            attempt: target.attempt,
        };
        let mut branch = Vec::with_capacity(48);
        if !proxy_branch_with(&world.ring, key, &inputs, &mut branch) {
            return None;
        }
        let line = ProxyVia {
            transport: Transport::Udp,
            sent_by: world.address,
            branch: &branch,
            instance: world.config.instance,
            incarnation: world.config.incarnation,
            several: false,
        };
        let mut via = Vec::with_capacity(160);
        write_proxy_via(&world.ring, &line, &mut via);
        let names = &world.names;
        let forward = Forward { routed, target, record_routes: &[], via: &via, names };
        let mut edits = sip_message::Edits::new();
        let mut out = Vec::with_capacity(request.bytes().len() + 512);
        forwarding::write(request, &forward, &mut edits, &mut out);
        Some(Bytes::from(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_orphans_are_followed_in_a_second() {
        let mut orphans = Orphans::default();
        let began = testkit::epoch();
        let admitted = |orphans: &mut Orphans, at| (0..150).filter(|_| orphans.admit(at)).count();
        assert_eq!(admitted(&mut orphans, began), 100);
        assert_eq!(admitted(&mut orphans, began + Duration::from_millis(999)), 0);
        assert_eq!(admitted(&mut orphans, began + Duration::from_secs(1)), 100);
    }
}
