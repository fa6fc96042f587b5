//! Non-INVITE server transaction (RFC 3261 §17.2.2).
//!
//! ```text
//!   new ──► Trying ──1xx──► Proceeding ──2xx–6xx──► Completed ──J──► Terminated
//!              │                │ request again:        │ request again:
//!              │                │ last response again   │ last response again
//!              └──2xx–6xx───────┼──────────────────────►┘
//!                               └──transport error (or in Completed) ──► Terminated
//! ```
//!
//! Trying and Proceeding have no timer: the user answers in time, or stays silent as RFC 4320 §4.2
//! asks and abandons the transaction.

use std::time::Instant;

use crate::output::{Answer, Outcome, ServerStep};
use crate::timers::{At, Reliability};

/// One request other than INVITE and ACK that we received. The layer keeps its last response.
#[derive(Debug)]
pub(crate) struct NonInviteServer {
    state: State,
}

#[derive(Debug)]
enum State {
    Trying,
    Proceeding,
    Completed { timer_j: Instant },
    Terminated,
}

impl NonInviteServer {
    /// Starts the transaction; the user has the request already.
    pub(crate) fn new() -> Self {
        Self { state: State::Trying }
    }

    /// The request came again.
    pub(crate) fn handle_repeat(&self) -> ServerStep {
        match self.state {
            State::Proceeding | State::Completed { .. } => ServerStep::Repeat,
            State::Trying | State::Terminated => ServerStep::Nothing,
        }
    }

    /// The user answers.
    pub(crate) fn respond(&mut self, at: At<'_>, outcome: Outcome) -> Answer {
        match (&self.state, outcome) {
            (State::Trying | State::Proceeding, Outcome::Provisional) => {
                self.state = State::Proceeding;
                Answer::SendAndKeep
            }
            (State::Trying | State::Proceeding, Outcome::Success | Outcome::Failure) => {
                self.state = match at.reliability {
                    Reliability::Reliable => State::Terminated,
                    Reliability::Unreliable => State::Completed { timer_j: at.after_64_t1() },
                };
                Answer::SendAndKeep
            }
            (State::Completed { .. } | State::Terminated, _) => Answer::Ignore,
        }
    }

    /// A response could not be sent.
    pub(crate) fn handle_transport_error(&mut self) -> ServerStep {
        match self.state {
            State::Proceeding | State::Completed { .. } => {
                self.state = State::Terminated;
                ServerStep::TransportFailed
            }
            State::Trying | State::Terminated => ServerStep::Nothing,
        }
    }

    /// Time has reached `at.now`. Harmless if nothing is due.
    pub(crate) fn handle_timeout(&mut self, at: At<'_>) -> ServerStep {
        if matches!(self.state, State::Completed { timer_j } if timer_j <= at.now) {
            self.state = State::Terminated;
        }
        ServerStep::Nothing
    }

    /// When to call [`Self::handle_timeout`]; `None` while only the user can move us.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Completed { timer_j } => Some(timer_j),
            State::Trying | State::Proceeding | State::Terminated => None,
        }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }
}
