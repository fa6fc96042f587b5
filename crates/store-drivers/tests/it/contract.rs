//! What every driver owes, for each of them as the binary opens it: one suite.

use std::sync::Arc;
use std::time::Duration;

use store::contract::{self, Fixture, LeaseFixture};
use store::{LeaseStore, MemoryStore, Store, Wake};
use store_drivers::{StoreLocation, TemporaryFolder, open_lease};

use super::{folder, registrar};

/// The whole suite: the seam's own, and the registrar's on top of it.
pub(crate) fn run(fresh: &dyn Fn() -> Box<dyn Fixture>) {
    contract::run(fresh);
    registrar::run(fresh);
}

struct InProcess(MemoryStore);

impl Fixture for InProcess {
    fn open(&self, wake: Wake) -> Box<dyn Store> {
        Box::new(self.0.handle(wake))
    }
}

struct InMemory(TemporaryFolder);

impl Fixture for InMemory {
    fn open(&self, wake: Wake) -> Box<dyn Store> {
        let location = StoreLocation::sqlite_in_memory(self.0.store_path());
        Box::new(store_drivers::open(&location, wake).expect("opened"))
    }
}

struct OnDisk(TemporaryFolder);

impl Fixture for OnDisk {
    fn open(&self, wake: Wake) -> Box<dyn Store> {
        let location = StoreLocation::sqlite(self.0.store_path());
        Box::new(store_drivers::open(&location, wake).expect("opened"))
    }
}

impl LeaseFixture for OnDisk {
    fn open(&self) -> Box<dyn LeaseStore> {
        open_lease(&StoreLocation::sqlite(self.0.store_path()), Duration::from_secs(10))
    }
}

#[test]
fn memory_keeps_the_contract() {
    run(&|| Box::new(InProcess(MemoryStore::new(Arc::new(|| ())))));
}

#[test]
fn sqlite_keeps_the_contract() {
    run(&|| Box::new(OnDisk(folder())));
}

#[test]
fn sqlite_keeps_the_contract_of_the_lease() {
    contract::run_lease(&|| Box::new(OnDisk(folder())));
}

/// The file is away for a while: calls fail, the lease is there again with it, and no empty file
/// takes its place, in which another could lead.
#[test]
fn a_lease_is_kept_with_its_file() {
    let fixture = OnDisk(folder());
    let (path, mut lease) = (fixture.0.store_path(), LeaseFixture::open(&fixture));
    let row = store::LeaseRow {
        holder: "one".to_owned(),
        fence: 7,
        renewals: 1,
        duration: Duration::from_secs(1),
    };
    assert_eq!(lease.swap(None, &row), Ok(store::Swapped::Done));
    let away = path.with_extension("away");
    std::fs::rename(&path, &away).expect("moved");
    assert!(lease.read().is_err_and(|error| error.is_transient()));
    assert!(lease.swap(Some(&row), &row).is_err_and(|error| error.is_transient()));
    assert!(!path.exists(), "no other file was made");
    std::fs::rename(&away, &path).expect("put back");
    assert_eq!(lease.read(), Ok(Some(row)));
}

#[test]
fn sqlite_in_memory_keeps_the_contract() {
    let name = format!("sipcloud-contract-{}", std::process::id());
    let fresh = || TemporaryFolder::claim(None, &name).expect("a folder on tmpfs");
    run(&|| Box::new(InMemory(fresh())));
}
