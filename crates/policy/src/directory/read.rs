//! What the readers of the three kinds share.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_identity::SpiffeId;
use portcullis_istio::go_duration;
use portcullis_yaml::{Cursor, Fields, Problem, Problems, printable, reason};

use crate::directory::resource::ResourceMeta;
use crate::metadata;
use crate::resource::ReadResource;

/// Istio knows the field, and it has no meaning here.
pub(super) const UNSUPPORTED_FIELD: &str = "unsupported-field";
/// Something is written twice.
pub(super) const DUPLICATE_VALUE: &str = "duplicate-value";
/// A list or text that must not be empty is.
pub(super) const EMPTY_VALUE: &str = "empty-value";

/// What a reader finds beside its result.
#[derive(Default)]
pub(super) struct Report {
    pub(super) problems: Problems,
    pub(super) warnings: Problems,
}

/// Reads one document whose `spec` is read by `read_spec`, which also gets the namespace of the document and its metadata.
pub(super) fn document<S, R>(
    root: &Cursor<'_>,
    file: &str,
    read_spec: impl FnOnce(&Cursor<'_>, &Fields<'_>, &str, &mut Report) -> Option<S>,
    make: impl FnOnce(ResourceMeta, S) -> R,
) -> ReadResource<R> {
    let mut report = Report::default();
    let read = || {
        // Kubernetes writes `status`; it says nothing about what is meant to be.
        let fields = root.fields(&["apiVersion", "kind", "metadata", "spec", "status"], &mut report.problems)?;
        let metadata = metadata::read(&fields, &mut report.problems);
        let namespace = metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str());
        let spec = fields.require("spec", &mut report.problems);
        let spec = spec.and_then(|at| read_spec(&at, &fields, namespace, &mut report));
        Some((metadata, spec))
    };
    let (metadata, spec) = read().unwrap_or_default();
    let identity = metadata.as_ref().map(|metadata| (metadata.namespace.clone(), metadata.name.clone()));
    let policy = match (metadata, spec) {
        (Some(metadata), Some(spec)) if report.problems.is_empty() => {
            let meta = ResourceMeta {
                namespace: metadata.namespace.into(),
                name: metadata.name.into(),
                created: metadata.created,
                documentation: metadata.documentation,
                file: file.into(),
                line: root.position().line,
                column: root.position().column,
            };
            Some(make(meta, spec))
        }
        _ => None,
    };
    ReadResource { identity, policy, problems: report.problems, warnings: report.warnings }
}

/// Reports each field of Istio that is written and has no meaning here.
pub(super) fn refuse(fields: &Fields<'_>, unsupported: &[(&str, &str)], problems: &mut Problems) {
    for (name, why) in unsupported {
        if let Some(at) = fields.get(name) {
            at.report(UNSUPPORTED_FIELD, format!("is not supported: {why}"), problems);
        }
    }
}

/// The fields of a mapping, known ones and those that are refused by name.
pub(super) fn fields<'t>(
    at: &Cursor<'t>,
    known: &[&str],
    unsupported: &[(&str, &str)],
    problems: &mut Problems,
) -> Option<Fields<'t>> {
    let all: Vec<&str> = known.iter().copied().chain(unsupported.iter().map(|(name, _)| *name)).collect();
    let fields = at.fields(&all, problems)?;
    refuse(&fields, unsupported, problems);
    Some(fields)
}

/// The items of a list that must have some.
pub(super) fn required_items<'t>(fields: &Fields<'t>, name: &str, problems: &mut Problems) -> Vec<Cursor<'t>> {
    let Some(at) = fields.require(name, problems) else { return Vec::new() };
    let items = at.items(problems);
    if items.as_ref().is_some_and(Vec::is_empty) {
        at.report(EMPTY_VALUE, "must not be empty", problems);
    }
    items.unwrap_or_default()
}

/// The items of a list of texts that are not empty.
pub(super) fn strings<'t>(at: &Cursor<'t>, problems: &mut Problems) -> Vec<(Cursor<'t>, &'t str)> {
    let items = at.items(problems).unwrap_or_default();
    items.into_iter().filter_map(|item| text(&item, problems).map(|text| (item, text))).collect()
}

/// A text that is not empty.
pub(super) fn text<'t>(at: &Cursor<'t>, problems: &mut Problems) -> Option<&'t str> {
    let text = at.string(problems)?;
    if text.is_empty() {
        at.report(EMPTY_VALUE, "must not be empty", problems);
        return None;
    }
    Some(text)
}

/// A port, from 1 to 65535.
pub(super) fn port(at: &Cursor<'_>, problems: &mut Problems) -> Option<u16> {
    let mut found = Problems::new();
    let port = at.integer(1, u16::MAX.into(), &mut found);
    for problem in found.into_vec() {
        let out_of_range = problem.reason == reason::OUT_OF_RANGE;
        let reason = if out_of_range { "port-out-of-range" } else { problem.reason };
        problems.push(Problem { reason, ..problem });
    }
    u16::try_from(port?).ok()
}

/// A whole number that is not negative.
pub(super) fn number(at: &Cursor<'_>, max: u32, problems: &mut Problems) -> Option<u32> {
    u32::try_from(at.integer(0, max.into(), problems)?).ok()
}

/// One of the names of a table.
pub(super) fn choice<T: Copy>(
    at: &Cursor<'_>,
    what: &str,
    table: &[(&str, T)],
    reason: &'static str,
    problems: &mut Problems,
) -> Option<T> {
    let text = at.string(problems)?;
    let found = table.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    if found.is_none() {
        let near = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        let hint = match near {
            Some((name, _)) => format!("letter case counts: write {name}"),
            None => format!("write one of {}", names.join(", ")),
        };
        at.report(reason, format!("\"{}\" is not a supported {what}; {hint}", printable(text)), problems);
    }
    found
}

/// The shortest time that is waited for.
const MIN_DURATION: Duration = Duration::from_millis(1);
/// The longest time: longer ones are typing errors.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// A duration as Go writes it, from a millisecond to a day.
pub(super) fn duration(at: &Cursor<'_>, problems: &mut Problems) -> Option<Duration> {
    let text = at.string(problems)?;
    let found = go_duration(text).filter(|time| (MIN_DURATION..=MAX_DURATION).contains(time));
    if found.is_none() {
        let message =
            format!("\"{}\" is not a duration from 1ms to 24h; write one as Go does: 500ms, 30s, 5m", printable(text));
        at.report("invalid-duration", message, problems);
    }
    found
}

/// Names of another kind never match a certificate of the mesh.
pub(super) fn warn_unless_spiffe_id(at: &Cursor<'_>, text: &str, warnings: &mut Problems) {
    if !SpiffeId::parse(text).is_ok_and(|id| !id.path().is_empty()) {
        let message = format!(
            "\"{}\" is not the SPIFFE ID of a workload, so no certificate of the mesh has it; write \
             spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT",
            printable(text)
        );
        at.report("not-a-spiffe-id", message, warnings);
    }
}

/// The longest value of a label in Kubernetes.
const MAX_LABEL_VALUE: usize = 63;

/// The labels of a workload.
pub(super) fn labels(at: &Cursor<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    for (key, value) in at.entries(problems).unwrap_or_default() {
        let name = key.text();
        let valid = !name.is_empty() && name.bytes().all(|byte| letters(byte) || byte == b'/');
        if !valid {
            let message = "a label's key has letters, digits, '-', '_', '.' and '/', and at least one of them";
            value.report("invalid-label", message, problems);
        }
        let Some(text) = value.string(problems) else { continue };
        if text.len() > MAX_LABEL_VALUE || !text.bytes().all(letters) {
            let message =
                format!("a label's value has letters, digits, '-', '_' and '.', at most {MAX_LABEL_VALUE} of them");
            value.report("invalid-label", message, problems);
        }
        labels.insert(name.to_owned(), text.to_owned());
    }
    labels
}
