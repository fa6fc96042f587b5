//! The store in memory: for tests and for the simulator. What it does, every driver must do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::credential::{Credential, CredentialKey};
use crate::error::StoreError;
use crate::health::{QueryKind, StoreCounters, StoreHealth};
use crate::ledger::Ledger;
use crate::limits::{EXPIRED_ROW_LIFETIME, PAGE_ROWS_MAX, ROWS_PER_AOR_MAX};
use crate::location::{Aor, Binding, BindingId, BindingKey, Registration, UnixMillis};
use crate::query::{Answer, Completion, Query, Store, Ticket, Wake};

/// One handle on data that several handles may share. Queries are carried out within `submit`.
pub struct MemoryStore {
    data: Arc<Mutex<Data>>,
    wake: Wake,
    ledger: Ledger,
    done: VecDeque<(QueryKind, Completion)>,
}

#[derive(Debug, Default)]
struct Data {
    credentials: BTreeMap<CredentialKey, Credential>,
    bindings: BTreeMap<Aor, BTreeMap<BindingId, Binding>>,
    /// Until when expired rows have been swept.
    swept_until: UnixMillis,
    rows_swept: u64,
    /// What every query is answered, if a test says so.
    outage: Option<StoreError>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(wake: Wake) -> Self {
        Self::on(Arc::default(), wake)
    }

    /// Another handle on the same data, with a wake-up of its own.
    #[must_use]
    pub fn handle(&self, wake: Wake) -> Self {
        Self::on(Arc::clone(&self.data), wake)
    }

    /// From now on every query of every handle is answered with this error; `None` ends it.
    pub fn set_outage(&self, outage: Option<StoreError>) {
        self.data().outage = outage;
    }

    fn on(data: Arc<Mutex<Data>>, wake: Wake) -> Self {
        Self { data, wake, ledger: Ledger::default(), done: VecDeque::new() }
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn submit(&mut self, ticket: Ticket, query: Query) {
        if self.ledger.admit(ticket, &query) {
            let kind = query.kind();
            let result = self.data().answer(query);
            self.done.push_back((kind, Completion { ticket, result }));
        }
        (self.wake)();
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        if let Some(refused) = self.ledger.next_refused() {
            return Some(refused);
        }
        let (kind, completion) = self.done.pop_front()?;
        self.ledger.settle(kind, &completion.result, None);
        Some(completion)
    }

    fn health(&self) -> StoreHealth {
        self.data().outage.as_ref().map_or(StoreHealth::Serving, |outage| StoreHealth::Failing {
            detail: outage.to_string(),
        })
    }

    fn counters(&self) -> StoreCounters {
        let rows_swept = self.data().rows_swept;
        StoreCounters { rows_swept, ..self.ledger.counters().clone() }
    }

    fn close(&mut self) {
        self.ledger.close();
    }
}

impl Data {
    fn answer(&mut self, query: Query) -> Result<Answer, StoreError> {
        if let Some(outage) = &self.outage {
            return Err(outage.clone());
        }
        Ok(match query {
            Query::Credential { realm, username } => Answer::Credential(
                self.credentials.get(&CredentialKey { realm, username }).cloned(),
            ),
            Query::Bindings { aor } => {
                let rows = self.bindings.get(&aor).into_iter().flat_map(BTreeMap::values);
                let mut rows: Vec<Binding> = rows.cloned().collect();
                rows.sort_by(Binding::preference);
                Answer::Bindings(rows)
            }
            Query::Write { aor, upserts, now } => {
                self.write(aor, upserts, now);
                Answer::Done
            }
            Query::CreateCredential { realm, username, credential } => {
                let key = CredentialKey { realm, username };
                let is_new = !self.credentials.contains_key(&key);
                self.credentials.entry(key).or_insert(credential);
                Answer::Created(is_new)
            }
            Query::PutCredential { realm, username, credential } => {
                self.credentials.insert(CredentialKey { realm, username }, credential);
                Answer::Done
            }
            Query::DeleteCredential { realm, username } => {
                self.credentials.remove(&CredentialKey { realm, username });
                Answer::Done
            }
            Query::ListCredentials { realm, after, limit } => {
                Answer::Credentials(self.list_credentials(realm.as_deref(), after, limit))
            }
            Query::ListBindings { after, limit } => {
                Answer::Registrations(self.list_bindings(after, limit))
            }
            Query::DeleteBinding { aor, id } => {
                if let Some(rows) = self.bindings.get_mut(&aor) {
                    rows.remove(&id);
                }
                Answer::Done
            }
        })
    }

    fn write(&mut self, aor: Aor, upserts: Vec<Binding>, now: UnixMillis) {
        let rows = self.bindings.entry(aor).or_default();
        for binding in upserts {
            let is_late =
                rows.get(&binding.id).is_some_and(|stored| binding.updated_at < stored.updated_at);
            if !is_late {
                rows.insert(binding.id, binding);
            }
        }
        remove_excess(rows, now);
        self.sweep(now);
    }

    fn sweep(&mut self, now: UnixMillis) {
        let until = now.minus(EXPIRED_ROW_LIFETIME);
        // A minute between two walks over everything.
        if until.0 < self.swept_until.0.saturating_add(60_000) {
            return;
        }
        self.swept_until = until;
        for rows in self.bindings.values_mut() {
            let before = rows.len();
            rows.retain(|_, binding| until <= binding.expires_at);
            self.rows_swept += (before - rows.len()) as u64;
        }
        self.bindings.retain(|_, rows| !rows.is_empty());
    }

    fn list_credentials(
        &self,
        realm: Option<&str>,
        after: Option<CredentialKey>,
        limit: usize,
    ) -> Vec<CredentialKey> {
        let keys = self.credentials.keys();
        keys.filter(|key| realm.is_none_or(|realm| key.realm == realm))
            .filter(|key| after.as_ref().is_none_or(|after| after < key))
            .take(limit.min(PAGE_ROWS_MAX))
            .cloned()
            .collect()
    }

    fn list_bindings(&self, after: Option<BindingKey>, limit: usize) -> Vec<Registration> {
        let from = after.as_ref().map(|after| &after.aor);
        let partitions = self.bindings.iter().skip_while(|(aor, _)| from.is_some_and(|a| *aor < a));
        let rows = partitions.flat_map(|(aor, rows)| {
            rows.values().map(|row| Registration { aor: aor.clone(), binding: row.clone() })
        });
        rows.filter(|row| after.as_ref().is_none_or(|after| *after < row.key()))
            .take(limit.min(PAGE_ROWS_MAX))
            .collect()
    }
}

/// Keeps a partition within its limit at the cost of the expired rows written longest ago.
fn remove_excess(rows: &mut BTreeMap<BindingId, Binding>, now: UnixMillis) {
    let excess = rows.len().saturating_sub(ROWS_PER_AOR_MAX);
    if excess == 0 {
        return;
    }
    let expired = rows.values().filter(|row| !row.is_live(now));
    let mut oldest: Vec<_> = expired.map(|row| (row.updated_at, row.id)).collect();
    oldest.sort_unstable();
    for (_, id) in oldest.into_iter().take(excess) {
        rows.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{self, Fixture};

    struct Shared(MemoryStore);

    impl Fixture for Shared {
        fn open(&self, wake: Wake) -> Box<dyn Store> {
            Box::new(self.0.handle(wake))
        }
    }

    #[test]
    fn the_memory_store_keeps_the_contract() {
        contract::run(&|| Box::new(Shared(MemoryStore::new(Arc::new(|| ())))));
    }

    fn row(id: u8, expires_at: u64) -> Binding {
        Binding {
            id: BindingId([id; 16]),
            contact: Vec::new(),
            path: Vec::new(),
            received: None,
            q: 0,
            call_id: Vec::new(),
            cseq: 0,
            expires_at: UnixMillis(expires_at),
            updated_at: UnixMillis(u64::from(id)),
            user_agent: Vec::new(),
            instance: None,
            reg_id: None,
            direct: false,
        }
    }

    #[test]
    fn a_row_is_swept_a_day_after_it_expired() {
        let (day, expired_at) = (EXPIRED_ROW_LIFETIME.as_millis() as u64, 5_000_000);
        let mut data = Data::default();
        data.write(Aor::new(b"alice", b"x"), vec![row(1, expired_at)], UnixMillis(expired_at));
        for (now, rows) in [(expired_at + day, 1), (expired_at + day + 60_001, 0)] {
            data.write(Aor::new(b"bob", b"x"), vec![], UnixMillis(now));
            let left = data.bindings.get(&Aor::new(b"alice", b"x")).map_or(0, BTreeMap::len);
            assert_eq!(left, rows, "at {now}");
        }
        assert_eq!(data.rows_swept, 1);
    }

    #[test]
    fn an_address_keeps_its_live_rows_and_the_latest_of_the_expired() {
        let now = UnixMillis(1000);
        let mut data = Data::default();
        let aor = Aor::new(b"alice", b"x");
        let rows = (0..=255).map(|id| row(id, if id < 3 { 2000 } else { 500 })).collect();
        data.write(aor.clone(), rows, now);
        let left: Vec<u8> = data.bindings[&aor].keys().map(|id| id.0[0]).collect();
        let expected: Vec<u8> = (0..3).chain(131..=255).collect();
        assert_eq!(left, expected);
    }

    #[test]
    fn an_outage_answers_every_query_and_ends() {
        let mut store = MemoryStore::new(Arc::new(|| ()));
        let down = StoreError::Unavailable { detail: "a test said so".to_owned() };
        store.set_outage(Some(down.clone()));
        let query = Query::Bindings { aor: Aor::new(b"alice", b"x") };
        store.submit(Ticket(1), query.clone());
        let answer = store.poll_completion().map(|completion| completion.result);
        assert_eq!(answer, Some(Err(down)));
        assert!(!store.health().is_serving());
        store.set_outage(None);
        store.submit(Ticket(2), query);
        let answer = store.poll_completion().map(|completion| completion.result);
        assert_eq!(answer, Some(Ok(Answer::Bindings(vec![]))));
        assert_eq!(store.counters().failures_of(QueryKind::Bindings), 1);
    }
}
