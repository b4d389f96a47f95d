//! Listener, limits and paths.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections served at once on one address.
const CONNECTIONS: usize = 64;
/// A request's head must be complete within this.
const HEAD: Duration = Duration::from_secs(5);
/// A connection may live this long in all.
const LIFETIME: Duration = Duration::from_secs(120);
/// Pause after a failed accept: the descriptor shortage that caused it needs time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the paths answer.
pub trait State: Send + Sync + 'static {
    /// `Ok` when ready, otherwise what is pending, in words.
    ///
    /// # Errors
    /// What is pending.
    fn ready(&self) -> Result<(), String>;
    /// All metrics in the Prometheus text format.
    fn metrics(&self) -> String;
}

/// Which paths an address serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Serves {
    /// Every path: `admin.listen`.
    All,
    /// Readiness and liveness: `health.listen`.
    Health,
    /// Metrics: `metrics.listen`.
    Metrics,
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, serves: Serves, state: Arc<dyn State>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "admin accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, serves, state.as_ref());
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 * 1024);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // Neither a timeout nor a client that breaks off is an event worth a line.
            let _ended = tokio::time::timeout(LIFETIME, connection).await;
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, serves: Serves, state: &dyn State) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".to_owned());
    }
    let health = matches!(serves, Serves::All | Serves::Health);
    let metrics = matches!(serves, Serves::All | Serves::Metrics);
    match request.uri().path() {
        "/healthz/ready" | "/ready" if health => match state.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
            Err(pending) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready, pending: {pending}\n")),
        },
        "/healthz/live" if health => text(StatusCode::OK, "live\n".to_owned()),
        "/stats/prometheus" | "/metrics" if metrics => {
            let mut response = text(StatusCode::OK, state.metrics());
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, paths(health, metrics)),
    }
}

fn paths(health: bool, metrics: bool) -> String {
    let mut body = "no such path; there are:\n".to_owned();
    if health {
        body.push_str("/healthz/ready\n/healthz/live\n");
    }
    if metrics {
        body.push_str("/stats/prometheus\n");
    }
    body
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Fixed(Result<(), String>);

    impl State for Fixed {
        fn ready(&self) -> Result<(), String> {
            self.0.clone()
        }
        fn metrics(&self) -> String {
            "one 1\n".to_owned()
        }
    }

    async fn ask(serves: Serves, ready: Result<(), String>, request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, serves, Arc::new(Fixed(ready))));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        server.abort();
        answer
    }

    #[tokio::test]
    async fn readiness_says_what_is_pending() {
        let ok = ask(Serves::All, Ok(()), "GET /healthz/ready HTTP/1.1").await;
        assert!(ok.starts_with("HTTP/1.1 200 "), "{ok}");
        let not = ask(Serves::Health, Err("credentials".into()), "GET /healthz/ready HTTP/1.1").await;
        assert!(not.starts_with("HTTP/1.1 503 ") && not.contains("pending: credentials"), "{not}");
    }

    #[tokio::test]
    async fn an_address_serves_only_its_own_paths() {
        let metrics = ask(Serves::Metrics, Ok(()), "GET /stats/prometheus HTTP/1.1").await;
        assert!(metrics.contains("version=0.0.4") && metrics.ends_with("one 1\n"), "{metrics}");
        assert!(ask(Serves::Metrics, Ok(()), "GET /healthz/ready HTTP/1.1").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(Serves::Health, Ok(()), "GET /stats/prometheus HTTP/1.1").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(Serves::All, Ok(()), "POST /healthz/ready HTTP/1.1").await.starts_with("HTTP/1.1 405 "));
    }
}
