//! `/config_dump`, as far as commands read it.

use serde::{Deserialize, Serialize};

use crate::{DecidingPolicy, Mode};

/// What listens, and what is trusted how.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigDump {
    /// `inbound`.
    pub inbound: InboundListeners,
    /// `outbound`.
    pub outbound: OutboundListeners,
    /// `gateway`.
    pub gateway: GatewayListeners,
    /// `health`.
    pub health: Listener,
    /// `metrics`.
    pub metrics: Listener,
    /// The mode of each port.
    pub modes: Modes,
    /// `tls`.
    pub tls: TlsSettings,
}

/// An address that is listened on, or none.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Listener {
    /// The address.
    pub listen: Option<String>,
}

/// Listeners for peers.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct InboundListeners {
    /// Explicit ports.
    pub ports: Vec<InboundListener>,
    /// The listener for captured connections.
    pub transparent: Option<String>,
}

/// An explicit port.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct InboundListener {
    /// The address that peers dial.
    pub listen: String,
    /// The port of the workload, which policies name.
    pub port: u16,
    /// Where the app listens.
    pub app: String,
}

/// Listeners for the app.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutboundListeners {
    /// Each with its destination.
    pub upstreams: Vec<Upstream>,
    /// The listener for captured connections.
    pub transparent: Option<String>,
    /// Destinations of captured connections.
    pub routes: Vec<Route>,
    /// `ALLOW_ANY` or `REGISTRY_ONLY`.
    pub traffic_policy: String,
}

/// A listener with its destination, or a route of a gateway listener.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Upstream {
    /// The address that is listened on; empty in a route.
    pub listen: String,
    /// Server names of a gateway route; none takes all.
    pub hosts: Vec<String>,
    /// The destination.
    pub address: String,
    /// `mtls`, `plaintext` or `auto`.
    pub mode: String,
    /// The name of the service.
    pub service: Option<String>,
}

/// Destinations of captured connections that are reached in one way.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Route {
    /// By name.
    pub hosts: Vec<String>,
    /// By address.
    pub cidrs: Vec<String>,
    /// Only these ports; none means all.
    pub ports: Vec<u16>,
    /// `mtls` or `plaintext`.
    pub mode: String,
    /// The name of the service.
    pub service: Option<String>,
}

/// Listeners for clients outside of the mesh.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct GatewayListeners {
    /// All of them.
    pub listeners: Vec<GatewayListener>,
}

/// One of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct GatewayListener {
    /// The address.
    pub listen: String,
    /// Its TLS, if it has any.
    pub tls: Option<GatewayTls>,
    /// Its routes.
    pub routes: Vec<Upstream>,
}

/// TLS of a gateway listener.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct GatewayTls {
    /// `SIMPLE` or `MUTUAL`.
    pub mode: String,
}

/// The mode of each port that something names, and of all others.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Modes {
    /// Ports by number.
    pub ports: Vec<DecidedMode>,
    /// Every other port.
    pub other_ports: DecidedMode,
}

/// A mode, and what decides it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DecidedMode {
    /// The port; none for all others.
    pub port: Option<u16>,
    /// Its mode.
    pub mode: Mode,
    /// What decides.
    pub decided_by: DecidingPolicy,
}

/// `tls`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct TlsSettings {
    /// Checks that are relaxed.
    pub compat: TlsCompat,
}

/// `tls.compat`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsCompat {
    /// Of the extended key usage.
    pub eku: bool,
    /// Of the key usage.
    pub ku_critical: bool,
}
