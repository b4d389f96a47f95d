//! One line of the access log as a log record: OpenTelemetry's attributes where its conventions have one, ours under `portcullis.`.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_rpc::otlp::any_value::Value;
use portcullis_rpc::otlp::{AnyValue, KeyValue, LogRecord};
use portcullis_telemetry::{AccessEvent, Decision, Direction, TlsOutcome};

/// The name of the event that a record is.
const EVENT: &str = "portcullis.connection";
/// `SeverityNumber`.
const INFO: i32 = 9;
const WARN: i32 = 13;

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(crate) fn integer(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

/// The record of a line. `own` is this workload's SPIFFE ID.
pub(crate) fn record(event: &AccessEvent, own: &str) -> LogRecord {
    let time = nanoseconds(event.time);
    let (severity_number, severity) = if event.warning { (WARN, "WARN") } else { (INFO, "INFO") };
    let mut attributes = Vec::with_capacity(32);
    network(event, &mut attributes);
    tls(event, &mut attributes);
    ours(event, own, &mut attributes);
    let trace = event.claims.trace;
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number,
        severity_text: severity.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(event.message.to_owned())) }),
        attributes,
        trace_id: trace.map(|ids| ids.trace.to_vec()).unwrap_or_default(),
        span_id: trace.map(|ids| ids.span.to_vec()).unwrap_or_default(),
        event_name: EVENT.to_owned(),
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn signed(value: u64) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn network(event: &AccessEvent, attributes: &mut Vec<KeyValue>) {
    let mut side = |name: &str, address: SocketAddr| {
        attributes.push(text(&format!("{name}.address"), &address.ip().to_canonical().to_string()));
        attributes.push(integer(&format!("{name}.port"), address.port().into()));
    };
    side("source", event.source);
    if let Some(destination) = event.destination {
        side("destination", destination);
    }
    let is_v4 = event.source.ip().to_canonical().is_ipv4();
    attributes.push(text("network.transport", "tcp"));
    attributes.push(text("network.type", if is_v4 { "ipv4" } else { "ipv6" }));
}

fn tls(event: &AccessEvent, attributes: &mut Vec<KeyValue>) {
    match &event.tls {
        TlsOutcome::None => {}
        TlsOutcome::Failed => {
            attributes.push(text("tls.protocol.name", "tls"));
            attributes.push(attribute("tls.established", Value::BoolValue(false)));
        }
        TlsOutcome::Established { version, group, cipher, root } => {
            attributes.push(text("tls.protocol.name", "tls"));
            attributes.push(text("tls.protocol.version", version.strip_prefix("TLSv").unwrap_or(version)));
            attributes.push(text("tls.cipher", cipher));
            attributes.push(text("tls.curve", group));
            attributes.push(attribute("tls.established", Value::BoolValue(true)));
            attributes.push(attribute("tls.resumed", Value::BoolValue(false)));
            attributes.push(text("portcullis.tls.root", root));
        }
    }
    if let Some(name) = &event.server_name {
        attributes.push(text("tls.client.server_name", name));
    }
}

fn ours(event: &AccessEvent, own: &str, attributes: &mut Vec<KeyValue>) {
    let direction = match event.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    let duration = event.duration.as_millis().try_into().unwrap_or(u64::MAX);
    attributes.extend([
        integer("portcullis.connection.id", signed(event.id)),
        text("portcullis.direction", direction),
        text("portcullis.mode", event.mode),
        text("portcullis.policy", &event.policy),
        text("portcullis.transport", event.transport),
        text("portcullis.decision", event.decision.as_str()),
        text("portcullis.reason", event.reason),
        integer("portcullis.bytes_received", signed(event.received)),
        integer("portcullis.bytes_sent", signed(event.sent)),
        integer("portcullis.duration_ms", signed(duration)),
    ]);
    if event.decision == Decision::Deny {
        attributes.push(text("error.type", event.reason));
    }
    if let Some(peer) = &event.peer {
        let peer = peer.to_string();
        let (source, destination) =
            if event.direction == Direction::Inbound { (peer.as_str(), own) } else { (own, peer.as_str()) };
        attributes.push(text("portcullis.source.identity", source));
        attributes.push(text("portcullis.destination.identity", destination));
    }
    let relayed_by = event.relayed_by.map(|balancer| text("portcullis.source.relayed_by", &balancer.to_string()));
    let hint = Some(event.hint).filter(|hint| !hint.is_empty()).map(|hint| text("portcullis.hint", hint));
    attributes.extend(relayed_by);
    attributes.extend(event.tunnel.map(|tunnel| text("portcullis.tunnel", &tunnel.to_string())));
    let claimed = event.claims.workload.as_deref();
    attributes.extend(claimed.map(|workload| text("portcullis.source.claimed_workload", workload)));
    attributes.extend(event.port.map(|port| integer("portcullis.port", port.into())));
    attributes.extend(event.rule.map(|rule| integer("portcullis.rule", rule.into())));
    attributes.extend(hint);
    attributes.extend(event.error.as_deref().map(|error| text("portcullis.error", error)));
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use portcullis_identity::SpiffeId;
    use portcullis_telemetry::{PeerClaims, TraceIds};

    use super::*;

    pub(crate) fn event() -> AccessEvent {
        AccessEvent {
            time: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
            warning: false,
            message: "connection complete",
            id: 7,
            direction: Direction::Inbound,
            source: "[::ffff:10.0.0.9]:4000".parse().unwrap(),
            relayed_by: None,
            destination: Some("10.0.0.1:8080".parse().unwrap()),
            tunnel: None,
            claims: PeerClaims::default(),
            peer: Some(SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()),
            port: Some(8080),
            mode: "STRICT",
            policy: Arc::from("shop/default"),
            rule: None,
            transport: "mtls",
            decision: Decision::Allow,
            reason: "-",
            hint: "",
            tls: TlsOutcome::Established {
                version: "TLSv1.3",
                group: "X25519MLKEM768",
                cipher: "TLS_AES_128_GCM_SHA256",
                root: Arc::new("ab12".to_owned()),
            },
            server_name: Some("cart.shop".to_owned()),
            received: 10,
            sent: u64::MAX,
            duration: Duration::from_millis(1500),
            error: None,
        }
    }

    fn value<'r>(record: &'r LogRecord, key: &str) -> Option<&'r Value> {
        let mut found = record.attributes.iter().filter(|attribute| attribute.key == key);
        let value = found.next()?.value.as_ref()?.value.as_ref();
        assert!(found.next().is_none(), "{key} is there twice");
        value
    }

    fn word(text: &str) -> Value {
        Value::StringValue(text.to_owned())
    }

    const OWN: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    #[test]
    fn an_mtls_connection_has_addresses_tls_and_identities() {
        let record = record(&event(), OWN);
        assert_eq!((record.time_unix_nano, record.severity_number), (1_700_000_000_123_456_789, 9));
        for (key, expected) in [
            ("source.address", word("10.0.0.9")),
            ("source.port", Value::IntValue(4000)),
            ("destination.address", word("10.0.0.1")),
            ("destination.port", Value::IntValue(8080)),
            ("network.transport", word("tcp")),
            ("network.type", word("ipv4")),
            ("tls.protocol.version", word("1.3")),
            ("tls.cipher", word("TLS_AES_128_GCM_SHA256")),
            ("tls.established", Value::BoolValue(true)),
            ("tls.client.server_name", word("cart.shop")),
            ("portcullis.source.identity", word("spiffe://cluster.local/ns/shop/sa/web")),
            ("portcullis.destination.identity", word(OWN)),
            ("portcullis.port", Value::IntValue(8080)),
            ("portcullis.bytes_sent", Value::IntValue(i64::MAX)),
            ("portcullis.duration_ms", Value::IntValue(1500)),
        ] {
            assert_eq!(value(&record, key), Some(&expected), "{key}");
        }
        for absent in ["error.type", "portcullis.hint", "portcullis.error", "portcullis.rule"] {
            assert_eq!(value(&record, absent), None, "{absent}");
        }
    }

    #[test]
    fn outbound_the_own_identity_is_the_source() {
        let record = record(&AccessEvent { direction: Direction::Outbound, ..event() }, OWN);
        assert_eq!(value(&record, "portcullis.source.identity"), Some(&word(OWN)));
    }

    #[test]
    fn a_stream_of_a_tunnel_has_its_trace_and_what_its_peer_says() {
        let trace = TraceIds { trace: [7; 16], span: [9; 8] };
        let claims = PeerClaims { trace: Some(trace), workload: Some("shop/web".into()) };
        let record = record(&AccessEvent { tunnel: Some("10.0.0.1:15008".parse().unwrap()), claims, ..event() }, OWN);
        assert_eq!((record.trace_id.as_slice(), record.span_id.as_slice()), ([7; 16].as_slice(), [9; 8].as_slice()));
        assert_eq!(value(&record, "portcullis.tunnel"), Some(&word("10.0.0.1:15008")));
        assert_eq!(value(&record, "portcullis.source.claimed_workload"), Some(&word("shop/web")));
    }

    #[test]
    fn a_refusal_is_a_warning_with_its_reason() {
        let refused = AccessEvent {
            warning: true,
            decision: Decision::Deny,
            reason: "expired",
            hint: "renew",
            error: Some("since a day".to_owned()),
            tls: TlsOutcome::Failed,
            peer: None,
            rule: Some(0),
            ..event()
        };
        let record = record(&refused, OWN);
        assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "WARN"));
        assert_eq!(value(&record, "error.type"), Some(&word("expired")));
        assert_eq!(value(&record, "tls.established"), Some(&Value::BoolValue(false)));
        assert_eq!(value(&record, "tls.cipher"), None);
        assert_eq!(value(&record, "portcullis.rule"), Some(&Value::IntValue(0)));
        assert_eq!(value(&record, "portcullis.source.identity"), None);
    }

    #[test]
    fn plaintext_says_nothing_of_tls() {
        let record = record(&AccessEvent { tls: TlsOutcome::None, server_name: None, ..event() }, OWN);
        assert!(record.attributes.iter().all(|attribute| !attribute.key.starts_with("tls.")), "{record:?}");
    }
}
