//! The choice of the best response (RFC 3261 §16.7 step 6), and what of it may leave.

use std::time::Instant;

use sip_message::StatusCode;

use super::{Action, ContextKind, Outcome, ResponseContext, State, is_global};

impl<H> ResponseContext<H> {
    /// Sends the best of the final responses upstream, or what stands for it; `false` if nothing
    /// may be said.
    pub(super) fn answer(&mut self, now: Instant, out: &mut Vec<Action<H>>) -> bool {
        let before = out.len();
        let is_invite = self.kind == ContextKind::Invite;
        if !is_invite && now >= self.started + self.timers.timer_f {
            // RFC 4320 §4.2: the client has timed out; what comes now would only confuse.
            return false;
        }
        let statuses = self.branches.iter().enumerate().filter_map(|(place, branch)| {
            let State::Ended(outcome) = &branch.state else { return None };
            Some((self.rank(outcome)?, place))
        });
        let best = statuses.min().and_then(|(_, place)| {
            let outcome = Outcome::Nothing;
            let branch = self.branches.get_mut(place)?;
            let state = std::mem::replace(&mut branch.state, State::Ended(outcome));
            if let State::Ended(outcome) = state { Some((place, outcome)) } else { None }
        });
        match best {
            Some((branch, Outcome::Response { status, response })) => {
                // RFC 3261 §16.7 step 6: a 503 would make the client shun us for what another is.
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    out.push(Action::RespondLocally(StatusCode::SERVER_INTERNAL_ERROR));
                } else {
                    let challenges =
                        if is_challenge(status) { self.take_challenges() } else { Vec::new() };
                    out.push(Action::Forward { branch, response, challenges });
                }
            }
            Some((_, Outcome::Local(_))) if self.is_cancelled => {
                out.push(Action::RespondLocally(StatusCode::REQUEST_TERMINATED));
            }
            Some((_, Outcome::Local(status))) => {
                let is_503 = status == StatusCode::SERVICE_UNAVAILABLE;
                let status = if is_503 { StatusCode::SERVER_INTERNAL_ERROR } else { status };
                // RFC 4320 §4.1: no 408 for anything but an INVITE.
                if is_invite || status != StatusCode::REQUEST_TIMEOUT {
                    out.push(Action::RespondLocally(status));
                }
            }
            Some((_, Outcome::Nothing)) | None if is_invite => {
                let is_cancelled = self.is_cancelled;
                let cancelled = StatusCode::REQUEST_TERMINATED;
                let failed = StatusCode::REQUEST_TIMEOUT;
                let status = if is_cancelled { cancelled } else { failed };
                out.push(Action::RespondLocally(status));
            }
            Some((_, Outcome::Nothing)) | None => {}
        }
        out.len() > before
    }

    /// The other branches' 401 and 407 (RFC 3261 §16.7 step 7).
    fn take_challenges(&mut self) -> Vec<H> {
        let mut challenges = Vec::new();
        for branch in &mut self.branches {
            let is_other = matches!(
                &branch.state,
                State::Ended(Outcome::Response { status, .. }) if is_challenge(*status)
            );
            if !is_other {
                continue;
            }
            let state = std::mem::replace(&mut branch.state, State::Ended(Outcome::Nothing));
            if let State::Ended(Outcome::Response { response, .. }) = state {
                challenges.push(response);
            }
        }
        challenges
    }

    fn rank(&self, outcome: &Outcome<H>) -> Option<(u16, u8)> {
        match outcome {
            Outcome::Response { status, .. } => Some(rank(*status, false, self.is_cancelled)),
            Outcome::Local(status) => Some(rank(*status, true, self.is_cancelled)),
            Outcome::Nothing => None,
        }
    }
}

/// The lower the better: 6xx, then the lowest class, then what says most about the request.
pub(crate) fn rank(status: StatusCode, is_local: bool, is_cancelled: bool) -> (u16, u8) {
    let code = status.code();
    let class = if is_global(status) { 0 } else { code / 100 };
    let preference = match code {
        // These help the client to ask again.
        401 | 407 | 415 | 420 | 484 => 0,
        // After a CANCEL this is what everybody waits for.
        487 if is_cancelled => 1,
        408 | 503 => 4,
        _ if is_local => 3,
        _ => 2,
    };
    (class, preference)
}

fn is_challenge(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
}
