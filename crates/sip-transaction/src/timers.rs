//! T1, T2, T4 and what follows from them (RFC 3261 appendix A).

use std::time::{Duration, Instant};

/// Whether the transport retransmits for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reliability {
    Reliable,
    Unreliable,
}

/// The three constants from which every timer of a transaction is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Estimate of the round trip; where doubling starts.
    pub t1: Duration,
    /// Where doubling ends, for non-INVITE requests and for responses to INVITE.
    pub t2: Duration,
    /// How long a message may linger in the network.
    pub t4: Duration,
}

impl Timing {
    /// The standard's defaults (RFC 3261 §17.1.1.1).
    pub const RFC_3261: Self = Self {
        t1: Duration::from_millis(500),
        t2: Duration::from_secs(4),
        t4: Duration::from_secs(5),
    };

    /// 64·T1: timers B, F, H, J, L and M.
    ///
    /// Timer D is "at least 32 seconds" over an unreliable transport, which is 64·T1 by default;
    /// it follows T1 here so that a closed network may lower all of them together.
    pub fn sixty_four_t1(&self) -> Duration {
        self.t1 * 64
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::RFC_3261
    }
}

/// When something happens to a transaction, and by what rules its timers run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) now: Instant,
    pub(crate) timing: &'a Timing,
    pub(crate) reliability: Reliability,
}

impl At<'_> {
    /// 64·T1 from now.
    pub(crate) fn after_64_t1(&self) -> Instant {
        self.now + self.timing.sixty_four_t1()
    }

    /// T1 from now over an unreliable transport: the first repetition. `None` over a reliable one.
    pub(crate) fn first_repetition(&self) -> Option<Instant> {
        (self.reliability == Reliability::Unreliable).then(|| self.now + self.timing.t1)
    }

    /// The interval after `interval`, doubled up to T2.
    pub(crate) fn doubled_to_t2(&self, interval: Duration) -> Duration {
        (interval * 2).min(self.timing.t2)
    }
}
