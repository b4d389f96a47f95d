//! Batches of lines as the bodies of requests.

use portcullis_config::{Otlp, OtlpProtocol};
use portcullis_rpc::otlp::{ExportLogsServiceRequest, InstrumentationScope, Resource, ResourceLogs, ScopeLogs};
use portcullis_telemetry::AccessEvent;
use prost::Message as _;

use crate::json;
use crate::record::record;
use crate::resource::{ResourceParts, resource};

/// The version of the conventions that the attributes are named after.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";
const SCOPE: &str = "portcullis.access";

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

    pub(crate) fn body(&self, lines: &[AccessEvent]) -> Vec<u8> {
        let log_records = lines.iter().map(|event| record(event, &self.own)).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(self.scope.clone()), log_records }];
        let logs = ResourceLogs { resource: Some(self.resource.clone()), scope_logs, schema_url: SCHEMA.to_owned() };
        let request = ExportLogsServiceRequest { resource_logs: vec![logs] };
        match self.protocol {
            OtlpProtocol::Protobuf => request.encode_to_vec(),
            OtlpProtocol::Json => json::request(&request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::event;

    #[test]
    fn protobuf_comes_back_as_it_was() {
        let body = Encoder::for_tests(OtlpProtocol::Protobuf).body(&[event(), event()]);
        let request = ExportLogsServiceRequest::decode(body.as_slice()).unwrap();
        let [logs] = request.resource_logs.as_slice() else { panic!("{request:?}") };
        let [scope] = logs.scope_logs.as_slice() else { panic!("{logs:?}") };
        assert_eq!(scope.log_records.len(), 2);
        assert_eq!(scope.scope.as_ref().unwrap().name, "portcullis.access");
    }
}
