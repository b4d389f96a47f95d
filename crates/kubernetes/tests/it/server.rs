//! The server: lists, watches and discovery of one version, for whoever has the token.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_testkit::certs::{Authority, Profile, San};
use portcullis_tls::{Clock, ca_channel, private_key};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// The watch that has objects.
const PEERS: &str = "/namespaces/shop/peerauthentications";

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct State {
    token: String,
    names: BTreeSet<String>,
    version: u64,
    watches: Vec<mpsc::Sender<Bytes>>,
    connections: Vec<JoinHandle<()>>,
    requests: usize,
}

pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    watching: watch::Receiver<usize>,
    authority: Authority,
    port: u16,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let authority = Authority::root("cluster.local");
        let leaf = authority
            .issue(&Profile { sans: Some(vec![San::Ip([127, 0, 0, 1])]), ..Profile::leaf("spiffe://cluster.local/x") });
        let key = private_key(leaf.key_pem().as_bytes()).unwrap();
        let config = Arc::new(ca_channel::server_config(leaf.chain, key.clone_key(), &Clock::system()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { token: "first".to_owned(), ..State::default() }));
        let (watches, watching) = watch::channel(0);
        let of_task = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, state, watches) =
                    (TlsAcceptor::from(Arc::clone(&config)), Arc::clone(&of_task), watches.clone());
                let task = tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        let answer = answer(&state, &watches, &request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(served.serve_connection(TokioIo::new(stream), service).await);
                });
                lock(&of_task).connections.push(task);
            }
        });
        Self { state, watching, authority, port }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn roots(&self) -> String {
        self.authority.bundle_pem()
    }

    pub(crate) fn set_token(&self, token: &str) {
        lock(&self.state).token = token.to_owned();
    }

    /// Without an event.
    pub(crate) fn put(&self, name: &str) {
        lock(&self.state).names.insert(name.to_owned());
    }

    /// Without an event.
    pub(crate) fn remove(&self, name: &str) {
        lock(&self.state).names.remove(name);
    }

    pub(crate) async fn add(&self, name: &str) {
        self.put(name);
        self.send("ADDED", object(name)).await;
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.remove(name);
        self.send("DELETED", object(name)).await;
    }

    /// What the server remembers does not reach back to where the watch is.
    pub(crate) async fn expire(&self) {
        self.send("ERROR", status(410)).await;
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        let mut state = lock(&self.state);
        state.connections.drain(..).for_each(|task| task.abort());
        state.watches.clear();
    }

    pub(crate) fn connections(&self) -> usize {
        lock(&self.state).connections.len()
    }

    pub(crate) fn requests(&self) -> usize {
        lock(&self.state).requests
    }

    /// Until the kind with objects is watched.
    pub(crate) async fn wait_for_watch(&self) {
        self.watching.clone().wait_for(|count| *count > 0).await.unwrap();
    }

    async fn send(&self, kind: &str, object: Value) {
        let watches = lock(&self.state).watches.clone();
        let line = Bytes::from(format!("{}\n", json!({"type": kind, "object": object})));
        for watch in watches {
            // One whose connection was cut is still in the list.
            let _ = watch.send(line.clone()).await;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

fn object(name: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1beta1", "kind": "PeerAuthentication",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "2"}, "spec": {"mtls": {"mode": "STRICT"}},
    })
}

fn status(code: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "on demand", "reason": "Test", "code": code})
}

fn answer(state: &Mutex<State>, watches: &watch::Sender<usize>, request: &Request<Incoming>) -> Response<Body> {
    let mut state = lock(state);
    state.requests += 1;
    let expected = format!("Bearer {}", state.token);
    if request.headers().get("authorization").is_none_or(|value| value.as_bytes() != expected.as_bytes()) {
        return reply(401, &status(401));
    }
    let path = request.uri().path();
    let parts: Vec<_> = path.trim_start_matches("/apis/").split('/').collect();
    let [_, "v1beta1", rest @ ..] = parts.as_slice() else { return reply(404, &status(404)) };
    if rest.is_empty() {
        let kinds =
            ["peerauthentications", "authorizationpolicies", "serviceentries", "workloadentries", "destinationrules"];
        let kinds = kinds.map(|name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "X", "verbs": ["list", "watch"]}));
        return reply(
            200,
            &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "x/v1beta1", "resources": kinds}),
        );
    }
    let is_peers = path.ends_with(PEERS);
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        let (sender, receiver) = mpsc::channel::<Bytes>(16);
        if is_peers {
            state.watches.push(sender);
            watches.send_modify(|count| *count += 1);
        } else {
            // Silent for ever.
            tokio::spawn(async move { sender.closed().await });
        }
        let lines = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|line| (line, receiver))
        });
        return Response::new(StreamBody::new(lines.map(|line| Ok(Frame::data(line)))).boxed_unsync());
    }
    state.version += 1;
    let items: Vec<_> = if is_peers { state.names.iter().map(|name| object(name)).collect() } else { Vec::new() };
    let metadata = json!({"resourceVersion": state.version.to_string()});
    reply(
        200,
        &json!({"apiVersion": "security.istio.io/v1beta1", "kind": "List", "metadata": metadata, "items": items}),
    )
}

fn reply(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
