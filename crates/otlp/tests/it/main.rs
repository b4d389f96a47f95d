//! The exporter against collectors that answer, refuse, stall and die.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod collector;
mod delivery;
mod encodings;
mod failures;
mod tls;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_config::{Otlp, OtlpHeaders, OtlpLayer, OtlpProtocol, OtlpUrl};
use portcullis_otlp::{Exporter, ExporterParts, QueueSink, ResourceParts, SetupError, queue};
use portcullis_telemetry::{AccessEvent, AccessSink as _, Decision, Direction, PeerClaims, SinkTotals, TlsOutcome};
use portcullis_tls::Clock;

/// A line with a number in it.
pub(crate) fn line(id: u64) -> AccessEvent {
    AccessEvent {
        time: SystemTime::now(),
        warning: false,
        message: "connection complete",
        id,
        direction: Direction::Inbound,
        source: "10.0.0.9:4000".parse().unwrap(),
        relayed_by: None,
        destination: Some("10.0.0.1:8080".parse().unwrap()),
        tunnel: None,
        claims: PeerClaims::default(),
        peer: None,
        port: Some(8080),
        mode: "PERMISSIVE",
        policy: Arc::from("shop/default"),
        rule: None,
        transport: "plaintext",
        decision: Decision::Allow,
        reason: "-",
        hint: "",
        tls: TlsOutcome::None,
        server_name: None,
        received: 1,
        sent: 2,
        duration: Duration::from_millis(3),
        error: None,
    }
}

pub(crate) fn settings(endpoint: &str, protocol: OtlpProtocol) -> Otlp {
    let layer = OtlpLayer {
        endpoint: Some(OtlpUrl::parse(endpoint).unwrap()),
        protocol: Some(protocol),
        timeout: Some(Duration::from_secs(5)),
        ..OtlpLayer::default()
    };
    layer.under(OtlpLayer::default()).unwrap()
}

pub(crate) fn try_start(settings: &Otlp, roots: &[u8]) -> Result<(Exporter, QueueSink), SetupError> {
    let (sink, lines) = queue();
    let resource = ResourceParts { service: "cart".into(), namespace: "shop".into(), version: "1.2.3".into() };
    let own_id = "spiffe://cluster.local/ns/shop/sa/cart".to_owned();
    let parts = ExporterParts { settings, roots, resource, own_id, clock: Clock::system() };
    Exporter::start(parts, lines).map(|exporter| (exporter, sink))
}

pub(crate) fn start(settings: &Otlp) -> (Exporter, QueueSink) {
    try_start(settings, &[]).unwrap()
}

/// Waits until so much became of the lines.
pub(crate) fn await_totals(sink: &QueueSink, expected: SinkTotals) {
    portcullis_testkit::wait::eventually(&format!("{expected:?}"), || (sink.totals() == expected).then_some(()));
}

pub(crate) fn sent(sent: u64) -> SinkTotals {
    SinkTotals { sent, ..SinkTotals::default() }
}

/// Headers as the environment gives them.
pub(crate) fn headers(list: &'static str) -> OtlpHeaders {
    let variable = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://a:1".to_owned()),
        "OTEL_EXPORTER_OTLP_HEADERS" => Some(list.to_owned()),
        _ => None,
    };
    OtlpLayer::of_environment(&OtlpLayer::default(), variable).unwrap().unwrap().headers.unwrap()
}
