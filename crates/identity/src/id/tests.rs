//! The grammar against the table of cases, against every byte, and against itself.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Cases {
    spiffe_id: Vec<Case>,
    trust_domain_name: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    input: Option<String>,
    #[serde(default)]
    parts: Vec<Part>,
    expect: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Repeat { repeat: String, n: usize },
}

impl Case {
    fn text(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Repeat { repeat, n } => repeat.repeat(*n),
        };
        self.input.clone().unwrap_or_else(|| self.parts.iter().map(part).collect())
    }

    /// `[class]` at the start of the reason of an invalid case.
    fn class(&self) -> Option<&str> {
        let class = || self.reason.strip_prefix('[')?.split(']').next();
        match self.expect.as_str() {
            "valid" => None,
            "invalid" => Some(class().unwrap_or_else(|| panic!("{}: no class in the reason", self.id))),
            other => panic!("{}: expect: {other}", self.id),
        }
    }
}

fn cases() -> Cases {
    serde_yaml::from_str(include_str!("../../tests/data/spiffe-id-cases.yaml")).unwrap()
}

#[test]
fn spiffe_id_cases() {
    let cases = cases().spiffe_id;
    assert!(cases.len() > 60, "the table is complete");
    for case in cases {
        let text = case.text();
        match (SpiffeId::parse(&text), case.class()) {
            (Ok(id), None) => assert_eq!(id.as_str(), text, "{}", case.id),
            (Err(error), Some(class)) => assert_eq!(error.class(), class, "{}: {error}", case.id),
            (result, class) => panic!("{}: {result:?}, expected {class:?}", case.id),
        }
    }
}

#[test]
fn trust_domain_name_cases() {
    let cases = cases().trust_domain_name;
    assert!(cases.len() >= 6, "the table is complete");
    for case in cases {
        let text = case.text();
        match (TrustDomain::parse(&text), case.class()) {
            (Ok(domain), None) => assert_eq!(domain.as_str(), text, "{}", case.id),
            (Err(error), Some(class)) => assert_eq!(error.class(), class, "{}: {error}", case.id),
            (result, class) => panic!("{}: {result:?}, expected {class:?}", case.id),
        }
    }
}

/// Every byte value at the start, in the middle and at the end of the trust domain.
#[test]
fn byte_sweep_of_the_trust_domain() {
    for byte in 0..=u8::MAX {
        let allowed = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        for name in [vec![byte, b'a', b'b'], vec![b'a', byte, b'b'], vec![b'a', b'b', byte]] {
            let bytes = [b"spiffe://".as_slice(), &name, b"/w"].concat();
            let result = SpiffeId::parse_bytes(&bytes);
            match byte {
                _ if allowed => assert_eq!(result.unwrap().domain_str().as_bytes(), name),
                b'/' => assert!(
                    result.is_ok() || matches!(result.unwrap_err().class(), "td-missing" | "empty-segment"),
                    "a slash ends the domain"
                ),
                _ => assert_eq!(result.unwrap_err().class(), "td-char", "byte {byte:#04x}"),
            }
        }
    }
}

/// Every byte value at the start, in the middle and at the end of a path segment.
#[test]
fn byte_sweep_of_the_path() {
    for byte in 0..=u8::MAX {
        let allowed = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        for segment in [vec![byte, b'a', b'b'], vec![b'a', byte, b'b'], vec![b'a', b'b', byte]] {
            let bytes = [b"spiffe://example.org/".as_slice(), &segment].concat();
            let result = SpiffeId::parse_bytes(&bytes);
            match byte {
                _ if allowed => assert_eq!(result.unwrap().as_str().as_bytes(), bytes),
                b'/' => assert!(
                    result.is_ok() || matches!(result.unwrap_err().class(), "empty-segment" | "trailing-slash"),
                    "a slash starts a segment"
                ),
                _ => assert_eq!(result.unwrap_err().class(), "path-char", "byte {byte:#04x}"),
            }
        }
    }
}

#[test]
fn an_oversized_id_is_refused_before_it_is_scanned() {
    // 64 MiB of a byte that is not even allowed: a scan would answer td-char, and take its time.
    let huge = vec![b'%'; 64 << 20];
    let attempt = || {
        let start = std::time::Instant::now();
        assert_eq!(SpiffeId::parse_bytes(&huge).unwrap_err().class(), "length");
        start.elapsed()
    };
    // A scan takes longer each time; another process may take the core once.
    let fastest = (0..10).map(|_| attempt()).min();
    assert!(fastest.is_some_and(|fastest| fastest < std::time::Duration::from_millis(1)), "{fastest:?}");
}

#[test]
fn parts_of_an_id() {
    let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
    assert_eq!(id.trust_domain(), TrustDomain::parse("cluster.local").unwrap());
    assert_eq!(id.path(), "/ns/shop/sa/cart");
    assert_eq!(id.istio(), Some(IstioId { namespace: "shop", service_account: "cart" }));
    assert_eq!(SpiffeId::for_workload(&id.trust_domain(), "shop", "cart"), Ok(id));
}

#[test]
fn only_the_exact_istio_shape_is_istio() {
    for path in ["", "/ns", "/ns/a/sa", "/ns/a/sa/b/c", "/NS/a/sa/b", "/ns/a/SA/b", "/x/ns/a/sa/b", "/ns/a/b/sa"] {
        let id = SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap();
        assert_eq!(id.istio(), None, "{path}");
    }
}

#[test]
fn parts_of_a_workload_cannot_add_path_segments() {
    let domain = TrustDomain::parse("example.org").unwrap();
    for (namespace, account) in [("a/sa/b", "c"), ("a", "b/c"), ("a/sa/b/ns/c", "d")] {
        assert_eq!(SpiffeId::for_workload(&domain, namespace, account).unwrap_err().class(), "path-char");
    }
    assert_eq!(SpiffeId::for_workload(&domain, "", "b").unwrap_err().class(), "empty-segment");
    assert_eq!(SpiffeId::for_workload(&domain, "..", "b").unwrap_err().class(), "dot-segment");
}

#[test]
fn an_error_names_byte_and_place_and_is_harmless_in_a_log() {
    let error = SpiffeId::parse("spiffe://example.org/a\u{1b}[2J").unwrap_err();
    assert_eq!(error, IdError::PathChar { byte: 0x1b, offset: 22 });
    let text = error.to_string();
    assert!(text.contains("byte 0x1b at byte 23"), "{text}");
    assert!(text.chars().all(|char| !char.is_control()), "{text:?}");
}

proptest! {
    #[test]
    fn what_parses_prints_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for input in [bytes.clone(), [b"spiffe://".as_slice(), &bytes].concat()] {
            if let Ok(id) = SpiffeId::parse_bytes(&input) {
                prop_assert_eq!(id.to_string().into_bytes(), input);
            }
        }
    }

    #[test]
    fn what_the_grammar_makes_parses(
        domain in "[a-z0-9._-]{1,60}",
        segments in prop::collection::vec("[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", 0..6),
    ) {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        let text = format!("spiffe://{domain}{path}");
        let id = SpiffeId::parse(&text).unwrap();
        prop_assert_eq!(id.as_str(), text.as_str());
        prop_assert_eq!(id.domain_str(), domain.as_str());
        prop_assert_eq!(id.path(), path.as_str());
        prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    }
}
