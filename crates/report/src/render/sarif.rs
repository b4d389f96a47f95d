//! SARIF 2.1.0, the OASIS format of analysis results: code review shows each finding at its line.

use serde_json::{Value, json};

use crate::view::{Finding, Level, Rule, View};

/// Where the format is described.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

pub(super) fn log(report: &impl View) -> Value {
    let rules: Vec<Value> = Rule::ALL.iter().map(|rule| self::rule(*rule)).collect();
    let results: Vec<Value> = report.findings().iter().map(result).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "portcullis", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "automationDetails": {"id": format!("portcullis/{}/", report.kind())},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(rule: Rule) -> Value {
    json!({"id": rule.id(), "shortDescription": {"text": rule.description()}})
}

fn result(finding: &Finding) -> Value {
    let mut location = json!({"logicalLocations": [{"fullyQualifiedName": finding.subject, "kind": "resource"}]});
    if let (Some((file, line)), Some(fields)) = (&finding.location, location.as_object_mut()) {
        // Lines begin at 1; a whole file has none.
        let region = (*line > 0).then(|| json!({"startLine": line}));
        let mut physical = json!({"artifactLocation": {"uri": uri(file)}});
        if let (Some(region), Some(fields)) = (region, physical.as_object_mut()) {
            fields.insert("region".to_owned(), region);
        }
        fields.insert("physicalLocation".to_owned(), physical);
    }
    let level = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    json!({
        "ruleId": finding.rule.id(),
        "ruleIndex": Rule::ALL.iter().position(|rule| *rule == finding.rule),
        "level": level,
        // A message may hold placeholders in braces, and links in brackets.
        "message": {"text": finding.message.replace('{', "{{").replace('}', "}}").replace('[', "\\[").replace(']', "\\]")},
        "locations": [location],
        "partialFingerprints": {"subject/v1": finding.subject},
    })
}

/// A path as a reference: relative to the root of the repository, or a `file` URI.
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn a_path_is_a_valid_reference() {
        assert_eq!(uri("./policies/a b.yaml"), "policies/a%20b.yaml");
        assert_eq!(uri("/etc/ü:x"), "file:///etc/%C3%BC%3Ax");
    }
}
