//! What inbound connections share, whatever carries them: which app they are for, the decision of the policies, the dial.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_config::{IdentityTlv, InboundPort, Protocol};
use portcullis_net::admission::{CountLimit, CountPermit};
use portcullis_net::is_own_address;
use portcullis_policy::{self as policy, EffectivePolicy, Mode};
use portcullis_telemetry::{ConnRecord, Ending};
use portcullis_tls::PathSummary;
use portcullis_wire::{Opening, proxy_v2};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::authorization::{self, Observed};
use crate::changes::ChangeWatch;
use crate::outcome::{self, DialTarget, Reason};
use crate::relay::{check_trust, dial};
use crate::state::ProxyState;

/// What brings a connection here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Carrier {
    /// A TCP connection of its own.
    Tcp,
    /// A tunnel, which has authenticated the peer whatever the port's mode is.
    Hbone,
}

impl Carrier {
    /// The mode as AuthorizationPolicies see it. Under DISABLE a TCP connection is not inspected; a tunnel has an identity all the
    /// same, and is treated as under PERMISSIVE, as in Istio's ambient mesh.
    const fn mode(self, mode: Mode) -> Mode {
        match (self, mode) {
            (Self::Hbone, Mode::Disable) => Mode::Permissive,
            (Self::Tcp | Self::Hbone, mode) => mode,
        }
    }
}

/// Where a connection goes.
pub(crate) struct AppTarget {
    pub(crate) port: u16,
    pub(crate) app: SocketAddr,
    pub(crate) server_first: bool,
    /// The app expects a PROXY header.
    pub(crate) send_proxy_header: bool,
}

impl AppTarget {
    /// The app of a configured port.
    pub(crate) fn of_port(port: &InboundPort) -> Self {
        Self {
            port: port.port,
            app: port.app,
            server_first: port.protocol == Protocol::ServerFirst,
            send_proxy_header: port.proxy_protocol,
        }
    }

    /// The app at an address that a peer names. A port of this proxy is refused, and an address that only this host may reach.
    pub(crate) fn of_destination(state: &ProxyState, destination: SocketAddr) -> Result<Self, Ending> {
        let (inbound, port) = (&state.settings.inbound, destination.port());
        if state.is_own_port(port) {
            return Err(Ending::new(Reason::Loop, None));
        }
        // A neighbour can route packets to us that are meant for other hosts, or for loopback. The redirect applies before the
        // kernel would drop them, and our dial would reach what listens for this host alone.
        let local_only = destination.ip().is_loopback() || destination.ip().is_unspecified();
        if local_only || !is_own_address(destination).unwrap_or(false) {
            return Err(Ending::new(Reason::ForeignDestination, Some(destination.to_string())));
        }
        Ok(Self {
            port,
            app: inbound.apps.get(&port).copied().unwrap_or(destination),
            server_first: inbound.server_first_ports.contains(&port),
            send_proxy_header: inbound.proxy_protocol_ports.contains(&port),
        })
    }
}

/// Returns an ending if the policy and the credentials now in force would refuse a new connection like this one.
pub(crate) fn reauthorize(
    state: &ProxyState,
    record: &mut ConnRecord,
    port: u16,
    carrier: Carrier,
    path: Option<&PathSummary>,
) -> Option<Ending> {
    let policy = state.policy.load();
    let decided = policy.mode(port);
    if !policy::admit(decided.mode, record.peer.is_some()) {
        record.mode = decided.mode.as_str();
        record.policy = Arc::clone(&decided.label);
        return Some(Ending::new(Reason::PolicyChanged, None));
    }
    if let Some(refused) = authorization::check(&policy, carrier.mode(decided.mode), record, port) {
        record.mode = decided.mode.as_str();
        return Some(Ending::new(Reason::PolicyChanged, refused.error));
    }
    check_trust(state, record, path?)
}

/// The way of one connection to its app.
pub(crate) struct ToApp<'a> {
    pub(crate) state: &'a ProxyState,
    /// The policy of the snapshot that the connection is decided with.
    pub(crate) policy: &'a EffectivePolicy,
    /// Reports every change after that snapshot.
    pub(crate) changes: &'a ChangeWatch,
    pub(crate) target: &'a AppTarget,
    /// The limit of the listener, or of the port.
    pub(crate) limit: &'a CountLimit,
    pub(crate) carrier: Carrier,
}

/// An app that an authorized connection has reached.
pub(crate) struct ReachedApp {
    pub(crate) app: TcpStream,
    /// To be held as long as the connection is open.
    pub(crate) permit: CountPermit,
}

impl ToApp<'_> {
    /// Asks policies that are not enforced.
    pub(crate) fn observe(&self, record: &ConnRecord, opening: Option<Opening>, allowed: bool) {
        Observed { record, port: self.target.port, opening, allowed }.report(self.policy);
    }

    /// Authorizes, and connects to the app, unless it was dialled already. `opening` is `None` if it was not inspected.
    pub(crate) async fn reach(
        &self,
        record: &mut ConnRecord,
        opening: Option<Opening>,
        path: Option<&PathSummary>,
        dialled: Option<TcpStream>,
    ) -> Result<ReachedApp, Ending> {
        let port = self.target.port;
        let mode = self.carrier.mode(self.policy.mode(port).mode);
        let refused = authorization::check(self.policy, mode, record, port);
        self.observe(record, opening, refused.is_none());
        // The handshake may have taken seconds: what came into force meanwhile counts before the app is dialled.
        let refused = match refused {
            None if self.changes.has_changed() => reauthorize(self.state, record, port, self.carrier, path),
            refused => refused,
        };
        if let Some(refused) = refused {
            return Err(refused);
        }
        // Only now: a limit of the listener counts authorized connections, so that silent ones cannot use it up.
        let permit = self.limit.try_acquire().ok_or_else(|| Ending::new(Reason::TooManyOnListener, None))?;
        let app = match dialled {
            Some(app) => app,
            None => self.dial().await?,
        };
        let app = if self.target.send_proxy_header { self.send_proxy_header(record, app).await? } else { app };
        Ok(ReachedApp { app, permit })
    }

    /// Sends the PROXY header, before any byte of the client.
    async fn send_proxy_header(&self, record: &ConnRecord, mut app: TcpStream) -> Result<TcpStream, Ending> {
        let peer = record.peer.as_ref().zip(record.tls_version());
        let id_type = match self.state.settings.inbound.proxy_protocol_identity {
            IdentityTlv::Portcullis => proxy_v2::PP2_TYPE_SPIFFE_ID,
            IdentityTlv::Ztunnel => proxy_v2::PP2_TYPE_ZTUNNEL_ID,
        };
        let peer = peer.map(|(id, tls_version)| proxy_v2::Peer { spiffe_id: id.as_str(), id_type, tls_version });
        let destination = record.dst_addr.ok_or_else(|| outcome::no_original_destination(None))?;
        let unwritable = |error: &std::io::Error| outcome::unreachable(DialTarget::App, self.target.app, error);
        let header = proxy_v2::header(record.src_addr, destination, peer)
            .ok_or_else(|| unwritable(&std::io::ErrorKind::InvalidData.into()))?;
        match timeout(self.state.settings.timeouts.connect, app.write_all(&header)).await {
            Ok(written) => written.map_err(|error| unwritable(&error))?,
            Err(_elapsed) => return Err(unwritable(&std::io::ErrorKind::TimedOut.into())),
        }
        Ok(app)
    }

    pub(crate) async fn dial(&self) -> Result<TcpStream, Ending> {
        let app = self.target.app;
        dial(app, self.state.settings.timeouts.connect)
            .await
            .map_err(|error| outcome::unreachable(DialTarget::App, app, &error))
    }
}
