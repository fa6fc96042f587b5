//! One call: where it stands, and the requests that it makes.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use sip_message::{Framing, Index, Transport, parse, write_cancel};
use sip_transaction::Kind;

use super::Uac;
use crate::destinations::Service;
use crate::digest::DigestChallenge;
use crate::endpoint::{Outbox, Way};
use crate::mix::Mode;
use crate::plan::{Credentials, Retransmission};
use crate::text::{Dialog, Request, contact, sdp};

/// What a client transaction asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Invite,
    Cancel,
    Bye,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Inviting,
    /// The CANCEL is out: its 200 and the 487 to the INVITE are due, in any order.
    Cancelling {
        cancel_answered: bool,
        invite_ended: bool,
    },
    Talking,
    Leaving,
}

/// What the alarm of a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The callee rang for too long.
    GiveUp,
    Cancel,
    HangUp,
    /// A BYE or a CANCEL found nobody at its address.
    AskAgain,
}

/// One call, from its INVITE to its end.
pub(super) struct Call {
    pub(super) call_id: String,
    /// Value of From, with our tag.
    from: String,
    callee_uri: String,
    user: Credentials,
    transport: Transport,
    /// Place in the mix.
    pub(super) kind: usize,
    pub(super) mode: Mode,
    /// Where the INVITE went last, and where the present request went before.
    way: Way,
    tried: Vec<SocketAddr>,
    /// The present BYE or CANCEL, after a fail-over, goes there.
    detour: Option<SocketAddr>,
    cseq: u32,
    pub(super) phase: Phase,
    /// Whether the present INVITE or BYE carries credentials.
    pub(super) is_authorised: bool,
    pub(super) has_rung: bool,
    pub(super) has_failed: bool,
    /// Something of it had to be sent again, here or elsewhere.
    pub(super) was_repeated: bool,
    /// When the present INVITE or BYE was sent for the first time.
    pub(super) asked_at: Instant,
    /// Until when the present BYE or CANCEL is worth asking again.
    asks_until: Instant,
    pub(super) alarm: Option<(Instant, Alarm)>,
    /// The present INVITE: what a CANCEL is made of.
    invite: Bytes,
    /// The header line with credentials, kept for a repetition at another target.
    authorization: String,
    pub(super) dialog: Option<Dialog>,
    /// The ACK to the 200, to be repeated with it.
    ack: Option<Bytes>,
}

impl Uac<'_> {
    pub(super) fn start_call(&mut self, now: Instant, number: u64, out: &mut Outbox) {
        let plan = self.plan;
        let turn = number as usize;
        let socket = turn % plan.local.len();
        let place = plan.mix.kind_of(number);
        let (Some(kind), Some(counts)) =
            (plan.mix.kinds().get(place), self.report.kinds.get_mut(place))
        else {
            return;
        };
        let callees = if kind.callees.is_empty() { &plan.callees } else { &kind.callees };
        let turn_of_kind = counts.started as usize;
        counts.started += 1;
        let (Some(local), Some(to), Some(user), Some(callee)) = (
            out.local(socket),
            self.destinations.choose(now, turn, &[]),
            plan.users.get(turn % plan.users.len()),
            callees.get(turn_of_kind % callees.len()),
        ) else {
            return;
        };
        let call = Call {
            call_id: format!("{number}-{}@{}", self.run, local.ip()),
            from: format!("<sip:{}@{}>;tag={number}-{}", user.user, plan.domain, self.run),
            callee_uri: format!("sip:{callee}@{}", plan.domain),
            user: user.clone(),
            transport: self.destinations.transport,
            kind: place,
            mode: kind.mode,
            way: Way { socket, to },
            tried: Vec::new(),
            detour: None,
            cseq: 0,
            phase: Phase::Inviting,
            is_authorised: false,
            has_rung: false,
            has_failed: false,
            was_repeated: false,
            asked_at: now,
            asks_until: now,
            alarm: None,
            invite: Bytes::new(),
            authorization: String::new(),
            dialog: None,
            ack: None,
        };
        self.calls.insert(number, call);
        self.invite(now, number, out);
    }

    /// A new INVITE: the first, or the one with credentials.
    pub(super) fn invite(&mut self, now: Instant, number: u64, out: &mut Outbox) {
        let give_up = now + self.plan.answer_within;
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.cseq += 1;
        call.tried.clear();
        call.asked_at = now;
        self.set_alarm(number, give_up, Alarm::GiveUp);
        self.send(now, number, Asked::Invite, out);
    }

    /// A new BYE: the first, or the one with credentials.
    pub(super) fn hang_up(&mut self, now: Instant, number: u64, out: &mut Outbox) {
        let asks_until = now + self.timing().sixty_four_t1();
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.phase = Phase::Leaving;
        call.alarm = None;
        call.cseq += 1;
        call.asked_at = now;
        call.asks_until = asks_until;
        self.ask(now, number, Asked::Bye, out);
    }

    /// Sends the present BYE or CANCEL: for the first time, or as if it were.
    fn ask(&mut self, now: Instant, number: u64, asked: Asked, out: &mut Outbox) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.tried.clear();
        let hop = if asked == Asked::Bye { call.in_dialog_hop() } else { call.way.to };
        let detour = self.detour(now, number, hop);
        if let Some(call) = self.calls.get_mut(&number) {
            call.detour = detour;
        }
        self.send(now, number, asked, out);
    }

    /// Whoever takes the address of a dead balancer knows its dialogs: what a connection did not
    /// carry there, and nobody else can, is asked again until 64·T1 are over, as UDP would do.
    pub(super) fn ask_again(&mut self, now: Instant, number: u64, asked: Asked) -> bool {
        let at = now + self.timing().t1 * 2;
        let is_off = self.plan.retransmission == Retransmission::Off;
        let waits = self.calls.get(&number).is_some_and(|call| at < call.asks_until);
        if is_off || asked == Asked::Invite || !waits {
            return false;
        }
        self.set_alarm(number, at, Alarm::AskAgain);
        true
    }

    /// The time to ask again has come.
    pub(super) fn asked_again(&mut self, now: Instant, number: u64, out: &mut Outbox) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let asked = match call.phase {
            Phase::Leaving => Asked::Bye,
            Phase::Cancelling { .. } => Asked::Cancel,
            Phase::Inviting | Phase::Talking => return,
        };
        call.was_repeated = true;
        let until = call.asks_until;
        if asked == Asked::Cancel {
            self.set_alarm(number, until, Alarm::GiveUp);
        }
        self.ask(now, number, asked, out);
    }

    /// Sends the present INVITE or BYE, or repeats it at another target with a new branch.
    fn send(&mut self, now: Instant, number: u64, asked: Asked, out: &mut Outbox) {
        let run = &self.run;
        let service = self.plan.service.as_ref();
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let Some(local) = out.local(call.way.socket) else {
            return;
        };
        let branch = format!("z9hG4bK{number}-{run}-{}-{}", call.cseq, call.tried.len());
        let (way, kind, request) = match asked {
            Asked::Invite => {
                call.invite = call.invite(service, local, &branch);
                (call.way, Kind::Invite, call.invite.clone())
            }
            Asked::Bye => {
                let to = call.detour.unwrap_or_else(|| call.in_dialog_hop());
                (Way { to, ..call.way }, Kind::NonInvite, call.bye(local, &branch))
            }
            // The same again: a CANCEL has the branch of its INVITE (RFC 3261 §9.1).
            Asked::Cancel => {
                let to = call.detour.unwrap_or(call.way.to);
                (Way { to, ..call.way }, Kind::NonInvite, call.cancel())
            }
        };
        self.start_transaction(now, number, asked, kind, way, request, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where requests leave")]
    fn start_transaction(
        &mut self,
        now: Instant,
        number: u64,
        asked: Asked,
        kind: Kind,
        way: Way,
        request: Bytes,
        out: &mut Outbox,
    ) {
        let mut index = Index::new();
        let started = parse(&request, &mut index, Framing::Datagram).ok().and_then(|message| {
            let key = self.layer.client_key(&message);
            let (layer, reliability) = (&mut self.layer, self.reliability);
            layer.client_new(now, key, kind, request.clone(), way, reliability, out).ok()
        });
        match started {
            Some(id) => {
                self.owners.insert(id, (number, asked));
            }
            None => {
                let came = "a request that cannot be sent: table full, or wrong names in the plan";
                self.fail(now, number, "a request", came.to_owned());
                self.end_call(now, number);
            }
        }
    }

    /// Sends the CANCEL of the present INVITE.
    pub(super) fn cancel(&mut self, now: Instant, number: u64, out: &mut Outbox) {
        let give_up = now + self.timing().sixty_four_t1();
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.phase = Phase::Cancelling { cancel_answered: false, invite_ended: false };
        call.asks_until = give_up;
        self.set_alarm(number, give_up, Alarm::GiveUp);
        self.ask(now, number, Asked::Cancel, out);
    }

    /// Who stands in for `hop`, if it is known to be dead.
    fn detour(&self, now: Instant, number: u64, hop: SocketAddr) -> Option<SocketAddr> {
        if self.plan.retransmission == Retransmission::Off
            || !self.destinations.is_avoided(now, hop)
        {
            return None;
        }
        let other = self.destinations.choose(now, number as usize, &[hop])?;
        (!self.destinations.is_avoided(now, other)).then_some(other)
    }

    /// The ACK to a 200. The first is made, and sent again with each repetition of the 200.
    pub(super) fn acknowledge(&mut self, now: Instant, number: u64, out: &mut Outbox) {
        let run = &self.run;
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        if call.ack.is_none() {
            let Some(local) = out.local(call.way.socket) else {
                return;
            };
            let branch = format!("z9hG4bK{number}-{run}-{}-ack", call.cseq);
            call.ack = Some(call.in_dialog("ACK", local, &branch));
        }
        let (ack, way, hop) = (call.ack.clone(), call.way, call.in_dialog_hop());
        let to = self.detour(now, number, hop).unwrap_or(hop);
        if let Some(ack) = ack {
            out.send(Way { to, ..way }, ack);
        }
    }

    /// Answers a challenge by the same request with credentials.
    pub(super) fn authorise(
        &mut self,
        now: Instant,
        number: u64,
        asked: Asked,
        challenge: &DigestChallenge,
        out: &mut Outbox,
    ) {
        let cnonce = format!("{number:x}{}", self.run.replace('-', ""));
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let (method, uri) = match asked {
            Asked::Bye => ("BYE", call.remote_target().to_owned()),
            Asked::Invite | Asked::Cancel => ("INVITE", call.callee_uri.clone()),
        };
        call.authorization = challenge.answer(&call.user, method, &uri, &cnonce);
        call.is_authorised = true;
        match asked {
            Asked::Bye => self.hang_up(now, number, out),
            Asked::Invite | Asked::Cancel => self.invite(now, number, out),
        }
    }

    /// Where the present request went.
    pub(super) fn way_of(&self, number: u64) -> Option<SocketAddr> {
        let call = self.calls.get(&number)?;
        Some(match call.phase {
            Phase::Inviting => call.way.to,
            Phase::Cancelling { .. } => call.detour.unwrap_or(call.way.to),
            Phase::Talking | Phase::Leaving => call.detour.unwrap_or_else(|| call.in_dialog_hop()),
        })
    }

    /// Where a request could go instead (RFC 3263 §4.3). In a dialog the address of one of the
    /// targets can be replaced by that of another; a further one in the route set cannot.
    pub(super) fn other_way(&self, now: Instant, number: u64, asked: Asked) -> Option<SocketAddr> {
        let call = self.calls.get(&number)?;
        let present = self.way_of(number)?;
        let is_ours = match asked {
            Asked::Invite => call.phase == Phase::Inviting,
            Asked::Bye | Asked::Cancel => self.destinations.includes(present),
        };
        if self.plan.retransmission == Retransmission::Off || !is_ours {
            return None;
        }
        let tried = [call.tried.as_slice(), &[present]].concat();
        self.destinations.choose(now, number as usize, &tried)
    }

    /// Repeats a request at the next target: the same with a new branch. False if every target was
    /// tried, or there is no choice.
    pub(super) fn fail_over(
        &mut self,
        now: Instant,
        number: u64,
        asked: Asked,
        out: &mut Outbox,
    ) -> bool {
        let (Some(present), Some(to)) = (self.way_of(number), self.other_way(now, number, asked))
        else {
            return false;
        };
        let Some(call) = self.calls.get_mut(&number) else {
            return false;
        };
        call.tried.push(present);
        call.was_repeated = true;
        match asked {
            Asked::Invite => call.way.to = to,
            Asked::Bye | Asked::Cancel => call.detour = Some(to),
        }
        self.report.failed_over += 1;
        self.send(now, number, asked, out);
        true
    }

    pub(super) fn set_alarm(&mut self, number: u64, at: Instant, alarm: Alarm) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.alarm = Some((at, alarm));
            self.alarms.push(Reverse((at, number)));
        }
    }
}

impl Call {
    fn remote_target(&self) -> &str {
        self.dialog.as_ref().map_or(&self.callee_uri, |dialog| &dialog.remote_target)
    }

    /// Where requests in the dialog go: to the address that the route set names, or the way of the
    /// INVITE if it gives a name.
    fn in_dialog_hop(&self) -> SocketAddr {
        self.dialog.as_ref().and_then(|dialog| dialog.next_hop).unwrap_or(self.way.to)
    }

    /// Who finds the service by its name says so in a Route: then the route set of the dialog has
    /// the name too, and every request of it may fail over.
    fn invite(&self, service: Option<&Service>, local: SocketAddr, branch: &str) -> Bytes {
        let contact = contact(&self.user.user, local, self.transport);
        let route = service.map(|service| format!("<sip:{};lr>", service.name));
        Request {
            method: "INVITE",
            uri: &self.callee_uri,
            sent_by: local,
            transport: self.transport,
            branch,
            from: &self.from,
            to: &format!("<{}>", self.callee_uri),
            call_id: &self.call_id,
            cseq: self.cseq,
            routes: route.as_slice(),
            lines: &format!("{}Contact: {contact}\r\n", self.authorization),
            body: &sdp(local),
        }
        .bytes()
    }

    fn cancel(&self) -> Bytes {
        let mut index = Index::new();
        let mut cancel = Vec::new();
        if let Ok(invite) = parse(&self.invite, &mut index, Framing::Datagram) {
            write_cancel(&invite, &mut cancel);
        }
        cancel.into()
    }

    fn bye(&self, local: SocketAddr, branch: &str) -> Bytes {
        self.in_dialog("BYE", local, branch)
    }

    fn in_dialog(&self, method: &str, local: SocketAddr, branch: &str) -> Bytes {
        let (to, routes) = match &self.dialog {
            Some(dialog) => (dialog.to.clone(), dialog.routes.as_slice()),
            None => (format!("<{}>", self.callee_uri), &[][..]),
        };
        // An ACK carries the credentials of its INVITE (RFC 3261 §22.1), a first BYE none.
        Request {
            method,
            uri: self.remote_target(),
            sent_by: local,
            transport: self.transport,
            branch,
            from: &self.from,
            to: &to,
            call_id: &self.call_id,
            cseq: self.cseq,
            routes,
            lines: &self.authorization,
            body: "",
        }
        .bytes()
    }

    /// Forgets the credentials of the INVITE before the first BYE.
    pub(super) fn forget_authorization(&mut self) {
        self.authorization.clear();
        self.is_authorised = false;
    }
}
