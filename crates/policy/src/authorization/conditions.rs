//! Reads sources, operations and `when` of a rule.

use portcullis_identity::SCHEME;
use portcullis_yaml::{Cursor, Fields, Problems, printable};

use crate::authorization::pattern::{NamespaceMatch, ServiceAccount, StringMatch};
use crate::authorization::rule::{Condition, Rule, Values};
use crate::cidr::Cidr;

/// What reading a rule needs, and finds.
pub(super) struct Report<'p, 't> {
    /// The namespace of the policy.
    pub(super) namespace: &'p str,
    pub(super) problems: &'p mut Problems,
    pub(super) warnings: &'p mut Problems,
    /// Fields of HTTP.
    pub(super) http: Vec<Cursor<'t>>,
}

/// The most `serviceAccounts` of one list.
const MAX_SERVICE_ACCOUNTS: usize = 16;

/// The longest value of `serviceAccounts`, in bytes.
const MAX_SERVICE_ACCOUNT: usize = 320;

const SOURCE: &[&str] = &[
    "principals",
    "notPrincipals",
    "requestPrincipals",
    "notRequestPrincipals",
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "trustDomains",
    "notTrustDomains",
    "ipBlocks",
    "notIpBlocks",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
];

const OPERATION: &[&str] = &["hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths"];

/// Keys of `when` that exist for HTTP only. One that ends in a bracket takes a name.
const HTTP_KEYS: &[&str] = &[
    "request.headers[",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[",
];

/// Keys of `when` that Istio once had, or that only Envoy's filters know.
const UNSUPPORTED_KEYS: &[&str] = &[
    "destination.namespace",
    "destination.labels",
    "destination.name",
    "destination.user",
    "experimental.envoy.filters.",
];

const KNOWN_KEYS: &str = "source.ip, remote.ip, source.namespace, source.principal, source.serviceAccount, source.trustDomain, \
                          destination.ip, destination.port, connection.sni";

/// Reads a source.
pub(super) fn source<'t>(at: &Cursor<'t>, report: &mut Report<'_, 't>) -> Option<Vec<Condition>> {
    let fields = at.fields(SOURCE, report.problems)?;
    let (mut conditions, before) = (Vec::new(), report.problems.len());
    add(&mut conditions, Condition::Principal, pair(&fields, "principals", "notPrincipals", principal, report));
    let glob = |at: &Cursor<'_>, report: &mut Report<'_, '_>| text(at, report).map(NamespaceMatch::new);
    add(&mut conditions, Condition::Namespace, pair(&fields, "namespaces", "notNamespaces", glob, report));
    let account = |at: &Cursor<'_>, report: &mut Report<'_, '_>| service_account(at, report);
    let accounts = pair(&fields, "serviceAccounts", "notServiceAccounts", account, report);
    add(&mut conditions, Condition::ServiceAccount, accounts);
    check_service_accounts(&fields, report);
    add(
        &mut conditions,
        Condition::TrustDomain,
        pair(&fields, "trustDomains", "notTrustDomains", trust_domain, report),
    );
    add(&mut conditions, Condition::SourceIp, pair(&fields, "ipBlocks", "notIpBlocks", block, report));
    add(&mut conditions, Condition::RemoteIp, pair(&fields, "remoteIpBlocks", "notRemoteIpBlocks", block, report));
    http(&mut conditions, &fields, &[("requestPrincipals", "notRequestPrincipals")], report);
    if conditions.is_empty() && report.problems.len() == before {
        at.report("empty-source", "a source names at least one thing; name one, or remove it", report.problems);
    }
    Some(conditions)
}

/// Reads an operation.
pub(super) fn operation<'t>(at: &Cursor<'t>, report: &mut Report<'_, 't>) -> Option<Vec<Condition>> {
    let fields = at.fields(OPERATION, report.problems)?;
    let (mut conditions, before) = (Vec::new(), report.problems.len());
    add(&mut conditions, Condition::Port, pair(&fields, "ports", "notPorts", port, report));
    http(&mut conditions, &fields, &[("hosts", "notHosts"), ("methods", "notMethods"), ("paths", "notPaths")], report);
    if conditions.is_empty() && report.problems.len() == before {
        at.report("empty-operation", "an operation names at least one thing; name one, or remove it", report.problems);
    }
    Some(conditions)
}

/// Reads an entry of `when`.
pub(super) fn when<'t>(at: &Cursor<'t>, report: &mut Report<'_, 't>) -> Option<Condition> {
    let fields = at.fields(&["key", "values", "notValues"], report.problems)?;
    let Some(key_at) = fields.get("key") else {
        at.report("unknown-key", format!("a condition needs a key; known here: {KNOWN_KEYS}"), report.problems);
        return None;
    };
    let key = key_at.string(report.problems)?;
    let before = report.problems.len();
    let string = |at: &Cursor<'_>, report: &mut Report<'_, '_>| text(at, report).map(StringMatch::new);
    let glob = |at: &Cursor<'_>, report: &mut Report<'_, '_>| text(at, report).map(NamespaceMatch::new);
    let account = |at: &Cursor<'_>, report: &mut Report<'_, '_>| service_account(at, report);
    macro_rules! values {
        ($condition:path, $read:expr) => {{
            let values = pair(&fields, "values", "notValues", $read, report);
            (values.is_empty(), $condition(values))
        }};
    }
    let (is_empty, condition) = match key {
        "source.ip" => values!(Condition::SourceIp, block),
        "remote.ip" => values!(Condition::RemoteIp, block),
        "destination.ip" => values!(Condition::DestinationIp, block),
        "destination.port" => values!(Condition::Port, port),
        "source.namespace" => values!(Condition::Namespace, glob),
        "source.principal" => values!(Condition::Principal, principal),
        "source.serviceAccount" => {
            let values = pair(&fields, "values", "notValues", account, report);
            check_count(&fields, "values", report);
            check_count(&fields, "notValues", report);
            (values.is_empty(), Condition::ServiceAccount(values))
        }
        "source.trustDomain" => values!(Condition::TrustDomain, trust_domain),
        "connection.sni" => values!(Condition::Sni, string),
        _ if HTTP_KEYS.iter().any(|known| is_key(key, known)) => {
            let values = pair(&fields, "values", "notValues", |at, report| text(at, report).map(str::to_owned), report);
            report.http.push(key_at.clone());
            (values.is_empty(), Condition::Http(key.to_owned()))
        }
        _ => {
            refuse_key(&key_at, key, report);
            return None;
        }
    };
    if is_empty && report.problems.len() == before {
        at.report("condition-without-values", "a condition needs values or notValues", report.problems);
    }
    Some(condition)
}

/// Whether a key is the known one, or begins with it and ends in the bracket that it opens.
fn is_key(key: &str, known: &str) -> bool {
    match known.strip_suffix('[') {
        Some(_) => key.strip_prefix(known).is_some_and(|name| name.len() > 1 && name.ends_with(']')),
        None => key == known,
    }
}

fn refuse_key(at: &Cursor<'_>, key: &str, report: &mut Report<'_, '_>) {
    let shown = printable(key);
    if UNSUPPORTED_KEYS.iter().any(|known| key.starts_with(known)) {
        let message =
            format!("\"{shown}\" is not supported; select workloads with spec.selector, and see: {KNOWN_KEYS}");
        at.report("unsupported-key", message, report.problems);
    } else {
        at.report(
            "unknown-key",
            format!("\"{shown}\" is not a key of a condition; known here: {KNOWN_KEYS}"),
            report.problems,
        );
    }
}

fn add<T>(conditions: &mut Vec<Condition>, make: impl FnOnce(Values<T>) -> Condition, values: Values<T>) {
    if !values.is_empty() {
        conditions.push(make(values));
    }
}

/// Fields of HTTP: their values are checked, and only their names are kept.
fn http<'t>(conditions: &mut Vec<Condition>, fields: &Fields<'t>, pairs: &[(&str, &str)], report: &mut Report<'_, 't>) {
    for name in pairs.iter().flat_map(|(name, negated)| [name, negated]) {
        let values = list(fields, name, |at, report| text(at, report).map(str::to_owned), report);
        if let Some(at) = fields.get(name).filter(|_| !values.is_empty()) {
            report.http.push(at.clone());
            conditions.push(Condition::Http((*name).to_owned()));
        }
    }
}

/// A field and its negation.
fn pair<'t, T: Ord>(
    fields: &Fields<'t>,
    name: &str,
    negated: &str,
    read: impl Fn(&Cursor<'t>, &mut Report<'_, 't>) -> Option<T>,
    report: &mut Report<'_, 't>,
) -> Values<T> {
    let values = list(fields, name, &read, report);
    Values::new(values, list(fields, negated, &read, report))
}

fn list<'t, T>(
    fields: &Fields<'t>,
    name: &str,
    read: impl Fn(&Cursor<'t>, &mut Report<'_, 't>) -> Option<T>,
    report: &mut Report<'_, 't>,
) -> Vec<T> {
    let items = fields.get(name).and_then(|at| at.items(report.problems)).unwrap_or_default();
    items.iter().filter_map(|item| read(item, report)).collect()
}

/// A string that is not empty.
fn text<'t>(at: &Cursor<'t>, report: &mut Report<'_, '_>) -> Option<&'t str> {
    let text = at.string(report.problems)?;
    if text.is_empty() {
        at.report("empty-value", "an empty string matches nothing; write a value, or remove it", report.problems);
        return None;
    }
    Some(text)
}

fn principal(at: &Cursor<'_>, report: &mut Report<'_, '_>) -> Option<StringMatch> {
    let text = text(at, report)?;
    if text.trim_start_matches('*').starts_with(SCHEME) {
        let message = "a principal is written without spiffe://, which Istio puts in front of it; remove it, since this form hardly ever matches";
        at.report("principal-with-scheme", message, report.warnings);
    }
    Some(StringMatch::new(text))
}

fn block(at: &Cursor<'_>, report: &mut Report<'_, '_>) -> Option<Cidr> {
    let text = text(at, report)?;
    let block = Cidr::parse_lenient(text);
    if block.is_none() {
        let message = format!("\"{}\" is not an IP address or a range such as 10.0.0.0/8", printable(text));
        at.report("bad-ip-block", message, report.problems);
    }
    block
}

/// Istio allows 0 too; it never matches.
fn port(at: &Cursor<'_>, report: &mut Report<'_, '_>) -> Option<u16> {
    let text = text(at, report)?;
    let (reason, message) = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        match text.parse() {
            Ok(port) => return Some(port),
            Err(_) => ("port-out-of-range", format!("port {} is not between 0 and 65535", printable(text))),
        }
    } else if text
        .strip_prefix('-')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    {
        ("port-out-of-range", format!("port {} is negative", printable(text)))
    } else {
        ("port-not-integer", format!("\"{}\" is not a port; write decimal digits in quotes", printable(text)))
    };
    at.report(reason, message, report.problems);
    None
}

fn trust_domain(at: &Cursor<'_>, report: &mut Report<'_, '_>) -> Option<StringMatch> {
    let text = text(at, report)?;
    let pattern = StringMatch::new(text);
    let inner = match &pattern {
        StringMatch::Exact(part) | StringMatch::Prefix(part) | StringMatch::Suffix(part) => part.contains('*'),
        StringMatch::Present => false,
    };
    if inner {
        let message =
            format!("\"{}\" is not a trust domain; write its name, with a star only at one end", printable(text));
        at.report("bad-pattern", message, report.problems);
        return None;
    }
    Some(pattern)
}

fn service_account(at: &Cursor<'_>, report: &mut Report<'_, '_>) -> Option<ServiceAccount> {
    let text = text(at, report)?;
    let (namespace, name) = text.split_once('/').unwrap_or((report.namespace, text));
    let is_wrong = text.len() > MAX_SERVICE_ACCOUNT
        || name.is_empty()
        || text.starts_with('/')
        || name.contains('/')
        || text.contains('*');
    if is_wrong {
        let message = format!(
            "\"{}\" is not a service account; write NAMESPACE/NAME, or NAME for one of the policy's namespace, without a \
             star, at most {MAX_SERVICE_ACCOUNT} bytes",
            printable(text)
        );
        at.report("bad-service-account", message, report.problems);
        return None;
    }
    Some(ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn check_service_accounts(fields: &Fields<'_>, report: &mut Report<'_, '_>) {
    let alone = ["serviceAccounts", "notServiceAccounts"];
    for name in alone {
        check_count(fields, name, report);
    }
    let Some(at) = alone.into_iter().find_map(|name| fields.get(name)) else { return };
    let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    if let Some(other) = others.into_iter().find(|name| fields.get(name).is_some()) {
        let message = format!("serviceAccounts and {other} cannot stand in one source; use one of them");
        at.report("service-accounts-not-alone", message, report.problems);
    }
}

/// The same for a rule whose `when` names service accounts.
pub(super) fn check_service_accounts_of_when(at: &Cursor<'_>, rule: &Rule, report: &mut Report<'_, '_>) {
    let is_account = |condition: &Condition| matches!(condition, Condition::ServiceAccount(_));
    let is_other = |condition: &Condition| matches!(condition, Condition::Principal(_) | Condition::Namespace(_));
    let is_mixed = rule.when.iter().any(is_account) && rule.conditions().any(is_other)
        || rule.when.iter().any(is_other) && rule.conditions().any(is_account);
    if is_mixed {
        let message = "source.serviceAccount cannot stand beside principals or namespaces in one rule; use one of them";
        at.report("service-accounts-not-alone", message, report.problems);
    }
}

fn check_count(fields: &Fields<'_>, name: &str, report: &mut Report<'_, '_>) {
    let Some(at) = fields.get(name) else { return };
    let portcullis_yaml::Content::Sequence(items) = &at.node().content else { return };
    if items.len() > MAX_SERVICE_ACCOUNTS {
        let message =
            format!("a list has at most {MAX_SERVICE_ACCOUNTS} service accounts, this one has {}", items.len());
        at.report("too-many-service-accounts", message, report.problems);
    }
}
