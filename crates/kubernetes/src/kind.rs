//! The kinds that are watched: those that the policy set reads.

/// A kind of custom resource.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
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

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::PeerAuthentication,
        Self::AuthorizationPolicy,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::DestinationRule,
    ];

    /// The name, as in `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeerAuthentication => "PeerAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::DestinationRule => "DestinationRule",
        }
    }

    /// The name in paths.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::PeerAuthentication => "peerauthentications",
            Self::AuthorizationPolicy => "authorizationpolicies",
            Self::ServiceEntry => "serviceentries",
            Self::WorkloadEntry => "workloadentries",
            Self::DestinationRule => "destinationrules",
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

    /// The versions that are understood, the one to prefer first. A server converts: each served version shows the same objects, so
    /// that one of them is watched.
    #[must_use]
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::PeerAuthentication | Self::AuthorizationPolicy => &["v1", "v1beta1"],
            Self::ServiceEntry | Self::WorkloadEntry | Self::DestinationRule => &["v1", "v1beta1", "v1alpha3"],
        }
    }
}
