//! Names of servers as a configuration lists them: a host, or all hosts below one.

use std::fmt;

/// The longest host name (RFC 1035).
const MAX_HOST_LEN: usize = 253;
/// The longest part of one.
const MAX_LABEL_LEN: usize = 63;

/// `shop.example.com`, or `*.example.com` for every host below `example.com`, however deep; not `example.com` itself. That is how
/// Envoy compares server names. Letters are compared without regard to case, and a dot at the end means nothing.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostPattern {
    /// In lower case, without a star or a dot at either end.
    host: String,
    below: bool,
}

/// A text that names no host.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("\"{0}\" is no host name; write shop.example.com, or *.example.com for all hosts below it")]
pub struct HostPatternError(String);

impl HostPattern {
    /// Parses a host name, or `*.` and a host name. An address is none: clients send no server name for it.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let (below, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        // A last label of digits is an address in one of its many forms (WHATWG URL, "ends in a number").
        let is_address = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if host.len() > MAX_HOST_LEN || is_address || !host.split('.').all(is_label) {
            return Err(HostPatternError(text.to_owned()));
        }
        Ok(Self { host: host.to_ascii_lowercase(), below })
    }

    /// Whether a host is meant.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if !self.below {
            return host.eq_ignore_ascii_case(&self.host);
        }
        let Some(at) = host.len().checked_sub(self.host.len()).filter(|at| *at >= 2) else { return false };
        match (host.get(..at), host.get(at..)) {
            (Some(front), Some(end)) => front.ends_with('.') && end.eq_ignore_ascii_case(&self.host),
            _ => false,
        }
    }

    /// A host that it matches, for instance to check that a certificate is valid for it.
    #[must_use]
    pub fn example(&self) -> String {
        if self.below { format!("host.{}", self.host) } else { self.host.clone() }
    }
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !label.is_empty() && label.len() <= MAX_LABEL_LEN && !label.starts_with('-') && label.bytes().all(allowed)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.host)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    #[test]
    fn a_host_matches_itself_and_a_star_all_hosts_below() {
        let (host, below) = (pattern("Shop.Example.com"), pattern("*.example.com."));
        assert_eq!([host.to_string(), below.to_string()], ["shop.example.com", "*.example.com"]);
        assert!(["shop.example.com", "SHOP.example.COM", "shop.example.com."].iter().all(|name| host.matches(name)));
        assert!(["shop.example.com", "a.b.example.com"].iter().all(|name| below.matches(name)));
        for name in ["example.com", ".example.com", "badexample.com", "shop.example.com.org", "", ".", "aéxample.com"]
        {
            assert!(!below.matches(name), "{name}");
        }
        assert!(!host.matches("a.shop.example.com") && !host.matches("example.com"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            "*",
            "*.",
            "a*.com",
            "*.*.com",
            "a..b",
            ".a",
            "-a",
            "10.0.0.1",
            "1",
            "::1",
            "a b",
            "a/b",
            "https://a",
            &long,
        ] {
            assert_eq!(HostPattern::parse(text), Err(HostPatternError(text.to_owned())), "{text}");
        }
        assert!(pattern("cart").matches("cart") && pattern("a_b.c-d").matches("a_b.c-d"));
    }

    proptest! {
        #[test]
        fn every_pattern_matches_its_example_and_reads_back(text in "(\\*\\.)?[a-zA-Z0-9]{1,9}(\\.[a-zA-Z]{1,9}){1,3}\\.?") {
            let pattern = pattern(&text);
            prop_assert!(pattern.matches(&pattern.example()));
            prop_assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern));
        }

        #[test]
        fn no_name_makes_it_panic(text in ".{0,12}", name in ".{0,12}") {
            if let Ok(pattern) = HostPattern::parse(&text) {
                let _ = pattern.matches(&name);
            }
            let below = format!("{name}a.example.com");
            prop_assert!(pattern("*.example.com").matches(&below));
        }
    }
}
