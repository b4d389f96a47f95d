//! What a document is, by its `apiVersion` and `kind`.
//!
//! A document that changes who is admitted must never be skipped silently: a policy with a misspelt `kind` would leave a
//! port open that its author believes closed. Only documents that are certainly something else are ignored, with a warning.

use portcullis_istio::API_VERSION;
use portcullis_yaml::{Content, Cursor, ScalarKind, printable};

/// What to do with a document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum DocumentKind {
    /// Read it.
    PeerAuthentication,
    /// Read it.
    AuthorizationPolicy,
    /// Read it.
    ServiceEntry,
    /// Read it.
    WorkloadEntry,
    /// Read it.
    DestinationRule,
    /// Read its settings of certificates.
    IstioOperator,
    /// Open it and read its items as documents.
    List,
    /// Skip it with a warning.
    Ignored(String),
    /// Refuse it: reason code and message.
    Refused(&'static str, String),
    /// Nothing: it was refused already.
    Reported,
}

/// The group of PeerAuthentication and AuthorizationPolicy.
const SECURITY: &str = "security.istio.io";

/// The group of ServiceEntry, WorkloadEntry and DestinationRule.
const NETWORKING: &str = "networking.istio.io";

/// A kind that is read. All its versions mean the same.
struct Known {
    name: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    kind: DocumentKind,
}

const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];
const NETWORKING_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// Kinds that are read, alone or in a list of them.
static KNOWN: [Known; 5] = [
    Known {
        name: "PeerAuthentication",
        group: SECURITY,
        versions: SECURITY_VERSIONS,
        kind: DocumentKind::PeerAuthentication,
    },
    Known {
        name: "AuthorizationPolicy",
        group: SECURITY,
        versions: SECURITY_VERSIONS,
        kind: DocumentKind::AuthorizationPolicy,
    },
    Known { name: "ServiceEntry", group: NETWORKING, versions: NETWORKING_VERSIONS, kind: DocumentKind::ServiceEntry },
    Known {
        name: "WorkloadEntry",
        group: NETWORKING,
        versions: NETWORKING_VERSIONS,
        kind: DocumentKind::WorkloadEntry,
    },
    Known {
        name: "DestinationRule",
        group: NETWORKING,
        versions: NETWORKING_VERSIONS,
        kind: DocumentKind::DestinationRule,
    },
];

/// The API group and the name of each kind that is read, for those who name resources without reading them.
pub fn resource_kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    KNOWN.iter().map(|known| (known.group, known.name))
}

/// The versions in which a kind is read, the one to prefer first; none of a kind that is not read. A server converts: each version that it
/// serves shows the same objects.
#[must_use]
pub fn resource_versions(kind: &str) -> &'static [&'static str] {
    KNOWN.iter().find(|known| known.name == kind).map_or(&[], |known| known.versions)
}

/// Kinds that decide who is admitted or called, and that this version does not read.
const UNSUPPORTED: [&str; 4] = ["RequestAuthentication", "Sidecar", "EnvoyFilter", "WasmPlugin"];

/// Kinds of the same group that say nothing about who may be called how.
const ROUTING: [&str; 4] = ["VirtualService", "Gateway", "WorkloadGroup", "ProxyConfig"];

const WANTED: &str = "write apiVersion: security.istio.io/v1 and kind: PeerAuthentication or AuthorizationPolicy";

const WANTED_OF_NETWORKING: &str =
    "write apiVersion: networking.istio.io/v1 and kind: ServiceEntry, WorkloadEntry or DestinationRule";

const UNKNOWN: &str = "unknown-kind";

/// The kind of a document.
pub(crate) fn of(root: &Cursor<'_>) -> DocumentKind {
    let refused = |reason, message| DocumentKind::Refused(reason, message);
    match &root.node().content {
        Content::Mapping(_) => {}
        Content::Refused => return DocumentKind::Reported,
        Content::Scalar(_) | Content::Sequence(_) => {
            return refused(UNKNOWN, format!("a document is a mapping with apiVersion and kind; {WANTED}"));
        }
    }
    let (version, kind) = match (text(root, "apiVersion"), text(root, "kind")) {
        (Some(version), Some(kind)) => (version, kind),
        (Some(_), None) => return refused(UNKNOWN, format!("the document has no kind; {WANTED}")),
        (None, Some(_)) => return refused(UNKNOWN, format!("the document has no apiVersion; {WANTED}")),
        (None, None) => return refused(UNKNOWN, format!("the document has no apiVersion and no kind; {WANTED}")),
    };
    let (group, version_of_group) = version.split_once('/').unwrap_or(("", version));
    let (shown_kind, shown_version) = (printable(kind), printable(version));
    let named = |known: &&Known| known.name == kind || kind.strip_suffix("List") == Some(known.name);
    match KNOWN.iter().find(named) {
        Some(known) if group == known.group && known.versions.contains(&version_of_group) => {
            return if known.name == kind { known.kind.clone() } else { DocumentKind::List };
        }
        _ if kind == "List" => return DocumentKind::List,
        _ if kind == "IstioOperator" && version == API_VERSION => return DocumentKind::IstioOperator,
        _ => {}
    }
    let item = list_item(kind);
    let is = |name: &str| kind.eq_ignore_ascii_case(name) || item.is_some_and(|item| item.eq_ignore_ascii_case(name));
    if kind.eq_ignore_ascii_case("IstioOperator") {
        let wanted = format!("write apiVersion: {API_VERSION} and kind: IstioOperator");
        return refused("unsupported-version", format!("kind {shown_kind} of {shown_version} is not known; {wanted}"));
    }
    if let Some(known) = KNOWN.iter().find(|known| is(known.name)) {
        let wanted = if known.group == NETWORKING { WANTED_OF_NETWORKING } else { WANTED };
        return refused(UNKNOWN, format!("kind {shown_kind} of {shown_version} is not known; {wanted}"));
    }
    if kind.eq_ignore_ascii_case("List") {
        return refused(UNKNOWN, format!("kind {shown_kind} of {shown_version} is not known; {WANTED}"));
    }
    if UNSUPPORTED.into_iter().any(is) {
        let message = format!(
            "{shown_kind} is not supported by this version, and skipping it could admit what it forbids; take it out of the \
             policy files"
        );
        return refused("unsupported-kind", message);
    }
    if group == SECURITY {
        return refused(UNKNOWN, format!("{SECURITY} has no kind {shown_kind} that is known here; {WANTED}"));
    }
    if group == NETWORKING && !ROUTING.into_iter().any(is) {
        let message = format!("{NETWORKING} has no kind {shown_kind} that is known here; {WANTED_OF_NETWORKING}");
        return refused(UNKNOWN, message);
    }
    DocumentKind::Ignored(format!("kind {shown_kind} of {shown_version} has no meaning here and is ignored"))
}

/// The kind of the items, if the kind is that of a list of one kind.
fn list_item(kind: &str) -> Option<&str> {
    let (item, end) = kind.split_at_checked(kind.len().checked_sub("List".len())?)?;
    (!item.is_empty() && end.eq_ignore_ascii_case("List")).then_some(item)
}

/// The value of a field if it is a string.
fn text<'t>(root: &Cursor<'t>, name: &str) -> Option<&'t str> {
    match &root.peek(name)?.node().content {
        Content::Scalar(scalar) if scalar.kind() == ScalarKind::String && !scalar.text.is_empty() => Some(&scalar.text),
        _ => None,
    }
}
