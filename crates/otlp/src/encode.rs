//! Batches of lines as the bodies of requests.

use portcullis_config::{Otlp, OtlpProtocol};
use portcullis_rpc::otlp::{ExportLogsServiceRequest, InstrumentationScope, Resource, ResourceLogs, ScopeLogs};
use portcullis_telemetry::AccessEvent;
use prost::Message as _;

use crate::json;
use crate::message::record;
use crate::protobuf::{Scratch, append_bytes, append_record, append_start, length_delimited_len};
use crate::resource::{ResourceParts, resource};

/// The version of the conventions that the attributes are named after.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";
const SCOPE: &str = "portcullis.access";
/// About what a record takes: room to begin with.
const RECORD_BYTES: usize = 1280;

pub(crate) struct Encoder {
    protocol: OtlpProtocol,
    resource: Resource,
    scope: InstrumentationScope,
    own: String,
}

impl Encoder {
    /// `own` is this workload's SPIFFE ID.
    pub(crate) fn new(settings: &Otlp, parts: &ResourceParts, own: String) -> Self {
        let scope = InstrumentationScope { name: SCOPE.to_owned(), version: parts.version.clone() };
        Self { protocol: settings.protocol, resource: resource(parts, settings), scope, own }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(protocol: OtlpProtocol) -> Self {
        use portcullis_config::{OtlpLayer, OtlpUrl};
        let endpoint = OtlpUrl::parse("http://a:1").ok();
        let layer = OtlpLayer { endpoint, protocol: Some(protocol), ..OtlpLayer::default() };
        let parts = ResourceParts { service: "cart".into(), namespace: "shop".into(), version: "0".into() };
        Self::new(&layer.under(OtlpLayer::default()).unwrap(), &parts, "spiffe://cluster.local/ns/shop/sa/cart".into())
    }

    pub(crate) const fn content_type(&self) -> &'static str {
        match self.protocol {
            OtlpProtocol::Protobuf => "application/x-protobuf",
            OtlpProtocol::Json => "application/json",
        }
    }

    /// The body of a request with these lines.
    pub(crate) fn body(&self, lines: &[AccessEvent]) -> Vec<u8> {
        match self.protocol {
            OtlpProtocol::Protobuf => self.protobuf(lines),
            OtlpProtocol::Json => json::request(&self.message(lines)),
        }
    }

    fn message(&self, lines: &[AccessEvent]) -> ExportLogsServiceRequest {
        let log_records = lines.iter().map(|event| record(event, &self.own)).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(self.scope.clone()), log_records }];
        let logs = ResourceLogs { resource: Some(self.resource.clone()), scope_logs, schema_url: SCHEMA.to_owned() };
        ExportLogsServiceRequest { resource_logs: vec![logs] }
    }

    /// The bytes of [`Self::message`], from the inside outwards, since each level begins with its length.
    fn protobuf(&self, lines: &[AccessEvent]) -> Vec<u8> {
        let mut scope_logs = Vec::with_capacity(lines.len().saturating_mul(RECORD_BYTES));
        append_bytes(1, &self.scope.encode_to_vec(), &mut scope_logs);
        let mut scratch = Scratch::default();
        for event in lines {
            append_record(event, &self.own, 2, &mut scratch, &mut scope_logs);
        }
        let resource = self.resource.encode_to_vec();
        let parts = [resource.len(), scope_logs.len(), SCHEMA.len()];
        let length = parts.into_iter().map(length_delimited_len).sum();
        let mut body = Vec::with_capacity(length_delimited_len(length));
        append_start(1, length, &mut body);
        append_bytes(1, &resource, &mut body);
        append_bytes(2, &scope_logs, &mut body);
        append_bytes(3, SCHEMA.as_bytes(), &mut body);
        body
    }
}

#[cfg(test)]
mod tests {
    use portcullis_telemetry::{Decision, Direction, PeerClaims, TlsOutcome, TraceIds};

    use super::*;
    use crate::record::tests::event;

    /// Lines that between them have each optional field, and have not.
    fn lines() -> Vec<AccessEvent> {
        let trace = TraceIds { trace: [7; 16], span: [9; 8] };
        let everything = AccessEvent {
            claims: PeerClaims { trace: Some(trace), workload: Some("shop/web".into()) },
            relayed_by: Some("10.0.0.7:4100".parse().unwrap()),
            tunnel: Some("[fd00::1]:15008".parse().unwrap()),
            rule: Some(3),
            hint: "renew",
            error: Some("grün \"x\"\n".repeat(40)),
            direction: Direction::Outbound,
            ..event()
        };
        let nothing = AccessEvent {
            time: std::time::UNIX_EPOCH,
            warning: true,
            message: "",
            id: u64::MAX,
            decision: Decision::Deny,
            reason: "expired",
            destination: None,
            peer: None,
            port: None,
            policy: "".into(),
            tls: TlsOutcome::None,
            server_name: None,
            received: 0,
            sent: 0,
            ..event()
        };
        vec![event(), everything, AccessEvent { tls: TlsOutcome::Failed, ..event() }, nothing]
    }

    #[test]
    fn protobuf_is_read_as_the_message() {
        let encoder = Encoder::for_tests(OtlpProtocol::Protobuf);
        for lines in [lines(), Vec::new(), vec![event(); 300]] {
            let read = ExportLogsServiceRequest::decode(encoder.body(&lines).as_slice()).unwrap();
            assert_eq!(read, encoder.message(&lines));
        }
    }

    #[test]
    fn protobuf_is_as_long_as_that_of_prost() {
        let encoder = Encoder::for_tests(OtlpProtocol::Protobuf);
        // What is empty or zero may be left out, which this encoder does not look for.
        let lines = vec![event(); 3];
        assert_eq!(encoder.body(&lines).len(), encoder.message(&lines).encoded_len());
    }
}
