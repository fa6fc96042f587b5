//! The lease of the managers, in the database that the fleet has.

use std::time::Duration;

use store::{LeaseStore, MemoryLease};

use crate::StoreLocation;
use crate::cassandra::CassandraLease;
use crate::sqlite::SqliteLease;

/// A handle on the lease. `patience` is how long one call may wait for the database. Nothing is
/// opened yet: a database that does not answer fails the calls, and is served as soon as it does.
#[must_use]
pub fn open_lease(location: &StoreLocation, patience: Duration) -> Box<dyn LeaseStore> {
    match location {
        StoreLocation::InProcess => Box::new(MemoryLease::default()),
        StoreLocation::Sqlite { path, .. } => Box::new(SqliteLease::new(path, patience)),
        StoreLocation::Cassandra(options) => {
            Box::new(CassandraLease::new(options.clone(), patience))
        }
    }
}
