//! What is known of a connection when it is authorized.

use std::net::IpAddr;

use portcullis_identity::SpiffeId;

/// What rules are compared with. Everything stays the same for as long as the connection is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facts<'a> {
    /// The verified identity of the peer; `None` for plaintext, for the client's own TLS, and under DISABLE.
    pub peer: Option<&'a SpiffeId>,
    /// Address of the direct peer: `ipBlocks`, `source.ip`.
    pub source: IpAddr,
    /// Address of the client behind a load balancer that speaks the PROXY protocol, else that of the direct peer:
    /// `remoteIpBlocks`, `remote.ip`.
    pub remote: IpAddr,
    /// Address that the client dialled: `destination.ip`.
    pub destination: IpAddr,
    /// Port that the workload listens on (not a Service's): `ports`, `destination.port`.
    pub port: u16,
    /// Server name of the ClientHello: `connection.sni`.
    pub sni: Option<&'a str>,
}

impl<'a> Facts<'a> {
    /// The facts of a connection whose bytes are not inspected, as under DISABLE: it has neither identity nor server name.
    #[must_use]
    pub const fn uninspected(self) -> Self {
        Self { peer: None, sni: None, ..self }
    }

    /// The facts of a connection without a verified identity.
    #[must_use]
    pub fn anonymous(self) -> Self {
        Self { peer: None, ..self }
    }

    /// The namespaces in the identity: each segment behind `/ns/` that is not the last one.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut rest = self.peer.and_then(|peer| peer.path().strip_prefix('/'));
        std::iter::from_fn(move || {
            loop {
                let (segment, behind) = rest?.split_once('/')?;
                rest = Some(behind);
                if segment == "ns"
                    && let Some((namespace, _)) = behind.split_once('/')
                {
                    return Some(namespace);
                }
            }
        })
    }
}
