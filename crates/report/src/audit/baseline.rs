//! A saved set of exceptions, and what changed since.
//!
//! Written with its keys in one order and its entries sorted, so that two of the same exceptions are the same text, and a change is
//! a few lines in a diff. Lines are left out: they move whenever something else in the file changes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::audit::model::{Change, Drift, DriftKind, Exception};
use crate::text::{clean, clean_long};

/// What this version writes and reads.
const VERSION: u32 = 1;
const KIND: &str = "AuditBaseline";

/// A saved set of exceptions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    api_version: String,
    kind: String,
    version: u32,
    exceptions: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Entry {
    namespace: String,
    kind: String,
    name: String,
    scope: String,
    mode: String,
    selector: BTreeMap<String, String>,
    owner: Option<String>,
    reason: Option<String>,
    expires: Option<String>,
    file: String,
}

/// Why a file is no baseline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BaselineError {
    /// It is not JSON, or has another form.
    Form(String),
    /// It is something else.
    Kind(String),
    /// It is one of another version.
    Version(u64),
}

impl fmt::Display for BaselineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(why) => write!(f, "is no baseline: {why}; write one with `portcullis audit --save FILE`"),
            Self::Kind(kind) => {
                write!(f, "is no baseline, but of kind {kind:?}; write one with `portcullis audit --save FILE`")
            }
            Self::Version(version) if *version > u64::from(VERSION) => write!(
                f,
                "is a baseline of version {version}, and this command reads version {VERSION}: update the command, or save the \
                 baseline anew with --save"
            ),
            Self::Version(version) => write!(
                f,
                "is a baseline of version {version}, and this command reads version {VERSION}: save it anew with --save, after a look \
                 at what `portcullis audit` lists"
            ),
        }
    }
}

impl std::error::Error for BaselineError {}

impl Baseline {
    /// What is saved of these exceptions.
    #[must_use]
    pub fn new(items: &[Exception]) -> Self {
        let mut exceptions: Vec<Entry> = items.iter().map(Entry::of).collect();
        exceptions.sort_by(|one, other| one.key().cmp(&other.key()));
        Self { api_version: "portcullis/v1".to_owned(), kind: KIND.to_owned(), version: VERSION, exceptions }
    }

    /// Its text.
    ///
    /// # Errors
    /// None that an exception causes.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// Reads a text.
    ///
    /// # Errors
    /// If it is something else, or of another version.
    pub fn parse(text: &str) -> Result<Self, BaselineError> {
        let form = |error: serde_json::Error| BaselineError::Form(error.to_string());
        let value: serde_json::Value = serde_json::from_str(text).map_err(form)?;
        let kind = value.get("kind").and_then(serde_json::Value::as_str).unwrap_or_default();
        if kind != KIND {
            return Err(BaselineError::Kind(clean(kind)));
        }
        // Before the rest, which another version may have in another form.
        match value.get("version").and_then(serde_json::Value::as_u64) {
            None => return Err(BaselineError::Form("it has no version".to_owned())),
            Some(version) if version != u64::from(VERSION) => return Err(BaselineError::Version(version)),
            Some(_) => {}
        }
        serde_json::from_value(value).map_err(form)
    }

    /// What differs, in the order of the exceptions. Of one namespace only, if one is named.
    pub(super) fn compare(&self, items: &[Exception], namespace: Option<&str>) -> Vec<Drift> {
        let meant = |entry: &&Entry| namespace.is_none_or(|namespace| namespace == entry.namespace);
        let mut before: BTreeMap<Key<'_>, &Entry> =
            self.exceptions.iter().filter(meant).map(|entry| (entry.key(), entry)).collect();
        let mut drift = Vec::new();
        let now: Vec<Entry> = items.iter().map(Entry::of).collect();
        for (item, now) in items.iter().zip(&now) {
            let location = if item.line > 0 { format!("{}:{}", item.file, item.line) } else { item.file.clone() };
            match before.remove(&now.key()) {
                None => drift.push(now.drift(DriftKind::Added, location, now.differences(None))),
                Some(old) => {
                    let changes = now.differences(Some(old));
                    if !changes.is_empty() {
                        drift.push(now.drift(DriftKind::Changed, location, changes));
                    }
                }
            }
        }
        for gone in before.into_values() {
            drift.push(gone.drift(DriftKind::Removed, clean_long(&gone.file), Vec::new()));
        }
        let order = |one: &Drift| (one.namespace.clone(), one.resource.clone(), one.name.clone(), one.scope.clone());
        drift.sort_by_key(order);
        drift
    }
}

/// What an exception is found again by.
type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Entry {
    fn of(item: &Exception) -> Self {
        Self {
            namespace: item.namespace.clone(),
            kind: item.kind.to_owned(),
            name: item.name.clone(),
            scope: item.scope.clone(),
            mode: item.mode.clone(),
            selector: item.selector.clone(),
            owner: item.owner.clone(),
            reason: item.reason.clone(),
            expires: item.expires.clone(),
            file: item.file.clone(),
        }
    }

    fn key(&self) -> Key<'_> {
        (&self.namespace, &self.kind, &self.name, &self.scope)
    }

    /// The fields that count; of a new one, those that it has.
    fn differences(&self, before: Option<&Self>) -> Vec<Change> {
        let fields = |entry: &Self| {
            let labels: Vec<String> = entry.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let selector = Some(labels.join(",")).filter(|text| !text.is_empty());
            [Some(entry.mode.clone()), selector, entry.owner.clone(), entry.reason.clone(), entry.expires.clone()]
        };
        let names = ["mode", "selector", "owner", "reason", "expires"];
        let before = before.map_or_else(Default::default, fields);
        let each = names.into_iter().zip(before).zip(fields(self));
        let differing = each.filter(|((_, before), after)| before != after);
        // A baseline is a file that others may have written.
        let of = |((field, before), after): ((&'static str, Option<String>), Option<String>)| Change {
            field,
            before: before.as_deref().map(clean),
            after,
        };
        differing.map(of).collect()
    }

    fn drift(&self, kind: DriftKind, location: String, changes: Vec<Change>) -> Drift {
        Drift {
            kind,
            resource: clean(&self.kind),
            namespace: clean(&self.namespace),
            name: clean(&self.name),
            scope: clean_long(&self.scope),
            owner: self.owner.as_deref().map(clean),
            location,
            changes,
        }
    }
}
