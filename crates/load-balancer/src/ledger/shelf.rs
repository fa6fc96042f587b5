//! A bounded store on virtual time: found by key, looked at when due; when full, the oldest go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

/// What an item costs beyond its key and its message, in bytes, roughly.
const ITEM_BYTES: usize = 256;

/// Items of one kind.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    bytes_max: usize,
    bytes: usize,
    last_serial: u64,
    /// By serial number, and so by age.
    items: BTreeMap<u64, Item<T>>,
    by_key: HashMap<Box<[u8]>, u64>,
    due: BTreeSet<(Instant, u64)>,
    /// Items that went because the shelf was full.
    pub(super) evicted_total: u64,
}

#[derive(Debug)]
struct Item<T> {
    key: Box<[u8]>,
    due: Instant,
    bytes: usize,
    value: T,
}

impl<T> Shelf<T> {
    /// `bytes_max`: messages, keys and what goes with them.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            last_serial: 0,
            items: BTreeMap::new(),
            by_key: HashMap::new(),
            due: BTreeSet::new(),
            evicted_total: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts an item under a key that is free, and returns what had to go for it: the oldest. One
    /// that is larger than the whole shelf comes back itself.
    pub(super) fn insert(
        &mut self,
        key: Box<[u8]>,
        value: T,
        message_bytes: usize,
        due: Instant,
    ) -> Vec<T> {
        let bytes = ITEM_BYTES + 2 * key.len() + message_bytes;
        let mut gone = Vec::new();
        if bytes > self.bytes_max || self.by_key.contains_key(&key) {
            self.evicted_total += 1;
            gone.push(value);
            return gone;
        }
        while self.bytes + bytes > self.bytes_max
            && let Some((&oldest, _)) = self.items.first_key_value()
        {
            self.evicted_total += 1;
            gone.extend(self.take(oldest));
        }
        self.last_serial += 1;
        let serial = self.last_serial;
        self.bytes += bytes;
        self.by_key.insert(key.clone(), serial);
        self.due.insert((due, serial));
        self.items.insert(serial, Item { key, due, bytes, value });
        gone
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut T> {
        let serial = self.by_key.get(key)?;
        self.items.get_mut(serial).map(|item| &mut item.value)
    }

    /// Moves the moment at which the item is looked at.
    pub(super) fn postpone(&mut self, key: &[u8], due: Instant) {
        let Some(&serial) = self.by_key.get(key) else { return };
        let Some(item) = self.items.get_mut(&serial) else { return };
        self.due.remove(&(item.due, serial));
        item.due = due;
        self.due.insert((due, serial));
    }

    /// The item keeps its place and gives the memory of its message back.
    pub(super) fn lighten(&mut self, key: &[u8], message_bytes: usize) {
        let Some(item) = self.by_key.get(key).and_then(|serial| self.items.get_mut(serial)) else {
            return;
        };
        let given = message_bytes.min(item.bytes);
        item.bytes -= given;
        self.bytes -= given;
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<T> {
        let serial = *self.by_key.get(key)?;
        self.take(serial)
    }

    /// When the next item wants to be looked at.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The item that is longest due, if one is: `look` returns when it is due again, or `None` if it
    /// shall go.
    pub(super) fn look_at_due(
        &mut self,
        now: Instant,
        look: impl FnOnce(&mut T) -> Option<Instant>,
    ) -> Looked<T> {
        let Some(&(due, serial)) = self.due.first().filter(|(due, _)| *due <= now) else {
            return Looked::Nothing;
        };
        let again = self.items.get_mut(&serial).and_then(|item| look(&mut item.value));
        let Some(again) = again else {
            return self.take(serial).map_or(Looked::Nothing, Looked::Gone);
        };
        self.due.remove(&(due, serial));
        self.due.insert((again, serial));
        if let Some(item) = self.items.get_mut(&serial) {
            item.due = again;
        }
        Looked::Kept
    }

    fn take(&mut self, serial: u64) -> Option<T> {
        let item = self.items.remove(&serial)?;
        self.by_key.remove(&item.key);
        self.due.remove(&(item.due, serial));
        self.bytes -= item.bytes;
        Some(item.value)
    }
}

/// What came of a look.
#[derive(Debug)]
pub(super) enum Looked<T> {
    Nothing,
    Kept,
    Gone(T),
}
