//! Listeners and limits.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_net::admission::{EvictingSlots, Slot};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::answer::{Client, Context, Site, answer};
use crate::events::Views;
use crate::guard::Guard;
use crate::paths::Serves;
use crate::state::State;

/// Connections served at once on one address.
const MAX_CONNECTIONS: usize = 64;
/// The deadline of a request's head, and again of its body.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest lifetime of a connection.
const MAX_LIFETIME: Duration = Duration::from_secs(120);
/// Pause after a failed accept: the descriptor shortage that caused it needs time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves every path on a Unix socket until the task is dropped. Whoever may connect may change something, as on loopback, and the
/// same names are expected: a web server that passes requests on to the socket must not pass those of foreign pages.
pub async fn serve_unix(listener: UnixListener, state: Arc<dyn State>) {
    let slots = EvictingSlots::new(MAX_CONNECTIONS);
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let guard = Guard::new(loopback);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let context = Context { serves: Serves::All, guard, client: Client::Unix, body_timeout: HEAD_TIMEOUT };
                let site = Site::Proxy(Arc::clone(&state));
                tokio::spawn(connection(stream, slots.acquire(loopback), context, site));
            }
            Err(error) => not_accepted(&error).await,
        }
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, serves: Serves, state: Arc<dyn State>) {
    accept(listener, serves, Site::Proxy(state)).await;
}

/// Serves the page and nothing that can be changed, until the task is dropped.
pub async fn serve_page(listener: TcpListener, views: Arc<dyn Views>) {
    accept(listener, Serves::Page, Site::Page(views)).await;
}

async fn accept(listener: TcpListener, serves: Serves, site: Site) {
    let slots = EvictingSlots::new(MAX_CONNECTIONS);
    // An address that is not known is treated as one that is not loopback.
    let listen = listener.local_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let guard = Guard::new(listen);
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                not_accepted(&error).await;
                continue;
            }
        };
        let slot = slots.acquire(client.ip());
        let context = Context { serves, guard, client: Client::Tcp(client), body_timeout: HEAD_TIMEOUT };
        tokio::spawn(connection(stream, slot, context, site.clone()));
    }
}

async fn not_accepted(error: &std::io::Error) {
    tracing::debug!(%error, "admin accept failed");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn connection<S>(stream: S, slot: Slot, context: Context, site: Site)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(answer(request, context, &site).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(16 * 1024);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Neither a timeout nor a client that disconnects early is logged.
        _ended = tokio::time::timeout(MAX_LIFETIME, connection) => {}
        () = slot.evicted() => {}
    }
}

#[cfg(test)]
mod tests;
