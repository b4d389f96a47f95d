//! `/connections`: the open connections.

use portcullis_telemetry::{Metrics, OpenConnection};
use serde_json::{Value, json};

use crate::daemon::format::duration;

/// The page.
pub(in crate::daemon) fn connections(metrics: &Metrics) -> Value {
    json!({ "connections": metrics.open_connections().iter().map(connection).collect::<Vec<_>>() })
}

fn connection(open: &OpenConnection) -> Value {
    json!({
        "connId": open.id,
        "direction": open.direction.as_str(),
        "source": open.src_addr.to_string(),
        "destination": open.dst_addr.map(|address| address.to_string()),
        "peer": open.peer,
        "service": open.service.as_ref().map(|service| service.host().to_string()),
        "port": open.port,
        "mode": open.mode,
        "policy": &*open.policy,
        "transport": open.transport,
        "age": duration(open.age),
        "bytesReceived": open.received,
        "bytesSent": open.sent,
    })
}
