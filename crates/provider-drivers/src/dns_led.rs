//! The embedded DNS server of whichever manager leads: opened with the first zone that it publishes,
//! closed when it leads no longer, so that the next one can have the address.

use std::net::SocketAddr;

use async_trait::async_trait;
use provider::{DnsProvider, ProviderError, Zone};
use tokio::sync::Mutex;

use crate::dns_embedded::EmbeddedDns;

/// A server that is there while this manager leads.
pub struct LedDns {
    listen: SocketAddr,
    /// The serial of the first zone, which must not fall from one leader to the next: UNIX seconds.
    first_serial: fn() -> u32,
    server: Mutex<Option<EmbeddedDns>>,
}

impl LedDns {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(listen: SocketAddr, first_serial: fn() -> u32) -> Self {
        Self { listen, first_serial, server: Mutex::new(None) }
    }
}

#[async_trait]
impl DnsProvider for LedDns {
    async fn publish(&self, zone: &Zone) -> Result<(), ProviderError> {
        let mut server = self.server.lock().await;
        let open = match server.take() {
            Some(open) => open,
            None => {
                let started = EmbeddedDns::start(self.listen, (self.first_serial)()).await;
                started.map_err(|error| ProviderError::Unavailable {
                    why: format!("the DNS server cannot listen on {}: {error}", self.listen),
                })?
            }
        };
        server.insert(open).publish(zone).await
    }

    async fn published(&self) -> Result<Option<Zone>, ProviderError> {
        match &*self.server.lock().await {
            Some(server) => server.published().await,
            None => Ok(None),
        }
    }

    async fn leave(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_names_keep_the_contract() {
        let listen = SocketAddr::from(([127, 3, 9, 1], 0));
        provider::contract::dns(&LedDns::new(listen, || 1)).await;
    }

    /// Two managers, one address: who leads has it, and the next one gets it.
    #[tokio::test]
    async fn the_address_goes_from_one_leader_to_the_next() {
        let listen = SocketAddr::from(([127, 3, 9, 2], 5300));
        let (one, other) = (LedDns::new(listen, || 1), LedDns::new(listen, || 2));
        let zone = Zone {
            service_names: vec!["sip.example.net".to_owned()],
            balancers: Vec::new(),
            ttl: Duration::from_secs(30),
        };
        one.publish(&zone).await.expect("it leads");
        let taken = other.publish(&zone).await.expect_err("the address is taken");
        assert!(taken.is_transient(), "{taken}");
        assert_eq!(other.published().await, Ok(None));
        one.leave().await;
        assert_eq!(one.published().await, Ok(None));
        other.publish(&zone).await.expect("now it leads");
        assert_eq!(other.published().await, Ok(Some(zone)));
        other.leave().await;
    }
}
