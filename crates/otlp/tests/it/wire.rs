//! Reads requests without the generated messages: protobuf by its wire format and the field numbers of the specification, JSON by its
//! names. Both give the same.

use std::collections::BTreeMap;

use serde_json::Value;

/// Attributes as text, and what else is looked at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) time: u64,
    pub(crate) severity: u64,
    pub(crate) severity_text: String,
    pub(crate) body: String,
    pub(crate) event_name: String,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Record {
    pub(crate) fn id(&self) -> u64 {
        self.attributes["portcullis.connection.id"].parse().unwrap()
    }
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Batch {
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) scope: String,
    pub(crate) records: Vec<Record>,
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            return value;
        }
    }
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_at(8);
                bytes = rest;
                Field::Number(u64::from_le_bytes(number.try_into().unwrap()))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(content)
            }
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, field));
    }
    all
}

fn messages<'a>(bytes: &'a [u8], number: u64) -> Vec<&'a [u8]> {
    let of = |(found, field): (u64, Field<'a>)| match field {
        Field::Bytes(content) if found == number => Some(content),
        _ => None,
    };
    fields(bytes).into_iter().filter_map(of).collect()
}

fn text(bytes: &[u8], number: u64) -> String {
    messages(bytes, number).first().map(|text| String::from_utf8(text.to_vec()).unwrap()).unwrap_or_default()
}

fn number(bytes: &[u8], wanted: u64) -> u64 {
    let found = fields(bytes).into_iter().find_map(|(found, field)| match field {
        Field::Number(value) if found == wanted => Some(value),
        _ => None,
    });
    found.unwrap_or_default()
}

fn any_value(bytes: &[u8]) -> String {
    match fields(bytes).first() {
        Some((1, Field::Bytes(text))) => String::from_utf8(text.to_vec()).unwrap(),
        Some((2, Field::Number(flag))) => (*flag == 1).to_string(),
        Some((3, Field::Number(value))) => value.to_string(),
        _ => panic!("{bytes:?}"),
    }
}

fn attributes(bytes: &[u8], wanted: u64) -> BTreeMap<String, String> {
    messages(bytes, wanted).iter().map(|pair| (text(pair, 1), any_value(messages(pair, 2)[0]))).collect()
}

pub(crate) fn protobuf(body: &[u8]) -> Batch {
    let [logs] = messages(body, 1)[..] else { panic!("not one resource") };
    let [scope_logs] = messages(logs, 2)[..] else { panic!("not one scope") };
    let record = |record: &&[u8]| Record {
        time: number(record, 1),
        severity: number(record, 2),
        severity_text: text(record, 3),
        body: any_value(messages(record, 5)[0]),
        event_name: text(record, 12),
        attributes: attributes(record, 6),
    };
    Batch {
        resource: attributes(messages(logs, 1)[0], 1),
        scope: text(messages(scope_logs, 1)[0], 1),
        records: messages(scope_logs, 2).iter().map(record).collect(),
    }
}

fn json_attributes(list: &Value) -> BTreeMap<String, String> {
    let one = |pair: &Value| {
        let value = pair["value"].as_object().unwrap();
        assert_eq!(value.len(), 1, "{pair}");
        let text = match value.iter().next().unwrap() {
            (kind, Value::String(text)) if kind == "stringValue" || kind == "intValue" => text.clone(),
            (kind, Value::Bool(flag)) if kind == "boolValue" => flag.to_string(),
            other => panic!("{other:?}"),
        };
        (pair["key"].as_str().unwrap().to_owned(), text)
    };
    list.as_array().unwrap().iter().map(one).collect()
}

pub(crate) fn json(body: &[u8]) -> Batch {
    let root: Value = serde_json::from_slice(body).unwrap();
    let [logs] = root["resourceLogs"].as_array().unwrap().as_slice() else { panic!("not one resource") };
    let [scope_logs] = logs["scopeLogs"].as_array().unwrap().as_slice() else { panic!("not one scope") };
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let record = |record: &Value| Record {
        time: word(&record["timeUnixNano"]).parse().unwrap(),
        severity: record["severityNumber"].as_u64().unwrap(),
        severity_text: word(&record["severityText"]),
        body: word(&record["body"]["stringValue"]),
        event_name: word(&record["eventName"]),
        attributes: json_attributes(&record["attributes"]),
    };
    Batch {
        resource: json_attributes(&logs["resource"]["attributes"]),
        scope: word(&scope_logs["scope"]["name"]),
        records: scope_logs["logRecords"].as_array().unwrap().iter().map(record).collect(),
    }
}
