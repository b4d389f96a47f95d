//! The transport of the generated clients: one HTTP/2 connection over any stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

use crate::error::{FetchError, clean};

/// The limit on received headers, in bytes.
const MAX_HEADER_LIST_SIZE: u32 = 16 * 1024;

/// A connection to one server. It ends when this is dropped.
pub(crate) struct Channel {
    send: SendRequest<Body>,
    driver: JoinHandle<()>,
}

impl Channel {
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
