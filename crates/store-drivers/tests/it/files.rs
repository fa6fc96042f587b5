//! A file that is locked, missing, replaced, newer, damaged or not ours.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rusqlite::Connection;
use store::{Answer, Aor, Blocking, Credential, Query, Store as _, StoreError, UnixMillis};
use store_drivers::sqlite::WriteLock;
use store_drivers::{OpenError, SqliteOptions, SqliteStore};

use super::{NOW, aor, binding, folder, open, rows, try_open, write};

const SHORT: Duration = Duration::from_millis(50);

#[test]
fn a_new_file_is_for_its_owner_alone() {
    let folder = folder();
    let mut client = open(&folder.store_path());
    assert_eq!(client.ask(write(1, vec![binding(1)])), Ok(Answer::Done));
    for entry in fs::read_dir(folder.store_path().parent().expect("a folder")).expect("listed") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let folder = folder();
    let credential = Credential::new("alice", "example.com", "secret");
    let name = || ("example.com".to_owned(), "alice".to_owned());
    let mut client = open(&folder.store_path());
    let (realm, username) = name();
    let put = Query::PutCredential { realm, username, credential: credential.clone() };
    assert_eq!(client.ask(put), Ok(Answer::Done));
    assert_eq!(client.ask(write(1, vec![binding(1)])), Ok(Answer::Done));
    drop(client);
    let mut client = open(&folder.store_path());
    let (realm, username) = name();
    let found = client.ask(Query::Credential { realm, username });
    assert_eq!(found, Ok(Answer::Credential(Some(credential))));
    assert_eq!(rows(&mut client, 1), 1);
}

/// Method: the completion is there without any wait. A write goes through its lane all the same.
#[test]
fn reads_of_a_file_in_memory_are_answered_within_submit() {
    let folder = folder();
    let options = SqliteOptions { is_in_memory: true, ..SqliteOptions::default() };
    let opened = Blocking::open(Duration::from_secs(20), |wake| {
        SqliteStore::open(&folder.store_path(), wake, options)
    });
    let mut client = opened.expect("opened");
    assert_eq!(client.ask(write(1, vec![binding(1)])), Ok(Answer::Done));
    let ticket = client.submit(Query::Bindings { aor: aor(1) });
    let completion = client.store().poll_completion().expect("answered at once");
    assert_eq!(completion.ticket, ticket);
    assert_eq!(completion.result, Ok(Answer::Bindings(vec![binding(1)])));
    let counters = client.store().counters();
    assert_eq!((counters.in_flight, counters.latencies.counts.iter().sum::<u64>()), (0, 2));
}

#[test]
fn a_locked_file_fails_writes_in_time_and_heals() {
    let folder = folder();
    let mut client = try_open(&folder.store_path(), SHORT).expect("opened");
    let locker = Connection::open(folder.store_path()).expect("opened");
    locker.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    let refused = client.ask(write(1, vec![binding(1)]));
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert!(!client.store().health().is_serving(), "health says so");
    assert_eq!(rows(&mut client, 1), 0, "reads go on meanwhile");
    locker.execute_batch("ROLLBACK").expect("unlocked");
    assert_eq!(client.ask(write(1, vec![binding(1)])), Ok(Answer::Done));
    assert!(client.store().health().is_serving());
    assert_eq!(client.store().counters().failures.iter().sum::<u64>(), 1);
}

#[test]
fn a_missing_file_is_not_replaced_by_an_empty_one_and_heals_when_it_is_back() {
    let folder = folder();
    let path = folder.store_path();
    let mut client = open(&path);
    assert_eq!(client.ask(write(1, vec![binding(1)])), Ok(Answer::Done));
    let aside = path.with_extension("aside");
    for suffix in ["", "-wal", "-shm"] {
        let of = |path: &std::path::Path| format!("{}{suffix}", path.display());
        fs::rename(of(&path), of(&aside)).expect("moved away");
    }
    for query in [Query::Bindings { aor: aor(1) }, write(2, vec![binding(1)])] {
        let refused = client.ask(query);
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    }
    assert!(!path.exists(), "no empty store stands in its place");
    for suffix in ["", "-wal", "-shm"] {
        let of = |path: &std::path::Path| format!("{}{suffix}", path.display());
        fs::rename(of(&aside), of(&path)).expect("moved back");
    }
    assert_eq!(rows(&mut client, 1), 1, "and everything is there again");
    assert_eq!(client.ask(write(2, vec![binding(1)])), Ok(Answer::Done));
    assert!(client.store().health().is_serving());
}

#[test]
fn a_file_put_in_its_place_is_used() {
    let (folder, other) = (folder(), folder());
    let mut client = open(&folder.store_path());
    let mut restored = open(&other.store_path());
    assert_eq!(restored.ask(write(7, vec![binding(1)])), Ok(Answer::Done));
    drop(restored);
    assert_eq!(rows(&mut client, 7), 0);
    // A WAL does not know which file it belongs to: it goes with its file (docs/data-model.md).
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", folder.store_path().display())).expect("removed");
    }
    fs::rename(other.store_path(), folder.store_path()).expect("replaced");
    assert_eq!(rows(&mut client, 7), 1, "the restored file");
    assert_eq!(client.ask(write(8, vec![binding(1)])), Ok(Answer::Done));
    drop(client);
    assert_eq!(rows(&mut open(&folder.store_path()), 8), 1);
}

#[test]
fn health_returns_without_a_query() {
    // Method: the lock is gone, nobody asks, the driver's own probe finds out.
    let folder = folder();
    let mut client = try_open(&folder.store_path(), SHORT).expect("opened");
    let locker = Connection::open(folder.store_path()).expect("opened");
    locker.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    assert!(client.ask(write(1, vec![binding(1)])).is_err());
    locker.execute_batch("ROLLBACK").expect("unlocked");
    let is_serving = (0..100).any(|_| {
        std::thread::park_timeout(SHORT);
        client.store().health().is_serving()
    });
    assert!(is_serving, "within two probes");
}

#[test]
fn a_file_that_only_an_operator_can_mend_is_refused() {
    let folder = folder();
    let path = folder.store_path();
    let newer = path.with_file_name("newer");
    drop(open(&newer));
    let change = Connection::open(&newer).expect("opened");
    change.pragma_update(None, "user_version", 2).expect("changed");
    drop(change);
    let other = path.with_file_name("other");
    let change = Connection::open(&other).expect("opened");
    change.execute_batch("CREATE TABLE theirs (x)").expect("changed");
    drop(change);
    let text = path.with_file_name("text");
    fs::write(&text, "not a database at all, but long enough to look like one".repeat(40))
        .expect("written");
    let nowhere = path.with_file_name("missing").join("store");

    let refusal = |path| try_open(path, SHORT).map(|_| ()).expect_err("refused");
    let error = refusal(&newer);
    assert!(matches!(error, OpenError::NewerSchema { found: 2, known: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("use a newer sipcloud"), "{error}");
    assert!(matches!(refusal(&other), OpenError::OtherProgram { .. }));
    assert!(matches!(refusal(&text), OpenError::Damaged { .. }));
    let error = refusal(&nowhere);
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
    assert!(!error.is_transient());
}

#[test]
fn an_unreadable_row_is_named_and_the_others_are_served() {
    let folder = folder();
    let mut client = open(&folder.store_path());
    assert_eq!(client.ask(write(1, vec![binding(1)])), Ok(Answer::Done));
    assert_eq!(client.ask(write(2, vec![binding(1)])), Ok(Answer::Done));
    let vandal = Connection::open(folder.store_path()).expect("opened");
    let sql = "UPDATE location SET path = x'00000009' WHERE aor = ?1";
    vandal.execute(sql, [aor(1).as_bytes()]).expect("changed");
    let refused = client.ask(Query::Bindings { aor: aor(1) });
    let Err(StoreError::Corrupt { row }) = &refused else { panic!("{refused:?}") };
    assert_eq!(row, "location user-1@example.com: path");
    assert_eq!(rows(&mut client, 2), 1);
    assert!(client.store().health().is_serving(), "the store itself is well");
}

#[test]
fn rows_are_swept_a_day_after_they_expired() {
    let folder = folder();
    let mut client = open(&folder.store_path());
    let hour = Duration::from_secs(3600);
    let expired = store::Binding { expires_at: NOW, ..binding(1) };
    for number in 0..500 {
        client.submit(write(number, vec![expired.clone()]));
    }
    client.submit(write(999, vec![binding(1)]));
    for _ in 0..501 {
        assert_eq!(client.next_completion().map(|done| done.result), Some(Ok(Answer::Done)));
    }
    let mut write_at = |now: UnixMillis| {
        let other = Aor::new(b"other", b"example.com");
        let row = store::Binding { expires_at: UnixMillis::NEVER, ..binding(2) };
        let query = Query::Write { aor: other, upserts: vec![row], now };
        assert_eq!(client.ask(query), Ok(Answer::Done));
        client.store().counters().rows_swept
    };
    assert_eq!(write_at(NOW.plus(24 * hour)), 0, "not before");
    let after = NOW.plus(24 * hour + Duration::from_secs(60));
    assert_eq!(write_at(after), 200, "a part of them");
    assert_eq!(write_at(after), 400);
    assert_eq!(write_at(after), 500, "all of them");
    assert_eq!(write_at(after), 500);
    assert_eq!((rows(&mut client, 0), rows(&mut client, 999)), (0, 1));
}

#[test]
fn an_address_keeps_its_live_rows_and_the_latest_of_the_expired() {
    let folder = folder();
    let mut client = open(&folder.store_path());
    let upserts: Vec<_> = (0..=255)
        .map(|id| store::Binding {
            expires_at: if id < 3 { NOW.plus(Duration::from_secs(1)) } else { NOW },
            updated_at: UnixMillis(u64::from(id)),
            ..binding(id)
        })
        .collect();
    assert_eq!(client.ask(write(1, upserts)), Ok(Answer::Done));
    let Ok(Answer::Bindings(rows)) = client.ask(Query::Bindings { aor: aor(1) }) else {
        panic!("bindings were asked for");
    };
    let mut left: Vec<u8> = rows.iter().map(|row| row.id.0[0]).collect();
    left.sort_unstable();
    let expected: Vec<u8> = (0..3).chain(131..=255).collect();
    assert_eq!(left, expected);
}

/// The drill's way to stop every write.
#[test]
fn a_write_lock_stops_writes_alone_and_ends_when_it_is_dropped() {
    let folder = folder();
    let mut client = try_open(&folder.store_path(), SHORT).expect("opened");
    assert_eq!(client.ask(write(1, vec![binding(1)])), Ok(Answer::Done));
    let lock = WriteLock::take(&folder.store_path(), SHORT).expect("locked");
    let refused = client.ask(write(1, vec![binding(2)]));
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(rows(&mut client, 1), 1, "reads go on");
    drop(lock);
    assert_eq!(client.ask(write(1, vec![binding(2)])), Ok(Answer::Done));
}
