//! Where a setting of `identity.ca` comes from: the file, a resource among the policies, the environment, or the default.

use std::fmt;
use std::time::Duration;

use portcullis_identity::KeyType;

use crate::CaClient;

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The configuration file.
    File,
    /// An IstioOperator among the policies.
    Resource,
    /// A variable of istio-agent.
    Environment,
    /// It is not set anywhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Resource => "resource",
            Self::Environment => "environment",
            Self::Default => "default",
        })
    }
}

impl CaClient {
    /// The key type of requests, and where it comes from; `resource` is what the policies' IstioOperators set.
    #[must_use]
    pub fn key_in_force(&self, resource: Option<KeyType>) -> (KeyType, Origin) {
        let settings = [
            (self.key_type, Origin::File),
            (resource, Origin::Resource),
            (self.environment.key_type, Origin::Environment),
        ];
        let set = settings.into_iter().find_map(|(kind, origin)| kind.map(|kind| (kind, origin)));
        set.unwrap_or_else(|| (KeyType::default(), Origin::Default))
    }

    /// The lifetime that is requested, and where it comes from. `None` leaves it to the CA.
    #[must_use]
    pub fn ttl_in_force(&self) -> (Option<Duration>, Origin) {
        match (self.ttl, self.environment.ttl) {
            (Some(ttl), _) => (Some(ttl), Origin::File),
            (None, Some(ttl)) => (Some(ttl), Origin::Environment),
            (None, None) => (None, Origin::Default),
        }
    }
}
