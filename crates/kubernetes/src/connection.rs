//! One HTTP/2 connection to the API server, which all lists and watches share: a sidecar costs the server one connection, and a server
//! that is silent is noticed by PING, whatever is being waited for.
//!
//! Token and root are read again for each connection and request: both are replaced while a pod runs.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use portcullis_config::HostPort;
use portcullis_tls::{Clock, ca_channel};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// Looking up the name and connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The handshake of TLS, and HTTP/2's.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// From a request to the head of its answer. A server answers a watch at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server may be silent before it is asked for a sign of life, and how long it may take to give it.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What the server may send ahead. The streams are few and their objects small.
const WINDOW: u32 = 256 * 1024;
const STREAM_WINDOW: u32 = 64 * 1024;
/// The limit on received headers, in bytes.
const MAX_HEADER_LIST_SIZE: u32 = 16 * 1024;
/// The largest token or root file that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// The files of a pod's service account.
const TOKEN: &str = "token";
const ROOTS: &str = "ca.crt";

/// Why a request could not be made or was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error("{address}: {error}")]
    Connect { address: HostPort, error: io::Error },
    #[error("{address}: no answer within {} s ({step})", limit.as_secs())]
    Deadline { address: HostPort, step: &'static str, limit: Duration },
    #[error("{address}: TLS: {problem}")]
    Tls { address: HostPort, problem: String },
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request: {0}")]
    Request(#[from] http::Error),
}

/// Where the API server is, and as whom it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) address: HostPort,
    pub(crate) folder: PathBuf,
    pub(crate) user_agent: HeaderValue,
    pub(crate) clock: Clock,
}

/// The transport of `kube::Client`.
#[derive(Clone)]
pub(crate) struct Transport(Arc<Shared>);

struct Shared {
    server: Server,
    /// Told of each new connection: behind it may be a server that knows less than the one before, and a watch that goes on from where it
    /// was would not notice.
    connected: watch::Sender<u64>,
    current: Mutex<Option<SendRequest<Body>>>,
}

impl Transport {
    pub(crate) fn new(server: Server, connected: watch::Sender<u64>) -> Self {
        Self(Arc::new(Shared { server, connected, current: Mutex::new(None) }))
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = ConnectionError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.send(request).await })
    }
}

impl Shared {
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, ConnectionError> {
        let server = &self.server;
        let authority: Authority = server.address.to_string().parse().map_err(http::Error::from)?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(authority);
        parts.path_and_query = parts.path_and_query.or_else(|| Some(PathAndQuery::from_static("/")));
        *request.uri_mut() = Uri::from_parts(parts).map_err(http::Error::from)?;
        request.headers_mut().insert(AUTHORIZATION, bearer(&server.folder)?);
        request.headers_mut().insert(USER_AGENT, server.user_agent.clone());
        let mut requests = self.connected().await?;
        let limit = ANSWER_TIMEOUT;
        let answer = async {
            requests.ready().await?;
            requests.send_request(request).await
        };
        timeout(limit, answer).await.map_err(|_| server.late("the answer", limit))?.map_err(ConnectionError::Http)
    }

    /// The connection that is there, or a new one. Requests that come meanwhile wait for it.
    async fn connected(&self) -> Result<SendRequest<Body>, ConnectionError> {
        let mut current = self.current.lock().await;
        if let Some(requests) = current.as_ref().filter(|requests| !requests.is_closed()) {
            return Ok(requests.clone());
        }
        *current = None;
        let requests = self.server.connect().await?;
        *current = Some(requests.clone());
        self.connected.send_modify(|count| *count = count.wrapping_add(1));
        Ok(requests)
    }
}

impl Server {
    async fn connect(&self) -> Result<SendRequest<Body>, ConnectionError> {
        let address = &self.address;
        let refused = |problem: String| ConnectionError::Tls { address: address.clone(), problem };
        let path = self.folder.join(ROOTS);
        let pem = read(&path)?;
        let content = |problem: String| ConnectionError::Content { path: path.clone(), problem };
        let roots = portcullis_tls::certificates(&pem).map_err(|error| content(error.to_string()))?;
        let config = ca_channel::client_config(roots, None, &self.clock).map_err(|error| content(error.to_string()))?;
        let name = ServerName::try_from(address.host.clone()).map_err(|error| refused(error.to_string()))?;
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((address.host.as_str(), address.port)))
            .await
            .map_err(|_| self.late("connecting", CONNECT_TIMEOUT))?
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| ConnectionError::Connect { address: address.clone(), error })?;
        let handshakes = async {
            let connector = TlsConnector::from(Arc::new(config));
            let stream = connector.connect(name, stream).await.map_err(|error| refused(error.to_string()))?;
            let builder = &mut Builder::new(TokioExecutor::new());
            let builder = builder.timer(TokioTimer::new()).max_header_list_size(MAX_HEADER_LIST_SIZE);
            let builder = builder.initial_connection_window_size(WINDOW).initial_stream_window_size(STREAM_WINDOW);
            let builder = builder.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
            let (requests, connection) = builder.handshake(TokioIo::new(stream)).await?;
            // It ends with the last request on it; requests that wait get its error.
            tokio::spawn(async move { drop(connection.await) });
            Ok(requests)
        };
        timeout(HANDSHAKE_TIMEOUT, handshakes).await.map_err(|_| self.late("the handshake", HANDSHAKE_TIMEOUT))?
    }

    fn late(&self, step: &'static str, limit: Duration) -> ConnectionError {
        ConnectionError::Deadline { address: self.address.clone(), step, limit }
    }
}

/// The token as a header that is never logged.
fn bearer(folder: &Path) -> Result<HeaderValue, ConnectionError> {
    let path = folder.join(TOKEN);
    let token = read(&path)?;
    let content = |problem: &str| ConnectionError::Content { path: path.clone(), problem: problem.to_owned() };
    let token = token.trim_ascii();
    if token.is_empty() {
        return Err(content("empty"));
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| content("is not a token"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(path: &Path) -> Result<Vec<u8>, ConnectionError> {
    let failed = |error| ConnectionError::File { path: path.to_owned(), error };
    let mut content = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_anew_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(bearer(folder.path()), Err(ConnectionError::File { .. })));
        for (text, expected) in [("abc\n", Some("Bearer abc")), ("", None), ("a\nb", None)] {
            std::fs::write(folder.path().join(TOKEN), text).unwrap();
            let value = bearer(folder.path()).ok();
            assert_eq!(value.as_ref().map(|value| value.to_str().unwrap()), expected, "{text:?}");
            assert!(!format!("{value:?}").contains("abc"));
        }
    }
}
