//! One direction's key, from one update to the next (RFC 8446, sections 5.3 and 7.2).

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::{AlertDescription, CipherSuite, ConnectionTrafficSecrets, Error, SupportedCipherSuite};
use zeroize::Zeroizing;

use super::message::MAX_KEY_UPDATES;
use super::secrets::Secret;
use super::{Fatal, HEADER, TAG};

/// What the handshake agreed on.
#[derive(Clone, Copy)]
pub(crate) struct Suite {
    aead: &'static Algorithm,
    hkdf: aws_lc_rs::hkdf::Algorithm,
    /// How many records a key seals at most.
    limit: u64,
}

impl Suite {
    /// `None` for a suite of another version, or one that is not offered.
    pub(super) fn new(suite: SupportedCipherSuite) -> Option<Self> {
        let suite = suite.tls13()?;
        let (aead, hkdf) = match suite.common.suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => (&AES_128_GCM, HKDF_SHA256),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => (&AES_256_GCM, HKDF_SHA384),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => (&CHACHA20_POLY1305, HKDF_SHA256),
            _ => return None,
        };
        Some(Self { aead, hkdf, limit: suite.common.confidentiality_limit })
    }
}

/// A key, and how far it has been used.
pub(crate) struct TrafficKey {
    suite: Suite,
    /// What the next key is made from.
    secret: Secret,
    key: LessSafeKey,
    pub(super) iv: [u8; NONCE_LEN],
    /// The number of the next record.
    pub(super) sequence: u64,
}

impl TrafficKey {
    /// The key that rustls opens records with, made from `secret` or one that came after it.
    pub(super) fn reading(
        suite: Suite,
        secret: Secret,
        (sequence, theirs): (u64, &ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        let mut key = Self::first(suite, secret)?;
        // With the end of the handshake, updates of the peer's key may have come. rustls bounds how many.
        for _ in 0..=MAX_KEY_UPDATES {
            if key.is(theirs)? {
                key.sequence = sequence;
                return Ok(key);
            }
            key.update()?;
        }
        Err(refused("the peer's secret"))
    }

    /// The key that we go on to seal records with, and whether an update of it is due.
    ///
    /// When rustls has made another one, the record that says so was not sent: rustls sends it with the next data. So it has not
    /// been used for anything that left; we begin with the first key, and its first record.
    pub(super) fn writing(
        suite: Suite,
        secret: Secret,
        (sequence, theirs): (u64, &ConnectionTrafficSecrets),
    ) -> Result<(Self, bool), Error> {
        let mut key = Self::first(suite, secret)?;
        let update_due = !key.is(theirs)?;
        if !update_due {
            key.sequence = sequence;
        }
        Ok((key, update_due))
    }

    fn first(suite: Suite, secret: Secret) -> Result<Self, Error> {
        let (key, iv) = derive(suite, &secret)?;
        Ok(Self { suite, secret, key: bind(suite, &key)?, iv, sequence: 0 })
    }

    /// Whether it is the same as rustls'.
    fn is(&self, theirs: &ConnectionTrafficSecrets) -> Result<bool, Error> {
        let (ConnectionTrafficSecrets::Aes128Gcm { iv, .. }
        | ConnectionTrafficSecrets::Aes256Gcm { iv, .. }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { iv, .. }) = theirs
        else {
            return Err(refused("a suite that was not offered"));
        };
        // Both are made from the secret alone; an IV is as good as the key to tell secrets apart.
        Ok(iv.as_ref() == self.iv)
    }

    /// Whether only one record is left to it: the one which says that another key follows.
    pub(super) const fn is_worn(&self) -> bool {
        self.sequence.saturating_add(1) >= self.suite.limit
    }

    /// The next generation of it.
    pub(super) fn update(&mut self) -> Result<(), Error> {
        let next = expand(self.suite, &self.secret, b"traffic upd", self.secret.get().len())?;
        *self = Self::first(self.suite, Secret(next))?;
        Ok(())
    }

    /// The nonce of the next record. Each number is used once: the last one is never given out, so that none comes again.
    pub(super) fn nonce(&mut self) -> Option<Nonce> {
        let next = self.sequence.checked_add(1)?;
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().rev().zip(self.sequence.to_le_bytes()) {
            *byte ^= number;
        }
        self.sequence = next;
        Some(Nonce::assume_unique_for_key(nonce))
    }

    /// Seals `content` and its type into `ciphertext`, which is as long, and `rest`, which has room for type and tag.
    pub(super) fn seal(
        &mut self,
        header: &[u8; HEADER],
        content: &[u8],
        ciphertext: &mut [u8],
        kind: u8,
        rest: &mut [u8],
    ) -> Result<(), Error> {
        let nonce = self.nonce().ok_or(Error::EncryptError)?;
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(header), content, ciphertext, &[kind], rest)
            .map_err(|_| Error::EncryptError)
    }

    /// Opens a record into `room`, which is as long as `ciphertext`.
    pub(super) fn open_to(
        &mut self,
        header: &[u8; HEADER],
        ciphertext: &[u8],
        tag: &[u8; TAG],
        room: &mut [u8],
    ) -> Result<(), Fatal> {
        let nonce = self.nonce().ok_or_else(not_opened)?;
        self.key.open_separate_gather(nonce, Aad::from(header), ciphertext, tag, room).map_err(|_| not_opened())
    }

    /// Opens a record where it is.
    pub(super) fn open(&mut self, header: &[u8; HEADER], text: &mut [u8], tag: &[u8; TAG]) -> Result<(), Fatal> {
        let nonce = self.nonce().ok_or_else(not_opened)?;
        let opened = self.key.open_in_place_separate_tag(nonce, Aad::from(header), tag, text);
        opened.map(|_| ()).map_err(|_| not_opened())
    }
}

/// Key and IV of a secret (section 7.3).
fn derive(suite: Suite, secret: &Secret) -> Result<(Zeroizing<Vec<u8>>, [u8; NONCE_LEN]), Error> {
    let key = expand(suite, secret, b"key", suite.aead.key_len())?;
    let iv = expand(suite, secret, b"iv", NONCE_LEN)?;
    Ok((key, iv.as_slice().try_into().map_err(|_| refused("the length of an IV"))?))
}

/// HKDF-Expand-Label without a context (section 7.1).
fn expand(suite: Suite, secret: &Secret, label: &[u8], length: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (wide, narrow) = (u16::try_from(length), u8::try_from(PREFIX.len() + label.len()));
    let (Ok(wide), Ok(narrow)) = (wide, narrow) else {
        return Err(refused("the length of a label"));
    };
    let info: [&[u8]; 5] = [&wide.to_be_bytes(), &[narrow], PREFIX, label, &[0]];
    let mut out = Zeroizing::new(vec![0; length]);
    Prk::new_less_safe(suite.hkdf, secret.get())
        .expand(&info, Length(length))
        .and_then(|okm| okm.fill(&mut out))
        .map_err(|_| refused("the derivation of a key"))?;
    Ok(out)
}

const PREFIX: &[u8] = b"tls13 ";

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn bind(suite: Suite, key: &[u8]) -> Result<LessSafeKey, Error> {
    UnboundKey::new(suite.aead, key).map(LessSafeKey::new).map_err(|_| refused("the length of a key"))
}

fn refused(what: &str) -> Error {
    Error::General(format!("{what} does not fit"))
}

/// Not said: what did not fit (section 5.2).
const fn not_opened() -> Fatal {
    Fatal::new(AlertDescription::BadRecordMac, Error::DecryptError)
}

#[cfg(test)]
#[path = "key_for_tests.rs"]
mod for_tests;
