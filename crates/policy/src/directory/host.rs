//! Names of hosts: what is one, how a short one is completed, and which rule fits one best.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What follows `NAME.NAMESPACE` in the full name of a service, as in Kubernetes.
const SERVICE_SUFFIX: &str = "svc.cluster.local";

/// The longest name in DNS.
const MAX_NAME: usize = 253;
/// The longest part of a name between dots.
const MAX_LABEL: usize = 63;

/// One host, or all below a name. In lower case and without a dot at its end.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HostPattern {
    /// Exactly this name.
    Name(Arc<str>),
    /// `*.NAME`: any name that ends with this one and has more in front of it; empty for `*`, which is any name.
    Wildcard(Arc<str>),
}

impl HostPattern {
    /// Reads a name, `*.NAME` or `*`. A short name is completed: `cart` in namespace `shop` is `cart.shop.svc.cluster.local`.
    #[must_use]
    pub fn parse(text: &str, namespace: &str) -> Option<Self> {
        match text.strip_prefix('*') {
            Some("") => Some(Self::Wildcard("".into())),
            Some(rest) => name(rest.strip_prefix('.')?).map(|name| Self::Wildcard(name.into())),
            None => name(text).map(|name| Self::Name(complete(&name, namespace).into())),
        }
    }

    /// The name, without the star of a wildcard.
    pub(super) const fn text(&self) -> &Arc<str> {
        match self {
            Self::Name(name) | Self::Wildcard(name) => name,
        }
    }

    /// The name, if it is exactly one.
    #[must_use]
    pub const fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Name(name) => Some(name),
            Self::Wildcard(_) => None,
        }
    }

    /// Whether every name of `other` is one of these.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Wildcard(own), Self::Wildcard(name)) => own == name || parents(name).any(|parent| parent == &**own),
            (Self::Wildcard(own), Self::Name(name)) => parents(name).any(|parent| parent == &**own),
            (Self::Name(own), Self::Name(name)) => own == name,
            (Self::Name(_), Self::Wildcard(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Wildcard(name) if name.is_empty() => f.write_str("*"),
            Self::Wildcard(name) => write!(f, "*.{name}"),
        }
    }
}

/// A valid name in its canonical form: in lower case, without a dot at the end. An address is no name.
pub(super) fn name(text: &str) -> Option<String> {
    let text = canonical(text);
    let letters = |byte: u8| byte.is_ascii_alphanumeric();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.len() <= MAX_LABEL
            && bytes.first().copied().is_some_and(letters)
            && bytes.last().copied().is_some_and(letters)
            && bytes.iter().all(|byte| letters(*byte) || *byte == b'-')
    };
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let valid = text.len() <= MAX_NAME && text.split('.').all(is_label) && !text.rsplit('.').next().is_none_or(numeric);
    valid.then_some(text)
}

/// The form in which names are compared. Does not allocate more than the name.
pub(super) fn canonical(text: &str) -> String {
    text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()
}

/// The full name of a service whose name has no dot; any other name stays as it is.
pub(super) fn complete(name: &str, namespace: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.{namespace}.{SERVICE_SUFFIX}") }
}

/// The full name that `NAME.NAMESPACE` or `NAME.NAMESPACE.svc` is short for.
pub(super) fn complete_in_namespace(name: &str) -> Option<String> {
    let mut parts = name.split('.');
    let (Some(_), Some(_), third, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return None };
    match third {
        None => Some(format!("{name}.{SERVICE_SUFFIX}")),
        Some("svc") => Some(format!("{name}.cluster.local")),
        Some(_) => None,
    }
}

/// Whether the name exists in the mesh only, so that no resolver need be asked for it.
pub(super) fn is_of_mesh(name: &str) -> bool {
    name.strip_suffix(SERVICE_SUFFIX).is_some_and(|rest| rest.ends_with('.'))
}

/// What stands behind each dot of a name, longest first, and in the end the empty name.
pub(super) fn parents(name: &str) -> impl Iterator<Item = &str> {
    let behind = name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..));
    behind.chain([""])
}

/// Values by pattern. A look-up tries a name and each of its parents, however many patterns there are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct HostMap<V> {
    names: HashMap<Arc<str>, V>,
    wildcards: HashMap<Arc<str>, V>,
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self { names: HashMap::new(), wildcards: HashMap::new() }
    }
}

impl<V: Default> HostMap<V> {
    /// The value of exactly this pattern.
    pub(super) fn entry(&mut self, pattern: &HostPattern) -> &mut V {
        match pattern {
            HostPattern::Name(name) => self.names.entry(Arc::clone(name)).or_default(),
            HostPattern::Wildcard(name) => self.wildcards.entry(Arc::clone(name)).or_default(),
        }
    }
}

impl<V> HostMap<V> {
    /// The value of the name itself.
    pub(super) fn exact(&self, name: &str) -> Option<&V> {
        self.names.get(name)
    }

    /// The value of the longest wildcard that fits the name.
    pub(super) fn wildcard(&self, name: &str) -> Option<&V> {
        if self.wildcards.is_empty() {
            return None;
        }
        parents(name).find_map(|parent| self.wildcards.get(parent))
    }

    /// The value of the most specific pattern that covers all of `host`.
    pub(super) fn most_specific(&self, host: &HostPattern) -> Option<&V> {
        match host {
            HostPattern::Name(name) => self.exact(name).or_else(|| self.wildcard(name)),
            HostPattern::Wildcard(name) => self.wildcards.get(name).or_else(|| self.wildcard(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text, "shop").unwrap()
    }

    #[test]
    fn names_are_those_of_dns() {
        for (text, expected) in [
            ("cart", Some("cart.shop.svc.cluster.local")),
            ("Cart.Shop", Some("cart.shop")),
            ("example.com.", Some("example.com")),
            ("*.example.com", Some("*.example.com")),
            ("*", Some("*")),
            ("1.a", Some("1.a")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("-a.b", None),
            ("a-.b", None),
            ("a_b", None),
            ("10.0.0.1", None),
            ("a.1", None),
            ("8080", None),
            ("*.", None),
            ("*a.b", None),
            ("a.*.b", None),
            ("*.*.b", None),
            ("a b", None),
            ("::1", None),
            ("é.test", None),
        ] {
            let parsed = HostPattern::parse(text, "shop").map(|pattern| pattern.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
        assert!(name(&"a".repeat(63)).is_some() && name(&"a".repeat(64)).is_none());
        assert!(name(&vec!["a".repeat(62); 5].join(".")).is_none());
    }

    #[test]
    fn a_wildcard_covers_what_is_below_its_name() {
        for (pattern_text, host, expected) in [
            ("*.b.c", "a.b.c", true),
            ("*.b.c", "x.a.b.c", true),
            ("*.b.c", "b.c", false),
            ("*.b.c", "ab.c", false),
            ("*.b.c", "*.b.c", true),
            ("*.c", "*.b.c", true),
            ("*.b.c", "*.c", false),
            ("*", "a.b", true),
            ("*", "*.b", true),
            ("a.b", "*.b", false),
            ("a.b", "a.b", true),
        ] {
            let (own, host) = (pattern(pattern_text), pattern(host));
            assert_eq!(own.covers(&host), expected, "{own} {host}");
            let mut map = HostMap::<u8>::default();
            *map.entry(&own) = 1;
            assert_eq!(map.most_specific(&host).is_some(), expected, "{own} {host}");
        }
    }

    #[test]
    fn the_longest_pattern_is_the_most_specific() {
        let mut map = HostMap::<&str>::default();
        for text in ["*", "*.c", "*.b.c", "a.b.c"] {
            *map.entry(&pattern(text)) = text;
        }
        let of = |host: &str| *map.most_specific(&pattern(host)).unwrap();
        assert_eq!(
            ["a.b.c", "x.b.c", "x.c", "c", "*.b.c", "*.x.c", "*.d"].map(of),
            ["a.b.c", "*.b.c", "*.c", "*", "*.b.c", "*.c", "*"]
        );
    }

    #[test]
    fn short_forms_are_completed() {
        let full = |name: &str| complete_in_namespace(name);
        assert_eq!(full("cart.shop").as_deref(), Some("cart.shop.svc.cluster.local"));
        assert_eq!(full("cart.shop.svc").as_deref(), Some("cart.shop.svc.cluster.local"));
        assert_eq!((full("cart"), full("a.b.c"), full("a.b.svc.d")), (None, None, None));
        assert!(is_of_mesh("cart.shop.svc.cluster.local") && !is_of_mesh("svc.cluster.local") && !is_of_mesh("a.b"));
    }
}
