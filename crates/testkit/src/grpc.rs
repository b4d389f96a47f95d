//! Serves generated services over hyper's HTTP/2, on any stream.

use std::convert::Infallible;
use std::future::Future;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

/// Answers on one connection until it ends; `answer` finds the service.
pub(crate) async fn serve<S, F, A>(stream: S, answer: A)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ended = served.serve_connection(TokioIo::new(stream), service).await;
}

/// Has one service answer.
pub(crate) async fn call<S>(mut service: S, request: Request<Incoming>) -> Response<Body>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The response to a call of an unknown service.
pub(crate) fn unimplemented() -> Response<Body> {
    tonic::Status::unimplemented("unknown service").into_http()
}
