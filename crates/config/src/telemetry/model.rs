//! The settings of the export, as layers and in force.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::url::OtlpUrl;
use crate::defaults;

/// What one source says of the export; what it does not say is `None`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OtlpLayer {
    /// `endpoint`: `/v1/logs` is appended to its path.
    pub endpoint: Option<OtlpUrl>,
    /// `logsEndpoint`: used as it is.
    pub logs_endpoint: Option<OtlpUrl>,
    /// `headers` of each request.
    pub headers: Option<OtlpHeaders>,
    /// `protocol`.
    pub protocol: Option<OtlpProtocol>,
    /// `timeout` of one request.
    pub timeout: Option<Duration>,
    /// `certificate`: roots for an https endpoint; the system's unless given.
    pub certificate: Option<PathBuf>,
    /// `serviceName`.
    pub service_name: Option<String>,
    /// `resourceAttributes`.
    pub resource: Option<Vec<(String, String)>>,
}

/// How records are encoded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OtlpProtocol {
    /// `http/protobuf`.
    #[default]
    Protobuf,
    /// `http/json`.
    Json,
}

impl OtlpProtocol {
    /// The value of the setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Protobuf => "http/protobuf",
            Self::Json => "http/json",
        }
    }
}

/// Headers with their values, which may be secrets: only their names are shown.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct OtlpHeaders(pub(super) Vec<(String, String)>);

impl OtlpHeaders {
    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _secret)| name)).finish()
    }
}

/// The export as it is in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Otlp {
    /// Where logs are sent.
    pub endpoint: OtlpUrl,
    /// Headers of each request.
    pub headers: OtlpHeaders,
    /// How records are encoded.
    pub protocol: OtlpProtocol,
    /// For one request, from connecting to the whole answer.
    pub timeout: Duration,
    /// Roots for an https endpoint; `None`: the system's.
    pub certificate: Option<PathBuf>,
    /// `service.name`, if it is not the workload's service.
    pub service_name: Option<String>,
    /// Further attributes of the resource.
    pub resource: Vec<(String, String)>,
}

impl OtlpLayer {
    /// The settings in force: those of `over`, and these where it says nothing. `None` if neither names an endpoint.
    #[must_use]
    pub fn under(&self, over: Self) -> Option<Otlp> {
        // A base endpoint of the higher layer is above a logs endpoint of the lower one.
        let of = |layer: &Self| layer.logs_endpoint.clone().or_else(|| layer.endpoint.as_ref().map(OtlpUrl::for_logs));
        let endpoint = of(&over).or_else(|| of(self))?;
        let mut resource = self.resource.clone().unwrap_or_default();
        if let Some(named) = over.resource {
            resource.retain(|(name, _)| named.iter().all(|(other, _)| other != name));
            resource.extend(named);
        }
        let in_resource = resource.iter().find(|(name, _)| name == SERVICE_NAME).map(|(_, value)| value.clone());
        resource.retain(|(name, _)| name != SERVICE_NAME);
        Some(Otlp {
            endpoint,
            headers: over.headers.or_else(|| self.headers.clone()).unwrap_or_default(),
            protocol: over.protocol.or(self.protocol).unwrap_or_default(),
            timeout: over.timeout.or(self.timeout).unwrap_or(defaults::OTLP_TIMEOUT),
            certificate: over.certificate.or_else(|| self.certificate.clone()),
            service_name: over.service_name.or_else(|| self.service_name.clone()).or(in_resource),
            resource,
        })
    }
}

const SERVICE_NAME: &str = "service.name";
