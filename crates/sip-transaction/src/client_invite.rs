//! INVITE client transaction (RFC 3261 §17.1.1, corrected by RFC 6026 §7.2).
//!
//! ```text
//!   new ──► Calling ──1xx──► Proceeding
//!              │  A: send again  │
//!              ├──2xx────────────┴──► Accepted  ──M──► Terminated    (each 2xx is delivered)
//!              ├──3xx–6xx: ACK ──────► Completed ──D──► Terminated    (each repetition: ACK)
//!              └──B: timed out, or transport error ───► Terminated
//! ```
//!
//! Proceeding has no timer: how long a callee may ring is Timer C's business, and that belongs to
//! the response context of the user.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::output::{ClientStep, Outcome};
use crate::timers::{At, Reliability};

/// One INVITE we sent, until its fate is known. The layer keeps its bytes.
#[derive(Debug)]
pub(crate) struct InviteClient {
    state: State,
}

#[derive(Debug)]
enum State {
    /// `timer_a` is `None` over a reliable transport.
    Calling {
        timer_a: Option<Instant>,
        interval: Duration,
        timer_b: Instant,
    },
    Proceeding,
    Accepted {
        timer_m: Instant,
    },
    Completed {
        ack: Bytes,
        timer_d: Instant,
    },
    Terminated,
}

impl InviteClient {
    /// Starts the transaction; the layer transmits the INVITE.
    pub(crate) fn new(at: At<'_>) -> Self {
        let state = State::Calling {
            timer_a: at.first_repetition(),
            interval: at.timing.t1,
            timer_b: at.after_64_t1(),
        };
        Self { state }
    }

    /// A response matched this transaction. `make_ack` is asked only for a new non-2xx response.
    pub(crate) fn handle_response(
        &mut self,
        at: At<'_>,
        outcome: Outcome,
        make_ack: impl FnOnce() -> Bytes,
    ) -> ClientStep {
        match (&self.state, outcome) {
            (State::Calling { .. } | State::Proceeding, Outcome::Provisional) => {
                self.state = State::Proceeding;
                ClientStep::Deliver
            }
            (State::Calling { .. } | State::Proceeding, Outcome::Success) => {
                self.state = State::Accepted { timer_m: at.after_64_t1() };
                ClientStep::Deliver
            }
            // A fork downstream may answer with several 2xx; the user acknowledges each.
            (State::Accepted { .. }, Outcome::Success) => ClientStep::Deliver,
            (State::Calling { .. } | State::Proceeding, Outcome::Failure) => {
                let ack = make_ack();
                self.state = match at.reliability {
                    Reliability::Reliable => State::Terminated,
                    Reliability::Unreliable => {
                        State::Completed { ack: ack.clone(), timer_d: at.after_64_t1() }
                    }
                };
                ClientStep::AcknowledgeAndDeliver(ack)
            }
            // Our ACK was lost: repeat it, and do not bother the user again.
            (State::Completed { ack, .. }, Outcome::Failure) => {
                ClientStep::Acknowledge(ack.clone())
            }
            // Late or reordered: the fate of the INVITE is already known.
            (State::Accepted { .. }, Outcome::Provisional | Outcome::Failure)
            | (State::Completed { .. }, Outcome::Provisional | Outcome::Success)
            | (State::Terminated, _) => ClientStep::Nothing,
        }
    }

    /// The INVITE or its ACK could not be sent. In the other states nothing of ours is under way,
    /// and the error is a late one.
    pub(crate) fn handle_transport_error(&mut self) -> ClientStep {
        match self.state {
            State::Calling { .. } | State::Completed { .. } => {
                self.state = State::Terminated;
                ClientStep::TransportFailed
            }
            State::Proceeding | State::Accepted { .. } | State::Terminated => ClientStep::Nothing,
        }
    }

    /// Time has reached `at.now`. Harmless if nothing is due.
    pub(crate) fn handle_timeout(&mut self, at: At<'_>) -> ClientStep {
        match &mut self.state {
            State::Calling { timer_b, .. } if *timer_b <= at.now => {
                self.state = State::Terminated;
                ClientStep::TimedOut
            }
            State::Calling { timer_a: Some(timer_a), interval, .. } if *timer_a <= at.now => {
                // Timer A doubles without a ceiling; T2 caps other timers only (§17.1.1.2).
                *interval *= 2;
                *timer_a = at.now + *interval;
                ClientStep::Repeat
            }
            State::Accepted { timer_m: deadline } | State::Completed { timer_d: deadline, .. }
                if *deadline <= at.now =>
            {
                self.state = State::Terminated;
                ClientStep::Nothing
            }
            _ => ClientStep::Nothing,
        }
    }

    /// When to call [`Self::handle_timeout`]; `None` while only the peer can move us.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Calling { timer_a, timer_b, .. } => {
                Some(timer_a.map_or(timer_b, |timer_a| timer_a.min(timer_b)))
            }
            State::Accepted { timer_m } => Some(timer_m),
            State::Completed { timer_d, .. } => Some(timer_d),
            State::Proceeding | State::Terminated => None,
        }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }
}
