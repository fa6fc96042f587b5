//! What a run of callers is: whom, how often, by which flow, and what counts as a failure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sip_message::Transport;
use sip_transaction::Timing;

use crate::destinations::Service;
use crate::mix::{Mix, Mode};
use crate::schedule::Schedule;

/// A user and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user part of the address and the username of the digest.
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Whether INVITE and BYE are to be challenged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A request that passes unchallenged breaks the flow, as in SIPp's scenario of Figure 4.
    Required,
    /// Either way is right.
    Allowed,
}

/// Whether a lost message is sent again (RFC 3261 §17) or makes its call fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retransmission {
    On,
    Off,
}

/// One run of callers.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where new calls go, in turn. With retransmission on, a request goes to the next target if the
    /// first is dead: silence, an ICMP error, a refused or lost connection, 503 (RFC 3263 §4.3).
    pub targets: Vec<SocketAddr>,
    /// In place of targets: a name that leads to them.
    pub service: Option<Service>,
    /// `None`: what the service's NAPTR records prefer, and UDP for targets. UDP and TCP are known.
    pub transport: Option<Transport>,
    /// Addresses to send from, in turn, a socket for each; port 0 takes a free one.
    pub local: Vec<SocketAddr>,
    /// The domain of callers and callees.
    pub domain: String,
    /// The callers, in turn.
    pub users: Vec<Credentials>,
    /// User parts of the callees, in turn; kinds of calls may have their own.
    pub callees: Vec<String>,
    pub schedule: Schedule,
    pub mix: Mix,
    pub challenge: Challenge,
    pub retransmission: Retransmission,
    pub timing: Timing,
    /// How long the callee may ring.
    pub answer_within: Duration,
    /// Ends the run early, after so many calls.
    pub calls_max: Option<u64>,
    /// How long calls may still go on after the run was stopped.
    pub wind_down: Duration,
    /// Failures kept with their details; the others are only counted.
    pub failures_kept_max: usize,
}

impl Plan {
    /// Figure 4 of the paper: every call challenged twice, answered at once and ended at once.
    pub fn figure_4(
        targets: Vec<SocketAddr>,
        local: Vec<SocketAddr>,
        domain: &str,
        schedule: Schedule,
    ) -> Self {
        Self {
            targets,
            service: None,
            transport: None,
            local,
            domain: domain.to_owned(),
            users: Vec::new(),
            callees: Vec::new(),
            schedule,
            mix: Mode::Complete { talk: Duration::ZERO }.into(),
            challenge: Challenge::Required,
            retransmission: Retransmission::On,
            timing: Timing::RFC_3261,
            answer_within: Duration::from_secs(60),
            calls_max: None,
            wind_down: Duration::from_secs(10),
            failures_kept_max: 1_000,
        }
    }
}

/// Ends a run from another thread or a signal handler: no new calls, and those that live may end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
