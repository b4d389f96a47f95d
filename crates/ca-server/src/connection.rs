//! One connection: TLS handshake, HTTP/2, dispatch by service. Every wait has a deadline.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portcullis_net::admission::Slot;
use portcullis_rpc::bundles::join_server::{JoinServer, SERVICE_NAME as JOIN};
use portcullis_rpc::bundles::trust_bundles_server::{SERVICE_NAME as BUNDLES, TrustBundlesServer};
use portcullis_rpc::istio::istio_certificate_service_server::{
    IstioCertificateServiceServer, SERVICE_NAME as CERTIFICATES,
};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;

use crate::authenticate::Peer;
use crate::service::{Services, Shared};

/// From accept to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the head of a request to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle connection is closed after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The time limit for a graceful shutdown of the connection.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message. A request with an RSA key of 4096 bits has under 2 KiB; the longest accepted one has 16.
const MAX_MESSAGE: usize = 24 * 1024;
/// Requests under way in one connection; agents have one. With the largest message this bounds the memory for an unauthenticated
/// caller: under 256 KiB in each connection, 128 MiB in all, half of it from one source.
const MAX_STREAMS: u32 = 8;
/// How much a request and a connection may send ahead of our reads.
const STREAM_WINDOW: u32 = 32 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024;

/// The generated servers for one connection.
#[derive(Clone)]
struct Servers {
    certificates: IstioCertificateServiceServer<Shared>,
    bundles: TrustBundlesServer<Shared>,
    join: JoinServer<Shared>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    services: Arc<Services>,
    slot: Slot,
    ending: impl Future<Output = ()>,
) {
    let _no_delay = stream.set_nodelay(true);
    tokio::select! {
        () = established(stream, address, config, services, ending) => {}
        () = slot.evicted() => tracing::debug!(caller = %address, "evicted for a newer connection"),
    }
}

async fn established(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    services: Arc<Services>,
    ending: impl Future<Output = ()>,
) {
    let tls = match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(caller = %address, %error, "handshake failed"),
        Err(_) => return tracing::debug!(caller = %address, "handshake took too long"),
    };
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    let peer = Arc::new(Peer { address, chain });
    let shared = Shared(services);
    let servers = Servers {
        certificates: IstioCertificateServiceServer::new(shared.clone()).max_decoding_message_size(MAX_MESSAGE),
        bundles: TrustBundlesServer::new(shared.clone()).max_decoding_message_size(MAX_MESSAGE),
        join: JoinServer::new(shared).max_decoding_message_size(MAX_MESSAGE),
    };
    let begun = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&begun);
    let service = service_fn(move |mut request: Request<Incoming>| {
        counter.fetch_add(1, Ordering::Relaxed);
        request.extensions_mut().insert(Arc::clone(&peer));
        let servers = servers.clone();
        async move { Ok::<_, Infallible>(answer(request, servers).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(16 * 1024)
        .max_send_buf_size(256 * 1024);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(tls), service));
    let mut ending = std::pin::pin!(ending);
    let mut seen = 0;
    let mut idle_at = Instant::now() + IDLE_TIMEOUT;
    loop {
        tokio::select! {
            // A caller that disconnects is not an error.
            _ended = connection.as_mut() => return,
            () = sleep_until(idle_at) => {
                let now = begun.load(Ordering::Relaxed);
                if now == seen {
                    break;
                }
                (seen, idle_at) = (now, Instant::now() + IDLE_TIMEOUT);
            }
            () = ending.as_mut() => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ended = connection => {}
        () = sleep(DRAIN_TIMEOUT) => {}
    }
}

async fn answer(request: Request<Incoming>, mut servers: Servers) -> Response<Body> {
    let uri = request.uri().clone();
    let service = uri.path().strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default();
    let answer = async {
        match service {
            CERTIFICATES => servers.certificates.call(request).await,
            BUNDLES => servers.bundles.call(request).await,
            JOIN => servers.join.call(request).await,
            _ => Ok(Status::unimplemented("no such service here").into_http()),
        }
    };
    match timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => Status::deadline_exceeded("the request took too long").into_http(),
    }
}
