//! SVIDs from the SPIFFE Workload API, over a stream on which the server sends each update.
//!
//! The server decides when to renew. Each update is validated; if it is refused, the old SVID stays in
//! force and the stream continues. When the stream ends, it is reopened with exponential backoff.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_identity::TrustDomain;
use portcullis_rpc::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_rpc::workload::{X509svid, X509svidRequest, X509svidResponse};
use portcullis_tls::{Clock, CredentialParts, Credentials, IdentityRules};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::codegen::http::Uri;
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};
use zeroize::{Zeroize as _, Zeroizing};

use crate::backoff::{Backoff, Jitter};
use crate::ca::{Foreign, merge};
use crate::channel::{Channel, within};
use crate::error::{AnswerError, FetchError, clean};
use crate::publish::{CredentialSink, Publisher, jitter_seed};
use crate::status::RenewalMonitor;

/// Opening the socket, and HTTP/2's handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the first SVIDs. A server that has none for us says so.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer message is not read, in bytes: many bundles of foreign domains come in one.
const MAX_MESSAGE_LEN: usize = 4 * 1024 * 1024;
/// The header by which a server knows that the request was not forged by way of a browser (SPIFFE Workload Endpoint 6.1).
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Takes SVIDs from the Workload API for as long as it runs.
pub struct WorkloadApiAgent {
    socket: PathBuf,
    rules: IdentityRules,
    clock: Clock,
    foreign: watch::Receiver<Foreign>,
    publisher: Publisher,
    started: Instant,
    jitter: Jitter,
    backoff: Backoff,
    received: Option<ReceivedSvid>,
}

/// What the credentials in force were made of, to make them again when only a file changes.
struct ReceivedSvid {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<PrivateKeyDer<'static>>,
    own: Vec<CertificateDer<'static>>,
    foreign: Foreign,
}

type Svids = Streaming<X509svidResponse>;

impl WorkloadApiAgent {
    /// Nothing is asked before [`run`](Self::run). `foreign` are the bundles that the configuration names, as they are now;
    /// `changed` is called after each new set of credentials.
    pub fn new(
        socket: PathBuf,
        rules: IdentityRules,
        clock: Clock,
        foreign: watch::Receiver<Foreign>,
        sink: CredentialSink,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> (Self, RenewalMonitor) {
        let monitor = RenewalMonitor::new(format!("the Workload API at {}", socket.display()));
        let agent = Self {
            publisher: Publisher::new(sink, monitor.clone(), Box::new(changed)),
            started: Instant::now(),
            jitter: Jitter::new(jitter_seed()),
            backoff: Backoff::new(),
            received: None,
            socket,
            rules,
            clock,
            foreign,
        };
        (agent, monitor)
    }

    /// Opens the stream, takes what it brings, and opens it again; does not return.
    pub async fn run(mut self) {
        loop {
            let error = self.follow().await;
            let wait = self.backoff.failed(&mut self.jitter);
            self.publisher.failed(self.started.elapsed(), &error, Some(wait));
            let monitor = self.publisher.monitor().clone();
            tokio::select! {
                () = sleep(wait) => {}
                () = monitor.renewal_requested() => {}
            }
        }
    }

    /// One stream to its end.
    async fn follow(&mut self) -> FetchError {
        let (mut _client, mut svids) =
            match within(CONNECT_TIMEOUT.saturating_add(FIRST_MESSAGE_TIMEOUT), "FetchX509SVID", self.open()).await {
                Ok(open) => open,
                Err(error) => return error,
            };
        let monitor = self.publisher.monitor().clone();
        let mut foreign = self.foreign.clone();
        let (mut watched, mut first) = (true, true);
        loop {
            let next = async {
                let next = svids.message();
                if !first {
                    return next.await.map_err(|status| FetchError::from_status(&status));
                }
                within(FIRST_MESSAGE_TIMEOUT, "the first SVIDs", async {
                    next.await.map_err(|status| FetchError::from_status(&status))
                })
                .await
            };
            tokio::select! {
                message = next => match message {
                    Ok(Some(message)) => {
                        first = false;
                        self.take(message);
                    }
                    Ok(None) => return FetchError::Connection("the stream of SVIDs ended".to_owned()),
                    Err(error) => return error,
                },
                changed = foreign.changed(), if watched => {
                    // Without a sender there are no such files.
                    watched = changed.is_ok();
                    if watched { self.foreign_changed(); }
                }
                () = monitor.renewal_requested() => match within(CONNECT_TIMEOUT.saturating_add(FIRST_MESSAGE_TIMEOUT), "FetchX509SVID", self.open()).await {
                    // The new stream begins with what is valid now.
                    Ok(new) => { (_client, svids) = new; first = true; }
                    Err(error) => return error,
                },
            }
        }
    }

    async fn open(&self) -> Result<(SpiffeWorkloadApiClient<Channel>, Svids), FetchError> {
        let connected = UnixStream::connect(&self.socket).await;
        let stream = connected.map_err(|error| FetchError::Connect(format!("{}: {error}", self.socket.display())))?;
        let channel = Channel::over(stream).await?;
        let mut client = SpiffeWorkloadApiClient::with_origin(channel, Uri::from_static("http://localhost"))
            .max_decoding_message_size(MAX_MESSAGE_LEN);
        let mut request = Request::new(X509svidRequest {});
        request.metadata_mut().insert(SECURITY_HEADER, MetadataValue::from_static("true"));
        let answer = client.fetch_x509svid(request).await.map_err(|status| FetchError::from_status(&status))?;
        Ok((client, answer.into_inner()))
    }

    /// Handles one message. It replaces all earlier ones.
    fn take(&mut self, message: X509svidResponse) {
        let validated = self.read(message).and_then(|received| Ok((self.validate(&received)?, received)));
        match validated {
            Ok((credentials, received)) => {
                self.backoff.succeeded();
                self.received = Some(received);
                self.publisher.publish(credentials);
            }
            Err(error) => self.publisher.failed(self.started.elapsed(), &error.into(), None),
        }
    }

    fn read(&self, mut message: X509svidResponse) -> Result<ReceivedSvid, AnswerError> {
        let ours = self.rules.expected_own_id.as_str();
        let at = message.svids.iter().position(|svid| svid.spiffe_id == ours);
        let found = message.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect::<Vec<_>>().join(", ");
        let ours = at.map(|at| message.svids.swap_remove(at));
        message.svids.iter_mut().for_each(|other| other.x509_svid_key.zeroize());
        let Some(X509svid { x509_svid, x509_svid_key, bundle, .. }) = ours else {
            let found = if found.is_empty() { "none".to_owned() } else { clean(&found) };
            return Err(AnswerError::NotOurs { expected: self.rules.expected_own_id.to_string(), found });
        };
        let key = Zeroizing::new(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(x509_svid_key)));
        let wrong = |what: &str, why: &str| AnswerError::Bundles(format!("{}: {why}", clean(what)));
        let split = |what: &str, der: &[u8]| -> Result<Vec<CertificateDer<'static>>, AnswerError> {
            let parts = portcullis_der::certificates(der).map_err(|why| wrong(what, why))?;
            Ok(parts.into_iter().map(CertificateDer::from).collect())
        };
        let chain = split("the SVID", &x509_svid)?;
        let own = split("the own trust domain", &bundle)?;
        let mut foreign = Foreign::new();
        for (name, bundle) in &message.federated_bundles {
            let domain = TrustDomain::parse(name.strip_prefix("spiffe://").unwrap_or(name))
                .map_err(|error| wrong(name, &error.to_string()))?;
            if domain != self.rules.trust_domain && !self.rules.aliases.contains(&domain) {
                foreign.push((domain, split(name, bundle)?));
            }
        }
        Ok(ReceivedSvid { chain, key, own, foreign })
    }

    fn validate(&self, received: &ReceivedSvid) -> Result<Credentials, AnswerError> {
        let parts = CredentialParts {
            chain: received.chain.clone(),
            private_key: Zeroizing::new(received.key.clone_key()),
            trust_bundle: received.own.clone(),
            federated: merge(&self.foreign.borrow(), &received.foreign),
        };
        Ok(Credentials::validate_parts(parts, &self.rules, &self.clock)?)
    }

    /// The files of foreign domains are different now.
    fn foreign_changed(&mut self) {
        let Some(received) = &self.received else { return };
        match self.validate(received) {
            Ok(credentials) => self.publisher.publish_bundles(credentials),
            Err(error) => self.publisher.poll_failed(&error.into()),
        }
    }
}
