//! Whether this manager leads: the turns of its lease, and what may be done until the next one.
//!
//! The manager acts only while a margin of the lease is left, so that it has stopped before anybody
//! else may begin. Both the clock that never goes back and the wall clock must say so: the first
//! stands still while a machine sleeps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use store::LeaseStore;
use store::lease::{Ask, Candidate, Tenure};
use tokio::sync::watch;

use crate::clock::Clock;

/// A lease lasts two poll intervals: with the turns below, another manager has taken over two and a
/// half of them after the last renewal.
const POLLS_PER_LEASE: u32 = 2;
/// However short the polls: a database must have time to answer.
const DURATION_MIN: Duration = Duration::from_secs(1);
/// Renewed, or looked at, this often within its duration.
const TURNS_PER_LEASE: u32 = 8;
/// The last part of a lease in which nothing is done any more: 1/4.
const MARGIN_PART: u32 = 4;

/// Whether the process of a holder has ended for good.
pub type IsGone = Box<dyn Fn(&str) -> bool + Send>;

/// How this manager takes part in the leading of a fleet.
pub struct Lease {
    pub store: Box<dyn LeaseStore>,
    /// Of this life of this process alone; what stands before the first `/` is shown to people.
    pub holder: String,
    /// The fence will be at least this.
    pub fence_min: u64,
    pub is_gone: IsGone,
}

/// What the manager and those who ask it see of its lease.
pub struct Leadership {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Whether the lease is ours, for those who wait for that.
    holds: watch::Sender<bool>,
}

#[derive(Clone, Debug, Default)]
struct State {
    duration: Duration,
    held: Option<Held>,
    /// Holder of the lease; empty: nobody.
    holder: String,
    /// Nodes were found with this fence.
    fence_seen: u64,
    trouble: String,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    fence: u64,
    /// By the clock that never goes back.
    until: Duration,
    until_unix_ms: u64,
}

/// What this manager is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Act.
    Leads { fence: u64 },
    /// Wait: the lease is ours and could not be renewed in time.
    Pauses,
    /// Stand by.
    Follows,
}

impl Leadership {
    pub(crate) fn duty(&self) -> Duty {
        let held = self.state().held;
        match held {
            None => Duty::Follows,
            Some(held) if self.left(held).is_zero() => Duty::Pauses,
            Some(held) => Duty::Leads { fence: held.fence },
        }
    }

    /// Whether nobody else can lead yet: what belongs to the leader may still be written.
    pub(crate) fn is_undisputed(&self) -> bool {
        let held = self.state().held;
        held.is_some_and(|held| !self.whole(held).is_zero())
    }

    /// Whether acts of the reign with this fence may be begun.
    pub(crate) fn may_act(&self, fence: u64) -> bool {
        self.duty() == Duty::Leads { fence }
    }

    /// Returns when they must have ended; never, as long as the lease is renewed in time.
    pub(crate) async fn lost(&self, fence: u64) {
        loop {
            let held = self.state().held.filter(|held| held.fence == fence);
            let left = held.map_or(Duration::ZERO, |held| self.left(held));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Nodes obey a manager with this fence: to lead, ours must be higher.
    pub(crate) fn saw_fence(&self, fence: u64) {
        let mut state = self.state();
        state.fence_seen = state.fence_seen.max(fence);
    }

    pub(crate) fn set_poll_interval(&self, poll_interval: Duration) {
        self.state().duration = duration(poll_interval);
    }

    /// Who leads, for people.
    pub(crate) fn leader(&self) -> String {
        shown(&self.state().holder)
    }

    pub(crate) fn trouble(&self) -> String {
        self.state().trouble.clone()
    }

    pub(crate) fn holds(&self) -> watch::Receiver<bool> {
        self.holds.subscribe()
    }

    /// How long acts may still last.
    fn left(&self, held: Held) -> Duration {
        self.whole(held).saturating_sub(self.state_duration() / MARGIN_PART)
    }

    /// How long the lease lasts.
    fn whole(&self, held: Held) -> Duration {
        let by_wall = held.until_unix_ms.saturating_sub(self.clock.unix_ms());
        held.until.saturating_sub(self.clock.monotonic()).min(Duration::from_millis(by_wall))
    }

    fn state_duration(&self) -> Duration {
        self.state().duration
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(holder: &str) -> String {
    holder.split('/').next().unwrap_or_default().to_owned()
}

fn duration(poll_interval: Duration) -> Duration {
    (poll_interval * POLLS_PER_LEASE).max(DURATION_MIN)
}

/// Takes the turns.
pub struct Keeper {
    lease: Lease,
    candidate: Candidate,
    leadership: Arc<Leadership>,
}

impl Keeper {
    #[must_use]
    pub fn new(lease: Lease, poll_interval: Duration, clock: Arc<dyn Clock>) -> Self {
        let candidate = Candidate::new(lease.holder.clone(), lease.fence_min);
        let state = State { duration: duration(poll_interval), ..State::default() };
        let holds = watch::Sender::new(false);
        let leadership = Arc::new(Leadership { clock, state: Mutex::new(state), holds });
        Self { lease, candidate, leadership }
    }

    #[must_use]
    pub fn leadership(&self) -> Arc<Leadership> {
        Arc::clone(&self.leadership)
    }

    /// Renews the lease, takes it, or looks who has it. Waits for the database.
    pub fn turn(&mut self) {
        let State { duration, fence_seen, .. } = self.leadership.state().clone();
        if fence_seen > 0 {
            self.candidate.raise(fence_seen + 1);
        }
        let clock = Arc::clone(&self.leadership.clock);
        // Before the renewal is sent, as the candidate's own look at the clock.
        let sent_unix_ms = clock.unix_ms();
        let tenure = self.candidate.turn(&mut Ask {
            store: &mut *self.lease.store,
            clock: &|| clock.monotonic(),
            duration,
            is_gone: &*self.lease.is_gone,
        });
        let mut state = self.leadership.state();
        state.trouble.clear();
        match tenure {
            Ok(Tenure::Ours { fence, until }) => {
                let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                let until_unix_ms = sent_unix_ms.saturating_add(duration_ms);
                state.held = Some(Held { fence, until, until_unix_ms });
                state.holder.clone_from(&self.lease.holder);
            }
            Ok(Tenure::Theirs { holder }) => (state.held, state.holder) = (None, holder),
            // What is ours stays so until its time is up.
            Err(error) => state.trouble = error.to_string(),
        }
        let holds = state.held.is_some();
        drop(state);
        self.leadership.holds.send_if_modified(|held| std::mem::replace(held, holds) != holds);
    }

    /// Gives the lease back; nothing may be done in its name any more.
    pub fn release(&mut self) {
        self.leadership.state().held = None;
        if let Err(error) = self.candidate.release(&mut *self.lease.store) {
            tracing::warn!(%error, "the lease was not given back; it runs out by itself");
        }
    }

    /// Takes turns on a thread of its own until the other end of `stop` is dropped; then gives the
    /// lease back.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub(crate) fn start(mut self, stop: mpsc::Receiver<()>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("lease".to_owned()).spawn(move || {
            loop {
                self.turn();
                let pause = self.leadership.state_duration() / TURNS_PER_LEASE;
                if stop.recv_timeout(pause) != Err(mpsc::RecvTimeoutError::Timeout) {
                    break;
                }
            }
            self.release();
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use store::{MemoryLease, StoreError};

    use super::*;

    #[derive(Default)]
    struct Clocks {
        monotonic_ms: AtomicU64,
        unix_ms: AtomicU64,
    }

    impl Clock for Clocks {
        fn unix_ms(&self) -> u64 {
            self.unix_ms.load(Ordering::SeqCst)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
        }
    }

    fn keeper(store: &MemoryLease, clock: &Arc<Clocks>, holder: &str) -> Keeper {
        let lease = Lease {
            store: Box::new(store.clone()),
            holder: holder.to_owned(),
            fence_min: 5,
            is_gone: Box::new(|_| false),
        };
        Keeper::new(lease, Duration::from_secs(5), Arc::clone(clock) as Arc<dyn Clock>)
    }

    /// A lease of 10 s of which the store hears nothing more: acts end after 7.5 s, and by the wall
    /// clock too, should the other one have stood still.
    #[test]
    fn a_manager_stops_a_margin_before_its_lease_ends() {
        let (store, clock) = (MemoryLease::default(), Arc::new(Clocks::default()));
        let mut keeper = keeper(&store, &clock, "one/1");
        let leadership = keeper.leadership();
        assert_eq!(leadership.duty(), Duty::Follows);
        keeper.turn();
        let leads = Duty::Leads { fence: 5 };
        let down = StoreError::Unavailable { detail: "gone".to_owned() };
        store.set_outage(Some(down));
        keeper.turn();
        for which in [&clock.monotonic_ms, &clock.unix_ms] {
            for (at_ms, expected) in [(0, leads), (7_499, leads), (7_500, Duty::Pauses)] {
                which.store(at_ms, Ordering::SeqCst);
                assert_eq!(leadership.duty(), expected, "after {at_ms} ms");
            }
            which.store(0, Ordering::SeqCst);
        }
        assert_eq!(
            (leadership.leader().as_str(), leadership.trouble().contains("gone")),
            ("one", true)
        );
        store.set_outage(None);
        clock.monotonic_ms.store(60_000, Ordering::SeqCst);
        keeper.turn();
        assert_eq!(leadership.duty(), leads, "nobody took it meanwhile");
        assert_eq!(leadership.trouble(), "");
    }

    #[test]
    fn nodes_with_a_higher_fence_raise_ours() {
        let (store, clock) = (MemoryLease::default(), Arc::new(Clocks::default()));
        let mut keeper = keeper(&store, &clock, "one/1");
        keeper.turn();
        keeper.leadership().saw_fence(41);
        keeper.turn();
        assert_eq!(keeper.leadership().duty(), Duty::Leads { fence: 42 });
        assert!(!keeper.leadership().may_act(5), "what the earlier reign began is over");
    }

    /// From the death of the leader, at any moment between two turns, to the other one's lead: less
    /// than three poll intervals.
    #[test]
    fn another_takes_over_within_three_poll_intervals() {
        let turn_ms = 10_000 / u64::from(TURNS_PER_LEASE);
        for offset_ms in (0..turn_ms).step_by(50) {
            let (store, clock) = (MemoryLease::default(), Arc::new(Clocks::default()));
            let (mut one, mut two) =
                (keeper(&store, &clock, "one/1"), keeper(&store, &clock, "two/2"));
            let at = |ms: u64| clock.monotonic_ms.store(ms, Ordering::SeqCst);
            one.turn();
            let mut died_ms = 0;
            let taken_ms = (0..)
                .map(|turn| offset_ms + turn * turn_ms)
                .find(|&ms| {
                    if died_ms == 0 && ms > 50_000 {
                        // It renewed a moment ago.
                        at(ms - 1);
                        one.turn();
                        died_ms = ms - 1;
                    } else if died_ms == 0 {
                        at(ms);
                        one.turn();
                    }
                    at(ms);
                    two.turn();
                    matches!(two.leadership().duty(), Duty::Leads { .. })
                })
                .expect("some time");
            let took = taken_ms - died_ms;
            assert!((10_000..15_000).contains(&took), "{took} ms with an offset of {offset_ms}");
        }
    }
}
