//! The ports of a ServiceEntry.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// The number that stands for every port of a service that lists none, but those that policies or rules name.
pub const EVERY_PORT: u16 = 0;

/// One of `spec.ports`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PortSpec {
    /// The port that clients dial.
    pub number: u16,
    /// Its name; endpoints may map it to a port of theirs.
    pub name: Arc<str>,
    /// What it is said to carry. All protocols are carried as bytes.
    pub protocol: Protocol,
    /// The port on which endpoints listen; absent, it is `number`.
    pub target_port: Option<u16>,
}

impl PortSpec {
    /// A port of a service that lists none.
    pub(super) fn unlisted(number: u16) -> Self {
        let name = if number == EVERY_PORT { "every-port".into() } else { format!("port-{number}").into() };
        Self { number, name, protocol: Protocol::Tcp, target_port: None }
    }
}

/// `protocol` of a port.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Anything; the default.
    #[default]
    Tcp,
    /// HTTP/1.1.
    Http,
    /// HTTP over TLS of the app.
    Https,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// TLS of the app.
    Tls,
    /// MongoDB.
    Mongo,
}

impl Protocol {
    /// Every protocol with Istio's name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("TCP", Self::Tcp),
        ("HTTP", Self::Http),
        ("HTTPS", Self::Https),
        ("HTTP2", Self::Http2),
        ("GRPC", Self::Grpc),
        ("TLS", Self::Tls),
        ("MONGO", Self::Mongo),
    ];

    /// Whether it names the host that is asked for, so that hosts can share an address in Istio.
    #[must_use]
    pub const fn names_host(self) -> bool {
        !matches!(self, Self::Tcp | Self::Mongo)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, protocol)| protocol == self).map_or("TCP", |(name, _)| name);
        f.write_str(name)
    }
}
