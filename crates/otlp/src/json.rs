//! OTLP's JSON: names in lowerCamelCase, 64-bit integers as strings, enumerations as numbers.

use portcullis_rpc::otlp::any_value::Value as AnyKind;
use portcullis_rpc::otlp::{AnyValue, ExportLogsServiceRequest, KeyValue, LogRecord, ResourceLogs, ScopeLogs};
use serde_json::{Value, json};

pub(crate) fn request(request: &ExportLogsServiceRequest) -> Vec<u8> {
    let logs: Vec<Value> = request.resource_logs.iter().map(resource_logs).collect();
    json!({ "resourceLogs": logs }).to_string().into_bytes()
}

fn resource_logs(logs: &ResourceLogs) -> Value {
    let resource = logs
        .resource
        .as_ref()
        .map_or_else(|| json!({}), |resource| json!({ "attributes": attributes(&resource.attributes) }));
    let scopes: Vec<Value> = logs.scope_logs.iter().map(scope_logs).collect();
    json!({ "resource": resource, "scopeLogs": scopes, "schemaUrl": logs.schema_url })
}

fn scope_logs(logs: &ScopeLogs) -> Value {
    let scope =
        logs.scope.as_ref().map_or_else(|| json!({}), |scope| json!({ "name": scope.name, "version": scope.version }));
    json!({ "scope": scope, "logRecords": logs.log_records.iter().map(log_record).collect::<Vec<_>>() })
}

fn log_record(record: &LogRecord) -> Value {
    let mut value = json!({
        "timeUnixNano": record.time_unix_nano.to_string(),
        "observedTimeUnixNano": record.observed_time_unix_nano.to_string(),
        "severityNumber": record.severity_number,
        "severityText": record.severity_text,
        "body": record.body.as_ref().map_or_else(|| json!({}), any_value),
        "attributes": attributes(&record.attributes),
        "eventName": record.event_name,
    });
    // In hexadecimal and not in base64, unlike other bytes; a record without a trace has neither.
    for (name, id) in [("traceId", &record.trace_id), ("spanId", &record.span_id)] {
        if !id.is_empty()
            && let Some(fields) = value.as_object_mut()
        {
            fields.insert(name.to_owned(), id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into());
        }
    }
    value
}

fn attributes(all: &[KeyValue]) -> Vec<Value> {
    let one = |attribute: &KeyValue| json!({ "key": attribute.key, "value": attribute.value.as_ref().map_or_else(|| json!({}), any_value) });
    all.iter().map(one).collect()
}

fn any_value(value: &AnyValue) -> Value {
    match &value.value {
        None => json!({}),
        Some(AnyKind::StringValue(text)) => json!({ "stringValue": text }),
        Some(AnyKind::BoolValue(flag)) => json!({ "boolValue": flag }),
        Some(AnyKind::IntValue(number)) => json!({ "intValue": number.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_config::OtlpProtocol;

    use super::*;
    use crate::encode::Encoder;
    use crate::record::tests::event;

    #[test]
    fn identifiers_of_a_trace_are_hexadecimal() {
        let mut record = LogRecord { trace_id: vec![0xab; 16], span_id: vec![1; 8], ..LogRecord::default() };
        let value = log_record(&record);
        assert_eq!((&value["traceId"], &value["spanId"]), (&"ab".repeat(16).into(), &"01".repeat(8).into()));
        record.trace_id.clear();
        assert_eq!(log_record(&record).get("traceId"), None);
    }

    #[test]
    fn a_record_is_as_the_specification_shows_it() {
        let body = Encoder::for_tests(OtlpProtocol::Json).body(&[event()]);
        let value: Value = serde_json::from_slice(&body).unwrap();
        let record = &value["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["timeUnixNano"], "1700000000123456789");
        assert_eq!(record["severityNumber"], 9);
        assert_eq!(record["body"]["stringValue"], "connection complete");
        let of = |key: &str| {
            record["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key).unwrap()["value"]
                .clone()
        };
        assert_eq!(of("source.port"), json!({ "intValue": "4000" }));
        assert_eq!(of("tls.established"), json!({ "boolValue": true }));
        assert_eq!(value["resourceLogs"][0]["resource"]["attributes"][0]["key"], "service.name");
    }
}
