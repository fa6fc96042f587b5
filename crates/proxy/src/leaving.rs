//! Who still needs a balancer that is on its way out (docs/walks/scale-down.md).
//!
//! Two things hold it: transactions that name it, and bindings whose Path does. How long those may live
//! is noted in the store before anybody is told of them: in the partition of the balancer, a row for
//! each worker that registered somebody through it. The row is ahead of the bindings by up to the
//! shortest lifetime, so it is seldom written, and it outlives its proxy.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleet::{BalancerMember, GenerationNumber, Membership};
use node_api::wire::LeavingBalancer;
use store::{Answer, Aor, Binding, BindingId, Completion, Query, Ticket, UnixMillis};

use crate::config::Config;
use crate::leave::Way;
use crate::worker::Worker;

/// How often the transactions are counted, and how often the store is asked.
const COUNT_INTERVAL: Duration = Duration::from_millis(500);
const ASK_INTERVAL: Duration = Duration::from_secs(5);
/// The place in a ticket that no context has.
const PLACE: u64 = 0xffff_ffff;
const IS_QUESTION: u64 = 1 << 63;

/// What the control thread reads: of which generation, and what was found.
#[derive(Debug, Default)]
pub(crate) struct Shown(Mutex<Option<(GenerationNumber, Vec<LeavingBalancer>)>>);

impl Shown {
    fn set(&self, found: Option<(GenerationNumber, Vec<LeavingBalancer>)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// What was found under this generation; `None` if it was not looked for yet.
    fn under(&self, generation: GenerationNumber) -> Option<Vec<LeavingBalancer>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|(of, _)| *of == generation).map(|(_, found)| found.clone())
    }
}

/// What all workers together say; a balancer of which one does not know yet is left out.
pub(crate) fn sum<'a>(
    membership: &Membership,
    workers: impl Iterator<Item = &'a Shown>,
) -> Vec<LeavingBalancer> {
    let told: Option<Vec<_>> = workers.map(|shown| shown.under(membership.generation)).collect();
    let told = told.unwrap_or_default();
    let of = |instance: &fleet::InstanceId| {
        let each = || told.iter().flatten().filter(|one| one.instance == *instance);
        let untils: Option<Vec<u64>> = each().map(|one| one.bindings_until_ms).collect();
        LeavingBalancer {
            instance: *instance,
            transactions: each().map(|one| one.transactions).sum(),
            bindings_until_ms: untils.and_then(|untils| untils.into_iter().max()),
        }
    };
    let is_told = |instance: &&fleet::InstanceId| {
        told.iter().all(|found| found.iter().any(|one| one.instance == **instance))
    };
    membership.leaving.iter().filter(|_| !told.is_empty()).filter(is_told).map(of).collect()
}

/// Until when bindings live that were written with a balancer's Path.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    /// Never less than what the store may have: a later note replaces an earlier one.
    until: UnixMillis,
    /// The store did not take it.
    is_missing: bool,
}

/// One worker's part.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    notes: HashMap<SocketAddr, Note>,
    /// What the store said last, by the balancer's slot; `None` if it failed.
    known: HashMap<u16, Option<UnixMillis>>,
    count_at: Option<Instant>,
    ask_at: Option<Instant>,
    shown: Arc<Shown>,
}

impl Departures {
    pub(crate) fn new(shown: Arc<Shown>) -> Self {
        Self { shown, ..Self::default() }
    }

    /// A new membership: everything is looked at anew.
    pub(crate) fn look_again(&mut self) {
        (self.count_at, self.ask_at) = (None, None);
        self.known.clear();
    }

    /// Bindings through `balancer` live until `until`: what is to be noted if that is news. Notes are
    /// whole multiples of `step`, so that not every REGISTER is news.
    fn note(
        &mut self,
        balancer: SocketAddr,
        until: UnixMillis,
        step: Duration,
    ) -> Option<UnixMillis> {
        let note = self.notes.entry(balancer).or_default();
        if until <= note.until && !note.is_missing {
            return None;
        }
        let step = u64::try_from(step.as_millis()).unwrap_or(u64::MAX).max(1);
        let ahead = UnixMillis(until.0.div_ceil(step).saturating_mul(step)).min(UnixMillis::NEVER);
        *note = Note { until: note.until.max(ahead), is_missing: false };
        Some(note.until)
    }

    /// The store did not take the note: the next REGISTER has it written again.
    fn miss(&mut self, balancer: SocketAddr) {
        if let Some(note) = self.notes.get_mut(&balancer) {
            note.is_missing = true;
        }
    }
}

/// The row of a note: the worker's own, of this life, so that no other note is overwritten.
fn row(config: &Config, worker: SocketAddr, until: UnixMillis, now: UnixMillis) -> Binding {
    let mut id = [0; 16];
    let (slot, port) = (config.instance.slot.to_be_bytes(), worker.port().to_be_bytes());
    let parts = [slot.as_slice(), &config.incarnation.0.to_be_bytes(), &port].concat();
    id.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    Binding {
        id: BindingId(id),
        contact: format!("sip:{worker}").into_bytes(),
        path: Vec::new(),
        received: None,
        q: 0,
        call_id: Vec::new(),
        cseq: 0,
        expires_at: until,
        updated_at: now,
        user_agent: Vec::new(),
        instance: None,
        reg_id: None,
        direct: false,
    }
}

impl Worker {
    /// Bindings are about to be written whose Path names this balancer.
    pub(crate) fn note_bindings(&mut self, balancer: SocketAddr, until: UnixMillis) {
        let config = &self.world.config;
        let step = Duration::from_secs(u64::from(config.registrar.expires_min_s));
        let Some(until) = self.departures.note(balancer, until, step) else { return };
        let slot = self.world.membership.as_deref().and_then(|known| known.balancer_at(balancer));
        let Some(slot) = slot.map(|member| member.instance.slot) else {
            return self.departures.miss(balancer);
        };
        let now = self.today;
        let upserts = vec![row(config, self.world.address, until, now)];
        let query = Query::Write { aor: Aor::of_balancer(balancer), upserts, now };
        self.ask(ticket(slot, 0), query);
    }

    /// Once per turn: counts and asks, if a balancer is on its way out and it is time.
    pub(crate) fn look_after_departures(&mut self) {
        let known = self.world.membership.as_ref().filter(|known| !known.leaving.is_empty());
        let Some(membership) = known.cloned() else { return };
        if self.departures.count_at.is_some_and(|at| at > self.now) {
            return;
        }
        self.departures.count_at = Some(self.now + COUNT_INTERVAL);
        let leaving = || {
            let is_leaving = |one: &&BalancerMember| membership.is_leaving(one.instance);
            membership.balancers.iter().filter(is_leaving)
        };
        if self.departures.ask_at.is_none_or(|at| at <= self.now) {
            self.departures.ask_at = Some(self.now + ASK_INTERVAL);
            for balancer in leaving() {
                let aor = Aor::of_balancer(balancer.internal);
                let ticket = ticket(balancer.instance.slot, IS_QUESTION);
                self.ask(ticket, Query::Bindings { aor });
            }
        }
        let found = leaving().map(|balancer| self.count(balancer)).collect();
        self.departures.shown.set(Some((membership.generation, found)));
    }

    fn count(&self, balancer: &BalancerMember) -> LeavingBalancer {
        let way = Way::Tier(balancer.internal);
        let count = self.layer.destinations().filter(|to| **to == way).count();
        let known = self.departures.known.get(&balancer.instance.slot).copied().flatten();
        let noted = self.departures.notes.get(&balancer.internal).map(|note| note.until);
        LeavingBalancer {
            instance: balancer.instance,
            transactions: u64::try_from(count).unwrap_or(u64::MAX),
            bindings_until_ms: known.map(|until| until.max(noted.unwrap_or_default()).0),
        }
    }

    /// Takes what the store says of a note; `false` if the completion is of something else.
    pub(crate) fn take_note(&mut self, completion: &Completion) -> bool {
        let Ticket(ticket) = completion.ticket;
        if ticket & PLACE != PLACE {
            return false;
        }
        let slot = u16::try_from(ticket >> 32 & 0xffff).unwrap_or_default();
        if ticket & IS_QUESTION != 0 {
            let until = match &completion.result {
                Ok(Answer::Bindings(rows)) => {
                    Some(rows.iter().map(|row| row.expires_at).max().unwrap_or_default())
                }
                _ => None,
            };
            self.departures.known.insert(slot, until);
            self.departures.count_at = None;
            return true;
        }
        let instance = fleet::InstanceId::balancer(slot);
        let known = self.world.membership.as_deref().and_then(|known| known.balancer(instance));
        if let (Err(error), Some(balancer)) = (&completion.result, known) {
            tracing::debug!(balancer = %balancer.internal, %error, "note not written");
            self.departures.miss(balancer.internal);
        }
        true
    }
}

fn ticket(slot: u16, kind: u64) -> Ticket {
    Ticket(kind | u64::from(slot) << 32 | PLACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(60);

    /// A note is ahead of what it stands for, and what the store did not take is written again.
    #[test]
    fn a_note_is_written_when_it_is_news() {
        let mut departures = Departures::default();
        let balancer = SocketAddr::from(([10, 0, 10, 1], 5070));
        let mut note = |until| departures.note(balancer, UnixMillis(until), STEP);
        assert_eq!(note(3_600_001), Some(UnixMillis(3_660_000)));
        assert_eq!(note(3_659_000), None, "noted already");
        assert_eq!(note(60_000), None, "shorter");
        assert_eq!(note(3_661_000), Some(UnixMillis(3_720_000)));
        departures.miss(balancer);
        let mut note = |until| departures.note(balancer, UnixMillis(until), STEP);
        assert_eq!(note(60_000), Some(UnixMillis(3_720_000)), "never less than before");
        assert_eq!(note(3_662_000), None);
    }

    #[test]
    fn a_proxy_speaks_for_all_its_workers_or_not_at_all() {
        let mut membership = testkit::membership(1, 2);
        let instance = fleet::InstanceId::balancer(2);
        membership.leaving = vec![instance];
        let shown = [Shown::default(), Shown::default()];
        let says = |transactions, bindings_until_ms| {
            let one = LeavingBalancer { instance, transactions, bindings_until_ms };
            Some((membership.generation, vec![one]))
        };
        let all = || sum(&membership, shown.iter());
        assert!(all().is_empty(), "nobody has counted");
        shown[0].set(says(1, Some(5)));
        assert!(all().is_empty(), "one has not");
        shown[1].set(says(2, None));
        let expected = LeavingBalancer { instance, transactions: 3, bindings_until_ms: None };
        assert_eq!(all(), [expected], "one has not heard from the store");
        shown[1].set(says(2, Some(9)));
        assert_eq!(all(), [LeavingBalancer { bindings_until_ms: Some(9), ..expected }]);
        let earlier = GenerationNumber::default();
        shown[1].set(says(2, Some(9)).map(|(_, found)| (earlier, found)));
        assert!(all().is_empty(), "counted under another generation");
    }
}
