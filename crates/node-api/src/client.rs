//! The asking side: every call has a deadline and a limit on what it reads.

use std::net::SocketAddr;
use std::time::Duration;

use fleet::InstanceId;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{
    DrainAnswer, DrainOrder, DrainRequest, EventsPage, FleetStatus, Membership, NodeStatus, Note,
    Problem, Secret, WeightAnswer, WeightOrder,
};

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a node or the manager did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error("{address} did not answer within {timeout_ms} ms")]
    TimedOut { address: SocketAddr, timeout_ms: u64 },
    #[error("{address} cannot be reached: {why}")]
    Unreachable { address: SocketAddr, why: String },
    #[error("{address} refused with {status}: {why}")]
    Refused { address: SocketAddr, status: u16, why: String },
    #[error("{address} gave an answer that cannot be read: {why}")]
    Answer { address: SocketAddr, why: String },
}

impl ClientError {
    /// Whether a repeat is worthwhile.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Answer { .. } => false,
        }
    }
}

/// Asks one node.
#[derive(Clone, Debug)]
pub struct NodeClient {
    caller: Caller,
}

impl NodeClient {
    /// Connections are kept between calls; `timeout` holds for each call as a whole.
    ///
    /// # Errors
    ///
    /// If no HTTP client can be made on this machine.
    pub fn new(
        address: SocketAddr,
        token: &Secret,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        Caller::new(address, token, timeout).map(|caller| Self { caller })
    }

    /// The same client for another node: connections, token and timeout are shared.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { caller: Caller { address, ..self.caller.clone() } }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.caller.address
    }

    /// Polls the node.
    ///
    /// # Errors
    ///
    /// See [`ClientError::is_transient`]; so for every call here.
    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        self.caller.call(Method::GET, "/v1/status", None).await
    }

    /// The generation that the node works with, if it has one.
    ///
    /// # Errors
    ///
    /// See [`ClientError::is_transient`].
    pub async fn membership(&self) -> Result<Option<fleet::Membership>, ClientError> {
        let wire: Option<Membership> =
            self.caller.call(Method::GET, "/v1/membership", None).await?;
        Ok(wire.as_ref().map(fleet::Membership::from))
    }

    /// Gives the node a generation; the answer shows which one it uses.
    ///
    /// # Errors
    ///
    /// `Refused` with 409 if the node has a newer one.
    pub async fn put_membership(
        &self,
        membership: &fleet::Membership,
    ) -> Result<NodeStatus, ClientError> {
        let body = self.caller.json(&Membership::from(membership))?;
        self.caller.call(Method::PUT, "/v1/membership", Some(body)).await
    }

    /// Starts or reverses a drain, in the name of the manager with this fence.
    ///
    /// # Errors
    ///
    /// `Refused` with 409 if the node has heard of a higher fence.
    pub async fn drain(&self, on: bool, fence: u64) -> Result<DrainAnswer, ClientError> {
        let method = if on { Method::POST } else { Method::DELETE };
        let body = self.caller.json(&DrainRequest { fence: Some(fence) })?;
        self.caller.call(method, "/v1/drain", Some(body)).await
    }

    /// Makes the node's control interface deaf for some time; its SIP goes on. For drills.
    ///
    /// # Errors
    ///
    /// `Refused` with 422 if it would be more than ten minutes.
    pub async fn deafen(&self, time: Duration) -> Result<(), ClientError> {
        let path = format!("/v1/deaf?seconds={}", time.as_secs());
        self.caller.bytes(Method::POST, &path, None).await.map(drop)
    }

    /// Prometheus text.
    ///
    /// # Errors
    ///
    /// See [`ClientError::is_transient`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.caller.text("/metrics").await
    }
}

/// Asks the manager.
#[derive(Clone, Debug)]
pub struct ManagerClient {
    caller: Caller,
}

impl ManagerClient {
    /// See [`NodeClient::new`].
    ///
    /// # Errors
    ///
    /// If no HTTP client can be made on this machine.
    pub fn new(
        address: SocketAddr,
        token: &Secret,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        Caller::new(address, token, timeout).map(|caller| Self { caller })
    }

    /// The fleet as of the last round.
    ///
    /// # Errors
    ///
    /// See [`ClientError::is_transient`].
    pub async fn fleet(&self) -> Result<FleetStatus, ClientError> {
        self.caller.call(Method::GET, "/v1/fleet", None).await
    }

    /// Journal lines with numbers above `after`, oldest first.
    ///
    /// # Errors
    ///
    /// See [`ClientError::is_transient`].
    pub async fn events(&self, after: u64) -> Result<EventsPage, ClientError> {
        self.caller.call(Method::GET, &format!("/v1/events?after={after}"), None).await
    }

    /// Asks that an instance be taken out of service and removed.
    ///
    /// # Errors
    ///
    /// `Refused` with 404 if there is no such instance, 409 if it is not in service or this manager
    /// does not lead.
    pub async fn drain(&self, instance: InstanceId, why: &str) -> Result<DrainAnswer, ClientError> {
        let body = self.caller.json(&DrainOrder { why: why.to_owned() })?;
        self.caller.call(Method::POST, &format!("/v1/drain/{instance}"), Some(body)).await
    }

    /// Takes such a wish back, if the instance still serves.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    pub async fn keep(&self, instance: InstanceId) -> Result<DrainAnswer, ClientError> {
        self.caller.call(Method::DELETE, &format!("/v1/drain/{instance}"), None).await
    }

    /// Gives a proxy another share of the calls, percent of an ordinary one.
    ///
    /// # Errors
    ///
    /// `Refused` with 404 if there is no such instance, 422 if it is no proxy or no such weight, 409 if
    /// this manager does not lead.
    pub async fn weigh(
        &self,
        instance: InstanceId,
        weight: u16,
        why: &str,
    ) -> Result<WeightAnswer, ClientError> {
        let body = self.caller.json(&WeightOrder { weight, why: why.to_owned() })?;
        self.caller.call(Method::PUT, &format!("/v1/weight/{instance}"), Some(body)).await
    }

    /// Writes a line into the journal.
    ///
    /// # Errors
    ///
    /// `Refused` with 409 if this manager does not lead.
    pub async fn note(&self, text: &str) -> Result<Note, ClientError> {
        let body = self.caller.json(&Note { text: text.to_owned() })?;
        self.caller.call(Method::POST, "/v1/notes", Some(body)).await
    }

    /// Prometheus text.
    ///
    /// # Errors
    ///
    /// See [`ClientError::is_transient`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.caller.text("/metrics").await
    }
}

#[derive(Clone, Debug)]
struct Caller {
    address: SocketAddr,
    token: Secret,
    timeout: Duration,
    http: reqwest::Client,
}

impl Caller {
    fn new(address: SocketAddr, token: &Secret, timeout: Duration) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            // The fleet's own addresses never go through somebody's web proxy.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeout)
            .timeout(timeout)
            .build()
            .map_err(|error| ClientError::Unreachable { address, why: error.to_string() })?;
        Ok(Self { address, token: token.clone(), timeout, http })
    }

    fn json(&self, body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
        serde_json::to_vec(body)
            .map_err(|error| ClientError::Answer { address: self.address, why: error.to_string() })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ClientError::Answer { address: self.address, why: error.to_string() })
    }

    async fn text(&self, path: &str) -> Result<String, ClientError> {
        let bytes = self.bytes(Method::GET, path, None).await?;
        String::from_utf8(bytes)
            .map_err(|error| ClientError::Answer { address: self.address, why: error.to_string() })
    }

    async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, ClientError> {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.http.request(method, url).bearer_auth(self.token.expose());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let mut response = request.send().await.map_err(|error| self.failure(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                let why = format!("longer than {ANSWER_BYTES_MAX} bytes");
                return Err(ClientError::Answer { address: self.address, why });
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(bytes);
        }
        let why = serde_json::from_slice::<Problem>(&bytes)
            .map_or_else(|_| "no reason given".to_owned(), |problem| problem.error);
        Err(ClientError::Refused { address: self.address, status: status.as_u16(), why })
    }

    fn failure(&self, error: &reqwest::Error) -> ClientError {
        let address = self.address;
        if error.is_timeout() {
            let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
            return ClientError::TimedOut { address, timeout_ms };
        }
        // The innermost cause ("connection refused") says more than reqwest's own text.
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        ClientError::Unreachable { address, why: cause.to_string() }
    }
}
