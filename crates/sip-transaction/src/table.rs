//! A bounded slab of transactions, found by key or by id.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The table holds as many transactions as its limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transaction table is full")]
pub struct TableFull;

/// A place in the slab and which of its tenants is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    slot: u32,
    generation: u32,
}

impl std::hash::Hash for Id {
    /// Spread over all bits, for [`KeyedMap`]; nobody outside chooses a slot.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let both = u64::from(self.generation) << 32 | u64::from(self.slot);
        state.write_u64(both.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}

/// 128 bits of a keyed hash: equal keys are the same transaction.
///
/// Nobody without the hash key can make two transactions collide, and by chance it happens once in
/// 2⁶⁴ transactions; so the fields themselves are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) high: u64,
    pub(crate) low: u64,
}

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

/// A map by the ids and keys of this crate. They are hashes already, and are not hashed again.
pub type KeyedMap<K, V> = HashMap<K, V, BuildHasherDefault<AsItIs>>;

/// The hasher of a [`KeyedMap`].
#[derive(Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

struct Slot<T> {
    generation: u32,
    tenant: Option<T>,
}

/// At most `max` transactions.
pub(crate) struct Table<T> {
    index: KeyedMap<Key, Id>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    max: usize,
}

impl<T> Table<T> {
    pub(crate) fn new(max: usize) -> Self {
        Self { index: KeyedMap::default(), slots: Vec::new(), free: Vec::new(), max }
    }

    /// How many transactions live.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn find(&self, key: Key) -> Option<Id> {
        self.index.get(&key).copied()
    }

    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation == id.generation { slot.tenant.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.tenant.as_mut() } else { None }
    }

    /// Every transaction.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.tenant.as_ref())
    }

    /// Adds a transaction that `key` finds from now on. The newest owner of a key is found.
    pub(crate) fn insert(&mut self, key: Key, tenant: T) -> Result<Id, TableFull> {
        if self.len() >= self.max {
            return Err(TableFull);
        }
        let id = self.place(tenant)?;
        self.index.insert(key, id);
        Ok(id)
    }

    fn place(&mut self, tenant: T) -> Result<Id, TableFull> {
        while let Some(slot) = self.free.pop() {
            if let Some(vacant) = self.slots.get_mut(slot as usize) {
                vacant.tenant = Some(tenant);
                return Ok(Id { slot, generation: vacant.generation });
            }
        }
        let slot = u32::try_from(self.slots.len()).map_err(|_| TableFull)?;
        self.slots.push(Slot { generation: 0, tenant: Some(tenant) });
        Ok(Id { slot, generation: 0 })
    }

    /// Lets another key find the transaction `id`.
    pub(crate) fn add_key(&mut self, key: Key, id: Id) {
        self.index.insert(key, id);
    }

    /// Takes a transaction out. Its keys are dropped with [`Self::drop_key`].
    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let tenant = slot.tenant.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(tenant)
    }

    /// Forgets a key of `id`, unless a newer transaction has it by now.
    pub(crate) fn drop_key(&mut self, key: Key, id: Id) {
        if self.index.get(&key) == Some(&id) {
            self.index.remove(&key);
        }
    }

    /// Keys in use: for the tests that look for leaks.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        Key { high: 0, low: number }
    }

    /// An id of a removed transaction must never reach the next tenant of its slot.
    #[test]
    fn an_old_id_does_not_find_the_new_tenant() {
        let mut table = Table::new(1);
        let old = table.insert(key(1), "old").expect("there is room");
        assert_eq!(table.insert(key(2), "too many"), Err(TableFull));
        assert_eq!(table.remove(old), Some("old"));
        table.drop_key(key(1), old);

        let new = table.insert(key(1), "new").expect("there is room again");
        assert_eq!(table.get(old), None);
        assert_eq!(table.remove(old), None);
        table.drop_key(key(1), old);
        assert_eq!(table.find(key(1)), Some(new));
        assert_eq!((table.len(), table.keys()), (1, 1));
    }

    /// A transaction that goes takes all its keys along, except one that a newer one has taken.
    #[test]
    fn a_key_taken_over_stays_with_its_new_owner() {
        let mut table = Table::new(2);
        let first = table.insert(key(1), 'a').expect("room");
        table.add_key(key(2), first);
        let second = table.insert(key(2), 'b').expect("room");
        table.remove(first);
        table.drop_key(key(1), first);
        table.drop_key(key(2), first);
        assert_eq!((table.find(key(1)), table.find(key(2))), (None, Some(second)));
    }
}
