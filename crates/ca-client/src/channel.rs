//! The transport of the generated clients: one HTTP/2 connection over any stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_config::HostPort;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

use crate::error::{FetchError, clean};

/// The limit on received headers, in bytes.
const MAX_HEADER_LIST_SIZE: u32 = 16 * 1024;

/// Looking up the name and connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The handshake of TLS, and HTTP/2's.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one server. It ends when this is dropped.
pub(crate) struct Channel {
    send: SendRequest<Body>,
    driver: JoinHandle<()>,
}

impl Channel {
    /// Dials an authority, under deadlines. `refused` says what a failed handshake means.
    pub(crate) async fn connect(
        address: &HostPort,
        name: ServerName<'static>,
        config: ClientConfig,
        refused: impl Fn(&io::Error) -> FetchError,
    ) -> Result<Self, FetchError> {
        let stream = within(CONNECT_TIMEOUT, "connecting", async {
            let connected = TcpStream::connect((address.host.as_str(), address.port)).await;
            connected.map_err(|error| FetchError::Connect(format!("{address}: {error}")))
        })
        .await?;
        within(HANDSHAKE_TIMEOUT, "the handshake", async {
            let connector = TlsConnector::from(Arc::new(config));
            Self::over(connector.connect(name, stream).await.map_err(|error| refused(&error))?).await
        })
        .await
    }

    /// Speaks HTTP/2 over a stream that is connected.
    pub(crate) async fn over<S>(stream: S) -> Result<Self, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = Builder::new(TokioExecutor::new())
            .max_header_list_size(MAX_HEADER_LIST_SIZE)
            .handshake(TokioIo::new(stream));
        let (send, connection) = handshake.await.map_err(|error| FetchError::Connection(clean(&error.to_string())))?;
        // Pending requests receive the error.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { send, driver })
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}

/// Waits no longer than this.
pub(crate) async fn within<T>(
    limit: Duration,
    step: &'static str,
    work: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, FetchError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(FetchError::Deadline { step, within: limit }))
}
