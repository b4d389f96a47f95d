//! The kinds of resources, by the names that kubectl knows.

use std::fmt;

/// A kind that a policy folder holds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ResourceKind {
    /// `security.istio.io`.
    PeerAuthentication,
    /// `security.istio.io`.
    AuthorizationPolicy,
    /// `networking.istio.io`.
    ServiceEntry,
    /// `networking.istio.io`.
    WorkloadEntry,
    /// `networking.istio.io`.
    DestinationRule,
}

impl ResourceKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::PeerAuthentication,
        Self::AuthorizationPolicy,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::DestinationRule,
    ];

    /// As `kind:` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeerAuthentication => "PeerAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::DestinationRule => "DestinationRule",
        }
    }

    /// The API group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::PeerAuthentication | Self::AuthorizationPolicy => "security.istio.io",
            Self::ServiceEntry | Self::WorkloadEntry | Self::DestinationRule => "networking.istio.io",
        }
    }

    /// kubectl's short name.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::PeerAuthentication => "pa",
            Self::AuthorizationPolicy => "ap",
            Self::ServiceEntry => "se",
            Self::WorkloadEntry => "we",
            Self::DestinationRule => "dr",
        }
    }

    /// In lower case, as `kubectl apply` prints it.
    #[must_use]
    pub fn singular(self) -> String {
        self.name().to_lowercase()
    }

    /// In lower case, as errors of the API server name it.
    #[must_use]
    pub fn plural(self) -> String {
        let singular = self.singular();
        singular.strip_suffix('y').map_or_else(|| format!("{singular}s"), |stem| format!("{stem}ies"))
    }

    /// By any name that kubectl takes: short, singular or plural, in any letter case, with the group or without it.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        let text = text.to_lowercase();
        Self::ALL.into_iter().find(|kind| {
            let plain = text.strip_suffix(kind.group()).and_then(|text| {
                // `peerauthentications.v1.security.istio.io` has the version too.
                let text = text.strip_suffix('.')?;
                Some(text.split_once('.').map_or(text, |(name, _version)| name))
            });
            let plain = plain.unwrap_or(&text);
            plain == kind.short() || plain == kind.singular() || plain == kind.plural()
        })
    }

    /// By `kind:` and `apiVersion:` of a document.
    #[must_use]
    pub fn of(kind: &str, api_version: &str) -> Option<Self> {
        let group = api_version.split_once('/').map_or("", |(group, _version)| group);
        Self::ALL.into_iter().find(|known| known.name() == kind && known.group() == group)
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_the_names_that_kubectl_takes() {
        for name in [
            "pa",
            "peerauthentication",
            "peerauthentications",
            "PeerAuthentication",
            "peerauthentications.security.istio.io",
            "peerauthentications.v1.security.istio.io",
        ] {
            assert_eq!(ResourceKind::named(name), Some(ResourceKind::PeerAuthentication), "{name}");
        }
        for (name, kind) in [
            ("authorizationpolicies", ResourceKind::AuthorizationPolicy),
            ("serviceentries", ResourceKind::ServiceEntry),
            ("we", ResourceKind::WorkloadEntry),
            ("destinationrules.networking.istio.io", ResourceKind::DestinationRule),
        ] {
            assert_eq!(ResourceKind::named(name), Some(kind), "{name}");
        }
        for wrong in ["", "p", "pod", "peerauthentications.networking.istio.io", "pas"] {
            assert_eq!(ResourceKind::named(wrong), None, "{wrong}");
        }
        assert_eq!(
            ResourceKind::of("PeerAuthentication", "security.istio.io/v1"),
            Some(ResourceKind::PeerAuthentication)
        );
        assert_eq!(ResourceKind::of("PeerAuthentication", "v1"), None);
    }
}
