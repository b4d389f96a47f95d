//! One PeerAuthentication document, read strictly.

use std::collections::BTreeMap;

use portcullis_yaml::{Cursor, Problems};
use time::OffsetDateTime;

use crate::documentation::Documentation;
use crate::metadata::{self, Metadata};
use crate::mode::Mode;
use crate::spec::{self, Spec};

/// A valid PeerAuthentication.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerAuthentication {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.creationTimestamp`; `None` is older than any.
    pub created: Option<OffsetDateTime>,
    /// The annotation `istio.io/dry-run`: it is evaluated and logged, and decides nothing.
    pub dry_run: bool,
    /// Who wanted it, why, and until when. It decides nothing.
    pub documentation: Documentation,
    /// `spec.selector.matchLabels`; empty means that there is no selection.
    pub selector: BTreeMap<String, String>,
    /// `spec.mtls.mode`; `None` is UNSET.
    pub mode: Option<Mode>,
    /// `spec.portLevelMtls`; a mode of `None` is UNSET.
    pub ports: BTreeMap<u16, Option<Mode>>,
    /// The file in which it is written.
    pub file: String,
    /// The line on which it begins, from 1.
    pub line: u32,
    /// The column at which it begins, from 1.
    pub column: u32,
}

impl PeerAuthentication {
    /// Whether it comes before `other` among the policies of one scope: the older first (no timestamp is older than any),
    /// then by name and namespace, bytewise. The first one applies, the others do not. One with `istio.io/dry-run` comes before
    /// those without, so that a dry run shows what it would do in their place.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        let order = |policy: &Self| (!policy.dry_run, policy.created);
        (order(self), &self.name, &self.namespace) < (order(other), &other.name, &other.namespace)
    }
}

/// The result of reading one document.
pub(crate) struct ReadResource<P> {
    /// Namespace and name, also when other fields are wrong: a duplicate is then found in the same run.
    pub(crate) identity: Option<(String, String)>,
    /// The resource, if nothing is wrong with it.
    pub(crate) policy: Option<P>,
    pub(crate) problems: Problems,
    pub(crate) warnings: Problems,
}

/// Reads one document.
pub(crate) fn read(root: &Cursor<'_>, file: &str) -> ReadResource<PeerAuthentication> {
    let (mut problems, mut warnings) = (Problems::new(), Problems::new());
    let Parts { metadata, spec } = read_parts(root, &mut warnings, &mut problems).unwrap_or_default();
    let identity = metadata.as_ref().map(|metadata| (metadata.namespace.clone(), metadata.name.clone()));
    let policy = match (metadata, spec) {
        (Some(metadata), Some(spec)) if problems.is_empty() => Some(PeerAuthentication {
            namespace: metadata.namespace,
            name: metadata.name,
            created: metadata.created,
            dry_run: metadata.dry_run,
            documentation: metadata.documentation,
            selector: spec.selector,
            mode: spec.mode,
            ports: spec.ports,
            file: file.to_owned(),
            line: root.position().line,
            column: root.position().column,
        }),
        _ => None,
    };
    ReadResource { identity, policy, problems, warnings }
}

/// The parts of a document that could be read.
#[derive(Default)]
struct Parts {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

fn read_parts(root: &Cursor<'_>, warnings: &mut Problems, problems: &mut Problems) -> Option<Parts> {
    // Kubernetes writes `status`; it is not part of the policy.
    let fields = root.fields(&["apiVersion", "kind", "metadata", "spec", "status"], problems)?;
    let metadata = metadata::read(&fields, problems);
    let spec = match fields.get("spec").filter(|at| !at.is_null()) {
        Some(at) => spec::read(&at, warnings, problems),
        None => Some(Spec::default()),
    };
    Some(Parts { metadata, spec })
}
