//! What a node starts from: one file with everything that it cannot find out by itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use fleet::{FleetKey, FleetKeys, InstanceId};
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::text;

/// The file `node.json`. The tier of `instance` says which role the node plays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeConfiguration {
    #[serde(with = "text")]
    pub instance: InstanceId,
    pub sip: SipAddresses,
    /// Proxy: workers, each on its own port from that of `sip.internal` upward. Balancer: threads.
    /// Zero: one per core.
    pub workers: u16,
    pub control: Control,
    pub keys: Keys,
    /// Domains whose users are served here.
    pub domains: Vec<String>,
    /// Names by which clients find the tier; they lead to the balancers.
    pub service_names: Vec<String>,
    pub store: StoreConfiguration,
    #[serde(default)]
    pub timers: Timers,
    #[serde(default)]
    pub limits: Limits,
    /// How a balancer finds out which proxies are dead.
    #[serde(default)]
    pub probing: Probing,
    #[serde(default)]
    pub registration: Registration,
    #[serde(default)]
    pub digest: Digest,
    /// Addresses or networks (`192.0.2.7`, `192.0.2.0/24`) that are not challenged.
    #[serde(default)]
    pub trusted_trunks: Vec<String>,
    /// Whether callers of foreign domains reach registered users.
    #[serde(default)]
    pub foreign_callers: bool,
    /// What a proxy is trusted with, calls per second.
    pub capacity_cps: u32,
    /// Largest message that travels by UDP between the tiers, bytes.
    #[serde(default = "internal_mtu_default")]
    pub internal_mtu_bytes: u32,
    /// Rows of the table, a power of two.
    #[serde(default = "rows_default")]
    pub rows: u32,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub origin: Origin,
}

/// Who made the node, and of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Fence of the manager that made it: none with a lower one is obeyed.
    pub fence: u64,
    /// Names the binary that it runs.
    pub build: String,
}

const fn internal_mtu_default() -> u32 {
    1_400
}

const fn rows_default() -> u32 {
    fleet::ROWS_DEFAULT
}

/// Where a node speaks SIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SipAddresses {
    /// What the other tier uses. Of a proxy: the first worker's address.
    pub internal: SocketAddr,
    /// What clients see; for a proxy the same as `internal`.
    pub advertised: SocketAddr,
    /// Further addresses to listen on.
    #[serde(default)]
    pub extra: Vec<SocketAddr>,
}

/// The node's control interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    pub listen: SocketAddr,
    pub token: Secret,
}

/// The fleet's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    pub keys: Vec<Key>,
    /// Id of the key that signs.
    pub signing: u8,
}

/// One key; the secret is 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub id: u8,
    pub secret: Secret,
}

/// A set of keys that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("key {id}: expected 64 hexadecimal digits")]
    Secret { id: u8 },
    #[error("key {id} is given twice")]
    Twice { id: u8 },
    #[error("the signing key {id} is not among the keys")]
    NoSigningKey { id: u8 },
}

impl From<&FleetKeys> for Keys {
    fn from(keys: &FleetKeys) -> Self {
        let key = |key: &FleetKey| Key { id: key.id, secret: Secret::new(text::hex(&key.secret)) };
        Self { keys: keys.keys.iter().map(key).collect(), signing: keys.signing }
    }
}

impl TryFrom<&Keys> for FleetKeys {
    type Error = KeyError;

    fn try_from(wire: &Keys) -> Result<Self, KeyError> {
        let mut keys = Self { keys: Vec::with_capacity(wire.keys.len()), signing: wire.signing };
        for key in &wire.keys {
            let id = key.id;
            let secret = text::unhex(key.secret.expose()).ok_or(KeyError::Secret { id })?;
            if keys.key(id).is_some() {
                return Err(KeyError::Twice { id });
            }
            keys.keys.push(FleetKey { id, secret });
        }
        match keys.signing_key() {
            Some(_) => Ok(keys),
            None => Err(KeyError::NoSigningKey { id: wire.signing }),
        }
    }
}

/// Which store, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreConfiguration {
    pub kind: StoreKind,
    /// The file; for `memory` a file that is gone after the run.
    pub path: PathBuf,
    /// The cluster, for `cassandra`.
    #[serde(default)]
    pub cassandra: Option<Cassandra>,
    /// How long a worker believes a credential; zero: it asks each time.
    #[serde(default)]
    pub credential_cache_lifetime_s: u32,
    #[serde(default)]
    pub credential_cache_max: u32,
}

impl StoreConfiguration {
    /// A file, and no cache.
    pub fn file(kind: StoreKind, path: impl Into<PathBuf>) -> Self {
        Self {
            kind,
            path: path.into(),
            cassandra: None,
            credential_cache_lifetime_s: 0,
            credential_cache_max: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    Sqlite,
    Memory,
    Cassandra,
}

/// A Cassandra cluster as its clients find it. Empty text and paths mean "none".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cassandra {
    /// `host` or `host:port`.
    pub contact_points: Vec<String>,
    pub keyspace: String,
    pub datacenter: String,
    pub user: String,
    pub password: Secret,
    pub tls_ca_file: PathBuf,
    pub tls_certificate_file: PathBuf,
    pub tls_key_file: PathBuf,
    pub read_consistency: ReadConsistency,
    /// After it a second node is asked as well.
    pub query_timeout_ms: u32,
    /// After it a query is given up.
    pub query_deadline_ms: u32,
    pub queries_in_flight_max: u32,
}

/// How many replicas a read asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadConsistency {
    LocalQuorum,
    LocalOne,
}

/// SIP timers (RFC 3261 table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timers {
    pub t1_ms: u32,
    pub t2_ms: u32,
    pub t4_ms: u32,
    /// How long an INVITE may ring.
    pub timer_c_ms: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Self { t1_ms: 500, t2_ms: 4_000, t4_ms: 5_000, timer_c_ms: 180_000 }
    }
}

/// What a node refuses to exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Transactions of one worker.
    pub transactions_max: u32,
    /// Stream connections of a node.
    pub streams_max: u32,
    /// Store queries of a node that wait for an answer.
    pub store_queries_max: u32,
    /// Receive and send buffer of a UDP socket, bytes.
    pub socket_buffer_bytes: u32,
    /// What a balancer keeps for peers on streams: requests until they are answered, and as many
    /// bytes of responses.
    pub kept_bytes_max: u32,
    /// Connections of clients that a draining balancer closes in a second; zero: none.
    pub drain_streams_per_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transactions_max: 200_000,
            streams_max: 20_000,
            store_queries_max: 10_000,
            socket_buffer_bytes: 4 * 1024 * 1024,
            kept_bytes_max: 32 * 1024 * 1024,
            drain_streams_per_s: 20,
        }
    }
}

/// How a balancer finds out which proxies are dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probing {
    /// From one probe of a proxy to the next.
    pub interval_ms: u32,
    /// Unanswered probes in a row that make a proxy suspect.
    pub suspect_missed: u32,
    /// And that make it dead, if another proxy answers.
    pub dead_missed: u32,
}

impl Default for Probing {
    fn default() -> Self {
        Self { interval_ms: 200, suspect_missed: 2, dead_missed: 10 }
    }
}

/// What the registrar grants (RFC 3261 §10.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registration {
    pub expires_min_s: u32,
    pub expires_default_s: u32,
    pub expires_max_s: u32,
    /// Bindings of one address-of-record.
    pub contacts_max: u16,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            expires_min_s: 60,
            expires_default_s: 3_600,
            expires_max_s: 86_400,
            contacts_max: 10,
        }
    }
}

/// How users are challenged (RFC 3261 §22, RFC 8760).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Digest {
    /// Offered in this order: `MD5`, `SHA-256`, `SHA-512-256`.
    pub algorithms: Vec<String>,
    pub nonce_lifetime_s: u32,
    /// Methods that are challenged inside a dialog; outside one every request of a served domain
    /// is, and ACK and CANCEL never are.
    pub dialog_methods: Vec<String>,
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            algorithms: vec!["MD5".to_owned()],
            nonce_lifetime_s: 300,
            dialog_methods: ["INVITE", "BYE"].map(str::to_owned).to_vec(),
        }
    }
}

/// What a node logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// A level or a filter such as `info,proxy=debug`.
    pub filter: String,
    /// One JSON object per line instead of text.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: false }
    }
}
