//! INVITE server transaction (RFC 3261 §17.2.1, corrected by RFC 6026 §7.1).
//!
//! ```text
//!   new ──► Proceeding ──2xx from the user──► Accepted ──L──► Terminated
//!              │   1xx from the user: send        (each 2xx of the user: send; ACK: deliver)
//!              │   INVITE again: last response again
//!              └──3xx–6xx──► Completed ──ACK──► Confirmed ──I──► Terminated
//!                              │   G, or INVITE again: last response again
//!                              └──H: no ACK ─────────────────────► Terminated
//! ```
//!
//! The 100 is the user's: only the user knows whether it will answer within 200 ms. A transport
//! error is told and changes nothing (RFC 6026 §7.1): the INVITE comes again, perhaps another way.

use std::time::{Duration, Instant};

use crate::output::{AckVerdict, Answer, Outcome, ServerStep};
use crate::timers::{At, Reliability};

/// One INVITE we received. The layer keeps its last response.
#[derive(Debug)]
pub(crate) struct InviteServer {
    state: State,
}

#[derive(Debug)]
enum State {
    Proceeding,
    /// The user repeats its 2xx; we only absorb the INVITE's repetitions.
    Accepted {
        timer_l: Instant,
    },
    /// `timer_g` is `None` over a reliable transport.
    Completed {
        timer_g: Option<Instant>,
        interval: Duration,
        timer_h: Instant,
    },
    Confirmed {
        timer_i: Instant,
    },
    Terminated,
}

impl InviteServer {
    /// Starts the transaction; the user has the INVITE already.
    pub(crate) fn new() -> Self {
        Self { state: State::Proceeding }
    }

    /// The INVITE came again.
    pub(crate) fn handle_repeat(&self) -> ServerStep {
        match self.state {
            State::Proceeding | State::Completed { .. } => ServerStep::Repeat,
            State::Accepted { .. } | State::Confirmed { .. } | State::Terminated => {
                ServerStep::Nothing
            }
        }
    }

    /// An ACK matched this transaction.
    pub(crate) fn handle_ack(&mut self, at: At<'_>) -> AckVerdict {
        match self.state {
            State::Completed { .. } => {
                self.state = match at.reliability {
                    Reliability::Reliable => State::Terminated,
                    Reliability::Unreliable => State::Confirmed { timer_i: at.now + at.timing.t4 },
                };
                AckVerdict::Absorb
            }
            State::Accepted { .. } => AckVerdict::Deliver,
            // Nothing was final yet: the ACK is a stray one.
            State::Proceeding | State::Confirmed { .. } | State::Terminated => AckVerdict::Absorb,
        }
    }

    /// The user answers.
    pub(crate) fn respond(&mut self, at: At<'_>, outcome: Outcome) -> Answer {
        match (&self.state, outcome) {
            (State::Proceeding, Outcome::Provisional) => Answer::SendAndKeep,
            (State::Proceeding, Outcome::Success) => {
                self.state = State::Accepted { timer_l: at.after_64_t1() };
                Answer::Send
            }
            // A repetition by the UAS, or the 2xx of another branch of the fork.
            (State::Accepted { .. }, Outcome::Success) => Answer::Send,
            (State::Proceeding, Outcome::Failure) => {
                self.state = State::Completed {
                    timer_g: at.first_repetition(),
                    interval: at.timing.t1,
                    timer_h: at.after_64_t1(),
                };
                Answer::SendAndKeep
            }
            (State::Accepted { .. }, Outcome::Provisional | Outcome::Failure)
            | (State::Completed { .. } | State::Confirmed { .. } | State::Terminated, _) => {
                Answer::Ignore
            }
        }
    }

    /// A response could not be sent.
    pub(crate) fn handle_transport_error(&self) -> ServerStep {
        match self.state {
            State::Proceeding | State::Completed { .. } | State::Accepted { .. } => {
                ServerStep::TransportFailed
            }
            State::Confirmed { .. } | State::Terminated => ServerStep::Nothing,
        }
    }

    /// Time has reached `at.now`. Harmless if nothing is due.
    pub(crate) fn handle_timeout(&mut self, at: At<'_>) -> ServerStep {
        match &mut self.state {
            State::Completed { timer_h, .. } if *timer_h <= at.now => {
                self.state = State::Terminated;
                ServerStep::TimedOut
            }
            State::Completed { timer_g: Some(timer_g), interval, .. } if *timer_g <= at.now => {
                *interval = at.doubled_to_t2(*interval);
                *timer_g = at.now + *interval;
                ServerStep::Repeat
            }
            State::Accepted { timer_l: deadline } | State::Confirmed { timer_i: deadline }
                if *deadline <= at.now =>
            {
                self.state = State::Terminated;
                ServerStep::Nothing
            }
            _ => ServerStep::Nothing,
        }
    }

    /// When to call [`Self::handle_timeout`]; `None` while only the user can move us.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Completed { timer_g, timer_h, .. } => {
                Some(timer_g.map_or(timer_h, |timer_g| timer_g.min(timer_h)))
            }
            State::Accepted { timer_l } => Some(timer_l),
            State::Confirmed { timer_i } => Some(timer_i),
            State::Proceeding | State::Terminated => None,
        }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }
}
