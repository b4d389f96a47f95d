//! Startup, the accept loop, and graceful shutdown of the CA.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis_ca::state::{Options, StateError, Store};
use portcullis_ca::{DefaultLifetimes, ServerName};
use portcullis_net::admission::EvictingSlots;
use portcullis_reload::Monitor;
use portcullis_tls::{Clock, utc};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::audit::Audit;
use crate::audit_file::{AUDIT, SIZE_LIMIT};
use crate::ca_state::{Ca, CaState};
use crate::metrics::Metrics;
use crate::reload::{self, Watchers};
use crate::service::Services;
use crate::{bootstrap, connection, control, descriptors, plain, recovery, rotate};

/// Delay after a failed accept, such as for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the server certificate is checked for renewal.
const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// The time limit for open connections at shutdown.
const DRAIN: Duration = Duration::from_secs(12);

/// The configuration of a CA.
#[derive(Clone, Debug)]
pub struct Config {
    /// The CA's folder.
    pub dir: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The names that callers find this CA under.
    pub names: Vec<ServerName>,
    /// Where to keep a fresh token for each identity.
    pub bootstrap: Option<PathBuf>,
    /// Where to serve metrics and readiness.
    pub metrics: Option<SocketAddr>,
    /// Lifetimes that hold where neither the registrations nor the resources say any.
    pub default_lifetimes: DefaultLifetimes,
    /// The clock for issuing and verifying certificates and tokens.
    pub clock: Clock,
}

/// Why a CA does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The content of the folder cannot be used.
    #[error("{0}")]
    Folder(String),
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// An address cannot be listened on, or a file cannot be opened.
    #[error("{what}: {error}")]
    Io {
        /// Which one.
        what: String,
        /// The error.
        error: io::Error,
    },
}

/// A CA that is ready to serve.
pub struct CaServer {
    listener: TcpListener,
    metrics: Option<TcpListener>,
    control: UnixListener,
    socket: PathBuf,
    services: Arc<Services>,
    bootstrap: Option<PathBuf>,
    registered: Arc<Notify>,
    watchers: Watchers,
}

impl std::fmt::Debug for CaServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaServer").field("listen", &self.address().ok()).finish_non_exhaustive()
    }
}

impl CaServer {
    /// Reads the folder, locks its state for this process, and binds. Needs a runtime.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let Config { dir, listen, names, bootstrap, metrics, default_lifetimes, clock } = config;
        let registrations = reload::registrations(&dir).map_err(StartError::Folder)?;
        // First, so that no other process changes the rotation.
        let store = Store::open(&dir.join("state"), Options::default())?;
        let reload::InForce { signer, server, rotation } =
            rotate::resume(&dir, registrations.trust_domain.as_ref(), &clock).map_err(StartError::Folder)?;
        reload::check_consistency(&registrations, signer.trust_domain()).map_err(StartError::Folder)?;
        let foreign = reload::foreign(&registrations, clock.now_unix()).map_err(StartError::Folder)?;
        let tokens = reload::token_key(&dir, signer.trust_domain()).map_err(StartError::Folder)?;
        let failed = |what: String| move |error| StartError::Io { what, error };
        let audit_path = dir.join(AUDIT);
        let audit = Audit::open(&audit_path, SIZE_LIMIT).map_err(failed(audit_path.display().to_string()))?;
        let advertised = names.first().map(|name| match name {
            ServerName::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            ServerName::Ip(ip) => ip.to_string(),
            ServerName::Dns(name) => name.clone(),
        });
        let names = with_own(names, listen.ip());
        tracing::info!(
            trust_domain = %signer.trust_domain(), identities = registrations.iter().count(),
            signs_until = utc(signer.not_after_unix()), roots = signer.roots().roots().count(), ?names, "certificate authority"
        );
        if signer.signs_as_root() {
            tracing::warn!(
                "the root itself signs, so its key is online: an attacker who takes it can impersonate any workload until the root \
                 is no longer trusted; `portcullis ca init` makes an intermediate"
            );
        }
        if let Some(rotation) = &rotation {
            tracing::info!(phase = rotation.phase.name(), "the root is being rotated");
        }
        let ca = Ca::new(signer, server, &names, &clock).map_err(StartError::Folder)?;
        let listener = TcpListener::bind(listen).await.map_err(failed(format!("cannot listen on {listen}")))?;
        let mut state = CaState::new(ca, registrations, foreign, tokens, names, rotation, clock);
        state.advertised = advertised.zip(listener.local_addr().ok()).map(|(name, at)| format!("{name}:{}", at.port()));
        let state = Arc::new(state);
        let metrics_listener = match metrics {
            Some(at) => {
                Some(TcpListener::bind(at).await.map_err(failed(format!("cannot listen on {at} for metrics")))?)
            }
            None => None,
        };
        let socket = dir.join(control::SOCKET);
        let control = control::bind(&socket).map_err(failed(socket.display().to_string()))?;
        let registered = Arc::new(Notify::new());
        let notify = Arc::clone(&registered);
        let watchers =
            reload::watch(&dir, &state, default_lifetimes, move || notify.notify_one()).map_err(StartError::Folder)?;
        let metrics = Metrics::new().map_err(|error| StartError::Folder(error.to_string()))?;
        let services = Arc::new(Services::new(dir, state, Arc::new(store), Arc::new(audit), metrics));
        Ok(Self { listener, metrics: metrics_listener, control, socket, services, bootstrap, registered, watchers })
    }

    /// A handle to reload all files.
    #[must_use]
    pub fn reload(&self) -> Reload {
        Reload { monitors: self.watchers.monitors(), audit: Arc::clone(&self.services.audit) }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where it serves metrics, if it does.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `end` completes, then drains requests in flight.
    pub async fn serve(self, end: impl Future<Output = ()>) {
        let Self { listener, metrics, control, socket, services, bootstrap, registered, watchers: _watchers } = self;
        let (ending, drain) = watch::channel(false);
        let mut background = JoinSet::new();
        if let Some(metrics) = metrics {
            background.spawn(plain::serve(metrics, Arc::clone(&services)));
        }
        background.spawn(control::serve(control, Arc::clone(&services)));
        background.spawn(recovery::run(Arc::clone(&services)));
        background.spawn(renew(Arc::clone(&services.state)));
        if let Some(folder) = bootstrap {
            background.spawn(bootstrap::keep(folder, Arc::clone(&services), registered));
        }
        let slots = EvictingSlots::new(descriptors::connections());
        let mut connections = JoinSet::new();
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => accept(&mut connections, stream, address, &services, &slots, &drain),
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_ended) = connections.join_next() => {}
                () = end.as_mut() => break,
            }
        }
        drop(listener);
        // All receivers may be gone.
        let _sent = ending.send(true);
        let all = async { while connections.join_next().await.is_some() {} };
        let forced = tokio::time::timeout(DRAIN, all).await.is_err();
        let _gone = std::fs::remove_file(socket);
        tracing::info!(forced, "ended");
    }
}

/// Reloads all files on request.
#[derive(Clone)]
pub struct Reload {
    monitors: Vec<Monitor>,
    audit: Arc<Audit>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

impl Reload {
    /// Has the files of the folder read at once, also those that were refused before, and goes on in a new audit file if the
    /// one that is written to was moved away. Returns before that is done.
    pub fn now(&self) {
        self.monitors.iter().for_each(Monitor::reload_now);
        match self.audit.reopen() {
            Ok(true) => tracing::info!("the audit goes on in a new file"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the audit file cannot be opened again; the old one is written to"),
        }
    }
}

fn accept(
    connections: &mut JoinSet<()>,
    stream: TcpStream,
    address: SocketAddr,
    services: &Arc<Services>,
    slots: &Arc<EvictingSlots>,
    drain: &watch::Receiver<bool>,
) {
    let slot = slots.acquire(address.ip());
    let config = Arc::clone(&services.state.ca().tls);
    let mut drain = drain.clone();
    let ending = async move {
        // The sender is dropped only when everything ends.
        let _ended = drain.wait_for(|ending| *ending).await;
    };
    connections.spawn(connection::serve(stream, address, config, Arc::clone(services), slot, ending));
}

async fn renew(state: Arc<CaState>) {
    loop {
        tokio::time::sleep(RENEWAL_CHECK).await;
        match state.renew_server_certificate(state.clock.now_unix()) {
            Ok(true) => tracing::info!("renewed the server certificate"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the server certificate cannot be renewed"),
        }
    }
}

/// The names that were given, and those that are right in any case: loopback, and the address that is listened on.
fn with_own(mut names: Vec<ServerName>, listen: IpAddr) -> Vec<ServerName> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(ServerName::Ip);
    let own = Some(listen).filter(|ip| !ip.is_unspecified()).map(ServerName::Ip);
    for name in loopback.into_iter().chain(own).chain([ServerName::Dns("localhost".to_owned())]) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
