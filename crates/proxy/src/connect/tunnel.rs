//! HBONE to endpoints of the directory.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_hbone::TunnelStream;
use portcullis_identity::ExpectedIds;
use portcullis_telemetry::{ConnRecord, Ending};
use portcullis_tls::{Credentials, PathSummary};
use tokio::time::Instant;

use super::failed::{Failed, Next};
use crate::outbound_hbone::{self, NotDialled, NotOpened};
use crate::outcome::Reason;
use crate::state::ProxyState;

/// To an endpoint that the directory says takes tunnels. `None` if nothing there does: then it is reached by mTLS on TCP, with the same
/// identities, and without another look for a while.
pub(super) async fn through_tunnel(
    state: &Arc<ProxyState>,
    address: SocketAddr,
    expected: &ExpectedIds,
    credentials: &Arc<Credentials>,
    record: &mut ConnRecord,
) -> Result<Option<(TunnelStream, PathSummary)>, Failed> {
    let tunnels = SocketAddr::new(address.ip(), state.settings.outbound.hbone_port);
    if !state.without_hbone.may_try(tunnels, Instant::now()) {
        return Ok(None);
    }
    record.mode = "hbone";
    match outbound_hbone::open(state, address, expected, credentials, record).await {
        Ok(opened) => Ok(Some(opened)),
        Err(NotOpened::NoTunnel(NotDialled { ending, is_absent: true, .. })) => {
            if state.without_hbone.note(tunnels, Instant::now()) {
                let (reason, error) = (ending.reason, ending.error);
                tracing::warn!(%tunnels, reason, error, "an endpoint is said to take HBONE and does not; it gets mTLS on TCP");
            }
            record.mode = "mtls";
            record.transport = "-";
            record.dst_addr = None;
            Ok(None)
        }
        Err(NotOpened::NoTunnel(NotDialled { ending, .. })) if ending.reason == Reason::HandshakeTimeout.label() => {
            Err(Failed { ending, next: Next::TooLate })
        }
        Err(error) => Err(Ending::from(error).into()),
    }
}
