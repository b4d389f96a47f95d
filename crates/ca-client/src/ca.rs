//! Certificates from a CA over Istio's protocol, with a new key at each renewal.
//!
//! The old certificate stays in force until a new one is validated. The roots of the mesh are at first those of
//! `trustBundle`, and afterwards those that the authority hands out; an authority that hands out none (istiod) puts its root
//! at the end of the chain instead.

mod bundles;
pub(crate) mod call;
mod next_start;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::CaClient;
use portcullis_identity::{KeyType, TrustDomain};
use portcullis_tls::{Clock, CredentialError, FileRole, IdentityRules, bundle_digest, certificates};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use self::bundles::Bundles;
pub use self::bundles::Foreign;
pub(crate) use self::bundles::merge;
use self::call::{CaEndpoint, CallCredentials, CertificateRequest, Usage, chain_pem};
use self::validate::{IssuedSvid, Roots, Validator};
use crate::error::{AnswerError, FetchError};
use crate::key::KeyAndCsr;
use crate::publish::{CredentialSink, Publisher, jitter_seed};
use crate::schedule::{Action, Now, Schedule};
use crate::status::RenewalMonitor;

/// Reads a file, or returns an error text.
pub type ReadFile<T> = Box<dyn FnMut() -> Result<T, String> + Send>;

/// Keeps a new token where [`Inputs::token`] reads it, or returns an error text.
pub type KeepToken = Box<dyn FnMut(&str) -> Result<(), String> + Send>;

/// Keeps the roots of our own domain where [`Inputs::roots`] reads them, or returns an error text.
pub type KeepRoots = Box<dyn FnMut(&[CertificateDer<'static>]) -> Result<(), String> + Send>;

/// The inputs that are read at each attempt.
pub struct Inputs {
    /// The authority's roots in PEM.
    pub roots: ReadFile<Vec<u8>>,
    /// The token, if one is configured.
    pub token: Option<ReadFile<Zeroizing<String>>>,
    /// Keeps a new token for the next start, if one is wanted.
    pub keep_token: Option<KeepToken>,
    /// Keeps the roots that the authority hands out for the next start, if that is wanted.
    pub keep_roots: Option<KeepRoots>,
    /// The kind of key for the next request.
    pub key_type: Box<dyn Fn() -> KeyType + Send>,
    /// The bundles of foreign trust domains that the configuration names, as they are now.
    pub foreign: watch::Receiver<Foreign>,
    /// How many live connections rest on each root, which is named by the SHA-256 of its certificate in hexadecimal.
    pub connections: Box<dyn Fn() -> BTreeMap<Arc<String>, u64> + Send>,
}

/// Gets certificates from an authority for as long as it runs.
pub struct CaAgent {
    settings: CaClient,
    validator: Validator,
    inputs: Inputs,
    publisher: Publisher,
    schedule: Schedule,
    started: Instant,
    /// Handed out by the authority, at least once.
    bundles: Option<Bundles>,
    issued: Option<IssuedSvid>,
    /// The last call with the SVID was refused; the next one uses the token.
    svid_refused: bool,
    /// From when on a new token is asked for, in Unix time.
    token_due_unix: i64,
}

impl CaAgent {
    /// Sends nothing before [`run`](Self::run). `changed` is called after each new set of credentials.
    pub fn new(
        settings: CaClient,
        rules: IdentityRules,
        clock: Clock,
        inputs: Inputs,
        sink: CredentialSink,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> (Self, RenewalMonitor) {
        let monitor = RenewalMonitor::new(format!("the certificate authority at {}", settings.address));
        let agent = Self {
            schedule: Schedule::new(jitter_seed(), settings.environment.renewal),
            publisher: Publisher::new(sink, monitor.clone(), Box::new(changed)),
            started: Instant::now(),
            bundles: None,
            issued: None,
            svid_refused: false,
            token_due_unix: i64::MIN,
            validator: Validator { rules, clock, configured: inputs.foreign.clone() },
            settings,
            inputs,
        };
        (agent, monitor)
    }

    /// Requests, renews and polls; never returns.
    pub async fn run(mut self) {
        let authority = match CaEndpoint::new(&self.settings, self.validator.clock.clone()) {
            Ok(authority) => authority,
            Err(error) => {
                // A configuration error: retrying cannot help.
                self.publisher.failed(self.now().monotonic, &error, None);
                return std::future::pending().await;
            }
        };
        let mut foreign = self.inputs.foreign.clone();
        let monitor = self.publisher.monitor().clone();
        let mut watched = true;
        loop {
            let now = self.now();
            monitor.renews_at(self.schedule.renewal_unix(now));
            match self.schedule.next(now) {
                Action::Fetch => {
                    self.renew(&authority).await;
                    self.keep_for_next_start(&authority).await;
                }
                Action::Poll => {
                    self.poll(&authority).await;
                    self.keep_for_next_start(&authority).await;
                }
                Action::Wait(wait) => tokio::select! {
                    () = sleep(wait) => {}
                    () = monitor.renewal_requested() => { let now = self.now(); self.schedule.retry_now(now); }
                    changed = foreign.changed(), if watched => {
                        // Without a sender there are no such files.
                        watched = changed.is_ok();
                        if watched { self.foreign_changed(); }
                    }
                },
            }
        }
    }

    fn now(&self) -> Now {
        Now { unix: self.validator.clock.now_unix(), monotonic: self.started.elapsed() }
    }

    async fn renew(&mut self, authority: &CaEndpoint) {
        let by_svid = self.publisher.reader().current().is_ok() && !self.svid_refused;
        match self.fetch(authority).await {
            Ok(()) => {
                self.svid_refused = false;
                if !by_svid {
                    self.token_due_unix = i64::MIN;
                }
            }
            Err(error) => {
                // If the SVID was refused, the next attempt uses the token and the one after it the SVID again.
                let refused = matches!(error.reason(), "unauthenticated" | "tls" | "connection");
                self.svid_refused = by_svid && refused && self.inputs.token.is_some();
                let now = self.now();
                let wait = self.schedule.failed(now, error.kind());
                self.publisher.failed(now.monotonic, &error, Some(wait));
            }
        }
    }

    /// One renewal: certificate, then bundles, then both are validated together and put in force.
    async fn fetch(&mut self, authority: &CaEndpoint) -> Result<(), FetchError> {
        let file = self.file_roots()?;
        let credentials = self.call_credentials()?;
        let (kind, id) = ((self.inputs.key_type)(), self.validator.rules.expected_own_id.clone());
        // RSA takes seconds on a slow machine.
        let made = tokio::task::spawn_blocking(move || KeyAndCsr::new(kind, &id)).await;
        let KeyAndCsr { key, csr } = made.map_err(|error| FetchError::Local {
            reason: "key",
            message: format!("cannot make a key: {error}"),
            missing: false,
        })??;
        let usage = self.usage();
        let request = CertificateRequest { csr, ttl: self.settings.ttl_in_force().0 };
        let roots = self.authority_roots(&file);
        let answer = authority.create_certificate(roots.clone(), &credentials, &usage, request).await?;
        let issued = self.parse_answer(&answer, key)?;

        // Validate it with the current roots before it is presented to a server.
        let mut trusted = self.validator.configured(&file, &issued);
        trusted.extend(self.bundles.iter().flat_map(|bundles| bundles.own.iter().cloned()));
        let provisional = self.validator.validate(&issued, &Roots::Configured(trusted))?;
        let not_before = provisional.svid().leaf.not_before_unix;
        let credentials = CallCredentials::Svid(Arc::new(provisional));
        let now = self.now();
        let roots = match authority.trust_bundles(roots, &credentials, &usage).await {
            Ok(Some(answer)) => {
                let hint = Duration::from_secs(answer.refresh_hint_seconds.into());
                let bundles = Bundles::read(answer, &self.validator.rules)?;
                self.schedule.polled(now, Some(hint));
                self.publisher.polled();
                Roots::HandedOut(bundles)
            }
            Ok(None) if self.bundles.is_none() => {
                self.schedule.polled(now, None);
                Roots::Configured(self.validator.configured(&file, &issued))
            }
            // Bundles that the CA once handed out stay in force if it stops handing them out.
            other => {
                if let Err(error) = &other {
                    self.publisher.poll_failed(error);
                }
                self.schedule.poll_failed(now);
                self.bundles
                    .clone()
                    .map_or_else(|| Roots::Configured(self.validator.configured(&file, &issued)), Roots::HandedOut)
            }
        };
        let credentials = self.validator.validate(&issued, &roots)?;
        let not_after = credentials.not_after_unix();
        self.publisher.publish(credentials);
        self.schedule.fetched(self.now(), not_before, not_after);
        self.issued = Some(issued);
        if let Roots::HandedOut(bundles) = roots {
            self.bundles = Some(bundles);
        }
        Ok(())
    }

    /// Splits an answer into the chain and, in the last text, the roots.
    fn parse_answer(
        &self,
        answer: &[String],
        key: Zeroizing<PrivateKeyDer<'static>>,
    ) -> Result<IssuedSvid, FetchError> {
        let read = |texts: &[String]| {
            certificates(&chain_pem(texts)?)
                .map_err(|error| AnswerError::Credentials(CredentialError::Pem { file: FileRole::Certificate, error }))
        };
        let mut chain = read(answer)?;
        let last = match answer.split_last() {
            Some((last, before)) if !before.is_empty() => read(std::slice::from_ref(last)).unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut offered = Vec::new();
        if self.validator.are_roots(answer.len(), &last) {
            offered = chain.split_off(chain.len().saturating_sub(last.len()));
        }
        Ok(IssuedSvid { chain, offered, key })
    }

    /// Asks for the bundles alone; new ones are put in force beside the certificate that we have.
    async fn poll(&mut self, authority: &CaEndpoint) {
        let polled = self.fetch_bundles(authority).await;
        let now = self.now();
        match polled {
            Ok(Some(hint)) => {
                self.publisher.polled();
                self.schedule.polled(now, Some(hint));
            }
            Ok(None) => self.schedule.poll_failed(now),
            Err(error) => {
                self.publisher.poll_failed(&error);
                self.schedule.poll_failed(now);
            }
        }
    }

    async fn fetch_bundles(&mut self, authority: &CaEndpoint) -> Result<Option<Duration>, FetchError> {
        // Without a valid SVID a renewal is due anyway, and brings the bundles along.
        let Ok(current) = self.publisher.reader().current() else { return Ok(None) };
        let file = self.file_roots()?;
        let roots = self.authority_roots(&file);
        let usage = self.usage();
        let Some(answer) = authority.trust_bundles(roots, &CallCredentials::Svid(current), &usage).await? else {
            return Ok(None);
        };
        let hint = Duration::from_secs(answer.refresh_hint_seconds.into());
        let bundles = Bundles::read(answer, &self.validator.rules)?;
        if self.bundles.as_ref() != Some(&bundles) {
            self.adopt(bundles)?;
        }
        Ok(Some(hint))
    }

    /// New bundles beside the old certificate. If that does not rest on them any more, both must be new.
    fn adopt(&mut self, bundles: Bundles) -> Result<(), FetchError> {
        let Some(issued) = &self.issued else { return Ok(()) };
        match self.validator.validate(issued, &Roots::HandedOut(bundles.clone())) {
            Ok(credentials) => {
                self.publisher.publish_bundles(credentials);
                self.bundles = Some(bundles);
                Ok(())
            }
            Err(error) => {
                let now = self.now();
                // While renewals also fail, their backoff decides.
                if self.schedule.failures() == 0 {
                    self.schedule.retry_now(now);
                }
                Err(error.into())
            }
        }
    }

    /// The files of foreign domains are different now.
    fn foreign_changed(&mut self) {
        if let Err(error) = self.revalidate() {
            self.publisher.poll_failed(&error);
        }
    }

    /// Validates the current certificate again, with new foreign bundles.
    fn revalidate(&mut self) -> Result<(), FetchError> {
        let file = self.file_roots()?;
        let Some(issued) = &self.issued else { return Ok(()) };
        let roots = match &self.bundles {
            Some(bundles) => Roots::HandedOut(bundles.clone()),
            None => Roots::Configured(self.validator.configured(&file, issued)),
        };
        let credentials = self.validator.validate(issued, &roots)?;
        self.publisher.publish_bundles(credentials);
        Ok(())
    }

    /// The roots that the CA's server certificate is verified against: the file, and the mesh roots in force, since the file may be
    /// older than the last change of roots.
    fn authority_roots(&self, file: &[CertificateDer<'static>]) -> Vec<CertificateDer<'static>> {
        let mut roots = file.to_vec();
        roots.extend(self.bundles.iter().flat_map(|bundles| &bundles.own).filter(|root| !file.contains(root)).cloned());
        roots
    }

    fn file_roots(&mut self) -> Result<Vec<CertificateDer<'static>>, FetchError> {
        let text = (self.inputs.roots)();
        let read = text.and_then(|text| certificates(&text).map_err(|error| error.to_string()));
        let missing = !self.settings.trust_bundle.exists();
        read.map_err(|why| FetchError::Local {
            reason: "trust-bundle-file",
            message: format!("trustBundle: {why}"),
            missing,
        })
    }

    /// The usage report for the CA.
    fn usage(&self) -> Usage {
        Usage { bundle_digest: self.digest(), connections: (self.inputs.connections)() }
    }

    /// Which bundles are in force, as the authority can know them: without domains that only a file of ours names.
    fn digest(&self) -> Option<String> {
        let latest = self.publisher.reader().latest()?;
        let handed_out = |domain: &TrustDomain| {
            let mut foreign = self.bundles.iter().flat_map(|bundles| &bundles.foreign);
            *domain == self.validator.rules.trust_domain || foreign.any(|(name, _)| name == domain)
        };
        let bundles = latest.trust().iter().filter(|(domain, _)| handed_out(domain));
        Some(bundle_digest(bundles.map(|(domain, bundle)| (domain, bundle.roots().map(|root| root.der())))))
    }

    /// Our SVID while it is valid, else the token.
    fn call_credentials(&mut self) -> Result<CallCredentials, FetchError> {
        let current = self.publisher.reader().current();
        match (current, &mut self.inputs.token) {
            (Ok(svid), None) => Ok(CallCredentials::Svid(svid)),
            (Ok(svid), Some(_)) if !self.svid_refused => Ok(CallCredentials::Svid(svid)),
            (_, Some(token)) => {
                let read = token().map_err(|why| format!("tokenFile: {why}"));
                let missing = self.settings.token_file.as_ref().is_some_and(|path| !path.exists());
                read.map(CallCredentials::Token).map_err(|message| FetchError::Local {
                    reason: "token-file",
                    message,
                    missing,
                })
            }
            (Err(why), None) => Err(FetchError::Local {
                reason: "no-proof",
                message: format!("{why}, and there is no tokenFile; write one into identity.ca"),
                missing: false,
            }),
        }
    }
}
