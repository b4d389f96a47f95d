//! One PeerAuthentication document, read strictly: an ordinary one, or break-glass.

use portcullis_yaml::{Cursor, Problems};

use crate::break_glass::{self, BreakGlass};
use crate::metadata::{self, Metadata};
use crate::resource::{PeerAuthentication, ReadResource};
use crate::spec::{self, Spec};

/// A PeerAuthentication of one of both kinds.
pub(crate) enum AnyPeerAuthentication {
    /// It holds while its file is there.
    Lasting(PeerAuthentication),
    /// It ends by itself.
    BreakGlass(BreakGlass),
}

/// Reads one document.
pub(crate) fn read(root: &Cursor<'_>, file: &str) -> ReadResource<AnyPeerAuthentication> {
    let (mut problems, mut warnings) = (Problems::new(), Problems::new());
    let Parts { metadata, spec } = read_parts(root, &mut warnings, &mut problems).unwrap_or_default();
    let terms = break_glass::read(root, &mut problems);
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
    if let Some(policy) = policy.as_ref().filter(|_| terms.is_some()) {
        break_glass::check(root, policy, &mut problems);
    }
    let policy = policy.filter(|_| problems.is_empty()).map(|policy| match terms {
        Some(terms) => AnyPeerAuthentication::BreakGlass(terms.of(policy)),
        None => AnyPeerAuthentication::Lasting(policy),
    });
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
