//! Earlier owners (protocol rule 19): who owned a call before, and whom its requests pass first.

use std::net::SocketAddr;
use std::sync::Arc;

use fleet::{EarlierSet, Member, Membership};
use sip_message::{Message, Method};

use super::BalancerView;
use crate::handover::Way;
use crate::selection::Selection;

/// The owners of an earlier time, as a balancer asks for them.
#[derive(Clone, Debug)]
pub struct EarlierOwners {
    selection: Arc<Selection>,
    /// Where each of its members is in [`Membership::every_proxy`] now; `None`: it is no more.
    places: Box<[Option<usize>]>,
    is_settled: bool,
}

impl EarlierOwners {
    /// `selection` is the table of `set`; `membership` the generation in use.
    pub fn new(set: &EarlierSet, selection: Arc<Selection>, membership: &Membership) -> Self {
        let is_same = |one: &Member, other: &Member| {
            (one.instance, one.worker, one.incarnation)
                == (other.instance, other.worker, other.incarnation)
        };
        let place = |one: &Member| membership.every_proxy().position(|now| is_same(one, now));
        let places = set.proxies.iter().map(place).collect();
        Self { selection, places, is_settled: set.is_settled }
    }

    /// The table of that time, for a generation that still needs it.
    pub fn selection(&self) -> &Arc<Selection> {
        &self.selection
    }

    /// Who has the call's transactions of that time. Whoever is gone is passed over, as the
    /// balancers passed it over when it went.
    fn owner(&self, call_id: &[u8], is_dead: &dyn Fn(usize) -> bool) -> Option<usize> {
        let place = |member: usize| self.places.get(member).copied().flatten();
        let is_gone = |member: usize| place(member).is_none_or(is_dead);
        self.selection.owner(call_id, is_gone).and_then(place)
    }
}

/// The way of a request that `present` owns now: while repeats may come, earlier owners first,
/// oldest first; of what is older, only a CANCEL and an ACK walk back to them if they match nothing.
pub(super) fn way(
    view: &BalancerView<'_>,
    message: &Message<'_>,
    present: usize,
    address: SocketAddr,
) -> Way {
    let mut way = Way::new(view.generation);
    let stop = |set: &EarlierOwners| stop_of(set, view, message, present);
    for set in view.earlier.iter().filter(|set| !set.is_settled) {
        way.push_earlier(stop(set));
    }
    way.push_present(address);
    if matches!(message.method(), Some(Method::Cancel | Method::Ack)) {
        for set in view.earlier.iter().rev().filter(|set| set.is_settled) {
            way.push_back(stop(set));
        }
    }
    way
}

/// The way of a response whose proxy is dead: the caller may have repeated its request, and then an
/// earlier owner has the branch that the response is of, however long ago that was.
pub(super) fn way_of_stray(
    view: &BalancerView<'_>,
    response: &Message<'_>,
    present: usize,
    address: SocketAddr,
) -> Way {
    let mut way = Way::new(view.generation);
    for set in view.earlier {
        way.push_earlier(stop_of(set, view, response, present));
    }
    way.push_present(address);
    way
}

fn stop_of(
    set: &EarlierOwners,
    view: &BalancerView<'_>,
    message: &Message<'_>,
    present: usize,
) -> Option<SocketAddr> {
    let owner = set.owner(message.call_id(), view.is_dead).filter(|owner| *owner != present)?;
    view.directory.address(owner)
}
