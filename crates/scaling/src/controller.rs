//! The step that the manager and a simulation both take: a view in, actions out.

mod clock;
mod handover;
mod names;
mod publication;
mod returns;
mod weights;

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{InstanceId, InstanceState, Tier, WEIGHT_NORMAL};

use crate::decision::{Decision, TierView, decide};
use crate::doubts;
use crate::lifecycle::{Stand, Surroundings, stand};
use crate::plan::{Action, Cause, Plan, Standing, TierPlan};
use crate::retirement::{self, Farewell, farewell};
use crate::view::{
    MachineState, Memory, Observed, Retiring, RetiringCause, Stray, TierInput, View,
};

/// The tiers that scale by load. The store tier scales by hand (paper §3).
const TIERS: [Tier; 2] = [Tier::LoadBalancer, Tier::Proxy];

/// The longest wait before another machine is tried where the last ones never answered.
const FAILED_START_WAIT_MAX: Duration = Duration::from_secs(300);

/// What is to be done now. Same view, same plan.
pub fn step(view: &View<'_>) -> Plan {
    let mut step = Step::new(view);
    step.note_arrivals();
    // First, so that a replacement takes the slot, and with it the address, in the same step.
    step.remove_failed();
    for tier in TIERS {
        step.scale(tier);
    }
    step.publish();
    step.lead_clients();
    step.note_withdrawals();
    step.say_farewell();
    step.sweep();
    step.finish()
}

/// A step in progress.
struct Step<'a> {
    view: &'a View<'a>,
    memory: Memory,
    stands: BTreeMap<InstanceId, Stand>,
    notes: BTreeMap<InstanceId, String>,
    remarks: Vec<(InstanceId, String)>,
    tiers: BTreeMap<Tier, TierPlan>,
    actions: Vec<Action>,
}

/// How many instances of a tier stand where.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    in_service: u32,
    starting: u32,
    draining: u32,
    failed: u32,
    /// In service, and without an answer in this round.
    unheard: u32,
    /// What those in service and starting are trusted with, in percent of one ordinary instance.
    percent: u32,
    /// The same of those in service.
    percent_in_service: u32,
    /// The most that one of them is trusted with.
    heaviest: u32,
}

impl Counts {
    /// One that serves, or will.
    fn add(&mut self, state: InstanceState, weight: u16) {
        let percent = u32::from(weight);
        self.percent += percent;
        self.heaviest = self.heaviest.max(percent);
        if state == InstanceState::InService {
            self.in_service += 1;
            self.percent_in_service += percent;
        } else {
            self.starting += 1;
        }
    }
}

impl<'a> Step<'a> {
    fn new(view: &'a View<'a>) -> Self {
        let mut memory = view.memory.clone();
        clock::follow(&mut memory, view.timing, view.now_ms);
        adopt(&mut memory, view.held);
        note_unreached(&mut memory, view);
        let around = Surroundings::of(view, &memory);
        let stands: BTreeMap<_, _> =
            view.observed.iter().map(|one| (one.instance, stand(one, &around))).collect();
        memory.rounds = memory.rounds.saturating_add(1);
        memory.met.extend(stands.keys());
        // A slot that is not listed is free: what is remembered of its last instance goes.
        memory.retiring.retain(|instance, _| stands.contains_key(instance));
        memory.first_seen_ms.retain(|instance, _| stands.contains_key(instance));
        memory.was_ready.retain(|instance| stands.contains_key(instance));
        memory.returns.retain(|instance, _| stands.contains_key(instance));
        let is_listed = |name: &String| view.observed.iter().any(|one| one.machine == *name);
        memory.failed_machines.retain(is_listed);
        let keep_ms = [view.balancers.policy, view.proxies.policy]
            .map(|policy| millis(policy.launch_interval))
            .into_iter()
            .max()
            .unwrap_or(0);
        memory.launches_ms.retain(|(_, at_ms)| view.now_ms.saturating_sub(*at_ms) < keep_ms);
        Self {
            view,
            memory,
            stands,
            notes: BTreeMap::new(),
            remarks: Vec::new(),
            tiers: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    fn input(&self, tier: Tier) -> &TierInput<'a> {
        match tier {
            Tier::LoadBalancer => &self.view.balancers,
            Tier::Proxy | Tier::Store => &self.view.proxies,
        }
    }

    fn state(&self, instance: InstanceId) -> Option<InstanceState> {
        self.stands.get(&instance).map(|stand| stand.state)
    }

    fn move_to(&mut self, instance: InstanceId, state: InstanceState) {
        self.stands.insert(instance, Stand { state, failure: None });
    }

    fn of_tier(&self, tier: Tier) -> impl Iterator<Item = &'a Observed> + use<'a> {
        self.view.observed.iter().filter(move |one| one.instance.tier == tier)
    }

    fn is_asked_to_drain(&self, instance: InstanceId) -> bool {
        self.view.asked_to_drain.contains(&instance)
    }

    /// First sights, first readiness (which measures the boot), and drains found in progress.
    fn note_arrivals(&mut self) {
        let now_ms = self.view.now_ms;
        for one in self.view.observed {
            let instance = one.instance;
            let seen_ms = *self.memory.first_seen_ms.entry(instance).or_insert(now_ms);
            let is_ready = one.node.known().is_some_and(|node| node.is_ready);
            if is_ready && self.memory.was_ready.insert(instance) {
                self.memory.failed_starts.remove(&instance.tier);
                // Of others it is not known when they were asked for.
                if self.memory.made.remove(&instance) {
                    let boot_time = retirement::since(seen_ms, now_ms);
                    self.memory.boot_time.insert(instance.tier, boot_time);
                }
            }
            if self.state(instance) == Some(InstanceState::Draining) {
                let found = self.leaving(RetiringCause::Found);
                let retiring = self.memory.retiring.entry(instance).or_insert(found);
                if self.view.asked_to_drain.contains(&instance) {
                    retiring.cause = RetiringCause::Operator;
                }
            }
        }
    }

    const fn leaving(&self, cause: RetiringCause) -> Retiring {
        Retiring { cause, since_ms: self.view.now_ms, withdrawn_at_ms: None, released_at_ms: None }
    }

    /// When a retiring instance was first seen to get no more calls.
    fn note_withdrawals(&mut self) {
        let now_ms = self.view.now_ms;
        let all_tables_without = |instance| self.all_tables_are_without(instance);
        let withdrawn: Vec<InstanceId> = self
            .memory
            .retiring
            .iter()
            .filter(|(_, retiring)| retiring.withdrawn_at_ms.is_none())
            .map(|(&instance, _)| instance)
            .filter(|&instance| match instance.tier {
                Tier::LoadBalancer => self.names_are_without(instance),
                Tier::Proxy | Tier::Store => all_tables_without(instance),
            })
            .collect();
        for instance in withdrawn {
            if let Some(retiring) = self.memory.retiring.get_mut(&instance) {
                retiring.withdrawn_at_ms = Some(now_ms);
            }
        }
        self.note_releases();
    }

    fn counts(&self, tier: Tier) -> Counts {
        let is_unheard = |one: &&Observed| {
            one.node.is_unknown() && self.state(one.instance) == Some(InstanceState::InService)
        };
        let unheard = self.of_tier(tier).filter(is_unheard).count();
        let unheard = u32::try_from(unheard).unwrap_or(u32::MAX);
        let mut counts = Counts { unheard, heaviest: WEIGHT_NORMAL.into(), ..Counts::default() };
        for (&instance, stand) in self.stands.iter().filter(|(one, _)| one.tier == tier) {
            match stand.state {
                InstanceState::Draining => counts.draining += 1,
                InstanceState::Failed => counts.failed += 1,
                InstanceState::Terminated => {}
                // On its way out as soon as another one takes its place.
                _ if self.is_asked_to_drain(instance) => {}
                state => counts.add(state, self.weight_of(instance)),
            }
        }
        counts
    }

    /// Decides how many instances the tier should have, and brings them about.
    fn scale(&mut self, tier: Tier) {
        let counts = self.counts(tier);
        let actual = counts.in_service + counts.starting;
        // What broke is counted as starting: its replacement needs no new decision.
        let target = self.memory.targets.get(&tier).copied().unwrap_or(actual + counts.failed);
        let planned = target.max(actual);
        let launched = self.launched(tier);
        let input = *self.input(tier);
        let is_cut_off = tier == Tier::Proxy && self.is_cut_off();
        let decision = decide(&TierView {
            policy: input.policy,
            in_service: counts.in_service,
            starting: planned - counts.in_service,
            draining: counts.draining,
            unheard: counts.unheard,
            is_cut_off,
            polls: input.polls,
            poll_interval: self.view.timing.poll_interval,
            boot_time: self.boot_time(tier),
            launched,
            cpu_percent: input.cpu_percent,
            // Those that are still to be made have an ordinary weight.
            planned_percent: counts.percent + (planned - actual) * u32::from(WEIGHT_NORMAL),
            heaviest_percent: counts.heaviest,
        });
        let last_poll = input.polls.last().copied().unwrap_or_default();
        let wanted = decision.instances;
        let tier_plan = TierPlan {
            decision: decision.clone(),
            planned,
            in_service: counts.in_service,
            starting: counts.starting,
            draining: counts.draining,
            capacity: input.policy.capacity_each * counts.percent_in_service / 100,
            load: last_poll.reported,
            silent: last_poll.silent,
        };
        self.tiers.insert(tier, tier_plan);
        if self.view.is_dry_run {
            self.memory.targets.remove(&tier);
            return;
        }
        self.memory.targets.insert(tier, wanted);
        if wanted > actual {
            let allowed = input.policy.launches_max.saturating_sub(launched);
            let allowed = if self.waits_after_failed_starts(tier) { 0 } else { allowed };
            self.grow(tier, wanted - actual, planned - actual, allowed, &decision);
        } else if wanted < actual {
            self.shrink(tier, actual - wanted);
        }
        self.retire_as_asked(tier);
    }

    /// Whether clients may call in vain, a balancer or every proxy missing, or did a moment ago: then a
    /// low load of the proxies says nothing. They come back within the lifetime of a DNS answer, and are
    /// seen in the poll after.
    fn is_cut_off(&mut self) -> bool {
        let counts = self.counts(Tier::LoadBalancer);
        let wanted = self.memory.targets.get(&Tier::LoadBalancer).copied().unwrap_or(0);
        let now_ms = self.view.now_ms;
        // Before the first name there are no clients that could be cut off.
        let has_clients = self.view.dns.known().is_some_and(|names| !names.is_empty());
        let is_missing = counts.unheard + counts.failed > 0
            || counts.in_service < wanted
            || self.counts(Tier::Proxy).in_service == 0;
        if has_clients && is_missing {
            self.memory.cut_off_ms = Some(now_ms);
        }
        let timing = self.view.timing;
        let grace = timing.dns_ttl + 2 * timing.poll_interval;
        self.memory.cut_off_ms.is_some_and(|at_ms| retirement::since(at_ms, now_ms) < grace)
    }

    /// It never answered: what is wrong with it may be wrong with the next one too.
    fn note_failed_start(&mut self, one: &Observed) {
        let is_new = self.memory.failed_machines.insert(one.machine.clone());
        if is_new && !self.memory.was_ready.contains(&one.instance) {
            let failed = self.memory.failed_starts.entry(one.instance.tier).or_insert((0, 0));
            *failed = (failed.0.saturating_add(1), self.view.now_ms);
        }
    }

    /// After the second start in a row that failed, the next one waits, longer and longer.
    fn waits_after_failed_starts(&self, tier: Tier) -> bool {
        let Some(&(count, at_ms)) = self.memory.failed_starts.get(&tier) else { return false };
        let doublings = count.saturating_sub(2).min(10);
        let wait = self.view.timing.poll_interval.saturating_mul(2 << doublings);
        count > 1 && retirement::since(at_ms, self.view.now_ms) < wait.min(FAILED_START_WAIT_MAX)
    }

    fn boot_time(&self, tier: Tier) -> Duration {
        self.memory.boot_time.get(&tier).copied().unwrap_or(self.view.timing.boot_time)
    }

    /// Machines asked for within the launch interval: remembered, or still listed.
    fn launched(&self, tier: Tier) -> u32 {
        let interval_ms = millis(self.input(tier).policy.launch_interval);
        let now_ms = self.view.now_ms;
        // What was made in the future was made before the clock jumped back: no evidence.
        let is_recent = |at_ms: u64| at_ms <= now_ms && now_ms - at_ms < interval_ms;
        let launches = self.memory.launches_ms.iter();
        let remembered = launches.filter(|(of, at_ms)| *of == tier && is_recent(*at_ms)).count();
        let listed = self.of_tier(tier).filter(|one| is_recent(one.created_at_ms)).count();
        u32::try_from(remembered.max(listed)).unwrap_or(u32::MAX)
    }

    /// Takes `more` into the tier: first those that are on their way out, then new machines, of
    /// which the first `broken` stand in for broken ones.
    fn grow(&mut self, tier: Tier, more: u32, broken: u32, allowed: u32, decision: &Decision) {
        let mut left = more;
        for one in self.of_tier(tier) {
            if left == 0 {
                break;
            }
            left -= u32::from(self.take_back(one));
        }
        let mut broken = broken;
        let free: Vec<u16> = (1..=u16::MAX)
            .filter(|&slot| {
                let state = self.state(InstanceId::new(tier, slot));
                matches!(state, None | Some(InstanceState::Failed))
            })
            .take(usize::try_from(left.min(allowed)).unwrap_or(usize::MAX))
            .collect();
        for slot in free {
            let instance = InstanceId::new(tier, slot);
            let cause = match broken.checked_sub(1) {
                Some(rest) => {
                    broken = rest;
                    Cause::Missing
                }
                None => Cause::Decided(decision.clone()),
            };
            self.memory.launches_ms.push((tier, self.view.now_ms));
            self.memory.made.insert(instance);
            self.actions.push(Action::Create { instance, cause });
        }
    }

    /// Returns whether a draining instance comes back into service.
    fn take_back(&mut self, one: &Observed) -> bool {
        let instance = one.instance;
        let is_reversible = self
            .memory
            .retiring
            .get(&instance)
            .is_some_and(|retiring| retiring.cause == RetiringCause::Scaling);
        let Some(node) = one.node.known().filter(|_| is_reversible) else {
            return false;
        };
        self.memory.retiring.remove(&instance);
        if node.is_draining {
            self.actions.push(Action::Undrain { instance });
            self.move_to(instance, InstanceState::Configuring);
        } else {
            self.move_to(instance, InstanceState::Ready);
        }
        true
    }

    /// Takes `fewer` out of the tier: first those that nobody knows yet.
    fn shrink(&mut self, tier: Tier, fewer: u32) {
        for _ in 0..fewer {
            if !self.cancel_start(tier) && !self.retire_one(tier) {
                break;
            }
        }
    }

    fn cancel_start(&mut self, tier: Tier) -> bool {
        let is_starting = |one: &&Observed| {
            matches!(
                self.state(one.instance),
                Some(InstanceState::Booting | InstanceState::Configuring)
            )
        };
        let starting = self.of_tier(tier).filter(is_starting).filter(|one| self.is_new(one));
        let latest = starting.max_by_key(|one| one.instance.slot);
        latest.map(|one| self.terminate(one, Cause::NotNeeded)).is_some()
    }

    /// Whether an instance that has not served yet, as far as this manager knows, has not. One that
    /// an earlier manager made may serve, and be silent just now.
    fn is_new(&self, one: &Observed) -> bool {
        let is_heard = one.heard().is_some();
        (is_heard || self.has_no_table(one)) && !self.is_owner(one.instance)
    }

    fn retire_one(&mut self, tier: Tier) -> bool {
        let takes_calls = |one: &&Observed| {
            let state = self.state(one.instance);
            matches!(state, Some(InstanceState::InService | InstanceState::Ready))
                && !self.is_asked_to_drain(one.instance)
        };
        let candidates: Vec<&Observed> = self.of_tier(tier).filter(takes_calls).collect();
        if candidates.len() < 2 {
            return false;
        }
        let Some(instance) = retirement::choose(self.input(tier).policy.retire, &candidates) else {
            return false;
        };
        self.retire(instance, RetiringCause::Scaling);
        true
    }

    /// What the operator asked for, as soon as the tier has enough others in service.
    fn retire_as_asked(&mut self, tier: Tier) {
        let needed = self.tiers.get(&tier).map_or(1, |plan| plan.decision.instances.max(1));
        for one in self.of_tier(tier) {
            let instance = one.instance;
            if !self.is_asked_to_drain(instance) {
                continue;
            }
            match self.state(instance) {
                Some(InstanceState::Booting | InstanceState::Configuring) if self.is_new(one) => {
                    self.terminate(one, Cause::NotNeeded);
                }
                Some(InstanceState::InService | InstanceState::Ready) => {
                    let serve = |other: &&Observed| {
                        other.instance != instance
                            && !self.is_asked_to_drain(other.instance)
                            && self.state(other.instance) == Some(InstanceState::InService)
                    };
                    let others = self.of_tier(tier).filter(serve).count();
                    if u32::try_from(others).is_ok_and(|others| others >= needed) {
                        self.retire(instance, RetiringCause::Operator);
                    } else {
                        self.notes.insert(instance, "waits for its replacement".to_owned());
                    }
                }
                _ => {}
            }
        }
    }

    fn retire(&mut self, instance: InstanceId, cause: RetiringCause) {
        let leaving = self.leaving(cause);
        self.memory.retiring.insert(instance, leaving);
        self.move_to(instance, InstanceState::Draining);
    }

    fn terminate(&mut self, one: &Observed, cause: Cause) {
        let (instance, machine) = (one.instance, one.machine.clone());
        self.actions.push(Action::Terminate { instance, machine, cause });
        self.move_to(instance, InstanceState::Terminated);
    }

    /// Tells, waits for or removes what is on its way out.
    fn say_farewell(&mut self) {
        for one in self.view.observed {
            let instance = one.instance;
            if self.state(instance) != Some(InstanceState::Draining) {
                continue;
            }
            // Its successors are not published yet: it owns calls, however long it has to wait.
            if self.is_owner(instance) {
                continue;
            }
            let Some(retiring) = self.memory.retiring.get(&instance) else {
                continue;
            };
            let need = self.need_of(instance);
            match farewell(one, retiring, need, self.view.timing, self.view.now_ms) {
                Farewell::Withdrawing(note) => {
                    self.notes.insert(instance, note.to_owned());
                }
                Farewell::Waiting(note) => {
                    self.notes.insert(instance, note);
                }
                Farewell::Drain => {
                    self.notes.insert(instance, "is told to drain".to_owned());
                    self.actions.push(Action::Drain { instance });
                }
                Farewell::Go(cause) => self.terminate(one, cause),
            }
        }
    }

    /// A failed instance keeps its slot until its machine is removed. What is remembered of it goes
    /// at once, because its replacement has the same name.
    fn remove_failed(&mut self) {
        for one in self.view.observed {
            let failure = self.stands.get(&one.instance).and_then(|stand| stand.failure.clone());
            if let Some(cause) = failure {
                self.note_failed_start(one);
                self.notes.insert(one.instance, cause.to_string());
                self.memory.retiring.remove(&one.instance);
                self.memory.first_seen_ms.remove(&one.instance);
                self.memory.was_ready.remove(&one.instance);
                let machine = one.machine.clone();
                self.actions.push(Action::Terminate { instance: one.instance, machine, cause });
            }
        }
    }

    /// Removes second machines of a slot, once the list had time to come right by itself.
    fn sweep(&mut self) {
        let now_ms = self.view.now_ms;
        let strays = self.view.strays;
        self.memory.strays_seen_ms.retain(|name, _| strays.iter().any(|one| one.machine == *name));
        for Stray { instance, machine } in strays {
            let seen_ms = *self.memory.strays_seen_ms.entry(machine.clone()).or_insert(now_ms);
            if retirement::since(seen_ms, now_ms) > self.view.timing.stray_grace {
                let (instance, machine) = (*instance, machine.clone());
                let cause = Cause::Stray;
                self.actions.push(Action::Terminate { instance, machine, cause });
            }
        }
    }

    fn finish(mut self) -> Plan {
        if self.view.is_dry_run {
            self.actions.clear();
        }
        let remarks = self.remarks;
        let mut notes = self.notes;
        for one in self.view.observed {
            if one.machine_state == MachineState::Unlisted {
                notes
                    .entry(one.instance)
                    .or_insert_with(|| "missing in the provider's list".into());
            }
        }
        let standing = |(instance, stand): (InstanceId, Stand)| {
            let note = notes.remove(&instance).unwrap_or_default();
            (instance, Standing { state: stand.state, note })
        };
        Plan {
            actions: self.actions,
            tiers: self.tiers,
            standings: self.stands.into_iter().map(standing).collect(),
            remarks,
            memory: self.memory,
        }
    }
}

/// A manager that knows nothing, or less than a node, goes on from what the node was given.
fn adopt(memory: &mut Memory, held: Option<&fleet::Membership>) {
    let Some(held) = held else { return };
    let mine = memory.membership.as_ref();
    if mine.is_none_or(|mine| held.generation > mine.generation) {
        memory.is_adopted |= mine.is_none();
        memory.may_hold_slow_starts = true;
        memory.membership = Some(held.clone());
    }
}

/// Since when no balancer reaches an owner.
fn note_unreached(memory: &mut Memory, view: &View<'_>) {
    let owners = memory.membership.as_ref().map_or(&[][..], |membership| &membership.proxies);
    let unreached = doubts::unreached(view.observed, owners);
    memory.unreached_ms.retain(|instance, _| unreached.contains(instance));
    for instance in unreached {
        memory.unreached_ms.entry(instance).or_insert(view.now_ms);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
