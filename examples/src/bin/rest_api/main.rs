//! A REST service of the class `async`: axum's routes on the listeners that all workers share.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /notes` | the names of the notes, sorted |
//! | `GET /notes/NAME` | a note |
//! | `PUT /notes/NAME` | writes one; with `If-None-Match: *` only if there is none yet |
//! | `DELETE /notes/NAME` | removes one |
//! | `GET /healthz` | 200, and 503 once the worker is to stop |
//! | `GET /stats` | who answers: pid, slot, generation, and how many requests it has had |
//!
//! Several processes serve, so what a client has written must not be in the memory of one of them: notes are
//! files in the folder `app_data` ([`notes`]). How a kept-alive connection comes to its end when its worker is
//! to stop is in [`connection`].

mod connection;
mod notes;
mod routes;

use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use ph_cli::App;
use ph_core::{AsyncConnection, AsyncWorker, Context, Result};
use tokio::sync::watch;

use connection::Limits;
use notes::Notes;

/// How long a client that is slow may take, unless `app_patience` says otherwise, in seconds.
const PATIENCE: u64 = 10;

/// How long an idle one has for one more request at a stop, unless `app_last_request` does.
const LAST_REQUEST: u64 = 1;

struct RestApi {
    routes: Router,
    limits: Limits,
    /// Word of a stop, for all connections.
    stop: Option<watch::Receiver<()>>,
}

impl RestApi {
    /// The factory: what is a setting comes from the context.
    fn new(ctx: &Context) -> Self {
        let seconds = |key, otherwise| {
            let set = ctx.app(key).and_then(|seconds| seconds.parse().ok());
            Duration::from_secs(set.unwrap_or(otherwise))
        };
        let limits = Limits {
            patience: seconds("patience", PATIENCE),
            last_request: seconds("last_request", LAST_REQUEST),
        };
        let notes = Notes::in_folder(ctx.app("data").unwrap_or("notes"), ctx.worker_id());
        Self { routes: routes::routes(ctx, notes, limits.patience), limits, stop: None }
    }
}

impl AsyncWorker for RestApi {
    async fn init_process(&mut self, ctx: &Context) -> Result {
        Notes::make_folder(ctx.app("data").unwrap_or("notes"))?;
        let (told, stop) = watch::channel(());
        let ctx = ctx.clone();
        tokio::spawn(async move {
            ctx.stopping().await;
            drop(told);
        });
        self.stop = Some(stop);
        Ok(())
    }

    async fn handle_request(&self, _: &Context, connection: Option<AsyncConnection>) -> Result {
        let connection = connection.ok_or("rest_api needs a listener: set bind")?;
        let stop = self.stop.clone().ok_or("init_process was not called")?;
        connection::serve(connection, self.routes.clone(), stop, self.limits).await;
        Ok(())
    }
}

fn main() -> ExitCode {
    App::new("rest_api").async_worker(RestApi::new).main()
}
