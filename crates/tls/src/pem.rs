//! A strict PEM parser: an unexpected block makes the file unusable.
//!
//! Common parsers skip unknown blocks. Here a bundle that contains a private key is reported as a leak, a partially written file
//! is not taken for a shorter one, and a typo in a label does not drop a root.

use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use zeroize::{Zeroize, Zeroizing};

/// The largest file that is read, in bytes.
pub const MAX_FILE_LEN: usize = 1 << 20;

const BEGIN: &[u8] = b"-----BEGIN ";

/// Why a PEM file is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PemError {
    /// More than [`MAX_FILE_LEN`] bytes.
    #[error("it is {length} bytes long, at most {MAX_FILE_LEN} are read; check that it is the right file")]
    TooLarge {
        /// How long it is.
        length: usize,
    },
    /// Zero bytes, as seen for a moment when a writer truncates the file before it writes.
    #[error("it is empty; a writer may be at work, or it wrote nothing")]
    Empty,
    /// No block of the required kind.
    #[error("it has no {wanted} block in PEM; convert it if it is DER or PKCS#12")]
    NoBlock {
        /// The required kind.
        wanted: &'static str,
    },
    /// A private key in a file for certificates.
    #[error("it has a PRIVATE KEY block, and only certificates belong here; take the key out, and consider it leaked")]
    KeyAmongCertificates,
    /// A private key that needs a pass phrase.
    #[error("the private key is encrypted; write it without a pass phrase, readable by the proxy only")]
    EncryptedKey,
    /// A block of another kind.
    #[error("it has a block `{label}` that does not belong here; only {wanted} blocks do")]
    Unexpected {
        /// The label, with control characters replaced.
        label: String,
        /// The required kind.
        wanted: &'static str,
    },
    /// More than one private key.
    #[error("it has {count} private keys, and exactly one belongs here")]
    ManyKeys {
        /// How many.
        count: usize,
    },
    /// A block that ends too early or is not base64.
    #[error("block {block} is damaged; the file may have been cut off")]
    Damaged {
        /// Which block, from 1.
        block: usize,
    },
}

impl PemError {
    /// The stable class of the error.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "file-too-large",
            _ => "pem",
        }
    }
}

/// The certificates of a file that contains certificates only, and at least one.
///
/// # Errors
/// When it contains another block, or is damaged.
pub fn certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    const WANTED: &str = "CERTIFICATE";
    let labels = labels(file)?;
    for label in &labels {
        match label.as_str() {
            WANTED => {}
            label if label.ends_with("PRIVATE KEY") => return Err(PemError::KeyAmongCertificates),
            label => return Err(PemError::Unexpected { label: label.to_owned(), wanted: WANTED }),
        }
    }
    if labels.is_empty() {
        return Err(PemError::NoBlock { wanted: WANTED });
    }
    let mut certificates = Vec::with_capacity(labels.len());
    for certificate in CertificateDer::pem_slice_iter(file) {
        let damaged = |_| PemError::Damaged { block: certificates.len().saturating_add(1) };
        certificates.push(certificate.map_err(damaged)?);
    }
    // The parser ignores a BEGIN without an END; here it means an incomplete file.
    if certificates.len() == labels.len() {
        Ok(certificates)
    } else {
        Err(PemError::Damaged { block: certificates.len().saturating_add(1) })
    }
}

/// The one private key of a file, as PKCS#8, SEC1 or PKCS#1. `EC PARAMETERS` before it is what openssl writes.
///
/// # Errors
/// When it contains another block, or is damaged.
pub fn private_key(file: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, PemError> {
    const WANTED: &str = "PRIVATE KEY";
    let labels = labels(file)?;
    let mut count: usize = 0;
    for label in &labels {
        match label.as_str() {
            "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => count = count.saturating_add(1),
            "EC PARAMETERS" => {}
            "ENCRYPTED PRIVATE KEY" => return Err(PemError::EncryptedKey),
            label => return Err(PemError::Unexpected { label: label.to_owned(), wanted: WANTED }),
        }
    }
    match count {
        0 => return Err(PemError::NoBlock { wanted: WANTED }),
        1 => {}
        count => return Err(PemError::ManyKeys { count }),
    }
    // The legacy form of encryption is marked by a header, not by the label.
    if file.windows(10).any(|window| window == b"Proc-Type:") {
        return Err(PemError::EncryptedKey);
    }
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(file) {
        let (kind, mut der) = section.map_err(|_| PemError::Damaged { block: labels.len() })?;
        return Ok(Zeroizing::new(match kind {
            SectionKind::PrivateKey => PrivatePkcs8KeyDer::from(der).into(),
            SectionKind::EcPrivateKey => PrivateSec1KeyDer::from(der).into(),
            SectionKind::RsaPrivateKey => PrivatePkcs1KeyDer::from(der).into(),
            _ => {
                der.zeroize();
                continue;
            }
        }));
    }
    Err(PemError::Damaged { block: labels.len() })
}

/// The labels of all blocks, in order. Refuses files that are empty or too large.
fn labels(file: &[u8]) -> Result<Vec<String>, PemError> {
    if file.len() > MAX_FILE_LEN {
        return Err(PemError::TooLarge { length: file.len() });
    }
    if file.is_empty() {
        return Err(PemError::Empty);
    }
    let mut labels = Vec::new();
    for line in file.split(|&byte| matches!(byte, b'\n' | b'\r')) {
        // The parser would skip an indented block, or one behind other text. It is refused here as well.
        let Some(at) = line.windows(BEGIN.len()).position(|window| window == BEGIN) else {
            continue;
        };
        let label = line.get(at.saturating_add(BEGIN.len())..).unwrap_or_default();
        let label = String::from_utf8_lossy(label.get(..label.len().min(64)).unwrap_or_default());
        let label = label.trim_end().trim_end_matches('-');
        labels.push(label.chars().map(|char| if char.is_control() { '?' } else { char }).collect());
    }
    Ok(labels)
}
