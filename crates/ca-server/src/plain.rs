//! `/metrics` and `/healthz/ready` over plain HTTP/1.1, on an address of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_net::admission::EvictingSlots;
use tokio::net::TcpListener;

use crate::service::Services;

/// Connections at once.
pub(crate) const MAX_CONNECTIONS: usize = 32;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_LIFETIME: Duration = Duration::from_secs(60);

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, services: Arc<Services>) {
    let slots = EvictingSlots::new(MAX_CONNECTIONS);
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (slot, services) = (slots.acquire(client.ip()), Arc::clone(&services));
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let services = Arc::clone(&services);
                async move { Ok::<_, Infallible>(answer(&request, &services)) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(16 * 1024);
            tokio::select! {
                _ended = tokio::time::timeout(MAX_LIFETIME, builder.serve_connection(TokioIo::new(stream), service)) => {}
                () = slot.evicted() => {}
            }
        });
    }
}

fn answer(request: &Request<Incoming>, services: &Services) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics" | "/stats/prometheus") => (StatusCode::OK, metrics(services)),
        (&Method::GET | &Method::HEAD, "/healthz/ready" | "/ready") => match ready(services) {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "/metrics or /healthz/ready\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, text);
    response
}

fn metrics(services: &Services) -> String {
    let ca = services.state.ca();
    // Of several roots, report the one that expires first.
    let root = ca.signer.roots().roots().map(|root| root.not_after_unix()).min().unwrap_or_default();
    services.metrics.page(
        root,
        ca.signer.not_after_unix(),
        services.state.clock.now_unix(),
        services.store.broken().is_some(),
    )
}

/// Whether certificates can be issued; otherwise why not.
pub(crate) fn ready(services: &Services) -> Result<(), String> {
    if services.state.ca().signer.not_after_unix() <= services.state.clock.now_unix() {
        return Err("the CA certificate has expired".to_owned());
    }
    services.store.broken().map_or(Ok(()), Err)
}
