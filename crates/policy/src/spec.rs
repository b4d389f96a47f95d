//! `spec` of a PeerAuthentication: selector, mode, ports.

use std::collections::BTreeMap;

use portcullis_yaml::{Content, Cursor, Fields, Key, Problem, Problems, ScalarKind, printable};

use crate::mode::Mode;

/// The rules of a policy; `None` as a mode is UNSET.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) mode: Option<Mode>,
    pub(crate) ports: BTreeMap<u16, Option<Mode>>,
}

/// The longest label value in Kubernetes.
const MAX_LABEL_VALUE: usize = 63;

/// Reads `spec`. The result may be used only if no problem was added.
pub(crate) fn read(at: &Cursor<'_>, warnings: &mut Problems, problems: &mut Problems) -> Option<Spec> {
    let fields = at.fields(&["selector", "mtls", "portLevelMtls"], problems)?;
    let selector = fields.get("selector");
    let labels = read_selector(&fields, warnings, problems);
    let mode = fields.get("mtls").and_then(|at| read_mtls(&at, problems)).flatten();
    let mut ports = BTreeMap::new();
    if let Some(at) = fields.get("portLevelMtls") {
        // A faulty selector counts as one: it has its own messages.
        if !selector.as_ref().is_some_and(has_labels) && matches!(at.node().content, Content::Mapping(_)) {
            let message = "a port map needs a selector with matchLabels, since ports belong to workloads; add one, or say \
                           it in spec.mtls for all ports";
            at.report("ports-need-selector", message, problems);
        }
        ports = read_ports(&at, problems).unwrap_or_default();
    }
    Some(Spec { selector: labels, mode, ports })
}

fn has_labels(selector: &Cursor<'_>) -> bool {
    selector
        .peek("matchLabels")
        .is_some_and(|at| matches!(&at.node().content, Content::Mapping(labels) if !labels.entries.is_empty()))
}

/// `selector` of a policy of either kind; empty if there is none. One that selects by nothing causes a warning.
pub(crate) fn read_selector(
    fields: &Fields<'_>,
    warnings: &mut Problems,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let Some(at) = fields.get("selector") else { return BTreeMap::new() };
    let labels = read_labels(&at, problems);
    if labels.as_ref().is_some_and(BTreeMap::is_empty) {
        let message = "selects by no label, so the policy holds for its whole namespace, or in the root namespace for the \
                       mesh; remove the selector, or name labels under matchLabels";
        at.report("selector-without-labels", message, warnings);
    }
    labels.unwrap_or_default()
}

fn read_labels(at: &Cursor<'_>, problems: &mut Problems) -> Option<BTreeMap<String, String>> {
    let fields = at.fields(&["matchLabels"], problems)?;
    let Some(at) = fields.get("matchLabels") else { return Some(BTreeMap::new()) };
    read_label_map(&at, problems)
}

/// Labels that a selector compares.
pub(crate) fn read_label_map(at: &Cursor<'_>, problems: &mut Problems) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (key, value) in at.entries(problems)? {
        let name = key.text();
        if key.scalar.kind() != ScalarKind::String && !name.is_empty() {
            let message = "this key is no text for every reader of YAML; quote it";
            at_key(key, &value, "wrong-type", message, problems);
        }
        if name.is_empty() {
            at_key(key, &value, "selector-empty-key", "a label needs a key, such as app", problems);
        }
        if name.contains('*') {
            let message = "label keys are compared exactly and '*' is no wildcard; write the key out";
            at_key(key, &value, "selector-wildcard", message, problems);
        }
        let Some(text) = value.string(problems) else { continue };
        if text.contains('*') {
            let message = "label values are compared exactly and '*' is no wildcard; write the value out";
            value.report("selector-wildcard", message, problems);
        }
        let length = text.chars().count();
        if length > MAX_LABEL_VALUE {
            let message = format!("a label value has at most {MAX_LABEL_VALUE} characters, this one has {length}");
            value.report("selector-value-too-long", message, problems);
        }
        labels.insert(name.to_owned(), text.to_owned());
    }
    Some(labels)
}

/// `{mode}`: `Some(None)` is UNSET.
fn read_mtls(at: &Cursor<'_>, problems: &mut Problems) -> Option<Option<Mode>> {
    let fields = at.fields(&["mode"], problems)?;
    let Some(at) = fields.get("mode") else { return Some(None) };
    let text = at.string(problems)?;
    if text == UNSET {
        return Some(None);
    }
    let mode = Mode::ALL.into_iter().find(|mode| mode.as_str() == text);
    if mode.is_none() {
        let folded = text.to_ascii_uppercase();
        let meant = Mode::ALL.iter().map(|mode| mode.as_str()).chain([UNSET]).find(|known| *known == folded);
        let hint = match meant {
            Some(meant) => format!("letter case counts: write {meant}"),
            None => "write STRICT, PERMISSIVE, DISABLE or UNSET".to_owned(),
        };
        at.report("unsupported-mode", format!("\"{}\" is not a mode; {hint}", printable(text)), problems);
    }
    mode.map(Some)
}

/// The mode that sets nothing.
pub(crate) const UNSET: &str = "UNSET";

fn read_ports(at: &Cursor<'_>, problems: &mut Problems) -> Option<BTreeMap<u16, Option<Mode>>> {
    let entries = at.entries(problems)?;
    if entries.is_empty() {
        at.report("port-map-empty", "name at least one port, or remove portLevelMtls", problems);
    }
    let mut ports = BTreeMap::new();
    for (key, value) in entries {
        let mode = read_mtls(&value, problems);
        match port(key.text()) {
            // Digits have one spelling, so the parser has reported a port that is listed twice.
            Ok(port) => _ = ports.insert(port, mode.flatten()),
            Err(reason) => {
                let key_text = printable(key.text());
                let message = format!("\"{key_text}\" is not a port; write decimal digits, from 1 to 65535");
                at_key(key, &value, reason, &message, problems);
            }
        }
    }
    Some(ports)
}

/// Decimal digits only: no plus sign, hexadecimal, exponent or leading zero. A negative number is one that is out of range.
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

/// Reports a problem at the position of a key, with the path of its value.
fn at_key(key: &Key, value: &Cursor<'_>, reason: &'static str, message: &str, problems: &mut Problems) {
    let field = value.field().to_owned();
    problems.push(Problem { position: key.position, field, reason, message: message.to_owned() });
}
