//! Principals and trust domains of a policy, expanded to every name of the mesh.
//!
//! A mesh that changes its trust domain keeps the old name as an alias, and policies go on working under either name. Istio
//! replaces the trust domain of a principal when it is one of the mesh's names, or the literal `cluster.local`.

use crate::authorization::pattern::StringMatch;
use crate::authorization::rule::{Condition, Rule, Values};

/// Istio's default trust domain; in a principal it stands for the mesh's own, whatever that is.
const CLUSTER_LOCAL: &str = "cluster.local";

/// The rule with every principal and trust domain expanded. `names` are the mesh's trust domain and its aliases.
pub(super) fn expand(mut rule: Rule, names: &[String]) -> Rule {
    for condition in rule.from.iter_mut().chain(&mut rule.to).flatten().chain(&mut rule.when) {
        match condition {
            Condition::Principal(values) => *values = map(values, |text| principal(text, names)),
            Condition::TrustDomain(values) => *values = map(values, |text| trust_domain(text, names)),
            _ => {}
        }
    }
    rule
}

fn map(values: &Values<StringMatch>, expand: impl Fn(&str) -> Vec<String>) -> Values<StringMatch> {
    let list = |list: &[StringMatch]| {
        list.iter().flat_map(|form| expand(&form.to_string())).map(|text| StringMatch::new(&text)).collect()
    };
    Values::new(list(values.values()), list(values.not_values()))
}

/// A principal of exactly five segments whose trust domain is not left open.
fn principal(text: &str, names: &[String]) -> Vec<String> {
    let as_written = || vec![text.to_owned()];
    let Some((domain, path)) = text.split_once('/') else { return as_written() };
    let segments = text.split('/').count();
    let is_ours = domain == CLUSTER_LOCAL || names.iter().any(|name| overlap(name, domain));
    if segments != 5 || domain == "*" || !is_ours {
        return as_written();
    }
    let expanded = |name: &String| if has_suffix(name, domain) { text.to_owned() } else { format!("{name}/{path}") };
    names.iter().map(expanded).collect()
}

/// An exact name of the mesh. `cluster.local` is no pointer here.
fn trust_domain(text: &str, names: &[String]) -> Vec<String> {
    if names.iter().any(|name| name == text) { names.to_vec() } else { vec![text.to_owned()] }
}

/// Whether two names are equal, or one is a pattern that the other matches.
fn overlap(one: &str, other: &str) -> bool {
    one == other || has_prefix(one, other) || has_prefix(other, one) || has_suffix(one, other) || has_suffix(other, one)
}

fn has_prefix(text: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').is_some_and(|prefix| text.starts_with(prefix))
}

fn has_suffix(text: &str, pattern: &str) -> bool {
    pattern.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_expand_as_in_istio() {
        for (text, names, expected) in [
            ("td1/ns/a/sa/b", &["td1", "td2"][..], &["td1/ns/a/sa/b", "td2/ns/a/sa/b"][..]),
            ("td2/ns/a/sa/b", &["td1", "td2"], &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]),
            ("td3/ns/a/sa/b", &["td1", "td2"], &["td3/ns/a/sa/b"]),
            ("cluster.local/ns/a/sa/b", &["td1", "td2"], &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]),
            ("cluster.local/ns/a/sa/*", &["td1"], &["td1/ns/a/sa/*"]),
            ("cluster.local/ns/a/*", &["td1"], &["cluster.local/ns/a/*"]),
            ("cluster.local/ns/a/sa/b/c", &["td1"], &["cluster.local/ns/a/sa/b/c"]),
            ("*/ns/a/sa/b", &["td1"], &["*/ns/a/sa/b"]),
            ("*-td/ns/a/sa/b", &["old-td", "new-td"], &["*-td/ns/a/sa/b", "*-td/ns/a/sa/b"]),
            ("*-td/ns/a/sa/b", &["old-td", "other"], &["*-td/ns/a/sa/b", "other/ns/a/sa/b"]),
            ("td1/ns/a/sa/b", &["td*", "x"], &["td*/ns/a/sa/b", "x/ns/a/sa/b"]),
            ("*", &["td1"], &["*"]),
            ("sa/b", &["td1"], &["sa/b"]),
        ] {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            assert_eq!(principal(text, &names), expected, "{text} {names:?}");
        }
    }

    #[test]
    fn trust_domains_expand_where_they_are_exact() {
        let names = ["td1".to_owned(), "td2".to_owned()];
        assert_eq!(trust_domain("td2", &names), ["td1", "td2"]);
        assert_eq!(trust_domain("td*", &names), ["td*"]);
        assert_eq!(trust_domain("cluster.local", &names), ["cluster.local"]);
    }
}
