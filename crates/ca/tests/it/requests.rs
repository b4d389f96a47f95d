//! The requests that the fuzzer starts from (`fuzz/seeds/csr`, made by openssl), each with what becomes of it; and what becomes of
//! them when something is changed on the way.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis_ca::{CertifiedPublicKey, CsrError};
use portcullis_identity::KeyType;

fn seeds() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/csr");
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(file).collect()
}

#[test]
fn each_seed_is_accepted_or_refused_for_its_own_reason() {
    let mut seeds = seeds();
    let pem = seeds.remove("pem").unwrap();
    assert_eq!(CertifiedPublicKey::from_csr(&pem).unwrap().kind(), KeyType::EcdsaP256);
    let mut became = BTreeMap::new();
    for (name, der) in &seeds {
        let result = CertifiedPublicKey::from_csr_der(der);
        became.insert(name.as_str(), result.map_or_else(|error| error.class(), |key| key.kind().name()));
    }
    let expected = [
        ("asks-to-be-a-ca", "ecdsa-p256"),
        ("bad-signature", "csr-signature"),
        ("ed25519", "ed25519"),
        ("half", "csr-syntax"),
        ("p256", "ecdsa-p256"),
        ("p384", "ecdsa-p384"),
        ("p521", "key-type"),
        ("plain", "ecdsa-p256"),
        ("pss", "csr-signature-algorithm"),
        ("rsa-1024", "weak-key"),
        ("rsa-2048", "rsa-2048"),
        ("rsa-4096", "rsa-4096"),
        ("sha1", "csr-signature-algorithm"),
        ("sha512", "rsa-2048"),
        ("trailing", "csr-syntax"),
    ];
    assert_eq!(became, BTreeMap::from(expected));
    assert_eq!(CertifiedPublicKey::from_csr_der(&vec![0x30; 1 << 20]), Err(CsrError::TooLong(1 << 20)));
}

/// Every bit: none of them makes another key of it, and where the request is still accepted it is not one that was signed.
#[test]
fn a_request_that_was_changed_on_the_way_is_refused_or_says_the_same() {
    for name in ["p256", "p384", "ed25519", "rsa-2048"] {
        let der = &seeds()[name];
        let key = CertifiedPublicKey::from_csr_der(der).unwrap();
        assert!(
            der.windows(key.spki().len()).any(|part| part == key.spki()),
            "{name}: written anew, as it stands there"
        );
        let mut accepted = 0;
        for bit in 0..der.len() * 8 {
            let mut other = der.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            if let Ok(changed) = CertifiedPublicKey::from_csr_der(&other) {
                assert!(changed == key, "{name}: bit {bit} makes another key");
                accepted += 1;
            }
        }
        // The parameters of the signature's algorithm and the like; what is signed has none.
        assert!(accepted < 64, "{name}: {accepted} of {} bits do not count", der.len() * 8);
        for end in 0..der.len() {
            assert!(CertifiedPublicKey::from_csr_der(&der[..end]).is_err(), "{name}: cut at {end}");
        }
    }
}
