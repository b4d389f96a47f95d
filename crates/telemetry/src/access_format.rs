//! The formats of the access log.

/// The form of the access log. Whether lines are written at all is also the log filter's say, by their target `access`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AccessLog {
    /// ztunnel's fields and ours, as log lines like any other.
    #[default]
    Ztunnel,
    /// Envoy's default text, as Istio's sidecars write it.
    Envoy,
    /// The same fields as one JSON object a line.
    EnvoyJson,
    /// None.
    Off,
}

impl AccessLog {
    pub(crate) const fn names_upstream(self) -> bool {
        matches!(self, Self::Envoy | Self::EnvoyJson)
    }
}
