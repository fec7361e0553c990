//! The class `async`: a tokio runtime of one thread, made in the child, on which each connection is a task.
//!
//! The thread is the process's only one, so the heartbeat is a task like the others: code that blocks the
//! runtime silences it, and the master sees that the worker is stuck.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::acceptor::Acceptor;
use super::boot::live;
use super::class::Class;
use super::queue::Queue;
use super::serve::ACCEPT_PAUSE;
use super::{Connection, Context, Listener, Peer, Result};

/// The life of a worker process of the class `async`: as of a [`Worker`](super::Worker), but the requests
/// are tasks of a tokio runtime, as many at a time as
/// [`worker_connections`](crate::Master::worker_connections) says.
///
/// The runtime has one thread, the process's own. Whatever blocks it holds up all tasks, and the heartbeat.
pub trait AsyncWorker: Send + Sync {
    /// As [`Worker::preload`](super::Worker::preload).
    ///
    /// # Errors
    ///
    /// As there.
    fn preload(app: &BTreeMap<String, String>) -> Result
    where
        Self: Sized,
    {
        let _ = app;
        Ok(())
    }

    /// First call: make what the process needs for itself.
    ///
    /// # Errors
    ///
    /// Whatever keeps this worker from booting.
    fn setup(&mut self, ctx: &Context) -> impl Future<Output = Result> {
        let _ = ctx;
        async { Ok(()) }
    }

    /// Second call: open what the requests need. The worker is ready when it has finished.
    ///
    /// # Errors
    ///
    /// Whatever keeps this worker from booting.
    fn init_process(&mut self, ctx: &Context) -> impl Future<Output = Result> {
        let _ = ctx;
        async { Ok(()) }
    }

    /// One request: a connection where the master has listeners, each in a task of its own; else one turn of
    /// the job loop (`None`), of which there is one at a time. When the worker is to stop, connections that
    /// are there may be finished: [`Context::stopping`] says when to begin with that.
    ///
    /// # Errors
    ///
    /// With a connection the error is logged, the connection closed, and the worker lives on. A job
    /// turn that fails ends the worker with exit code 1, and the master starts another one.
    fn handle_request(
        &self,
        ctx: &Context,
        connection: Option<AsyncConnection>,
    ) -> impl Future<Output = Result> + Send;

    /// Last call, after the last request has finished.
    fn stop(&self, ctx: &Context) -> impl Future<Output = ()> {
        let _ = ctx;
        async {}
    }
}

/// A connection for tasks. It is closed when it is dropped.
#[derive(Debug)]
pub enum AsyncConnection {
    /// Over TCP.
    Tcp(tokio::net::TcpStream, SocketAddr),
    /// Over a Unix socket.
    Unix(tokio::net::UnixStream),
}

impl AsyncConnection {
    /// Of one that does not block.
    fn of(connection: Connection) -> io::Result<Self> {
        Ok(match connection {
            Connection::Tcp(stream, peer) => {
                Self::Tcp(tokio::net::TcpStream::from_std(stream)?, peer)
            }
            Connection::Unix(stream) => Self::Unix(tokio::net::UnixStream::from_std(stream)?),
        })
    }

    /// The client.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match self {
            Self::Tcp(_, address) => Peer::Tcp(*address),
            Self::Unix(_) => Peer::Local,
        }
    }
}

impl AsyncRead for AsyncConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream, _) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for AsyncConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream, _) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream, _) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Context {
    /// Comes when the worker is to stop. To be awaited on the runtime of a worker of the class `async`.
    ///
    /// # Panics
    ///
    /// Elsewhere than on a tokio runtime.
    pub async fn stopping(&self) {
        if self.own().signals.stop_asked() {
            return;
        }
        match self.own().stop_watch.of_runtime(self.own().signals.stop_pipe()) {
            // What is in it stays there, for everybody.
            Ok(pipe) => drop(pipe.readable().await),
            // Without a descriptor to spare it is looked at instead.
            Err(_) => {
                while !self.own().signals.stop_asked() {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits; ends early when the worker is to stop. Says whether to go on. What
    /// [`sleep`](Self::sleep) is for threads.
    ///
    /// # Panics
    ///
    /// Elsewhere than on a tokio runtime.
    pub async fn pause(&self, duration: Duration) -> bool {
        let stopping = std::pin::pin!(self.stopping());
        let _ = tokio::time::timeout(duration, stopping).await;
        self.running()
    }
}

/// What tells the tasks of a runtime that the worker is to stop: one descriptor for all of them.
#[derive(Debug, Default)]
pub(super) struct StopWatch(Mutex<Option<(runtime::Id, Arc<pipe::Receiver>)>>);

impl StopWatch {
    /// That of the runtime this is called on. Of a worker with several, the last one's is kept.
    fn of_runtime(&self, stop_pipe: impl AsFd) -> io::Result<Arc<pipe::Receiver>> {
        let current = runtime::Handle::current().id();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pipe)) = known.as_ref().filter(|(runtime, _)| *runtime == current) {
            return Ok(Arc::clone(pipe));
        }
        let pipe = stop_pipe.as_fd().try_clone_to_owned();
        let pipe = Arc::new(pipe.and_then(pipe::Receiver::from_owned_fd)?);
        *known = Some((current, Arc::clone(&pipe)));
        Ok(pipe)
    }
}

/// The class, by what makes its workers.
pub(crate) struct AsyncClass<F>(pub(crate) F);

impl<W: AsyncWorker + 'static, F: Fn(&Context) -> W> Class for AsyncClass<F> {
    fn preload(&self, app: &BTreeMap<String, String>) -> Result {
        W::preload(app)
    }

    fn live(&self, ctx: &Context, listeners: &[&Listener], on_booted: &mut dyn FnMut()) -> u8 {
        let boot = || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.spawn(keep_beating(ctx.clone()));
            let worker = runtime.block_on(async {
                let mut worker = (self.0)(ctx);
                worker.setup(ctx).await?;
                worker.init_process(ctx).await.map(|()| worker)
            })?;
            Ok((runtime, worker))
        };
        live(ctx, boot, on_booted, |(runtime, worker)| {
            let worker = Arc::new(worker);
            let done = runtime.block_on(async {
                let done = serve(&worker, ctx, listeners).await;
                worker.stop(ctx).await;
                done
            });
            // Whatever somebody has left on threads for what blocks is not waited for.
            runtime.shutdown_background();
            done
        })
    }
}

async fn keep_beating(ctx: Context) {
    while let Some(every) = ctx.own().beat_every {
        ctx.beat();
        tokio::time::sleep(every).await;
    }
}

async fn serve<W>(worker: &Arc<W>, ctx: &Context, listeners: &[&Listener]) -> Result
where
    W: AsyncWorker + 'static,
{
    if listeners.is_empty() {
        while ctx.running() {
            worker.handle_request(ctx, None).await?;
            ctx.count_request();
        }
        return Ok(());
    }
    let most = ctx.worker_connections().clamp(1, Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(most));
    let begin = |connection, place| match AsyncConnection::of(connection) {
        Ok(connection) => {
            drop(tokio::spawn(handle(Arc::clone(worker), ctx.clone(), connection, place)));
        }
        Err(error) => tracing::warn!("a connection is lost: {error}"),
    };
    let mut acceptor = Acceptor::new(listeners, ctx.own().beat_every)?;
    let mut stopping = std::pin::pin!(ctx.stopping());
    while ctx.running() {
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                acceptor.suspend();
                tokio::select! {
                    biased;
                    () = &mut stopping => break,
                    place = Arc::clone(&places).acquire_owned() => place?,
                }
            }
        };
        let next = tokio::select! {
            biased;
            () = &mut stopping => {
                // The look that whoever is woken owes.
                match acceptor.look() {
                    Ok(Some(connection)) => begin(connection, place),
                    Ok(None) => {}
                    Err(error) => tracing::warn!("accept failed: {error}"),
                }
                break;
            }
            next = acceptor.accept() => next,
        };
        match next {
            Ok(connection) => begin(connection, place),
            Err(error) => {
                tracing::warn!("accept failed, trying again: {error}");
                acceptor.suspend();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(acceptor);
    let mut queue = Queue::left_to(ctx, listeners, false);
    while let Some(connection) = queue.take() {
        begin(connection, Arc::clone(&places).acquire_owned().await?);
    }
    let _all = places.acquire_many(u32::try_from(most).unwrap_or(u32::MAX)).await?;
    Ok(())
}

async fn handle<W: AsyncWorker>(
    worker: Arc<W>,
    ctx: Context,
    connection: AsyncConnection,
    place: OwnedSemaphorePermit,
) {
    let _place = place;
    let ctx = Counted(ctx);
    let peer = connection.peer();
    if let Err(error) = worker.handle_request(&ctx.0, Some(connection)).await {
        tracing::error!("a request of {peer} failed: {error}");
    }
}

/// A request, which is counted however it ends. The runtime catches its panic, and the hook has logged it.
struct Counted(Context);

impl Drop for Counted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.count_panic();
        }
        self.0.count_request();
    }
}
