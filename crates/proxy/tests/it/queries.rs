//! What the proxy asks its store, and when.

use std::collections::VecDeque;

use store::memory::MemoryStore;
use store::{Completion, Query, Store, StoreCounters, StoreHealth, Ticket};

use super::phone::Phone;
use super::{direct_binding, start_over};

/// A store that answers nobody before two questions are under way, and then in this order.
struct InPairs {
    store: MemoryStore,
    is_last_first: bool,
    waiting: Vec<Completion>,
    ready: VecDeque<Completion>,
}

impl Store for InPairs {
    fn submit(&mut self, ticket: Ticket, query: Query) {
        self.store.submit(ticket, query);
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        self.waiting.extend(std::iter::from_fn(|| self.store.poll_completion()));
        if self.waiting.len() >= 2 {
            if self.is_last_first {
                self.waiting.reverse();
            }
            self.ready.extend(self.waiting.drain(..));
        }
        self.ready.pop_front()
    }

    fn health(&self) -> StoreHealth {
        self.store.health()
    }

    fn counters(&self) -> StoreCounters {
        self.store.counters()
    }

    fn close(&mut self) {
        self.store.close();
    }
}

/// The callee is looked up while the caller's credential is on its way, whichever comes first.
///
/// Method: asked one after the other, neither would ever be answered.
#[test]
fn the_callee_is_looked_up_together_with_the_callers_credential() {
    for (ip, is_last_first) in [("127.31.40", false), ("127.31.41", true)] {
        let mut callee = Phone::at(&format!("{ip}.2:5060"));
        let mut caller = Phone::at(&format!("{ip}.3:5060"));
        let dress = move |store| -> Box<dyn Store> {
            let (waiting, ready) = (Vec::new(), VecDeque::new());
            Box::new(InPairs { store, is_last_first, waiting, ready })
        };
        let bob = direct_binding(callee.address());
        let (proxy, address) = start_over(&format!("{ip}.1"), bob, |_| {}, dress);

        caller.send(address, &caller.invite(1, None));
        let challenge = caller.expect("407");
        caller.send(address, &caller.ack(1, &challenge, None));
        let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
        caller.send(address, &caller.invite(2, Some(&credentials)));
        callee.expect("INVITE");
        proxy.stop();
    }
}

/// A wrong password is challenged again, and the lookup that came with it leads to nobody.
#[test]
fn a_lookup_ahead_of_a_wrong_password_leads_to_nobody() {
    let callee = Phone::at("127.31.42.2:5060");
    let mut caller = Phone::at("127.31.42.3:5060");
    let bob = direct_binding(callee.address());
    let dress = |store| -> Box<dyn Store> {
        let (waiting, ready) = (Vec::new(), VecDeque::new());
        Box::new(InPairs { store, is_last_first: true, waiting, ready })
    };
    let (proxy, address) = start_over("127.31.42.1", bob, |_| {}, dress);

    caller.be("alice", "wrong");
    caller.send(address, &caller.invite(1, None));
    let challenge = caller.expect("407");
    caller.send(address, &caller.ack(1, &challenge, None));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    caller.send(address, &caller.invite(2, Some(&credentials)));
    caller.expect("407");
    caller.send(address, &caller.request("OPTIONS", &format!("sip:{address}"), "example.com"));
    caller.expect("200");
    assert_eq!(proxy.handle().status().calls_total, 0);
    proxy.stop();
}
