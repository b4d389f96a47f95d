//! The key of one direction, through its updates (RFC 8446, sections 5.3 and 7.2).

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::{CipherSuite, ConnectionTrafficSecrets, Error, SupportedCipherSuite};
use zeroize::Zeroizing;

use crate::error::FatalError;
use crate::frame::{HEADER_LEN, TAG_LEN};

/// The algorithms that the handshake negotiated.
#[derive(Clone, Copy)]
pub(crate) struct Suite {
    aead: &'static Algorithm,
    hkdf: hkdf::Algorithm,
    /// The most records that one key may encrypt.
    confidentiality_limit: u64,
}

impl Suite {
    /// `None` for a suite of another TLS version, or one that is never offered.
    pub(crate) fn new(suite: SupportedCipherSuite) -> Option<Self> {
        let suite = suite.tls13()?;
        let (aead, hkdf) = match suite.common.suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => (&AES_128_GCM, HKDF_SHA256),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => (&AES_256_GCM, HKDF_SHA384),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => (&CHACHA20_POLY1305, HKDF_SHA256),
            _ => return None,
        };
        Some(Self { aead, hkdf, confidentiality_limit: suite.common.confidentiality_limit })
    }
}

/// A traffic secret. On the heap, so that there is one copy of it, which is zeroed when it is dropped.
pub(crate) struct TrafficSecret(Zeroizing<Vec<u8>>);

impl TrafficSecret {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(Zeroizing::new(secret.to_vec()))
    }

    fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// The AEAD key of one direction, and the sequence number of its next record.
pub(crate) struct TrafficKey {
    suite: Suite,
    /// The next key is derived from it.
    secret: TrafficSecret,
    key: LessSafeKey,
    pub(crate) iv: [u8; NONCE_LEN],
    pub(crate) seq: u64,
}

impl TrafficKey {
    /// The key that rustls uses, derived from the secret that it logged.
    ///
    /// # Errors
    /// When rustls uses another key: it has processed a KeyUpdate after the handshake.
    pub(crate) fn from_handshake(
        suite: Suite,
        secret: TrafficSecret,
        (seq, extracted): &(u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        let key = Self::derive(suite, secret)?;
        if !key.is_same_as(extracted)? {
            return Err(mismatch("a traffic secret"));
        }
        Ok(Self { seq: *seq, ..key })
    }

    /// Derives key and IV from a traffic secret (section 7.3). The sequence numbers start at 0.
    pub(crate) fn derive(suite: Suite, secret: TrafficSecret) -> Result<Self, Error> {
        let key = expand_label(suite, &secret, b"key", suite.aead.key_len())?;
        let iv = expand_label(suite, &secret, b"iv", NONCE_LEN)?;
        let key =
            UnboundKey::new(suite.aead, &key).map(LessSafeKey::new).map_err(|_| mismatch("the length of a key"))?;
        let iv = iv.as_slice().try_into().map_err(|_| mismatch("the length of an IV"))?;
        Ok(Self { suite, secret, key, iv, seq: 0 })
    }

    /// Whether rustls derived its key from the same secret.
    fn is_same_as(&self, extracted: &ConnectionTrafficSecrets) -> Result<bool, Error> {
        let (ConnectionTrafficSecrets::Aes128Gcm { iv, .. }
        | ConnectionTrafficSecrets::Aes256Gcm { iv, .. }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { iv, .. }) = extracted
        else {
            return Err(mismatch("the cipher suite"));
        };
        // Key and IV are derived from the secret alone, so the IV identifies the secret as well as the key does.
        Ok(iv.as_ref() == self.iv)
    }

    /// Whether the key may encrypt only one more record, which has to be a KeyUpdate.
    pub(crate) const fn is_at_confidentiality_limit(&self) -> bool {
        self.seq.saturating_add(1) >= self.suite.confidentiality_limit
    }

    /// Replaces the key with its next generation (section 7.2).
    pub(crate) fn update(&mut self) -> Result<(), Error> {
        let next = expand_label(self.suite, &self.secret, b"traffic upd", self.secret.as_slice().len())?;
        *self = Self::derive(self.suite, TrafficSecret(next))?;
        Ok(())
    }

    /// The nonce of the next record. The last sequence number is never used, so that none repeats.
    pub(crate) fn next_nonce(&mut self) -> Option<Nonce> {
        let next = self.seq.checked_add(1)?;
        let mut nonce = self.iv;
        for (byte, seq) in nonce.iter_mut().rev().zip(self.seq.to_le_bytes()) {
            *byte ^= seq;
        }
        self.seq = next;
        Some(Nonce::assume_unique_for_key(nonce))
    }

    /// Encrypts `content` into `ciphertext`, which has the same length, and the content type into `type_and_tag`, which has
    /// room for both.
    pub(crate) fn seal(
        &mut self,
        header: &[u8; HEADER_LEN],
        content: &[u8],
        ciphertext: &mut [u8],
        content_type: u8,
        type_and_tag: &mut [u8],
    ) -> Result<(), Error> {
        let nonce = self.next_nonce().ok_or(Error::EncryptError)?;
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(header), content, ciphertext, &[content_type], type_and_tag)
            .map_err(|_| Error::EncryptError)
    }

    /// Decrypts a record into `space`, which is as long as `ciphertext`.
    pub(crate) fn open_into(
        &mut self,
        header: &[u8; HEADER_LEN],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        space: &mut [u8],
    ) -> Result<(), FatalError> {
        let nonce = self.next_nonce().ok_or_else(FatalError::not_decrypted)?;
        self.key
            .open_separate_gather(nonce, Aad::from(header), ciphertext, tag, space)
            .map_err(|_| FatalError::not_decrypted())
    }

    /// Decrypts a record in place.
    pub(crate) fn open_in_place(
        &mut self,
        header: &[u8; HEADER_LEN],
        ciphertext: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), FatalError> {
        let nonce = self.next_nonce().ok_or_else(FatalError::not_decrypted)?;
        let decrypted = self.key.open_in_place_separate_tag(nonce, Aad::from(header), tag, ciphertext);
        decrypted.map(|_| ()).map_err(|_| FatalError::not_decrypted())
    }
}

/// HKDF-Expand-Label with an empty context (section 7.1).
fn expand_label(suite: Suite, secret: &TrafficSecret, label: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    const PREFIX: &[u8] = b"tls13 ";
    let (Ok(output_len), Ok(label_len)) = (u16::try_from(len), u8::try_from(PREFIX.len() + label.len())) else {
        return Err(mismatch("the length of a label"));
    };
    let info: [&[u8]; 5] = [&output_len.to_be_bytes(), &[label_len], PREFIX, label, &[0]];
    let mut output = Zeroizing::new(vec![0; len]);
    Prk::new_less_safe(suite.hkdf, secret.as_slice())
        .expand(&info, OutputLen(len))
        .and_then(|okm| okm.fill(&mut output))
        .map_err(|_| mismatch("the length of a derived key"))?;
    Ok(output)
}

struct OutputLen(usize);

impl KeyType for OutputLen {
    fn len(&self) -> usize {
        self.0
    }
}

fn mismatch(what: &str) -> Error {
    Error::General(format!("{what} does not fit its cipher suite"))
}

#[cfg(test)]
#[path = "traffic_key_for_tests.rs"]
mod for_tests;
