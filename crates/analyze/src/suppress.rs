//! `-S CODE=Kind name.namespace`: findings that are known.

use crate::code::Code;
use crate::finding::Finding;

/// Findings that are left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Suppression {
    code: Code,
    kind: String,
    name: String,
}

impl Suppression {
    /// Reads `CODE=Kind name.namespace`, as istioctl has it; `*` in the name stands for any text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (code, subject) = text
            .split_once('=')
            .ok_or("write CODE=Kind name.namespace, such as KIA0004=PeerAuthentication cart.shop")?;
        let (kind, name) = subject.split_once(' ').ok_or("a kind, a space, and name.namespace follow the =")?;
        let code = Code::named(code).ok_or_else(|| format!("there is no code {code:?}"))?;
        Ok(Self { code, kind: kind.to_owned(), name: name.trim().to_owned() })
    }

    /// Whether it is about this finding.
    #[must_use]
    pub fn covers(&self, finding: &Finding) -> bool {
        let subject = &finding.subject;
        self.code == finding.code
            && subject.kind.as_ref() == Some(&self.kind)
            && matches(&self.name, &format!("{}.{}", subject.name, subject.namespace))
    }
}

/// Whether a text fits a pattern with `*`.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text
            .strip_prefix(head)
            .is_some_and(|after| (0..=after.len()).filter_map(|at| after.get(at..)).any(|after| matches(rest, after))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, fits) in [
            ("cart.shop", "cart.shop", true),
            ("cart.shop", "cart.shops", false),
            ("*.shop", "cart.shop", true),
            ("c*t.s*p", "cart.shop", true),
            ("*", "", true),
            ("a*b", "ab", true),
            ("a*b", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
        assert!(Suppression::parse("KIA0004=PeerAuthentication cart.shop").is_ok());
        for wrong in ["KIA0004", "KIA0004=cart.shop", "KIA=PeerAuthentication cart.shop"] {
            assert!(Suppression::parse(wrong).is_err(), "{wrong}");
        }
    }
}
