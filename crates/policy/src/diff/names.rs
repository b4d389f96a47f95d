//! SPIFFE IDs and server names: their grammars, and the patterns of policies over them.

use portcullis_identity::{MAX_ID_LEN, SCHEME, SpiffeId};

use crate::authorization::{Condition, NamespaceMatch, ServiceAccount, StringMatch};
use crate::diff::language::{Grammar, Pattern, Span, Step, text};

/// Lower case first: a witness is read by people.
const BOTH: &str = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// IDs of workloads: with a path, as a certificate has them.
const IDS: Grammar = Grammar {
    start: SCHEME,
    initial: id::EMPTY_DOMAIN,
    step: id::step,
    accepts: |state| matches!(state, id::SEGMENT),
    kinds: &[BOTH, UPPER, "/"],
    special: "/.",
    longest: MAX_ID_LEN - SCHEME.len(),
};

/// Server names as they are logged: printable ASCII.
const SERVER_NAMES: Grammar = Grammar {
    start: "",
    initial: 0,
    step: |_, byte| byte.is_ascii_graphic().then_some(1),
    accepts: |state| state == 1,
    kinds: &[BOTH, UPPER, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~"],
    special: "",
    longest: 253,
};

/// The grammar of SPIFFE IDs behind the scheme.
mod id {
    pub(super) const EMPTY_DOMAIN: u8 = 0;
    const DOMAIN: u8 = 1;
    const EMPTY_SEGMENT: u8 = 2;
    /// `.`, which may begin a segment and may not be one.
    const DOT: u8 = 3;
    /// `..` likewise.
    const DOTS: u8 = 4;
    pub(super) const SEGMENT: u8 = 5;

    pub(super) fn step(state: u8, byte: u8) -> Option<u8> {
        match (state, byte) {
            (DOMAIN | SEGMENT, b'/') => Some(EMPTY_SEGMENT),
            (_, b'/') => None,
            (EMPTY_DOMAIN | DOMAIN, byte) => (!byte.is_ascii_uppercase()).then_some(DOMAIN),
            (EMPTY_SEGMENT, b'.') => Some(DOT),
            (DOT, b'.') => Some(DOTS),
            _ => Some(SEGMENT),
        }
    }
}

/// The shortest ID of which each condition is as true as it says.
pub(super) fn shortest_id(literals: &[(&Condition, bool)]) -> Option<SpiffeId> {
    SpiffeId::parse(&shortest(&IDS, literals)?).ok()
}

/// The shortest server name of which each condition is as true as it says.
pub(super) fn shortest_server_name(literals: &[(&Condition, bool)]) -> Option<String> {
    shortest(&SERVER_NAMES, literals)
}

fn shortest(grammar: &Grammar, literals: &[(&Condition, bool)]) -> Option<String> {
    let of = |wanted: bool| {
        literals.iter().filter(move |(_, holds)| *holds == wanted).map(|(condition, _)| pattern(condition))
    };
    let (matching, others): (Vec<_>, Vec<_>) = (of(true).collect(), of(false).collect());
    grammar.shortest(&matching.iter().collect::<Vec<_>>(), &others.iter().collect::<Vec<_>>())
}

const ANY: Step = Step::Star(Span::Any);
const NO_SLASH: Step = Step::Star(Span::NoSlash);

/// The texts of which a condition with a single value holds.
fn pattern(condition: &Condition) -> Pattern {
    match condition {
        Condition::Principal(values) => values.values().iter().fold(Pattern::default(), principal),
        Condition::TrustDomain(values) => values.values().iter().fold(Pattern::default(), trust_domain),
        Condition::Namespace(values) => values.values().iter().fold(Pattern::default(), namespace),
        Condition::ServiceAccount(values) => values.values().iter().fold(Pattern::default(), service_account),
        Condition::Sni(values) => values.values().iter().fold(Pattern::default(), string),
        _ => Pattern::default(),
    }
}

fn string(pattern: Pattern, form: &StringMatch) -> Pattern {
    match form {
        StringMatch::Exact(exact) => pattern.or(text(exact)),
        StringMatch::Prefix(prefix) => pattern.or(text(prefix).chain([ANY])),
        StringMatch::Suffix(suffix) => pattern.or([ANY].into_iter().chain(text(suffix))),
        StringMatch::Present => pattern.or([ANY]),
    }
}

/// Exact and prefix forms begin behind the scheme.
fn principal(pattern: Pattern, form: &StringMatch) -> Pattern {
    match form {
        StringMatch::Exact(exact) => pattern.or(text(SCHEME).chain(text(exact))),
        StringMatch::Prefix(prefix) => pattern.or(text(SCHEME).chain(text(prefix)).chain([ANY])),
        StringMatch::Suffix(_) | StringMatch::Present => string(pattern, form),
    }
}

fn trust_domain(pattern: Pattern, form: &StringMatch) -> Pattern {
    let (StringMatch::Exact(name) | StringMatch::Prefix(name) | StringMatch::Suffix(name)) = form else {
        return pattern.or([ANY]);
    };
    if name.contains('/') {
        return pattern;
    }
    let before = matches!(form, StringMatch::Suffix(_)).then_some(NO_SLASH);
    let behind = matches!(form, StringMatch::Prefix(_)).then_some(NO_SLASH);
    let domain = || text(SCHEME).chain(before).chain(text(name)).chain(behind);
    pattern.or(domain()).or(domain().chain(text("/")).chain([ANY]))
}

/// A whole segment behind `/ns/` that is not the last one.
fn namespace(pattern: Pattern, form: &NamespaceMatch) -> Pattern {
    let (NamespaceMatch::Exact(name) | NamespaceMatch::Pattern(name)) = form;
    if name.contains('/') {
        return pattern;
    }
    let segment = name.bytes().map(|byte| if byte == b'*' { NO_SLASH } else { Step::Char(byte) });
    pattern.or(text(SCHEME).chain([ANY]).chain(text("/ns/")).chain(segment).chain(text("/")).chain([ANY]))
}

fn service_account(pattern: Pattern, account: &ServiceAccount) -> Pattern {
    let ServiceAccount { namespace, name } = account;
    if namespace.contains('/') || name.contains('/') {
        return pattern;
    }
    let path = format!("/ns/{namespace}/sa/{name}");
    pattern.or(text(SCHEME).chain([NO_SLASH]).chain(path.bytes().map(Step::Char).collect::<Vec<_>>()))
}
