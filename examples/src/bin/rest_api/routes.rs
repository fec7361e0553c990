//! What is answered to which request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{CONNECTION, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use ph_core::Context;
use serde_json::json;

use crate::notes::{Name, Notes, Written};

/// The longest note.
const NOTE_AT_MOST: usize = 64 * 1024;

/// The most names in one answer.
const NAMES_AT_MOST: usize = 1000;

/// What all requests of a worker share.
struct Shared {
    ctx: Context,
    notes: Notes,
    requests: AtomicU64,
    patience: Duration,
}

/// A request that cannot be answered as it was meant: what went wrong, for the client.
type Refused = (StatusCode, String);

/// The service. `patience` is how long a request may take, its body included.
pub(crate) fn routes(ctx: &Context, notes: Notes, patience: Duration) -> Router {
    let shared =
        Arc::new(Shared { ctx: ctx.clone(), notes, requests: AtomicU64::new(0), patience });
    Router::new()
        .route("/notes", get(list))
        .route("/notes/{name}", get(read).put(write).delete(remove))
        .route("/healthz", get(health))
        .route("/stats", get(stats))
        .layer(DefaultBodyLimit::max(NOTE_AT_MOST))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), around))
        .with_state(shared)
}

/// What every request has in common: it is counted, it has an end, and the last one of a connection says so.
async fn around(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let answered = tokio::time::timeout(shared.patience, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response());
    if !shared.ctx.running() || response.status() == StatusCode::REQUEST_TIMEOUT {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn list(State(shared): State<Arc<Shared>>) -> Result<Response, Refused> {
    let (names, has_more) = on_disk(&shared, |notes| notes.names(NAMES_AT_MOST)).await?;
    Ok(Json(json!({ "notes": names, "more": has_more })).into_response())
}

async fn read(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let name = named(&name)?;
    match on_disk(&shared, move |notes| notes.read(&name)).await? {
        Some(text) => Ok(text.into_response()),
        None => Err(not_there()),
    }
}

async fn write(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    text: Bytes,
) -> Result<StatusCode, Refused> {
    let name = named(&name)?;
    let must_be_new = headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*");
    match on_disk(&shared, move |notes| notes.write(&name, &text, must_be_new)).await? {
        Written::Done => Ok(StatusCode::NO_CONTENT),
        Written::ThereIsOne => {
            Err((StatusCode::PRECONDITION_FAILED, "there is one of this name\n".to_owned()))
        }
    }
}

async fn remove(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    let name = named(&name)?;
    if on_disk(&shared, move |notes| notes.remove(&name)).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_there())
    }
}

async fn health(State(shared): State<Arc<Shared>>) -> StatusCode {
    if shared.ctx.running() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn stats(State(shared): State<Arc<Shared>>) -> Response {
    let ctx = &shared.ctx;
    let stats = json!({
        "pid": ctx.pid(),
        "slot": ctx.slot(),
        "generation": ctx.generation(),
        "requests": shared.requests.load(Ordering::Relaxed),
    });
    Json(stats).into_response()
}

fn named(name: &str) -> Result<Name, Refused> {
    let rule = "a name has 1 to 64 of a-z, 0-9, - and _\n";
    Name::of(name).ok_or_else(|| (StatusCode::BAD_REQUEST, rule.to_owned()))
}

fn not_there() -> Refused {
    (StatusCode::NOT_FOUND, "there is no note of this name\n".to_owned())
}

/// Reads or writes files on a thread for what blocks: here it would hold up every other request.
async fn on_disk<T: Send + 'static>(
    shared: &Shared,
    act: impl FnOnce(Notes) -> std::io::Result<T> + Send + 'static,
) -> Result<T, Refused> {
    let notes = shared.notes.clone();
    let done = tokio::task::spawn_blocking(move || act(notes)).await;
    let failed = |error: std::io::Error| {
        tracing::error!("notes: {error}");
        (StatusCode::INTERNAL_SERVER_ERROR, "the notes cannot be had\n".to_owned())
    };
    done.map_err(std::io::Error::other).flatten().map_err(failed)
}
