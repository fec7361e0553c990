//! The life of one connection: HTTP/1.1, kept alive, and its end.
//!
//! When the worker is to stop, every answer says `Connection: close` from then on ([`routes`](super::routes)
//! sees to that), and is the last one of its connection. A connection that is idle has
//! [`Limits::last_request`] for one more request, because to close it at once would cross with a request that is on its way. No connection
//! is reset: whoever closes first says so and reads on until the other has closed too, since a socket that is
//! closed with something unread in it makes the kernel send a reset, which overtakes the answer.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ph_core::AsyncConnection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For a request, and for the next one.
    pub(crate) patience: Duration,
    /// For one more request on an idle connection whose worker is to stop.
    pub(crate) last_request: Duration,
}

/// How long a client may take to close its side after this one did.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves a connection until either side wants no more of it.
pub(crate) async fn serve(
    mut connection: AsyncConnection,
    routes: Router,
    stop: watch::Receiver<()>,
    limits: Limits,
) {
    let peer = connection.peer();
    if let Err(error) = converse(&mut connection, routes, stop, limits).await {
        tracing::debug!("the connection of {peer} ended early: {error}");
    }
    let _ = timeout(LAST_WORDS, close(&mut connection)).await;
}

async fn converse(
    connection: &mut AsyncConnection,
    routes: Router,
    mut stop: watch::Receiver<()>,
    limits: Limits,
) -> hyper::Result<()> {
    let mut http = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.patience)
            .serve_connection(TokioIo::new(connection), TowerToHyperService::new(routes))
    );
    let last_request = async {
        // The sender says nothing, it only ceases to be.
        let _ = stop.changed().await;
        sleep(limits.last_request).await;
    };
    tokio::select! {
        done = &mut http => return done,
        () = last_request => {}
    }
    http.as_mut().graceful_shutdown();
    // A request has its end; a client that does not read its answer needs one too.
    timeout(limits.patience * 2, http).await.unwrap_or(Ok(()))
}

/// Says that nothing more comes, and waits for the other to say so.
async fn close(connection: &mut AsyncConnection) -> std::io::Result<()> {
    connection.shutdown().await?;
    let mut unread = [0; 4096];
    while connection.read(&mut unread).await? > 0 {}
    Ok(())
}
