//! One call: where it stands, and the requests that it makes.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use sip_message::{Framing, Index, parse, write_cancel};
use sip_transaction::Kind;

use super::Uac;
use crate::digest::DigestChallenge;
use crate::endpoint::{Outbox, Way};
use crate::plan::Credentials;
use crate::text::{Dialog, Request, sdp};

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
}

/// One call, from its INVITE to its end.
pub(super) struct Call {
    pub(super) call_id: String,
    /// Value of From, with our tag.
    from: String,
    callee_uri: String,
    user: Credentials,
    way: Way,
    /// Place in the plan's targets, and how many of them were tried for the present request.
    target: usize,
    pub(super) tries: usize,
    cseq: u32,
    pub(super) phase: Phase,
    /// Whether the present INVITE or BYE carries credentials.
    pub(super) is_authorised: bool,
    pub(super) has_rung: bool,
    pub(super) has_failed: bool,
    /// When the present INVITE or BYE was sent for the first time.
    pub(super) asked_at: Instant,
    pub(super) alarm: Option<(Instant, Alarm)>,
    /// The present INVITE: what a CANCEL is made of.
    invite: Bytes,
    /// The header line with credentials, kept for a repetition at another target.
    authorization: String,
    pub(super) dialog: Option<Dialog>,
    /// The ACK to the 200, to be repeated with it.
    ack: Option<(Way, Bytes)>,
}

impl Uac<'_> {
    pub(super) fn start_call(&mut self, now: Instant, number: u64, out: &mut Outbox) {
        let plan = self.plan;
        let turn = number as usize;
        let socket = turn % plan.local.len();
        let target = turn % plan.targets.len();
        let (Some(local), Some(to)) = (out.local(socket), plan.targets.get(target)) else {
            return;
        };
        let (Some(user), Some(callee)) =
            (plan.users.get(turn % plan.users.len()), plan.callees.get(turn % plan.callees.len()))
        else {
            return;
        };
        let call = Call {
            call_id: format!("{number}-{}@{}", self.run, local.ip()),
            from: format!("<sip:{}@{}>;tag={number}-{}", user.user, plan.domain, self.run),
            callee_uri: format!("sip:{callee}@{}", plan.domain),
            user: user.clone(),
            way: Way { socket, to: *to },
            target,
            tries: 1,
            cseq: 0,
            phase: Phase::Inviting,
            is_authorised: false,
            has_rung: false,
            has_failed: false,
            asked_at: now,
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
        call.asked_at = now;
        self.set_alarm(number, give_up, Alarm::GiveUp);
        self.send(now, number, Asked::Invite, out);
    }

    /// A new BYE: the first, or the one with credentials.
    pub(super) fn hang_up(&mut self, now: Instant, number: u64, out: &mut Outbox) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.phase = Phase::Leaving;
        call.alarm = None;
        call.cseq += 1;
        call.asked_at = now;
        self.send(now, number, Asked::Bye, out);
    }

    /// Sends the present INVITE or BYE, or repeats it at another target with a new branch.
    fn send(&mut self, now: Instant, number: u64, asked: Asked, out: &mut Outbox) {
        let run = &self.run;
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let Some(local) = out.local(call.way.socket) else {
            return;
        };
        let branch = format!("z9hG4bK{number}-{run}-{}-{}", call.cseq, call.tries);
        let (way, request) = match asked {
            Asked::Bye => (call.in_dialog_way(), call.bye(local, &branch)),
            Asked::Invite | Asked::Cancel => (call.way, call.invite(local, &branch)),
        };
        let kind = match asked {
            Asked::Invite => {
                call.invite = request.clone();
                Kind::Invite
            }
            Asked::Bye | Asked::Cancel => Kind::NonInvite,
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
                self.end_call(number);
            }
        }
    }

    /// Sends the CANCEL of the present INVITE.
    pub(super) fn cancel(&mut self, now: Instant, number: u64, out: &mut Outbox) {
        let give_up = now + self.timing().sixty_four_t1();
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let mut index = Index::new();
        let mut cancel = Vec::new();
        if let Ok(invite) = parse(&call.invite, &mut index, Framing::Datagram) {
            write_cancel(&invite, &mut cancel);
        }
        call.phase = Phase::Cancelling { cancel_answered: false, invite_ended: false };
        let way = call.way;
        self.set_alarm(number, give_up, Alarm::GiveUp);
        let (asked, kind) = (Asked::Cancel, Kind::NonInvite);
        self.start_transaction(now, number, asked, kind, way, cancel.into(), out);
    }

    /// The ACK to a 200. The first is made, and sent again with each repetition of the 200.
    pub(super) fn acknowledge(&mut self, number: u64, out: &mut Outbox) {
        let run = &self.run;
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        if call.ack.is_none() {
            let Some(local) = out.local(call.way.socket) else {
                return;
            };
            let branch = format!("z9hG4bK{number}-{run}-{}-ack", call.cseq);
            let way = call.in_dialog_way();
            call.ack = Some((way, call.in_dialog("ACK", local, &branch)));
        }
        if let Some((way, ack)) = &call.ack {
            out.send(*way, ack.clone());
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

    /// Repeats an unanswered request at the next target (RFC 3263 §4.3): the same request with a
    /// new branch. False if every target was tried, or there is no choice.
    pub(super) fn fail_over(
        &mut self,
        now: Instant,
        number: u64,
        asked: Asked,
        out: &mut Outbox,
    ) -> bool {
        let targets = &self.plan.targets;
        let Some(call) = self.calls.get_mut(&number) else {
            return false;
        };
        let names_its_hop = call.dialog.as_ref().is_some_and(|dialog| dialog.next_hop.is_some());
        let has_choice = asked == Asked::Invite || !names_its_hop;
        if asked == Asked::Cancel || !has_choice || call.tries >= targets.len() {
            return false;
        }
        call.tries += 1;
        call.target = (call.target + 1) % targets.len();
        let Some(to) = targets.get(call.target) else {
            return false;
        };
        call.way.to = *to;
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
    fn in_dialog_way(&self) -> Way {
        let next_hop = self.dialog.as_ref().and_then(|dialog| dialog.next_hop);
        Way { to: next_hop.unwrap_or(self.way.to), ..self.way }
    }

    fn invite(&self, local: SocketAddr, branch: &str) -> Bytes {
        let contact = format!("Contact: <sip:{}@{local}>\r\n", self.user.user);
        Request {
            method: "INVITE",
            uri: &self.callee_uri,
            sent_by: local,
            branch,
            from: &self.from,
            to: &format!("<{}>", self.callee_uri),
            call_id: &self.call_id,
            cseq: self.cseq,
            routes: &[],
            lines: &format!("{}{contact}", self.authorization),
            body: &sdp(local),
        }
        .bytes()
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
        self.tries = 1;
    }
}
