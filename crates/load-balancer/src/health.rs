//! What a balancer believes of a member: alive, suspect or dead, from what it hears and does not
//! hear. Pure: probes are counted, not timed.
//!
//! ```text
//!               refused, unreachable,              refused again,
//!               silent for a while                 silent for long
//!      ┌───────┐ ─────────────────────► ┌─────────┐ ──────────────► ┌──────┐
//!      │ alive │                        │ suspect │                 │ dead │
//!      └───────┘ ◄───────────────────── └─────────┘                 └──────┘
//!          ▲             an answer                                      │
//!          └────────────────────────────────────────────────────────────┘
//!                        a newer generation that has it, and an answer
//! ```
//!
//! A suspect is given requests as before; what is for it is also shown to its heir (protocol rule
//! 21). A dead one is skipped, and its answers alone do not bring it back: by then its calls are
//! another's, and only the manager can say that all balancers return them together.

/// What a balancer believes of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Belief {
    #[default]
    Alive = 0,
    Suspect = 1,
    Dead = 2,
}

impl Belief {
    pub(crate) const ALL: [Self; 3] = [Self::Alive, Self::Suspect, Self::Dead];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        }
    }
}

/// Why a belief changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nobody listens there.
    Refused,
    /// The network does not lead there.
    Unreachable,
    /// Probes are not answered.
    Silent,
    /// A probe was answered.
    Answered,
    /// A newer generation still has it, and it answers.
    Generation,
}

impl Reason {
    pub(crate) const ALL: [Self; 5] =
        [Self::Refused, Self::Unreachable, Self::Silent, Self::Answered, Self::Generation];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Answered => "answered",
            Self::Generation => "generation",
        }
    }
}

/// How many probes in a row may go unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From so many on a member is suspect.
    pub(crate) suspect_missed: u32,
    /// From so many on it is dead, if another member answers.
    pub(crate) dead_missed: u32,
}

/// Probes that a member may miss after a refusal before it is dead: the network limits how often it
/// reports a refusal, so the second may not come.
const MISSED_AFTER_REFUSAL: u32 = 2;
/// Refusals without an answer in between that are proof: one may be a forgery, or an old one.
const REFUSALS: u32 = 2;

/// What was heard of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It answered a probe.
    Answer,
    /// A probe was refused. Only the peer, or who sees the probe, can do that.
    ProbeRefused,
    /// A message was refused. Whoever knows the two addresses can forge that.
    MessageRefused,
    /// A message or a probe could not be brought there.
    Unreachable,
}

/// A belief that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) belief: Belief,
    pub(crate) reason: Reason,
}

/// One member in one life of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    belief: Belief,
    /// Why, unless it has been alive all the time.
    reason: Option<Reason>,
    /// It answers probes at all: older builds do not, and their silence says nothing.
    can_answer: bool,
    /// A probe is under way.
    is_asked: bool,
    /// Probes in a row that were not answered before the next one.
    missed: u32,
    /// Refusals since the last answer.
    refusals: u32,
    /// A generation since its death still has it.
    is_pardoned: bool,
}

impl Health {
    pub(crate) const fn belief(&self) -> Belief {
        self.belief
    }

    pub(crate) const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Whether it has answered the last probe that it had time for.
    pub(crate) const fn is_answering(&self) -> bool {
        self.can_answer && self.missed == 0 && self.refusals == 0
    }

    /// Whether another probe should go out at once: it is doubted, and an answer would help.
    pub(crate) const fn is_urgent(&self) -> bool {
        self.refusals == 1 && !matches!(self.belief, Belief::Dead)
    }

    /// Takes what was heard.
    pub(crate) fn hear(&mut self, evidence: Evidence) -> Option<Change> {
        match evidence {
            Evidence::Answer => {
                (self.can_answer, self.is_asked) = (true, false);
                (self.missed, self.refusals) = (0, 0);
                match self.belief {
                    Belief::Alive => None,
                    Belief::Suspect => self.turn(Belief::Alive, Reason::Answered),
                    Belief::Dead if self.is_pardoned => {
                        self.turn(Belief::Alive, Reason::Generation)
                    }
                    Belief::Dead => None,
                }
            }
            Evidence::ProbeRefused | Evidence::MessageRefused => {
                if self.refusals == 0 {
                    // The caller asks at once; from there the silence counts.
                    (self.missed, self.is_asked) = (0, true);
                }
                // However many messages were on their way: they are one piece of evidence.
                let is_proof = self.refusals + 1 >= REFUSALS && evidence == Evidence::ProbeRefused;
                self.refusals = if is_proof { REFUSALS } else { 1 };
                let belief = if is_proof { Belief::Dead } else { Belief::Suspect };
                self.worsen(belief, Reason::Refused)
            }
            Evidence::Unreachable => self.worsen(Belief::Suspect, Reason::Unreachable),
        }
    }

    /// Counts the silence since the last probe, just before the next one. Answers that have come are
    /// heard before, so a balancer that was itself stopped for a while accuses nobody.
    ///
    /// `others_answer`: another member answers. If nobody does, the fault may be on this side, and
    /// silence makes nobody dead.
    pub(crate) fn ask(&mut self, patience: Patience, others_answer: bool) -> Option<Change> {
        let is_missed = std::mem::replace(&mut self.is_asked, true);
        if !is_missed || !self.can_answer {
            return None;
        }
        self.missed = self.missed.saturating_add(1);
        if self.refusals > 0 && self.missed >= MISSED_AFTER_REFUSAL {
            self.worsen(Belief::Dead, Reason::Refused)
        } else if self.missed >= patience.dead_missed && others_answer {
            self.worsen(Belief::Dead, Reason::Silent)
        } else if self.missed >= patience.suspect_missed {
            self.worsen(Belief::Suspect, Reason::Silent)
        } else {
            None
        }
    }

    /// A newer generation has it: a dead one may come back as soon as it answers. One that never
    /// answers probes is believed at once.
    pub(crate) fn pardon(&mut self) -> Option<Change> {
        if self.belief != Belief::Dead {
            return None;
        }
        self.is_pardoned = true;
        if self.is_answering() || !self.can_answer {
            self.refusals = 0;
            return self.turn(Belief::Alive, Reason::Generation);
        }
        None
    }

    /// A doubt that is greater than before; a lesser one changes nothing.
    fn worsen(&mut self, belief: Belief, reason: Reason) -> Option<Change> {
        if belief <= self.belief { None } else { self.turn(belief, reason) }
    }

    fn turn(&mut self, belief: Belief, reason: Reason) -> Option<Change> {
        self.belief = belief;
        self.reason = Some(reason);
        self.is_pardoned = false;
        Some(Change { belief, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { suspect_missed: 2, dead_missed: 5 };

    fn belief(change: Option<Change>) -> Option<(Belief, Reason)> {
        change.map(|it| (it.belief, it.reason))
    }

    /// One that has answered its first probe.
    fn known() -> Health {
        let mut health = Health::default();
        assert_eq!(health.ask(PATIENCE, true), None);
        assert_eq!(health.hear(Evidence::Answer), None);
        assert!(health.is_answering());
        health
    }

    /// Goal: a frozen process is suspect, then dead, and its answers bring it back from suspicion
    /// alone. Method: rounds without an answer.
    #[test]
    fn silence_makes_suspect_then_dead() {
        let mut health = known();
        let told: Vec<_> = (0..7).map(|_| belief(health.ask(PATIENCE, true))).collect();
        let suspect = Some((Belief::Suspect, Reason::Silent));
        let dead = Some((Belief::Dead, Reason::Silent));
        assert_eq!(told, [None, None, suspect, None, None, dead, None]);
        assert_eq!(health.hear(Evidence::Answer), None, "only a generation brings it back");
        assert!(health.is_answering());

        let mut health = known();
        for _ in 0..4 {
            health.ask(PATIENCE, true);
        }
        let back = health.hear(Evidence::Answer);
        assert_eq!(belief(back), Some((Belief::Alive, Reason::Answered)), "a false suspicion");
    }

    #[test]
    fn a_tier_that_is_silent_as_a_whole_stays_suspect() {
        let mut health = known();
        for _ in 0..100 {
            health.ask(PATIENCE, false);
        }
        assert_eq!(health.belief(), Belief::Suspect, "perhaps we are the deaf ones");
        assert_eq!(belief(health.ask(PATIENCE, true)), Some((Belief::Dead, Reason::Silent)));
    }

    #[test]
    fn the_silence_of_one_that_never_answered_says_nothing() {
        let mut health = Health::default();
        assert!((0..100).all(|_| health.ask(PATIENCE, true).is_none()));
    }

    /// Goal: a refusal is doubt, a second one after a probe is proof, and messages under way when
    /// it died are one refusal however many they were.
    #[test]
    fn two_refusals_are_death_if_one_is_of_a_probe() {
        let mut health = known();
        let first = health.hear(Evidence::MessageRefused);
        assert_eq!(belief(first), Some((Belief::Suspect, Reason::Refused)));
        assert!(health.is_urgent(), "asked at once");
        assert!((0..50).all(|_| health.hear(Evidence::MessageRefused).is_none()));
        let second = health.hear(Evidence::ProbeRefused);
        assert_eq!(belief(second), Some((Belief::Dead, Reason::Refused)));
        assert!(!health.is_urgent());

        let mut probed = known();
        assert_eq!(probed.hear(Evidence::ProbeRefused).map(|it| it.belief), Some(Belief::Suspect));
        assert_eq!(probed.hear(Evidence::ProbeRefused).map(|it| it.belief), Some(Belief::Dead));
    }

    /// Goal: forged refusals of messages kill nobody; a true one does even if the network reports
    /// no second.
    #[test]
    fn a_refused_member_lives_if_it_answers_and_dies_if_it_is_silent() {
        let mut health = known();
        for _ in 0..100 {
            health.hear(Evidence::MessageRefused);
            assert_eq!(health.belief(), Belief::Suspect);
            health.ask(PATIENCE, true);
            health.hear(Evidence::Answer);
            assert_eq!(health.belief(), Belief::Alive);
        }
        health.hear(Evidence::MessageRefused);
        let told: Vec<_> = (0..3).map(|_| belief(health.ask(PATIENCE, false))).collect();
        assert_eq!(told, [None, Some((Belief::Dead, Reason::Refused)), None]);
    }

    #[test]
    fn unreachable_is_doubt_and_silence_decides() {
        let mut health = known();
        let told = health.hear(Evidence::Unreachable);
        assert_eq!(belief(told), Some((Belief::Suspect, Reason::Unreachable)));
        assert_eq!(health.hear(Evidence::Unreachable), None);
        assert_eq!(health.hear(Evidence::Answer).map(|it| it.belief), Some(Belief::Alive));
    }

    /// Goal: a return is a generation and an answer, in either order.
    #[test]
    fn a_dead_member_returns_with_a_generation_and_an_answer() {
        let dead = || {
            let mut health = known();
            while health.belief() != Belief::Dead {
                health.ask(PATIENCE, true);
            }
            health
        };
        let returned = Some((Belief::Alive, Reason::Generation));
        let mut answers_first = dead();
        assert_eq!(answers_first.hear(Evidence::Answer), None);
        assert_eq!(belief(answers_first.pardon()), returned);

        let mut pardoned_first = dead();
        assert_eq!(pardoned_first.pardon(), None, "it is still silent");
        assert_eq!(belief(pardoned_first.hear(Evidence::Answer)), returned);

        let mut twice = pardoned_first;
        while twice.belief() != Belief::Dead {
            twice.ask(PATIENCE, true);
        }
        assert_eq!(twice.hear(Evidence::Answer), None, "a pardon is for one death");

        let mut mute = Health::default();
        mute.hear(Evidence::ProbeRefused);
        mute.hear(Evidence::ProbeRefused);
        assert_eq!(belief(mute.pardon()), returned, "an older build never answers");
    }
}
