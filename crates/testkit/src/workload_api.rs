//! A SPIFFE Workload API on a Unix socket, as a SPIRE agent serves it: real HTTP/2, and a stream that stays open.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use portcullis_rpc::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use portcullis_rpc::workload::{X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::certs::{Authority, Issued};
use crate::grpc;

/// The SVIDs to serve, and the open streams.
#[derive(Debug, Default)]
struct State {
    current: X509svidResponse,
    streams: Vec<mpsc::UnboundedSender<Result<X509svidResponse, Status>>>,
    opened: usize,
}

/// The running server.
#[derive(Debug)]
pub struct WorkloadApi {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
}

impl WorkloadApi {
    /// Listens on this socket; hands out nothing yet.
    #[must_use]
    pub fn start(socket: &Path) -> Self {
        let mut server = Self { socket: socket.to_owned(), state: Arc::default(), runtime: None };
        server.come_back();
        server
    }

    /// Hands out these SVIDs, each with its ID, beside the roots of their authority; streams that are open get them at once.
    pub fn hand_out(&self, authority: &Authority, svids: &[(&str, &Issued)], federated: &[(&str, &Authority)]) {
        let svid = |(id, issued): &(&str, &Issued)| X509svid {
            spiffe_id: (*id).to_owned(),
            x509_svid: issued.chain.iter().flat_map(|der| der.to_vec()).collect(),
            x509_svid_key: issued.key.der().secret_der().to_vec(),
            bundle: authority.root_der().to_vec(),
            hint: String::new(),
        };
        let federated =
            federated.iter().map(|(domain, foreign)| (format!("spiffe://{domain}"), foreign.root_der().to_vec()));
        let message = X509svidResponse {
            svids: svids.iter().map(svid).collect(),
            crl: Vec::new(),
            federated_bundles: federated.collect(),
        };
        let mut state = self.state.lock().unwrap();
        state.streams.retain(|stream| stream.send(Ok(message.clone())).is_ok());
        state.current = message;
    }

    /// How many streams were opened so far.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.state.lock().unwrap().opened
    }

    /// Stops listening and closes all streams.
    pub fn go_down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.state.lock().unwrap().streams.clear();
        let _gone = std::fs::remove_file(&self.socket);
    }

    /// Listens again.
    pub fn come_back(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async { UnixListener::bind(&self.socket).unwrap() });
        let state = Arc::clone(&self.state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = Service(Arc::clone(&state));
                tokio::spawn(grpc::serve(stream, move |request| {
                    grpc::call(SpiffeWorkloadApiServer::new(service.clone()), request)
                }));
            }
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        self.go_down();
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

/// Messages as they come.
struct Messages(mpsc::UnboundedReceiver<Result<X509svidResponse, Status>>);

impl Stream for Messages {
    type Item = Result<X509svidResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = Pin<Box<dyn Stream<Item = Result<X509svidResponse, Status>> + Send>>;
    type FetchX509BundlesStream = Pin<Box<dyn Stream<Item = Result<X509BundlesResponse, Status>> + Send>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        // SPIFFE Workload Endpoint 6.1.
        if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument("security header missing from request"));
        }
        let mut state = self.0.lock().unwrap();
        state.opened += 1;
        if state.current.svids.is_empty() {
            return Err(Status::permission_denied("no identity issued"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(Ok(state.current.clone())).unwrap();
        state.streams.push(sender);
        Ok(Response::new(Box::pin(Messages(receiver))))
    }

    async fn fetch_x509_bundles(
        &self,
        _request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}
