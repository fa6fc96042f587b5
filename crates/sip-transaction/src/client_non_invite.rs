//! Non-INVITE client transaction (RFC 3261 §17.1.2).
//!
//! ```text
//!   new ──► Trying ──1xx──► Proceeding
//!              │ E: send again  │ E: send again, every T2
//!              ├──2xx–6xx───────┴──► Completed ──K──► Terminated
//!              └──F: timed out, or transport error ──► Terminated
//! ```
//!
//! Completed absorbs what is left of the responses; over a reliable transport nothing is, and the
//! transaction ends at once.

use std::time::{Duration, Instant};

use crate::output::{ClientStep, Outcome};
use crate::timers::{At, Reliability};

/// One request other than INVITE and ACK that we sent. The layer keeps its bytes.
#[derive(Debug)]
pub(crate) struct NonInviteClient {
    state: State,
}

#[derive(Debug)]
enum State {
    /// `timer_e` is `None` over a reliable transport.
    Trying {
        timer_e: Option<Instant>,
        interval: Duration,
        timer_f: Instant,
    },
    Proceeding {
        timer_e: Option<Instant>,
        timer_f: Instant,
    },
    Completed {
        timer_k: Instant,
    },
    Terminated,
}

impl NonInviteClient {
    /// Starts the transaction; the layer transmits the request.
    pub(crate) fn new(at: At<'_>) -> Self {
        let state = State::Trying {
            timer_e: at.first_repetition(),
            interval: at.timing.t1,
            timer_f: at.after_64_t1(),
        };
        Self { state }
    }

    /// A response matched this transaction.
    pub(crate) fn handle_response(&mut self, at: At<'_>, outcome: Outcome) -> ClientStep {
        match (&self.state, outcome) {
            (
                &State::Trying { timer_e, timer_f, .. } | &State::Proceeding { timer_e, timer_f },
                Outcome::Provisional,
            ) => {
                self.state = State::Proceeding { timer_e, timer_f };
                ClientStep::Deliver
            }
            (
                State::Trying { .. } | State::Proceeding { .. },
                Outcome::Success | Outcome::Failure,
            ) => {
                self.state = match at.reliability {
                    Reliability::Reliable => State::Terminated,
                    Reliability::Unreliable => State::Completed { timer_k: at.now + at.timing.t4 },
                };
                ClientStep::Deliver
            }
            (State::Completed { .. } | State::Terminated, _) => ClientStep::Nothing,
        }
    }

    /// The request could not be sent.
    pub(crate) fn handle_transport_error(&mut self) -> ClientStep {
        match self.state {
            State::Trying { .. } | State::Proceeding { .. } => {
                self.state = State::Terminated;
                ClientStep::TransportFailed
            }
            State::Completed { .. } | State::Terminated => ClientStep::Nothing,
        }
    }

    /// Time has reached `at.now`. Harmless if nothing is due.
    pub(crate) fn handle_timeout(&mut self, at: At<'_>) -> ClientStep {
        match &mut self.state {
            State::Trying { timer_f, .. } | State::Proceeding { timer_f, .. }
                if *timer_f <= at.now =>
            {
                self.state = State::Terminated;
                ClientStep::TimedOut
            }
            State::Trying { timer_e: Some(timer_e), interval, .. } if *timer_e <= at.now => {
                *interval = at.doubled_to_t2(*interval);
                *timer_e = at.now + *interval;
                ClientStep::Repeat
            }
            State::Proceeding { timer_e: Some(timer_e), .. } if *timer_e <= at.now => {
                *timer_e = at.now + at.timing.t2;
                ClientStep::Repeat
            }
            State::Completed { timer_k } if *timer_k <= at.now => {
                self.state = State::Terminated;
                ClientStep::Nothing
            }
            _ => ClientStep::Nothing,
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Trying { timer_e, timer_f, .. } | State::Proceeding { timer_e, timer_f } => {
                Some(timer_e.map_or(timer_f, |timer_e| timer_e.min(timer_f)))
            }
            State::Completed { timer_k } => Some(timer_k),
            State::Terminated => None,
        }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }
}
