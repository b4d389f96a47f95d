//! What policies know of a client outside of the mesh.

use std::net::{IpAddr, Ipv4Addr};

use portcullis_net::OrigDst;
use portcullis_policy::EffectivePolicy;
use portcullis_policy::authorization::Facts;
use portcullis_telemetry::{ConnRecord, Ending};
use tokio::net::TcpStream;

use crate::authorization;

/// The addresses of a connection on the client's side. They stay as they are, while the record goes on to name the server.
pub(super) struct ExternalClient {
    /// Who connected: the client, or its load balancer.
    direct: IpAddr,
    /// What was dialled.
    local: IpAddr,
    /// The listener's port.
    port: u16,
}

impl ExternalClient {
    pub(super) fn new(stream: &TcpStream, record: &mut ConnRecord) -> Self {
        let local = stream.local_addr().ok().map(|local| OrigDst::new(local).get());
        record.set_from_outside();
        record.dst_addr = local;
        record.port = local.map(|local| local.port());
        let ip = local.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |local| local.ip());
        Self { direct: record.src_addr.ip(), local: ip, port: local.map_or(0, |local| local.port()) }
    }

    /// There is never an identity: the record's peer is the server.
    fn facts<'r>(&self, record: &'r ConnRecord) -> Facts<'r> {
        Facts {
            peer: None,
            source: self.direct,
            remote: record.src_addr.ip(),
            destination: self.local,
            port: self.port,
            sni: record.sni.name(),
        }
    }

    /// Returns an ending if the connection is not authorized, and records the policy that says so.
    pub(super) fn check(&self, policy: &EffectivePolicy, record: &mut ConnRecord) -> Option<Ending> {
        let denied = authorization::decide(policy, &self.facts(record))?;
        Some(denied.record(record))
    }

    /// Asks policies that are not enforced.
    pub(super) fn observe(&self, policy: &EffectivePolicy, record: &ConnRecord, allowed: bool) {
        authorization::report_without_mode(policy, record, &self.facts(record), allowed);
    }
}
