//! One PeerAuthentication document, read strictly.

use std::collections::BTreeMap;

use portcullis_yaml::{Content, Cursor, Position, Problems, ScalarKind};

use crate::Mode;

/// A valid PeerAuthentication.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerAuthentication {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.creationTimestamp` in seconds since 1970; absent is older than any.
    pub created: Option<i64>,
    /// `spec.selector.matchLabels`; empty means that there is no selection.
    pub selector: BTreeMap<String, String>,
    /// `spec.mtls.mode`; `None` is UNSET.
    pub mode: Option<Mode>,
    /// `spec.portLevelMtls`; `None` is UNSET.
    pub ports: BTreeMap<u16, Option<Mode>>,
    /// Where the document is.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

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

const MODE_CHOICES: &str = "write one of UNSET, DISABLE, PERMISSIVE, STRICT";

/// Reads one document. Warnings go to `warnings`; with any problem there is no resource.
pub(crate) fn read(
    root: &Cursor<'_>,
    file: &str,
    warnings: &mut Problems,
    problems: &mut Problems,
) -> Option<PeerAuthentication> {
    let before = problems.len();
    let fields = root.fields(&["apiVersion", "kind", "metadata", "spec", "status"], problems)?;
    let meta = fields.require_as("metadata", "missing-name", problems).and_then(|at| metadata(&at, problems));
    let spec = match fields.get("spec") {
        Some(at) if !at.is_null() => spec(&at, warnings, problems),
        _ => Some(Spec::default()),
    };
    let (meta, spec) = (meta?, spec?);
    (problems.len() == before).then(|| PeerAuthentication {
        namespace: meta.namespace,
        name: meta.name,
        created: meta.created,
        selector: spec.selector,
        mode: spec.mode,
        ports: spec.ports,
        file: file.to_owned(),
        line: root.position().line,
    })
}

struct Meta {
    namespace: String,
    name: String,
    created: Option<i64>,
}

fn metadata(at: &Cursor<'_>, problems: &mut Problems) -> Option<Meta> {
    let fields = at.fields(OBJECT_META, problems)?;
    let name = fields.require_as("name", "missing-name", problems).and_then(|at| {
        let name = at.string(problems)?;
        if !is_subdomain(name) {
            let message = format!(
                "\"{name}\" is not an object name: lower-case letters, digits, '-' and '.', at most 253, \
                 beginning and ending with a letter or digit"
            );
            at.report("invalid-name", message, problems);
        }
        Some(name.to_owned())
    });
    let namespace = fields.require_as("namespace", "missing-namespace", problems).and_then(|at| {
        let namespace = at.string(problems)?;
        if !is_label(namespace) {
            let message = format!("\"{namespace}\" is not a namespace: lower-case letters, digits and '-', at most 63");
            at.report("invalid-name", message, problems);
        }
        Some(namespace.to_owned())
    });
    let created = match fields.get("creationTimestamp") {
        Some(at) if !at.is_null() => timestamp(&at, problems),
        _ => None,
    };
    Some(Meta { namespace: namespace?, name: name?, created })
}

fn timestamp(at: &Cursor<'_>, problems: &mut Problems) -> Option<i64> {
    let text = at.string(problems)?;
    match time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339) {
        Ok(moment) => Some(moment.unix_timestamp()),
        Err(_) => {
            let message = format!("\"{text}\" is not an RFC 3339 time such as 2026-01-31T12:00:00Z");
            at.report("invalid-timestamp", message, problems);
            None
        }
    }
}

/// DNS-1123 label.
fn is_label(text: &str) -> bool {
    let end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && end(bytes.first())
        && end(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// DNS-1123 subdomain.
fn is_subdomain(text: &str) -> bool {
    let part = |label: &str| {
        let end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = label.as_bytes();
        end(bytes.first())
            && end(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

#[derive(Default)]
struct Spec {
    selector: BTreeMap<String, String>,
    mode: Option<Mode>,
    ports: BTreeMap<u16, Option<Mode>>,
}

fn spec(at: &Cursor<'_>, warnings: &mut Problems, problems: &mut Problems) -> Option<Spec> {
    let fields = at.fields(&["selector", "mtls", "portLevelMtls"], problems)?;
    let selector = match fields.get("selector") {
        None => BTreeMap::new(),
        Some(at) => {
            let labels = selector(&at, problems);
            if labels.as_ref().is_some_and(BTreeMap::is_empty) {
                let message = "selects no labels, so the policy holds for its whole namespace (or the mesh); \
                               remove the selector, or name labels under matchLabels";
                at.report("selector-without-labels", message, warnings);
            }
            labels.unwrap_or_default()
        }
    };
    let has_selector = fields.get("selector").is_some_and(|at| {
        at.peek("matchLabels")
            .is_some_and(|labels| matches!(&labels.node().content, Content::Mapping(map) if !map.entries.is_empty()))
    });
    let mode = fields.get("mtls").and_then(|at| mtls(&at, problems)).flatten();
    let mut ports = BTreeMap::new();
    if let Some(at) = fields.get("portLevelMtls") {
        if !has_selector && matches!(at.node().content, Content::Mapping(_)) {
            let message = "a port map needs a selector with matchLabels: ports belong to workloads";
            at.report("ports-need-selector", message, problems);
        }
        ports = port_map(&at, problems).unwrap_or_default();
    }
    Some(Spec { selector, mode, ports })
}

fn selector(at: &Cursor<'_>, problems: &mut Problems) -> Option<BTreeMap<String, String>> {
    let fields = at.fields(&["matchLabels"], problems)?;
    let mut labels = BTreeMap::new();
    let Some(at) = fields.get("matchLabels") else { return Some(labels) };
    for (key, value) in at.entries(problems)? {
        let name = key.text();
        if name.is_empty() {
            value.report("selector-empty-key", "a label key must not be empty", problems);
        }
        if name.contains('*') {
            value.report("selector-wildcard", "a label key is compared exactly; '*' is not a wildcard here", problems);
        }
        let Some(text) = value.string(problems) else { continue };
        if text.contains('*') {
            value.report(
                "selector-wildcard",
                "a label value is compared exactly; '*' is not a wildcard here",
                problems,
            );
        }
        if text.chars().count() > 63 {
            value.report("selector-value-too-long", "a label value has at most 63 characters", problems);
        }
        labels.insert(name.to_owned(), text.to_owned());
    }
    Some(labels)
}

/// `{mode}`: `Some(None)` is UNSET.
fn mtls(at: &Cursor<'_>, problems: &mut Problems) -> Option<Option<Mode>> {
    let fields = at.fields(&["mode"], problems)?;
    let Some(at) = fields.get("mode") else { return Some(None) };
    match at.string(problems)? {
        "UNSET" => Some(None),
        "STRICT" => Some(Some(Mode::Strict)),
        "PERMISSIVE" => Some(Some(Mode::Permissive)),
        "DISABLE" => Some(Some(Mode::Disable)),
        other => {
            at.report("unsupported-mode", format!("\"{other}\" is not a mode; {MODE_CHOICES}"), problems);
            None
        }
    }
}

fn port_map(at: &Cursor<'_>, problems: &mut Problems) -> Option<BTreeMap<u16, Option<Mode>>> {
    let entries = at.entries(problems)?;
    if entries.is_empty() {
        at.report("port-map-empty", "name at least one port, or remove portLevelMtls", problems);
    }
    let mut ports = BTreeMap::new();
    for (key, value) in entries {
        let mode = mtls(&value, problems);
        match port(key.text()) {
            Ok(port) => {
                // `8080` and `"8080"` are one port; equal texts were reported by the reader of YAML already.
                if ports.insert(port, mode.flatten()).is_some() {
                    value.report("duplicate-key", format!("port {port} is listed twice"), problems);
                }
            }
            Err(reason) => {
                let message = format!("\"{}\" is not a port; write a decimal number from 1 to 65535", key.text());
                value.report(reason, message, problems);
            }
        }
    }
    Some(ports)
}

/// Decimal digits only: no sign, hex, exponent or leading zero.
fn port(text: &str) -> Result<u16, &'static str> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !decimal || (digits.len() > 1 && digits.starts_with('0')) {
        return Err("port-not-integer");
    }
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && !negative => Ok(port),
        _ => Err("port-out-of-range"),
    }
}

/// The position of a document and whether a scalar is written as plain null: shared by the loader.
pub(crate) fn text_of<'t>(root: &Cursor<'t>, name: &str) -> Option<(&'t str, Position)> {
    let at = root.peek(name)?;
    match &at.node().content {
        Content::Scalar(scalar) if scalar.kind() == ScalarKind::String => Some((scalar.text.as_str(), at.position())),
        _ => None,
    }
}
