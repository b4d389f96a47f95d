//! A document as a value, and values as text.

use portcullis_yaml::{Content, Node, Scalar, ScalarKind};
use serde_json::{Map, Number, Value};

/// The value of a node, by the rules of YAML 1.1 as kubectl reads it.
pub(crate) fn value(node: &Node) -> Value {
    match &node.content {
        Content::Scalar(text) => scalar(text),
        Content::Sequence(items) => Value::Array(items.iter().map(value).collect()),
        Content::Mapping(mapping) => Value::Object(
            mapping
                .entries
                .iter()
                .map(|entry| (entry.key.text().to_owned(), value(&entry.value)))
                .collect::<Map<_, _>>(),
        ),
        Content::Refused => Value::Null,
    }
}

fn scalar(scalar: &Scalar) -> Value {
    let text = || Value::String(scalar.text.clone());
    match scalar.kind() {
        ScalarKind::Null => Value::Null,
        ScalarKind::Bool => Value::Bool(matches!(scalar.text.to_lowercase().as_str(), "true" | "yes" | "on")),
        ScalarKind::Int => scalar.text.parse::<i64>().map_or_else(|_| text(), |number| Value::Number(number.into())),
        ScalarKind::Float => {
            let number = scalar.text.parse().ok().and_then(Number::from_f64);
            number.map_or_else(text, Value::Number)
        }
        ScalarKind::String => text(),
    }
}

/// As YAML, keys in order of their names, as kubectl prints it.
///
/// # Errors
/// None that a value of a document causes.
pub fn to_yaml(value: &Value) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(value)
}

/// As JSON, likewise.
///
/// # Errors
/// None that a value of a document causes.
pub fn to_json(value: &Value) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(value).map(|text| text + "\n")
}
