//! What a call makes of its answers, of silence, and of its alarm: the flow itself.
//!
//! ```text
//!   Inviting ──401/407──► Inviting with credentials ──200: ACK──► Talking ──► Leaving ──200──► end
//!      │ 180                        │ 180, then the alarm            BYE, 401/407, BYE
//!      └────────────────────────────┴──► Cancelling ──200 and 487──► end
//! ```

use std::time::{Duration, Instant};

use sip_message::{HeaderName, Message, StatusCode};
use sip_transaction::ClientId;

use super::Uac;
use super::call::{Alarm, Asked, Phase};
use crate::digest::DigestChallenge;
use crate::endpoint::Outbox;
use crate::mix::Mode;
use crate::plan::Challenge;
use crate::text::{Dialog, status_line};

impl Uac<'_> {
    /// A response for the call.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        number: u64,
        asked: Asked,
        response: &Message<'_>,
        out: &mut Outbox,
    ) {
        let Some(status) = response.status() else {
            return;
        };
        match asked {
            Asked::Invite if status.code() < 200 => self.rings(now, number, status),
            Asked::Invite if status.code() < 300 => self.accepted(now, number, response, out),
            Asked::Invite | Asked::Bye
                if status.code() == 503 && self.leave(now, number, asked, response, out) => {}
            Asked::Invite => self.refused(now, number, response, status, out),
            Asked::Bye => self.bye_answered(now, number, response, status, out),
            Asked::Cancel => self.cancel_answered(now, number, response, status),
        }
    }

    fn rings(&mut self, now: Instant, number: u64, status: StatusCode) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        if status.code() == 100 || call.has_rung || call.phase != Phase::Inviting {
            return;
        }
        call.has_rung = true;
        let took = now.saturating_duration_since(call.asked_at);
        self.report.ringing.record(took);
        if let Mode::CancelWhileRinging { ringing } = call.mode {
            self.set_alarm(number, now + ringing, Alarm::Cancel);
        }
    }

    /// A 200 to the INVITE: the call stands, whether we still want it or not.
    fn accepted(&mut self, now: Instant, number: u64, response: &Message<'_>, out: &mut Outbox) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        if matches!(call.phase, Phase::Talking | Phase::Leaving) {
            // A repetition: our ACK was lost.
            call.was_repeated = true;
            return self.acknowledge(now, number, out);
        }
        let took = now.saturating_duration_since(call.asked_at);
        let mode = call.mode;
        let wanted = match (call.phase, mode) {
            (Phase::Inviting, Mode::Complete { .. }) => None,
            (Phase::Inviting, Mode::CancelWhileRinging { .. }) => Some("180 to INVITE"),
            _ => Some("487 to INVITE after CANCEL"),
        };
        let unchallenged = self.plan.challenge == Challenge::Required && !call.is_authorised;
        call.phase = Phase::Talking;
        call.alarm = None;
        call.dialog = Dialog::of(response);
        let has_contact = call.dialog.is_some();
        self.acknowledge(now, number, out);
        if let Some(call) = self.calls.get_mut(&number) {
            call.forget_authorization();
        }
        if let Some(expected) = wanted {
            self.fail(now, number, expected, status_line(response));
        } else if unchallenged {
            self.fail(now, number, "401 or 407 to INVITE", status_line(response));
        } else if !has_contact {
            self.fail(now, number, "200 to INVITE with a Contact", status_line(response));
        } else {
            self.report.answer.record(took);
            self.second.answer.record(took);
        }
        match mode {
            Mode::Complete { talk } if !talk.is_zero() => {
                self.set_alarm(number, now + talk, Alarm::HangUp);
            }
            _ => self.hang_up(now, number, out),
        }
    }

    /// A final response to the INVITE that is no 2xx; the layer has acknowledged it.
    fn refused(
        &mut self,
        now: Instant,
        number: u64,
        response: &Message<'_>,
        status: StatusCode,
        out: &mut Outbox,
    ) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        if let Phase::Cancelling { cancel_answered, .. } = call.phase {
            if status.code() != 487 {
                self.fail(now, number, "487 to INVITE after CANCEL", status_line(response));
                return self.end_call(now, number);
            }
            call.phase = Phase::Cancelling { cancel_answered, invite_ended: true };
            return self.end_if_cancelled(now, number);
        }
        let asks = matches!(status.code(), 401 | 407) && !call.is_authorised;
        match DigestChallenge::of(response).filter(|_| asks) {
            Some(challenge) => self.authorise(now, number, Asked::Invite, &challenge, out),
            None => {
                let expected = match (call.is_authorised, self.plan.challenge) {
                    (false, Challenge::Required) => "401 or 407 to INVITE",
                    _ => "180 or 200 to INVITE",
                };
                self.fail(now, number, expected, status_line(response));
                self.end_call(now, number);
            }
        }
    }

    fn bye_answered(
        &mut self,
        now: Instant,
        number: u64,
        response: &Message<'_>,
        status: StatusCode,
        out: &mut Outbox,
    ) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let is_authorised = call.is_authorised;
        let took = now.saturating_duration_since(call.asked_at);
        match status.code() {
            ..200 => {}
            200..300 => {
                if self.plan.challenge == Challenge::Required && !is_authorised {
                    self.fail(now, number, "401 or 407 to BYE", status_line(response));
                } else if !self.calls.get(&number).is_some_and(|call| call.has_failed) {
                    self.report.bye.record(took);
                }
                self.end_call(now, number);
            }
            code => {
                let asks = matches!(code, 401 | 407) && !is_authorised;
                if let Some(challenge) = DigestChallenge::of(response).filter(|_| asks) {
                    return self.authorise(now, number, Asked::Bye, &challenge, out);
                }
                self.fail(now, number, "200 to BYE", status_line(response));
                self.end_call(now, number);
            }
        }
    }

    fn cancel_answered(
        &mut self,
        now: Instant,
        number: u64,
        response: &Message<'_>,
        status: StatusCode,
    ) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let Phase::Cancelling { invite_ended, .. } = call.phase else {
            return;
        };
        match status.code() {
            ..200 => {}
            200..300 => {
                call.phase = Phase::Cancelling { cancel_answered: true, invite_ended };
                self.end_if_cancelled(now, number);
            }
            _ => {
                self.fail(now, number, "200 to CANCEL", status_line(response));
                self.end_call(now, number);
            }
        }
    }

    fn end_if_cancelled(&mut self, now: Instant, number: u64) {
        let done = Phase::Cancelling { cancel_answered: true, invite_ended: true };
        if self.calls.get(&number).is_some_and(|call| call.phase == done) {
            self.end_call(now, number);
        }
    }

    /// Nobody answered a request, or it could not be sent. `id` is about to end.
    pub(super) fn unanswered(
        &mut self,
        now: Instant,
        number: u64,
        asked: Asked,
        id: ClientId,
        out: &mut Outbox,
    ) {
        self.owners.remove(&id);
        if let Some(way) = self.way_of(number) {
            self.destinations.avoid(now, way);
        }
        if self.fail_over(now, number, asked, out) || self.ask_again(now, number, asked) {
            return;
        }
        let expected = match asked {
            Asked::Invite => "an answer to INVITE",
            Asked::Bye => "an answer to BYE",
            Asked::Cancel => "an answer to CANCEL",
        };
        self.fail(now, number, expected, "nothing".to_owned());
        self.end_call(now, number);
    }

    /// A 503: the service is asked at its next address (RFC 3263 §4.3), and not again at this one
    /// before its time. False if there is no other.
    fn leave(
        &mut self,
        now: Instant,
        number: u64,
        asked: Asked,
        response: &Message<'_>,
        out: &mut Outbox,
    ) -> bool {
        let retry_after = response.field(HeaderName::RETRY_AFTER).and_then(|field| {
            let digits = field.value.split(|byte| !byte.is_ascii_digit()).next()?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        });
        if let (Some(seconds), Some(to)) = (retry_after, self.way_of(number)) {
            self.destinations.avoid_for(now, to, Duration::from_secs(seconds));
        }
        let is_inviting = self.calls.get(&number).is_some_and(|it| it.phase == Phase::Inviting);
        (asked == Asked::Bye || is_inviting) && self.fail_over(now, number, asked, out)
    }

    /// The alarm of a call, if it is still the one that was set for `at`.
    pub(super) fn alarm(&mut self, now: Instant, at: Instant, number: u64, out: &mut Outbox) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let Some((_, alarm)) = call.alarm.filter(|(set_for, _)| *set_for == at) else {
            return;
        };
        call.alarm = None;
        match (alarm, call.phase) {
            (Alarm::HangUp, _) => self.hang_up(now, number, out),
            (Alarm::Cancel, _) => self.cancel(now, number, out),
            (Alarm::AskAgain, _) => self.asked_again(now, number, out),
            (Alarm::GiveUp, Phase::Inviting) => {
                let expected = if call.has_rung { "200 to INVITE" } else { "180 or 200 to INVITE" };
                self.fail(now, number, expected, "nothing".to_owned());
                // So that the callee does not ring on. What comes of it is not asked any more.
                self.cancel(now, number, out);
            }
            (Alarm::GiveUp, _) => {
                self.fail(now, number, "487 to INVITE after CANCEL", "nothing".to_owned());
                self.end_call(now, number);
            }
        }
    }
}
