//! How the balancers do, and which of them stands in for one that is dead (protocol rule 23).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use fleet::{BalancerMember, Membership};

/// Refusals in a row before a balancer counts as dead: one may have been a restart in between.
const REFUSALS_MAX: u32 = 2;
/// Probes in a row without any answer before a balancer is suspect: one second.
const MISSES_OF_A_SUSPECT: u32 = 4;
/// Probes in a row without any answer before a balancer counts as dead: three seconds.
const MISSES_MAX: u32 = 12;

/// What is believed of a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// It does not answer, and may only be slow: answers to its clients go both ways.
    Suspect,
    /// Nobody is there: everything goes another way.
    Dead,
}

/// What a probe has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Answer,
    /// Nobody listens there.
    Refusal,
    Silence,
}

/// What the probes of one balancer have found. Counted and not timed: a proxy that was itself held up
/// has missed nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Vitals {
    refusals: u32,
    misses: u32,
}

impl Vitals {
    /// One more round; one answer mends everything.
    pub(crate) fn note(&mut self, sign: Sign) {
        match sign {
            Sign::Answer => *self = Self::default(),
            Sign::Refusal => self.refusals = self.refusals.saturating_add(1),
            Sign::Silence => self.misses = self.misses.saturating_add(1),
        }
    }

    pub(crate) fn health(self) -> Health {
        if self.refusals >= REFUSALS_MAX || self.misses >= MISSES_MAX {
            Health::Dead
        } else if self.misses >= MISSES_OF_A_SUSPECT {
            Health::Suspect
        } else {
            Health::Well
        }
    }
}

/// The balancers that are not well, by the address that proxies know.
pub(crate) type Unwell = BTreeMap<SocketAddr, Health>;

/// Which way messages take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Detours {
    unwell: Arc<Unwell>,
    /// Who may stand in for another one.
    able: Vec<BalancerMember>,
}

impl Detours {
    /// Those that are on their way out stand in only if there is nobody else.
    pub(crate) fn new(membership: Option<&Membership>, unwell: Arc<Unwell>) -> Self {
        let well = |one: &&BalancerMember| !unwell.contains_key(&one.internal);
        let of = |known: &Membership| -> Vec<BalancerMember> {
            let stays = |one: &&BalancerMember| !known.is_leaving(one.instance);
            let mut able: Vec<_> =
                known.balancers.iter().filter(well).filter(stays).copied().collect();
            if able.is_empty() {
                able.extend(known.balancers.iter().filter(well));
            }
            able
        };
        let able = membership.map(of).unwrap_or_default();
        Self { unwell, able }
    }

    pub(crate) fn health(&self, balancer: SocketAddr) -> Health {
        self.unwell.get(&balancer).copied().unwrap_or(Health::Well)
    }

    pub(crate) fn unwell(&self) -> usize {
        self.unwell.len()
    }

    /// The balancer that carries what `balancer` cannot: the same one for the whole of a call, and
    /// calls are spread over all that are well. `None` if there is no other.
    pub(crate) fn stand_in(&self, balancer: SocketAddr, call_id: &[u8]) -> Option<&BalancerMember> {
        let others = || self.able.iter().filter(|one| one.internal != balancer);
        let count = u64::try_from(others().count()).unwrap_or(u64::MAX);
        // FNV-1a: nobody gains by steering it.
        let hash = call_id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
            (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
        });
        let place = usize::try_from(hash.checked_rem(count)?).unwrap_or_default();
        others().nth(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_kill_and_silence_is_first_a_suspicion() {
        use Sign::{Answer, Refusal, Silence};
        let table = [
            ("nothing yet", vec![], Health::Well),
            ("a restart in between", vec![Refusal, Answer, Refusal], Health::Well),
            ("nobody listens", vec![Refusal, Refusal], Health::Dead),
            ("or now and then", vec![Refusal, Silence, Refusal], Health::Dead),
            ("a lost probe", vec![Silence; 3], Health::Well),
            ("silent for a second", vec![Silence; 4], Health::Suspect),
            ("for three", vec![Silence; 12], Health::Dead),
            ("and back", [vec![Silence; 30], vec![Answer]].concat(), Health::Well),
        ];
        for (name, signs, expected) in table {
            let mut vitals = Vitals::default();
            signs.into_iter().for_each(|sign| vitals.note(sign));
            assert_eq!(vitals.health(), expected, "{name}");
        }
    }

    /// Of four balancers the second is dead and the third is leaving.
    #[test]
    fn a_call_has_one_stand_in_and_calls_are_spread_over_those_that_stay() {
        let mut membership = testkit::membership(1, 4);
        let [one, two, three, four] = [0, 1, 2, 3].map(|place| membership.balancers[place]);
        membership.leaving = vec![three.instance];
        let unwell = Arc::new(Unwell::from([(two.internal, Health::Dead)]));
        let detours = Detours::new(Some(&membership), unwell);
        let of = |call: usize| detours.stand_in(two.internal, format!("call-{call}").as_bytes());
        let taken = (0..1_000).filter(|call| of(*call) == Some(&one)).count();
        assert!((400..600).contains(&taken), "{taken}");
        assert!((0..1_000).all(|call| of(call) == Some(&one) || of(call) == Some(&four)));
        assert_eq!(of(7), of(7));
        assert_eq!(detours.stand_in(one.internal, b"call"), Some(&four), "not the one itself");
    }

    #[test]
    fn one_that_is_leaving_stands_in_if_there_is_nobody_else() {
        let mut membership = testkit::membership(1, 2);
        let [one, two] = [0, 1].map(|place| membership.balancers[place]);
        membership.leaving = vec![two.instance];
        let dead = Arc::new(Unwell::from([(one.internal, Health::Dead)]));
        let detours = Detours::new(Some(&membership), dead);
        assert_eq!(detours.stand_in(one.internal, b"call"), Some(&two));
        assert_eq!(detours.stand_in(two.internal, b"call"), None);
    }
}
