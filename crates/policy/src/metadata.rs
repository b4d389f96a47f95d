//! Kubernetes' ObjectMeta, as far as it matters: name, namespace, age.

use portcullis_yaml::{Cursor, Fields, Problem, Problems, printable};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::documentation::Documentation;

/// What identifies a resource, and how old it is.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) created: Option<OffsetDateTime>,
    /// The annotation `istio.io/dry-run`.
    pub(crate) dry_run: bool,
    /// The annotations of an exception.
    pub(crate) documentation: Documentation,
}

/// The annotation with which a policy is evaluated and not enforced.
const DRY_RUN: &str = "istio.io/dry-run";

/// Fields of Kubernetes' ObjectMeta.
const OBJECT_META: &[&str] = &[
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Reads `metadata` of a document. Name and namespace have their own codes when they are missing, also together.
pub(crate) fn read(document: &Fields<'_>, problems: &mut Problems) -> Option<Metadata> {
    let Some(at) = document.get("metadata") else {
        for (field, reason) in [("name", "missing-name"), ("namespace", "missing-namespace")] {
            let message = format!("metadata.{field} must be set; a policy is named by its namespace and its name");
            let position = document.cursor().position();
            problems.push(Problem { position, field: format!("metadata.{field}"), reason, message });
        }
        return None;
    };
    let fields = at.fields(OBJECT_META, problems)?;
    let name = fields.require_as("name", "missing-name", problems).and_then(|at| {
        let name = at.string(problems)?;
        if !is_subdomain(name) {
            let message = format!(
                "\"{}\" is not an object name; use lower-case letters, digits, '-' and '.', at most 253 characters, each \
                 part between dots beginning and ending with a letter or digit",
                printable(name)
            );
            at.report("invalid-name", message, problems);
        }
        Some(name.to_owned())
    });
    let namespace = fields.require_as("namespace", "missing-namespace", problems).and_then(|at| {
        let namespace = at.string(problems)?;
        if !is_dns_label(namespace) {
            let message = format!(
                "\"{}\" is not a namespace; use lower-case letters, digits and '-', at most {MAX_LABEL} characters, \
                 beginning and ending with a letter or digit",
                printable(namespace)
            );
            at.report("invalid-name", message, problems);
        }
        Some(namespace.to_owned())
    });
    // `kubectl create --dry-run -o yaml` writes null.
    let created = fields.get("creationTimestamp").filter(|at| !at.is_null()).and_then(|at| timestamp(&at, problems));
    let annotations = fields.get("annotations").filter(|at| !at.is_null());
    let dry_run = annotations.as_ref().and_then(|at| dry_run(at, problems));
    let documentation = annotations.as_ref().map(documentation).unwrap_or_default();
    Some(Metadata { namespace: namespace?, name: name?, created, dry_run: dry_run.unwrap_or(false), documentation })
}

/// The value of the annotation, in the spellings of Go's `strconv.ParseBool`.
fn dry_run(annotations: &Cursor<'_>, problems: &mut Problems) -> Option<bool> {
    let entries = annotations.entries(problems)?;
    let (_, at) = entries.into_iter().find(|(key, _)| key.text() == DRY_RUN)?;
    match at.string(problems)? {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        other => {
            let message = format!("\"{}\" is neither true nor false; write \"true\" or \"false\"", printable(other));
            at.report("bad-dry-run", message, problems);
            None
        }
    }
}

/// What documents an exception. A value that is no text counts as none: it decides nothing.
fn documentation(annotations: &Cursor<'_>) -> Documentation {
    let entries = annotations.entries(&mut Problems::new()).unwrap_or_default();
    Documentation::read(|name| {
        let (_, at) = entries.iter().find(|(key, _)| key.text() == name)?;
        at.string(&mut Problems::new())
    })
}

fn timestamp(at: &Cursor<'_>, problems: &mut Problems) -> Option<OffsetDateTime> {
    let text = at.string(problems)?;
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok();
    if moment.is_none() {
        let message = format!("\"{}\" is not an RFC 3339 time such as 2026-01-31T12:00:00Z", printable(text));
        at.report("invalid-timestamp", message, problems);
    }
    moment
}

/// The longest DNS-1123 label, and so the longest namespace.
const MAX_LABEL: usize = 63;

/// The longest DNS-1123 subdomain, and so the longest object name.
const MAX_SUBDOMAIN: usize = 253;

/// A DNS-1123 label, as namespaces and names of ports and subsets are.
pub(crate) fn is_dns_label(text: &str) -> bool {
    is_label(text) && text.len() <= MAX_LABEL
}

/// The characters of a DNS-1123 label.
fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

/// A DNS-1123 subdomain. Kubernetes bounds the whole, not its parts.
fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::{is_label, is_subdomain};

    #[test]
    fn names_are_those_of_kubernetes() {
        for good in ["a", "default", "a-b", "0", "a.b", "my-app.v1", &"a".repeat(253), "x--y"] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "-a", "a-", "A", "a_b", "a/b", "é", "a b", "a.-b", &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
        assert!(is_label("shop") && !is_label("shop.x") && !is_label(""));
    }
}
