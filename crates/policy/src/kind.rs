//! What a document is, by its `apiVersion` and `kind`.
//!
//! A document that changes who is admitted must never be skipped silently: a policy with a misspelt `kind` would leave a
//! port open that its author believes closed. Only documents that are certainly something else are ignored, with a warning.

use portcullis_istio::API_VERSION;
use portcullis_yaml::{Content, Cursor, ScalarKind, printable};

/// What to do with a document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Read it.
    PeerAuthentication,
    /// Read it.
    AuthorizationPolicy,
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
const GROUP: &str = "security.istio.io";

/// Its versions. They mean the same.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Kinds that decide who is admitted or called, and that this version does not read.
const UNSUPPORTED: [&str; 5] = ["RequestAuthentication", "DestinationRule", "Sidecar", "EnvoyFilter", "WasmPlugin"];

/// Kinds that are read, with the lists of them.
const READ: [&str; 5] =
    ["PeerAuthentication", "PeerAuthenticationList", "AuthorizationPolicy", "AuthorizationPolicyList", "List"];

const WANTED: &str = "write apiVersion: security.istio.io/v1 and kind: PeerAuthentication or AuthorizationPolicy";

const UNKNOWN: &str = "unknown-kind";

/// The kind of a document.
pub(crate) fn of(root: &Cursor<'_>) -> Kind {
    let refused = |reason, message| Kind::Refused(reason, message);
    match &root.node().content {
        Content::Mapping(_) => {}
        Content::Refused => return Kind::Reported,
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
    let ours = group == GROUP && VERSIONS.contains(&version_of_group);
    let (shown_kind, shown_version) = (printable(kind), printable(version));
    match kind {
        "List" => return Kind::List,
        "PeerAuthenticationList" | "AuthorizationPolicyList" if ours => return Kind::List,
        "PeerAuthentication" if ours => return Kind::PeerAuthentication,
        "AuthorizationPolicy" if ours => return Kind::AuthorizationPolicy,
        "IstioOperator" if version == API_VERSION => return Kind::IstioOperator,
        _ => {}
    }
    let is = |name: &str| kind.eq_ignore_ascii_case(name);
    if is("IstioOperator") {
        let wanted = format!("write apiVersion: {API_VERSION} and kind: IstioOperator");
        return refused("unsupported-version", format!("kind {shown_kind} of {shown_version} is not known; {wanted}"));
    }
    if READ.into_iter().any(is) {
        return refused(UNKNOWN, format!("kind {shown_kind} of {shown_version} is not known; {WANTED}"));
    }
    let listed =
        |name: &str| kind.get(..kind.len().saturating_sub(4)).is_some_and(|item| item.eq_ignore_ascii_case(name));
    let is_list = kind.len() > 4 && kind.get(kind.len() - 4..).is_some_and(|end| end.eq_ignore_ascii_case("List"));
    if UNSUPPORTED.into_iter().any(|name| is(name) || is_list && listed(name)) {
        let message = format!(
            "{shown_kind} is not supported by this version, and skipping it could admit what it forbids; take it out of the \
             policy files"
        );
        return refused("unsupported-kind", message);
    }
    if group == GROUP {
        return refused(UNKNOWN, format!("{GROUP} has no kind {shown_kind} that is known here; {WANTED}"));
    }
    Kind::Ignored(format!("kind {shown_kind} of {shown_version} has no meaning here and is ignored"))
}

/// The value of a field if it is a string.
fn text<'t>(root: &Cursor<'t>, name: &str) -> Option<&'t str> {
    match &root.peek(name)?.node().content {
        Content::Scalar(scalar) if scalar.kind() == ScalarKind::String && !scalar.text.is_empty() => Some(&scalar.text),
        _ => None,
    }
}
