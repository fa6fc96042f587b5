//! The manager's way to its nodes, as a seam for tests.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use fleet::Membership;
use node_api::wire::{NodeStatus, Secret};
use node_api::{ClientError, NodeClient};

/// What the manager asks of a node, by the address of its control interface.
#[async_trait]
pub trait NodeAccess: Send + Sync {
    /// Polls the node.
    ///
    /// # Errors
    ///
    /// Those of [`ClientError`]; so for every method.
    async fn status(&self, control: SocketAddr) -> Result<NodeStatus, ClientError>;

    /// The generation that the node works with, if it has one.
    ///
    /// # Errors
    ///
    /// Those of [`ClientError`].
    async fn membership(&self, control: SocketAddr) -> Result<Option<Membership>, ClientError>;

    /// Gives the node a generation.
    ///
    /// # Errors
    ///
    /// `Refused` if it has a newer one.
    async fn put_membership(
        &self,
        control: SocketAddr,
        membership: &Membership,
    ) -> Result<(), ClientError>;

    /// Starts or reverses a drain, in the name of the manager with this fence.
    ///
    /// # Errors
    ///
    /// `Refused` if it has heard of a higher fence.
    async fn drain(&self, control: SocketAddr, on: bool, fence: u64) -> Result<(), ClientError>;
}

/// Nodes over HTTP.
#[derive(Clone, Debug)]
pub struct HttpNodes {
    client: NodeClient,
}

impl HttpNodes {
    /// # Errors
    ///
    /// If no HTTP client can be made on this machine.
    pub fn new(token: &Secret, timeout: Duration) -> Result<Self, ClientError> {
        // Replaced by each call's own address.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        NodeClient::new(nowhere, token, timeout).map(|client| Self { client })
    }
}

#[async_trait]
impl NodeAccess for HttpNodes {
    async fn status(&self, control: SocketAddr) -> Result<NodeStatus, ClientError> {
        self.client.at(control).status().await
    }

    async fn membership(&self, control: SocketAddr) -> Result<Option<Membership>, ClientError> {
        self.client.at(control).membership().await
    }

    async fn put_membership(
        &self,
        control: SocketAddr,
        membership: &Membership,
    ) -> Result<(), ClientError> {
        self.client.at(control).put_membership(membership).await.map(|_| ())
    }

    async fn drain(&self, control: SocketAddr, on: bool, fence: u64) -> Result<(), ClientError> {
        self.client.at(control).drain(on, fence).await.map(|_| ())
    }
}
