//! Which cluster, and how a handle behaves towards it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use store::limits::QUERIES_IN_FLIGHT_MAX;

/// Where the cluster is and how it is used; the defaults suit a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CassandraOptions {
    /// Nodes that are asked first, `host` or `host:port`; the others are learnt from them.
    pub contact_points: Vec<String>,
    pub keyspace: String,
    /// Only nodes of this data centre are asked; `None`: all.
    pub datacenter: Option<String>,
    pub login: Option<CassandraLogin>,
    pub tls: Option<CassandraTls>,
    /// Reads; writes are always LOCAL_QUORUM.
    pub read_consistency: ReadConsistency,
    /// After this time a second node is asked as well, and the first answer counts.
    pub query_timeout: Duration,
    /// After this time the query is given up.
    pub deadline: Duration,
    /// Queries without a fetched completion; one more is refused at once.
    pub queries_in_flight_max: usize,
}

impl Default for CassandraOptions {
    fn default() -> Self {
        Self {
            contact_points: vec!["127.0.40.1".to_owned()],
            keyspace: "sipcloud".to_owned(),
            datacenter: None,
            login: None,
            tls: None,
            read_consistency: ReadConsistency::LocalQuorum,
            query_timeout: Duration::from_millis(200),
            deadline: Duration::from_secs(2),
            queries_in_flight_max: QUERIES_IN_FLIGHT_MAX,
        }
    }
}

impl CassandraOptions {
    /// Whether the name can stand in a statement as it is: letters, digits and underscores.
    #[must_use]
    pub fn is_keyspace_name(name: &str) -> bool {
        name.len() <= 48
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    }
}

/// How many replicas a read asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadConsistency {
    /// A write that was answered is seen by every read.
    LocalQuorum,
    /// One replica: faster, but a registration made a moment ago may be missed.
    LocalOne,
}

/// What the cluster asks of its clients.
#[derive(Clone, PartialEq, Eq)]
pub struct CassandraLogin {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for CassandraLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CassandraLogin({}, …)", self.user)
    }
}

/// Encrypted connections to the cluster; the nodes' certificates are always checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CassandraTls {
    /// Certificates (PEM) of the authorities that sign those of the nodes.
    pub ca_file: PathBuf,
    /// Our own certificate and its key (PEM), if the cluster asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How a keyspace is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    pub strategy: ReplicationStrategy,
    /// Copies of each row; zero: one per node that is there, at most three.
    pub factor: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationStrategy {
    /// Copies in each data centre, or in the one that is named.
    NetworkTopology,
    /// One ring without data centres: for trials.
    Simple,
}
