//! `exportTo`: which namespaces see a resource.

use std::collections::BTreeSet;

use portcullis_yaml::{Fields, Problems, printable};

use crate::directory::read::strings;
use crate::metadata::is_dns_label;

/// Who sees a resource.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ExportTo {
    /// Every namespace: `*`, and the default.
    #[default]
    All,
    /// These namespaces; none for `~`.
    Namespaces(BTreeSet<String>),
}

/// What may stand in `exportTo` of a resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ExportRules {
    /// Of a ServiceEntry: `~` hides it from all.
    ServiceEntry,
    /// Of a DestinationRule.
    DestinationRule,
    /// Of a DestinationRule with a workloadSelector, which holds in its own namespace only.
    OwnNamespace,
}

impl ExportTo {
    /// Whether workloads of the namespace see it.
    #[must_use]
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }
}

const INVALID: &str = "invalid-export-to";

/// Reads `exportTo` of a resource in `namespace`.
pub(super) fn read(fields: &Fields<'_>, namespace: &str, rules: ExportRules, problems: &mut Problems) -> ExportTo {
    let Some(at) = fields.get("exportTo") else { return ExportTo::default() };
    let values = strings(&at, problems);
    let mut names = BTreeSet::new();
    let mut all = false;
    for (item, text) in &values {
        let fault = match *text {
            "*" | "~" if values.len() > 1 => Some(format!("\"{text}\" excludes every other value; keep one of them")),
            "~" if rules != ExportRules::ServiceEntry => {
                Some("a DestinationRule that nobody sees has no effect; remove it, or write \".\"".to_owned())
            }
            "*" | "~" => None,
            "." => insert(&mut names, namespace),
            name if !is_dns_label(name) => {
                Some(format!("\"{}\" is not a namespace, \".\", \"*\" or \"~\"", printable(name)))
            }
            name => insert(&mut names, name),
        };
        all |= *text == "*";
        if let Some(message) = fault {
            item.report(INVALID, message, problems);
        }
    }
    if rules == ExportRules::OwnNamespace && (all || names.iter().any(|name| name != namespace)) {
        let message =
            "a rule with a workloadSelector holds in its own namespace only; write [\".\"], or remove exportTo";
        at.report(INVALID, message, problems);
    }
    // An empty list is the same as none.
    if all || values.is_empty() { ExportTo::All } else { ExportTo::Namespaces(names) }
}

fn insert(names: &mut BTreeSet<String>, name: &str) -> Option<String> {
    let message = || format!("namespace \"{}\" is named twice (\".\" is the resource's own)", printable(name));
    (!names.insert(name.to_owned())).then(message)
}
