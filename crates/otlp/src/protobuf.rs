//! Records as protobuf, written straight into the body of a request.
//!
//! Messages of `prost` would own each key and value and be measured once for each level of nesting: 26 attributes cost more than half of
//! what the whole export takes of a connection. Field numbers are those of `otlp_logs.proto`; tests compare the bytes with `prost`'s own.

use std::fmt::{self, Write as _};

use portcullis_telemetry::AccessEvent;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::record::{Attributes, EVENT, attributes, fields};

/// `LogRecord.attributes`.
const ATTRIBUTES: u32 = 6;

/// Appends fields of one message.
pub(crate) struct Message<'b> {
    bytes: &'b mut Vec<u8>,
    /// For values that are formatted before their length is known.
    formatted: &'b mut String,
}

/// Space that is used again for each record.
#[derive(Default)]
pub(crate) struct Scratch {
    record: Vec<u8>,
    formatted: String,
}

/// Appends the record of a line as field `number` of the message in `to`. `own` is this workload's SPIFFE ID.
pub(crate) fn append_record(event: &AccessEvent, own: &str, number: u32, scratch: &mut Scratch, to: &mut Vec<u8>) {
    scratch.record.clear();
    let fields = fields(event);
    let mut record = Message { bytes: &mut scratch.record, formatted: &mut scratch.formatted };
    record.fixed64(1, fields.time);
    record.varint(2, fields.severity.number.unsigned_abs().into());
    record.bytes(3, fields.severity.text.as_bytes());
    record.start(5, length_delimited_len(fields.body.len()));
    record.bytes(1, fields.body.as_bytes());
    attributes(event, own, &mut record);
    if let Some(ids) = fields.trace {
        record.bytes(9, &ids.trace);
        record.bytes(10, &ids.span);
    }
    record.fixed64(11, fields.time);
    record.bytes(12, EVENT.as_bytes());
    append_bytes(number, &scratch.record, to);
}

/// Appends a field of bytes, which an encoded message is too.
pub(crate) fn append_bytes(number: u32, value: &[u8], to: &mut Vec<u8>) {
    append_start(number, value.len(), to);
    to.extend_from_slice(value);
}

/// Appends the start of a field whose `length` bytes follow.
pub(crate) fn append_start(number: u32, length: usize, to: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(u64::try_from(length).unwrap_or(u64::MAX), to);
}

/// The bytes that a field of a number below 16 and `length` bytes takes.
pub(crate) fn length_delimited_len(length: usize) -> usize {
    1 + encoded_len_varint(u64::try_from(length).unwrap_or(u64::MAX)) + length
}

impl Message<'_> {
    fn start(&mut self, number: u32, length: usize) {
        append_start(number, length, self.bytes);
    }

    fn bytes(&mut self, number: u32, value: &[u8]) {
        append_bytes(number, value, self.bytes);
    }

    fn varint(&mut self, number: u32, value: u64) {
        encode_key(number, WireType::Varint, self.bytes);
        encode_varint(value, self.bytes);
    }

    fn fixed64(&mut self, number: u32, value: u64) {
        encode_key(number, WireType::SixtyFourBit, self.bytes);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// The start of an attribute, up to its `AnyValue`, which takes `length` bytes.
    fn attribute(&mut self, key: &str, length: usize) {
        self.start(ATTRIBUTES, length_delimited_len(key.len()) + length_delimited_len(length));
        self.bytes(1, key.as_bytes());
        self.start(2, length);
    }
}

impl Attributes for Message<'_> {
    fn text(&mut self, key: &'static str, value: &str) {
        self.attribute(key, length_delimited_len(value.len()));
        self.bytes(1, value.as_bytes());
    }

    fn integer(&mut self, key: &'static str, value: i64) {
        // Two's complement, as protobuf has `int64`.
        let value = value.cast_unsigned();
        self.attribute(key, 1 + encoded_len_varint(value));
        self.varint(3, value);
    }

    fn boolean(&mut self, key: &'static str, value: bool) {
        self.attribute(key, 2);
        self.varint(2, value.into());
    }

    fn display(&mut self, key: &'static str, value: &dyn fmt::Display) {
        self.formatted.clear();
        // A string takes all that is written to it.
        let _infallible = write!(self.formatted, "{value}");
        self.attribute(key, length_delimited_len(self.formatted.len()));
        append_bytes(1, self.formatted.as_bytes(), self.bytes);
    }
}
