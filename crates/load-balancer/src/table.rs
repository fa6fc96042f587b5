//! One generation as the threads use it: who is where, who owns what, who is dead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use fleet::{EarlierSet, GenerationNumber, InstanceId, Member, Membership};
use parking_lot::Mutex;
use sip_core::selection::Selection;
use sip_core::stateless::{Directory, EarlierOwners};

use crate::health::Belief;

/// A worker as its calls are counted: by slot and number, whichever process holds them.
type Name = (InstanceId, u16);

/// Everything that follows from one membership.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) membership: Option<Membership>,
    pub(crate) directory: Directory,
    pub(crate) selection: Arc<Selection>,
    /// Who owned the calls before, oldest first; no more than a generation may name.
    pub(crate) earlier: Vec<EarlierOwners>,
    /// What is believed of each, in the order of [`Membership::every_proxy`].
    beliefs: Box<[AtomicU8]>,
    /// Calls given to each, in the same order.
    calls: Box<[Arc<AtomicU64>]>,
}

impl Table {
    /// The table before the first membership: nobody owns anything.
    fn empty(selection_key: [u8; 16]) -> Self {
        Self {
            membership: None,
            directory: Directory::default(),
            selection: Arc::new(Selection::new(1, selection_key, &[])),
            earlier: Vec::new(),
            beliefs: Box::default(),
            calls: Box::default(),
        }
    }

    /// What is stamped on requests to proxies.
    pub(crate) fn generation(&self) -> GenerationNumber {
        self.membership.as_ref().map(|one| one.generation).unwrap_or_default()
    }

    /// The table of rows of exactly these owners, if this generation has it.
    fn selection_of(&self, rows: u32, owners: &[Member]) -> Option<Arc<Selection>> {
        let membership = self.membership.as_ref().filter(|one| one.rows == rows)?;
        if membership.proxies == owners {
            return Some(Arc::clone(&self.selection));
        }
        let mut sets = membership.earlier.iter().zip(&self.earlier);
        sets.find(|(set, _)| set.proxies == owners).map(|(_, known)| Arc::clone(known.selection()))
    }

    /// Whether it is skipped.
    pub(crate) fn is_dead(&self, member: usize) -> bool {
        self.believed(member) == Belief::Dead as u8
    }

    /// Whether it may be dead.
    pub(crate) fn is_suspect(&self, member: usize) -> bool {
        self.believed(member) == Belief::Suspect as u8
    }

    pub(crate) fn believe(&self, member: usize, belief: Belief) {
        if let Some(known) = self.beliefs.get(member) {
            known.store(belief as u8, Ordering::Relaxed);
        }
    }

    /// How many are believed to be so.
    pub(crate) fn count(&self, belief: Belief) -> usize {
        self.beliefs.iter().filter(|known| known.load(Ordering::Relaxed) == belief as u8).count()
    }

    fn believed(&self, member: usize) -> u8 {
        self.beliefs.get(member).map_or(0, |known| known.load(Ordering::Relaxed))
    }

    /// What is believed of a worker in this very life, wherever it is in the table.
    fn belief_of(&self, member: &Member) -> u8 {
        let name = |one: &Member| (one.instance, one.worker, one.incarnation, one.address);
        let mut known = self.membership.iter().flat_map(Membership::every_proxy);
        let place = known.position(|one| name(one) == name(member));
        place.map_or(0, |place| self.believed(place))
    }

    pub(crate) fn count_call(&self, member: usize) {
        if let Some(calls) = self.calls.get(member) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The table in use, and how the next one replaces it.
#[derive(Debug)]
pub(crate) struct Tables {
    selection_key: [u8; 16],
    /// Changes with every table: a thread compares it once per batch.
    version: AtomicU64,
    current: Mutex<Arc<Table>>,
    /// Totals outlive generations: the manager makes rates of them.
    calls: Mutex<BTreeMap<Name, Arc<AtomicU64>>>,
}

impl Tables {
    pub(crate) fn new(selection_key: [u8; 16]) -> Self {
        let empty = Table::empty(selection_key);
        Self {
            selection_key,
            version: AtomicU64::new(0),
            current: Mutex::new(Arc::new(empty)),
            calls: Mutex::default(),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn current(&self) -> Arc<Table> {
        Arc::clone(&self.current.lock())
    }

    /// Takes a new generation, unless the one in use refuses it.
    ///
    /// # Errors
    ///
    /// Older, empty, altered, or the same number with another digest; the one in use stays.
    pub(crate) fn put(&self, membership: Membership) -> Result<(), fleet::StaleGeneration> {
        // One at a time: a table takes milliseconds to make, and the threads do not wait for it.
        let mut calls = self.calls.lock();
        let old = self.current();
        membership.follows(old.membership.as_ref())?;
        if old.membership.as_ref().is_some_and(|have| have.generation == membership.generation) {
            return Ok(());
        }
        let selection = self.selection(&old, &membership);
        let earlier = |set: &EarlierSet| {
            let known = old.selection_of(membership.rows, &set.proxies);
            let make = || Selection::new(membership.rows, self.selection_key, &set.proxies);
            EarlierOwners::new(set, known.unwrap_or_else(|| Arc::new(make())), &membership)
        };
        let earlier: Vec<EarlierOwners> = membership.earlier.iter().map(earlier).collect();
        let counter = |member: &fleet::Member| {
            Arc::clone(calls.entry((member.instance, member.worker)).or_default())
        };
        let table = Table {
            directory: Directory::new(&membership),
            selection,
            earlier,
            // The prober is told of the generation, and decides who comes back with it.
            beliefs: membership.every_proxy().map(|one| old.belief_of(one).into()).collect(),
            calls: membership.every_proxy().map(counter).collect(),
            membership: Some(membership),
        };
        *self.current.lock() = Arc::new(table);
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Calls given to each worker since the start.
    pub(crate) fn calls(&self) -> Vec<(Name, u64)> {
        let calls = self.calls.lock();
        calls.iter().map(|(name, calls)| (*name, calls.load(Ordering::Relaxed))).collect()
    }

    fn selection(&self, old: &Table, membership: &Membership) -> Arc<Selection> {
        if let Some(known) = old.selection_of(membership.rows, &membership.proxies) {
            return known;
        }
        let is_same_size =
            old.membership.as_ref().is_some_and(|before| before.rows == membership.rows);
        if !is_same_size {
            let made = Selection::new(membership.rows, self.selection_key, &membership.proxies);
            return Arc::new(made);
        }
        let mut selection = (*old.selection).clone();
        selection.update(&membership.proxies);
        Arc::new(selection)
    }
}
