//! The HTTP side of a node and of the manager: who may ask, what is answered.

mod deafness;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use fleet::{InstanceId, StaleGeneration, WEIGHT_MAX};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::wire::{
    DrainAnswer, DrainOrder, DrainRequest, EventsPage, FleetStatus, Membership, NodeStatus, Note,
    Origin, Problem, Secret, WeightAnswer, WeightOrder,
};

/// Largest body that is read: a membership of some ten thousand workers.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest time that one request may take, its body included.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a stop waits for requests in progress.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// Most events in one answer.
const EVENTS_MAX: usize = 1_000;

/// What a node (balancer or proxy) lets its manager do. Calls must return at once.
pub trait NodeHandle: Send + Sync {
    /// The answer to a poll.
    fn status(&self) -> NodeStatus;

    /// The generation in use: what the next manager reads back.
    fn membership(&self) -> Option<fleet::Membership>;

    /// Takes a new generation.
    ///
    /// # Errors
    ///
    /// If it is older than the one in use, empty or altered; the one in use stays.
    fn put_membership(&self, membership: fleet::Membership) -> Result<(), StaleGeneration>;

    /// Starts (`true`) or reverses (`false`) a drain. May be repeated.
    fn drain(&self, on: bool);

    /// Prometheus text.
    fn metrics(&self) -> String;
}

/// What the manager lets the command line and a dashboard do. Calls must return at once.
pub trait ManagerHandle: Send + Sync {
    /// The fleet as of the last round.
    fn fleet(&self) -> FleetStatus;

    /// Journal lines with numbers above `after`, oldest first, at most `limit`.
    fn events(&self, after: u64, limit: usize) -> EventsPage;

    /// Asks that an instance be taken out of service and removed.
    ///
    /// # Errors
    ///
    /// If there is no such instance, or this manager does not lead.
    fn drain(&self, instance: InstanceId, why: &str) -> Result<(), OrderError>;

    /// Takes such a wish back, if nothing has come of it yet.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    fn keep(&self, instance: InstanceId) -> Result<(), OrderError>;

    /// Gives a proxy another share of the calls, in percent of an ordinary one, until it is given
    /// another.
    ///
    /// # Errors
    ///
    /// If there is no such proxy, the weight is not one from 1 to [`WEIGHT_MAX`], or this manager does
    /// not lead.
    fn weigh(&self, instance: InstanceId, weight: u16, why: &str) -> Result<(), OrderError>;

    /// Writes a line into the journal.
    ///
    /// # Errors
    ///
    /// If this manager does not lead: then its journal is another's.
    fn note(&self, text: &str) -> Result<(), OrderError>;

    /// Prometheus text.
    fn metrics(&self) -> String;
}

/// Why the manager does not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("there is no {instance}")]
    Unknown { instance: InstanceId },
    #[error("{instance} has no weight: only proxies do")]
    NoWeight { instance: InstanceId },
    #[error("weight {weight}: expected 1 to {WEIGHT_MAX}; to give {instance} nothing, drain it")]
    Weight { instance: InstanceId, weight: u16 },
    #[error("{} and not this manager", leads(leader))]
    NotLeading { leader: String },
}

fn leads(leader: &str) -> String {
    if leader.is_empty() { "nobody leads".to_owned() } else { format!("{leader} leads") }
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Takes no more requests, finishes those in progress (within two seconds), and returns.
    pub async fn stop(self) {
        // Fails only if the task has ended, which is what is wanted.
        let _ = self.stop.send(true);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(STOP_TIME_MAX, self.task).await.is_err() {
            abort.abort();
        }
    }
}

/// Serves a node's control interface until the server is stopped or dropped. Needs a tokio runtime.
///
/// # Errors
///
/// If the address cannot be bound, or the token is empty.
pub async fn serve(
    listen: SocketAddr,
    token: &Secret,
    origin: &Origin,
    node: Arc<dyn NodeHandle>,
) -> io::Result<Server> {
    let fence = AtomicU64::new(origin.fence);
    let guarded = Arc::new(Guarded { node, build: origin.build.clone(), fence });
    let routes = Router::new()
        .route("/v1/status", get(node_status))
        .route("/v1/membership", get(node_membership_in_use).put(node_membership))
        .route("/v1/drain", post(node_drain).delete(node_undrain))
        .route("/live", get(node_live))
        .route("/ready", get(node_ready))
        .route("/metrics", get(node_metrics))
        .with_state(guarded);
    start(listen, token, deafness::with_deafness(routes)).await
}

/// Serves the manager's interface; see [`serve`].
///
/// # Errors
///
/// As [`serve`].
pub async fn serve_manager(
    listen: SocketAddr,
    token: &Secret,
    manager: Arc<dyn ManagerHandle>,
) -> io::Result<Server> {
    let routes = Router::new()
        .route("/v1/fleet", get(manager_fleet))
        .route("/v1/events", get(manager_events))
        .route("/v1/drain/{instance}", post(manager_drain).delete(manager_keep))
        .route("/v1/weight/{instance}", put(manager_weigh))
        .route("/v1/notes", post(manager_note))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(|| async { "ready\n" }))
        .route("/metrics", get(manager_metrics))
        .with_state(manager);
    start(listen, token, routes).await
}

async fn start(listen: SocketAddr, token: &Secret, routes: Router) -> io::Result<Server> {
    if token.expose().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the control token is empty"));
    }
    let token: Arc<str> = Arc::from(token.expose());
    let app = routes
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such path") })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "the path has no such method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(limit_time))
        // Outermost: without the token nothing else is even looked at.
        .layer(middleware::from_fn_with_state(token, require_token));
    let listener = TcpListener::bind(listen).await?;
    let local_addr = listener.local_addr()?;
    let (stop, mut stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        let until_stopped = async move {
            // An error means that the `Server` was dropped: stop as well.
            let _ = stopped.wait_for(|&stop| stop).await;
        };
        let served = axum::serve(listener, app).with_graceful_shutdown(until_stopped).await;
        if let Err(error) = served {
            tracing::warn!(%error, "the control interface ended");
        }
    });
    Ok(Server { local_addr, stop, task })
}

async fn require_token(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_first_chunk::<7>())
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .map(|(_, given)| given.trim_ascii());
    let is_known = given.is_some_and(|given| given.ct_eq(token.as_bytes()).into());
    if is_known {
        return next.run(request).await;
    }
    let mut refusal = problem(StatusCode::UNAUTHORIZED, "a valid bearer token is required");
    let challenge = header::HeaderValue::from_static("Bearer");
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    refusal
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem(StatusCode::REQUEST_TIMEOUT, "the request took too long"),
    }
}

fn problem(status: StatusCode, error: impl ToString) -> Response {
    (status, Json(Problem { error: error.to_string() })).into_response()
}

/// A node that obeys no manager with a lower fence than one it has heard of, whatever is asked.
struct Guarded {
    node: Arc<dyn NodeHandle>,
    build: String,
    /// The highest that was obeyed, apart from that of the membership in use.
    fence: AtomicU64,
}

impl Guarded {
    /// # Errors
    ///
    /// What a manager that leads no longer is told.
    fn check(&self, fence: u64) -> Result<(), String> {
        let have = self.highest(self.node.membership().map(|in_use| in_use.generation.fence));
        if fence >= have {
            return Ok(());
        }
        Err(format!("fence {fence} is older than {have}: another manager leads"))
    }

    fn highest(&self, in_use: Option<u64>) -> u64 {
        self.fence.load(Ordering::Relaxed).max(in_use.unwrap_or(0))
    }

    fn obeyed(&self, fence: u64) {
        self.fence.fetch_max(fence, Ordering::Relaxed);
    }

    fn status(&self) -> NodeStatus {
        let status = self.node.status();
        let fence = self.highest(status.generation.map(|in_use| in_use.fence));
        NodeStatus { build: self.build.clone(), fence, ..status }
    }

    fn drain(&self, body: &[u8], on: bool) -> Response {
        // A request without a body is one of a release that says no fence.
        let request = match body {
            [] => Ok(DrainRequest::default()),
            body => serde_json::from_slice(body),
        };
        let DrainRequest { fence } = match request {
            Ok(request) => request,
            Err(error) => return problem(StatusCode::BAD_REQUEST, error),
        };
        if let Err(stale) = fence.map_or(Ok(()), |fence| self.check(fence)) {
            return problem(StatusCode::CONFLICT, stale);
        }
        self.obeyed(fence.unwrap_or(0));
        self.node.drain(on);
        Json(DrainAnswer { draining: on }).into_response()
    }
}

type Node = State<Arc<Guarded>>;

async fn node_status(State(node): Node) -> Json<NodeStatus> {
    Json(node.status())
}

async fn node_membership_in_use(State(node): Node) -> Json<Option<Membership>> {
    Json(node.node.membership().as_ref().map(Membership::from))
}

async fn node_membership(State(node): Node, body: Bytes) -> Response {
    let wire: Membership = match serde_json::from_slice(&body) {
        Ok(wire) => wire,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error),
    };
    let fence = wire.generation.fence;
    if let Err(stale) = node.check(fence) {
        return problem(StatusCode::CONFLICT, stale);
    }
    match node.node.put_membership(fleet::Membership::from(&wire)) {
        Ok(()) => {
            node.obeyed(fence);
            Json(node.status()).into_response()
        }
        Err(
            stale @ (StaleGeneration::Older { .. } | StaleGeneration::SameNumberOtherDigest { .. }),
        ) => problem(StatusCode::CONFLICT, stale),
        Err(wrong) => problem(StatusCode::UNPROCESSABLE_ENTITY, wrong),
    }
}

async fn node_drain(State(node): Node, body: Bytes) -> Response {
    node.drain(&body, true)
}

async fn node_undrain(State(node): Node, body: Bytes) -> Response {
    node.drain(&body, false)
}

async fn node_live(State(node): Node) -> Response {
    probe(node.status().live, "live")
}

async fn node_ready(State(node): Node) -> Response {
    probe(node.status().ready, "ready")
}

fn probe(holds: bool, what: &str) -> Response {
    if holds {
        format!("{what}\n").into_response()
    } else {
        problem(StatusCode::SERVICE_UNAVAILABLE, format_args!("not {what}"))
    }
}

async fn node_metrics(State(node): Node) -> Response {
    prometheus(node.node.metrics())
}

fn prometheus(text: String) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

type Manager = State<Arc<dyn ManagerHandle>>;

async fn manager_fleet(State(manager): Manager) -> Json<FleetStatus> {
    Json(manager.fleet())
}

#[derive(Debug, Deserialize)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
}

async fn manager_events(
    State(manager): Manager,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => Json(manager.events(query.after, EVENTS_MAX)).into_response(),
        Err(wrong) => problem(StatusCode::BAD_REQUEST, wrong),
    }
}

async fn manager_drain(State(manager): Manager, Path(name): Path<String>, body: Bytes) -> Response {
    let instance: InstanceId = match name.parse() {
        Ok(instance) => instance,
        Err(wrong) => return problem(StatusCode::BAD_REQUEST, wrong),
    };
    let order: DrainOrder = match &*body {
        [] => DrainOrder::default(),
        body => match serde_json::from_slice(body) {
            Ok(order) => order,
            Err(wrong) => return problem(StatusCode::BAD_REQUEST, wrong),
        },
    };
    taken(manager.drain(instance, &order.why), DrainAnswer { draining: true })
}

async fn manager_keep(State(manager): Manager, Path(name): Path<String>) -> Response {
    match name.parse() {
        Ok(instance) => taken(manager.keep(instance), DrainAnswer { draining: false }),
        Err(wrong) => problem(StatusCode::BAD_REQUEST, wrong),
    }
}

async fn manager_weigh(State(manager): Manager, Path(name): Path<String>, body: Bytes) -> Response {
    let instance: InstanceId = match name.parse() {
        Ok(instance) => instance,
        Err(wrong) => return problem(StatusCode::BAD_REQUEST, wrong),
    };
    match serde_json::from_slice::<WeightOrder>(&body) {
        Ok(WeightOrder { weight, why }) => {
            taken(manager.weigh(instance, weight, &why), WeightAnswer { weight })
        }
        Err(wrong) => problem(StatusCode::BAD_REQUEST, wrong),
    }
}

async fn manager_note(State(manager): Manager, body: Bytes) -> Response {
    match serde_json::from_slice::<Note>(&body) {
        Ok(note) => taken(manager.note(&note.text), note),
        Err(wrong) => problem(StatusCode::BAD_REQUEST, wrong),
    }
}

fn taken(result: Result<(), OrderError>, answer: impl Serialize) -> Response {
    match result {
        Ok(()) => (StatusCode::ACCEPTED, Json(answer)).into_response(),
        Err(unknown @ OrderError::Unknown { .. }) => problem(StatusCode::NOT_FOUND, unknown),
        Err(wrong @ (OrderError::NoWeight { .. } | OrderError::Weight { .. })) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, wrong)
        }
        Err(standby @ OrderError::NotLeading { .. }) => problem(StatusCode::CONFLICT, standby),
    }
}

async fn manager_metrics(State(manager): Manager) -> Response {
    prometheus(manager.metrics())
}

#[cfg(test)]
mod tests;
