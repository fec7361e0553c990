//! Hello, world by hyper: one connection, kept for as long as the client keeps it.

use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves it to its end.
pub(crate) async fn serve(connection: impl AsyncRead + AsyncWrite + Unpin) -> hyper::Result<()> {
    let hello = async |_: Request<_>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"Hello, world!"))))
    };
    let http = hyper::server::conn::http1::Builder::new();
    http.serve_connection(TokioIo::new(connection), service_fn(hello)).await
}
