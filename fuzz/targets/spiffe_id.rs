//! A SPIFFE ID, as found in an untrusted certificate.
//!
//! - An accepted ID is the very bytes that were given, and its parts put together give it again.
//! - It is accepted exactly if a second, naive reading of the standard accepts it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::{SpiffeId, TrustDomain};

fuzz_target!(|bytes: &[u8]| {
    let accepted = SpiffeId::parse_bytes(bytes);
    assert_eq!(accepted.is_ok(), naive(bytes), "{:?}", String::from_utf8_lossy(bytes));
    match accepted {
        Ok(id) => {
            assert_eq!(id.to_string().as_bytes(), bytes);
            assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()).as_bytes(), bytes);
            assert_eq!(TrustDomain::parse(id.domain_str()).as_ref(), Ok(&id.trust_domain()));
            if let Some(istio) = id.istio() {
                let again = SpiffeId::for_workload(&id.trust_domain(), istio.namespace, istio.service_account);
                assert_eq!(again.as_ref(), Ok(&id));
            }
        }
        Err(error) => assert!(!error.class().is_empty() && !error.to_string().contains(char::is_control)),
    }
});

/// SPIFFE-ID, sections 2.1 to 2.4, word for word and without an eye to speed or good errors.
fn naive(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(rest) = text.strip_prefix("spiffe://") else { return false };
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let domain_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let segment_char = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.chars().all(segment_char);
    text.len() <= 2048
        && (1..=255).contains(&domain.len())
        && domain.chars().all(domain_char)
        && (path.is_empty() || path.split('/').skip(1).all(segment))
}
