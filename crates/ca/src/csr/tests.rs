use portcullis_testkit::{Key, KeyKind, openssl};
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};

use super::*;

fn request(pair: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(pair).unwrap().pem().unwrap()
}

fn refused(pem: impl AsRef<[u8]>) -> &'static str {
    CertifiedPublicKey::from_csr(pem.as_ref()).unwrap_err().class()
}

#[test]
fn every_kind_of_key_is_taken_over_byte_for_byte() {
    for (name, kind) in KeyType::ALL {
        let pair = key::generate(kind).unwrap();
        let key = CertifiedPublicKey::from_csr(request(&pair, |_| ()).as_bytes()).unwrap();
        assert_eq!(key.kind(), kind, "{name}");
        assert_eq!(key.spki(), rcgen::PublicKeyData::subject_public_key_info(&pair), "{name}");
        assert_eq!(KeyHash::parse(&key.hash().to_string()), Some(key.hash()));
    }
}

#[test]
fn extensions_of_a_request_are_not_copied() {
    let pair = key::generate(KeyType::EcdsaP256).unwrap();
    let plain = CertifiedPublicKey::from_csr(request(&pair, |_| ()).as_bytes()).unwrap();
    let greedy = request(&pair, |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a,URI:spiffe://cluster.local/ns/x/sa/y");
        params.subject_alt_names = vec![SanType::URI("spiffe://cluster.local/ns/x/sa/y".try_into().unwrap())];
    });
    assert_eq!(CertifiedPublicKey::from_csr(greedy.as_bytes()).unwrap(), plain);
}

#[test]
fn requests_of_openssl_are_read() {
    let key = Key::new(KeyKind::Rsa2048);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key.pem()).unwrap();
    let path = file.path().to_str().unwrap();
    let pem = openssl(["req", "-new", "-key", path, "-subj", "/CN=x", "-sha384"], b"");
    assert_eq!(CertifiedPublicKey::from_csr(&pem).unwrap().kind(), KeyType::Rsa2048);
    let weak = openssl(["req", "-new", "-key", path, "-subj", "/CN=x", "-sha1"], b"");
    assert_eq!(refused(weak), "csr-signature-algorithm");
}

#[test]
fn csr_rsa1024() {
    let key = Key::new(KeyKind::Rsa1024);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key.pem()).unwrap();
    let pem = openssl(["req", "-new", "-key", file.path().to_str().unwrap(), "-subj", "/CN=x"], b"");
    assert_eq!(CertifiedPublicKey::from_csr(&pem), Err(CsrError::WeakKey { bits: 1024 }));
}

#[test]
fn keys_of_other_kinds_are_refused() {
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    assert_eq!(refused(request(&p521, |_| ())), "key-type");
}

#[test]
fn csr_bad_signature() {
    let pair = key::generate(KeyType::EcdsaP256).unwrap();
    let pem = request(&pair, |_| ());
    let mut der = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
    let signed = |der: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
    assert!(CertifiedPublicKey::from_csr(signed(&der).as_bytes()).is_ok());
    // A byte of the key: what was signed is another request then.
    let other = key::generate(KeyType::EcdsaP256).unwrap();
    let (own, foreign) = (rcgen::PublicKeyData::der_bytes(&pair), rcgen::PublicKeyData::der_bytes(&other));
    let at = der.windows(own.len()).position(|window| window == own).unwrap();
    der.splice(at..at + own.len(), foreign.iter().copied());
    assert_eq!(refused(signed(&der)), "csr-signature");
}

#[test]
fn anything_but_one_request_is_refused() {
    let pair = key::generate(KeyType::EcdsaP256).unwrap();
    let pem = request(&pair, |_| ());
    assert_eq!(refused(""), "csr-syntax");
    assert_eq!(refused(format!("{pem}{pem}")), "csr-syntax");
    assert_eq!(refused(pem.replace("CERTIFICATE REQUEST", "CERTIFICATE")), "csr-syntax");
    assert_eq!(refused("x".repeat(MAX_CSR_LEN + 1)), "csr-too-long");
    let mut der = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
    der.push(0);
    assert_eq!(refused(pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der.clone()))), "csr-syntax");
    der.truncate(der.len() / 2);
    assert_eq!(refused(pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))), "csr-syntax");
}

#[test]
fn the_length_of_a_number_does_not_depend_on_how_it_is_written() {
    assert_eq!([bits(&[]), bits(&[0]), bits(&[0, 0])], [0, 0, 0]);
    assert_eq!([bits(&[1]), bits(&[0, 1]), bits(&[0x80]), bits(&[1, 0])], [1, 1, 8, 9]);
}

#[test]
fn a_changed_byte_is_refused_or_stands_outside_of_what_is_signed() {
    for kind in [KeyType::EcdsaP256, KeyType::Ed25519, KeyType::Rsa2048] {
        let pem =
            request(&key::generate(kind).unwrap(), |params| params.distinguished_name.push(DnType::CommonName, "x"));
        let der = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
        let own = CertifiedPublicKey::from_csr(pem.as_bytes()).unwrap();
        let mut accepted = 0;
        for at in 0..der.len() {
            for bit in [0x01, 0x20, 0x80] {
                let mut changed = der.clone();
                changed[at] ^= bit;
                let pem = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", changed));
                // The parser is lenient about tags around what is signed: there the key is still the one that signed.
                if let Ok(key) = CertifiedPublicKey::from_csr(pem.as_bytes()) {
                    assert_eq!(key, own, "{kind:?}: bit {bit} of byte {at}");
                    accepted += 1;
                }
            }
        }
        assert!(accepted < 20, "{kind:?}: {accepted} changes were accepted");
        for end in 0..der.len() {
            let pem = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", &der[..end]));
            assert!(CertifiedPublicKey::from_csr(pem.as_bytes()).is_err(), "{kind:?}: cut at {end}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn nothing_panics_on_any_text(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400), at in 0..600_usize) {
        let _ = CertifiedPublicKey::from_csr(&bytes);
        let mut pem = request(&key::generate(KeyType::EcdsaP256).unwrap(), |_| ()).into_bytes();
        let at = at.min(pem.len());
        let _dropped: Vec<u8> = pem.splice(at..(at + 3).min(pem.len()), bytes.iter().take(5).copied()).collect();
        let _ = CertifiedPublicKey::from_csr(&pem);
    }
}
