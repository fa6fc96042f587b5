//! Asking a store and waiting for the answer: for the command line and for tests, never on the
//! call path.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::StoreError;
use crate::query::{Answer, Completion, Query, Store, Ticket, Waited, Wake};

/// A store whose caller waits.
pub struct Blocking<S: Store> {
    store: S,
    bell: Arc<Bell>,
    patience: Duration,
    last_ticket: u64,
    /// Completions that came while another was waited for.
    early: VecDeque<Completion>,
}

#[derive(Default)]
struct Bell {
    has_rung: Mutex<bool>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.has_rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rung.notify_one();
    }

    /// Waits until it rings, or `patience` is over, which is `false`.
    fn wait(&self, patience: Duration) -> bool {
        let has_rung = self.has_rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut has_rung, timeout) = self
            .rung
            .wait_timeout_while(has_rung, patience, |has_rung| !*has_rung)
            .unwrap_or_else(PoisonError::into_inner);
        *has_rung = false;
        !timeout.timed_out()
    }
}

impl<S: Store> Blocking<S> {
    /// Opens a store with a wake-up of its own. An answer that takes longer than `patience` is
    /// [`StoreError::Unavailable`].
    ///
    /// # Errors
    ///
    /// Those of `open`.
    pub fn open<E>(patience: Duration, open: impl FnOnce(Wake) -> Result<S, E>) -> Result<Self, E> {
        let bell = Arc::new(Bell::default());
        let ring = Arc::clone(&bell);
        let store = open(Arc::new(move || ring.ring()))?;
        Ok(Self { store, bell, patience, last_ticket: 0, early: VecDeque::new() })
    }

    /// Asks and waits.
    ///
    /// # Errors
    ///
    /// The store's, or [`StoreError::Unavailable`] if it stays silent.
    pub fn ask(&mut self, query: Query) -> Result<Answer, StoreError> {
        let ticket = self.submit(query);
        let mut others = VecDeque::new();
        let result = loop {
            match self.next_completion() {
                Some(completion) if completion.ticket == ticket => break completion.result,
                Some(other) => others.push_back(other),
                None => break Err(self.silence()),
            }
        };
        self.early.append(&mut others);
        result
    }

    /// Asks several things that are all on their way at once, and gives the answers in their order.
    /// No more than [`QUERIES_IN_FLIGHT_MAX`](crate::limits::QUERIES_IN_FLIGHT_MAX).
    ///
    /// # Errors
    ///
    /// The first of the store's, when all the others have come as well.
    pub fn ask_all(&mut self, queries: Vec<Query>) -> Result<Vec<Answer>, StoreError> {
        let earlier = Ticket(self.last_ticket);
        let count = queries.len();
        for query in queries {
            self.submit(query);
        }
        let (mut results, mut others) = (BTreeMap::new(), VecDeque::new());
        while results.len() < count {
            match self.next_completion() {
                Some(completion) if completion.ticket > earlier => {
                    results.insert(completion.ticket, completion.result);
                }
                Some(other) => others.push_back(other),
                None => return Err(self.silence()),
            }
        }
        self.early.append(&mut others);
        // Tickets grow, so that this is the order of the queries.
        results.into_values().collect()
    }

    /// Hands over a query without waiting.
    pub fn submit(&mut self, query: Query) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.store.submit(ticket, query);
        ticket
    }

    /// Waits for the next completion, of whichever query; `None` if the store stays silent.
    pub fn next_completion(&mut self) -> Option<Completion> {
        if let Some(early) = self.early.pop_front() {
            return Some(early);
        }
        loop {
            if let Some(completion) = self.store.poll_completion() {
                return Some(completion);
            }
            let is_ready = match self.store.wait(None, self.patience) {
                Waited::Elsewhere => self.bell.wait(self.patience),
                waited => waited == Waited::Ready,
            };
            if !is_ready {
                return self.store.poll_completion();
            }
        }
    }

    /// The store itself.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    fn silence(&self) -> StoreError {
        StoreError::Unavailable { detail: format!("no answer within {:?}", self.patience) }
    }
}
