//! What arrives, in both encodings.

use std::time::Duration;

use portcullis_config::OtlpProtocol;
use portcullis_telemetry::{AccessEvent, AccessSink as _, Decision, TlsOutcome};

use crate::collector::{Collector, Reply};
use crate::{headers, line, settings, start, wire};

#[test]
fn both_encodings_say_the_same() {
    let mut batches = Vec::new();
    for (protocol, kind) in
        [(OtlpProtocol::Protobuf, "application/x-protobuf"), (OtlpProtocol::Json, "application/json")]
    {
        let collector = Collector::start(|_| Reply::status(200));
        let mut settings = settings(&format!("{}/tenant/", collector.url()), protocol);
        settings.headers = headers("authorization=Bearer%20abc,x-tenant=shop");
        settings.resource = vec![("service.instance.id".to_owned(), "one".to_owned())];
        let (exporter, sink) = start(&settings);
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        sink.accept(AccessEvent { time, ..line(1) });
        sink.accept(AccessEvent {
            time,
            warning: true,
            message: "connection refused",
            decision: Decision::Deny,
            reason: "expired",
            tls: TlsOutcome::Failed,
            error: Some("grün \"x\"\n".to_owned()),
            ..line(2)
        });
        exporter.finish(Duration::from_secs(5));
        let request = collector.next();
        assert!(request.head.starts_with("POST /tenant/v1/logs HTTP/1.1\r\n"), "{}", request.head);
        for (name, value) in [
            ("content-type", kind),
            ("authorization", "Bearer abc"),
            ("x-tenant", "shop"),
            ("user-agent", "portcullis/1.2.3"),
        ] {
            assert_eq!(request.header(name), Some(value));
        }
        batches.push(if protocol == OtlpProtocol::Json {
            wire::json(&request.body)
        } else {
            wire::protobuf(&request.body)
        });
    }
    let [protobuf, json] = batches.as_slice() else { panic!() };
    assert_eq!(protobuf, json);
    let [complete, refused] = protobuf.records.as_slice() else { panic!("{protobuf:?}") };
    assert_eq!(protobuf.resource["service.name"], "cart");
    assert_eq!(protobuf.resource["service.namespace"], "shop");
    assert_eq!(protobuf.scope, "portcullis.access");
    assert_eq!(
        (complete.time, complete.severity, complete.body.as_str()),
        (1_700_000_000_000_000_000, 9, "connection complete")
    );
    assert_eq!((refused.severity, refused.severity_text.as_str()), (13, "WARN"));
    assert_eq!(refused.attributes["tls.established"], "false");
    assert_eq!(refused.attributes["portcullis.error"], "grün \"x\"\n");
    assert_eq!(complete.event_name, "portcullis.connection");
}
