//! The suite of `store::contract`, for each driver as the binary opens it.

use store::contract::{self, Fixture};
use store::{Store, Wake};
use store_drivers::{StoreLocation, TemporaryFolder};

use super::folder;

struct OnDisk(TemporaryFolder);

impl Fixture for OnDisk {
    fn open(&self, wake: Wake) -> Box<dyn Store> {
        let location = StoreLocation::sqlite(self.0.store_path());
        Box::new(store_drivers::open(&location, wake).expect("opened"))
    }
}

#[test]
fn sqlite_keeps_the_contract() {
    contract::run(&|| Box::new(OnDisk(folder())));
}

#[test]
fn sqlite_in_memory_keeps_the_contract() {
    let name = format!("sipcloud-contract-{}", std::process::id());
    let fresh = || TemporaryFolder::claim(None, &name).expect("a folder on tmpfs");
    contract::run(&|| Box::new(OnDisk(fresh())));
}
