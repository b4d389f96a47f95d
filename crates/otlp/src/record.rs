//! One line of the access log as a log record: OpenTelemetry's attributes where its conventions have one, ours under `portcullis.`.
//!
//! What a record says stands here once. Protobuf is written straight into the request ([`crate::protobuf`]), since each connection pays
//! for it; JSON goes through messages ([`crate::message`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_telemetry::{AccessEvent, Decision, Direction, TlsOutcome, TraceIds};

/// The name of the event that a record is.
pub(crate) const EVENT: &str = "portcullis.connection";

/// `SeverityNumber` and `SeverityText`.
#[derive(Clone, Copy)]
pub(crate) struct Severity {
    pub(crate) number: i32,
    pub(crate) text: &'static str,
}

const INFO: Severity = Severity { number: 9, text: "INFO" };
const WARN: Severity = Severity { number: 13, text: "WARN" };

/// The fields of a record beside its attributes.
pub(crate) struct Fields<'e> {
    /// In nanoseconds since 1970: when it happened, and when it was observed.
    pub(crate) time: u64,
    pub(crate) severity: Severity,
    pub(crate) body: &'e str,
    pub(crate) trace: Option<TraceIds>,
}

/// Where the attributes of a record go.
pub(crate) trait Attributes {
    fn text(&mut self, key: &'static str, value: &str);
    fn integer(&mut self, key: &'static str, value: i64);
    fn boolean(&mut self, key: &'static str, value: bool);
    /// What has to be formatted first.
    fn display(&mut self, key: &'static str, value: &dyn fmt::Display);
}

pub(crate) fn fields(event: &AccessEvent) -> Fields<'_> {
    Fields {
        time: nanoseconds(event.time),
        severity: if event.warning { WARN } else { INFO },
        body: event.message,
        trace: event.claims.trace,
    }
}

/// `own` is this workload's SPIFFE ID.
pub(crate) fn attributes(event: &AccessEvent, own: &str, to: &mut impl Attributes) {
    network(event, to);
    tls(event, to);
    connection(event, to);
    identities(event, own, to);
    optional(event, to);
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn signed(value: u64) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn network(event: &AccessEvent, to: &mut impl Attributes) {
    let canonical = |address: SocketAddr| -> (IpAddr, i64) { (address.ip().to_canonical(), address.port().into()) };
    let (source, port) = canonical(event.source);
    to.display("source.address", &source);
    to.integer("source.port", port);
    if let Some((destination, port)) = event.destination.map(canonical) {
        to.display("destination.address", &destination);
        to.integer("destination.port", port);
    }
    to.text("network.transport", "tcp");
    to.text("network.type", if source.is_ipv4() { "ipv4" } else { "ipv6" });
}

fn tls(event: &AccessEvent, to: &mut impl Attributes) {
    match &event.tls {
        TlsOutcome::None => {}
        TlsOutcome::Failed => {
            to.text("tls.protocol.name", "tls");
            to.boolean("tls.established", false);
        }
        TlsOutcome::Established { version, group, cipher, root } => {
            to.text("tls.protocol.name", "tls");
            to.text("tls.protocol.version", version.strip_prefix("TLSv").unwrap_or(version));
            to.text("tls.cipher", cipher);
            to.text("tls.curve", group);
            to.boolean("tls.established", true);
            to.boolean("tls.resumed", false);
            to.text("portcullis.tls.root", root);
        }
    }
    if let Some(name) = &event.server_name {
        to.text("tls.client.server_name", name);
    }
}

fn connection(event: &AccessEvent, to: &mut impl Attributes) {
    to.integer("portcullis.connection.id", signed(event.id));
    to.text(
        "portcullis.direction",
        match event.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        },
    );
    to.text("portcullis.mode", event.mode);
    to.text("portcullis.policy", &event.policy);
    to.text("portcullis.transport", event.transport);
    to.text("portcullis.decision", event.decision.as_str());
    to.text("portcullis.reason", event.reason);
    to.integer("portcullis.bytes_received", signed(event.received));
    to.integer("portcullis.bytes_sent", signed(event.sent));
    to.integer("portcullis.duration_ms", event.duration.as_millis().try_into().unwrap_or(i64::MAX));
}

fn identities(event: &AccessEvent, own: &str, to: &mut impl Attributes) {
    let Some(peer) = &event.peer else { return };
    let (source, destination) = ("portcullis.source.identity", "portcullis.destination.identity");
    let (of_peer, of_own) =
        if event.direction == Direction::Inbound { (source, destination) } else { (destination, source) };
    to.display(of_peer, peer);
    to.text(of_own, own);
}

fn optional(event: &AccessEvent, to: &mut impl Attributes) {
    if event.decision == Decision::Deny {
        to.text("error.type", event.reason);
    }
    if let Some(balancer) = &event.relayed_by {
        to.display("portcullis.source.relayed_by", balancer);
    }
    if let Some(tunnel) = &event.tunnel {
        to.display("portcullis.tunnel", tunnel);
    }
    if let Some(workload) = &event.claims.workload {
        to.text("portcullis.source.claimed_workload", workload);
    }
    if let Some(port) = event.port {
        to.integer("portcullis.port", port.into());
    }
    if let Some(rule) = event.rule {
        to.integer("portcullis.rule", rule.into());
    }
    if !event.hint.is_empty() {
        to.text("portcullis.hint", event.hint);
    }
    if let Some(error) = &event.error {
        to.text("portcullis.error", error);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use portcullis_identity::SpiffeId;
    use portcullis_telemetry::PeerClaims;

    use portcullis_rpc::otlp::LogRecord;
    use portcullis_rpc::otlp::any_value::Value;

    use super::*;
    use crate::message::record;

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
