//! A certificate signing request, from a caller of whom nothing is known but that it has a token.
//!
//! - Nothing panics, in DER or in PEM, and every refusal has a class.
//! - What is accepted in DER is accepted in PEM, as the same key.
//! - What is accepted has nothing behind it, and its signature covers every byte of what was signed.
//! - The key is written anew: what comes out is a SubjectPublicKeyInfo that stands in the request, bit for bit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_ca::{CertifiedPublicKey, MAX_CSR_LEN};

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = CertifiedPublicKey::from_csr(bytes) {
        assert!(!error.class().is_empty());
    }
    let pem = pem(bytes);
    let key = match CertifiedPublicKey::from_csr_der(bytes) {
        Err(error) => {
            assert!(!error.class().is_empty());
            assert!(CertifiedPublicKey::from_csr(pem.as_bytes()).is_err());
            return;
        }
        Ok(key) => key,
    };
    assert!(bytes.len() <= MAX_CSR_LEN);
    if pem.len() <= MAX_CSR_LEN {
        assert!(CertifiedPublicKey::from_csr(pem.as_bytes()).as_ref() == Ok(&key));
    }
    assert!(CertifiedPublicKey::from_csr_der(&[bytes, &[0]].concat()).is_err());
    assert!(bytes.windows(key.spki().len()).any(|part| part == key.spki()));
    // Whatever the fuzzer made of a request: the first byte of what is signed is one that counts.
    let mut other = bytes.to_vec();
    if let Some(at) = (0..other.len()).nth(other.len() / 3) {
        other[at] ^= 1;
        if let Ok(changed) = CertifiedPublicKey::from_csr_der(&other) {
            // Only outside of what is signed, such as in a length that may be written in two ways.
            assert!(changed == key);
        }
    }
});

fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for at in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
                text.push(if at <= group.len() { char::from(digit) } else { '=' });
            }
        }
        text.push('\n');
    }
    text + "-----END CERTIFICATE REQUEST-----\n"
}
