//! Records as messages: what the JSON encoding is made from, and what protobuf is compared with.

use std::fmt;

use portcullis_rpc::otlp::any_value::Value;
use portcullis_rpc::otlp::{AnyValue, KeyValue, LogRecord};
use portcullis_telemetry::AccessEvent;

use crate::record::{Attributes, EVENT, attributes, fields};

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(crate) fn integer(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

impl Attributes for Vec<KeyValue> {
    fn text(&mut self, key: &'static str, value: &str) {
        self.push(text(key, value));
    }

    fn integer(&mut self, key: &'static str, value: i64) {
        self.push(integer(key, value));
    }

    fn boolean(&mut self, key: &'static str, value: bool) {
        self.push(attribute(key, Value::BoolValue(value)));
    }

    fn display(&mut self, key: &'static str, value: &dyn fmt::Display) {
        self.push(attribute(key, Value::StringValue(value.to_string())));
    }
}

/// The record of a line. `own` is this workload's SPIFFE ID.
pub(crate) fn record(event: &AccessEvent, own: &str) -> LogRecord {
    let fields = fields(event);
    let mut found = Vec::with_capacity(32);
    attributes(event, own, &mut found);
    LogRecord {
        time_unix_nano: fields.time,
        observed_time_unix_nano: fields.time,
        severity_number: fields.severity.number,
        severity_text: fields.severity.text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(fields.body.to_owned())) }),
        attributes: found,
        trace_id: fields.trace.map(|ids| ids.trace.to_vec()).unwrap_or_default(),
        span_id: fields.trace.map(|ids| ids.span.to_vec()).unwrap_or_default(),
        event_name: EVENT.to_owned(),
    }
}
