//! Names: the records that lead clients to the balancers.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::ProviderError;

/// Serves the zone of the fleet's names.
#[async_trait]
pub trait DnsProvider: Send + Sync {
    /// Replaces the whole zone at once. The same zone again changes nothing.
    ///
    /// # Errors
    ///
    /// See [`ProviderError::is_transient`]; after a failure the earlier zone is still served.
    async fn publish(&self, zone: &Zone) -> Result<(), ProviderError>;

    /// What is served now; `None` before the first [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// See [`ProviderError::is_transient`].
    async fn published(&self) -> Result<Option<Zone>, ProviderError>;

    /// This manager leads no longer: what only one can hold, such as the server's address, is let go,
    /// and nothing is [`published`](Self::published) by it any more. A server elsewhere serves on.
    async fn leave(&self) {}
}

/// The balancers under the names by which clients ask (NAPTR, SRV, A and AAAA follow from it).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Names such as `sip.example.net`; the same balancers stand behind each.
    pub service_names: Vec<String>,
    /// Sorted by name.
    pub balancers: Vec<DnsTarget>,
    /// How long a client may keep an answer.
    pub ttl: Duration,
}

/// One balancer in the zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsTarget {
    /// The label below the service name, such as `balancer-1`.
    pub name: String,
    pub address: IpAddr,
    pub port: u16,
    pub priority: u16,
    pub weight: u16,
}
