//! Handles one request: access, dispatch, response.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use crate::guard::{Guard, Refused};
use crate::paths::Endpoint;
use crate::{Change, RecentQuery, Serves, State, html, query};

/// No request needs a body; what a client sends all the same is read up to here and not looked at.
const MAX_BODY: usize = 16 * 1024;

pub(crate) type Answer = Response<Full<Bytes>>;

/// Who sent a request, for the log.
#[derive(Clone, Copy)]
pub(crate) enum Client {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over the Unix socket, which has no addresses.
    Unix,
}

impl Display for Client {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// The part of a request's context that is the same for all requests of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    pub(crate) serves: Serves,
    pub(crate) guard: Guard,
    pub(crate) client: Client,
    /// How long a body may take.
    pub(crate) body_timeout: Duration,
}

/// Answers one request.
pub(crate) async fn answer(request: Request<Incoming>, context: Context, state: &dyn State) -> Answer {
    let Context { serves, guard, .. } = context;
    let Some(endpoint) = serves.find(request.uri().path()) else {
        let body = format!("no such path; there are:\n{}", serves.help());
        return text(StatusCode::NOT_FOUND, body);
    };
    if !endpoint.allows(request.method()) {
        return not_allowed(endpoint.allow());
    }
    if request.method() == Method::POST {
        return change(request, endpoint, context, state).await;
    }
    if !endpoint.is_public()
        && let Err(Refused { status, words }) = guard.may_see(&request)
    {
        return line(status, words);
    }
    show(&request, endpoint, context, state)
}

fn show(request: &Request<Incoming>, endpoint: Endpoint, context: Context, state: &dyn State) -> Answer {
    let query = request.uri().query();
    match endpoint {
        Endpoint::Ready => match state.ready() {
            Ok(()) => line(StatusCode::OK, "ready"),
            Err(pending) => line(StatusCode::SERVICE_UNAVAILABLE, format_args!("not ready, pending: {pending}")),
        },
        Endpoint::Live => line(StatusCode::OK, "live"),
        Endpoint::Metrics => with_type(StatusCode::OK, state.metrics(), "text/plain; version=0.0.4; charset=utf-8"),
        Endpoint::Help => text(StatusCode::OK, context.serves.help()),
        Endpoint::Index => index(context, state),
        Endpoint::Page(page) => json(state.page(page)),
        Endpoint::Explain => match port(query) {
            Ok(port) => json(state.explain(port)),
            Err(words) => line(StatusCode::BAD_REQUEST, words),
        },
        Endpoint::Recent => match RecentQuery::parse(query) {
            Ok(query) => json(state.recent(&query)),
            Err(words) => line(StatusCode::BAD_REQUEST, words),
        },
        Endpoint::Logging => match query::single(query, "level") {
            Ok(None) => line(StatusCode::OK, state.log_filter()),
            // The path changes state, which a followed link must not do.
            Ok(Some(_)) | Err(_) => not_allowed("POST"),
        },
        Endpoint::Change(_) => not_allowed(endpoint.allow()),
    }
}

async fn change(request: Request<Incoming>, endpoint: Endpoint, context: Context, state: &dyn State) -> Answer {
    let path = request.uri().path().to_owned();
    let allowed = context.guard.may_change(&request, &state.token());
    if let Err(Refused { status, words }) = allowed {
        tracing::warn!(client = %context.client, %path, status = status.as_u16(), why = words, "admin change refused");
        let mut answer = line(status, words);
        if status == StatusCode::UNAUTHORIZED {
            set(&mut answer, WWW_AUTHENTICATE, "Bearer");
        }
        return answer;
    }
    let level = query::single(request.uri().query(), "level");
    if !read_body(request.into_body(), context.body_timeout).await {
        return line(StatusCode::PAYLOAD_TOO_LARGE, "no request here needs a body");
    }
    match endpoint {
        Endpoint::Logging => {
            let words = match level {
                Ok(Some(words)) => words,
                Ok(None) => return line(StatusCode::BAD_REQUEST, "say which level: POST /logging?level=debug"),
                Err(words) => return line(StatusCode::BAD_REQUEST, words),
            };
            match state.set_log_filter(&words) {
                Ok(filter) => {
                    tracing::info!(client = %context.client, %filter, "log level changed");
                    line(StatusCode::OK, filter)
                }
                Err(words) => line(StatusCode::BAD_REQUEST, words),
            }
        }
        Endpoint::Change(change) => {
            tracing::info!(client = %context.client, %path, "admin change");
            state.change(change);
            line(
                StatusCode::OK,
                match change {
                    Change::DrainListeners => "draining inbound listeners",
                    Change::Quit => "draining, then ending",
                },
            )
        }
        _ => not_allowed(endpoint.allow()),
    }
}

/// Reads a body to its end, since a connection that is closed with something unread may take the answer with it.
async fn read_body(body: Incoming, body_timeout: Duration) -> bool {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return false;
    }
    matches!(tokio::time::timeout(body_timeout, Limited::new(body, MAX_BODY).collect()).await, Ok(Ok(_)))
}

fn index(context: Context, state: &dyn State) -> Answer {
    // A browser sends no token.
    let buttons = context.guard.is_loopback() && matches!(state.token(), Ok(None));
    let mut answer = with_type(StatusCode::OK, html::index(state, buttons), "text/html; charset=utf-8");
    set(&mut answer, CONTENT_SECURITY_POLICY, html::CONTENT_SECURITY_POLICY);
    set(&mut answer, X_FRAME_OPTIONS, "DENY");
    // `no-referrer` would hide the origin of a button too.
    set(&mut answer, REFERRER_POLICY, "same-origin");
    answer
}

fn port(query: Option<&str>) -> Result<u16, String> {
    let Some(text) = query::single(query, "port")? else {
        return Err("say which port: /explain?port=8080".to_owned());
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(format!("{text:?} is not a port from 1 to 65535")),
    }
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = line(StatusCode::METHOD_NOT_ALLOWED, format_args!("only {allow} is answered here"));
    set(&mut answer, ALLOW, allow);
    answer
}

fn json(body: String) -> Answer {
    with_type(StatusCode::OK, body, "application/json")
}

fn line(status: StatusCode, words: impl Display) -> Answer {
    text(status, format!("{words}\n"))
}

fn text(status: StatusCode, body: String) -> Answer {
    with_type(status, body, "text/plain; charset=utf-8")
}

fn with_type(status: StatusCode, body: String, kind: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    set(&mut answer, CONTENT_TYPE, kind);
    set(&mut answer, CACHE_CONTROL, "no-store");
    set(&mut answer, X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: &'static str) {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
}
