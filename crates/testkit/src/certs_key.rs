//! Keys of every kind that a test needs, weak ones included.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SigningKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::certs_der::{oid, pem, sequence, tlv};

/// What kind of key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521, which is not accepted.
    P521,
    /// Ed25519.
    Ed25519,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 1024 bits, which is too weak; made by openssl, since nothing else makes it any more.
    Rsa1024,
}

/// A private key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Key(Arc<Inner>);

#[derive(Debug)]
enum Inner {
    Rcgen(KeyKind, Box<KeyPair>),
    /// PKCS#8 in PEM and DER, and the public half.
    Openssl {
        pem: String,
        der: Vec<u8>,
        spki: Vec<u8>,
    },
}

impl Key {
    /// A new key.
    #[must_use]
    pub fn new(kind: KeyKind) -> Self {
        let pair = match kind {
            KeyKind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyKind::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyKind::P521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            KeyKind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            KeyKind::Rsa1024 => return Self::rsa1024(),
        };
        Self(Arc::new(Inner::Rcgen(kind, Box::new(pair.unwrap()))))
    }

    fn rsa1024() -> Self {
        let pem = openssl(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], b"");
        let der = openssl(["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], &pem);
        let spki = openssl(["pkey", "-pubout", "-outform", "DER"], &pem);
        Self(Arc::new(Inner::Openssl { pem: String::from_utf8(pem).unwrap(), der, spki }))
    }

    /// The key as PKCS#8 in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        match &*self.0 {
            Inner::Rcgen(_, pair) => pem("PRIVATE KEY", pair.serialized_der()),
            Inner::Openssl { pem, .. } => pem.clone(),
        }
    }

    /// The key as PKCS#8.
    #[must_use]
    pub fn der(&self) -> PrivateKeyDer<'static> {
        let der = match &*self.0 {
            Inner::Rcgen(_, pair) => pair.serialize_der(),
            Inner::Openssl { der, .. } => der.clone(),
        };
        PrivatePkcs8KeyDer::from(der).into()
    }

    /// The public key, as encoded in a certificate.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        match &*self.0 {
            Inner::Rcgen(_, pair) => pair.subject_public_key_info(),
            Inner::Openssl { spki, .. } => spki.clone(),
        }
    }

    /// The algorithm identifier for what `sign` makes.
    pub(crate) fn algorithm(&self, sha1: bool) -> Vec<u8> {
        let null = tlv(0x05, []);
        match (&*self.0, sha1) {
            (Inner::Rcgen(KeyKind::P256 | KeyKind::P384 | KeyKind::P521, _), true) => {
                sequence([oid("1.2.840.10045.4.1")])
            }
            (Inner::Rcgen(KeyKind::P256, _), false) => sequence([oid("1.2.840.10045.4.3.2")]),
            (Inner::Rcgen(KeyKind::P384, _), false) => sequence([oid("1.2.840.10045.4.3.3")]),
            (Inner::Rcgen(KeyKind::P521, _), false) => sequence([oid("1.2.840.10045.4.3.4")]),
            (Inner::Rcgen(KeyKind::Ed25519, _), _) => sequence([oid("1.3.101.112")]),
            (Inner::Rcgen(KeyKind::Rsa2048 | KeyKind::Rsa1024, _) | Inner::Openssl { .. }, true) => {
                sequence([oid("1.2.840.113549.1.1.5"), null])
            }
            (Inner::Rcgen(KeyKind::Rsa2048 | KeyKind::Rsa1024, _) | Inner::Openssl { .. }, false) => {
                sequence([oid("1.2.840.113549.1.1.11"), null])
            }
        }
    }

    /// A signature; with SHA-1 it is openssl that makes it.
    pub(crate) fn sign(&self, message: &[u8], sha1: bool) -> Vec<u8> {
        match &*self.0 {
            Inner::Rcgen(_, pair) if !sha1 => pair.sign(message).unwrap(),
            _ => {
                let key = TempFile::new(self.pem().as_bytes());
                let digest = if sha1 { "-sha1" } else { "-sha256" };
                openssl([OsStr::new("dgst"), OsStr::new(digest), OsStr::new("-sign"), key.0.as_os_str()], message)
            }
        }
    }
}

/// Where openssl is, if this machine has it.
#[must_use]
pub fn openssl_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("openssl")).find(|file| file.is_file())
}

/// Runs openssl on some input and returns its output; panics when it fails.
#[must_use]
pub fn openssl<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>, input: &[u8]) -> Vec<u8> {
    let program = openssl_path().expect("openssl is needed to make this certificate");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl starts");
    child.stdin.take().expect("stdin is piped").write_all(input).expect("openssl reads its input");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl failed: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A file that is gone when this is dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(content: &[u8]) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("portcullis-testkit-{}-{count}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
