//! What the configuration file means, once parsed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_identity::leaf::Compat;
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_policy::{MeshSettings, ParsedSource, Workload};

use crate::{
    AdminSocket, Gateway, Identity, IdentitySource, Inbound, Kubernetes, LedgerSettings, Outbound, Telemetry,
    UpstreamTarget,
};

/// The whole file. Paths are absolute or relative to the folder that was passed to [`read`](crate::read).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The workload that this proxy serves: `workload`.
    pub workload: Workload,
    /// The SPIFFE ID that the own certificate must carry: `workload.spiffeId`, or made from `workload`.
    pub own_id: SpiffeId,
    /// `workload.service`: the name other workloads call this one by; its own name unless given.
    pub service: String,
    /// `workload.locality`: `region/zone/subzone`; endpoints that share more of it are preferred.
    pub locality: Option<String>,
    /// `mesh`.
    pub mesh: Mesh,
    /// `policies`, or `policies.folder`: the folder of policy files; without it `mesh.defaultMode` holds everywhere.
    pub policies: Option<PathBuf>,
    /// `kubernetes`: policies and the service directory from a Kubernetes API server, besides those of the folder.
    pub kubernetes: Option<Kubernetes>,
    /// `services`: ServiceEntries of the directory; one of the policy folder with the same name replaces one of these.
    pub services: Option<ParsedSource>,
    /// `policies.candidates`: folders whose policies are evaluated for each connection, and not enforced.
    pub candidates: Vec<PathBuf>,
    /// `rescanInterval` of folders too large for the 2 s rescan.
    pub rescan: Duration,
    /// `identity`; without it no connection can be terminated, and the proxy is not ready.
    pub identity: Option<Identity>,
    /// `tls`.
    pub tls: Tls,
    /// `inbound`.
    pub inbound: Inbound,
    /// `outbound`.
    pub outbound: Outbound,
    /// `gateway`: listeners for clients outside of the mesh.
    pub gateway: Gateway,
    /// `admin.listen`: serves every path.
    pub admin: Option<SocketAddr>,
    /// `admin.socket`: a Unix socket that serves every path.
    pub admin_socket: Option<AdminSocket>,
    /// `admin.tokenFile`: a request that changes something must present its content. Without it, only loopback may change anything.
    pub admin_token: Option<PathBuf>,
    /// `health.listen`: serves readiness alone.
    pub health: Option<SocketAddr>,
    /// `metrics.listen`: serves the metrics alone.
    pub metrics: Option<SocketAddr>,
    /// `ledger`.
    pub ledger: LedgerSettings,
    /// `telemetry`: where the access log is sent besides standard output.
    pub telemetry: Telemetry,
    /// `limits`.
    pub limits: Limits,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// `drain.grace`: from the termination signal to the forced end.
    pub drain_grace: Duration,
    /// `sandbox`.
    pub sandbox: Sandbox,
    /// `workers`: data-plane threads; one for each processor unless given.
    pub workers: Option<usize>,
}

impl Settings {
    /// The bundles of foreign trust domains that are read from files: `mesh.trustBundles`.
    pub fn foreign_bundles(&self) -> impl Iterator<Item = &PathBuf> {
        self.mesh.trust_bundles.iter().map(|(_, path)| path)
    }

    /// Every file that is read for the identity, whatever its source: certificate, key, token, bundles.
    pub fn identity_files(&self) -> Vec<PathBuf> {
        let Some(identity) = &self.identity else { return Vec::new() };
        let own: Vec<&PathBuf> = match &identity.source {
            IdentitySource::Files(files) => vec![&files.certificate, &files.private_key, &files.trust_bundle],
            IdentitySource::Ca(ca) => [&ca.trust_bundle].into_iter().chain(&ca.token_file).collect(),
            IdentitySource::WorkloadApi(_) => Vec::new(),
        };
        own.into_iter().chain(self.foreign_bundles()).cloned().collect()
    }

    /// Every destination of a configured listener: `outbound.upstreams` and the routes of gateway listeners.
    pub fn upstream_targets(&self) -> impl Iterator<Item = &UpstreamTarget> {
        let gateway = self.gateway.listeners.iter().flat_map(|listener| &listener.routes).map(|route| &route.target);
        self.outbound.upstreams.iter().map(|upstream| &upstream.target).chain(gateway)
    }

    /// Every address this proxy binds, with the field that names it.
    pub fn listeners(&self) -> Vec<(String, SocketAddr)> {
        let mut all = Vec::new();
        for (index, port) in self.inbound.ports.iter().enumerate() {
            all.push((format!("inbound.ports[{index}].listen"), port.listen));
        }
        all.extend(self.inbound.transparent.map(|addr| ("inbound.transparent".to_owned(), addr)));
        all.extend(self.inbound.hbone.map(|addr| ("inbound.hbone".to_owned(), addr)));
        for (index, upstream) in self.outbound.upstreams.iter().enumerate() {
            all.push((format!("outbound.upstreams[{index}].listen"), upstream.listen));
        }
        all.extend(self.outbound.transparent.map(|addr| ("outbound.transparent".to_owned(), addr)));
        for (index, listener) in self.gateway.listeners.iter().enumerate() {
            all.push((format!("gateway.listeners[{index}].listen"), listener.listen));
        }
        all.extend(self.admin.map(|addr| ("admin.listen".to_owned(), addr)));
        all.extend(self.health.map(|addr| ("health.listen".to_owned(), addr)));
        all.extend(self.metrics.map(|addr| ("metrics.listen".to_owned(), addr)));
        all
    }
}

/// `mesh`: what all workloads share.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// `trustDomain`.
    pub trust_domain: TrustDomain,
    /// `trustDomainAliases`: other names of the same mesh; they share its bundle.
    pub aliases: Vec<TrustDomain>,
    /// `trustBundles`: foreign trust domains, each with the file of its own roots.
    pub trust_bundles: Vec<(TrustDomain, PathBuf)>,
    /// `rootNamespace`, `defaultMode`, and the names of the mesh that policies may use.
    pub policy: MeshSettings,
}

/// `tls`.
#[derive(Clone, Copy, Debug)]
pub struct Tls {
    /// `minVersion` is `"1.2"`: TLS 1.2 is accepted besides 1.3.
    pub allow_tls12: bool,
    /// `compat`: checks that are relaxed for foreign certificate authorities.
    pub compat: Compat,
}

/// `sandbox`: the privileges that the running proxy drops. Each restriction can be disabled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sandbox {
    /// `landlock`: all files but its own, every port but those that it listens on or dials.
    pub landlock: bool,
    /// `seccomp`: system calls that it does not need.
    pub seccomp: bool,
}

/// `limits`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `connections`: held at once over all listeners; derived from the descriptor limit unless given.
    pub connections: Option<usize>,
    /// `perIdentity`: inbound ones that an authenticated peer may have at once; `None`: as many as there may be in all.
    pub per_identity: Option<usize>,
    /// `handshakes`: in detection or handshake at once.
    pub handshakes: usize,
    /// `buffers`: bytes that stalled connections may hold in buffers, over all of them.
    pub buffers: usize,
}

/// `timeouts`.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// `handshake`: from accept to authorised.
    pub handshake: Duration,
    /// `connect`: one dial.
    pub connect: Duration,
    /// `idle`: no byte in either direction; `None` (written `0s`) never.
    pub idle: Option<Duration>,
    /// `halfClose`: no byte after the first FIN.
    pub half_close: Duration,
}
