//! What every driver owes the proxies: one suite, called from the tests of each driver.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test suite, compiled for tests only"
)]

mod bindings;
mod credentials;
mod flow;
mod lease;

use std::convert::Infallible;
use std::time::Duration;

use crate::blocking::Blocking;
use crate::location::{Aor, Binding, BindingId, UnixMillis};
use crate::query::{Answer, Query, Store, Wake};

pub use lease::{LeaseFixture, run_lease};

/// A store with nothing in it, on which any number of handles may be opened.
pub trait Fixture {
    /// Another handle on the same data; it stands for another process.
    fn open(&self, wake: Wake) -> Box<dyn Store>;
}

/// One thing that a driver owes.
type Check = fn(&dyn Fixture);

/// Runs the whole suite, each check on a fresh store; panics at the first breach.
pub fn run(fresh: &dyn Fn() -> Box<dyn Fixture>) {
    for (name, check) in [credentials::CHECKS, bindings::CHECKS, flow::CHECKS].concat() {
        // Shown only if the test fails; then the last line names the breach.
        println!("contract: {name}");
        check(&*fresh());
    }
}

/// A caller that waits; longer than any driver may take.
type Client = Blocking<Box<dyn Store>>;

fn client(fixture: &dyn Fixture) -> Client {
    let open = |wake| Ok::<_, Infallible>(fixture.open(wake));
    Blocking::open(Duration::from_secs(20), open).expect("infallible")
}

/// The time at which the suite takes place; the store has no clock of its own.
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn later(seconds: u64) -> UnixMillis {
    NOW.plus(Duration::from_secs(seconds))
}

/// A plain binding, live for an hour, written at `NOW`.
fn binding(id: u8) -> Binding {
    Binding {
        id: BindingId([id; 16]),
        contact: format!("sip:device-{id}@192.0.2.{id}:5062").into_bytes(),
        path: vec![b"<sip:token@192.0.2.200;lr;ob>".to_vec()],
        received: None,
        q: 1000,
        call_id: format!("call-{id}@192.0.2.{id}").into_bytes(),
        cseq: 1,
        expires_at: later(3600),
        updated_at: NOW,
        user_agent: b"contract".to_vec(),
        instance: None,
        reg_id: None,
        direct: false,
    }
}

fn alice() -> Aor {
    Aor::new(b"alice", b"example.com")
}

fn write(client: &mut Client, aor: &Aor, upserts: &[Binding]) {
    let query = Query::Write { aor: aor.clone(), upserts: upserts.to_vec(), now: NOW };
    assert_eq!(client.ask(query), Ok(Answer::Done), "a write is done");
}

fn read(client: &mut Client, aor: &Aor) -> Vec<Binding> {
    match client.ask(Query::Bindings { aor: aor.clone() }) {
        Ok(Answer::Bindings(rows)) => rows,
        other => panic!("bindings were asked for: {other:?}"),
    }
}
