//! A DestinationRule: how a client reaches a host.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::directory::export::ExportTo;
use crate::directory::host::HostPattern;
use crate::directory::resource::ResourceMeta;

/// A valid DestinationRule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DestinationRule {
    /// What it is called, and where it is written.
    pub meta: ResourceMeta,
    /// `spec.host`.
    pub host: HostPattern,
    /// `spec.trafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `spec.subsets`, by name.
    pub subsets: BTreeMap<Arc<str>, SubsetSpec>,
    /// `spec.exportTo`.
    pub export_to: ExportTo,
    /// `spec.workloadSelector.matchLabels`: the clients of its own namespace for which it holds; empty for all.
    pub workload_selector: BTreeMap<String, String>,
}

/// One of `spec.subsets`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SubsetSpec {
    /// Endpoints with these labels.
    pub labels: BTreeMap<String, String>,
    /// What is different for them.
    pub traffic_policy: TrafficPolicy,
}

/// `trafficPolicy`: what holds for all ports, and what is different for some.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrafficPolicy {
    /// For all ports.
    pub settings: TrafficSettings,
    /// `portLevelSettings`, by service port.
    pub ports: BTreeMap<u16, TrafficSettings>,
}

impl TrafficPolicy {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.settings == TrafficSettings::default()
    }
}

/// Each is `None` where the document does not say it: the wider level then decides.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrafficSettings {
    /// `tls`.
    pub tls: Option<Arc<ClientTls>>,
    /// `loadBalancer.simple`.
    pub load_balancer: Option<LoadBalancer>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
}

/// `tls`: mode, with what belongs to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClientTls {
    /// Plaintext.
    Disable,
    /// TLS without a client certificate.
    Simple(ServerCheck),
    /// TLS with a client certificate from files.
    Mutual {
        /// `clientCertificate`: a path.
        certificate: Arc<str>,
        /// `privateKey`: a path.
        key: Arc<str>,
        /// How the server is checked.
        server: ServerCheck,
    },
    /// mTLS of the mesh, to every endpoint.
    IstioMutual {
        /// `subjectAltNames`; empty for those that the directory gives.
        subject_alt_names: Vec<String>,
        /// `sni`.
        sni: Option<Arc<str>>,
    },
}

/// How the certificate of a server outside of the mesh is checked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerCheck {
    /// `caCertificates`: a path; without it the roots of the system.
    pub ca: Option<Arc<str>>,
    /// `subjectAltNames`.
    pub subject_alt_names: Vec<String>,
    /// `sni`.
    pub sni: Option<Arc<str>>,
}

/// How an endpoint is chosen among equals.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LoadBalancer {
    /// The one with fewer connections of two at random. The default.
    #[default]
    LeastRequest,
    /// At random.
    Random,
    /// In turn.
    RoundRobin,
}

/// When an endpoint that fails is left out for a while.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// How many connections must fail one after the other; never with `None`. It is the smallest of the numbers that are set.
    pub consecutive_failures: Option<NonZeroU32>,
    /// How often endpoints that were left out are looked at.
    #[serde(serialize_with = "as_seconds")]
    pub interval: Duration,
    /// How long an endpoint is left out at first; longer each time.
    #[serde(serialize_with = "as_seconds")]
    pub base_ejection_time: Duration,
    /// How many endpoints may be left out at a time, from 0 to 100.
    pub max_ejection_percent: u8,
}

impl OutlierDetection {
    /// Istio's number of failures where `outlierDetection` sets none.
    pub const DEFAULT_FAILURES: NonZeroU32 = match NonZeroU32::new(5) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    };
    /// Istio's default.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
    /// Istio's default.
    pub const DEFAULT_BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
    /// Istio's default.
    pub const DEFAULT_MAX_EJECTION_PERCENT: u8 = 10;
}

fn as_seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
