//! How strings are compared.

use std::fmt;

/// A string form of AuthorizationPolicy: exact, prefix, suffix, or present and not empty. Upper and lower case differ.
///
/// A star that is neither first nor last is an ordinary character, as is a second one.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum StringMatch {
    /// `x`
    Exact(String),
    /// `x*`
    Prefix(String),
    /// `*x`
    Suffix(String),
    /// `*`
    Present,
}

impl StringMatch {
    /// Reads the form. Every text has one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
            ("*", ..) => Self::Present,
            (_, Some(suffix), _) => Self::Suffix(suffix.to_owned()),
            (_, None, Some(prefix)) => Self::Prefix(prefix.to_owned()),
            (_, None, None) => Self::Exact(text.to_owned()),
        }
    }

    /// Whether the text matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Present => !text.is_empty(),
        }
    }
}

/// As it is written in a policy.
impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Present => f.write_str("*"),
        }
    }
}

/// A namespace, in which each star stands for any characters, or none.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NamespaceMatch {
    /// Without a star.
    Exact(String),
    /// With stars.
    Pattern(String),
}

impl NamespaceMatch {
    /// Reads the pattern. Every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if text.contains('*') { Self::Pattern(text.to_owned()) } else { Self::Exact(text.to_owned()) }
    }

    /// Whether the whole namespace matches.
    #[must_use]
    pub fn matches(&self, namespace: &str) -> bool {
        let pattern = match self {
            Self::Exact(exact) => return exact == namespace,
            Self::Pattern(pattern) => pattern,
        };
        let (first, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
        let Some(mut left) = namespace.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        // Taking the first occurrence of each part leaves the most for the parts behind it.
        for part in middle.split('*').filter(|part| !part.is_empty()) {
            let Some((_, behind)) = left.split_once(part) else { return false };
            left = behind;
        }
        left.ends_with(last)
    }
}

impl fmt::Display for NamespaceMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Exact(text) | Self::Pattern(text)) = self;
        f.write_str(text)
    }
}

/// A service account and its namespace. The trust domain does not matter.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_of_strings_count_at_the_ends_only() {
        for (pattern, matching, other) in [
            ("a", &["a"][..], &["A", "ab", ""][..]),
            ("a*", &["a", "ab", "a*"], &["ba", ""]),
            ("*a", &["a", "ba"], &["ab", ""]),
            ("*", &["a", "*"], &[""]),
            ("a*b", &["a*b"], &["ab", "axb"]),
            ("*a*", &["a*", "xa*"], &["a", "xax"]),
            ("**", &["*", "a*"], &["", "a"]),
        ] {
            let parsed = StringMatch::new(pattern);
            assert_eq!(parsed.to_string(), pattern);
            assert!(matching.iter().all(|text| parsed.matches(text)), "{pattern}");
            assert!(!other.iter().any(|text| parsed.matches(text)), "{pattern}");
        }
    }

    #[test]
    fn every_star_of_a_namespace_is_a_wildcard() {
        for (pattern, matching, other) in [
            ("web", &["web"][..], &["we", "webs", ""][..]),
            ("we*", &["web", "we"], &["xweb"]),
            ("*eb", &["web", "eb"], &["webs"]),
            ("w*b", &["web", "wb", "webb"], &["w", "b", "webs"]),
            ("a*b*c", &["abc", "axbxc", "abbc"], &["ac", "acb", "abcx"]),
            ("*a*", &["a", "xax"], &["x", ""]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("*ab*b", &["abb", "abab"], &["ab"]),
            ("*", &["a", "web"], &[]),
        ] {
            let parsed = NamespaceMatch::new(pattern);
            assert!(matching.iter().all(|text| parsed.matches(text)), "{pattern}");
            assert!(!other.iter().any(|text| parsed.matches(text)), "{pattern}");
        }
    }
}
