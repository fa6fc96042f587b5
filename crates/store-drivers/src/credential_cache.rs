//! A small cache of credentials before any store, which also asks once where several wait for the same.
//!
//! Only credentials that exist are kept: a user who was just added is found at once. One that was
//! changed or removed elsewhere is believed until its lifetime is over, which is the price.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::limits::QUERIES_IN_FLIGHT_MAX;
use store::{
    Answer, Completion, Credential, CredentialKey, Query, Store, StoreCounters, StoreError,
    StoreHealth, Ticket, Waited,
};

use crate::clock;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    pub lifetime: Duration,
    /// Beyond it the oldest one goes.
    pub credentials_max: usize,
}

/// Reads the time; tests move it.
type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// A store with the cache before it. Everything but credentials passes through.
pub struct CredentialCache<S: Store> {
    store: S,
    options: CacheOptions,
    kept: BTreeMap<CredentialKey, Kept>,
    /// Keys in the order in which they were kept; a key that is kept no longer may still be here.
    order: VecDeque<(CredentialKey, Instant)>,
    asked: BTreeMap<CredentialKey, Asked>,
    /// Whose completion ends which question.
    leaders: BTreeMap<Ticket, CredentialKey>,
    ready: VecDeque<Completion>,
    followers: usize,
    hits: u64,
    joined: u64,
    is_closed: bool,
    clock: Clock,
}

struct Kept {
    credential: Credential,
    since: Instant,
}

/// A question that the store has not answered yet.
#[derive(Default)]
struct Asked {
    followers: Vec<Ticket>,
    /// The credential was changed meanwhile: the answer may be the old one.
    is_stale: bool,
}

impl<S: Store> CredentialCache<S> {
    pub fn new(store: S, options: CacheOptions) -> Self {
        Self::with_clock(store, options, Arc::new(clock::now))
    }

    /// For tests that move the time.
    pub fn with_clock(store: S, options: CacheOptions, clock: Clock) -> Self {
        Self {
            store,
            options,
            kept: BTreeMap::new(),
            order: VecDeque::new(),
            asked: BTreeMap::new(),
            leaders: BTreeMap::new(),
            ready: VecDeque::new(),
            followers: 0,
            hits: 0,
            joined: 0,
            is_closed: false,
            clock,
        }
    }

    fn submit_credential(&mut self, ticket: Ticket, key: CredentialKey) {
        let now = (self.clock)();
        if let Some(kept) = self.kept.get(&key)
            && now.saturating_duration_since(kept.since) < self.options.lifetime
        {
            self.hits += 1;
            let answer = Answer::Credential(Some(kept.credential.clone()));
            return self.complete_at_once(ticket, Ok(answer));
        }
        match self.asked.get_mut(&key) {
            // What was asked before a change may be answered with the old credential.
            Some(asked) if !asked.is_stale => {
                if self.followers >= QUERIES_IN_FLIGHT_MAX {
                    return self.complete_at_once(ticket, Err(StoreError::Overloaded));
                }
                self.joined += 1;
                self.followers += 1;
                asked.followers.push(ticket);
            }
            Some(_) => self.pass_on(ticket, key),
            None => {
                self.asked.insert(key.clone(), Asked::default());
                self.leaders.insert(ticket, key.clone());
                self.pass_on(ticket, key);
            }
        }
    }

    fn pass_on(&mut self, ticket: Ticket, key: CredentialKey) {
        let CredentialKey { realm, username } = key;
        self.store.submit(ticket, Query::Credential { realm, username });
    }

    fn complete_at_once(&mut self, ticket: Ticket, result: Result<Answer, StoreError>) {
        self.ready.push_back(Completion { ticket, result });
    }

    /// Forgets what is about to change.
    fn forget(&mut self, realm: &str, username: &str) {
        let key = CredentialKey { realm: realm.to_owned(), username: username.to_owned() };
        self.kept.remove(&key);
        if let Some(asked) = self.asked.get_mut(&key) {
            asked.is_stale = true;
        }
    }

    /// Hands the leader's answer to those who joined it, and keeps it.
    fn settle(&mut self, completion: &Completion) {
        let Some(key) = self.leaders.remove(&completion.ticket) else { return };
        let Some(Asked { followers, is_stale }) = self.asked.remove(&key) else { return };
        self.followers = self.followers.saturating_sub(followers.len());
        let answer = |ticket| Completion { ticket, result: completion.result.clone() };
        self.ready.extend(followers.into_iter().map(answer));
        if let (false, Ok(Answer::Credential(Some(credential)))) = (is_stale, &completion.result) {
            self.keep(key, credential.clone());
        }
    }

    fn keep(&mut self, key: CredentialKey, credential: Credential) {
        let since = (self.clock)();
        self.order.push_back((key.clone(), since));
        self.kept.insert(key, Kept { credential, since });
        // Each entry of the order is for one insertion, so that both stay within the limit.
        while self.order.len() > self.options.credentials_max {
            let Some((oldest, since)) = self.order.pop_front() else { break };
            if self.kept.get(&oldest).is_some_and(|kept| kept.since == since) {
                self.kept.remove(&oldest);
            }
        }
    }
}

impl<S: Store> Store for CredentialCache<S> {
    fn submit(&mut self, ticket: Ticket, query: Query) {
        match query {
            Query::Credential { realm, username } if !self.is_closed => {
                self.submit_credential(ticket, CredentialKey { realm, username });
            }
            query => {
                if let Query::CreateCredential { realm, username, .. }
                | Query::PutCredential { realm, username, .. }
                | Query::DeleteCredential { realm, username } = &query
                {
                    self.forget(realm, username);
                }
                self.store.submit(ticket, query);
            }
        }
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        if let Some(completion) = self.ready.pop_front() {
            return Some(completion);
        }
        let completion = self.store.poll_completion()?;
        self.settle(&completion);
        Some(completion)
    }

    fn wait(&mut self, other: Option<BorrowedFd<'_>>, patience: Duration) -> Waited {
        self.store.wait(other, patience)
    }

    fn health(&self) -> StoreHealth {
        self.store.health()
    }

    fn counters(&self) -> StoreCounters {
        let counters = self.store.counters();
        StoreCounters {
            cache_hits: self.hits,
            joined: self.joined,
            in_flight: counters.in_flight + self.followers as u64,
            ..counters
        }
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.store.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use store::contract::{self, Fixture};
    use store::{MemoryStore, QueryKind, Wake};

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(30);

    struct Cached(MemoryStore);

    impl Fixture for Cached {
        fn open(&self, wake: Wake) -> Box<dyn Store> {
            let options = CacheOptions { lifetime: LIFETIME, credentials_max: 10 };
            Box::new(CredentialCache::new(self.0.handle(wake), options))
        }
    }

    #[test]
    fn a_store_with_a_cache_keeps_the_contract() {
        contract::run(&|| Box::new(Cached(MemoryStore::new(Arc::new(|| ())))));
    }

    /// A cache for two credentials on a store that answers only when it is told to.
    struct Bench {
        cache: CredentialCache<Slow>,
        now: Arc<Mutex<Instant>>,
        last_ticket: u64,
    }

    /// Keeps its queries until they are let go.
    struct Slow {
        inner: MemoryStore,
        held: Vec<(Ticket, Query)>,
    }

    impl Slow {
        fn let_go(&mut self) {
            for (ticket, query) in self.held.drain(..) {
                self.inner.submit(ticket, query);
            }
        }
    }

    impl Store for Slow {
        fn submit(&mut self, ticket: Ticket, query: Query) {
            self.held.push((ticket, query));
        }

        fn poll_completion(&mut self) -> Option<Completion> {
            self.inner.poll_completion()
        }

        fn health(&self) -> StoreHealth {
            self.inner.health()
        }

        fn counters(&self) -> StoreCounters {
            self.inner.counters()
        }

        fn close(&mut self) {
            self.inner.close();
        }
    }

    fn key(user: &str) -> (String, String) {
        ("example.com".to_owned(), user.to_owned())
    }

    impl Bench {
        fn new() -> Self {
            let now = Arc::new(Mutex::new(clock::now()));
            let reading = Arc::clone(&now);
            let wake: Wake = Arc::new(|| ());
            let store = Slow { inner: MemoryStore::new(wake), held: Vec::new() };
            let options = CacheOptions { lifetime: LIFETIME, credentials_max: 2 };
            let clock: Clock = Arc::new(move || *reading.lock().expect("not poisoned"));
            let cache = CredentialCache::with_clock(store, options, clock);
            let mut bench = Self { cache, now, last_ticket: 0 };
            for user in ["a", "b", "c"] {
                bench.put(user, "secret");
            }
            bench
        }

        fn put(&mut self, user: &str, password: &str) {
            let (realm, username) = key(user);
            let credential = Credential::new(&username, &realm, password);
            self.submit(Query::PutCredential { realm, username, credential });
            assert_eq!(self.finish().len(), 1);
        }

        fn submit(&mut self, query: Query) -> Ticket {
            self.last_ticket += 1;
            self.cache.submit(Ticket(self.last_ticket), query);
            Ticket(self.last_ticket)
        }

        fn ask(&mut self, user: &str) -> Ticket {
            let (realm, username) = key(user);
            self.submit(Query::Credential { realm, username })
        }

        fn finish(&mut self) -> Vec<Completion> {
            self.cache.store.let_go();
            std::iter::from_fn(|| self.cache.poll_completion()).collect()
        }

        /// Asks one after the other; returns how many queries reached the store.
        fn queries_for(&mut self, users: &[&str]) -> u64 {
            let before = self.cache.counters().queries_of(QueryKind::Credential);
            for user in users {
                self.ask(user);
                assert_eq!(self.finish().len(), 1, "{user}");
            }
            self.cache.counters().queries_of(QueryKind::Credential) - before
        }
    }

    #[test]
    fn a_credential_is_asked_for_once_in_its_lifetime() {
        let mut bench = Bench::new();
        assert_eq!(bench.queries_for(&["a", "a", "a"]), 1);
        *bench.now.lock().expect("not poisoned") += LIFETIME;
        assert_eq!(bench.queries_for(&["a", "a"]), 1, "then it is asked again");
        assert_eq!(bench.cache.counters().cache_hits, 3);
    }

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let mut bench = Bench::new();
        assert_eq!(bench.queries_for(&["a", "b", "c"]), 3);
        assert_eq!(bench.queries_for(&["c", "b"]), 0, "two are kept");
        assert_eq!(bench.queries_for(&["a"]), 1);
        assert_eq!(bench.cache.kept.len(), 2);
    }

    #[test]
    fn equal_questions_in_flight_are_one() {
        let mut bench = Bench::new();
        let mut tickets: Vec<Ticket> = (0..5).map(|_| bench.ask("a")).collect();
        tickets.push(bench.ask("b"));
        assert_eq!(bench.cache.store.held.len(), 2, "one for each user");
        assert_eq!(bench.cache.counters().in_flight, 4, "who joined is in flight as well");
        let done = bench.finish();
        let mut answered: Vec<Ticket> = done.iter().map(|done| done.ticket).collect();
        answered.sort_unstable();
        assert_eq!(answered, tickets, "each ticket has its answer");
        assert!(done.iter().all(|done| matches!(done.result, Ok(Answer::Credential(Some(_))))));
        assert_eq!(bench.cache.counters().joined, 4);
    }

    #[test]
    fn a_failure_is_shared_and_not_kept_and_nobody_is_kept_either() {
        let mut bench = Bench::new();
        let down = StoreError::Unavailable { detail: "a test said so".to_owned() };
        bench.cache.store.inner.set_outage(Some(down.clone()));
        bench.ask("a");
        bench.ask("a");
        assert!(bench.finish().iter().all(|done| done.result == Err(down.clone())));
        bench.cache.store.inner.set_outage(None);
        assert_eq!(bench.queries_for(&["a"]), 1);
        assert_eq!(bench.queries_for(&["nobody", "nobody"]), 2);
    }

    #[test]
    fn a_change_is_seen_at_once_even_by_a_question_in_flight() {
        let mut bench = Bench::new();
        assert_eq!(bench.queries_for(&["a"]), 1);
        bench.put("a", "new");
        assert_eq!(bench.queries_for(&["a", "a"]), 1, "it was forgotten");
        // Asked before the change and answered after it: its answer is not kept.
        bench.ask("b");
        let (realm, username) = key("b");
        bench.submit(Query::DeleteCredential { realm, username });
        bench.ask("b");
        assert_eq!(bench.cache.store.held.len(), 3, "it does not join the earlier question");
        assert_eq!(bench.finish().len(), 3);
        assert_eq!(bench.queries_for(&["b"]), 1);
    }
}
