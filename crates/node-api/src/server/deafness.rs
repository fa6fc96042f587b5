//! A node that hears nothing for a while: what an operator sees when the way to its control interface
//! is cut, made on purpose (`sipcloud drill cut-metrics`).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use tokio::sync::watch;

use super::problem;

/// Longest time that a node may be deaf, seconds.
const SECONDS_MAX: u64 = 600;

/// How many of those who asked for it still wait for its end.
type Deafness = Arc<watch::Sender<u32>>;

/// Adds `POST /v1/deaf?seconds=N`: for so long no request is answered, this one's repetitions
/// included, and SIP goes on. It ends by itself, since nobody could end it.
pub(super) fn with_deafness(routes: Router) -> Router {
    let deafness: Deafness = Arc::new(watch::channel(0).0);
    routes
        .route("/v1/deaf", post(deafen).with_state(Arc::clone(&deafness)))
        .layer(middleware::from_fn_with_state(deafness, hear))
}

#[derive(Debug, Deserialize)]
struct Length {
    seconds: u64,
}

async fn deafen(
    State(deafness): State<Deafness>,
    length: Result<Query<Length>, QueryRejection>,
) -> Response {
    let seconds = match length {
        Ok(Query(Length { seconds })) if seconds <= SECONDS_MAX => seconds,
        Ok(_) => {
            let why = format!("a node is deaf for {SECONDS_MAX} seconds at most");
            return problem(StatusCode::UNPROCESSABLE_ENTITY, why);
        }
        Err(wrong) => return problem(StatusCode::BAD_REQUEST, wrong),
    };
    tracing::warn!(seconds, "the control interface is deaf, as asked");
    deafness.send_modify(|waiting| *waiting += 1);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        deafness.send_modify(|waiting| *waiting -= 1);
    });
    StatusCode::NO_CONTENT.into_response()
}

/// Lets a request in once the node hears again; most callers have given up by then.
async fn hear(State(deafness): State<Deafness>, request: Request, next: Next) -> Response {
    let mut waiting = deafness.subscribe();
    // The sender lives in the state of this very request.
    let _ = waiting.wait_for(|waiting| *waiting == 0).await;
    next.run(request).await
}
