//! The drivers against real files: the contract, several processes, files that vanish.

mod admin;
mod cassandra;
mod contract;
mod files;
mod processes;
mod registrar;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use store::{Answer, Aor, Binding, BindingId, Blocking, Query, UnixMillis};
use store_drivers::{OpenError, SqliteOptions, SqliteStore, TemporaryFolder};

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

pub(crate) type Client = Blocking<SqliteStore>;

/// A folder of the test's own, removed at its end.
pub(crate) fn folder() -> TemporaryFolder {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let name = format!("store-{}-{number}", std::process::id());
    TemporaryFolder::claim(Some(&base), &name).expect("a folder")
}

pub(crate) fn try_open(path: &Path, busy_timeout: Duration) -> Result<Client, OpenError> {
    let options = SqliteOptions { busy_timeout, ..SqliteOptions::default() };
    Blocking::open(Duration::from_secs(20), |wake| SqliteStore::open(path, wake, options))
}

pub(crate) fn open(path: &Path) -> Client {
    try_open(path, Duration::from_secs(10)).expect("opened")
}

pub(crate) fn aor(number: u64) -> Aor {
    Aor::new(format!("user-{number}").as_bytes(), b"example.com")
}

pub(crate) fn binding(id: u8) -> Binding {
    Binding {
        id: BindingId([id; 16]),
        contact: b"sip:device@192.0.2.1".to_vec(),
        path: Vec::new(),
        received: None,
        q: 1000,
        call_id: b"call".to_vec(),
        cseq: 1,
        expires_at: NOW.plus(Duration::from_secs(3600)),
        updated_at: NOW,
        user_agent: Vec::new(),
        instance: None,
        reg_id: None,
        direct: false,
    }
}

pub(crate) fn write(number: u64, upserts: Vec<Binding>) -> Query {
    Query::Write { aor: aor(number), upserts, now: NOW }
}

pub(crate) fn rows(client: &mut Client, number: u64) -> usize {
    match client.ask(Query::Bindings { aor: aor(number) }) {
        Ok(Answer::Bindings(rows)) => rows.len(),
        other => panic!("bindings were asked for: {other:?}"),
    }
}
