//! Which machines there are, when the provider's list may be partial.
//!
//! A list that misses a machine is no death: the machine is asked all the same. It is forgotten
//! after some rounds without an answer; after many, if the list misses half of the fleet at once,
//! which is rather a fault of the list.

use std::collections::BTreeMap;

use fleet::InstanceId;

use crate::view::{MachineState, Stray, Timing};

/// A machine as the provider lists it; `with` is what its owner keeps of it beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    pub instance: InstanceId,
    /// The provider's name for it.
    pub machine: String,
    pub state: MachineState,
    /// UNIX milliseconds.
    pub created_at_ms: u64,
    pub with: T,
}

/// Whether a round counts as a poll, or only looks at a fleet in motion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundKind {
    Poll,
    Settle,
}

/// The machines that are believed to exist: those listed, and those listed before whose absence
/// from the list is no evidence yet. Losing it costs nothing while the list is whole.
#[derive(Clone, Debug)]
pub struct Roster<T> {
    places: BTreeMap<InstanceId, Place<T>>,
    strays: Vec<Stray>,
}

#[derive(Clone, Debug)]
struct Place<T> {
    listed: Listed<T>,
    /// Polls in a row in which it was neither listed nor answered.
    absences: u32,
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        Self { places: BTreeMap::new(), strays: Vec::new() }
    }
}

impl<T: Clone> Roster<T> {
    /// Files a list that the provider gave. Whom to ask now is in [`machines`](Self::machines).
    pub fn take(&mut self, kind: RoundKind, mut listed: Vec<Listed<T>>, timing: &Timing) {
        listed.sort_by_key(|one| (one.instance, one.created_at_ms));
        self.strays.clear();
        let mut before = std::mem::take(&mut self.places);
        for one in listed {
            let known = before.get(&one.instance).map(|place| &place.listed.machine);
            let is_known = known == Some(&one.machine);
            match self.places.get(&one.instance) {
                // Two machines in one slot: the one that was there before stays, else the older.
                Some(_) if !is_known => self.strays.push(stray(&one)),
                other => {
                    self.strays.extend(other.map(|place| stray(&place.listed)));
                    self.places.insert(one.instance, Place { listed: one, absences: 0 });
                }
            }
        }
        before.retain(|instance, _| !self.places.contains_key(instance));
        let is_partial = 2 * before.len() > before.len() + self.places.len();
        let rounds_max =
            if is_partial { timing.silent_rounds_max } else { timing.unlisted_rounds_max };
        for (instance, mut place) in before {
            place.absences += u32::from(kind == RoundKind::Poll);
            // What was dead and is not listed has been cleared away.
            if place.listed.state == MachineState::Dead || place.absences > rounds_max {
                continue;
            }
            place.listed.state = MachineState::Unlisted;
            self.places.insert(instance, place);
        }
    }

    /// This instance answered: it exists, listed or not.
    pub fn heard(&mut self, instance: InstanceId) {
        if let Some(place) = self.places.get_mut(&instance) {
            place.absences = 0;
        }
    }

    /// That machine was terminated: its absence is no surprise.
    pub fn forget(&mut self, instance: InstanceId, machine: &str) {
        let is_meant = self.places.get(&instance).is_some_and(|one| one.listed.machine == machine);
        if is_meant {
            self.places.remove(&instance);
        }
    }

    /// One machine per instance, in the order of the instances.
    pub fn machines(&self) -> impl Iterator<Item = &Listed<T>> {
        self.places.values().map(|place| &place.listed)
    }

    /// Second machines in a slot that is taken: creations that were thought to have failed.
    #[must_use]
    pub fn strays(&self) -> &[Stray] {
        &self.strays
    }
}

fn stray<T>(listed: &Listed<T>) -> Stray {
    Stray { instance: listed.instance, machine: listed.machine.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(slot: u16, machine: &str) -> Listed<()> {
        let state = MachineState::Running;
        let (instance, machine) = (InstanceId::proxy(slot), machine.to_owned());
        Listed { instance, machine, state, created_at_ms: u64::from(slot), with: () }
    }

    fn fleet(slots: &[u16]) -> Vec<Listed<()>> {
        slots.iter().map(|&slot| listed(slot, &format!("m{slot}"))).collect()
    }

    fn slots(roster: &Roster<()>) -> Vec<u16> {
        roster.machines().map(|one| one.instance.slot).collect()
    }

    /// Four machines; the list loses some, which answer or not; after so many polls, who is left?
    #[test]
    fn a_machine_that_is_not_listed_is_gone_only_when_it_does_not_answer_either() {
        let timing = Timing::default();
        struct Row {
            name: &'static str,
            in_list: &'static [u16],
            answering: &'static [u16],
            polls: usize,
            expected: &'static [u16],
        }
        #[rustfmt::skip]
        let table = [
            Row { name: "listed, silent",              in_list: &[1, 2, 3, 4], answering: &[],  polls: 99, expected: &[1, 2, 3, 4] },
            Row { name: "one left out, answers",       in_list: &[1, 2, 3],    answering: &[4], polls: 99, expected: &[1, 2, 3, 4] },
            Row { name: "one left out, for 3 polls",   in_list: &[1, 2, 3],    answering: &[],  polls: 3,  expected: &[1, 2, 3, 4] },
            Row { name: "one left out, for 4 polls",   in_list: &[1, 2, 3],    answering: &[],  polls: 4,  expected: &[1, 2, 3] },
            Row { name: "three left out, 24 polls",    in_list: &[1],          answering: &[],  polls: 24, expected: &[1, 2, 3, 4] },
            Row { name: "an empty list, one answers",  in_list: &[],           answering: &[2], polls: 25, expected: &[2] },
        ];
        for row in table {
            let mut roster = Roster::default();
            roster.take(RoundKind::Poll, fleet(&[1, 2, 3, 4]), &timing);
            for _ in 0..row.polls {
                roster.take(RoundKind::Settle, fleet(row.in_list), &timing);
                roster.take(RoundKind::Poll, fleet(row.in_list), &timing);
                row.answering.iter().for_each(|&slot| roster.heard(InstanceId::proxy(slot)));
            }
            assert_eq!(slots(&roster), row.expected, "{}", row.name);
        }
    }

    #[test]
    fn what_was_terminated_or_dead_is_not_missed() {
        let timing = Timing::default();
        let mut roster = Roster::default();
        let mut all = fleet(&[1, 2, 3, 4, 5]);
        all[1].state = MachineState::Dead;
        roster.take(RoundKind::Poll, all, &timing);
        roster.forget(InstanceId::proxy(1), "m1");
        roster.forget(InstanceId::proxy(3), "another machine of that slot");
        roster.take(RoundKind::Settle, fleet(&[4, 5]), &timing);
        assert_eq!(slots(&roster), [3, 4, 5]);
    }

    #[test]
    fn of_two_machines_in_a_slot_the_known_one_stays() {
        let timing = Timing::default();
        let mut roster = Roster::default();
        let two = || vec![listed(1, "m1"), Listed { created_at_ms: 0, ..listed(1, "older") }];
        roster.take(RoundKind::Poll, two(), &timing);
        let kept = |roster: &Roster<()>| roster.machines().next().map(|one| one.machine.clone());
        assert_eq!(kept(&roster).as_deref(), Some("older"), "unknown both: the older");
        let mut roster = Roster::default();
        roster.take(RoundKind::Poll, fleet(&[1]), &timing);
        roster.take(RoundKind::Poll, two(), &timing);
        assert_eq!(kept(&roster).as_deref(), Some("m1"));
        let older = Stray { instance: InstanceId::proxy(1), machine: "older".to_owned() };
        assert_eq!(roster.strays(), [older]);
    }
}
