//! One CONNECT request, to be answered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Response, StatusCode};

use crate::authority::{AuthorityError, parse_authority};
use crate::claims::Claims;
use crate::limits::EARLY_RESETS;
use crate::stream::TunnelStream;

/// Set by gateways between networks, which are not served.
const ORIGIN_NETWORK: &str = "x-istio-origin-network";

/// Why a request cannot be served, whoever sends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadRequest {
    /// It is not a CONNECT, or one of another protocol within HTTP/2.
    #[error("the request is not a CONNECT")]
    NotConnect,
    /// The destination cannot be read.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// It came over a gateway of another network.
    #[error("the request has x-istio-origin-network: connections between networks are not served")]
    OtherNetwork,
}

/// The answer to a request that is not served, as ztunnel answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectRefusal {
    /// 400: the request itself is wrong.
    BadRequest,
    /// 401: not authorized.
    Denied,
    /// 503: the app cannot be reached, or a limit is reached.
    Unavailable,
}

impl ConnectRefusal {
    const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::UNAUTHORIZED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// How the requests of one tunnel went.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    answered: AtomicUsize,
    reset_early: AtomicUsize,
}

impl Tally {
    /// Whether the peer resets so many streams before they are answered that it can only be an attack.
    pub(crate) fn is_rapid_reset(&self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        self.reset_early.load(Ordering::Relaxed) > EARLY_RESETS.saturating_add(answered / 10)
    }
}

/// A request on a new stream. One that is dropped without an answer is reset.
pub struct Request {
    /// Where it is meant to go, or why it cannot be served.
    pub target: Result<SocketAddr, BadRequest>,
    /// What the peer says of itself.
    pub claims: Claims,
    respond: SendResponse<Bytes>,
    body: RecvStream,
    tally: Arc<Tally>,
    answered: bool,
}

impl Request {
    pub(crate) fn new(request: http::Request<RecvStream>, respond: SendResponse<Bytes>, tally: Arc<Tally>) -> Self {
        let (target, claims) = (target(&request), Claims::of(request.headers()));
        Self { target, claims, respond, body: request.into_body(), tally, answered: false }
    }

    /// Waits until the peer resets the stream, or the tunnel is gone.
    pub async fn gone(&mut self) {
        let _reason = std::future::poll_fn(|cx| self.respond.poll_reset(cx)).await;
        if !self.answered {
            self.answered = true;
            self.tally.reset_early.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refuses it.
    pub fn refuse(mut self, refusal: ConnectRefusal) {
        self.count_answer();
        // If the peer is gone there is nobody to tell.
        let _gone = self.respond.send_response(status(refusal.status()), true);
    }

    /// Accepts it: the byte stream begins.
    ///
    /// # Errors
    /// When the stream is gone.
    pub fn accept(mut self) -> Result<TunnelStream, h2::Error> {
        self.count_answer();
        let send = self.respond.send_response(status(StatusCode::OK), false)?;
        Ok(TunnelStream::new(send, self.body, None))
    }

    /// Resets it without an answer.
    pub fn reset(mut self) {
        self.count_answer();
        self.respond.send_reset(Reason::CONNECT_ERROR);
    }

    fn count_answer(&mut self) {
        if !self.answered {
            self.answered = true;
            self.tally.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("target", &self.target).finish_non_exhaustive()
    }
}

fn status(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

fn target(request: &http::Request<RecvStream>) -> Result<SocketAddr, BadRequest> {
    if request.method() != Method::CONNECT || request.extensions().get::<h2::ext::Protocol>().is_some() {
        return Err(BadRequest::NotConnect);
    }
    if request.headers().contains_key(ORIGIN_NETWORK) {
        return Err(BadRequest::OtherNetwork);
    }
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    Ok(parse_authority(authority)?)
}
