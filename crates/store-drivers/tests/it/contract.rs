//! What every driver owes, for each of them as the binary opens it: one suite.

use std::sync::Arc;

use store::contract::{self, Fixture};
use store::{MemoryStore, Store, Wake};
use store_drivers::{StoreLocation, TemporaryFolder};

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

struct OnDisk(TemporaryFolder);

impl Fixture for OnDisk {
    fn open(&self, wake: Wake) -> Box<dyn Store> {
        let location = StoreLocation::sqlite(self.0.store_path());
        Box::new(store_drivers::open(&location, wake).expect("opened"))
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
fn sqlite_in_memory_keeps_the_contract() {
    let name = format!("sipcloud-contract-{}", std::process::id());
    let fresh = || TemporaryFolder::claim(None, &name).expect("a folder on tmpfs");
    run(&|| Box::new(OnDisk(fresh())));
}
