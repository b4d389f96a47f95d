//! Outbound HBONE: streams on tunnels that are kept.
//!
//! A tunnel is used again only for what it was made for: the same address, the same expected identities, the same credentials; and only
//! while these still trust its peer. So a stream never rides on a tunnel that would not be opened anew now.

mod absent;
mod dial;
mod pool;

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_hbone::{Connect, OpenError, TunnelStream};
use portcullis_identity::ExpectedIds;
use portcullis_telemetry::{ConnRecord, Ending};
use portcullis_tls::{Credentials, PathSummary};
use tokio::time::{Instant, timeout_at};

use crate::destination::OutboundTarget;
use crate::outcome::{self, DialTarget, Reason};
use crate::relay::addresses;
use crate::state::ProxyState;
pub(crate) use absent::WithoutHbone;
pub(crate) use dial::NotDialled;
use dial::{PoolKey, failed};

/// Connects through a tunnel to the destination's sidecar. A name is looked up for each connection, and its addresses are tried until
/// a sidecar answers.
///
/// # Errors
/// Why there is no stream.
pub(crate) async fn connect(
    state: &Arc<ProxyState>,
    target: &OutboundTarget,
    expected: &ExpectedIds,
    credentials: &Arc<Credentials>,
    record: &mut ConnRecord,
) -> Result<(TunnelStream, PathSummary), Ending> {
    let destinations = match target {
        OutboundTarget::Captured(address) => vec![*address],
        OutboundTarget::Configured(upstream) => {
            addresses(&state.destinations.names, &upstream.host, upstream.port, state.settings.timeouts.connect)
                .await
                .map_err(|error| outcome::unreachable(DialTarget::Peer, target, &error))?
        }
    };
    let mut failed = Ending::new(Reason::PeerUnreachable, Some(format!("{target}: it has no address")));
    for destination in destinations {
        match open(state, destination, expected, credentials, record).await.map_err(Ending::from) {
            // Only if nothing listens there the next address is tried; any other refusal is final.
            Err(ending) if ending.reason == Reason::PeerUnreachable.label() => failed = ending,
            result => return result,
        }
    }
    Err(failed)
}

/// Why there is no stream.
pub(crate) enum NotOpened {
    /// There is no tunnel.
    NoTunnel(NotDialled),
    /// There is one, and the peer did not accept the stream.
    NoStream(Ending),
}

impl From<NotOpened> for Ending {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::NoTunnel(NotDialled { ending, .. }) | NotOpened::NoStream(ending) => ending,
        }
    }
}

/// Opens a stream to an address of a workload, and records how. Once more on another tunnel if the server has not looked at it.
///
/// # Errors
/// Why there is none.
pub(crate) async fn open(
    state: &Arc<ProxyState>,
    destination: SocketAddr,
    expected: &ExpectedIds,
    credentials: &Arc<Credentials>,
    record: &mut ConnRecord,
) -> Result<(TunnelStream, PathSummary), NotOpened> {
    let timeouts = state.settings.timeouts;
    let address = SocketAddr::new(destination.ip(), state.settings.outbound.hbone_port);
    let key = PoolKey { address, expected: expected.clone(), credentials: Arc::clone(credentials) };
    let request = Connect { destination, baggage: state.baggage.clone(), client: record.src_addr };
    let mut tries = 0;
    loop {
        tries += 1;
        record.dst_addr = Some(address);
        let (permit, tunnel) = match pool::acquire(state, &key).await {
            Ok(permit) => permit,
            Err(error) => {
                record.transport = error.transport;
                return Err(NotOpened::NoTunnel(error));
            }
        };
        record.dst_addr = Some(destination);
        record.over_tunnel(&tunnel.facts);
        let error = match timeout_at(Instant::now() + timeouts.handshake, permit.open(&request)).await {
            Ok(Ok(stream)) => return Ok((stream, tunnel.path)),
            Ok(Err(error)) => error,
            Err(_elapsed) => {
                return Err(NotOpened::NoStream(failed(
                    "the peer did not answer within timeouts.handshake".to_owned(),
                )));
            }
        };
        match error {
            OpenError::NotTaken if tries == 1 => tunnel.handle.close(),
            OpenError::Refused(status) => {
                let error = format!("{destination}: the answer was {status}");
                return Err(NotOpened::NoStream(Ending::new(Reason::HboneRefused, Some(error))));
            }
            error => return Err(NotOpened::NoStream(failed(error.to_string()))),
        }
    }
}
