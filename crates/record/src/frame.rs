//! The format of a record (RFC 8446, sections 5.1, 5.2 and 5.4).

use aws_lc_rs::aead::MAX_TAG_LEN;
use rustls::{AlertDescription, ContentType, Error, InvalidMessage, PeerMisbehaved};

use crate::error::FatalError;

pub(crate) const HEADER_LEN: usize = 5;
/// The longest content of one record, without its content type (section 5.1).
pub(crate) const MAX_PLAINTEXT_LEN: usize = 1 << 14;
/// The longest payload behind a header (section 5.2).
const MAX_CIPHERTEXT_LEN: usize = MAX_PLAINTEXT_LEN + 256;
/// The content type at the end of each inner plaintext.
pub(crate) const CONTENT_TYPE_LEN: usize = 1;
/// The authentication tag, which has this length in every suite.
pub(crate) const TAG_LEN: usize = MAX_TAG_LEN;

/// The length of the record at the start of `bytes`, including its header; `None` if the header is incomplete.
#[must_use]
pub fn record_len(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [_, _, _, high, low, ..] => Some(HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

/// The header of an encrypted record. It always reads application data of TLS 1.2 (section 5.2).
pub(crate) fn encode_header(payload_len: usize) -> Result<[u8; HEADER_LEN], Error> {
    let [high, low] = u16::try_from(payload_len).map_err(|_| Error::EncryptError)?.to_be_bytes();
    Ok([u8::from(ContentType::ApplicationData), 3, 3, high, low])
}

/// The length of the payload that a header announces, if such a record is allowed.
pub(crate) fn decode_header(header: [u8; HEADER_LEN]) -> Result<usize, FatalError> {
    let [content_type, major, _, high, low] = header;
    // After the handshake every record is encrypted. Another type may have been injected by an attacker on the network.
    if content_type != u8::from(ContentType::ApplicationData) {
        return Err(FatalError::inappropriate(ContentType::from(content_type)));
    }
    if major != 3 {
        return Err(FatalError::malformed(InvalidMessage::UnknownProtocolVersion));
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        len if len > MAX_CIPHERTEXT_LEN => {
            Err(FatalError::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord))
        }
        // Too short for the output of an AEAD.
        len if len < CONTENT_TYPE_LEN + TAG_LEN => Err(FatalError::not_decrypted()),
        len => Ok(len),
    }
}

/// Splits a decrypted payload into content type and content, and removes the padding (section 5.4).
pub(crate) fn decode_inner_plaintext(decrypted: &[u8]) -> Result<(ContentType, &[u8]), FatalError> {
    if decrypted.len() > MAX_PLAINTEXT_LEN + CONTENT_TYPE_LEN {
        return Err(FatalError::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord));
    }
    match decrypted.iter().rposition(|byte| *byte != 0).and_then(|end| decrypted.get(..=end)?.split_last()) {
        Some((content_type, content)) => Ok((ContentType::from(*content_type), content)),
        None => Err(FatalError::misbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext)),
    }
}
