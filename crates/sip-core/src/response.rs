//! The response context (RFC 3261 §16.7): what becomes of the responses of a request's branches.
//! It keeps handles, not bytes, owns Timer C, and sends nothing itself.
//!
//! ```text
//!   Waiting ──► Calling ──1xx──► Proceeding
//!      │           │ final, failure  │ stop: CANCEL
//!      │           ├─────────────────┼──► Cancelled ──final, give up──► Ended
//!      │           └──430──► Refreshing ──nothing new──► Ended
//!      └── its phone or group was not needed: stays
//! ```

mod best;

pub(crate) use self::best::rank;

use std::time::{Duration, Instant};

use sip_message::{ResponseClass, StatusCode};

use crate::target::TargetSet;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextTimers {
    /// Above three minutes (RFC 3261 §16.6 step 11).
    pub timer_c: Duration,
    /// 64·T1: how long a cancelled INVITE may go without its final response (§9.1), and how long
    /// the client of a non-INVITE waits for one (RFC 4320 §4.2).
    pub timer_f: Duration,
}

impl Default for ContextTimers {
    fn default() -> Self {
        Self { timer_c: Duration::from_secs(185), timer_f: Duration::from_secs(32) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextKind {
    Invite,
    NonInvite,
}

/// What the owner must do, in order. `H` is its handle of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<H> {
    /// Make this branch a client transaction; its target has the same place in the target set.
    Start(usize),
    /// Pass this response upstream now, with the challenges of `challenges` added to it.
    Forward { branch: usize, response: H, challenges: Vec<H> },
    /// Cancel this branch; a provisional response of it has come (RFC 3261 §9.1).
    Cancel(usize),
    /// The flow of this dialog's side is gone: look up the present binding, make it a target
    /// ([`refreshed`](crate::target::refreshed)), and say so to
    /// [`ResponseContext::handle_refreshed`].
    Refresh(usize),
    /// Answer upstream with a response of our own making.
    RespondLocally(StatusCode),
    /// Give up this branch's client transaction; nobody waits for it any more.
    Abandon(usize),
    /// Every branch has ended, and so has the time in which a request that nobody answers may come
    /// again. Comes once; a 2xx to an INVITE may still follow and be forwarded.
    Done,
}

/// How a branch ends without a final response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchFailure {
    /// Timer B or F.
    TimedOut,
    /// The transport said so.
    TransportFailed,
    /// The next hop's name has no address.
    Unresolved,
}

/// One request and its branches.
#[derive(Debug)]
pub struct ResponseContext<H> {
    kind: ContextKind,
    timers: ContextTimers,
    started: Instant,
    branches: Vec<Branch<H>>,
    /// The group that was started last.
    group: Option<u16>,
    /// No branch is started any more.
    is_stopping: bool,
    /// The client has cancelled.
    is_cancelled: bool,
    is_answered: bool,
    /// Nobody is told anything (RFC 4320 §4). Repetitions of the request still come until then.
    silent_until: Option<Instant>,
    is_done: bool,
}

#[derive(Debug)]
struct Branch<H> {
    group: u16,
    slot: u16,
    is_refreshable: bool,
    state: State<H>,
}

#[derive(Debug)]
enum State<H> {
    Waiting,
    /// Nothing has come back. With `is_unwanted` the first provisional response is met by a CANCEL.
    Calling {
        timer_c: Option<Instant>,
        is_unwanted: bool,
    },
    Proceeding {
        timer_c: Option<Instant>,
    },
    Cancelled {
        give_up: Instant,
    },
    Refreshing,
    Ended(Outcome<H>),
}

#[derive(Debug)]
enum Outcome<H> {
    Response {
        status: StatusCode,
        response: H,
    },
    /// As good as this response.
    Local(StatusCode),
    /// Nothing to tell anybody.
    Nothing,
}

impl<H> State<H> {
    fn is_active(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Ended(_))
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Calling { timer_c, .. } | Self::Proceeding { timer_c } => *timer_c,
            Self::Cancelled { give_up } => Some(*give_up),
            Self::Waiting | Self::Refreshing | Self::Ended(_) => None,
        }
    }
}

impl<H> ResponseContext<H> {
    /// Starts the first group of branches.
    pub fn start(
        kind: ContextKind,
        targets: &TargetSet,
        timers: ContextTimers,
        now: Instant,
        out: &mut Vec<Action<H>>,
    ) -> Self {
        let branch = |target: &crate::target::Target| Branch {
            group: target.group,
            slot: target.slot,
            is_refreshable: target.is_refreshable,
            state: State::Waiting,
        };
        let mut context = Self {
            kind,
            timers,
            started: now,
            branches: targets.targets.iter().map(branch).collect(),
            group: None,
            is_stopping: false,
            is_cancelled: false,
            is_answered: false,
            silent_until: None,
            is_done: false,
        };
        context.advance(now, out);
        context
    }

    /// A response has come on a branch.
    pub fn handle_response(
        &mut self,
        now: Instant,
        branch: usize,
        status: StatusCode,
        response: H,
        out: &mut Vec<Action<H>>,
    ) {
        match status.class() {
            ResponseClass::Provisional => {
                self.handle_provisional(now, branch, status, response, out);
            }
            ResponseClass::Success => self.handle_success(now, branch, response, out),
            ResponseClass::Failure => self.handle_refusal(now, branch, status, response, out),
        }
    }

    fn handle_provisional(
        &mut self,
        now: Instant,
        branch: usize,
        status: StatusCode,
        response: H,
        out: &mut Vec<Action<H>>,
    ) {
        let is_trying = status == StatusCode::TRYING;
        let timer_c = self.timer_c(now);
        let give_up = now + self.timers.timer_f;
        let Some(state) = self.state(branch) else { return };
        match state {
            State::Calling { is_unwanted: true, .. } => {
                *state = State::Cancelled { give_up };
                out.push(Action::Cancel(branch));
                return;
            }
            // A 100 says nothing of the callee and does not prolong (RFC 3261 §16.7 step 2).
            State::Calling { timer_c, .. } if is_trying => {
                *state = State::Proceeding { timer_c: *timer_c };
            }
            State::Calling { .. } => *state = State::Proceeding { timer_c },
            State::Proceeding { .. } if !is_trying => *state = State::Proceeding { timer_c },
            State::Proceeding { .. } => {}
            State::Waiting | State::Cancelled { .. } | State::Refreshing | State::Ended(_) => {
                return;
            }
        }
        if !is_trying && !self.is_answered && !self.is_stopping {
            out.push(Action::Forward { branch, response, challenges: Vec::new() });
        }
    }

    /// A 2xx goes upstream at once, every one of an INVITE's (RFC 3261 §16.7 step 5).
    fn handle_success(
        &mut self,
        now: Instant,
        branch: usize,
        response: H,
        out: &mut Vec<Action<H>>,
    ) {
        let is_owed = self.kind == ContextKind::Invite || !self.is_answered;
        let Some(state) = self.state(branch) else { return };
        *state = State::Ended(Outcome::Nothing);
        if is_owed {
            self.is_answered = true;
            out.push(Action::Forward { branch, response, challenges: Vec::new() });
        }
        self.stop(now, out);
        self.advance(now, out);
    }

    fn handle_refusal(
        &mut self,
        now: Instant,
        branch: usize,
        status: StatusCode,
        response: H,
        out: &mut Vec<Action<H>>,
    ) {
        let is_invite = self.kind == ContextKind::Invite;
        let is_active = self.state(branch).is_some_and(|state| state.is_active());
        if !is_active {
            return;
        }
        // Between us and our balancers, never for a peer (protocol rule 13).
        if status == StatusCode::FLOW_FAILED {
            return self.replace(now, branch, StatusCode::TEMPORARILY_UNAVAILABLE, out);
        }
        // RFC 4320 §4.1: nobody may be told 408 for anything but an INVITE.
        let is_unspeakable = status == StatusCode::REQUEST_TIMEOUT && !is_invite;
        let outcome =
            if is_unspeakable { Outcome::Nothing } else { Outcome::Response { status, response } };
        self.end(branch, outcome);
        // Whoever says 6xx speaks for every phone (RFC 3261 §16.7 step 5).
        if is_global(status) {
            self.stop(now, out);
        }
        self.advance(now, out);
    }

    /// A branch ended without a final response.
    pub fn handle_failure(
        &mut self,
        now: Instant,
        branch: usize,
        failure: BranchFailure,
        out: &mut Vec<Action<H>>,
    ) {
        let is_silent = match self.state(branch) {
            Some(State::Calling { .. }) => true,
            Some(State::Proceeding { .. } | State::Cancelled { .. }) => false,
            Some(State::Waiting | State::Refreshing | State::Ended(_)) | None => return,
        };
        match (self.kind, failure) {
            // RFC 4320 §4.2: the client has given up at the same moment.
            (ContextKind::NonInvite, BranchFailure::TimedOut) => {
                self.end(branch, Outcome::Nothing);
                self.advance(now, out);
            }
            (ContextKind::Invite, BranchFailure::TimedOut) => {
                let status = StatusCode::REQUEST_TIMEOUT;
                if is_silent {
                    self.replace(now, branch, status, out);
                } else {
                    self.end(branch, Outcome::Local(status));
                    self.advance(now, out);
                }
            }
            // As if a 503 had come (RFC 3261 §16.9).
            (_, BranchFailure::TransportFailed | BranchFailure::Unresolved) => {
                self.replace(now, branch, StatusCode::SERVICE_UNAVAILABLE, out);
            }
        }
    }

    /// The branch did not reach its phone: the phone's next flow, else the present binding of a
    /// dialog's side, else `status`.
    fn replace(
        &mut self,
        now: Instant,
        branch: usize,
        status: StatusCode,
        out: &mut Vec<Action<H>>,
    ) {
        self.end(branch, Outcome::Local(status));
        let Some(failed) = self.branches.get_mut(branch) else { return };
        if !self.is_stopping {
            let slot = failed.slot;
            if failed.is_refreshable {
                failed.is_refreshable = false;
                failed.state = State::Refreshing;
                out.push(Action::Refresh(branch));
                return;
            }
            let mut places = self.branches.iter();
            let next = places.position(|it| it.slot == slot && matches!(it.state, State::Waiting));
            if let Some(next) = next {
                self.end(branch, Outcome::Nothing);
                self.call(now, next, out);
                return;
            }
        }
        self.advance(now, out);
    }

    /// The answer to [`Action::Refresh`]: `replacement` is the place of a target that was added at
    /// the end of the target set, or `None` if the side has no other way.
    pub fn handle_refreshed(
        &mut self,
        now: Instant,
        branch: usize,
        replacement: Option<usize>,
        out: &mut Vec<Action<H>>,
    ) {
        if !matches!(self.state(branch), Some(State::Refreshing)) {
            return;
        }
        let place = self.branches.len();
        let Some(failed) = self.branches.get_mut(branch) else { return };
        failed.state = State::Ended(Outcome::Local(StatusCode::TEMPORARILY_UNAVAILABLE));
        if replacement == Some(place) && !self.is_stopping {
            failed.state = State::Ended(Outcome::Nothing);
            let (group, slot) = (failed.group, failed.slot);
            let state = State::Waiting;
            self.branches.push(Branch { group, slot, is_refreshable: false, state });
            self.call(now, place, out);
        } else {
            self.advance(now, out);
        }
    }

    /// The client has cancelled (RFC 3261 §16.10). Harmless for anything but a pending INVITE.
    pub fn handle_cancel(&mut self, now: Instant, out: &mut Vec<Action<H>>) {
        if self.kind == ContextKind::NonInvite || self.is_answered {
            return;
        }
        self.is_cancelled = true;
        self.stop(now, out);
        self.advance(now, out);
    }

    /// Whether this branch was cancelled and its final response is still to come.
    pub fn is_cancelling(&self, branch: usize) -> bool {
        let state = self.branches.get(branch).map(|branch| &branch.state);
        matches!(state, Some(State::Cancelled { .. }))
    }

    /// The callee has taken the CANCEL of this branch over another connection than its INVITE had
    /// come on. The final response may be lost with that one, so it is not waited for long.
    pub fn handle_cancel_taken(&mut self, now: Instant, branch: usize) {
        let soon = now + self.timers.timer_f / 8;
        if let Some(State::Cancelled { give_up }) = self.state(branch) {
            *give_up = (*give_up).min(soon);
        }
    }

    /// Time has reached `now`. Harmless if nothing is due.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action<H>>) {
        for branch in 0..self.branches.len() {
            let give_up = now + self.timers.timer_f;
            let Some(state) = self.state(branch) else { continue };
            if state.deadline().is_none_or(|deadline| now < deadline) {
                continue;
            }
            if matches!(state, State::Proceeding { .. }) {
                // Timer C: it has rung long enough (RFC 3261 §16.8).
                *state = State::Cancelled { give_up };
                out.push(Action::Cancel(branch));
            } else {
                self.end(branch, Outcome::Local(StatusCode::REQUEST_TIMEOUT));
                out.push(Action::Abandon(branch));
            }
        }
        self.advance(now, out);
    }

    /// When to call [`Self::handle_timeout`]; `None` while only events can move us.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silent = self.silent_until.filter(|_| !self.is_done);
        self.branches.iter().filter_map(|branch| branch.state.deadline()).chain(silent).min()
    }

    /// Whether it came to its end without an answer: nobody else will end the server transaction.
    pub fn is_silent(&self) -> bool {
        self.silent_until.is_some()
    }

    /// Whether a final response has gone upstream.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Whether every branch has ended.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    fn state(&mut self, branch: usize) -> Option<&mut State<H>> {
        self.branches.get_mut(branch).map(|branch| &mut branch.state)
    }

    fn end(&mut self, branch: usize, outcome: Outcome<H>) {
        if let Some(state) = self.state(branch) {
            *state = State::Ended(outcome);
        }
    }

    fn timer_c(&self, now: Instant) -> Option<Instant> {
        (self.kind == ContextKind::Invite).then(|| now + self.timers.timer_c)
    }

    fn call(&mut self, now: Instant, branch: usize, out: &mut Vec<Action<H>>) {
        let timer_c = self.timer_c(now);
        if let Some(state) = self.state(branch) {
            *state = State::Calling { timer_c, is_unwanted: false };
            out.push(Action::Start(branch));
        }
    }

    /// No further branch is wanted: those of an INVITE are cancelled, as soon as they may be.
    fn stop(&mut self, now: Instant, out: &mut Vec<Action<H>>) {
        self.is_stopping = true;
        let give_up = now + self.timers.timer_f;
        for (place, branch) in self.branches.iter_mut().enumerate() {
            match &mut branch.state {
                State::Refreshing => {
                    let status = StatusCode::TEMPORARILY_UNAVAILABLE;
                    branch.state = State::Ended(Outcome::Local(status));
                }
                State::Calling { is_unwanted, .. } if self.kind == ContextKind::Invite => {
                    *is_unwanted = true;
                }
                State::Proceeding { .. } if self.kind == ContextKind::Invite => {
                    branch.state = State::Cancelled { give_up };
                    out.push(Action::Cancel(place));
                }
                _ => {}
            }
        }
    }

    /// Goes on to the next group, or to the answer, once no branch is under way.
    fn advance(&mut self, now: Instant, out: &mut Vec<Action<H>>) {
        if self.is_done || self.branches.iter().any(|branch| branch.state.is_active()) {
            return;
        }
        if !self.is_stopping && self.start_next_group(now, out) {
            return;
        }
        if !self.is_answered {
            self.is_answered = true;
            if !self.answer(now, out) {
                self.silent_until = Some(self.started + self.timers.timer_f);
            }
        }
        if self.silent_until.is_some_and(|until| now < until) {
            return;
        }
        self.is_done = true;
        out.push(Action::Done);
    }

    /// Starts the first flow of every phone in the lowest group that was not tried.
    fn start_next_group(&mut self, now: Instant, out: &mut Vec<Action<H>>) -> bool {
        let untried = self.branches.iter().filter(|branch| {
            matches!(branch.state, State::Waiting) && Some(branch.group) > self.group
        });
        let Some(group) = untried.map(|branch| branch.group).min() else { return false };
        self.group = Some(group);
        let mut last_slot = None;
        for place in 0..self.branches.len() {
            let Some(branch) = self.branches.get(place) else { continue };
            let is_next = branch.group == group && last_slot != Some(branch.slot);
            if is_next && matches!(branch.state, State::Waiting) {
                last_slot = Some(branch.slot);
                self.call(now, place, out);
            }
        }
        true
    }
}

/// 6xx: no other place needs to be tried (RFC 3261 §21.6).
fn is_global(status: StatusCode) -> bool {
    status.code() >= 600
}

#[cfg(test)]
mod tests;
