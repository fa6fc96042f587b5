//! The section `[store]`: which database, and how it is reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use node_api::wire::{self, ReadConsistency, Secret, StoreConfiguration, StoreKind};
use serde::{Deserialize, Serialize};
use store_drivers::cassandra::{
    self, CassandraLogin, CassandraOptions, CassandraTls, Replication, ReplicationStrategy,
};
use store_drivers::{CacheOptions, StoreLocation};

use super::Config;
use crate::exit::Exit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Store {
    pub kind: StoreKind,
    /// The SQLite file; empty: `store.db` in the data directory.
    pub path: PathBuf,
    /// Nodes of the cluster that are asked first, `host` or `host:port`.
    pub contact_points: Vec<String>,
    pub keyspace: String,
    /// Only nodes of this data centre are asked; empty: all.
    pub datacenter: String,
    /// How a new keyspace is made.
    pub replication_strategy: Strategy,
    /// Copies of each row; zero: one per node, at most three.
    pub replication_factor: u8,
    pub read_consistency: ReadConsistency,
    /// Empty: the cluster asks for no password.
    pub user: String,
    pub password_file: PathBuf,
    /// Empty: connections to the cluster are not encrypted.
    pub tls_ca_file: PathBuf,
    pub tls_certificate_file: PathBuf,
    pub tls_key_file: PathBuf,
    /// After it a second node is asked as well.
    pub query_timeout_ms: u32,
    /// After it a query is given up.
    pub query_deadline_ms: u32,
    /// How long a proxy believes a credential; zero: it asks each time.
    pub credential_cache_lifetime_s: u32,
    pub credential_cache_max: u32,
    /// Queries per second that one node of the cluster is trusted with.
    pub node_capacity_queries_per_s: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Strategy {
    NetworkTopology,
    Simple,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Sqlite,
            path: PathBuf::new(),
            contact_points: vec!["127.0.40.1".to_owned()],
            keyspace: "sipcloud".to_owned(),
            datacenter: String::new(),
            replication_strategy: Strategy::NetworkTopology,
            replication_factor: 0,
            read_consistency: ReadConsistency::LocalQuorum,
            user: String::new(),
            password_file: PathBuf::new(),
            tls_ca_file: PathBuf::new(),
            tls_certificate_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            query_timeout_ms: 200,
            query_deadline_ms: 2_000,
            credential_cache_lifetime_s: 0,
            credential_cache_max: 10_000,
            node_capacity_queries_per_s: 5_000,
        }
    }
}

impl Config {
    /// The store as nodes are told of it. `data` is absolute.
    ///
    /// # Errors
    ///
    /// A password file that cannot be read.
    pub(crate) fn store_configuration(&self, data: &Path) -> Result<StoreConfiguration> {
        let store = &self.store;
        let cassandra = match store.kind {
            StoreKind::Cassandra => Some(self.cluster(data)?),
            StoreKind::Sqlite | StoreKind::Memory => None,
        };
        Ok(StoreConfiguration {
            kind: store.kind,
            path: self.store_path(data),
            cassandra,
            credential_cache_lifetime_s: store.credential_cache_lifetime_s,
            credential_cache_max: store.credential_cache_max,
        })
    }

    /// Where the store is, for commands that open it themselves.
    pub(crate) fn store_location(&self, data: &Path) -> Result<StoreLocation> {
        Ok(location(&self.store_configuration(data)?))
    }

    pub(crate) fn cassandra_options(&self, data: &Path) -> Result<CassandraOptions> {
        Ok(options(&self.cluster(data)?))
    }

    pub(crate) fn replication(&self) -> Replication {
        Replication {
            strategy: match self.store.replication_strategy {
                Strategy::NetworkTopology => ReplicationStrategy::NetworkTopology,
                Strategy::Simple => ReplicationStrategy::Simple,
            },
            factor: self.store.replication_factor,
        }
    }

    /// Makes what a store needs before its first query; for files that is nothing.
    ///
    /// # Errors
    ///
    /// A cluster that does not answer or cannot be used.
    pub(crate) fn prepare_store(&self, data: &Path) -> Result<()> {
        if self.store.kind == StoreKind::Cassandra {
            cassandra::init(&self.cassandra_options(data)?, &self.replication())
                .map_err(|error| Exit::Unavailable.because(error))?;
        }
        Ok(())
    }

    fn cluster(&self, data: &Path) -> Result<wire::Cassandra> {
        let store = &self.store;
        let file = |path: &PathBuf| match path.as_os_str().is_empty() {
            true => PathBuf::new(),
            false => data.join(path),
        };
        let password = match store.user.as_str() {
            "" => String::new(),
            _ => {
                let path = data.join(&store.password_file);
                let text = fs::read_to_string(&path).map_err(|error| {
                    let what = format!("store.password_file: {}: {error}", path.display());
                    Exit::Configuration.because(what)
                })?;
                text.lines().next().unwrap_or_default().to_owned()
            }
        };
        Ok(wire::Cassandra {
            contact_points: store.contact_points.clone(),
            keyspace: store.keyspace.clone(),
            datacenter: store.datacenter.clone(),
            user: store.user.clone(),
            password: Secret::new(password),
            tls_ca_file: file(&store.tls_ca_file),
            tls_certificate_file: file(&store.tls_certificate_file),
            tls_key_file: file(&store.tls_key_file),
            read_consistency: store.read_consistency,
            query_timeout_ms: store.query_timeout_ms,
            query_deadline_ms: store.query_deadline_ms,
            queries_in_flight_max: self.limits.store_queries_max,
        })
    }
}

/// Where a node's store is.
pub(crate) fn location(store: &StoreConfiguration) -> StoreLocation {
    match &store.cassandra {
        Some(cluster) => StoreLocation::Cassandra(options(cluster)),
        None if store.kind == StoreKind::Memory => StoreLocation::sqlite_in_memory(&store.path),
        None => StoreLocation::sqlite(&store.path),
    }
}

/// How a node keeps credentials, if it does.
pub(crate) fn cache(store: &StoreConfiguration) -> Option<CacheOptions> {
    let lifetime = Duration::from_secs(u64::from(store.credential_cache_lifetime_s));
    let credentials_max = usize::try_from(store.credential_cache_max).unwrap_or(usize::MAX);
    (!lifetime.is_zero() && credentials_max > 0)
        .then_some(CacheOptions { lifetime, credentials_max })
}

fn options(cluster: &wire::Cassandra) -> CassandraOptions {
    let given = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
    let millis = |millis: u32| Duration::from_millis(u64::from(millis));
    CassandraOptions {
        contact_points: cluster.contact_points.clone(),
        keyspace: cluster.keyspace.clone(),
        datacenter: Some(cluster.datacenter.clone()).filter(|name| !name.is_empty()),
        login: (!cluster.user.is_empty()).then(|| CassandraLogin {
            user: cluster.user.clone(),
            password: cluster.password.expose().to_owned(),
        }),
        tls: given(&cluster.tls_ca_file).map(|ca_file| CassandraTls {
            ca_file,
            identity: given(&cluster.tls_certificate_file).zip(given(&cluster.tls_key_file)),
        }),
        read_consistency: match cluster.read_consistency {
            ReadConsistency::LocalQuorum => cassandra::ReadConsistency::LocalQuorum,
            ReadConsistency::LocalOne => cassandra::ReadConsistency::LocalOne,
        },
        query_timeout: millis(cluster.query_timeout_ms),
        deadline: millis(cluster.query_deadline_ms),
        queries_in_flight_max: usize::try_from(cluster.queries_in_flight_max).unwrap_or(usize::MAX),
    }
}
