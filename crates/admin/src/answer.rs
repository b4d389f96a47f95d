//! Handles one request: access, dispatch, response.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use crate::content::Content;
use crate::events::{Events, Views};
use crate::guard::{Guard, Refused};
use crate::paths::Endpoint;
use crate::{Change, RecentQuery, Serves, State, html, query};

/// No request needs a body; what a client sends all the same is read up to here and not looked at.
const MAX_BODY: usize = 16 * 1024;

pub(crate) type Answer = Response<Content>;

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

/// What a server has.
#[derive(Clone)]
pub(crate) enum Site {
    /// A proxy.
    Proxy(Arc<dyn State>),
    /// The page alone.
    Page(Arc<dyn Views>),
}

/// Answers one request.
pub(crate) async fn answer(request: Request<Incoming>, context: Context, site: &Site) -> Answer {
    match site {
        Site::Proxy(state) => answer_of_proxy(request, context, state).await,
        Site::Page(views) => answer_of_page(&request, context, views),
    }
}

/// Answers a request to a server that has the page and nothing to change.
fn answer_of_page(request: &Request<Incoming>, context: Context, views: &Arc<dyn Views>) -> Answer {
    let Some(endpoint) = context.serves.find(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, format!("no such path; there are:\n{}", context.serves.help()));
    };
    if !endpoint.allows(request.method()) {
        return not_allowed(endpoint.allow());
    }
    if let Err(Refused { status, words }) = context.guard.may_see(request) {
        return line(status, words);
    }
    show_page(request, endpoint, context, views).unwrap_or_else(|| not_allowed(endpoint.allow()))
}

async fn answer_of_proxy(request: Request<Incoming>, context: Context, state: &Arc<dyn State>) -> Answer {
    let Context { serves, guard, .. } = context;
    let Some(endpoint) = serves.find(request.uri().path()) else {
        let body = format!("no such path; there are:\n{}", serves.help());
        return text(StatusCode::NOT_FOUND, body);
    };
    if !endpoint.allows(request.method()) {
        return not_allowed(endpoint.allow());
    }
    if request.method() == Method::POST {
        return change(request, endpoint, context, state.as_ref()).await;
    }
    if !endpoint.is_public()
        && let Err(Refused { status, words }) = guard.may_see(&request)
    {
        return line(status, words);
    }
    show(&request, endpoint, context, state)
}

fn show(request: &Request<Incoming>, endpoint: Endpoint, context: Context, state: &Arc<dyn State>) -> Answer {
    let views: Arc<dyn Views> = Arc::<dyn State>::clone(state);
    if let Some(page) = show_page(request, endpoint, context, &views) {
        return page;
    }
    let query = request.uri().query();
    match endpoint {
        Endpoint::Ready => match state.ready() {
            Ok(()) => line(StatusCode::OK, "ready"),
            Err(pending) => line(StatusCode::SERVICE_UNAVAILABLE, format_args!("not ready, pending: {pending}")),
        },
        Endpoint::Metrics => with_type(StatusCode::OK, state.metrics(), "text/plain; version=0.0.4; charset=utf-8"),
        Endpoint::Index => index(context, state.as_ref()),
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
        // Shown above.
        Endpoint::Live | Endpoint::Help | Endpoint::Dashboard | Endpoint::Script | Endpoint::Events => {
            not_allowed(endpoint.allow())
        }
    }
}

/// What every server with a page shows.
fn show_page(
    request: &Request<Incoming>,
    endpoint: Endpoint,
    context: Context,
    views: &Arc<dyn Views>,
) -> Option<Answer> {
    Some(match endpoint {
        Endpoint::Live => line(StatusCode::OK, "live"),
        Endpoint::Help => text(StatusCode::OK, context.serves.help()),
        Endpoint::Dashboard => {
            html(html::dashboard(views.as_ref(), context.serves), portcullis_dashboard::CONTENT_SECURITY_POLICY)
        }
        Endpoint::Script => with_type(StatusCode::OK, portcullis_dashboard::SCRIPT.to_owned(), "text/javascript"),
        Endpoint::Events => events(request, views),
        _ => return None,
    })
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
    html(html::index(state, buttons), html::CONTENT_SECURITY_POLICY)
}

fn html(page: String, policy: &'static str) -> Answer {
    let mut answer = with_type(StatusCode::OK, page, "text/html; charset=utf-8");
    set(&mut answer, CONTENT_SECURITY_POLICY, policy);
    set(&mut answer, X_FRAME_OPTIONS, "DENY");
    // `no-referrer` would hide the origin of a button too.
    set(&mut answer, REFERRER_POLICY, "same-origin");
    answer
}

/// New content for a page that is open, until the reader leaves or the connection has lived for its time. The page then asks again.
fn events(request: &Request<Incoming>, views: &Arc<dyn Views>) -> Answer {
    let mut answer = with_type(StatusCode::OK, String::new(), "text/event-stream");
    if request.method() == Method::GET {
        *answer.body_mut() = Content::Events(Events::new(Arc::clone(views)));
    }
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
    let mut answer = Response::new(Content::Text(Full::new(Bytes::from(body))));
    *answer.status_mut() = status;
    set(&mut answer, CONTENT_TYPE, kind);
    set(&mut answer, CACHE_CONTROL, "no-store");
    set(&mut answer, X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: &'static str) {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
}
