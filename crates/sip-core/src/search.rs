//! The search for a user's phones (RFC 3261 §16.5), through users whose contact is another user of
//! ours: it goes on there, instead of out of the tier and in again.

use sip_message::{Message, Uri};
use store::{Aor, Binding, UnixMillis};

use crate::names::LocalNames;
use crate::reject::Reject;
use crate::target::{self, Target, TargetReach, TargetSet};

/// How many users one request may be passed on through.
const USERS_MAX: usize = 8;

/// What was found so far, and who has still to be asked for.
#[derive(Clone, Debug)]
pub struct Search {
    /// Everybody who was asked for, or will be: the first is whom the request is for.
    users: Vec<Aor>,
    /// The group of the contact that led to each.
    groups: Vec<u16>,
    /// How many of them have been looked up.
    done: usize,
    targets: Vec<Target>,
    slots: u16,
    is_circular: bool,
}

impl Search {
    /// Begins with the user whom the request is for.
    pub fn new(aor: Aor) -> Self {
        let (users, groups) = (vec![aor], vec![0]);
        Self { users, groups, done: 0, targets: Vec::new(), slots: 0, is_circular: false }
    }

    /// Whose bindings are wanted next; `None` when the search is over.
    pub fn next(&self) -> Option<&Aor> {
        self.users.get(self.done)
    }

    /// Takes the bindings of [`Search::next`].
    ///
    /// # Errors
    ///
    /// 440 if the request may have no branch at all, 400 for a breadth that is none.
    pub fn take(
        &mut self,
        request: &Message<'_>,
        bindings: &[Binding],
        names: &LocalNames,
        now: UnixMillis,
    ) -> Result<(), Reject> {
        let place = self.done;
        let Some(aor) = self.users.get(place).cloned() else { return Ok(()) };
        let group = self.groups.get(place).copied().unwrap_or_default();
        self.done += 1;
        let found = match target::of_bindings(request, &aor, bindings, now) {
            Ok(found) => found.targets,
            Err(Reject::NotRegistered { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        let slots = self.slots;
        for mut target in found {
            // Whoever is reached through another rings with the contact that leads to him.
            target.group = if place == 0 { target.group } else { group };
            target.slot = target.slot.saturating_add(slots);
            self.slots = self.slots.max(target.slot.saturating_add(1));
            match another_user(&target, names) {
                Some(user) => self.ask_for(user, target.group),
                None => self.targets.push(target),
            }
        }
        Ok(())
    }

    fn ask_for(&mut self, user: Aor, group: u16) {
        if self.users.contains(&user) || self.users.len() >= USERS_MAX {
            self.is_circular = true;
        } else {
            self.users.push(user);
            self.groups.push(group);
        }
    }

    /// Where the request goes.
    ///
    /// # Errors
    ///
    /// 480 if nobody is there, 482 if the users only lead to each other.
    pub fn finish(self) -> Result<TargetSet, Reject> {
        if !self.targets.is_empty() {
            return Ok(TargetSet { targets: self.targets });
        }
        match self.users.into_iter().next() {
            Some(aor) if !self.is_circular => Err(Reject::NotRegistered { aor }),
            _ => Err(Reject::LoopDetected),
        }
    }
}

/// The user of ours that a contact names which we would reach ourselves.
fn another_user(target: &Target, names: &LocalNames) -> Option<Aor> {
    if target.reach != TargetReach::Direct || !target.routes.is_empty() {
        return None;
    }
    let uri = Uri::parse(&target.request_uri).ok()?;
    names.aor(&uri)
}

#[cfg(test)]
mod tests;
