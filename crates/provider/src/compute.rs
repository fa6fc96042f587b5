//! Machines: the seam between the manager and any cloud.

use std::fmt;
use std::net::SocketAddr;

use async_trait::async_trait;
use fleet::InstanceId;

use crate::error::ProviderError;

/// Creates, lists and removes machines of one fleet.
///
/// Every method may be repeated: the manager restarts from [`list`](Self::list) alone
/// (paper §3.5) and does not remember what it asked.
#[async_trait]
pub trait ComputeProvider: Send + Sync {
    /// Where an instance in this slot will be; the same for every machine that is ever in it.
    ///
    /// # Errors
    ///
    /// `NoPlace` if the provider has no such slot. Never transient.
    fn addresses(&self, instance: InstanceId) -> Result<Addresses, ProviderError>;

    /// Asks for one machine; returns when the cloud has accepted, long before it has booted.
    ///
    /// A second call with the same token for the same instance returns the same machine; with
    /// another token it is refused with `SlotTaken` until the first machine is gone.
    ///
    /// # Errors
    ///
    /// See [`ProviderError::is_transient`]; a transient failure may still have created it.
    async fn create(&self, request: &MachineRequest) -> Result<MachineId, ProviderError>;

    /// Every machine of this fleet in any state, including ones we did not expect and ones whose
    /// process is dead and that were not terminated yet.
    ///
    /// # Errors
    ///
    /// A listing that is not complete is an error, never a shorter list.
    async fn list(&self) -> Result<Vec<Machine>, ProviderError>;

    /// Removes a machine. One that is already gone is a success.
    ///
    /// # Errors
    ///
    /// See [`ProviderError::is_transient`].
    async fn terminate(&self, id: &MachineId) -> Result<(), ProviderError>;
}

/// What a machine is made from.
#[derive(Clone, PartialEq, Eq)]
pub struct MachineRequest {
    /// Says which role the machine plays and which slot it takes.
    pub instance: InstanceId,
    /// Makes a repeated request recognisable.
    pub token: String,
    /// Put on the machine before its role starts, readable by the role alone: they hold secrets.
    pub files: Vec<MachineFile>,
    /// Further arguments to the role's command line.
    pub arguments: Vec<String>,
}

/// One file of a [`MachineRequest`].
#[derive(Clone, PartialEq, Eq)]
pub struct MachineFile {
    /// A bare file name, such as `node.json`.
    pub name: String,
    pub content: Vec<u8>,
}

impl fmt::Debug for MachineRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineRequest")
            .field("instance", &self.instance)
            .field("token", &self.token)
            .field("files", &self.files)
            .field("arguments", &self.arguments)
            .finish()
    }
}

impl fmt::Debug for MachineFile {
    /// Without the content, which holds keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineFile")
            .field("name", &self.name)
            .field("bytes", &self.content.len())
            .finish()
    }
}

/// The provider's name for a machine; opaque to us.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(String);

impl MachineId {
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a slot of a tier is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// SIP; of a proxy the first worker, the others on the ports above.
    pub sip: SocketAddr,
    /// The node's control interface.
    pub control: SocketAddr,
}

/// A machine as the provider lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub id: MachineId,
    pub instance: InstanceId,
    pub state: MachineState,
    pub addresses: Addresses,
    /// UNIX milliseconds.
    pub created_at_ms: u64,
}

/// What the provider knows of a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineState {
    /// Accepted, not running yet.
    Booting,
    /// Running; whether its role answers is another matter.
    Running,
    /// Its process is gone for good; it holds its slot until it is terminated.
    Dead,
}

impl MachineState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }
}
